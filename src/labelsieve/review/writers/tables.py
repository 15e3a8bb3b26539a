"""Writes corrected labels to tables of one or several files; `TABLE_FORMATS` has the functions of each format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from labelsieve.core.files import write_atomically
from labelsieve.core.registry import loaded
from labelsieve.data.sources.table_formats import TABLE_FORMATS, TABLES, TableFormat
from labelsieve.review.writers.label_files import LabelFiles, is_below


class TableFiles(LabelFiles):
    """Writes a table: all of its files, or those that change."""

    @property
    def _format(self) -> TableFormat:
        return TABLE_FORMATS.entries[self.location.kind]

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the files of the table, in order."""
        return self.location.files

    def counts(self) -> Sequence[int]:
        """Returns the number of rows of each file."""
        return [*map(loaded(self._format.count), self.files)]

    def may_end_in(self, suffix: str) -> bool:
        """Returns whether a table with this suffix is read in this format."""
        return TABLES.get(suffix) == self.location.kind

    def write(self, targets: Mapping[Path, Path], *, in_new_folder: bool = False) -> None:
        """Writes temporary files first, and renames them when all of them are complete."""
        write = loaded(self._format.write)
        with ExitStack() as stack:
            parts = {path: stack.enter_context(write_atomically(target)) for path, target in targets.items()}
            write(self.files, parts, column=self.column, edits=self.parts)
            for path, part in parts.items():
                shutil.copymode(path, part)

    def notes(self, out: Path) -> tuple[str, ...]:
        """Returns a note on the folder of the images, if the table was moved."""
        if self.requested.folder is not None:
            return ()
        first = self.images.dataset[0]["image"] if len(self.images) else None
        if not first or first["bytes"] is not None or self._has_absolute_paths():
            return ()
        before = self.location.path.parent if self.is_one_file else self.location.path
        after = out.parent if self.is_one_file else out
        is_copied = self.companion_folder.is_dir() and is_below(first["path"], before)
        if is_copied or os.path.realpath(before) == os.path.realpath(after):
            return ()
        return (f"the paths in it are relative to {before}: put it there, or add --image-folder {before}",)

    def _has_absolute_paths(self) -> bool:
        value = self.table.rows[0][str(self.table.columns.image)]
        return os.path.isabs(str(value["path"] if isinstance(value, dict) else value))
