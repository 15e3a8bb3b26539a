"""Sources whose labels lie in files: each file that changes is written again, and what lies beside it comes along."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from labelsieve.core.errors import RunError, shown
from labelsieve.core.output_folders import new_folder
from labelsieve.data.sources.edits import Edits
from labelsieve.review.writers.backups import kept
from labelsieve.review.writers.base import Applied, Writer
from labelsieve.review.writers.placing import Placing


class LabelFiles(Writer):
    """A source in one file, or in a folder or pattern of them."""

    @property
    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """The files that hold the labels."""

    @abstractmethod
    def counts(self) -> Sequence[int]:
        """Returns how many rows each file has."""

    @abstractmethod
    def write(self, targets: Mapping[Path, Path], *, in_new_folder: bool = False) -> None:
        """Writes files again, each to its target.

        Args:
            targets: The files to write, and where.
            in_new_folder: Whether the targets lie in a folder that appears as a whole, so that nothing is replaced.
        """

    @abstractmethod
    def may_end_in(self, suffix: str) -> bool:
        """Returns whether a single file would be read as what it is under another suffix, in lower case."""

    @property
    def folder(self) -> Path:
        """The folder that paths of several files are relative to."""
        return self.place.path

    @property
    def beside(self) -> Path:
        """The folder whose other files come along; none do where it is no folder."""
        return Path(self.source).expanduser()

    def notes(self, out: Path) -> tuple[str, ...]:
        """Returns remarks for the user, once all is written to a new place."""
        return ()

    def notes_in_place(self, changed: Sequence[Path]) -> tuple[str, ...]:
        """Returns remarks for the user, once files have changed where they are."""
        return ()

    @property
    def is_one_file(self) -> bool:
        """Whether the source is a single file."""
        return len(self.files) == 1 and self.place.path == self.files[0]

    @cached_property
    def parts(self) -> list[Edits]:
        """The edits of each file."""
        counts = [*self.counts()]
        if sum(counts) != len(self.edits):
            raise RunError(f"{self.source} has changed while it was read; try it again")
        starts = np.cumsum([0, *counts]).tolist()
        return [self.edits.part(start, size) for start, size in zip(starts, counts, strict=False)]

    def to(self, out: Path) -> Applied:
        """Writes to a new file or folder."""
        if self.is_one_file:
            self._check_suffix(out)
            self.write({self.files[0]: out})
        else:
            with new_folder(out) as part:
                self.write_folder(part)
        return Applied(path=out, backups=(), notes=self.notes(out))

    def in_place(self) -> Applied:
        """Writes the files that change where they are, and keeps a copy of each."""
        changing = [path for path, part in zip(self.files, self.parts, strict=True) if len(part.rows)]
        with kept(changing) as backups:
            self.write(dict(zip(changing, changing, strict=True)))
        return Applied(path=self.place.path, backups=tuple(backups), notes=self.notes_in_place(changing))

    def _check_suffix(self, out: Path) -> None:
        """Refuses a name under which the file would be read as another kind, or not at all."""
        if not self.may_end_in(out.suffix.lower()):
            suffix = self.place.path.suffix
            raise RunError(
                f"expected --out to end in {suffix}, as {self.place.path}, got {shown(out)}; change the name"
            )

    def write_folder(self, part: Path) -> None:
        """Writes the files to a folder that is there and empty, and whatever else lies beside them."""
        targets = {path: part / os.path.relpath(path, self.folder) for path in self.files}
        for target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
        self.write(targets, in_new_folder=True)
        source = self.beside
        for path in sorted(source.rglob("*")) if source.is_dir() else ():
            target = part / os.path.relpath(path, self.folder)
            if os.path.lexists(target) or not (path.is_file() or path.is_symlink()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # with images copied from there it would be a folder of images, and none of tables
                target.symlink_to(_led_to(path, target, folder=source, part=part), target_is_directory=True)
            else:
                self.placing_of(path)(path, target)

    def placing_of(self, path: Path) -> Placing:
        """Returns how a file beside those with labels gets to its new place."""
        return self.placing


def is_below(path: str, folder: Path) -> bool:
    """Returns whether a path leads into a folder, by its names: what links lead to does not matter."""
    return Path(os.path.normpath(path)).is_relative_to(os.path.abspath(folder))


def _led_to(path: Path, target: Path, *, folder: Path, part: Path) -> str:
    """Returns what a link leads to, seen from its new place; within the folder it leads to the new files."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    if Path(real).is_relative_to(root):
        return os.path.relpath(part / os.path.relpath(real, root), target.parent)
    return real
