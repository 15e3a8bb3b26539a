"""What the program reads of the record of a run, and of which kind it has to be: people edit JSON files.

All readers rely on this table; what it does not name is kept and never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from labelsieve.core.errors import RunError, shown
from labelsieve.core.provenance import to_json

# More is no count or duration of anything, and too much for many a format. NaN is not within any bounds.
_MOST = 1e15


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_size(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


# What each kind is called in a message, and whether a value is of it.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "a text": _is_text,
    "a list of texts": _is_texts,
    "a text or a list of texts": lambda value: _is_text(value) or _is_texts(value),
    "a number": _is_number,
    "a number from 0 to 1": _is_share,
    "a number from 0": _is_size,
    "an integer from 0": _is_count,
    "true or false": lambda value: isinstance(value, bool),
    "an object": lambda value: isinstance(value, dict),
    "a list of objects": lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
}
# `a.b` is `b` in the object `a`, or in each object of the list `a`. All may be missing or null but what is required.
RUN: dict[str, str] = {
    "class_names": "a list of texts",
    "verdicts_fingerprint": "a text",
    "labelsieve": "a text",
    "created": "a text",
    "source": "a text",
    "origin": "an object",
    "origin.source": "a text",
    "origin.image_column": "a text",
    "origin.image_folder": "a text",
    "origin.label_column": "a text or a list of texts",
    "origin.truth_column": "a text",
    "origin.class_names": "a text or a list of texts",
    "origin.split": "a text",
    "origin.noise": "a text",
    "origin.text": "a text",
    "origin.logit_scale": "a number",
    "origin.limit": "an integer from 0",
    "origin.seed": "an integer from 0",
    "data": "an object",
    "data.fingerprint": "a text",
    "model": "an object",
    "model.name": "a text",
    "model.fingerprint": "a text",
    "detector": "an object",
    "detector.name": "a text",
    "detector.recipe": "a text",
    "detector.settings": "an object",
    "detector.fingerprint": "a text",
    "threshold": "a number",
    "demand_agreement": "true or false",
    "zero_shot_agreement": "a number from 0 to 1",
    "zero_shot_balanced_agreement": "a number from 0 to 1",
    "estimate": "an object",
    "estimate.wrong_labels": "an object",
    "estimate.right_flags": "an object",
    "estimate.missed_labels": "an object",
    "annotators": "a list of objects",
    "annotators.name": "a text",
    "annotators.labels": "an integer from 0",
    "annotators.accuracy": "a number from 0 to 1",
    "annotators.low": "a number from 0 to 1",
    "annotators.high": "a number from 0 to 1",
    "annotators.agreement": "a number from 0 to 1",
    "annotators.confused": "an object",
    "consensus": "an object",
    "consensus.changed": "an integer from 0",
    "test": "an object",
    "test.accuracy": "a number from 0 to 1",
    "test.images": "an integer from 0",
    "test.unreadable": "an integer from 0",
    "reviewed": "an object",
    "reviewed.run": "a text",
    "reviewed.images": "an integer from 0",
    "reviewed.wrong": "an integer from 0",
    "reviewed.fingerprint": "a text",
    "against": "an object",
    "against.source": "a text",
    "against.source_name": "a text",
    "against.images": "an integer from 0",
    "findings": "a list of objects",
    "findings.level": "a text",
    "findings.code": "a text",
    "findings.figure": "a text",
    "findings.message": "a text",
    "findings.advice": "a text",
    "seed": "an integer from 0",
    "hardware": "a text",
    "seconds": "a number from 0",
    "out": "a text",
}
REQUIRED = ("class_names", "verdicts_fingerprint", "test.accuracy", "test.images", "test.unreadable")


def check_kinds(record: Mapping[str, Any], kinds: Mapping[str, str], path: Path) -> None:
    """Checks that what a JSON file holds is of the kinds that its readers expect.

    Args:
        record: What it holds.
        kinds: Keys, and what each has to be.
        path: The file, for the message.

    Raises:
        RunError: Names the first key that is not.
    """
    try:
        to_json(record).encode()
    except (UnicodeEncodeError, RecursionError):
        raise RunError(f"expected texts in UTF-8 in {path}, found others; make the run again") from None
    for key, kind in kinds.items():
        for value in _values(record, key):
            if (value is None and key not in REQUIRED) or _KINDS[kind](value):
                continue
            found = "none" if value is None else shown(to_json(value))
            raise RunError(f'expected "{key}" in {path} to be {kind}, found {found}; make the run again')


def _values(record: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yields what a key has, None where it is missing; nothing where there is nothing above it."""
    above, _, name = key.rpartition(".")
    places = record.get(above) if above else record
    for place in places if isinstance(places, list) else [places] if places else []:
        yield place.get(name)
