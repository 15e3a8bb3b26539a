"""Files of wrong labels, with or without the images; they are applied to copies of the same images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, shown
from labelsieve.core.files import check_reachable, write_atomically
from labelsieve.core.progress import Progress
from labelsieve.data.images import Images, LabelledImages, UnreadableImageError
from labelsieve.data.labels import normalise

# Metadata key of the parameters of the noise.
METADATA = b"labelsieve"
# Maximum rows and bytes of images per row group of the written file.
_GROUP_ROWS, _GROUP_BYTES = 1000, 32 * 1024 * 1024

OTHER = "{} belongs to other images"
_COLUMNS = ("id", "label", "clean_label")
_ADVICE = "make one with: labelsieve noise SOURCE --labels-only"


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseRecord:
    """What files of noise, of labels and of tags, have in common.

    Attributes:
        ids: The N ids.
        class_names: The K names.
        about: The metadata of the file.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    about: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFile(NoiseRecord):
    """The contents of a file of noise, without the images; for `about` see :func:`about_noise`.

    Attributes:
        labels: Shape (N,), int64: the noisy labels.
        clean: Shape (N,), int64: the labels before the noise.
    """

    labels: NDArray[np.int64]
    clean: NDArray[np.int64]


def read_noise(path: str | Path) -> NoiseFile:
    """Reads a file that `labelsieve noise` wrote, with or without images.

    Raises:
        DataError: It is missing or is not such a file.
    """
    from datasets import Features

    with open_noise(path, what="noise", advice=_ADVICE) as (file, about):
        names = tuple(Features.from_arrow_schema(file.schema_arrow)["label"].names)
        ids, labels, clean = (file.read(columns=[name]).column(0).to_numpy() for name in _COLUMNS)
        return NoiseFile(ids=tuple(ids.tolist()), labels=labels, clean=clean, class_names=names, about=about)


@contextmanager
def open_noise(path: str | Path, *, what: str, advice: str) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Opens a Parquet file of noise, of labels or of tags, and yields it with its metadata.

    Args:
        path: The file.
        what: The expected content, for messages.
        advice: How to create such a file.

    Raises:
        DataError: It is missing, or lacks what is read in the block.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_reachable(path, DataError)
    if not Path(path).is_file():
        raise DataError(f"expected a file of {what}, {path} does not exist; {advice}")
    try:
        file = pq.ParquetFile(path)
        yield file, json.loads((file.schema_arrow.metadata or {})[METADATA])
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise DataError(f"{path} is no file of {what}; {advice}") from None


def apply_noise(images: LabelledImages, path: str | Path) -> LabelledImages:
    """Applies a file of noise to the images that it was made for, or to a subset of them.

    Ids, class names and given labels identify the images; the given labels must be the clean labels of the file.
    Different pixels, such as those of smaller copies, are only noted, since an image may be encoded in many ways.

    Args:
        images: N images; their given labels are taken as right and become the `truth` of the result.
        path: File to read.

    Returns:
        The same images with the noisy labels as given labels.

    Raises:
        DataError: It is not such a file, or belongs to other images.
    """
    noise = read_noise(path)
    rows = _rows(images, noise, path)
    notes = [f"labels out of {Path(path).name}: {_noise_text(noise.about.get('noise'))}", *pixel_notes(images, noise)]
    result = images.with_labels(noise.labels[rows], truth=images.labels)
    return replace(result, notes=(*images.notes, *notes))


def _rows(images: LabelledImages, noise: NoiseFile, path: str | Path) -> NDArray[np.int64]:
    """Returns the row of each image in the file."""
    prefix = OTHER.format(path)
    if [*map(normalise, images.class_names)] != [*map(normalise, noise.class_names)]:
        raise DataError(
            f"{prefix}: expected {_range(noise.class_names)}, got {_range(images.class_names)}; take the data set and "
            "split that it was made for"
        )
    rows = rows_in_file(images, noise, path)
    differ = np.flatnonzero(noise.clean[rows] != images.labels)
    if len(differ):
        first = int(differ[0])
        expected, got = (shown(images.class_names[label]) for label in (noise.clean[rows[first]], images.labels[first]))
        raise DataError(
            f'{prefix}: expected the label {expected} for "{shown(images.ids[first])}", got {got} ({len(differ):,} '
            "differ); take the data set, split and column of labels that it was made for"
        )
    return rows


def pixel_notes(images: Images, noise: NoiseRecord) -> list[str]:
    """Returns a note if the images have the ids of a file of noise, but other pixels."""
    if len(images) != len(noise.ids) or images.pixels_fingerprint == noise.about.get("pixels_fingerprint"):
        return []
    return ["the images are not, byte for byte, those that the noise was drawn for; their ids are"]


