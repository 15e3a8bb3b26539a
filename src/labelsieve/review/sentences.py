"""The numbers of an audit in words, each with what it assumes."""

from __future__ import annotations

from labelsieve.quantities import NBSP, counted, percent
from labelsieve.review.guarantees import Bounded
from labelsieve.review.statement import Sentence, Statement

SAMPLE = "the audited images were drawn at random, and the answers are right"
LEFT = (
    f"{SAMPLE}; every label that was found wrong gets corrected; the size of the audit was not chosen by its result "
    "(to look again and again, ask for a confidence of 99 %)"
)
KNOWN = "the answers are right, and every label that was found wrong gets corrected"
FLAGS = f"{SAMPLE}; on average over audits"
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
    if found.left.low == found.left.high:
        return Sentence(f"{found.at_most:,} of {labels} are still wrong, as all were looked at.", KNOWN)
    return Sentence(
        f"With {_confidence(found)} confidence at most {found.at_most:,} of {labels} ({share}) are still wrong; about "
        f"{about} are ({low} to {high}).",
        LEFT,
    )


def _looked(found: Statement) -> list[Sentence]:
    if not found.answered and not found.audited:
        return []
    text = f"{found.answered:,} labels are known, {found.found:,} of them wrong; {found.audited:,} are a random sample"
    if found.unsure:
        text += f", {found.unsure:,} of which were left undecided and count as the worst case"
    return [Sentence(f"{text}.")]


def _flags(found: Statement) -> list[Sentence]:
    said = []
    if found.right_flags is not None:
        flagged = counted(found.flagged, "flagged label", "flagged labels")
        said.append(Sentence(f"Of {flagged} {_interval(found.right_flags)} are wrong.", SAMPLE))
    if found.missed is not None:
        said.append(Sentence(f"The flags miss {_interval(found.missed)} of the wrong labels.", SAMPLE))
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
        text += f"; about {round(found.left.value):,} labels are still wrong, so correct the flagged ones first"
    return [Sentence(f"{text}.", "they turn out as those that were seen so far")]


def _threshold(found: Statement) -> list[Sentence]:
    chosen = found.flag_threshold
    if chosen is None:
        return []
    wanted = f"at most {percent(chosen.false_flags)} of the flags are false"
    if chosen.threshold is None:
        text = (
            f"No label can be flagged so that {wanted}: the audit has {chosen.right_seen:,} right labels for it, and "
            f"it takes {chosen.right_needed:,} at least."
        )
        return [Sentence(text, FLAGS)]
    text = f"With p_clean at most {chosen.threshold:.3g} flagged, {chosen.flagged:,} labels, {wanted}."
    return [Sentence(text, FLAGS)]


def _estimate(found: Statement) -> list[Sentence]:
    if found.estimate is None or found.left is not None:
        return []
    about, low, high = (f"{round(each):,}" for each in found.estimate)
    return [Sentence(f"By the model's own estimate about {about} labels are still wrong ({low} to {high}).", ESTIMATE)]


def _interval(share: Bounded) -> str:
    value, low, high = (percent(each) for each in share)
    return value if share.low == share.high else f"{value} ({low} to {high})"


def _confidence(found: Statement) -> str:
    return f"{100 * found.confidence:.6g}{NBSP}%"
