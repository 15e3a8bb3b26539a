"""The record of all numbers of an audit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from labelsieve.metrics import Interval
from labelsieve.review.conformal import FlagThreshold


class Sentence(NamedTuple):
    """One sentence on an audit.

    Attributes:
        text: The sentence.
        assumption: Its assumption; empty if there is none.
    """

    text: str
    assumption: str = ""


@dataclass(frozen=True, kw_only=True)
class RequestedBound:
    """A requested bound on wrong labels.

    Attributes:
        share: The share of wrong labels that may remain.
        labels: The same as a number of labels.
        more: Number of further images of the audit until the bound holds, if their error rates are as observed so far;
            0 if it holds, None before the audit.
    """

    share: float
    labels: int
    more: int | None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """All numbers of an audit.

    Attributes:
        confidence: Confidence level of each number separately.
        images: Number of labels of readable images.
        flagged: Number of flagged labels.
        answered: Number of labels known from an answer, right or wrong.
        found: Number of wrong labels among these.
        audited: Number of labels in the random sample.
        unsure: Number of undecided labels among these.
        waiting: Number of audited labels that are not in it, as one that was drawn before them has no answer.
        right_flags: Share of the flagged labels that are wrong, between 0 and 1; None if no flag was audited.
        missed: Share of the wrong labels that is not flagged; None before the audit, or if no label is wrong or
            flagged.
        left: Interval for the number of labels that are still wrong; None before the audit.
        at_most: Upper bound on the number of labels that are still wrong; None before the audit.
        wanted: The requested bound, and the number of images that it needs.
        estimate: Number of labels that are still wrong by p_clean of the model, without a guarantee; None if p_clean
            is no probability.
        flag_threshold: The threshold for a requested share of false flags, if there is one.
        sentences: All numbers as sentences.
    """

    confidence: float
    images: int
    flagged: int
    answered: int
    found: int
    audited: int
    unsure: int
    waiting: int = 0
    right_flags: Interval | None = None
    missed: Interval | None = None
    left: Interval | None = None
    at_most: int | None = None
    wanted: RequestedBound | None = None
    estimate: Interval | None = None
    flag_threshold: FlagThreshold | None = None
    sentences: tuple[Sentence, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Returns the content of `audit.json`."""
        return {field.name: _serializable(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _serializable(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple):
        return [_serializable(each) for each in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
