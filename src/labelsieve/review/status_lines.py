"""Progress of a review: answered images, remaining wrong labels, time per card, and agreement of reviewers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.quantities import about, counted, duration, percent
from labelsieve.review.answers import Answer
from labelsieve.review.audit import statement
from labelsieve.review.known_labels import count_images, known_labels
from labelsieve.review.state import Reviews
from labelsieve.review.statement import Statement
from labelsieve.verdicts import Verdicts

# Maximum seconds per card; a longer time is a break.
_MAX_SECONDS = 300.0


def seconds_per_card(answers: Iterable[Answer]) -> float | None:
    """Returns the median time per card in seconds, without breaks and skipped cards; None if no cards remain."""
    times = [each.seconds for each in answers if each.kind != "skip" and 0 < each.seconds < _MAX_SECONDS]
    return float(np.median(times)) if times else None


def answers_by_reviewer(reviews: Reviews) -> Counter[str]:
    """Returns the number of answers that count, per reviewer."""
    return Counter(answer.reviewer for resolved in reviews.by_key.values() for answer in resolved.answers)


def status_lines(verdicts: Verdicts, reviews: Reviews, *, contents: NDArray[np.uint64] | None = None) -> list[str]:
    """Returns the progress of the review of a run: a summary line and details.

    Args:
        verdicts: Verdicts of N images.
        reviews: The answers.
        contents: Shape (N,): hashes of the images, so that copies of an image share its answer; None matches answers
            by the ids of the images.

    Raises:
        RunError: There are answers, but none of them belongs to an image of the run.
    """
    result = statement(verdicts, reviews, contents=contents)
    seconds = seconds_per_card(reviews.standing)
    disputed = {key for key, resolved in reviews.by_key.items() if resolved.disputed}
    reviewed, in_dispute = (
        count_images(verdicts, reviews, keys, contents=contents) for keys in (reviews.by_key, disputed)
    )
    parts = [
        f"{reviewed:,} reviewed",
        *([f"of them {in_dispute:,} disputed"] if in_dispute else []),
        _remaining_text(result),
        *([] if seconds is None else [f"{duration(seconds)} a card"]),
    ]
    is_open = verdicts.is_issue & ~known_labels(verdicts, reviews, contents=contents).is_closed
    return [", ".join(parts), *_details(result, reviews, seconds, open_flags=int(is_open.sum())), *_reviewers(reviews)]


def _remaining_text(result: Statement) -> str:
    remaining = result.left or result.estimate
    if remaining is None:
        return "how many wrong labels are left is not known"
    return f"about {round(remaining.value):,} left ({round(remaining.low):,} to {round(remaining.high):,})"


def _details(result: Statement, reviews: Reviews, seconds: float | None, *, open_flags: int) -> list[str]:
    if not len(reviews):
        return []
    source = (
        f"by the audit, at {percent(result.confidence)} confidence"
        if result.left
        else "by the model's own p_clean, which nothing guarantees: an audit would tell"
    )
    lines = [f"{counted(result.found, 'label', 'labels')} found wrong"]
    if result.left or result.estimate:
        lines.append(f"what is left: {source}")
    if result.audited:
        lines.append(f"{counted(result.audited, 'image', 'images')} audited")
    if seconds is not None and open_flags > 0:
        lines.append(f"{counted(open_flags, 'flag', 'flags')} without an answer: {about(open_flags * seconds)}")
    return lines


def _reviewers(reviews: Reviews) -> Sequence[str]:
    counts = answers_by_reviewer(reviews)
    if len(counts) < 2:
        return []
    lines = [", ".join(f"{name} {number:,}" for name, number in counts.most_common())]
    agreement = reviews.agreement()
    if agreement.images:
        kappa = "" if math.isnan(agreement.kappa) else f", kappa {agreement.kappa:.2f}"
        images = counted(agreement.images, "image", "images")
        lines.append(f"{images} with several answers, which agree in {percent(agreement.share)}{kappa}")
    return lines
