"""Reads annotations of boxes as tags: the classes of the annotations of each image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from labelsieve.data.sources.columns import Table


def tags_of_boxes(table: Table) -> Table:
    """Returns one row per image, whose tags are the classes of its annotations, if it has any.

    Args:
        table: One row per annotation, from a reader of `BOX_FORMATS`. Annotations of unknown images are left out.
    """
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    columns = table.columns
    classes = Sequence(ClassLabel(names=table.rows.features[str(columns.label)].names))
    features: dict[str, Any] = {"image": Value("string"), "tags": classes}
    values: dict[str, Any] = {"image": [*table.image_files], "tags": _of_images(table, str(columns.label))}
    if columns.truth is not None:
        features["truth"], values["truth"] = classes, _of_images(table, columns.truth)
    return replace(
        table,
        rows=Dataset.from_dict(values, features=Features(features)),
        columns=replace(columns, image="image", label="tags", truth=columns.truth and "truth", id=None),
        boxes=None,
        box_files=None,
        notes=(*table.notes, "the tags of an image are the classes of its annotations"),
    )


def _of_images(table: Table, column: str) -> list[list[int]]:
    """Returns the distinct labels of the annotations of each image, ascending."""
    assert table.boxes is not None  # set by all readers of BOX_FORMATS
    classes_of_image: list[set[int]] = [set() for _ in table.image_files]
    for image, label in zip(table.boxes.image_of.tolist(), table.rows[column], strict=True):
        if image >= 0:
            classes_of_image[image].add(label)
    return [sorted(each) for each in classes_of_image]
