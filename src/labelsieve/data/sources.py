"""Loading labelled images from wherever they lie."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.columns import Columns, Table, holds_pictures
from labelsieve.data.folders import absolute_paths, relative_path, text_paths
from labelsieve.data.images import LabelledImages
from labelsieve.data.in_memory import read_memory
from labelsieve.data.labels import (
    LabelColumn,
    check_complete,
    class_name_notes,
    class_size_notes,
    read_labels,
    renamed,
    settle_class_names,
    to_indices,
)
from labelsieve.data.published.base import named_source
from labelsieve.data.ranges import with_ranges
from labelsieve.data.readers import read_dataset, read_path
from labelsieve.errors import DataError, SettingsError
from labelsieve.validation import Limit, Seed, check_value

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 64
# Of a file larger than two of these only the two ends are hashed, so that huge folders stay quick.
_END = 64 * 1024
# How BMP, PPM and TIFF begin.
_UNCOMPRESSED = (b"BM", b"P5", b"P6", b"II*\0", b"MM\0*")


def load_images(
    source: Any,
    *,
    labels: Any = None,
    image_column: str | None = None,
    label_column: str | None = None,
    truth_column: str | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    noise: str | Path | None = None,
) -> LabelledImages:
    """Loads images with a given label each. Pictures stay encoded on disk.

    None is decoded here but, where values are not 0 to 255, some, for the range that becomes black to white.

    Args:
        source: A folder of class folders; a CSV file (paths relative to it); a Parquet, Arrow or Feather file with
            pictures or paths; a folder written by `Dataset.save_to_disk`; `NAME:PATH`, a published data set in its
            official layout (docs/data-sets.md); a Hub id `name/dataset`, or `name/dataset:configuration`; a
            `datasets.Dataset`; or pictures in memory: a uint8 array (N, H, W, 3) or (N, H, W), or a list of such arrays
            without N or of PIL images.
        labels: N names or whole numbers, for pictures in memory or a `datasets.Dataset` without a label column.
        image_column: Column of the pictures or paths. Like `label_column` it is guessed where only one fits.
        label_column: Column of the given labels.
        truth_column: Column of the true labels, if they are known. Only metrics read them. A published data set that
            has such a column gives it unasked.
        class_names: K names in the order of the indices, or a file of them: one a line, or a JSON list. By default
            those of the source; else the different labels, sorted. Names count as equal whatever their case, and with
            `_` and `-` for spaces. As many names as there are class folders, or names of a `ClassLabel`, rename these
            in their order; those that stay have to stand at their place.
        split: Split of a published or Hub data set, a `DatasetDict` or a saved folder; by default the only one, else
            `train`.
        limit: Take a random subset of this many rows, in the order of the data; all classes stay.
        seed: Seed of that subset.
        noise: A file that `labelsieve noise` wrote for the same images: its wrong labels become the given ones, and
            the given ones the true ones. Other images are refused.

    Returns:
        The record. Its `notes` tell what was assumed and what is odd. Its `ids` are the column `id` if there is one,
        else the relative paths of files, else row numbers. Its `contents` are 8-byte BLAKE2b hashes: of the encoded
        picture; of a compressed file over 128 KiB only of its size, first and last 64 KiB; of an id where the
        picture is missing.

    Raises:
        DataError: The source, its columns, labels or class names cannot be used. One line that says what to do.
        SettingsError: `limit` or `seed` is out of its range.

    Example:
        >>> images = load_images("photos/")  # doctest: +SKIP
        >>> images = load_images(array, labels=["cat", "dog"])  # doctest: +SKIP
    """
    check_limit(limit, seed)
    if noise is not None and truth_column is not None:
        raise SettingsError(
            "a file of noise brings the true labels, which are the given ones; leave out the truth column"
        )
    asked = Columns(image=image_column, label=label_column, truth=truth_column)
    table = _open(source, asked=asked, split=split, labels=labels)
    images = _assemble(table, labels=labels, class_names=class_names, rows=subset(len(table.rows), limit, seed))
    if noise is not None:
        from labelsieve.data.noise_files import apply_noise

        images = apply_noise(images, noise)
    images = with_ranges(images)
    if not isinstance(source, str | Path):
        return images
    arguments = {
        "source": absolute_source(source),
        "image_column": image_column,
        "label_column": label_column,
        "truth_column": truth_column,
        "class_names": None if class_names is None else list(images.class_names),
        "split": split,
        "limit": limit,
        "seed": None if limit is None else seed,
        "noise": None if noise is None else absolute_source(noise),
    }
    origin = {name: value for name, value in arguments.items() if value is not None}
    return replace(images, origin=origin)


def absolute_source(source: str | Path) -> str:
    """Returns a source as it can be loaded again from elsewhere."""
    if (named := named_source(source)) is not None:
        return str(named)
    path = os.path.abspath(Path(source).expanduser())
    return path if os.path.exists(path) else str(source)  # a Hub id stays as it is


def _open(source: Any, *, asked: Columns, split: str | None, labels: Any) -> Table:
    if isinstance(source, str | Path):
        if labels is not None:
            raise DataError("labels go with pictures in memory only; name the column of a file with label_column")
        return read_path(str(source), asked=asked, split=split)
    if any(base.__module__.split(".")[0] == "datasets" for base in type(source).__mro__):
        if labels is not None and asked.label is not None:
            raise DataError("expected either labels or label_column, got both; leave one out")
        return read_dataset(source, asked=asked, split=split, label_needed=labels is None)
    if labels is None:
        found = type(source).__name__
        raise DataError(f"expected a path, a Hub id, a data set, or pictures with labels=, got {found} without labels")
    if any((asked.image, asked.label, asked.truth, split)):
        raise DataError("pictures in memory have no columns or splits; pass labels=, and the truth to with_labels()")
    return Table(rows=read_memory(source), columns=Columns(image="image"), where="the pictures in memory")


def check_limit(limit: int | None, seed: int) -> None:
    """Raises a `SettingsError` if the size of a subset or the seed to draw it from is out of its range."""
    check_value("seed", seed, Seed)
    check_value("limit", limit, Limit)


def subset(rows: int, limit: int | None, seed: int) -> NDArray[np.int64] | None:
    """Draws `limit` of some rows, in their order, or returns None if all are to be taken."""
    if limit is None or limit >= rows:
        return None
    check_value("seed", seed, Seed)
    return np.sort(np.random.default_rng(seed).choice(rows, size=limit, replace=False)).astype(np.int64)


def _assemble(
    table: Table, *, labels: Any, class_names: Sequence[str] | str | Path | None, rows: NDArray[np.int64] | None
) -> LabelledImages:
    """Turns the rows of a source into the record; all labels are checked before `rows` are chosen."""
    if not len(table.rows):
        raise DataError(f"expected images in {table.where}, found no rows; check the source")
    paths, notes = text_paths(table), list(table.notes)
    ids = read_ids(table, paths, notes)
    names, indices, truth, note = read_given(table, ids, labels=labels, class_names=class_names)
    notes.append(note)
    pictures = _pictures(table, paths)
    if rows is not None:
        notes.append(f"a random subset of {len(rows)} of {len(ids)} images")
        pictures, ids, indices = pictures.select(rows), [ids[row] for row in rows], indices[rows]
        truth = None if truth is None else truth[rows]
    notes += [*class_name_notes(names), *class_size_notes(indices, names)]
    contents = _hash_all(pictures, ids, notes, where=table.where)
    return LabelledImages(
        dataset=pictures,
        ids=tuple(ids),
        labels=indices,
        class_names=names,
        contents=contents,
        truth=truth,
        notes=tuple(notes),
    )


class Given(NamedTuple):
    """Class names, given labels (N,), true labels (N,) or None, and a line on where the class names came from."""

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    truth: NDArray[np.int64] | None
    note: str


def read_given(
    table: Table, ids: Sequence[str], *, labels: Any, class_names: Sequence[str] | str | Path | None
) -> Given:
    """Reads the labels of a table, and the true ones if it has a column of them, as indices into class names."""
    given = _label_column(table, table.columns.label, labels=labels)
    check_complete(given, ids)  # first of all: without these labels the class names would be told wrongly
    names, note = settle_class_names(given, class_names)
    stated = class_names is not None or given.class_names is not None
    former = renamed(given, names)
    indices = to_indices(given, class_names=names, ids=ids, by_number=stated, former=former)
    if table.columns.truth is None:
        return Given(names, indices, None, note)
    true = _label_column(table, table.columns.truth, labels=None)
    truth = to_indices(true, class_names=names, ids=ids, by_number=stated, former=former)
    return Given(names, indices, truth, note)


def read_ids(table: Table, paths: list[str] | None, notes: list[str]) -> list[str]:
    """Returns the ids: the column `id`, else the relative paths, else row numbers."""
    numbers = [f"{row:07d}" for row in range(len(table.rows))]
    if table.columns.id is not None:
        ids = [str(value) for value in _column(table.rows, table.columns.id).to_pylist()]
        twice = [name for name, count in Counter(ids).items() if count > 1 or name in ("", "None")]
        if twice:
            raise DataError(
                f'expected different ids in the column "{table.columns.id}" of {table.where}, found "{twice[0]}" more '
                "than once or empty; mend or rename the column"
            )
        return ids
    if paths is None:
        return numbers
    root = str(table.folder or ".")
    ids = [relative_path(path, root) for path in paths]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        notes.append(f"{len(twice)} images are listed more than once (first: {twice[0]}), so ids are row numbers")
        return numbers
    return ids


def _column(rows: Dataset, name: str) -> Any:
    """Returns one column as an Arrow array, with the rows of a selection applied."""
    return rows.select_columns([name]).with_format("arrow")[:].column(0)


def _label_column(table: Table, name: str | None, *, labels: Any) -> LabelColumn:
    if name is None:
        values = np.asarray(labels) if hasattr(labels, "__array__") else list(labels)
        if len(values) != len(table.rows):
            raise DataError(f"expected {len(table.rows)} labels, one for each picture, got {len(values)}")
        return read_labels(values, where="labels")
    feature, where = table.rows.features[name], f'the column "{name}" of {table.where}'
    values = _column(table.rows, name)
    if table.class_names is not None:
        return read_labels(values, where=where, known=table.class_names, names_from="the class folders")
    if type(feature).__name__ == "ClassLabel" and feature.names:
        return read_labels(values, where=where, known=feature.names, names_from=f'the ClassLabel column "{name}"')
    return read_labels(values, where=where)


def _pictures(table: Table, paths: list[str] | None) -> Dataset:
    """Returns the rows with the one column `image` of undecoded pictures."""
    from datasets import Dataset, Features, Image

    column = str(table.columns.image)
    if paths is not None:
        whole = absolute_paths(paths, folder=table.folder, where=table.where)
        return Dataset.from_dict({"image": whole}, features=Features({"image": Image(decode=False)}))
    feature = table.rows.features[column]
    if not holds_pictures(feature):
        raise DataError(
            f'expected encoded pictures or paths in the column "{column}" of {table.where}, found {feature}; '
            "name another with --image-column"
        )
    rows = table.rows.select_columns([column])
    return rows if column == "image" else rows.rename_column(column, "image")


def _hash_all(pictures: Dataset, ids: Sequence[str], notes: list[str], *, where: str) -> NDArray[np.uint64]:
    """Hashes each picture, batch by batch; notes files that are missing, and refuses a source without any picture."""
    found = np.empty(len(ids), dtype=np.uint64)
    missing: list[str] = []
    row = 0
    for batch in pictures.with_format("arrow").iter(batch_size=_BATCH):
        for chunk in batch.column("image").chunks:
            encoded, paths = chunk.field("bytes"), chunk.field("path")
            for index in range(len(chunk)):
                digest = None
                if chunk[index].is_valid and encoded[index].is_valid:
                    digest = _digest(encoded[index].as_buffer())
                elif chunk[index].is_valid and paths[index].is_valid:
                    digest = _hash_file(paths[index].as_py())
                if digest is None:
                    missing.append(ids[row])
                    digest = _digest(b"missing\0" + ids[row].encode())
                found[row] = int.from_bytes(digest, "little")
                row += 1
    if len(missing) == len(ids):
        raise DataError(f'none of the {len(ids)} images of {where} was found (first: "{missing[0]}"); check the paths')
    if missing:
        notes.append(f"{len(missing)} of {len(ids)} images are missing (first: {missing[0]})")
    return found


def _digest(*parts: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _hash_file(path: str) -> bytes | None:
    """Hashes a file: all of it up to 128 KiB or if it is not compressed, else its size and both ends.

    Returns:
        None if it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            if size <= 2 * _END:
                return _digest(handle.read(2 * _END))
            head = handle.read(_END)
            if head.startswith(_UNCOMPRESSED):  # two of the same size may differ in the middle alone
                handle.seek(0)
                return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=8)).digest()
            handle.seek(size - _END)
            return _digest(str(size).encode(), b"\0", head, handle.read(_END))
    except OSError:
        return None
