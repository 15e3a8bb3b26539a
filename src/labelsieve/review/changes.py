"""The list of changes: which labels are corrected, by whom and why, as a CSV file that others can apply.

Images are matched by id, or by content if their ids differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, did_you_mean, listed, shown
from labelsieve.core.quantities import counted
from labelsieve.core.spreadsheets import read_csv, write_csv
from labelsieve.data.labelled import Labelled
from labelsieve.data.labels import normalise
from labelsieve.review.answers import DECIDED, KEEP_ONE, key_of
from labelsieve.review.state import Resolved, Reviews

LEFT_OUT = -1
"""The new label of an image that is left out."""

_REASONS = {
    "label": "reviewed",
    "several": "several classes",
    "none": "none of the classes",
    "wrong": "the label is wrong, the right one is not known",
    "drop": "a copy, a leak or a defect",
    "keep-one": "a copy of an image that stays",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One corrected label.

    Attributes:
        id: Id of the image.
        old: The given label.
        new: The right label; empty if the image is left out.
        who: The reviewers.
        why: Their answer.
        content: The content of the image, see :func:`labelsieve.review.key_of`; may be empty.
    """

    id: str
    old: str
    new: str
    who: str = ""
    why: str = ""
    content: str = ""


_COLUMNS = tuple(field.name for field in fields(Change))


