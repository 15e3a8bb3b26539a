"""The list of changes: which labels are corrected, by whom and why, as a CSV file that others can apply.

An image is found by its id, or by its content where it has another id there.
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
from labelsieve.review.answers import DECIDED, DROPPED, key_of
from labelsieve.review.state import Resolved, Reviews

LEFT_OUT = -1
"""The new label of an image that is left out, for none of the classes is known to be right."""

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
        new: The right one; empty where the image is left out.
        who: Who said so.
        why: What they said.
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
class Placed:
    """Changes on a data set of N images.

    Attributes:
        labels: Shape (N,), int64: the labels after the changes, :data:`LEFT_OUT` where an image is left out.
        changed: How many images get another label.
        left_out: How many images are left out.
        done: How many changes had been made before.
        differing: Ids of the changes whose image has neither the old label nor the new one.
        missing: Ids of the changes whose image is not there.
    """

    labels: NDArray[np.int64]
    changed: int
    left_out: int
    done: int
    differing: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What is to be said of changes that were not made."""
        notes = []
        if self.done:
            notes.append(f"{counted(self.done, 'label', 'labels')} had been corrected before")
        if self.differing:
            images = counted(len(self.differing), "image has", "images have")
            notes.append(f"{images} another label than the list says, and no change: {listed(self.differing)}")
        if self.missing:
            images = counted(len(self.missing), "image of the changes is", "images of the changes are")
            notes.append(f"{images} not there: {listed(self.missing)}")
        return notes


def resolved_label(found: Resolved, given_label: str) -> str | None:
    """Returns the label that an image should have by its reviews; None where none of the classes is known to be right.

    Of several classes the given label is kept if it is among them, else the first that was named is taken. Without a
    decision the given label stays.

    Args:
        found: What the reviewers say.
        given_label: The label that the image has.
    """
    if found.kind not in DECIDED or not found.speaks_of(given_label):
        return given_label
    return given_label if found.is_right(given_label) else next(iter(found.labels), None)


def dropped_rows(reviews: Mapping[int, Resolved], ids: Sequence[str]) -> set[int]:
    """Returns which images are left out as copies of others, whatever their labels.

    Args:
        reviews: Row to what the reviewers say of its image.
        ids: Ids of all images. Of equal images the one that the answer was given on stays, or the first if it is gone.
    """
    dropped = {row for row, found in reviews.items() if found.kind in DROPPED}
    equal: dict[str, list[int]] = {}
    for row in sorted(dropped):
        if reviews[row].kind == "keep-one":
            equal.setdefault(reviews[row].key, []).append(row)
    for rows in equal.values():
        name = next(each.id for each in reviews[rows[0]].answers if each.kind == "keep-one")
        dropped.discard(next((row for row in rows if ids[row] == name), rows[0]))
    return dropped


def changes_of(reviews: Reviews, images: Labelled) -> list[Change]:
    """Returns the labels that reviewers corrected, in the order of the data; all copies of an image change.

    Images that are left out as copies of others are among them.

    Raises:
        DataError: The reviews are of other data, or name a class that the images do not have.
    """
    facts = {int(key, 16): found for key, found in reviews.by_key.items() if found.kind in _REASONS}
    rows = np.flatnonzero(np.isin(images.contents, np.array([*facts], dtype=np.uint64)))
    if facts and not len(rows):
        raise DataError(
            f"the reviews are of other data: none of their {len(facts):,} images is among the {len(images):,} here; "
            "pass the data that were reviewed"
        )
    said = {row: facts[int(images.contents[row])] for row in rows.tolist()}
    dropped, changes = dropped_rows(said, images.ids), []
    for row, found in said.items():
        old = images.class_names[images.labels[row]]
        new = None if row in dropped else resolved_label(found, old)
        if new != old:
            changes.append(_change(images.ids[row], old, new, found))
    check_classes({each.new for each in changes if each.new}, images.class_names, where="the reviews")
    return changes


def _change(name: str, old: str, new: str | None, found: Resolved) -> Change:
    classes = f": {', '.join(found.labels)}" if found.kind == "several" else ""
    note = f" ({found.note})" if found.note else ""
    return Change(
        id=name,
        old=old,
        new=new or "",
        who=", ".join(found.reviewers),
        why=f"{_REASONS[found.kind]}{classes}{note}",
        content=""
        if found.kind == "keep-one"
        else found.key,  # by its content the image that stays would be found, too
    )


def check_classes(names: set[str], class_names: Sequence[str], *, where: str) -> None:
    """Checks that all names are classes.

    Raises:
        DataError: Names the first that is none.
    """
    known = {normalise(name) for name in class_names}
    unknown = sorted(name for name in names if normalise(name) not in known)
    if unknown:
        raise DataError(
            f"expected classes out of {listed(class_names)} in {where}, found {listed(unknown, quoted=True)}"
            f"{did_you_mean(unknown[0], class_names)}; correct these answers, or add the class to the data"
        )


def place(changes: Sequence[Change], images: Labelled, *, where: str) -> Placed:
    """Returns the labels of a data set after some changes.

    Args:
        changes: At most one for an image.
        images: N images.
        where: What to call the changes in a message.

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
    done, differing, missing = 0, [], []
    for change in changes:
        rows = _rows_of(change, by_id, by_content)
        old, new = index.get(normalise(change.old), LEFT_OUT), index.get(normalise(change.new), LEFT_OUT)
        fitting = [row for row in rows if images.labels[row] == old]
        labels[fitting] = new
        if not rows:
            missing.append(change.id)
        elif not fitting:
            right = any(images.labels[row] == new for row in rows)
            done += right
            differing += [] if right else [change.id]
    if changes and len(missing) == len(changes):
        raise DataError(
            f"{where} belongs to other data: none of its {len(changes):,} images is among the {len(images):,} here "
            f'(first: "{shown(missing[0])}"); pass the data that it was made for'
        )
    return Placed(
        labels=labels,
        changed=int(((labels != images.labels) & (labels >= 0)).sum()),
        left_out=int((labels < 0).sum()),
        done=done,
        differing=tuple(differing),
        missing=tuple(missing),
    )


def _rows_of(change: Change, by_id: Mapping[str, int], by_content: Mapping[str, list[int]]) -> list[int]:
    """Returns the rows of an image: that of its id if the content is the same or not known, else those of its content.

    Of a copy under another id there is a change of its own in the list.
    """
    row = by_id.get(change.id)
    same = by_content.get(change.content, []) if change.content else []
    if row is not None and (not change.content or row in same):
        return [row]
    return list(same)


def write_changes(path: Path, changes: Sequence[Change]) -> None:
    """Writes changes as a CSV file, whole or not at all.

    Raises:
        RunError: The file cannot be written.
    """
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.string()) for name in _COLUMNS])
    write_csv(path, pa.Table.from_pylist([asdict(each) for each in changes], schema=schema))


def read_changes(path: Path) -> list[Change]:
    """Reads a CSV file with the columns `id`, `old` and `new`, and `who`, `why` and `content` if they are there.

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
