"""Reads published data sets, in their official layout, by name: `NAME:PATH`, with a name out of `PUBLISHED`."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from labelsieve.core.errors import DataError, look_up
from labelsieve.data.published.layout import Found, to_rows
from labelsieve.data.published.registry import PUBLISHED
from labelsieve.data.sources.columns import Columns, Table, choose_columns
from labelsieve.data.sources.splits import choose_split

# A drive of Windows has one letter, and a web address goes on with two slashes.
_LIKE_A_NAME = re.compile(r"([\w.-]{2,}):(?!//)")


# Those of the data sets that the Hub has under an id of its own, and that its columns do not give away: CIFAR-100 has
# two of class names there.
HUB = {
    "uoft-cs/cifar10": Columns(image="img", label="label"),
    "uoft-cs/cifar100": Columns(image="img", label="fine_label"),
}


class NamedSource(NamedTuple):
    """A source `NAME:PATH` in its parts; the path is absolute."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name}:{self.path}"


def named_source(source: str | Path) -> NamedSource | None:
    """Returns the parts of a source `NAME:PATH` with a known name, or None; a path that exists is just that."""
    name, _, place = str(source).partition(":")
    if not place or name not in PUBLISHED or os.path.exists(source):
        return None
    return NamedSource(name, Path(os.path.abspath(Path(place).expanduser())))


def refuse_unknown_name(source: str) -> None:
    """Raises a `DataError` that names the nearest data set if a source looks like `NAME:PATH`, or like a name alone."""
    if (name := source.removesuffix(":")) in PUBLISHED:
        raise DataError(f"expected the folder of a published data set after its name, as in {name}:PATH, found none")
    if like := _LIKE_A_NAME.match(source):
        look_up(PUBLISHED, like[1], what="NAME in a source NAME:PATH", error=DataError)


def read_published(source: NamedSource, *, requested: Columns, split: str | None) -> Table:
    """Reads one split of a published data set in its official layout.

    Raises:
        DataError: Files are missing or are not what they should be, or there is no such split or column.
    """
    known = PUBLISHED.entries[source.name]
    where = f"{known.about} in {source.path}"
    chosen, notes = choose_split(known.splits, split, where=where)
    found = PUBLISHED[source.name](source.path, chosen)
    label = requested.label or found.given
    wish = replace(requested, label=label, truth=requested.truth or found.truth_of(label))
    rows = to_rows(found, where=where)
    columns = choose_columns(rows.features, requested=wish, where=where)
    notes = (*notes, *found.notes, *_notes(found, requested=requested, truth=columns.truth))
    return Table(rows=rows, columns=columns, where=where, folder=found.folder, notes=notes)


def _notes(found: Found, *, requested: Columns, truth: str | None) -> list[str]:
    """Says which of several columns were taken though nobody asked for them."""
    notes = []
    others = [name for name in found.labels if name != found.given and name not in found.truths]
    if others and requested.label is None:
        notes.append(f"the given labels are {found.given}; --label-column takes {', '.join(others)}")
    if truth is not None and requested.truth is None:
        notes.append(f"the true labels, for metrics only, are {truth}")
    return notes
