"""Base class of writers of complete folders, whose labels are not in separate files."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path

from labelsieve.core.output_folders import new_folder
from labelsieve.review.writers.backups import BACKUP, free_name, replacing_folder
from labelsieve.review.writers.base import Applied, Writer
from labelsieve.review.writers.file_transfer import Transfer, copy_file, hard_link


class FolderWriter(Writer):
    """Writes a complete folder."""

    @abstractmethod
    def write(self, part: Path, transfer: Transfer) -> None:
        """Writes everything to an empty folder."""

    def to(self, out: Path) -> Applied:
        """Writes to a new folder."""
        with new_folder(out) as part:
            self.write(part, self.transfer)
        return Applied(path=out, backups=(), notes=())

    def in_place(self) -> Applied:
        """Writes a folder that replaces the source, which is kept beside it."""
        folder = Path(os.path.realpath(self.location.path))
        backup = free_name(folder, BACKUP)
        with replacing_folder(folder, backup) as part:
            self.write(part, copy_file if self.copy else hard_link)
        return Applied(path=self.location.path, backups=(backup,), notes=())
