"""The registry of formats of tables: readers, writers of labels, patterns of files and messages derive from it.

A new format is a file with three functions, and one line here. This module does not load the formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labelsieve.core.registry import Entry, Registry

if TYPE_CHECKING:
    from labelsieve.data.sources.columns import Table


@dataclass(frozen=True)
class TableFormat(Entry):
    """A format of tables; its `place` is a function of the files of one table, the requested columns, and their name.

    Attributes:
        suffixes: The suffixes of its files, in lower case.
        count: The place of a function `(path) -> int`, the number of rows in one file.
        write: The place of a function `(files, targets, *, column, edits)`, which writes files with other labels, the
            columns of `edits.verdicts` where there are some, and no other changes: all files of the table, those to
            write with their targets, the column of labels, and the :class:`labelsieve.data.sources.edits.Edits` of each
            file.
        magic: First and last bytes of its files; empty for files of text.
    """

    suffixes: tuple[str, ...] = ()
    count: str = ""
    write: str = ""
    magic: bytes = b""

    @property
    def typed(self) -> bool:
        """Whether columns have types and may contain images and features, unlike the values of a text."""
        return bool(self.magic)


_HERE = "labelsieve.data.sources."


def _typed(name: str, about: str, *suffixes: str, magic: bytes) -> TableFormat:
    return TableFormat(
        name,
        _HERE + "arrow_files:read_arrow_files",
        about,
        suffixes=suffixes,
        count=_HERE + "arrow_files:count_rows",
        write=_HERE + "arrow_writing:write_arrow_files",
        magic=magic,
    )


TABLE_FORMATS: Registry[Callable[..., Table], TableFormat] = Registry(
    "table",
    TableFormat(
        "csv",
        _HERE + "csv_files:read_csv",
        "CSV, or TSV",
        suffixes=(".csv", ".tsv"),
        count=_HERE + "csv_edits:count_csv",
        write=_HERE + "csv_edits:write_csv",
    ),
    _typed("parquet", "Parquet", ".parquet", magic=b"PAR1"),
    _typed("arrow", "Arrow, or Feather", ".arrow", ".feather", magic=b"ARROW1"),
)
TABLES = {suffix: name for name, format in TABLE_FORMATS.entries.items() for suffix in format.suffixes}
"""The format of each suffix."""
TYPED_TABLES = tuple(suffix for suffix, name in TABLES.items() if TABLE_FORMATS.entries[name].typed)
"""The suffixes of tables whose columns have types."""


def format_of(path: Path) -> TableFormat:
    """Returns the format of a table by the suffix of one of its files."""
    return TABLE_FORMATS.entries[TABLES[path.suffix.lower()]]
