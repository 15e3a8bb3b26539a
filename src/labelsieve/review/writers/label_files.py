"""Writers of sources with label files: changed files are rewritten, and the files beside them are transferred."""

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
from labelsieve.review.writers.backups import backed_up
from labelsieve.review.writers.base import Applied, Writer
from labelsieve.review.writers.file_transfer import Transfer


class LabelFiles(Writer):
    """A source in one file, or in several files of a folder or pattern."""

    @property
    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Returns the files that contain the labels."""

    @abstractmethod
    def counts(self) -> Sequence[int]:
        """Returns the number of rows of each file."""

    @abstractmethod
    def write(self, targets: Mapping[Path, Path], *, in_new_folder: bool = False) -> None:
        """Writes files with the new labels, each to its target.

        Args:
            targets: The files to write, and their targets.
            in_new_folder: Whether the targets are in a new folder that is created atomically.
        """

    @abstractmethod
    def may_end_in(self, suffix: str) -> bool:
        """Returns whether a single file with this lower-case suffix is read in the format of the source."""

    @property
    def folder(self) -> Path:
        """Returns the folder to which the paths of several files are relative."""
        return self.location.path

    def notes(self, out: Path) -> tuple[str, ...]:
        """Returns notes for the user after writing to a new path."""
        return ()

    def notes_in_place(self, changed: Sequence[Path]) -> tuple[str, ...]:
        """Returns notes for the user after changing files in place."""
        return ()

    @property
    def is_one_file(self) -> bool:
        """Returns whether the source is a single file."""
        return len(self.files) == 1 and self.location.path == self.files[0]

    @cached_property
    def parts(self) -> list[Edits]:
        """Returns the edits of each file."""
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
        """Writes changed files in place, and keeps a backup of each."""
        changing = [path for path, part in zip(self.files, self.parts, strict=True) if len(part.rows)]
        with backed_up(changing) as backups:
            self.write(dict(zip(changing, changing, strict=True)))
        return Applied(path=self.location.path, backups=tuple(backups), notes=self.notes_in_place(changing))

    def _check_suffix(self, out: Path) -> None:
        """Rejects a name by which the file would be read in another format, or not at all."""
        if not self.may_end_in(out.suffix.lower()):
            suffix = self.location.path.suffix
            raise RunError(
                f"expected --out to end in {suffix}, as {self.location.path}, got {shown(out)}; change the name"
            )

    def write_folder(self, part: Path) -> None:
        """Writes the label files, and all other files beside them, to an empty folder."""
        targets = {path: part / os.path.relpath(path, self.folder) for path in self.files}
        for target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
        self.write(targets, in_new_folder=True)
        source = self.companion_folder
        for path in sorted(source.rglob("*")) if source.is_dir() else ():
            target = part / os.path.relpath(path, self.folder)
            if os.path.lexists(target) or not (path.is_file() or path.is_symlink()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # with copied images, the new folder would be read as images instead of tables
                target.symlink_to(_link_target(path, target, folder=source, part=part), target_is_directory=True)
            else:
                self.transfer_of(path)(path, target)

    def transfer_of(self, path: Path) -> Transfer:
        """Returns how a file beside the label files is transferred."""
        return self.transfer


def is_below(path: str, folder: Path) -> bool:
    """Returns whether a path is inside of a folder, without resolving links."""
    return Path(os.path.normpath(path)).is_relative_to(os.path.abspath(folder))


def _link_target(path: Path, target: Path, *, folder: Path, part: Path) -> str:
    """Returns the target of a link at its new path; links within the folder lead to the new files."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    if Path(real).is_relative_to(root):
        return os.path.relpath(part / os.path.relpath(real, root), target.parent)
    return real
