"""Writes corrected labels to CSV files; all other bytes stay unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, RunError
from labelsieve.data.sources.csv_edits import edited
from labelsieve.data.sources.csv_files import read_texts
from labelsieve.data.sources.edits import ISSUE, PREDICTED, QUALITY, Edits, joined, quality_text

if TYPE_CHECKING:
    import pyarrow as pa


def write_csv(files: Sequence[Path], targets: Mapping[Path, Path], *, column: str, edits: Sequence[Edits]) -> None:
    """Writes files that are one table together with other labels.

    Args:
        files: All files of the table.
        targets: The files to write, and their targets.
        column: The column of labels.
        edits: The edits of each file.

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
    """Returns the number of rows of a CSV file."""
    return int(read_texts(path).table.num_rows)


def _added(edits: Edits, written: Sequence[str]) -> dict[str, dict[int, str]]:
    """Returns the columns of verdicts, each row to its value."""
    verdicts = edits.verdicts
    if verdicts is None:
        return {}
    rows = np.flatnonzero(verdicts.known).tolist()
    return {
        QUALITY: {row: quality_text(verdicts.quality[row]) for row in rows},
        PREDICTED: {row: written[verdicts.predicted[row]] for row in rows},
        ISSUE: {row: str(bool(verdicts.is_issue[row])).lower() for row in rows},
    }


def _written(values: Sequence[str], edits: Edits) -> list[str]:
    """Returns the text of each class in the column, including new classes."""
    rows = edits.examples(values)
    examples = [None if row is None else values[row] for row in rows]
    if not edits.by_number(examples):
        return [name if text is None else text for name, text in zip(edits.class_names, examples, strict=True)]
    suffixes = {text.partition(".")[2] for text in examples if text is not None}
    after = f".{suffixes.pop()}" if len(suffixes) == 1 and "" not in suffixes else ""
    return [f"{index}{after}" if text is None else text for index, text in enumerate(examples)]


def _check(path: Path, target: Path, before: pa.Table, *, column: str, edits: Edits) -> None:
    """Checks that a new file only differs from the old one in changed labels.

    Raises:
        RunError: It differs otherwise.
    """
    kept_rows = np.flatnonzero(edits.is_kept)
    expected = before.take(kept_rows)
    try:
        actual = read_texts(target).table
    except DataError:
        actual = before.slice(0, 0)
    other_names = [name for name in expected.column_names if name != column]
    is_same = actual.select(other_names).equals(expected.select(other_names))
    if not (
        is_same and _are_labels_as_requested(actual, expected, column, edits.old[kept_rows] == edits.new[kept_rows])
    ):
        raise RunError(
            f"{path} could not be written with other labels and all else unchanged, so it was not; please report this"
        )


def _are_labels_as_requested(actual: pa.Table, expected: pa.Table, column: str, unchanged: NDArray[np.bool_]) -> bool:
    before, after = expected[column].to_pylist(), actual[column].to_pylist()
    is_unchanged = [old == new for old, new in zip(before, after, strict=True)]
    return bool(is_unchanged == unchanged.tolist())
