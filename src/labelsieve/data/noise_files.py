"""Noise files: wrong labels, with or without images, to be applied to copies of the same images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, shown
from labelsieve.core.files import check_reachable, write_atomically
from labelsieve.core.progress import Progress
from labelsieve.data.images import Images, LabelledImages, UnreadableImageError
from labelsieve.data.labels import normalise
from labelsieve.data.tags.records import TaggedImages

# Metadata key of the parameters of the noise.
METADATA = b"labelsieve"
LABEL, CLEAN_LABEL = "label", "clean_label"
TAGS, CLEAN_TAGS = "tags", "clean_tags"
"""Columns of the noisy and the true labels, or of the tags for several labels per image."""
# Maximum rows and bytes of images per row group of the written file.
_GROUP_ROWS, _GROUP_BYTES = 1000, 32 * 1024 * 1024
_ImagesT = TypeVar("_ImagesT", LabelledImages, TaggedImages)


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFile:
    """The contents of a noise file, without the images.

    Attributes:
        ids: The N ids.
        class_names: The K names.
        given: The noisy labels, (N,), int64, or the noisy tags, (N, K), bool.
        clean: The labels or tags before the noise, of the same shape.
        about: The metadata of the file, see :func:`about_noise`.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    given: NDArray[Any]
    clean: NDArray[Any]
    about: Mapping[str, Any]


def read_noise(path: str | Path, *, tags: bool = False) -> NoiseFile:
    """Reads a noise file of `labelsieve noise`, with or without images.

    Args:
        path: The file.
        tags: Whether it has several labels per image, as with `--kind tags`.

    Raises:
        DataError: The file does not exist or is not a noise file.
    """
    what, option = ("noise of tags", "--kind tags ") if tags else ("noise", "")
    advice = f"make one with: labelsieve noise SOURCE {option}--labels-only"
    check_reachable(path, DataError)
    if not Path(path).is_file():
        raise DataError(f"expected a file of {what}, {path} does not exist; {advice}")
    try:
        with pq.ParquetFile(path) as file:
            return _contents(file, tags=tags)
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise DataError(f"{path} is no file of {what}; {advice}") from None


def _contents(file: Any, *, tags: bool) -> NoiseFile:
    from datasets import Features

    about = json.loads((file.schema_arrow.metadata or {})[METADATA])
    ids = tuple(file.read(columns=["id"]).column(0).to_pylist())
    if tags:
        names = tuple(map(str, about["class_names"]))
        given, clean = (_bits(file.read(columns=[name]).column(0).to_pylist(), names) for name in (TAGS, CLEAN_TAGS))
    else:
        names = tuple(Features.from_arrow_schema(file.schema_arrow)[LABEL].names)
        given, clean = (file.read(columns=[name]).column(0).to_numpy() for name in (LABEL, CLEAN_LABEL))
    return NoiseFile(ids=ids, class_names=names, given=given, clean=clean, about=about)


