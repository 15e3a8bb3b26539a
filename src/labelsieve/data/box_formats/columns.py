"""Tables whose rows are boxes, given by four columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, shown
from labelsieve.data.boxes import Boxes
from labelsieve.data.sources.columns import Table


def boxes_of(table: Table, paths: Sequence[str] | None) -> Boxes | None:
    """Returns the boxes of a table that has columns of them, else None.

    Args:
        table: The table.
        paths: Paths of the images, equal for boxes of one image; None if each row contains its image.

    Raises:
        DataError: A column has other values than numbers.
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
        DataError: It has other values.
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
