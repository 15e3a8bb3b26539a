"""Registry of table formats, from which readers, writers of labels, patterns of files and messages are derived.

To add a format, write a file with three functions and add a line here. This module does not import the formats.
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
    """A table format; its `place` is a function of the files of one table, the requested columns, and their name.

    Attributes:
        suffixes: The suffixes of its files, in lower case.
        count: The place of a function `(path) -> int`, which returns the number of rows of one file.
        write: The place of a function `(files, targets, *, column, edits)`, which writes files with new labels and the
            columns of `edits.verdicts`, if any, and no other changes. Its arguments are all files of the table, the
            targets of the files to write, the column of labels, and the :class:`labelsieve.data.sources.edits.Edits` of
            each file.
        magic: First and last bytes of its files; empty for text files.
    """

    suffixes: tuple[str, ...] = ()
    count: str = ""
    write: str = ""
    magic: bytes = b""

    @property
    def typed(self) -> bool:
        """Whether columns have types and may contain images and features, unlike those of text files."""
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
