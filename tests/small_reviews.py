"""A small finished run to review, without a model: images of one colour each, and scores that were made up."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelsieve.data.images import LabelledImages
from labelsieve.data.sources import load_images
from labelsieve.detect.scores import Scores
from labelsieve.verdicts import Verdicts, decide
from small_pictures import plain

NAMES = ("cat", "dog", "fox")


@dataclass(frozen=True)
class SmallRun:
    """A run in a folder, with what it was made from."""

    folder: Path
    images: LabelledImages
    verdicts: Verdicts


def small_run(
    folder: Path,
    *,
    images: int = 12,
    flagged: int = 8,
    names: Sequence[str] = NAMES,
    size: tuple[int, int] = (48, 32),
    unreadable: bool = True,
    prefix: str = "img",
) -> SmallRun:
    """Makes a run of images in a Parquet file.

    Row i has the given label i % K. The first rows are flagged, with the next class as the suggestion and a p_clean
    that grows with the row; the last row cannot be read if that is asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source, rows = folder / "images.parquet", np.arange(images)
    given = rows % len(names)
    bytes_of = [plain(_colour(row), size=size) for row in rows.tolist()]
    if unreadable:
        bytes_of[-1] = b"not an image"
    ids = [f"{prefix}-{row:02}" for row in rows.tolist()]
    labels = [names[each] for each in given.tolist()]
    pq.write_table(pa.table({"id": ids, "image": [{"bytes": each} for each in bytes_of], "label": labels}), source)
    loaded = load_images(str(source), class_names=list(names), label_column="label")
    quality = np.where(rows < flagged, (rows + 0.5) / (2 * images), 0.9).astype(np.float32)
    predicted = np.where(rows < flagged, (given + 1) % len(names), given)
    errors = {}
    if unreadable:
        quality[-1], predicted[-1], errors = np.nan, -1, {images - 1: "not an image that can be decoded"}
    scores = Scores(
        label_quality=quality,
        predicted=predicted.astype(np.int64),
        confidence=np.where(np.isnan(quality), np.nan, 0.8).astype(np.float32),
        errors=errors,
    )
    record = {
        "source": str(source),
        "origin": dict(loaded.origin),
        "data": {"fingerprint": loaded.fingerprint},
        "threshold": 0.5,
        "out": str(folder / "run"),
    }
    verdicts = decide(loaded, scores, record=record)
    verdicts.save(folder / "run")
    return SmallRun(folder / "run", loaded, verdicts)


def copied(made: SmallRun, folder: Path) -> SmallRun:
    """Returns the run in a new folder, with the same images: answers are kept there, and making a run takes longer."""
    shutil.copytree(made.folder, folder / "run")
    return replace(made, folder=folder / "run")


def _colour(row: int) -> tuple[int, int, int]:
    return (20 * row % 256, row // 12 % 256, (200 - 10 * row) % 256)
