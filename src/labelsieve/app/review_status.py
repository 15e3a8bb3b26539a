"""Status of a review: progress, pace, and precision of the flags so far."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from labelsieve.review.finding_queues import FINDING_QUEUES
from labelsieve.review.queue import Filters, ReviewQueue, Spec, State
from labelsieve.review.status_lines import answers_by_reviewer, seconds_per_card
from labelsieve.verdicts import Verdicts

# Number of recent answers that determine the pace.
_RECENT = 50
_BINS, _CLASSES = 10, 50


def progress_of(queue: ReviewQueue, spec: Spec, *, reviewer: str) -> dict[str, Any]:
    """Returns the numbers of the top bar, for one reviewer and one queue.

    Args:
        queue: All images of the run, with their answers.
        spec: The queue, with its filters.
        reviewer: Name of the reviewer, for whom images are left and whose pace counts.
    """
    remaining, pace = queue.left(spec, reviewer=reviewer), seconds_per_card(queue.standing.recent(reviewer, _RECENT))
    waiting: tuple[State, ...] = ("skipped", "unsure", "disputed")
    states = {
        str(state): queue.left(Spec(filters=Filters(which="all", state=state)), reviewer=reviewer) for state in waiting
    }
    answered = replace(spec, filters=replace(spec.filters, state="answered"))
    is_open = spec.filters.state == "open"  # of another state none is done
    skipped = replace(spec, filters=replace(spec.filters, state="skipped"))
    # an audit shows what was skipped
    skipped_in_queue = queue.left(skipped, reviewer=reviewer) if is_open and spec.queue != "audit" else 0
    size = queue.size(spec) if is_open else remaining
    return {
        "left": remaining,
        "size": size,
        "done": size - remaining - skipped_in_queue if is_open else None,
        "skipped_in_queue": skipped_in_queue,
        "answered": int(queue.is_answered.sum()),
        "answered_disputed": int(queue.is_disputed.sum()),
        "flagged": int(queue.verdicts.is_issue.sum()),
        "flagged_answered": int((queue.is_answered & queue.verdicts.is_issue).sum()),
        "images": len(queue.verdicts),
        "seconds_each": pace,
        "seconds_left": None if pace is None else pace * remaining,
        "findings": findings_left(queue, reviewer),
        "answered_in_queue": queue.left(answered, reviewer=reviewer) if spec.is_of_findings else 0,
        **states,
    }


def findings_left(queue: ReviewQueue, reviewer: str) -> dict[str, int]:
    """Returns the number of images that each queue of findings has left for a reviewer, as it would show them."""
    names = [name for name in FINDING_QUEUES if name in queue.findings.sizes]
    return {str(name): queue.left(Spec(queue=name), reviewer=reviewer) for name in names}


def precision_of(queue: ReviewQueue) -> dict[str, Any]:
    """Returns how many answered labels were wrong: of the flags, by class and by p_clean."""
    verdicts, outcome = queue.verdicts, queue.outcome
    known, wrong = outcome >= 0, outcome == 0
    flags = verdicts.is_issue & known
    return {
        "flags": {"answered": int(flags.sum()), "wrong": int((flags & wrong).sum())},
        "by_p_clean": _by_p_clean(queue),
        "by_class": _by_class(queue),
        "reviewers": _reviewers(queue),
    }


def pairs_of(verdicts: Verdicts, count: int) -> list[dict[str, int]]:
    """Returns the most frequent pairs of given and suggested label among the flagged images."""
    given, suggested, counts = verdicts.suggestions()
    best = np.argsort(-counts, kind="stable")[:count]
    return [{"given": int(given[each]), "suggested": int(suggested[each]), "count": int(counts[each])} for each in best]


def _by_p_clean(queue: ReviewQueue) -> list[dict[str, Any]]:
    known = (queue.outcome >= 0) & queue.verdicts.is_readable
    bins = np.minimum((queue.verdicts.label_quality[known] * _BINS).astype(np.int64), _BINS - 1)
    answered = np.bincount(bins, minlength=_BINS)
    wrong = np.bincount(bins[queue.outcome[known] == 0], minlength=_BINS)
    return [
        {"low": low / _BINS, "high": (low + 1) / _BINS, "answered": int(answered[low]), "wrong": int(wrong[low])}
        for low in range(_BINS)
    ]


def _by_class(queue: ReviewQueue) -> list[dict[str, Any]]:
    """Returns the number of answered flags of each class, and how many were wrong, in descending order."""
    flags = (queue.outcome >= 0) & queue.verdicts.is_issue
    given = queue.verdicts.given[flags]
    classes, answered = np.unique(given, return_counts=True)
    wrong = Counter(given[queue.outcome[flags] == 0].tolist())
    rows = [
        {"label": int(label), "answered": int(count), "wrong": wrong[int(label)]}
        for label, count in zip(classes, answered, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["answered"])[:_CLASSES]


def _reviewers(queue: ReviewQueue) -> dict[str, Any]:
    """Returns the number of answers of each reviewer, and their agreement."""
    reviews = queue.standing.reviews()
    agreement = reviews.agreement()
    return {
        "answers": [{"name": name, "answers": count} for name, count in answers_by_reviewer(reviews).most_common()],
        "shared": agreement.images,
        "agree": _finite(agreement.share),
        "kappa": _finite(agreement.kappa),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
