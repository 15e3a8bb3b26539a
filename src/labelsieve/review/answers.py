"""One answer of a person on one image."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from labelsieve.core.errors import DataError, shown
from labelsieve.core.files import is_utf8
from labelsieve.data.labels import normalise

ANSWER_KINDS = ("label", "several", "none", "wrong", "drop", "keep-one", "unsure", "skip", "undo")
MODES = ("review", "audit")
# Kinds that decide whether the given label is right.
DECIDED = ("label", "several", "none", "wrong")
# Kinds that leave out images, whatever their labels.
KEEP_ONE = "keep-one"
DROPPED = ("drop", KEEP_ONE)
# Maximum lengths in characters, and number of labels: more would make the log unreadable.
MAX_NOTE_LENGTH, MAX_NAME_LENGTH, MAX_LABELS = 10_000, 200, 1_000
_KEY = re.compile(r"[0-9a-f]{16}")


def key_of(content: int) -> str:
    """Returns the key of an image: its content hash as 16 hexadecimal digits.

    Args:
        content: The hash, one of `LabelledImages.contents`.

    Example:
        >>> key_of(255)
        '00000000000000ff'
    """
    return f"{int(content):016x}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of one person on one image.

    Attributes:
        token: Unique, created by the client: the same token is not appended to the log twice.
        key: The content of the image, see :func:`key_of`. Answers belong to it, not to an id or a path.
        id: Id of the image in this run, at the time of the answer.
        given_label: The given label at the time of the answer.
        kind: `label`: exactly one class, which may be the given one; `several`: two or more classes; `none`: none of
            the classes; `wrong`: the given label is wrong, the right one is not named; `drop`: the image is left out
            as a copy, a leak or a defect, whatever its label; `keep-one`: of all images with this content only the one
            with this id stays, with the label from another answer; `unsure`; `skip`; `undo`: takes back the answer
            `undoes`.
        labels: The classes: one for `label`, two or more for `several`, else none.
        reviewer: Name of the reviewer.
        time: UTC, ISO 8601.
        mode: `review`, or `audit`: drawn at random by a known design and shown blind.
        shown: Content of the card: queue, suggested label, p_clean, whether it was flagged; for an audit also the
            stratum and the number of images in it.
        seconds: Seconds for which the card was shown.
        note: Free text.
        undoes: The token of the answer that is taken back.

    Raises:
        DataError: An attribute is invalid.

    Example:
        >>> answer = Answer(token="1", key=key_of(7), id="a.jpg", given_label="cat", kind="label", labels=("dog",),
        ...                 reviewer="ann", time="2026-11-28T10:00:00+00:00", mode="review", shown={})
        >>> answer.is_right
        False
    """

    token: str
    key: str
    id: str
    given_label: str
    kind: str
    labels: tuple[str, ...] = ()
    reviewer: str
    time: str
    mode: str
    shown: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""
    undoes: str = ""

    def __post_init__(self) -> None:
        _check_texts(self)
        _check_choices(self)
        _check_labels(self)

    @property
    def is_right(self) -> bool | None:
        """Returns whether the given label is right by this answer; None if the answer does not decide."""
        return is_right(self.kind, self.labels, self.given_label)

    def to_line(self) -> str:
        """Returns the answer as one line of JSON, without the line end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Answer:
        """Returns the answer of a JSON object; keys of later versions are ignored.

        Raises:
            DataError: A value is missing or has a wrong type.
        """
        declared = {each.name: each for each in dataclasses.fields(cls)}
        missing = [
            name
            for name, each in declared.items()
            if each.default is each.default_factory and name not in values  # both are MISSING
        ]
        if missing:
            raise DataError(f'expected "{missing[0]}" in an answer, found none')
        chosen = {name: value for name, value in values.items() if name in declared}
        if "labels" in chosen:
            if not isinstance(chosen["labels"], list | tuple):
                raise DataError(f'expected "labels" of an answer to be a list, got {shown(chosen["labels"])}')
            chosen["labels"] = tuple(chosen["labels"])
        return cls(**chosen)


def is_right(kind: str, labels: tuple[str, ...], given_label: str) -> bool | None:
    """Returns whether a given label is right by an answer; None if the answer does not decide.

    Args:
        kind: The kind of the answer; see :class:`Answer`.
        labels: Its classes, none for some kinds.
        given_label: The given label, right if it is one of several right classes; differences in spelling are ignored.

    Example:
        >>> is_right("several", ("cat", "dog"), "Cat"), is_right("none", (), "cat"), is_right("unsure", (), "cat")
        (True, False, None)
    """
    if kind not in DECIDED:
        return None
    return normalise(given_label) in map(normalise, labels)


def undo_of(answer: Answer, *, reviewer: str) -> Answer:
    """Returns the answer that takes back another answer, with the current time."""
    return Answer(
        token=secrets.token_hex(16),
        key=answer.key,
        id=answer.id,
        given_label=answer.given_label,
        kind="undo",
        reviewer=reviewer,
        time=now(),
        mode=answer.mode,
        undoes=answer.token,
    )


def now() -> str:
    """Returns the current time in the format of answers."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _check_texts(answer: Answer) -> None:
    for name in ("token", "key", "id", "given_label", "kind", "reviewer", "time", "mode", "note", "undoes"):
        value = getattr(answer, name)
        if not _is_text(value):
            raise DataError(f'expected "{name}" of an answer to be a text, got {shown(value)}')
    for name, limit in (("token", MAX_NAME_LENGTH), ("reviewer", MAX_NAME_LENGTH), ("note", MAX_NOTE_LENGTH)):
        if len(getattr(answer, name)) > limit:
            raise DataError(f'expected "{name}" of an answer of at most {limit:,} characters; shorten it')
    for name in ("token", "reviewer"):
        if not getattr(answer, name).strip():
            raise DataError(f'expected a "{name}" in an answer, found an empty one')
    if not isinstance(answer.shown, Mapping):
        raise DataError(f'expected "shown" of an answer to be an object, got {shown(answer.shown)}')


