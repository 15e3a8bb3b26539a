"""The registry of formats of tables: readers, writers of labels, patterns of files and messages derive from it.

A new format is a file with three functions, and one line here. Nothing here loads one.
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
        count: The place of a function `(path) -> int`, the number of rows in one file.
        write: The place of a function `(files, targets, *, column, edits)`, which writes files again with other labels
            and all else as it is: all files of the table, those to write with their targets, the column of labels,
            and the :class:`labelsieve.data.sources.edits.Edits` of each file.
        magic: How its files begin and end; empty where nothing tells them.
        schema: The place of a function `(path) -> pyarrow.Schema`, where columns have types, so that they may hold
            images and features themselves. Empty where values are texts, such as paths of images.
        batches: Beside `schema`, the place of a function `(path, *, columns, rows) -> Iterator[pyarrow.RecordBatch]`,
            which reads some columns, so many rows at a time at most.
    """

    suffixes: tuple[str, ...] = ()
    count: str = ""
    write: str = ""
    magic: bytes = b""
    schema: str = ""
    batches: str = ""

    @property
    def is_typed(self) -> bool:
        """Whether its columns have types."""
        return bool(self.schema)


_HERE = "labelsieve.data.sources."


def _typed(name: str, about: str, *suffixes: str, magic: bytes) -> TableFormat:
    read, labels = f"{_HERE}arrow_files:", f"{_HERE}arrow_labels:"
    return TableFormat(
        name,
        f"{read}read_{name}",
        about,
        suffixes=suffixes,
        count=f"{labels}count_{name}",
        write=f"{labels}write_{name}",
        magic=magic,
        schema=f"{read}{name}_schema",
        batches=f"{read}{name}_batches",
    )


TABLE_FORMATS: Registry[Callable[..., Table], TableFormat] = Registry(
    "table",
    TableFormat(
        "csv",
        _HERE + "readers:read_csv",
        "CSV, or TSV",
        suffixes=(".csv", ".tsv"),
        count=_HERE + "csv_labels:count_csv",
        write=_HERE + "csv_labels:write_csv",
    ),
    _typed("parquet", "Parquet", ".parquet", magic=b"PAR1"),
    _typed("arrow", "Arrow, or Feather", ".arrow", ".feather", magic=b"ARROW1"),
)
TABLES = {suffix: name for name, format in TABLE_FORMATS.entries.items() for suffix in format.suffixes}
"""The format of each suffix."""
TYPED_TABLES = {suffix: name for suffix, name in TABLES.items() if TABLE_FORMATS.entries[name].is_typed}
