"""Notes on class names that mislead a model or a reader, and on classes with few images."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import listed, shown
from labelsieve.data.labels import normalise, quoted_pair

_WORDNET = re.compile(r"n[0-9]{8}")
# Maximum number of notes on class names.
_MAX_NOTES = 5
# Cyrillic and Greek letters, and the Latin letters that look the same.
_GLYPHS = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсхуһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧοιν",  # noqa: RUF001
    "ABESIJKMHOPCTXYaesijopcxyhdqwABEZHIKMNOPTYXoiv",
)


def class_name_notes(class_names: Sequence[str]) -> list[str]:
    """Returns notes on misleading names: WordNet ids, names that look like several labels, names that look the same."""
    notes = []
    if all(_WORDNET.fullmatch(name) for name in class_names):
        first = class_names[0]
        notes.append(f"classes are named by ids of WordNet, such as {first}; a model reads words (--class-names FILE)")
    if mark := _mark_between(class_names):
        example = next(name for name in class_names if mark in name)
        notes.append(
            f'class names such as "{shown(example)}" look like several, separated by "{mark}"; for several labels per '
            "image use: labelsieve scan-tags"
        )
    by_glyphs: dict[str, str] = {}
    for name in class_names:
        similar = by_glyphs.setdefault(normalise(name.translate(_GLYPHS)), name)
        if similar != name:
            notes.append(
                f"class names {quoted_pair(similar, name)} look the same, but are in different scripts; "
                "write them alike if they are one class"
            )
    return notes[:_MAX_NOTES]


def _mark_between(class_names: Sequence[str]) -> str | None:
    """Returns the separator if class names seem to combine labels: there are fewer distinct parts than names.

    Example:
        >>> _mark_between(["cat", "cat|dog", "dog", "dog|fox", "cat|fox"])
        '|'
    """
    for mark in "|;,":
        several = [name for name in class_names if mark in name]
        parts = {normalise(part) for name in class_names for part in name.split(mark)}
        if len(several) > 1 and len(parts) < len(class_names):
            return mark
    return None


def class_size_notes(labels: NDArray[np.int64], class_names: Sequence[str]) -> list[str]:
    """Returns notes on classes with no images or a single image."""
    sizes = np.bincount(labels, minlength=len(class_names))
    notes = []
    for size, remark in ((0, "no images"), (1, "a single image")):
        affected = [class_names[index] for index in np.flatnonzero(sizes == size).tolist()]
        if affected:
            notes.append(f"{len(affected)} of {len(class_names)} classes have {remark}: {listed(affected)}")
    return notes
