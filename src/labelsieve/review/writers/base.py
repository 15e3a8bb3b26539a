"""Base class of the writers of corrected labels, one per kind of source; see :mod:`.registry`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from labelsieve.core.files import expand_home
from labelsieve.core.output_folders import new_folder
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.edits import Edits
from labelsieve.data.sources.location import SourceLocation
from labelsieve.data.sources.readers import read_path
from labelsieve.review.writers.backups import BACKUP, free_name, replacing_folder
from labelsieve.review.writers.file_transfer import Transfer, copy_file, hard_link, link_file


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The result of a writer.

    Attributes:
        path: The file or folder that was written.
        backups: Backups of the original, a folder or each file that changed; empty for a new path.
        notes: Notes for the user.
    """

    path: Path
    backups: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Writer(ABC):
    """Writes a data set with other labels.

    Attributes:
        location: Kind and path of the source.
        source: The source as passed by the user.
        split: Its split, if it has several.
        requested: The columns that were requested when it was read.
        images: Its images, with their current labels.
        edits: The new labels.
        copy: Whether to copy unchanged files instead of linking to them.
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
        """Returns the rows, with the names of the columns."""
        return read_path(self.source, requested=self.requested, split=self.split)

    @property
    def column(self) -> str:
        """The column of labels."""
        return str(self.table.columns.label)

    @property
    def companion_folder(self) -> Path:
        """Returns the folder that must not contain the output, and whose other files are transferred; or the file."""
        return expand_home(self.source)

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


class FolderWriter(Writer):
    """Writes a complete folder, for sources without separate label files."""

    @abstractmethod
    def write(self, part: Path, transfer: Transfer) -> None:
        """Writes everything to an empty folder."""

    def to(self, out: Path) -> Applied:
        """Writes to a new folder."""
        with new_folder(out) as part:
            self.write(part, self.transfer)
        return Applied(path=out, backups=(), notes=())

    def in_place(self) -> Applied:
        """Writes a folder that replaces the source, and keeps the original beside it."""
        folder = Path(os.path.realpath(self.location.path))
        backup = free_name(folder, BACKUP)
        with replacing_folder(folder, backup) as part:
            self.write(part, copy_file if self.copy else hard_link)
        return Applied(path=self.location.path, backups=(backup,), notes=())
