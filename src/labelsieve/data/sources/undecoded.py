"""Returns the undecoded images of a table: files by their paths, encoded images, or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, shown
from labelsieve.data.boxes import Boxes
from labelsieve.data.sources.column_kinds import holds_pixels
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.image_paths import absolute_paths, with_absolute_paths
from labelsieve.data.sources.in_memory import read_memory

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 64


def undecoded_images(table: Table, paths: list[str] | None, boxes: Boxes | None = None) -> Dataset:
    """Returns the rows with a single column `image` of undecoded images.

    Args:
        table: A table of N rows.
        paths: The N paths of the images; None if they lie in the table.
        boxes: The N boxes, if rows are boxes; those without an image, whose number is -1, get null.
    """
    from datasets import Dataset, Features, Image

    column = str(table.columns.image)
    if paths is not None and boxes is not None:
        return _images_of_boxes(table, paths, boxes)
    if paths is not None:
        absolute = absolute_paths(paths, folder=table.folder, where=table.where)
        return Dataset.from_dict({"image": absolute}, features=Features({"image": Image(decode=False)}))
    if holds_pixels(table.rows.features[column]):
        return read_memory(_pixels(table, column))
    return with_absolute_paths(table)


def _images_of_boxes(table: Table, paths: Sequence[str], boxes: Boxes) -> Dataset:
    """Returns the image of each box; null if the image is not listed. There are far fewer images than boxes."""
    import pyarrow as pa
    from datasets import Dataset, Features, Image

    listed = np.flatnonzero(boxes.image_of >= 0)
    _, first, inverse = np.unique(boxes.image_of[listed], return_index=True, return_inverse=True)
    rows = listed[first]
    absolute = absolute_paths([paths[row] for row in rows], folder=table.folder, where=table.where, rows=rows.tolist())
    positions = np.full(len(paths), -1)
    positions[listed] = inverse
    values = pa.array(absolute, pa.string()).take(pa.array(positions, mask=positions < 0))
    schema = Features({"image": Image(decode=False)}).arrow_schema
    encoded = pa.nulls(len(paths), schema.field("image").type.field("bytes").type)
    images = pa.StructArray.from_arrays([encoded, values], ["bytes", "path"], mask=pa.array(positions < 0))
    return Dataset(pa.table([images.cast(schema.field("image").type)], schema=schema))


def _pixels(table: Table, column: str) -> list[NDArray[Any]]:
    """Returns images stored in a table as nested lists of numbers."""
    images: list[NDArray[Any]] = []
    for batch in table.rows.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH):
        for value in batch.column(0).to_pylist():
            try:
                pixels = np.asarray(value)
            except ValueError:  # rows of different lengths
                pixels = np.empty(0)
            if pixels.ndim < 2 or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
                raise DataError(
                    f'expected pixels from 0 to 255 of shape (H, W) or (H, W, 3) in the column "{shown(column)}" of '
                    f"{table.where}, found something else in row {len(images) + 1}; fix or remove the row"
                )
            images.append(pixels.astype(np.uint8))
    return images
