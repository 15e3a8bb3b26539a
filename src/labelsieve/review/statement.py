"""All numbers of an audit: their record, and sentences that state them, each with its assumption."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from labelsieve.core.quantities import NBSP, counted, percent, points
from labelsieve.flagging import HOLDS_IF, SAMPLED
from labelsieve.metrics import Interval
from labelsieve.review.conformal import FlagThreshold

KNOWN = "the answers are right and the labels found wrong are corrected"
# 99 %, because then the measured coverage is above 95 % even if the result is checked repeatedly (docs/guarantees.md).
LEFT = (
    f"{SAMPLED}, the labels found wrong are corrected, and the size of the audit was not chosen by its result (else "
    f"ask for 99{NBSP}% confidence)"
)
# docs/guarantees.md has the measured calibration errors.
ESTIMATE = "p_clean is a calibrated probability, which nothing guarantees"


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
        waiting: Number of audited labels that do not count yet, because a label drawn before them has no answer.
        right_flags: Share of the flagged labels that are wrong, between 0 and 1; None if no flag was audited.
        missed: Share of the wrong labels that is not flagged; None before the audit, or if no label was found wrong or
            none is flagged.
        left: Interval for the number of labels that are still wrong; None before the audit.
        at_most: Upper bound on the number of labels that are still wrong; None before the audit.
        wanted: The requested bound, and the number of images required for it.
        estimate: Number of labels that are still wrong according to p_clean, without a guarantee; None if p_clean is
            not a probability.
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


def sentences(result: Statement) -> tuple[Sentence, ...]:
    """Returns all sentences, the bound on remaining wrong labels first."""
    parts = [
        _left(result),
        *_reviewed(result),
        *_flags(result),
        *_requested(result),
        *_threshold(result),
        *_estimate(result),
    ]
    return tuple(parts)


def _left(result: Statement) -> Sentence:
    if result.left is None or result.at_most is None:
        if not result.audited:
            return Sentence(_waiting(result) or "Nothing was audited, so nothing is guaranteed.")
        return Sentence(
            f"{counted(result.audited, 'image was', 'images were')} audited, too few for a statement on all labels: at "
            "least one flagged and one other label must be decided."
        )
    about, low, high = (f"{round(each):,}" for each in result.left)
    share = percent(result.at_most / result.images) if result.images else percent(0)
    labels = counted(result.images, "label", "labels")
    if result.answered == result.images:
        return Sentence(f"{result.at_most:,} of {labels} are still wrong, as all were looked at.", KNOWN)
    return Sentence(
        f"With {_level(result)} confidence at most {result.at_most:,} of {labels} ({share}) are still wrong; "
        f"the estimate is {about}, with a two-sided {_level(result)} interval from {low} to {high}.",
        LEFT,
    )


def _reviewed(result: Statement) -> list[Sentence]:
    if not result.answered and not result.audited:
        return []
    known_text = counted(result.answered, "label is", "labels are")
    text = f"{known_text} known, {result.found:,} of them wrong; {result.audited:,} are a random sample"
    if result.unsure:
        text += f", {result.unsure:,} of which were left undecided and count as the worst case"
    waiting = [Sentence(_waiting(result))] if result.waiting and result.audited else []
    return [Sentence(f"{text}."), *waiting]


def _waiting(result: Statement) -> str:
    """Returns a sentence on audited images that do not count yet; empty if there are none."""
    if not result.waiting:
        return ""
    images = counted(result.waiting, "audited image does", "audited images do")
    return (
        f"{images} not count yet: an image that was drawn before has no answer. It may be open on another screen; "
        "answer it there, or close that page, and it comes again in the queue Random (audit)."
    )


def _flags(result: Statement) -> list[Sentence]:
    if not result.flagged and result.images:
        return [Sentence("Nothing was flagged, so there is nothing to say of flags.")]
    lines = []
    if result.right_flags is not None:
        flagged = counted(result.flagged, "flagged label", "flagged labels")
        lines.append(Sentence(f"Of {flagged} {_interval(result.right_flags)} are wrong.", SAMPLED))
    if result.missed is not None:
        lines.append(Sentence(f"The flags miss {_interval(result.missed)} of the wrong labels.", SAMPLED))
    return lines


def _requested(result: Statement) -> list[Sentence]:
    requested = result.wanted
    if requested is None:
        return []
    bound = f"at most {percent(requested.share)} ({requested.labels:,}) are still wrong"
    if requested.more is None:
        return [Sentence(f"To say whether {bound}, audit some images first, in the queue Random (audit) of a review.")]
    if not requested.more:
        return [Sentence(f"So {bound}, as asked.", LEFT)]
    text = f"To say that {bound}, look at {counted(requested.more, 'more image', 'more images')} of the audit"
    if result.left is not None and result.left.value > requested.labels:
        text += (
            f"; about {round(result.left.value):,} labels are still wrong, so correct the most suspicious ones first"
        )
    return [Sentence(f"{text}.", "further images have the error rates observed so far")]


def _threshold(result: Statement) -> list[Sentence]:
    chosen = result.flag_threshold
    if chosen is None:
        return []
    if chosen.threshold is None:
        return [Sentence(f"{no_threshold(chosen)}.", HOLDS_IF)]
    labels = counted(chosen.flagged, "label", "labels")
    text = f"Flag where p_clean is at most {chosen.threshold:.3g} ({labels}), and {_bound_on_flags(chosen)}."
    return [Sentence(text, HOLDS_IF)]


def no_threshold(chosen: FlagThreshold) -> str:
    """Returns the reason why nothing can be flagged at the requested share of false flags."""
    seen = counted(chosen.right_seen, "right label", "right labels")
    reason = f"the audit has {seen} for it, and it takes {chosen.right_needed:,} at least"
    if not chosen.tested:
        reason = "all of them are known"
    elif chosen.right_seen >= chosen.right_needed:
        reason = "too many right labels have a p_clean as low as that of the wrong ones"
    return f"No label can be flagged so that {_bound_on_flags(chosen)}: {reason}"


def _bound_on_flags(chosen: FlagThreshold) -> str:
    return f"at most {percent(chosen.false_flags)} of the flags are false"


def _estimate(result: Statement) -> list[Sentence]:
    if result.estimate is None or result.left is not None:
        return []
    about, low, high = (f"{round(each):,}" for each in result.estimate)
    return [Sentence(f"By the model's own estimate about {about} labels are still wrong ({low} to {high}).", ESTIMATE)]


def _interval(share: Interval) -> str:
    value, low, high = (percent(each) for each in share)
    if low == high:
        value, low, high = (points(each) for each in share)
    return value if share.low == share.high else f"{value} ({low} to {high})"


def _level(result: Statement) -> str:
    return f"{100 * result.confidence:.6g}{NBSP}%"
