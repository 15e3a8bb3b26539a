"""Files of wrong labels, put on a copy of the images that they were drawn for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.images import LabelledImages
from labelsieve.data.labels import normalise
from labelsieve.errors import DataError, shown

# Key of the file's metadata that says how the noise was made.
METADATA = b"labelsieve"

_COLUMNS = ("id", "label", "clean_label")
_ADVICE = "make one with: labelsieve noise SOURCE --labels-only"


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFile:
    """What a file of noise holds, without the images.

    Attributes:
        ids: The N ids.
        labels: Shape (N,), int64: the noisy labels.
        clean: Shape (N,), int64: the labels of before.
        class_names: The K names.
        about: See :func:`labelsieve.data.noise.about_noise`.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    clean: NDArray[np.int64]
    class_names: tuple[str, ...]
    about: Mapping[str, Any]


def read_noise(path: str | Path) -> NoiseFile:
    """Reads a file that `labelsieve noise` wrote, with or without images.

    Raises:
        DataError: It is missing or is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

    if not Path(path).is_file():
        raise DataError(f"expected a file of noise, {path} does not exist; {_ADVICE}")
    try:
        file = pq.ParquetFile(path)
        about = json.loads((file.schema_arrow.metadata or {})[METADATA])
        names = tuple(Features.from_arrow_schema(file.schema_arrow)["label"].names)
        ids, labels, clean = (file.read(columns=[name]).column(0).to_numpy() for name in _COLUMNS)
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError, AttributeError):
        raise DataError(f"{path} is no file of noise; {_ADVICE}") from None
    return NoiseFile(ids=tuple(ids.tolist()), labels=labels, clean=clean, class_names=names, about=about)


def apply_noise(images: LabelledImages, path: str | Path) -> LabelledImages:
    """Puts the labels of a file of noise on the images that it was made for, or on a subset of them.

    Ids, class names and given labels identify the images; all have to be those that the file calls right.
    Other images behind them, such as smaller copies, are only noted: the same image may be encoded in many ways.

    Args:
        images: N images; their given labels count as right and become the `truth` of the result.
        path: File to read.

    Returns:
        The same images with the noisy labels as given labels.

    Raises:
        DataError: The file is none, or belongs to other images.
    """
    noise = read_noise(path)
    rows = _rows(images, noise, path)
    about = noise.about
    notes = [f"labels out of {Path(path).name}: {_spoken(about.get('noise'))}"]
    if len(rows) == len(noise.ids) and images.pixels_fingerprint != about.get("pixels_fingerprint"):
        notes.append("the images are not, byte for byte, those that the noise was drawn for; ids and labels are")
    result = images.with_labels(noise.labels[rows], truth=images.labels)
    return replace(result, notes=(*images.notes, *notes))


def _rows(images: LabelledImages, noise: NoiseFile, path: str | Path) -> NDArray[np.int64]:
    """Returns where each image stands in the file."""
    other = f"{path} belongs to other images"
    if [*map(normalise, images.class_names)] != [*map(normalise, noise.class_names)]:
        raise DataError(
            f"{other}: expected {_range(noise.class_names)}, got {_range(images.class_names)}; take the data set and "
            "split that it was made for"
        )
    place = {name: row for row, name in enumerate(noise.ids)}
    unknown = next((name for name in images.ids if name not in place), None)
    if unknown is not None:
        raise DataError(
            f'{other}: it has no image "{shown(unknown)}"; take the data set and split that it was made for'
        )
    rows = np.array([place[name] for name in images.ids], dtype=np.int64)
    differ = np.flatnonzero(noise.clean[rows] != images.labels)
    if len(differ):
        first = int(differ[0])
        expected, got = (shown(images.class_names[label]) for label in (noise.clean[rows[first]], images.labels[first]))
        raise DataError(
            f'{other}: expected the label {expected} for "{shown(images.ids[first])}", got {got} ({len(differ):,} '
            "differ); take the data set, split and column of labels that it was made for"
        )
    return rows


def _range(names: Sequence[str]) -> str:
    return f"{len(names)} classes, {shown(names[0])} to {shown(names[-1])}"


def _spoken(made: Any) -> str:
    if not isinstance(made, Mapping):
        return "noise of an unknown kind"
    kind, rate, seed = (shown(made.get(name)) for name in ("kind", "rate", "seed"))
    return f"{kind} noise at rate {rate} with seed {seed}"
