"""Writes corrected labels to annotation files of boxes; all other bytes stay unchanged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.core.errors import DataError, RunError, listed, shown
from labelsieve.core.files import write_atomically
from labelsieve.core.registry import loaded
from labelsieve.data.box_formats.registry import BOX_FORMATS, BoxFormat
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.labels import normalise
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.edits import Edits, TextEdits, Written, text_edits
from labelsieve.review.writers.file_transfer import Transfer, copy_file
from labelsieve.review.writers.label_files import LabelFiles, is_below

# Suffixes of lists and settings beside annotation files.
_TEXTS = (".txt", ".xml", ".yaml", ".yml", ".json")


class AnnotationFiles(LabelFiles):
    """Writes annotation files of boxes; `BOX_FORMATS` has the functions of each format."""

    @property
    def _format(self) -> BoxFormat:
        return BOX_FORMATS.entries[self.location.kind]

    @property
    def _boxes(self) -> BoxFiles:
        files = self.table.box_files
        assert files is not None, "a table of annotation files has them"
        return files

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the annotation files, including those without a box."""
        return self._boxes.files

    def counts(self) -> Sequence[int]:
        """Returns the number of boxes of each file."""
        return self._boxes.counts

    @property
    def folder(self) -> Path:
        """Returns the folder or file that is written; if the source is a file of settings, its folder."""
        return self.location.path.parent if self._format.label_files else self.location.path

    @property
    def companion_folder(self) -> Path:
        """Returns the same folder, because the source may be its file of settings."""
        return self.folder

    def may_end_in(self, suffix: str) -> bool:
        """Returns whether the suffix is that of the source."""
        return suffix == self.location.path.suffix.lower()

    def transfer_of(self, path: Path) -> Transfer:
        """Returns how a file is transferred: texts are copied, because edits through a link would change the source."""
        return copy_file if path.suffix.lower() in _TEXTS else self.transfer

    def write_folder(self, part: Path) -> None:
        """Writes the folder, and checks that it does not refer to the old labels."""
        self._check_inside(self.files, self.folder)
        super().write_folder(part)
        if self._format.label_files:
            label_files = loaded(self._format.label_files)(part / self.location.path.name, split=self.split)
            self._check_inside(label_files, part)

    def _check_inside(self, files: Sequence[Path], folder: Path) -> None:
        """Rejects labels outside of the written folder, because old labels would be read from there."""
        if outside := [path for path in files if not is_below(os.path.abspath(path), folder)]:
            raise DataError(
                f"{self.location.path} leads to labels outside of its folder, such as {outside[0]}; write paths there "
                "that are relative to it, or use --in-place"
            )

    def write(self, targets: Mapping[Path, Path], *, in_new_folder: bool = False) -> None:
        """Writes annotation files one by one, because there may be thousands.

        Args:
            targets: The files to write, and their targets.
            in_new_folder: Whether the targets are in a new folder that is created atomically.

        Raises:
            DataError: The files cannot represent a class.
            RunError: A label in a file cannot be changed without other changes.
        """
        codes = _codes(self.table, self._boxes, self.parts)
        edit, written = loaded(self._format.edit), loaded(self._format.written)
        for path, part in zip(self.files, self.parts, strict=True):
            if path in targets:
                edits = text_edits(part, codes, column=self._boxes.column)
                with nullcontext(targets[path]) if in_new_folder else write_atomically(targets[path]) as target:
                    target.write_bytes(edit(path.read_bytes(), edits))
                    if edits.labels or edits.verdicts:
                        _check(path, target, written, edits)
                    shutil.copymode(path, target)

    def notes(self, out: Path) -> tuple[str, ...]:
        """Returns a note on the folder of the images, if a single file was moved."""
        moved = os.path.realpath(self.location.path.parent) != os.path.realpath(out.parent)
        if not self.is_one_file or not moved or self.requested.folder is not None:
            return ()
        folder = self.table.folder
        return (f"its images lie in {folder}: put it beside {self.location.path}, or add --image-folder {folder}",)

    def notes_in_place(self, changed: Sequence[Path]) -> tuple[str, ...]:
        """Returns notes on caches of changed labels, because training tools do not always invalidate them."""
        caches = loaded(self._format.caches)(changed) if self._format.caches else ()
        return tuple(f"{cache} is of the labels before; remove it, for training may read it" for cache in caches)


def _codes(table: Table, files: BoxFiles, parts: Sequence[Edits]) -> list[str]:
    """Returns the code of each class in the files.

    Raises:
        DataError: A required class has none.
    """
    names = parts[0].class_names
    positions = _class_positions(table, parts)
    needed = np.unique(np.concatenate([part.new[part.rows] for part in parts]))
    lacking = [names[label] for label in needed[needed >= 0].tolist() if positions[label] < 0]
    if lacking and not files.takes_new:
        raise DataError(
            f"{table.where} cannot name the class {listed(lacking, quoted=True)}, which is not listed there; add it "
            "to the list of classes first"
        )
    return [
        files.codes[position] if position >= 0 else name
        for position, name in zip(positions.tolist(), names, strict=True)
    ]


def _class_positions(table: Table, parts: Sequence[Edits]) -> Any:
    """Returns the position of each of K classes in the list of the files; -1 if it has none.

    Names passed by the user may differ from those in the files, so positions are derived from the boxes of each class.
    """
    column = str(table.columns.label)
    listed_names = table.rows.features[column].names
    old = np.concatenate([part.old for part in parts])
    positions = np.full(len(parts[0].class_names), -1, dtype=np.int64)
    positions[old] = np.asarray(table.rows.with_format("arrow")[:].column(column))
    occurring = np.flatnonzero(positions >= 0)
    position_of = {normalise(name): position for position, name in enumerate(listed_names)}
    same_order = len(positions) == len(listed_names) and bool((positions[occurring] == occurring).all())
    for label in np.flatnonzero(positions < 0).tolist():
        positions[label] = position_of.get(normalise(parts[0].class_names[label]), label if same_order else -1)
    return positions


def _check(path: Path, target: Path, written: Callable[..., Iterator[Written]], edits: TextEdits) -> None:
    """Checks that a new file only differs from the old one in changed labels and verdicts.

    Raises:
        RunError: It has other differences.
    """
    try:
        pairs = zip_longest(_expected(written(path, column=edits.column), edits), written(target, column=edits.column))
        # NaN differs from itself
        is_same = all(before == after or repr(before) == repr(after) for before, after in pairs)
    except DataError:
        is_same = False
    if not is_same:
        raise RunError(
            f"{shown(path)} could not be written with other labels and all else unchanged, so it was not; please "
            "report this"
        )


def _expected(parts: Iterator[Written], edits: TextEdits) -> Iterator[Written]:
    row = 0
    for part in parts:
        if part.label is None:
            yield part
            continue
        label = edits.labels.get(row, part.label)
        row += 1
        if label is not None:
            yield part._replace(label=label)
