"""Corrected labels in annotation files of boxes: all other bytes stay as they are."""

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
from labelsieve.core.provenance import write_atomically
from labelsieve.core.registry import loaded
from labelsieve.data.box_formats.edits import BoxEdits, BoxVerdict, Written
from labelsieve.data.box_formats.registry import BOX_FORMATS, BoxFormat
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.labels import normalise
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.edits import Edits
from labelsieve.review.writers.label_files import LabelFiles, is_below
from labelsieve.review.writers.placing import Placing, copied

# Lists and settings beside annotations of boxes.
_TEXTS = (".txt", ".xml", ".yaml", ".yml", ".json")


class AnnotationFiles(LabelFiles):
    """Writes annotation files of boxes again; what is special to a format, `BOX_FORMATS` says."""

    @property
    def _format(self) -> BoxFormat:
        return BOX_FORMATS.entries[self.place.kind]

    @property
    def _boxes(self) -> BoxFiles:
        files = self.table.box_files
        if files is None:
            raise ValueError("expected a table of annotation files")
        return files

    @property
    def files(self) -> tuple[Path, ...]:
        """The annotation files, also those without a box."""
        return self._boxes.files

    def counts(self) -> Sequence[int]:
        """Returns how many boxes each file has."""
        return self._boxes.counts

    @property
    def folder(self) -> Path:
        """The folder or file that is written; of a file of settings the folder that it lies in."""
        return self.place.path.parent if self._format.label_files else self.place.path

    @property
    def origin(self) -> str:
        """What a new place must not lie in."""
        return str(self.folder)

    @property
    def beside(self) -> Path:
        """The folder whose other files come along."""
        return self.folder

    def may_end_in(self, suffix: str) -> bool:
        """Returns whether the suffix is that of the source."""
        return suffix == self.place.path.suffix.lower()

    def placing_of(self, path: Path) -> Placing:
        """Copies texts, which are small; through a link the source would be edited."""
        return copied if path.suffix.lower() in _TEXTS else self.placing

    def write_folder(self, part: Path) -> None:
        """Writes the folder, and checks that the old labels are not read from there."""
        self._check_inside(self.files, self.folder)
        super().write_folder(part)
        if self._format.label_files:
            found = loaded(self._format.label_files)(part / self.place.path.name, split=self.split)
            self._check_inside(found, part)

    def _check_inside(self, files: Sequence[Path], folder: Path) -> None:
        """Refuses labels outside of the folder that is written: there the old ones would be read."""
        if outside := [path for path in files if not is_below(os.path.abspath(path), folder)]:
            raise DataError(
                f"{self.place.path} leads to labels outside of its folder, such as {outside[0]}; write paths there "
                "that are relative to it, or use --in-place"
            )

    def write(self, targets: Mapping[Path, Path], *, in_new_folder: bool = False) -> None:
        """Writes annotation files, which may be thousands, one after the other.

        Args:
            targets: The files to write, and where.
            in_new_folder: Whether the targets lie in a folder that appears as a whole, so that nothing is replaced.

        Raises:
            DataError: The files cannot name a class.
            RunError: A file cannot be changed without other changes.
        """
        codes = _codes(self.table, self._boxes, self.parts)
        edit, written = loaded(self._format.edit), loaded(self._format.written)
        for path, part in zip(self.files, self.parts, strict=True):
            if path in targets:
                edits = _of_file(part, codes, self._boxes.column)
                with nullcontext(targets[path]) if in_new_folder else write_atomically(targets[path]) as target:
                    target.write_bytes(edit(path.read_bytes(), edits))
                    if edits.labels or edits.verdicts:
                        _check(path, target, written, edits)
                    shutil.copymode(path, target)

    def notes(self, out: Path) -> tuple[str, ...]:
        """Says where the images of a single file are now that it lies elsewhere."""
        moved = os.path.realpath(self.place.path.parent) != os.path.realpath(out.parent)
        if not self.is_one_file or not moved or self.asked.folder is not None:
            return ()
        folder = self.table.folder
        return (f"its images lie in {folder}: put it beside {self.place.path}, or add --image-folder {folder}",)

    def notes_in_place(self, changed: Sequence[Path]) -> tuple[str, ...]:
        """Says which caches trainers keep of labels that have changed, which they do not always see."""
        caches = loaded(self._format.caches)(changed) if self._format.caches else ()
        return tuple(f"{cache} is of the labels before; remove it, for training may read it" for cache in caches)


def _codes(table: Table, files: BoxFiles, parts: Sequence[Edits]) -> list[str]:
    """Returns how the files write each class.

    Raises:
        DataError: They cannot name one that is needed.
    """
    names = parts[0].class_names
    places = _places(table, parts)
    needed = np.unique(np.concatenate([part.new[part.rows] for part in parts]))
    lacking = [names[label] for label in needed[needed >= 0].tolist() if places[label] < 0]
    if lacking and not files.takes_new:
        raise DataError(
            f"{table.where} cannot name the class {listed(lacking, quoted=True)}, which is not listed there; add it "
            "to the list of classes first"
        )
    return [files.codes[place] if place >= 0 else name for place, name in zip(places.tolist(), names, strict=True)]


def _places(table: Table, parts: Sequence[Edits]) -> Any:
    """Returns the place of each of K classes in the list of the files, -1 where it has none.

    Names that the user gave may differ from those in the files: the boxes of a class tell its place.
    """
    column = str(table.columns.label)
    listed_names = table.rows.features[column].names
    old = np.concatenate([part.old for part in parts])
    places = np.full(len(parts[0].class_names), -1, dtype=np.int64)
    places[old] = np.asarray(table.rows.with_format("arrow")[:].column(column))
    seen = np.flatnonzero(places >= 0)
    known = {normalise(name): place for place, name in enumerate(listed_names)}
    in_order = len(places) == len(listed_names) and bool((places[seen] == seen).all())
    for label in np.flatnonzero(places < 0).tolist():
        places[label] = known.get(normalise(parts[0].class_names[label]), label if in_order else -1)
    return places


def _of_file(part: Edits, codes: Sequence[str], column: str) -> BoxEdits:
    labels = {row: None if part.new[row] < 0 else codes[part.new[row]] for row in part.rows.tolist()}
    said = part.verdicts
    rows = [] if said is None else np.flatnonzero(said.known & part.kept).tolist()
    verdicts = {
        row: BoxVerdict(float(said.quality[row]), codes[said.predicted[row]], bool(said.is_issue[row]))
        for row in rows
        if said is not None
    }
    return BoxEdits(column=column, labels=labels, verdicts=verdicts)


def _check(path: Path, target: Path, written: Callable[..., Iterator[Written]], edits: BoxEdits) -> None:
    """Checks that a new file holds what the old one does but for the labels that change, and the verdicts.

    Raises:
        RunError: It does not.
    """
    try:
        pairs = zip_longest(_expected(written(path, column=edits.column), edits), written(target, column=edits.column))
        same = all(before == after or repr(before) == repr(after) for before, after in pairs)  # NaN differs from itself
    except DataError:
        same = False
    if not same:
        raise RunError(
            f"{shown(path)} could not be written with other labels and all else unchanged, so it was not; please "
            "report this"
        )


def _expected(parts: Iterator[Written], edits: BoxEdits) -> Iterator[Written]:
    row = 0
    for part in parts:
        if part.label is None:
            yield part
            continue
        label = edits.labels.get(row, part.label)
        row += 1
        if label is not None:
            yield part._replace(label=label)