def rows_in_file(images: Images, noise: NoiseRecord, path: str | Path) -> NDArray[np.int64]:
    """Returns the row of each image in a file of noise, (N,).

    Args:
        images: N images.
        noise: The content of the file, with the ids of these images and maybe of others.
        path: The file, for messages.

    Raises:
        DataError: The file lacks an image.
    """
    row_of = {name: row for row, name in enumerate(noise.ids)}
    unknown = next((name for name in images.ids if name not in row_of), None)
    if unknown is not None:
        raise DataError(
            f'{OTHER.format(path)}: it has no image "{shown(unknown)}"; take the data set and split that it was made '
            "for"
        )
    return np.array([row_of[name] for name in images.ids], dtype=np.int64)


def _range(names: Sequence[str]) -> str:
    return f"{len(names)} classes, {shown(names[0])} to {shown(names[-1])}"


def _noise_text(parameters: Any) -> str:
    if not isinstance(parameters, Mapping):
        return "noise of an unknown kind"
    kind, rate, seed = (shown(parameters.get(name)) for name in ("kind", "rate", "seed"))
    return f"{kind} noise at rate {rate} with seed {seed}"


def write_noisy(
    images: LabelledImages,
    path: str | Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    with_images: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Writes a Parquet file that :func:`labelsieve.load_images` reads with `truth_column="clean_label"`.

    Columns: `id`; `image`, the encoded images; `label`, the given labels; `clean_label`, the truth. Images are
    copied unchanged, one at a time; a missing image becomes an empty one, which is reported as unreadable later.
    Without images, the file can be applied to another copy of the same data: `load_images(..., noise=path)`. The
    metadata of the file identify the data, see :func:`about_noise`.

    Args:
        images: What :func:`labelsieve.inject` returned.
        path: File to write, completely or not at all.
        parameters: The arguments of :func:`labelsieve.inject`: kind, rate, seed, exact.
        with_images: False leaves out the column `image`.
        progress: Receives progress.

    Raises:
        DataError: The images have no truth.
        RunError: The file cannot be written.
    """
    from datasets import ClassLabel

    if images.truth is None:
        raise DataError("expected images with true labels beside the noisy ones, got none; inject noise first")
    classes = ClassLabel(names=list(images.class_names))
    values = zip(images.labels.tolist(), images.truth.tolist(), strict=True)
    return write_rows(
        images,
        path,
        columns={"label": classes, "clean_label": classes},
        values=({"label": label, "clean_label": clean} for label, clean in values),
        about=about_noise(images, parameters),
        with_images=with_images,
        progress=progress,
    )


def write_rows(
    images: Images,
    path: str | Path,
    *,
    columns: Mapping[str, Any],
    values: Iterable[Mapping[str, Any]],
    about: Mapping[str, Any],
    with_images: bool,
    progress: Progress | None,
) -> Path:
    """Writes a file of noise, completely or not at all: ids, images if requested, noisy and clean labels.

    Args:
        images: N images.
        path: File to write.
        columns: Columns beside ids and images: name to feature of the `datasets` library.
        values: The values of these columns, for each image.
        about: The metadata of the file, see :func:`about_noise`.
        with_images: Whether to copy the images.
        progress: Receives progress.

    Raises:
        RunError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    image_column = {"image": ImageFeature()} if with_images else {}
    schema, path = Features({"id": Value("string"), **image_column, **columns}).arrow_schema, Path(path)
    metadata = json.dumps(about, separators=(",", ":"))
    schema = schema.with_metadata({**schema.metadata, METADATA: metadata.encode()})
    with (
        (progress or Progress()).task("writing images", total=len(images), unit="images", brief=True) as advance,
        write_atomically(path) as part,
        pq.ParquetWriter(part, schema) as writer,
    ):
        for rows in _groups(images, values, with_images=with_images):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            advance(len(rows))
    return path


def about_noise(images: LabelledImages, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the metadata of a file of noise, stored as JSON under the key `labelsieve` of its Arrow schema.

    Args:
        images: N images with noisy labels, and the truth.
        parameters: The arguments of :func:`labelsieve.inject`.

    Returns:
        `noise`, the `parameters`; `images`, N; `changed`, the number of wrong labels; `data_fingerprint` of the images
        with their true labels, and `pixels_fingerprint` of the images only.
    """
    truth = images.true_labels
    return {
        "noise": None if parameters is None else dict(parameters),
        "images": len(images),
        "changed": int((truth != images.labels).sum()),
        "data_fingerprint": images.with_labels(truth).fingerprint,
        "pixels_fingerprint": images.pixels_fingerprint,
    }


def _groups(
    images: Images, values: Iterable[Mapping[str, Any]], *, with_images: bool
) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row, (name, row_values) in enumerate(zip(images.ids, values, strict=True)):
        group.append({"id": name, **row_values})
        if with_images:
            group[-1]["image"] = _encoded(images, row)
            size += len(group[-1]["image"]["bytes"])
        if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _encoded(images: Images, row: int) -> dict[str, Any]:
    """Returns the encoded image with its file name only: its folder on this machine stays private."""
    data, path = (None, None) if images.boxes is not None else images.cell(row)
    if data is None:
        with suppress(UnreadableImageError):
            data = images.encoded(row) if images.boxes is None else images.cut_out(row)
    return {"bytes": data or b"", "path": os.path.basename(path or "") or None}
