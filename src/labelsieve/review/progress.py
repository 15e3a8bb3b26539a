"""How far a review is: what is answered, what is left, how long a card takes and how far reviewers agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.quantities import about, counted, duration, percent
from labelsieve.review.audit import statement
from labelsieve.review.known import known_labels
from labelsieve.review.state import Reviews
from labelsieve.review.statement import Statement
from labelsieve.verdicts import Verdicts


def seconds_a_card(reviews: Reviews) -> float | None:
    """Returns the median time of an answer in seconds, which a break does not change; None without answers."""
    times = [answer.seconds for answer in reviews.standing if answer.kind != "skip" and answer.seconds > 0]
    return float(np.median(times)) if times else None


def status_lines(
    verdicts: Verdicts, reviews: Reviews, *, contents: NDArray[np.uint64] | None = None, confidence: float = 0.95
) -> list[str]:
    """Says how far the review of a run is, in a line and some more.

    Args:
        verdicts: Of N images.
        reviews: What was answered.
        contents: Shape (N,): hashes of the images, so that copies of an image share its answer; None finds answers by
            the ids that the images had.
        confidence: Of the interval of the labels that are left, if there was an audit.

    Raises:
        RunError: There are answers, and none of them belongs to an image of the run.
    """
    found = statement(verdicts, reviews, contents=contents, confidence=confidence)
    seconds = seconds_a_card(reviews)
    parts = [f"{len(reviews):,} reviewed", _left(found), *([] if seconds is None else [f"{duration(seconds)} a card"])]
    is_open = verdicts.is_issue & ~known_labels(verdicts, reviews, contents=contents).is_closed
    return [", ".join(parts), *_details(found, reviews, seconds, open_flags=int(is_open.sum())), *_reviewers(reviews)]


def _left(found: Statement) -> str:
    left = found.left or found.estimate
    if left is None:
        return "how many wrong labels are left is not known"
    return f"about {round(left.value):,} left ({round(left.low):,} to {round(left.high):,})"


def _details(found: Statement, reviews: Reviews, seconds: float | None, *, open_flags: int) -> list[str]:
    if not len(reviews):
        return []
    source = (
        f"by the audit, at {percent(found.confidence)} confidence"
        if found.left
        else "by the model's own p_clean, which nothing guarantees: an audit would tell"
    )
    lines = [f"{counted(found.found, 'label', 'labels')} found wrong"]
    if found.left or found.estimate:
        lines.append(f"what is left: {source}")
    if found.audited:
        lines.append(f"{counted(found.audited, 'image', 'images')} audited")
    if seconds is not None and open_flags > 0:
        lines.append(f"{counted(open_flags, 'flag', 'flags')} without an answer: {about(open_flags * seconds)}")
    return lines


def _reviewers(reviews: Reviews) -> Sequence[str]:
    by = Counter(answer.reviewer for found in reviews.by_key.values() for answer in found.answers)
    if len(by) < 2:
        return []
    lines = [", ".join(f"{name} {number:,}" for name, number in by.most_common())]
    agreement = reviews.agreement()
    if agreement.images:
        kappa = "" if math.isnan(agreement.kappa) else f", kappa {agreement.kappa:.2f}"
        images = counted(agreement.images, "image", "images")
        lines.append(f"{images} with several answers, which agree in {percent(agreement.share)}{kappa}")
    if disputed := sum(found.disputed for found in reviews.by_key.values()):
        lines.append(f"{counted(disputed, 'image is', 'images are')} disputed")
    return lines
