"""CSV files without formulas, so that a spreadsheet program can open them safely.

A text that starts like a formula is prefixed with an apostrophe, as OWASP recommends ("CSV injection"). So is a text
that starts with apostrophes followed by a formula, so that reading is unambiguous. Numbers are not changed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from labelsieve.core.errors import DataError, listed
from labelsieve.core.files import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

# Full-width signs start a formula in Chinese, Japanese and Korean spreadsheets. page.js has the same pattern.
FORMULA = "^'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


def escaped(text: str) -> str:
    """Escapes a text for a cell of a CSV file.

    Example:
        >>> escaped("=1+1"), escaped("-0.5"), escaped("cat")
        ("'=1+1", '-0.5', 'cat')
    """
    return f"'{text}" if re.match(FORMULA, text) and not re.fullmatch(NUMBER, text) else text


def unescaped(cell: str) -> str:
    """Reverts :func:`escaped`.

    Example:
        >>> unescaped("'=1+1"), unescaped("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and re.match(FORMULA, cell) else cell


def read_csv(path: Path, *, needed: Iterable[str], what: str, advice: str) -> list[dict[str, str]]:
    """Reads a table written by :func:`write_csv`, by the report, or by a spreadsheet program.

    Args:
        path: The file.
        needed: Required columns.
        what: What the file contains, for messages.
        advice: What to do if the file is invalid, for messages.

    Returns:
        One dictionary per row, from column names to texts; missing cells are empty.

    Raises:
        DataError: The file cannot be read, or a column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = list(reader.fieldnames or ())
            rows = [{key: unescaped(value or "") for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV of {what}: {_reason(error)}; {advice}") from None
    for column in needed:
        if column not in columns:
            raise DataError(f'expected a column "{column}" in {path}, found {listed(columns) or "none"}; {advice}')
    return rows


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    return str(getattr(error, "strerror", None) or error)


def write_csv(path: Path, table: pa.Table) -> None:
    """Writes a table as CSV with a header, atomically.

    Raises:
        RunError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = table.column(index)
            formula, number = (pc.match_substring_regex(cells, each) for each in (FORMULA, f"^{NUMBER}$"))
            quoted = pc.binary_join_element_wise("'", cells, "")
            table = table.set_column(index, field, pc.if_else(pc.and_not(formula, number), quoted, cells))
    with write_atomically(path) as part:
        pyarrow.csv.write_csv(table, part)
