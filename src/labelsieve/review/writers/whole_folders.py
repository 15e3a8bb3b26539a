"""Folders that are written as a whole, for their labels lie in no file of their own."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path

from labelsieve.core.output_folders import new_folder
from labelsieve.review.writers.backups import BACKUP, free_name, in_place_of
from labelsieve.review.writers.base import Applied, Writer
from labelsieve.review.writers.placing import Placing, copied, hard_linked


class WholeFolder(Writer):
    """A folder that takes the place of another one."""

    @abstractmethod
    def write(self, part: Path, placing: Placing) -> None:
        """Writes all of it to a folder that is there and empty."""

    def to(self, out: Path) -> Applied:
        """Writes to a new folder."""
        with new_folder(out) as part:
            self.write(part, self.placing)
        return Applied(path=out, backups=(), notes=())

    def in_place(self) -> Applied:
        """Writes a folder that takes the place of the source, which stays beside it."""
        folder = Path(os.path.realpath(self.place.path))
        backup = free_name(folder, BACKUP)
        with in_place_of(folder, backup) as part:
            self.write(part, copied if self.copy else hard_linked)
        return Applied(path=self.place.path, backups=(backup,), notes=())
