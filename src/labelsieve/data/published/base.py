"""Reads published data sets in their official layout by name: `NAME:PATH`, where `NAME` is a key of `PUBLISHED`."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from labelsieve.core.errors import DataError, look_up
from labelsieve.core.files import expand_home
from labelsieve.data.published.layout import PublishedSplit, to_rows
from labelsieve.data.published.registry import PUBLISHED
from labelsieve.data.sources.columns import Columns, Table, choose_columns
from labelsieve.data.sources.splits import choose_split

# Excludes drives of Windows, which have one letter, and web addresses, which have two slashes after the colon.
_LIKE_A_NAME = re.compile(r"([\w.-]{2,}):(?!//)")


class NamedSource(NamedTuple):
    """The parts of a source `NAME:PATH`; the path is absolute."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name}:{self.path}"


def named_source(source: str | Path) -> NamedSource | None:
    """Returns the parts of a source `NAME:PATH` with a known name, or None; existing paths have priority."""
    name, _, path = str(source).partition(":")
    if not path or name not in PUBLISHED or os.path.exists(source):
        return None
    return NamedSource(name, Path(os.path.abspath(expand_home(path))))


def refuse_unknown_name(source: str) -> None:
    """Raises a `DataError`, with the most similar name, if a source looks like `NAME:PATH` or is only a name."""
    if (name := source.removesuffix(":")) in PUBLISHED:
        raise DataError(f"expected the folder of a published data set after its name, as in {name}:PATH, found none")
    if like := _LIKE_A_NAME.match(source):
        look_up(PUBLISHED, like[1], what="NAME in a source NAME:PATH", error=DataError)


def read_published(source: NamedSource, *, requested: Columns, split: str | None) -> Table:
    """Reads one split of a published data set in its official layout.

    Args:
        source: Name and folder of the data set.
        requested: The requested columns; by default, labels and truth are those of the data set.
        split: The split; None: the only one, else `train`.

    Raises:
        DataError: Files are missing or invalid, or there is no such split or column.
    """
    data_set = PUBLISHED.entries[source.name]
    where = f"{data_set.about} in {source.path}"
    chosen, notes = choose_split(data_set.splits, split, where=where)
    contents = PUBLISHED[source.name](source.path, chosen)
    label = requested.label or contents.given
    wish = replace(requested, label=label, truth=requested.truth or contents.truth_of(label))
    rows = to_rows(contents, where=where)
    columns = choose_columns(rows.features, requested=wish, where=where)
    notes = (*notes, *contents.notes, *_notes(contents, requested=requested, truth=columns.truth))
    return Table(rows=rows, columns=columns, where=where, folder=contents.folder, notes=notes)


def _notes(contents: PublishedSplit, *, requested: Columns, truth: str | None) -> list[str]:
    """Returns notes on columns that were chosen by default."""
    notes = []
    other_columns = [name for name in contents.labels if name != contents.given and name not in contents.truths]
    if other_columns and requested.label is None:
        notes.append(f"the given labels are {contents.given}; --label-column takes {', '.join(other_columns)}")
    if truth is not None and requested.truth is None:
        notes.append(f"the true labels, for metrics only, are {truth}")
    return notes
