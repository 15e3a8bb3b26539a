"""What the answers of reviewers guarantee about the labels of a run."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelsieve.core.errors import RunError
from labelsieve.core.validation import AtMost, Confidence, FalseFlags, check_value
from labelsieve.metrics import Interval
from labelsieve.review.conformal import calibration_rows, flag_threshold
from labelsieve.review.guarantees import Side, lower_bound, missed_share, upper_bound, within, wrong_on_side
from labelsieve.review.known_labels import Known, known_labels
from labelsieve.review.row_reviews import with_columns
from labelsieve.review.sampling import AuditDesign, design
from labelsieve.review.state import Reviews
from labelsieve.review.statement import RequestedBound, Statement, no_threshold, sentences
from labelsieve.verdicts import Verdicts, ranks


def statement(
    verdicts: Verdicts,
    reviews: Reviews,
    *,
    confidence: float = 0.95,
    contents: NDArray[np.uint64] | None = None,
    at_most: float | None = None,
    false_flags: float | None = None,
) -> Statement:
    """Computes what the answers of reviewers guarantee about the labels of a run.

    Args:
        verdicts: Verdicts of N images.
        reviews: The answers.
        confidence: Confidence level of each bound, from 0.5 to below 1.
        contents: Shape (N,): `LabelledImages.contents` of the same images, so that copies of an image share its answer;
            None matches answers by the ids of the images.
        at_most: Share of wrong labels, above 0, to estimate how many more images to review until this bound holds.
        false_flags: Share of false flags, above 0 and below 1, to compute the threshold for it.

    Raises:
        SettingsError: A number is out of range.
        RunError: There are answers, but none of them belongs to an image of the run.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> from labelsieve import review
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.KNN())
        >>> print(statement(verdicts, review.resolve([])).sentences[0].text)
        Nothing was audited, so nothing is guaranteed.
    """
    check_value("confidence", confidence, Confidence)
    check_value("at_most", at_most, AtMost | None)
    check_value("false_flags", false_flags, FalseFlags | None)
    plan = design(verdicts)
    known = known_labels(verdicts, reviews, contents=contents)
    if len(reviews) and not known.is_closed.any():
        raise RunError("expected answers on the images of the run, found answers on other images only; pass their run")
    sample = plan.prefix(known.is_closed) if known.is_audited.any() else plan.order[:0]
    sides = sides_of(plan, known, sample)
    found_wrong = int(known.is_wrong.sum())
    numbers = _bounds(sides, found_wrong, confidence=confidence) if all(side.is_sampled for side in sides) else {}
    flags = wrong_on_side(sides[0], confidence=confidence) if sides[0].images else None
    threshold = None
    if false_flags is not None:
        threshold = flag_threshold(
            verdicts.label_quality,
            readable=verdicts.is_readable,
            calibration=calibration_rows(plan, sample),
            right=known.is_decided & ~known.is_wrong,
            undecided=~known.is_decided,
            expected_wrong=expected_wrong(sides),
            false_flags=false_flags,
        )
    wanted = (
        None if at_most is None else _requested_bound(at_most, plan, known, sides, numbers.get("at_most"), confidence)
    )
    result = Statement(
        confidence=confidence,
        images=len(plan.order),
        flagged=sides[0].images,
        answered=int(known.is_decided.sum()),
        found=found_wrong,
        audited=len(sample),
        unsure=int((~known.is_decided[sample]).sum()),
        waiting=int(known.is_audited.sum() - known.is_audited[sample].sum()),
        right_flags=_as_share(flags, sides[0].images),
        wanted=wanted,
        estimate=_estimate(verdicts, known),
        flag_threshold=threshold,
        **numbers,
    )
    return dataclasses.replace(result, sentences=sentences(result))


def with_false_flags(
    verdicts: Verdicts,
    reviews: Reviews,
    *,
    false_flags: float,
    contents: NDArray[np.uint64] | None = None,
) -> Verdicts:
    """Flags labels such that at most a requested share of the flags is false, on average over audits.

    Args:
        verdicts: Verdicts of N images.
        reviews: The answers.
        false_flags: The requested share, above 0 and below 1.
        contents: See :func:`statement`.

    Raises:
        SettingsError: The share is out of range.
        RunError: The audit is too small for the share, or belongs to other images.
    """
    chosen = statement(verdicts, reviews, false_flags=false_flags, contents=contents).flag_threshold
    assert chosen is not None, "it was asked for"
    if chosen.threshold is None:
        advice = "audit more images with labelsieve review, or allow more false flags"
        raise RunError(f"{no_threshold(chosen)}; {advice}")
    issue = chosen.rule.flags(verdicts.label_quality, predicted=verdicts.predicted, given=verdicts.given)
    changed: Mapping[str, NDArray[Any]] = {"is_label_issue": issue, "rank": ranks(verdicts.label_quality, issue)}
    columns = {name: pa.array(values, mask=~verdicts.is_readable) for name, values in changed.items()}
    record = {**verdicts.record, **chosen.rule.to_record(), "estimate": None}
    return dataclasses.replace(verdicts, table=with_columns(verdicts.table, columns), record=record, metrics=None)


def expected_wrong(sides: tuple[Side, Side]) -> float:
    """Returns the estimated number of wrong labels; the number of flagged labels if the audit found none.

    Args:
        sides: The flagged labels and the others.

    Example:
        >>> expected_wrong((Side(images=50, seen=10, seen_wrong=5), Side(images=100, seen=20, seen_wrong=1)))
        30.0
    """
    return sum(side.estimate for side in sides if side.is_sampled) or float(sides[0].images)


def sides_of(plan: AuditDesign, known: Known, sample: NDArray[np.int64]) -> tuple[Side, Side]:
    """Counts the known labels among the flagged labels and among the others.

    Args:
        plan: The design of the audit.
        known: The known labels among N.
        sample: Rows that were seen, in the order of the design, (n,).
    """
    is_seen = np.zeros(len(plan.stratum), dtype=np.bool_)
    is_seen[sample] = True
    decided = np.bincount(plan.stratum[known.is_decided], minlength=len(plan.sizes))
    is_complete, is_readable = decided == plan.sizes, plan.stratum >= 0

    def side(flagged: bool) -> Side:
        is_on_side = is_readable.copy()
        is_on_side[is_readable] = plan.flagged[plan.stratum[is_readable]] == flagged
        is_counted = is_on_side.copy()
        is_counted[is_on_side] = is_complete[plan.stratum[is_on_side]]
        is_sampled, right = is_on_side & ~is_counted & is_seen, known.is_decided & ~known.is_wrong
        return Side(
            images=int(is_on_side.sum()),
            counted=int(is_counted.sum()),
            counted_wrong=int((is_counted & known.is_wrong).sum()),
            seen=int(is_sampled.sum()),
            seen_wrong=int((is_sampled & known.is_wrong).sum()),
            seen_unsure=int((is_sampled & ~known.is_decided).sum()),
            known_wrong=int((is_on_side & known.is_wrong).sum()),
            known_right=int((is_on_side & right).sum()),
        )

    return side(True), side(False)


def _bounds(sides: tuple[Side, Side], found_wrong: int, *, confidence: float) -> dict[str, Any]:
    """Returns the bounds on the remaining wrong labels from an audit of both sides."""
    one_sided = (1 + confidence) / 2
    total = sides[0].estimate + sides[1].estimate
    low, high = lower_bound(sides, confidence=one_sided), upper_bound(sides, confidence=one_sided)
    return {
        "missed": missed_share(sides, confidence=confidence) if sides[0].images else None,
        "left": within(*(max(each - found_wrong, 0) for each in (total, low, high))),
        "at_most": max(upper_bound(sides, confidence=confidence) - found_wrong, 0),
    }


def _as_share(count: Interval | None, images: int) -> Interval | None:
    return count and Interval(*(each / images for each in count))


def _estimate(verdicts: Verdicts, known: Known) -> Interval | None:
    """Returns the estimated number of wrong labels among those without an answer.

    The interval is that of the scan minus the labels found wrong, because answers say nothing about the other labels.
    """
    of_scan = verdicts.run.estimate.wrong_labels
    if of_scan is None:
        return None
    undecided = verdicts.is_readable & ~known.is_decided
    wrong, found = float((1 - verdicts.label_quality[undecided].astype(np.float64)).sum()), int(known.is_wrong.sum())
    low, high = max(of_scan.low - found, 0.0), min(of_scan.high - found, float(undecided.sum()))
    return Interval(wrong, min(low, wrong), max(high, wrong))


def _requested_bound(
    share: float, plan: AuditDesign, known: Known, sides: tuple[Side, Side], current: int | None, confidence: float
) -> RequestedBound:
    labels = math.floor(share * len(plan.order) + 1e-9)
    more = None if current is None else 0 if current <= labels else _more_images(labels, plan, known, sides, confidence)
    return RequestedBound(share=share, labels=labels, more=more)


def _more_images(labels: int, plan: AuditDesign, known: Known, sides: tuple[Side, Side], confidence: float) -> int:
    """Returns how many more images to review until the bound holds, if the error rates stay as observed so far."""
    is_new = ~known.is_closed[plan.order]
    open_positions = np.flatnonzero(is_new)
    if not len(open_positions):  # only undecided labels are missing
        return int((~known.is_decided[plan.order]).sum())
    side_of = np.where(plan.flagged[plan.stratum[plan.order]], 0, 1)
    decided = np.bincount(plan.stratum[known.is_decided], minlength=len(plan.sizes))
    is_open = (decided < plan.sizes)[plan.stratum[plan.order]]

    def is_enough(more: int) -> bool:
        last = open_positions[more - 1] + 1
        seen = [int((is_open & (side_of == side))[:last].sum()) for side in (0, 1)]
        new = [int((is_new & (side_of == side))[:last].sum()) for side in (0, 1)]
        after = tuple(_extrapolated(*each) for each in zip(sides, seen, new, strict=True))
        known_wrong = sum(side.known_wrong for side in after)
        return upper_bound((after[0], after[1]), confidence=confidence) - known_wrong <= labels

    return 1 + bisect_left(range(1, len(open_positions)), True, key=is_enough)


def _extrapolated(side: Side, seen: int, new: int) -> Side:
    """Returns a side after more images, with the same rates of wrong and undecided labels as before."""
    unsure = round(seen * side.seen_unsure / max(side.seen, 1))
    wrong = round((seen - unsure) * side.seen_wrong / max(side.seen - side.seen_unsure, 1))
    more_unsure = min(max(unsure - side.seen_unsure, 0), new)
    more_wrong = min(max(wrong - side.seen_wrong, 0), new - more_unsure)
    return dataclasses.replace(
        side,
        seen=seen,
        seen_wrong=wrong,
        seen_unsure=unsure,
        known_wrong=side.known_wrong + more_wrong,
        known_right=side.known_right + new - more_wrong - more_unsure,
    )