def _bits(lists: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    index_of = {name: index for index, name in enumerate(names)}
    bits = np.zeros((len(lists), len(names)), dtype=bool)
    for row, tags in enumerate(lists):
        bits[row, [index_of[tag] for tag in tags]] = True
    return bits


def apply_noise(images: _ImagesT, path: str | Path) -> _ImagesT:
    """Applies a noise file to the images that it was made for, or to a subset of them.

    Ids, class names and given labels identify the images; the given labels must be the clean labels of the file.
    Different pixels, as in smaller copies, only add a note, because an image may be encoded in many ways.

    Args:
        images: N images; their given labels or tags count as correct and become the `truth` of the result.
        path: File to read.

    Returns:
        The same images with the noisy labels or tags as given ones.

    Raises:
        DataError: The file is not a noise file, or belongs to other images.
    """
    has_tags = isinstance(images, TaggedImages)
    noise: NoiseFile = read_noise(path, tags=has_tags)
    given = _given(images, noise, f"{path} belongs to other images")
    text = _noise_text(noise, Path(path).name, tags=has_tags)
    notes: tuple[str, ...] = (*images.notes, text, *_pixel_notes(images, noise))
    if isinstance(images, TaggedImages):
        return replace(images.with_tags(given, truth=images.tags), notes=notes)
    return replace(images.with_labels(given, truth=images.labels), notes=notes)


def _given(images: LabelledImages | TaggedImages, noise: NoiseFile, where: str) -> NDArray[Any]:
    """Returns the noisy labels or tags of the images, whose given ones must be those before the noise."""
    order, rows = _class_order(images, noise, where), _rows(images, noise, where)
    index: Any = np.ix_(rows, order) if isinstance(images, TaggedImages) else rows
    _check_clean(images, noise.clean[index], where)
    return np.asarray(noise.given[index])


def _class_order(images: LabelledImages | TaggedImages, noise: NoiseFile, where: str) -> NDArray[np.int64]:
    """Returns the index of each class in the file; only classes of tags may be in another order."""
    names, file_names = ([normalise(name) for name in each.class_names] for each in (images, noise))
    if not isinstance(images, TaggedImages):
        if names != file_names:
            raise DataError(
                f"{where}: expected {_range(noise.class_names)}, got {_range(images.class_names)}; take the data set "
                "and split that it was made for"
            )
        return np.arange(len(names))
    classes = {name: index for index, name in enumerate(file_names)}
    lacking = [name for name in images.class_names if normalise(name) not in classes]
    if lacking or len(classes) != len(names):
        problem = f'it has no class "{shown(lacking[0])}"' if lacking else "it has more classes"
        raise DataError(f"{where}: {problem}; take the data set and split that it was made for")
    return np.array([classes[name] for name in names], dtype=np.int64)


def _rows(images: Images, noise: NoiseFile, where: str) -> NDArray[np.int64]:
    """Returns the row of each image in the file, (N,)."""
    row_of = {name: row for row, name in enumerate(noise.ids)}
    unknown = next((name for name in images.ids if name not in row_of), None)
    if unknown is not None:
        raise DataError(
            f'{where}: it has no image "{shown(unknown)}"; take the data set and split that it was made for'
        )
    return np.array([row_of[name] for name in images.ids], dtype=np.int64)


def _check_clean(images: LabelledImages | TaggedImages, clean: NDArray[Any], where: str) -> None:
    given = images.tags if isinstance(images, TaggedImages) else images.labels
    differ = np.flatnonzero((clean != given).reshape(len(images), -1).any(axis=1))
    if not len(differ):
        return
    first = int(differ[0])
    name = shown(images.ids[first])
    if isinstance(images, TaggedImages):
        raise DataError(
            f'{where}: the tags of "{name}" are others there ({len(differ):,} images differ); take the data set, '
            "split and column of tags that it was made for"
        )
    expected, got = (shown(images.class_names[label]) for label in (clean[first], images.labels[first]))
    raise DataError(
        f'{where}: expected the label {expected} for "{name}", got {got} ({len(differ):,} differ); take the data set, '
        "split and column of labels that it was made for"
    )


def _pixel_notes(images: Images, noise: NoiseFile) -> list[str]:
    """Returns a note if the images have the ids of a noise file, but different pixels."""
    if len(images) != len(noise.ids) or images.pixels_fingerprint == noise.about.get("pixels_fingerprint"):
        return []
    return ["the images have the ids of those that the noise was drawn for, but are not the same byte for byte"]


def _range(names: Sequence[str]) -> str:
    return f"{len(names)} classes, {shown(names[0])} to {shown(names[-1])}"


def _noise_text(noise: NoiseFile, file: str, *, tags: bool) -> str:
    parameters = noise.about.get("noise")
    values = parameters if isinstance(parameters, Mapping) else {}
    kind, rate, omit, add, seed = (shown(values.get(name)) for name in ("kind", "rate", "omit", "add", "seed"))
    if tags:
        return f"tags out of {file}: omit {omit}, add {add}, seed {seed}"
    if values is not parameters:
        return f"labels out of {file}: noise of an unknown kind"
    return f"labels out of {file}: {kind} noise at rate {rate} with seed {seed}"


def write_noise(
    images: LabelledImages | TaggedImages,
    path: str | Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    with_images: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Writes a Parquet file that the loaders read with `truth_column="clean_label"`, or `"clean_tags"` for tags.

    Columns: `id`; `image`, the encoded images; `label`, the given labels; `clean_label`, the truth; for several labels
    per image, lists of names in `tags` and `clean_tags` instead. Images are copied unchanged, one at a time; a missing
    image becomes an empty one, which is later reported as unreadable. Without images, the file can be applied to
    another copy of the same data: `load_images(..., noise=path)`. The metadata identify the data, see
    :func:`about_noise`.

    Args:
        images: Images with noisy labels or tags, and the truth.
        path: File to write, either completely or not at all.
        parameters: The parameters of the noise, such as kind, rate, seed and exact.
        with_images: False leaves out the column `image`.
        progress: Receives progress.

    Raises:
        DataError: The images have no truth.
        RunError: The file cannot be written.
    """
    if images.truth is None:
        what = "tags" if isinstance(images, TaggedImages) else "labels"
        raise DataError(f"expected images with true {what} beside the noisy ones, got none; inject noise first")
    schema, path = _schema(images, with_images=with_images), Path(path)
    about = json.dumps(about_noise(images, parameters), separators=(",", ":"))
    schema = schema.with_metadata({**schema.metadata, METADATA: about.encode()})
    with (
        (progress or Progress()).task("writing images", total=len(images), unit="images", brief=True) as advance,
        write_atomically(path) as part,
        pq.ParquetWriter(part, schema) as writer,
    ):
        for rows in _groups(images, with_images=with_images):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            advance(len(rows))
    return path


def about_noise(images: LabelledImages | TaggedImages, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the metadata of a noise file, stored as JSON under the key `labelsieve` of its Arrow schema.

    Args:
        images: N images with noisy labels or tags, and the truth.
        parameters: The parameters of the noise.

    Returns:
        `noise`, the `parameters`; `images`, N; `changed`, the number of wrong labels; `data_fingerprint`, of the images
        with their true labels; and `pixels_fingerprint`, of the images only. For tags, `omitted` and `added` instead of
        `changed`, and also `kind` and `class_names`.
    """
    noise = {"noise": None if parameters is None else dict(parameters), "images": len(images)}
    pixels = {"pixels_fingerprint": images.pixels_fingerprint}
    if not isinstance(images, TaggedImages):
        true_labels = images.true_labels
        changed = int((true_labels != images.labels).sum())
        clean = images.with_labels(true_labels)
        return {**noise, "changed": changed, "data_fingerprint": clean.fingerprint, **pixels}
    tags, true_tags = images.tags, images.true_tags
    return {
        "kind": "tags",
        **noise,
        "class_names": list(images.class_names),
        "omitted": int((true_tags & ~tags).sum()),
        "added": int((tags & ~true_tags).sum()),
        "data_fingerprint": images.with_tags(true_tags).fingerprint,
        **pixels,
    }


def _schema(images: LabelledImages | TaggedImages, *, with_images: bool) -> Any:
    from datasets import ClassLabel, Features, Value
    from datasets import Image as ImageFeature
    from datasets import Sequence as Lists

    image_column = {"image": ImageFeature()} if with_images else {}
    if isinstance(images, TaggedImages):
        columns = dict.fromkeys((TAGS, CLEAN_TAGS), Lists(Value("string")))
    else:
        columns = dict.fromkeys((LABEL, CLEAN_LABEL), ClassLabel(names=list(images.class_names)))
    return Features({"id": Value("string"), **image_column, **columns}).arrow_schema


def _values(images: LabelledImages | TaggedImages) -> Iterator[dict[str, Any]]:
    """Yields the noisy and the true label of each image, or the names of its tags."""
    if not isinstance(images, TaggedImages):
        for label, true_label in zip(images.labels.tolist(), images.true_labels.tolist(), strict=True):
            yield {LABEL: label, CLEAN_LABEL: true_label}
        return
    names = np.array(images.class_names, dtype=object)
    for tags, true_tags in zip(images.tags, images.true_tags, strict=True):
        yield {TAGS: names[tags].tolist(), CLEAN_TAGS: names[true_tags].tolist()}


def _groups(images: LabelledImages | TaggedImages, *, with_images: bool) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row, (name, values) in enumerate(zip(images.ids, _values(images), strict=True)):
        group.append({"id": name, **values})
        if with_images:
            group[-1]["image"] = _encoded(images, row)
            size += len(group[-1]["image"]["bytes"])
        if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _encoded(images: Images, row: int) -> dict[str, Any]:
    """Returns the encoded image with its file name only, so that its folder on this machine stays private."""
    data, path = (None, None) if images.boxes is not None else images.cell(row)
    if data is None:
        with suppress(UnreadableImageError):
            data = images.encoded(row) if images.boxes is None else images.cut_out(row)
    return {"bytes": data or b"", "path": os.path.basename(path or "") or None}