@dataclass(frozen=True, kw_only=True, eq=False)
class ChangedLabels:
    """The result of applying changes to a data set of N images.

    Attributes:
        labels: Shape (N,), int64: the labels after the changes, :data:`LEFT_OUT` where an image is left out.
        changed: Number of images with another label.
        left_out: Number of images that are left out.
        done: Number of changes that had already been made.
        differing: Ids of the changes whose image has neither the old nor the new label.
        missing: Ids of the changes whose image is missing.
        unknown: Old labels of the changes that are no classes of the data.
    """

    labels: NDArray[np.int64]
    changed: int
    left_out: int
    done: int
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Returns notes on changes that were not made."""
        notes = []
        if self.done:
            notes.append(f"{counted(self.done, 'label', 'labels')} had been corrected before")
        if self.differing:
            images = counted(len(self.differing), "image has", "images have")
            notes.append(f"{images} another label than the list says, and no change: {listed(self.differing)}")
        if self.unknown:
            names = listed(self.unknown, quoted=True)
            notes.append(
                f"the list names classes that these data do not have: {names}; if it was made with other names of the "
                "classes, give the same --class-names"
            )
        if self.missing:
            images = counted(len(self.missing), "image of the changes is", "images of the changes are")
            notes.append(f"{images} not there: {listed(self.missing)}")
        return notes


def resolved_label(resolved: Resolved, given_label: str) -> str | None:
    """Returns the label of an image according to its reviews; None if no class is known to be right.

    If reviewers named several classes, the given label is kept if it is one of them; otherwise the first one is used.
    Without a decision, the given label stays.

    Args:
        resolved: The reviews of the image.
        given_label: Its given label.
    """
    if resolved.kind not in DECIDED or not resolved.speaks_of(given_label):
        return given_label
    return given_label if resolved.is_right(given_label) else next(iter(resolved.labels), None)


def dropped_rows(reviews: Mapping[int, Resolved], ids: Sequence[str]) -> set[int]:
    """Returns the rows of images that reviewers left out, whatever their labels.

    Args:
        reviews: Row to the reviews of its image.
        ids: Ids of all images. Of identical images, the one that was chosen stays, or the first one if it is missing.
    """
    dropped = {row for row, resolved in reviews.items() if resolved.leaves_out}
    duplicates: dict[str, list[int]] = {}
    for row in sorted(dropped):
        if reviews[row].kind != "drop":
            duplicates.setdefault(reviews[row].key, []).append(row)
    for rows in duplicates.values():
        dropped.discard(next((row for row in rows if ids[row] == reviews[row].keeps), rows[0]))
    return dropped


def changes_of(reviews: Reviews, images: Labelled) -> list[Change]:
    """Returns the labels that reviewers corrected, in the order of the data; all copies of an image change.

    Images that reviewers left out are included.

    Raises:
        DataError: The reviews belong to other data, or name a class that the images do not have.
    """
    facts = {
        int(key, 16): resolved
        for key, resolved in reviews.by_key.items()
        if resolved.kind in _REASONS or resolved.keeps
    }
    rows = np.flatnonzero(np.isin(images.contents, np.array([*facts], dtype=np.uint64)))
    if facts and not len(rows):
        raise DataError(
            f"the reviews are of other data: none of their {len(facts):,} images is among the {len(images):,} here; "
            "pass the data that were reviewed"
        )
    resolved_of = {row: facts[int(images.contents[row])] for row in rows.tolist()}
    dropped, changes = dropped_rows(resolved_of, images.ids), []
    for row, resolved in resolved_of.items():
        old = images.class_names[images.labels[row]]
        new = None if row in dropped else resolved_label(resolved, old)
        if new != old:
            changes.append(_change(images.ids[row], old, new, resolved))
    check_classes({each.new for each in changes if each.new}, images.class_names, where="the reviews")
    return changes


def _change(name: str, old: str, new: str | None, resolved: Resolved) -> Change:
    kind = KEEP_ONE if new is None and resolved.keeps and resolved.kind != "drop" else resolved.kind
    classes = f": {', '.join(resolved.labels)}" if kind == "several" else ""
    note = f" ({resolved.note})" if resolved.note else ""
    return Change(
        id=name,
        old=old,
        new=new or "",
        who=", ".join(resolved.reviewers),
        why=f"{_REASONS[kind]}{classes}{note}",
        content="" if kind == KEEP_ONE else resolved.key,  # its content would also match the image that stays
    )


def check_classes(names: set[str], class_names: Sequence[str], *, where: str) -> None:
    """Checks that all names are classes.

    Args:
        names: The names; differences in spelling are ignored.
        class_names: The classes of the data.
        where: Source of the names, for the message.

    Raises:
        DataError: Some names are no classes.
    """
    existing = {normalise(name) for name in class_names}
    unknown = sorted(name for name in names if normalise(name) not in existing)
    if unknown:
        raise DataError(
            f"expected classes out of {listed(class_names)} in {where}, found {listed(unknown, quoted=True)}"
            f"{did_you_mean(unknown[0], class_names)}; correct these answers, or add the class to the data"
        )


def change_labels(changes: Sequence[Change], images: Labelled, *, where: str) -> ChangedLabels:
    """Returns the labels of a data set after some changes.

    Args:
        changes: At most one per image.
        images: N images.
        where: Name of the changes, for messages.

    Raises:
        DataError: A class does not exist, or no change belongs to these images.
    """
    check_classes({each.new for each in changes if each.new}, images.class_names, where=where)
    index = {normalise(name): number for number, name in enumerate(images.class_names)}
    by_id = {name: row for row, name in enumerate(images.ids)}
    by_content = defaultdict(list)
    if any(each.content for each in changes):
        for row, content in enumerate(images.contents.tolist()):
            by_content[key_of(content)].append(row)
    labels = images.labels.copy()
    applied, differing, missing = 0, [], []
    for change in changes:
        rows = _rows_of(change, by_id, by_content)
        old, new = index.get(normalise(change.old), LEFT_OUT), index.get(normalise(change.new), LEFT_OUT)
        fitting = [row for row in rows if images.labels[row] == old]
        labels[fitting] = new
        if not rows:
            missing.append(change.id)
        elif not fitting:
            is_done = any(images.labels[row] == new for row in rows)
            applied += is_done
            differing += [] if is_done else [change.id]
    if changes and len(missing) == len(changes):
        raise DataError(
            f"{where} belongs to other data: none of its {len(changes):,} images is among the {len(images):,} here "
            f'(first: "{shown(missing[0])}"); pass the data that it was made for'
        )
    without_effect = set(differing)
    old_of_differing = [each.old for each in changes if each.id in without_effect]
    return ChangedLabels(
        labels=labels,
        changed=int(((labels != images.labels) & (labels >= 0)).sum()),
        left_out=int((labels < 0).sum()),
        done=applied,
        differing=tuple(differing),
        missing=tuple(missing),
        unknown=tuple(sorted({old for old in old_of_differing if normalise(old) not in index})),
    )


def _rows_of(change: Change, by_id: Mapping[str, int], by_content: Mapping[str, list[int]]) -> list[int]:
    """Returns the rows of an image: by its id if the content is equal or unknown, else by its content.

    A copy with another id has its own change.
    """
    row = by_id.get(change.id)
    copies = by_content.get(change.content, []) if change.content else []
    if row is not None and (not change.content or row in copies):
        return [row]
    return list(copies)


def write_changes(path: Path, changes: Sequence[Change]) -> None:
    """Writes changes as a CSV file, completely or not at all.

    Raises:
        RunError: The file cannot be written.
    """
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.string()) for name in _COLUMNS])
    write_csv(path, pa.Table.from_pylist([asdict(each) for each in changes], schema=schema))


def read_changes(path: Path) -> list[Change]:
    """Reads a CSV file with the columns `id`, `old` and `new`, and optionally `who`, `why` and `content`.

    Raises:
        DataError: The file cannot be read, a column is missing, or an image has two different changes.
    """
    advice = "take the list that `labelsieve apply` has written"
    lines = read_csv(path, needed=("id", "old", "new"), what="changes", advice=advice)
    changes: dict[str, Change] = {}
    for number, line in enumerate(lines, start=2):
        change = Change(**{name: line[name] for name in _COLUMNS if name in line})
        before = changes.setdefault(change.id, change)
        if (before.old, before.new) != (change.old, change.new):
            raise DataError(f'"{shown(change.id)}" is changed twice in {path}, in line {number} too; leave one of both')
    return list(changes.values())
