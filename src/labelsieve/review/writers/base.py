"""Base class of the writers of corrected labels, one for each kind of source, see :mod:`.registry`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.edits import Edits
from labelsieve.data.sources.readers import SourceLocation, read_path
from labelsieve.review.writers.file_transfer import Transfer, copy_file, link_file


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The result of a writer.

    Attributes:
        path: The file or folder that was written.
        backups: Backups of the original, a folder or each file that changed; empty for a new path.
        notes: Remarks for the user.
    """

    path: Path
    backups: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Writer(ABC):
    """Writes a data set with other labels.

    Attributes:
        location: Kind and path of the source.
        source: The source as the user named it.
        split: Its split, if it has several.
        requested: The columns that were requested when it was read.
        images: Its images, with their current labels.
        edits: The new labels.
        copy: Copy files that stay the same instead of linking to them.
        progress: Receives progress.
    """

    location: SourceLocation
    source: str
    split: str | None
    requested: Columns
    images: LabelledImages
    edits: Edits
    copy: bool
    progress: Progress

    @cached_property
    def table(self) -> Table:
        """Returns the rows, and the column of the labels."""
        return read_path(self.source, requested=self.requested, split=self.split)

    @property
    def column(self) -> str:
        """The column of labels."""
        return str(self.table.columns.label)

    @property
    def origin(self) -> str:
        """Returns the path that must not contain the output."""
        return self.source

    @property
    def transfer(self) -> Transfer:
        """Returns how unchanged files are transferred to a new path."""
        return copy_file if self.copy else link_file

    @abstractmethod
    def to(self, out: Path) -> Applied:
        """Writes to a new path."""

    @abstractmethod
    def in_place(self) -> Applied:
        """Changes the source itself; the original is kept beside it."""
