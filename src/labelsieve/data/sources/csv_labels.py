"""Corrected labels in CSV files: all other bytes stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, RunError
from labelsieve.data.box_formats.edits import ISSUE, PREDICTED, QUALITY, quality_text
from labelsieve.data.sources.csv_edits import edited
from labelsieve.data.sources.csv_files import read_texts
from labelsieve.data.sources.edits import Edits, joined

if TYPE_CHECKING:
    import pyarrow as pa


def write_csv(files: Sequence[Path], targets: Mapping[Path, Path], *, column: str, edits: Sequence[Edits]) -> None:
    """Writes files that are one table together with other labels.

    Args:
        files: All files of the table.
        targets: Those to write, and where.
        column: The column of labels.
        edits: Of each file.

    Raises:
        RunError: A file cannot be changed without other changes.
    """
    tables = {path: read_texts(path).table for path in files}
    values = [value for table in tables.values() for value in table[column].to_pylist()]
    written = _written(values, joined(edits))
    for (path, table), part in zip(tables.items(), edits, strict=True):
        if path in targets:
            new = {row: None if part.new[row] < 0 else written[part.new[row]] for row in part.rows.tolist()}
            added = _added(part, written)
            targets[path].write_bytes(edited(path.read_bytes(), column=column, values=new, added=added))
            _check(path, targets[path], table, column=column, edits=part)


def count_csv(path: Path) -> int:
    """Returns how many rows a CSV file has."""
    return int(read_texts(path).table.num_rows)


def _added(edits: Edits, written: Sequence[str]) -> dict[str, dict[int, str]]:
    """Returns the columns of verdicts, each row to its value."""
    said = edits.verdicts
    if said is None:
        return {}
    rows = np.flatnonzero(said.known).tolist()
    return {
        QUALITY: {row: quality_text(said.quality[row]) for row in rows},
        PREDICTED: {row: written[said.predicted[row]] for row in rows},
        ISSUE: {row: str(bool(said.is_issue[row])).lower() for row in rows},
    }


def _written(values: Sequence[str], edits: Edits) -> list[str]:
    """Returns how the column writes each class, also one that it does not have yet."""
    rows = edits.examples(values)
    examples = [None if row is None else values[row] for row in rows]
    if not edits.by_number(examples):
        return [name if text is None else text for name, text in zip(edits.class_names, examples, strict=True)]
    rest = {text.partition(".")[2] for text in examples if text is not None}
    after = f".{rest.pop()}" if len(rest) == 1 and "" not in rest else ""
    return [f"{index}{after}" if text is None else text for index, text in enumerate(examples)]


def _check(path: Path, target: Path, before: pa.Table, *, column: str, edits: Edits) -> None:
    """Checks that a new file holds what the old one does but for the labels that change.

    Raises:
        RunError: It does not.
    """
    kept = np.flatnonzero(edits.kept)
    expected = before.take(kept)
    try:
        found = read_texts(target).table
    except DataError:
        found = before.slice(0, 0)
    others = [name for name in expected.column_names if name != column]
    same = found.select(others).equals(expected.select(others))
    if not (same and _labels_as_asked(found, expected, column, edits.old[kept] == edits.new[kept])):
        raise RunError(
            f"{path} could not be written with other labels and all else unchanged, so it was not; please report this"
        )


def _labels_as_asked(found: pa.Table, expected: pa.Table, column: str, unchanged: NDArray[np.bool_]) -> bool:
    before, after = expected[column].to_pylist(), found[column].to_pylist()
    same = [old == new for old, new in zip(before, after, strict=True)]
    return bool(same == unchanged.tolist())
