"""COCO files read as tags: which categories the annotations of each image name, with boxes or without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.data.box_formats.coco import CATEGORY, image_folders, read_file
from labelsieve.data.box_formats.rows import BoxRows, folder_with
from labelsieve.data.columns import Columns, Table
from labelsieve.data.splits import refuse_split


def read_coco_tags(path: Path, *, asked: Columns, split: str | None) -> Table:
    """Reads the categories of each image of a COCO file; an image without annotations has no tags.

    Args:
        path: The file.
        asked: Whether the images lie in another folder, and which field of an annotation holds the category and the
            true one; else `category_id`.
        split: None; another part of the data is another file.

    Raises:
        DataError: It is no such file, or names categories that it does not list.
    """
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    refuse_split(split, path)
    if not path.is_file():
        raise DataError(f"expected a COCO file, {path} does not exist; check the path")
    found = read_file(path, label=asked.label or CATEGORY, truth=asked.truth, needs_boxes=False)
    where = f"the file {path}"
    folder = folder_with([*found.paths.values()], image_folders(path), asked=asked.folder, where=where)
    rows = found.rows(folder)
    classes = Sequence(ClassLabel(names=list(rows.class_names)))
    features: dict[str, Any] = {"image": Value("string"), "tags": classes}
    columns: dict[str, Any] = {"image": [*rows.paths], "tags": _of_images(rows, rows.labels)}
    if rows.truth is not None:
        features["truth"], columns["truth"] = classes, _of_images(rows, rows.truth)
    return Table(
        rows=Dataset.from_dict(columns, features=Features(features)),
        columns=Columns(
            image="image", label="tags", truth=None if rows.truth is None else "truth", folder=asked.folder
        ),
        where=where,
        folder=Path(os.path.abspath(folder)),
        notes=(*rows.notes, "the tags of an image are the categories of its annotations"),
    )


def _of_images(rows: BoxRows, labels: NDArray[np.int64]) -> list[list[int]]:
    """Returns the different labels of the annotations of each image, ascending."""
    found: list[set[int]] = [set() for _ in rows.paths]
    for image, label in zip(rows.image_of.tolist(), labels.tolist(), strict=True):
        if image >= 0:
            found[image].add(label)
    return [sorted(each) for each in found]
