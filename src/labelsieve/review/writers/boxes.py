"""Corrected labels in annotation files of boxes: all other bytes stay as they are."""

from __future__ import annotations

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
from labelsieve.data.box_formats.registry import BOX_FORMATS
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.labels import normalise
from labelsieve.data.sources.columns import Table
from labelsieve.review.writers.edits import Edits


def write_boxes(
    kind: str, targets: Mapping[Path, Path], *, table: Table, parts: Sequence[Edits], in_new_folder: bool
) -> None:
    """Writes annotation files with other labels, one after the other.

    Args:
        kind: A key of `BOX_FORMATS`.
        targets: The files to write, and where.
        table: All boxes.
        parts: The edits of each file of the table.
        in_new_folder: Whether the targets lie in a folder that appears as a whole, so that nothing is replaced.

    Raises:
        DataError: The files cannot name a class.
        RunError: A file cannot be changed without other changes.
    """
    files = table.box_files
    if files is None:
        raise ValueError("expected a table of annotation files")
    codes = _codes(table, files, parts)
    format = BOX_FORMATS.entries[kind]
    edit, written = loaded(format.edit), loaded(format.written)
    for path, part in zip(files.files, parts, strict=True):
        if path in targets:
            edits = _of_file(part, codes, files.column)
            with nullcontext(targets[path]) if in_new_folder else write_atomically(targets[path]) as target:
                target.write_bytes(edit(path.read_bytes(), edits))
                if edits.labels or edits.verdicts:
                    _check(path, target, written, edits)
                shutil.copymode(path, target)


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