def _is_text(value: Any) -> bool:
    """Returns whether a value is a text that UTF-8 can encode; JSON may contain a lone surrogate."""
    return isinstance(value, str) and is_utf8(value)


def _check_choices(answer: Answer) -> None:
    for name, choices in (("kind", ANSWER_KINDS), ("mode", MODES)):
        if getattr(answer, name) not in choices:
            got = shown(getattr(answer, name))
            raise DataError(f'expected "{name}" of an answer to be one of {", ".join(choices)}, got {got}')
    if not _KEY.fullmatch(answer.key):
        raise DataError(f'expected 16 hexadecimal digits as "key" of an answer, got {shown(answer.key)}')
    seconds = answer.seconds
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not (math.isfinite(seconds) and seconds >= 0):
        raise DataError(f'expected "seconds" of an answer to be a number from 0, got {shown(seconds)}')
    try:
        datetime.fromisoformat(answer.time)
    except ValueError:
        raise DataError(f'expected "time" of an answer as in 2026-11-28T10:00:00Z, got {shown(answer.time)}') from None
    if bool(answer.undoes) != (answer.kind == "undo"):
        raise DataError('expected "undoes" in an answer of kind undo and in no other')


def _check_labels(answer: Answer) -> None:
    labels = answer.labels
    if not isinstance(labels, tuple) or not all(map(_is_text, labels)):
        raise DataError(f'expected "labels" of an answer to be texts, got {shown(labels)}')
    if len(set(labels)) < len(labels) or len(labels) > MAX_LABELS:
        raise DataError(f'expected at most {MAX_LABELS:,} different "labels" in an answer, got {shown(labels)}')
    minimum, maximum = {"label": (1, 1), "several": (2, MAX_LABELS)}.get(answer.kind, (0, 0))
    if not minimum <= len(labels) <= maximum:
        expected = {"label": "one label", "several": "two labels or more"}.get(answer.kind, "no labels")
        raise DataError(f"expected {expected} in an answer of kind {answer.kind}, got {len(labels)}")
