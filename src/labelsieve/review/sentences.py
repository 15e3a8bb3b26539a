"""The numbers of an audit in words, each with what it assumes."""

from __future__ import annotations

from labelsieve.core.quantities import NBSP, counted, percent, points
from labelsieve.flagging import HOLDS_IF, SAMPLED
from labelsieve.metrics import Interval
from labelsieve.review.conformal import FlagThreshold
from labelsieve.review.statement import Sentence, Statement

KNOWN = "the answers are right and what was found wrong gets corrected"
# The number of docs/guarantees.md: 99 % stays above 95 % there, however often one looks.
LEFT = (
    f"{SAMPLED}, what was found wrong gets corrected, and the size of the audit was not chosen by its result (else ask "
    f"for 99{NBSP}% confidence)"
)
# docs/results/calibration and docs/results/cifar10n/calibration have the numbers.
ESTIMATE = (
    "p_clean is a probability; its calibration error was 1.3 to 2.3 % on synthetic sketches, 3.7 and 4.0 % on "
    "CIFAR-10N with the labels of one annotator and of the majority, and 10.5 % with those of the worst"
)


def sentences(found: Statement) -> tuple[Sentence, ...]:
    """Returns what there is to say, the least that is left first."""
    said = [_left(found), *_looked(found), *_flags(found), *_wanted(found), *_threshold(found), *_estimate(found)]
    return tuple(said)


def _left(found: Statement) -> Sentence:
    if found.left is None or found.at_most is None:
        if not found.audited:
            return Sentence("Nothing was audited, so nothing is guaranteed.")
        return Sentence(
            f"{counted(found.audited, 'image was', 'images were')} audited, too few to say anything of all labels; at "
            "least one that is flagged and one that is not have to be decided."
        )
    about, low, high = (f"{round(each):,}" for each in found.left)
    share = percent(found.at_most / found.images) if found.images else percent(0)
    labels = counted(found.images, "label", "labels")
    if found.answered == found.images:
        return Sentence(f"{found.at_most:,} of {labels} are still wrong, as all were looked at.", KNOWN)
    return Sentence(
        f"With {_confidence(found)} confidence at most {found.at_most:,} of {labels} ({share}) are still wrong; about "
        f"{about} are ({low} to {high}).",
        LEFT,
    )


def _looked(found: Statement) -> list[Sentence]:
    if not found.answered and not found.audited:
        return []
    known = counted(found.answered, "label is", "labels are")
    text = f"{known} known, {found.found:,} of them wrong; {found.audited:,} are a random sample"
    if found.unsure:
        text += f", {found.unsure:,} of which were left undecided and count as the worst case"
    return [Sentence(f"{text}.")]


def _flags(found: Statement) -> list[Sentence]:
    if not found.flagged and found.images:
        return [Sentence("Nothing was flagged, so there is nothing to say of flags.")]
    said = []
    if found.right_flags is not None:
        flagged = counted(found.flagged, "flagged label", "flagged labels")
        said.append(Sentence(f"Of {flagged} {_interval(found.right_flags)} are wrong.", SAMPLED))
    if found.missed is not None:
        said.append(Sentence(f"The flags miss {_interval(found.missed)} of the wrong labels.", SAMPLED))
    return said


def _wanted(found: Statement) -> list[Sentence]:
    wanted = found.wanted
    if wanted is None:
        return []
    bound = f"at most {percent(wanted.share)} ({wanted.labels:,}) are still wrong"
    if wanted.more is None:
        return [Sentence(f"To say whether {bound}, audit some images first: labelsieve review RUN.")]
    if not wanted.more:
        return [Sentence(f"So {bound}, as asked.", LEFT)]
    text = f"To say that {bound}, look at {counted(wanted.more, 'more image', 'more images')} of the audit"
    if found.left is not None and found.left.value > wanted.labels:
        text += f"; about {round(found.left.value):,} labels are still wrong, so correct the most suspicious ones first"
    return [Sentence(f"{text}.", "they turn out as those that were seen so far")]


def _threshold(found: Statement) -> list[Sentence]:
    chosen = found.flag_threshold
    if chosen is None:
        return []
    if chosen.threshold is None:
        return [Sentence(f"{no_threshold(chosen)}.", HOLDS_IF)]
    labels = counted(chosen.flagged, "label", "labels")
    text = f"Flag where p_clean is at most {chosen.threshold:.3g} ({labels}), and {_wanted_flags(chosen)}."
    return [Sentence(text, HOLDS_IF)]


def no_threshold(chosen: FlagThreshold) -> str:
    """Says why nothing can be flagged at the share of false flags that was asked for."""
    seen = counted(chosen.right_seen, "right label", "right labels")
    reason = f"the audit has {seen} for it, and it takes {chosen.right_needed:,} at least"
    if not chosen.tested:
        reason = "all of them are known"
    elif chosen.right_seen >= chosen.right_needed:
        reason = "too many right labels have a p_clean as low as that of the wrong ones"
    return f"No label can be flagged so that {_wanted_flags(chosen)}: {reason}"


def _wanted_flags(chosen: FlagThreshold) -> str:
    return f"at most {percent(chosen.false_flags)} of the flags are false"


def _estimate(found: Statement) -> list[Sentence]:
    if found.estimate is None or found.left is not None:
        return []
    about, low, high = (f"{round(each):,}" for each in found.estimate)
    return [Sentence(f"By the model's own estimate about {about} labels are still wrong ({low} to {high}).", ESTIMATE)]


def _interval(share: Interval) -> str:
    value, low, high = (percent(each) for each in share)
    if low == high:
        value, low, high = (points(each) for each in share)
    return value if share.low == share.high else f"{value} ({low} to {high})"


def _confidence(found: Statement) -> str:
    return f"{100 * found.confidence:.6g}{NBSP}%"
