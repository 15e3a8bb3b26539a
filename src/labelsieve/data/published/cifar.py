"""CIFAR-10 and CIFAR-100 in their archives for Python, and CIFAR-N, which has human labels of the same images."""

from __future__ import annotations

import posixpath
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, first_line, listed
from labelsieve.data.published.layout import AGAIN, Labels, PublishedSplit, home_of, indices, readable
from labelsieve.data.published.pickles import read_pickle, read_torch
from labelsieve.data.sources.file_kinds import listing

_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class _Archive:
    """The parts of an archive.

    Attributes:
        title: Name of the data set.
        folder: Folder in the archive.
        packed: File name of the archive.
        meta: File of the class names.
        parts: Files of each split.
        keys: For each column of labels, its key in those files, and the key of its class names in `meta`.
    """

    title: str
    folder: str
    packed: str
    meta: str
    parts: Mapping[str, Sequence[str]]
    keys: Mapping[str, tuple[str, str]]


_CIFAR10 = _Archive(
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    packed="cifar-10-python.tar.gz",
    meta="batches.meta",
    parts={"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
    keys={"label": ("labels", "label_names")},
)
_CIFAR100 = _Archive(
    title="CIFAR-100",
    folder="cifar-100-python",
    packed="cifar-100-python.tar.gz",
    meta="meta",
    parts={"train": ["train"], "test": ["test"]},
    keys={
        "label": ("fine_labels", "fine_label_names"),
        "coarse_label": ("coarse_labels", "coarse_label_names"),
    },
)


def read_cifar10(path: Path, split: str) -> PublishedSplit:
    """Reads CIFAR-10."""
    return _read_archive(_CIFAR10, path, split)


def read_cifar100(path: Path, split: str) -> PublishedSplit:
    """Reads CIFAR-100, with its 20 groups of classes as the column `coarse_label`."""
    return _read_archive(_CIFAR100, path, split)


def read_cifar10n(path: Path, split: str) -> PublishedSplit:
    """Reads CIFAR-10N: three human labels per training image, and their aggregations."""
    columns = dict.fromkeys(("worse_label", "aggre_label", "random_label1", "random_label2", "random_label3"), "label")
    return _read_human(_CIFAR10, "CIFAR-10", path, split, columns={**columns, "clean_label": "label"})


def read_cifar100n(path: Path, split: str) -> PublishedSplit:
    """Reads CIFAR-100N: one human label per training image."""
    columns = {"noisy_label": "label", "clean_label": "label"}
    coarse = {"noisy_coarse_label": "coarse_label", "clean_coarse_label": "coarse_label"}
    return _read_human(_CIFAR100, "CIFAR-100", path, split, columns={**columns, **coarse})


def _read_archive(archive: _Archive, path: Path, split: str) -> PublishedSplit:
    names = [archive.meta, *archive.parts[split]]
    folder, contents = _contents(archive, path, names)
    meta, *parts = (read_pickle(data, where=folder / name) for name, data in zip(names, contents, strict=True))
    pixels = [_pixels(part, where=folder / name) for name, part in zip(names[1:], parts, strict=True)]
    labels = {}
    for column, (key, key_of_names) in archive.keys.items():
        classes = _class_names(meta, key_of_names, where=folder / archive.meta)
        values = []
        for name, part, images in zip(names[1:], parts, pixels, strict=True):
            values.append(_labels(part, key, classes, where=folder / name, count=len(images)))
        labels[column] = Labels(values=np.concatenate(values), names=classes)
    return PublishedSplit(folder=folder, images=np.concatenate(pixels), labels=labels)


def _contents(archive: _Archive, path: Path, names: Sequence[str]) -> tuple[Path, list[bytes]]:
    """Returns the path of the archive, packed or unpacked, and the contents of some of its files."""
    candidates = [path, path / archive.packed, path / "data" / archive.packed]
    inside = [archive.folder, f"data/{archive.folder}"]
    unpacked = any((candidate / archive.meta).is_file() for candidate in (path, *(path / name for name in inside)))
    packed = next((candidate for candidate in candidates if candidate.is_file()), None)
    if packed is not None and not unpacked:
        return packed, _unpack(packed, [f"{archive.folder}/{name}" for name in names])
    home = home_of(path, title=archive.title, files=names, inside=inside)
    with listing(home):
        return home, [(home / name).read_bytes() for name in names]


def _unpack(path: Path, names: Sequence[str]) -> list[bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as packed:
            for member in packed:
                name = posixpath.normpath(member.name)
                file = packed.extractfile(member) if name in names and member.isfile() else None
                if file is not None:
                    contents[name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"expected an archive in {path}, which cannot be read: {first_line(error)}; {AGAIN}") from None
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"expected {listed(names)} in {path}; missing: {listed(missing)}; {AGAIN}")
    return [contents[name] for name in names]


def _pixels(part: Mapping[str, Any], *, where: Path) -> NDArray[np.uint8]:
    """Returns images, shape (N, 32, 32, 3), from rows with all red values, then all green, then all blue ones."""
    data = _entry(part, "data", where=where)
    width = 3 * _SIDE * _SIDE
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (width,):
        actual = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"expected pixels as uint8 of shape (N, {width}) in {where}, found {actual}; {AGAIN}")
    return data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _class_names(meta: Mapping[str, Any], key: str, *, where: Path) -> tuple[str, ...]:
    names = _entry(meta, key, where=where)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"expected a list of class names as {key} in {where}, found something else; {AGAIN}")
    return tuple(map(readable, names))


