"""What can be said of a run after its reviews: the record of all numbers of an audit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from labelsieve.metrics import Interval
from labelsieve.review.conformal import FlagThreshold


class Sentence(NamedTuple):
    """One statement in words.

    Attributes:
        text: What is said.
        assumption: What it rests on; empty where it is a plain fact.
    """

    text: str
    assumption: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A bound that was asked for.

    Attributes:
        share: The share of wrong labels that may be left.
        labels: How many labels that is.
        more: How many more images of the audit to look at until the bound holds, if they turn out as those seen so far;
            0 where it holds, None before the audit.
    """

    share: float
    labels: int
    more: int | None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """All numbers of an audit.

    Attributes:
        confidence: How often each number holds, each by itself.
        images: Labels of readable images.
        flagged: How many of them are flagged.
        answered: Labels that are known by an answer, right or wrong.
        found: How many of these are wrong.
        audited: Labels in the random sample.
        unsure: How many of these were left undecided.
        right_flags: Share of the flagged labels that are wrong, between 0 and 1; None where no flag was audited.
        missed: Share of the wrong labels that is not flagged; None before the audit, or where no label is wrong or
            flagged.
        left: How many labels are still wrong, an interval; None before the audit.
        at_most: How many labels are still wrong at most; None before the audit.
        wanted: The bound that was asked for, and what it takes.
        estimate: How many labels are still wrong by the model's own p_clean, which nothing guarantees; None where
            p_clean is no probability.
        flag_threshold: Where to flag for a wanted share of false flags, if that was asked for.
        sentences: All of it in words.
    """

    confidence: float
    images: int
    flagged: int
    answered: int
    found: int
    audited: int
    unsure: int
    right_flags: Interval | None = None
    missed: Interval | None = None
    left: Interval | None = None
    at_most: int | None = None
    wanted: Wanted | None = None
    estimate: Interval | None = None
    flag_threshold: FlagThreshold | None = None
    sentences: tuple[Sentence, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Returns it as `audit.json` has it."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
