"""The result of a reader of boxes, and its conversion to a table."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, setting, shown
from labelsieve.core.quantities import counted
from labelsieve.data.boxes import Boxes, BoxFiles
from labelsieve.data.sources.columns import Columns, Table

_SAMPLE_SIZE = 8
NO_BOX = (math.nan,) * 4
"""The sides of a box without numbers, whose row becomes unreadable."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxRows:
    """N boxes in M images, in the order of their file.

    Attributes:
        paths: M paths of images, relative to `folder`.
        image_of: Shape (N,), int64: index of the image, -1 if it is not listed.
        sides: Shape (N, 4), float64; see :class:`labelsieve.data.boxes.Boxes`.
        labels: Shape (N,), int64: indices into `class_names`.
        truth: The same for the true labels, or None.
        class_names: K names.
        ids: N names of the boxes.
        folder: The folder of the images.
        files: Their annotation files.
        is_relative: Whether `sides` are shares of the image.
        notes: Remarks for the user.
    """

    paths: Sequence[str]
    image_of: NDArray[np.int64]
    sides: NDArray[np.float64]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    ids: Sequence[str]
    folder: Path
    files: BoxFiles
    truth: NDArray[np.int64] | None = None
    is_relative: bool = False
    notes: tuple[str, ...] = ()

    def to_table(self, *, where: str) -> Table:
        """Returns one row for each box, with its image, label and id.

        Raises:
            DataError: There is no box, or two classes have one name.
        """
        import pyarrow as pa
        from datasets import ClassLabel, Dataset, Features, Value

        if not len(self.labels):
            raise DataError(f"expected boxes in {where}, found none; check the file")
        if twice := [name for name, count in Counter(self.class_names).items() if count > 1]:
            raise DataError(f'the class "{shown(twice[0])}" is listed twice in {where}; give each its own name')
        classes = ClassLabel(names=list(self.class_names))
        features = {"image": Value("string"), "label": classes, "id": Value("string")}
        columns = {
            "image": pa.array(self.paths, pa.string()).take(pa.array(self.image_of, mask=self.image_of < 0)),
            "label": pa.array(self.labels),
            "id": pa.array(self.ids, pa.string()),
        }
        if self.truth is not None:
            features["truth"], columns["truth"] = classes, pa.array(self.truth)
        rows = Dataset(pa.table(columns).cast(Features(features).arrow_schema))
        return Table(
            rows=rows,
            columns=Columns(image="image", label="label", id="id", truth=None if self.truth is None else "truth"),
            where=where,
            folder=self.folder,
            boxes=Boxes(sides=self.sides, image_of=self.image_of, is_relative=self.is_relative),
            box_files=self.files,
            image_files=tuple(self.paths),
            notes=self.notes,
        )


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
        requested: The folder named by the user, which is used unchanged.
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