def _labels(record: Mapping[str, Any], key: str, names: Sequence[str], *, where: Path, count: int) -> NDArray[np.int64]:
    values = indices(_entry(record, key, where=where), names=names, where=f"{key} of {where}")
    if len(values) != count:
        raise DataError(
            f"expected {count:,} labels in {key} of {where}, one for each image, found {len(values):,}; {AGAIN}"
        )
    return values


def _entry(record: Mapping[str, Any], key: str, *, where: object) -> Any:
    if key not in record:
        raise DataError(f'expected an entry "{key}" in {where}, found {listed(record) or "none"}; {AGAIN}')
    return record[key]


def _read_human(archive: _Archive, name: str, path: Path, split: str, *, columns: Mapping[str, str]) -> PublishedSplit:
    """Reads images with human labels; `columns` maps each column to the column of the archive with the same classes.

    Only the training images have human labels; the test set has the clean labels.
    """
    home = home_of(path, title=f"{name}N", files=[f"{name}_human.pt"], inside=["data"])
    contents = _read_archive(archive, path, split)
    if split == "test":
        return contents
    file = home / f"{name}_human.pt"
    record, labels = read_torch(file), {}
    for column, kind in columns.items():
        classes = contents.labels[kind].names
        labels[column] = Labels(
            values=_labels(record, column, classes, where=file, count=len(contents.images)), names=classes
        )
    truths = tuple(column for column in columns if column.startswith("clean"))
    for column in truths:
        _check_same(
            labels[column], contents.labels[columns[column]], where=f"{column} of {file}", archive=contents.folder
        )
    return replace(contents, labels=labels, given=next(iter(columns)), truths=truths)


def _check_same(stated: Labels, expected: Labels, *, where: str, archive: Path) -> None:
    """Checks that two sources of the same labels agree; otherwise, the images are in another order."""
    wrong = np.flatnonzero(stated.values != expected.values)
    if len(wrong):
        row = int(wrong[0])
        stated_name, expected_name = (labels.names[labels.values[row]] for labels in (stated, expected))
        raise DataError(
            f"expected {where} to agree with {archive}, but {len(wrong):,} of {len(expected.values):,} labels differ "
            f'(first: row {row}, "{stated_name}" instead of "{expected_name}"); take both from their official pages'
        )
