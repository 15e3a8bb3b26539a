"""Files of noisy tags, with or without the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, shown
from labelsieve.core.progress import Progress
from labelsieve.data.labels import normalise
from labelsieve.data.noise_files import OTHER, NoiseRecord, open_noise, pixel_notes, rows_in_file, write_rows
from labelsieve.data.tags.records import TaggedImages

_ADVICE = "make one with: labelsieve noise SOURCE --kind tags --labels-only"
TAGS, CLEAN_TAGS = "tags", "clean_tags"


@dataclass(frozen=True, kw_only=True, eq=False)
class TagNoiseFile(NoiseRecord):
    """The contents of a file of noisy tags, without the images.

    Its `about` has `noise`, `images`, `omitted`, `added`, `data_fingerprint` and `pixels_fingerprint`.

    Attributes:
        tags: Shape (N, K), bool: the tags with noise.
        clean: Shape (N, K), bool: the tags before the noise.
    """

    tags: NDArray[np.bool_]
    clean: NDArray[np.bool_]


def read_tag_noise(path: str | Path) -> TagNoiseFile:
    """Reads a file that `labelsieve noise --kind tags` wrote, with or without images.

    Raises:
        DataError: It is missing or is not such a file.
    """
    with open_noise(path, what="noise of tags", advice=_ADVICE) as (file, about):
        names = tuple(map(str, about["class_names"]))
        ids = tuple(file.read(columns=["id"]).column(0).to_pylist())
        tags, clean = (_bits(file.read(columns=[name]).column(0).to_pylist(), names) for name in (TAGS, CLEAN_TAGS))
        return TagNoiseFile(ids=ids, tags=tags, clean=clean, class_names=names, about=about)


def _bits(lists: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    index_of = {name: index for index, name in enumerate(names)}
    bits = np.zeros((len(lists), len(names)), dtype=bool)
    for row, tags in enumerate(lists):
        bits[row, [index_of[tag] for tag in tags]] = True
    return bits


def apply_tag_noise(images: TaggedImages, path: str | Path) -> TaggedImages:
    """Applies a file of noisy tags to the images that it was made for, or to a subset of them.

    Args:
        images: N images; their given tags are taken as right and become the `truth` of the result.
        path: File to read.

    Returns:
        The same images with the tags of the file as given tags.

    Raises:
        DataError: It is not such a file, or belongs to other images.
    """
    noise = read_tag_noise(path)
    rows, order = _rows(images, noise, path)
    about = noise.about.get("noise")
    parameters = about if isinstance(about, Mapping) else {}
    omit, add, seed = (shown(parameters.get(name)) for name in ("omit", "add", "seed"))
    notes = [f"tags out of {Path(path).name}: omit {omit}, add {add}, seed {seed}", *pixel_notes(images, noise)]
    result = images.with_tags(noise.tags[rows][:, order], truth=images.tags)
    return replace(result, notes=(*images.notes, *notes))


def _rows(images: TaggedImages, noise: TagNoiseFile, path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the row of each image, and the column of each class, in the file."""
    prefix = OTHER.format(path)
    classes = {normalise(name): index for index, name in enumerate(noise.class_names)}
    lacking = [name for name in images.class_names if normalise(name) not in classes]
    if lacking or len(classes) != len(images.class_names):
        problem = f'it has no class "{shown(lacking[0])}"' if lacking else "it has more classes"
        raise DataError(f"{prefix}: {problem}; take the data set and split that it was made for")
    order = np.array([classes[normalise(name)] for name in images.class_names], dtype=np.int64)
    rows = rows_in_file(images, noise, path)
    differ = np.flatnonzero((noise.clean[rows][:, order] != images.tags).any(axis=1))
    if len(differ):
        raise DataError(
            f'{prefix}: the tags of "{shown(images.ids[differ[0]])}" are others there ({len(differ):,} images differ); '
            "take the data set, split and column of tags that it was made for"
        )
    return rows, order


def write_tag_noise(
    images: TaggedImages,
    path: str | Path,
    *,
    parameters: Mapping[str, Any],
    with_images: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Writes a Parquet file that :func:`labelsieve.load_tags` reads with `truth_column="clean_tags"`.

    Columns: `id`; `image`, the encoded images; `tags`, lists of the given tags; `clean_tags`, lists of the true tags.
    Without images, the file can be applied to another copy of the same data: `load_tags(..., noise=path)`.

    Args:
        images: With noisy tags, and the truth.
        path: File to write, completely or not at all.
        parameters: The parameters of the noise: omit, add, seed.
        with_images: False leaves out the column `image`.
        progress: Receives progress.

    Raises:
        DataError: The images have no truth.
        RunError: The file cannot be written.
    """
    from datasets import Sequence as Lists
    from datasets import Value

    if images.truth is None:
        raise DataError("expected images with true tags beside the given ones, got none; inject noise first")
    lists, names = Lists(Value("string")), np.array(images.class_names, dtype=object)
    pairs = zip(images.tags, images.truth, strict=True)
    return write_rows(
        images,
        path,
        columns={TAGS: lists, CLEAN_TAGS: lists},
        values=({TAGS: names[given].tolist(), CLEAN_TAGS: names[clean].tolist()} for given, clean in pairs),
        about=about_tag_noise(images, images.truth, parameters),
        with_images=with_images,
        progress=progress,
    )


def about_tag_noise(images: TaggedImages, truth: NDArray[np.bool_], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata of a file of noisy tags; see :class:`TagNoiseFile`.

    Args:
        images: N images with the noisy tags as given tags.
        truth: Shape (N, K): the tags before the noise.
        parameters: The parameters of the noise, stored as they are.
    """
    return {
        "kind": "tags",
        "noise": dict(parameters),
        "images": len(images),
        "class_names": list(images.class_names),
        "omitted": int((truth & ~images.tags).sum()),
        "added": int((images.tags & ~truth).sum()),
        "data_fingerprint": images.with_tags(truth).fingerprint,
        "pixels_fingerprint": images.pixels_fingerprint,
    }
