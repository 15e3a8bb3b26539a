"""The registry of formats of tables: readers, patterns of files and messages derive from it.

A new format is one function that reads it, and one line here. Nothing here loads a reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.registry import Entry, Registry

if TYPE_CHECKING:
    from labelsieve.data.sources.columns import Table


@dataclass(frozen=True)
class TableFormat(Entry):
    """A format of tables; its place is a function of several files of one table, what is asked for, and their name.

    Attributes:
        suffixes: How its files end, in lower case.
        is_typed: Whether its columns have types, read by :func:`labelsieve.data.sources.arrow_files.read_schema`, so
            that they may hold images and features themselves. Else values are texts, such as paths of images.
    """

    suffixes: tuple[str, ...] = ()
    is_typed: bool = False


_HERE = "labelsieve.data.sources."
TABLE_FORMATS: Registry[Callable[..., Table], TableFormat] = Registry(
    "table",
    TableFormat("csv", _HERE + "readers:read_csv", "CSV, or TSV", suffixes=(".csv", ".tsv")),
    TableFormat("parquet", _HERE + "arrow_files:read_parquet", "Parquet", suffixes=(".parquet",), is_typed=True),
    TableFormat(
        "arrow", _HERE + "arrow_files:read_arrow", "Arrow, or Feather", suffixes=(".arrow", ".feather"), is_typed=True
    ),
)
TABLES = {suffix: name for name, format in TABLE_FORMATS.entries.items() for suffix in format.suffixes}
"""The format of each suffix."""
TYPED_TABLES = {suffix: name for suffix, name in TABLES.items() if TABLE_FORMATS.entries[name].is_typed}
