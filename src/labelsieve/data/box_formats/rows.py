"""Tables whose rows are boxes, either from the reader of a box format or from a table with four columns of sides."""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, setting, shown
from labelsieve.core.quantities import counted
from labelsieve.data.boxes import Boxes, BoxFiles
from labelsieve.data.sources.columns import Columns, Table

_SAMPLE_SIZE = 8
NO_BOX = (math.nan,) * 4
"""The sides of a box with invalid numbers, whose row counts as unreadable."""


@dataclass(kw_only=True, eq=False)
class BoxRows:
    """Collects boxes in the order of their files, and creates a table from them.

    Attributes:
        images: The image of each box, as named in the file.
        labels: The given label of each box, as written in the file.
        truths: The true label of each box, as written in the file; empty if none are read.
        ids: The id of each box.
        sides: Four numbers per box; see :class:`labelsieve.data.boxes.Boxes`.
    """

    images: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    sides: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, image: Any, label: Any, *, name: str, sides: Iterable[float], truth: Any = None) -> None:
        """Adds a box.

        Args:
            image: Its image.
            label: Its given label.
            name: Its id.
            sides: Left, top, width and height.
            truth: Its true label, if true labels are read.
        """
        self.images.append(image)
        self.labels.append(label)
        self.ids.append(name)
        self.sides.extend(sides)
        if truth is not None:
            self.truths.append(truth)

    def to_table(
        self,
        *,
        where: str,
        images: Mapping[Any, str],
        classes: Mapping[Any, str],
        folder: Path,
        files: BoxFiles,
        is_relative: bool = False,
        notes: tuple[str, ...] = (),
    ) -> Table:
        """Returns one row per box, with its image, label and id.

        Args:
            where: Name of the source, for messages.
            images: Path in `folder` of each listed image.
            classes: Class name of each label.
            folder: The folder of the images.
            files: The annotation files.
            is_relative: Whether sides are shares of the image.
            notes: Remarks for the user.

        Raises:
            DataError: There is no box, or two classes have the same name.
        """
        import pyarrow as pa
        from datasets import ClassLabel, Dataset, Features, Value

        if not len(self):
            raise DataError(f"expected boxes in {where}, found none; check the file")
        if twice := [name for name, count in Counter(classes.values()).items() if count > 1]:
            raise DataError(f'the class "{shown(twice[0])}" is listed twice in {where}; give each its own name')
        image_of, paths = _positions(self.images, images), pa.array([*images.values()], pa.string())
        names = ClassLabel(names=[*classes.values()])
        features = {"image": Value("string"), "label": names, "id": Value("string")}
        columns = {
            "image": paths.take(pa.array(image_of, mask=image_of < 0)),
            "label": pa.array(_positions(self.labels, classes)),
            "id": pa.array(self.ids, pa.string()),
        }
        if self.truths:
            features["truth"], columns["truth"] = names, pa.array(_positions(self.truths, classes))
        sides = np.frombuffer(self.sides, dtype=np.float64).reshape(-1, 4)
        return Table(
            rows=Dataset(pa.table(columns).cast(Features(features).arrow_schema)),
            columns=Columns(image="image", label="label", id="id", truth="truth" if self.truths else None),
            where=where,
            folder=folder,
            boxes=Boxes(sides=sides, image_of=image_of, is_relative=is_relative),
            box_files=files,
            image_files=tuple(images.values()),
            notes=notes,
        )


def _positions(values: Sequence[Any], known: Iterable[Any]) -> NDArray[np.int64]:
    """Returns the position of each value among known ones, -1 for others."""
    position_of = {value: position for position, value in enumerate(known)}
    return np.fromiter((position_of.get(value, -1) for value in values), dtype=np.int64, count=len(values))


def box_notes(boxes: Boxes, image_files: Sequence[str]) -> Iterable[str]:
    """Yields notes on the number of boxes, and of images without boxes.

    Example:
        >>> boxes = Boxes(sides=np.ones((3, 4)), image_of=np.array([0, 0, 1]))
        >>> [*box_notes(boxes, ["a.jpg", "b.jpg", "c.jpg"])]
        ['1 image has no boxes and is not read', 'each row is a box: 3 boxes in 2 images']
    """
    images = len(np.unique(boxes.image_of[boxes.image_of >= 0]))
    if (empty := len(image_files) - images) > 0:
        yield f"{counted(empty, 'image has', 'images have')} no boxes and {'is' if empty == 1 else 'are'} not read"
    yield f"each row is a box: {counted(len(boxes), 'box', 'boxes')} in {counted(images, 'image', 'images')}"


def folder_with(paths: Sequence[str], folders: Iterable[Path], *, requested: Path | None, where: str) -> Path:
    """Returns the folder of the images of an annotation file.

    Args:
        paths: Their paths in the folder.
        folders: Possible folders, the most likely first.
        requested: The folder that the user named, which is returned unchanged.
        where: Name of the source, for messages.

    Raises:
        DataError: None of the folders contains one of the first images.
    """
    if requested is not None:
        return requested
    first = [path for path in paths if path][:_SAMPLE_SIZE]
    for folder in folders:
        if any(os.path.isfile(os.path.join(folder, path)) for path in first):
            return Path(os.path.abspath(folder))
    example = f' (first: "{shown(first[0])}")' if first else ""
    raise DataError(f"the images of {where} were not found{example}; say with {setting('image_folder')} where they lie")


def boxes_of(table: Table, paths: Sequence[str] | None) -> Boxes | None:
    """Returns the boxes of a table with columns of boxes, else None.

    Args:
        table: The table.
        paths: Paths of the images, equal for boxes of one image; None if each row contains its image.

    Raises:
        DataError: A column has values other than numbers.
    """
    if not table.columns.box:
        return None
    columns = table.rows.select_columns([*table.columns.box]).with_format("arrow")[:]
    values = [numbers(columns.column(name), name, where=table.where) for name in table.columns.box]
    sides = np.stack(values, axis=1)
    rows = np.arange(len(sides), dtype=np.int64)
    image_of = rows if paths is None else np.unique(np.asarray(paths), return_inverse=True)[1].astype(np.int64)
    return Boxes(sides=sides, image_of=image_of)


def numbers(values: Any, name: str, *, where: str) -> NDArray[np.float64]:
    """Returns a column of sides of boxes as numbers, (N,), NaN if missing.

    Args:
        values: The column, an Arrow array.
        name: Its name.
        where: Name of its table, for messages.

    Raises:
        DataError: It has values other than numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        trimmed = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
    try:
        return np.asarray(pc.fill_null(pc.cast(values, pa.float64()), float("nan")), dtype=np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row, value = next(each for each in enumerate(values.to_pylist(), start=1) if not _is_number(each[1]))
        raise DataError(
            f'expected numbers in the column "{shown(name)}" of {where}, which make each row a box, found '
            f'"{shown(str(value))}" in row {row}; correct it, or rename the column if it is something else'
        ) from None


def _is_number(value: Any) -> bool:
    try:
        float("nan" if value is None else value)
    except (TypeError, ValueError):
        return False
    return True
