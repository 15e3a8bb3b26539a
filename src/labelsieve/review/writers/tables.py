"""Corrected labels in tables of one or several files, each format written by what `TABLE_FORMATS` names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from labelsieve.core.provenance import write_atomically
from labelsieve.core.registry import loaded
from labelsieve.data.sources.table_formats import TABLE_FORMATS, TABLES, TableFormat
from labelsieve.review.writers.label_files import LabelFiles, is_below


class TableFiles(LabelFiles):
    """Writes a table again: all of its files, or those that change."""

    @property
    def _format(self) -> TableFormat:
        return TABLE_FORMATS.entries[self.place.kind]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the table, in their order."""
        return self.place.files

    def counts(self) -> Sequence[int]:
        """Returns how many rows each file has."""
        return [*map(loaded(self._format.count), self.files)]

    def may_end_in(self, suffix: str) -> bool:
        """Returns whether a table under this suffix is read as this format."""
        return TABLES.get(suffix) == self.place.kind

    def write(self, targets: Mapping[Path, Path], *, in_new_folder: bool = False) -> None:
        """Writes files beside their places first, and moves them there when all of them are whole."""
        write = loaded(self._format.write)
        with ExitStack() as stack:
            parts = {path: stack.enter_context(write_atomically(target)) for path, target in targets.items()}
            write(self.files, parts, column=self.column, edits=self.parts)
            for path, part in parts.items():
                shutil.copymode(path, part)

    def notes(self, out: Path) -> tuple[str, ...]:
        """Says where the images of the table are now that it lies elsewhere."""
        if self.asked.folder is not None:
            return ()
        first = self.images.dataset[0]["image"] if len(self.images) else None
        if not first or first["bytes"] is not None or self._has_whole_paths():
            return ()
        before = self.place.path.parent if self.is_one_file else self.place.path
        after = out.parent if self.is_one_file else out
        came_along = self.beside.is_dir() and is_below(first["path"], before)
        if came_along or os.path.realpath(before) == os.path.realpath(after):
            return ()
        return (f"the paths in it are relative to {before}: put it there, or add --image-folder {before}",)

    def _has_whole_paths(self) -> bool:
        value = self.table.rows[0][str(self.table.columns.image)]
        return os.path.isabs(str(value["path"] if isinstance(value, dict) else value))
