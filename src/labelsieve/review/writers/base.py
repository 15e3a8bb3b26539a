"""What writes a data set again with other labels: a class for each kind of source, which :mod:`.registry` names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.edits import Edits
from labelsieve.data.sources.readers import Place, read_path
from labelsieve.review.writers.placing import Placing, copied, linked


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What was written.

    Attributes:
        path: The file or folder.
        backups: What stood there before, a folder or each file that changed; empty for a new place.
        notes: Remarks for the user.
    """

    path: Path
    backups: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Writer(ABC):
    """A data set that is written again.

    Attributes:
        place: What the source is, and where it lies.
        source: The source as the user named it.
        split: Its split, if it has several.
        asked: What it was read with.
        images: Its images, with their labels of now.
        edits: The labels that take their place.
        copy: Copy files that stay the same instead of linking to them.
        progress: Where to show how far it is.
    """

    place: Place
    source: str
    split: str | None
    asked: Columns
    images: LabelledImages
    edits: Edits
    copy: bool
    progress: Progress

    @cached_property
    def table(self) -> Table:
        """The rows, and which column holds the labels."""
        return read_path(self.source, asked=self.asked, split=self.split)

    @property
    def column(self) -> str:
        """The column of labels."""
        return str(self.table.columns.label)

    @property
    def origin(self) -> str:
        """What a new place must not lie in."""
        return self.source

    @property
    def placing(self) -> Placing:
        """How files that stay the same get to a new place."""
        return copied if self.copy else linked

    @abstractmethod
    def to(self, out: Path) -> Applied:
        """Writes to a new place."""

    @abstractmethod
    def in_place(self) -> Applied:
        """Changes the source itself; what was there before stays beside it."""
