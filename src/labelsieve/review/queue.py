"""The review queue: order, filters, leases, and images that are assigned to two reviewers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, SettingsError, did_you_mean, shown
from labelsieve.core.files import is_utf8
from labelsieve.core.validation import Share, check_fields, check_value
from labelsieve.data.labels import normalise
from labelsieve.review.answers import Answer, key_of
from labelsieve.review.finding_queues import FINDING_QUEUES, FindingQueue, FindingQueues
from labelsieve.review.sampling import AuditDesign, design
from labelsieve.review.state import Resolved, StandingAnswers
from labelsieve.verdicts import Verdicts

Queue = Literal["suspicious", "class", "pair", "group", "audit", FindingQueue]
State = Literal["open", "skipped", "unsure", "disputed", "answered", "all"]
# Number of seconds without a request after which the cards of a browser are released.
LEASE = 120.0
# One of this many cards is drawn for the audit.
AUDIT_EVERY = 5
# Mixes the bits of a content hash, so that the choice of shared images does not depend on the hash function.
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of a queue.

    Attributes:
        given: Given label; None for all.
        suggested: Suggested label; None for all.
        low: Minimum p_clean.
        high: Maximum p_clean.
        text: Substring of the id, case-insensitive.
        which: `flagged`, `unflagged`, `unreadable` or `all`.
        state: `open`: to be answered; `skipped`: open and skipped by this reviewer; `unsure`; `disputed`; `answered`;
            or `all`.
    """

    given: str | None = None
    suggested: str | None = None
    low: Share = 0.0
    high: Share = 1.0
    text: str = ""
    which: Literal["flagged", "unflagged", "unreadable", "all"] = "flagged"
    state: State = "open"

    def __post_init__(self) -> None:
        check_fields(self)
        if not is_utf8(self.text):  # JSON may contain a lone surrogate
            raise SettingsError(f"expected a text to look for, got {shown(self.text)}")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One queue with its filters; the audit ignores filters, because they would bias it.

    Image findings do not depend on flags, so their queues contain flagged and unflagged images.
    """

    queue: Queue = "suspicious"
    filters: Filters = Filters()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.queue == "audit":
            object.__setattr__(self, "filters", Filters())
        elif self.is_of_findings:
            object.__setattr__(self, "filters", replace(self.filters, which="all"))

    @property
    def is_of_findings(self) -> bool:
        """Returns whether it is a queue of image findings."""
        return self.queue in FINDING_QUEUES


class ReviewQueue:
    """The images of a run, and which of them to show next.

    Copies with equal content count as one image and share their answers. Every method is fast: at most a few
    operations on arrays of N values.

    Args:
        verdicts: Verdicts of N images.
        contents: Shape (N,), uint64: a hash of each image.
        overlap: Share of the images that are assigned to two reviewers.
        clock: A monotonic clock, in seconds.

    Raises:
        SettingsError: The overlap is out of range.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        contents: NDArray[np.uint64],
        *,
        overlap: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_value("overlap", overlap, Share)
        self.verdicts, self.standing, self._clock = verdicts, StandingAnswers(), clock
        self.contents, self.content_ids = np.unique(contents, return_inverse=True)
        self.design: AuditDesign = design(verdicts)
        self.findings = FindingQueues(verdicts)
        count = len(self.contents)
        self._is_shared = is_shared(self.contents, overlap)
        self._reviewers = np.zeros(count, dtype=np.int16)
        self._is_unsure, self._is_disputed, self._is_dropped = np.zeros((3, count), dtype=np.bool_)
        self._answered_by: dict[str, NDArray[np.bool_]] = {}
        self._skipped_by: dict[str, NDArray[np.bool_]] = {}
        self.outcome = np.full(len(verdicts), -1, dtype=np.int8)
        self._leases: dict[int, tuple[str, float]] = {}
        self._order = np.argsort(verdicts.table["rank"].fill_null(len(verdicts) + 1).to_numpy(), kind="stable")
        self._by_content = np.argsort(self.content_ids, kind="stable")
        self._starts = np.searchsorted(self.content_ids[self._by_content], np.arange(count + 1))
        self._known_names = frozenset(map(normalise, verdicts.class_names))
        self._rows_of = lru_cache(maxsize=32)(self._find_rows)

    # answers

    def add(self, answers: Iterable[Answer]) -> None:
        """Adds answers of any reviewers."""
        keys = {self.standing.add(each) for each in answers}
        for key in keys - {None}:
            self._update(str(key))

    def _update(self, key: str) -> None:
        content = self.content_of(key)
        if content is None:
            return
        resolved = self._valid(self.standing.by_key.get(key))
        answered = set(resolved.reviewers) if resolved else set()
        # a skip counts until an answer follows it
        last = {each.reviewer: each.kind for each in self.standing.of_key(key)}
        for name in {*last, *answered, *self._answered_by}:
            self._mask(self._answered_by, name)[content] = name in answered
            self._mask(self._skipped_by, name)[content] = last.get(name) == "skip"
        self._reviewers[content] = len(answered)
        is_unsure, is_disputed = bool(resolved and resolved.kind == "unsure"), bool(resolved and resolved.disputed)
        self._is_unsure[content], self._is_disputed[content] = is_unsure and not is_disputed, is_disputed
        self._is_dropped[content] = resolved is not None and resolved.kind == "drop"
        for row in self.copies(content):
            right = resolved.is_right(self.verdicts.given_label(row)) if resolved else None
            self.outcome[row] = -1 if right is None else int(right)

    def _valid(self, resolved: Resolved | None) -> Resolved | None:
        """Returns the answers; None if they name a class that no longer exists, so that the image is shown again."""
        return resolved if resolved and self._known_names.issuperset(map(normalise, resolved.labels)) else None

    def _mask(self, masks: dict[str, NDArray[np.bool_]], reviewer: str) -> NDArray[np.bool_]:
        return masks.setdefault(reviewer, np.zeros(len(self.contents), dtype=np.bool_))

    def content_of(self, key: str) -> int | None:
        """Returns the index in `contents` of the images with a key; None if the run has none."""
        value = np.uint64(int(key, 16))
        content = int(np.searchsorted(self.contents, value))
        return content if content < len(self.contents) and self.contents[content] == value else None

    def copies(self, content: int) -> NDArray[np.int64]:
        """Returns the rows of equal images."""
        return self._by_content[self._starts[content] : self._starts[content + 1]]

    def key(self, row: int) -> str:
        """Returns the key of an image."""
        return key_of(int(self.contents[self.content_ids[row]]))

    def resolved(self, row: int) -> Resolved | None:
        """Returns the answers on an image."""
        return self.standing.by_key.get(self.key(row))

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Shape (N,): images with an answer."""
        return np.asarray(self._reviewers[self.content_ids] > 0)

    @property
    def is_disputed(self) -> NDArray[np.bool_]:
        """Shape (N,): images whose answers have no majority."""
        return np.asarray(self._is_disputed[self.content_ids])

    # next images

    def take(
        self, spec: Spec, *, client: str, reviewer: str, count: int, after: int | None = None
    ) -> NDArray[np.int64]:
        """Returns the next images and leases them to a browser.

        Args:
            spec: The queue.
            client: The browser; cards that are leased to any browser are not returned.
            reviewer: The reviewer; images with an answer of this person are not returned.
            count: Maximum number of images.
            after: Row of the last card: images before it in the queue are skipped.
        """
        rows = self._waiting(spec, reviewer)
        if after is not None:
            order = self._rows_of(spec)
            position = np.flatnonzero(order == after)
            if len(position):
                rows = rows[np.isin(rows, order[position[0] + 1 :], assume_unique=True)]
        rows = rows[self._is_free(rows)]
        chosen = (self._one_of_each_pair(spec, rows) if spec.is_of_findings and after is None else rows)[
            : max(count, 0)
        ]
        self.lease(chosen, client)
        return chosen

    def _one_of_each_pair(self, spec: Spec, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns at most one image of each pair, because the answer on one decides whether to show the other.

        Images whose companion is leased are also left out.
        """
        companions = self.findings.companions(spec.queue, rows)
        busy, chosen = set(self._leases), []
        for row, companion in zip(rows.tolist(), companions.tolist(), strict=True):
            if companion < 0 or int(self.content_ids[companion]) not in busy:
                chosen.append(row)
                busy.add(int(self.content_ids[row]))
        return np.array(chosen, dtype=np.int64)

    def alike(self, spec: Spec, row: int, *, reviewer: str) -> NDArray[np.int64]:
        """Returns the free other images of a queue with the same given and suggested label as an image.

        Args:
            spec: The queue; images that are leased to a browser are not free.
            row: The row of the image.
            reviewer: The reviewer; only images that wait for an answer of this person are returned.
        """
        rows = self._waiting(spec, reviewer)
        given, suggested = self.verdicts.given, self.verdicts.predicted
        is_alike = (given[rows] == given[row]) & (suggested[rows] == suggested[row]) & (rows != row)
        return np.asarray(rows[is_alike & self._is_free(rows)])

    def left(self, spec: Spec, *, reviewer: str) -> int:
        """Returns the number of images of a queue that wait for a reviewer, including leased ones."""
        return len(self._waiting(spec, reviewer))

    def size(self, spec: Spec) -> int:
        """Returns the total number of images of a queue, answered or not."""
        return len(self._rows_of(spec))

    def _waiting(self, spec: Spec, reviewer: str) -> NDArray[np.int64]:
        rows, waits = self._rows_of(spec), self._in_state(spec.filters.state, reviewer)
        if spec.queue == "audit":  # otherwise, an image skipped in the review would end the sample
            waits |= self._in_state("skipped", reviewer)
        rows = np.asarray(rows[waits[self.content_ids[rows]]])
        # an image is no longer a copy once the other one is dropped
        if spec.is_of_findings and spec.filters.state == "open":
            companions = self.findings.companions(spec.queue, rows)
            rows = rows[(companions < 0) | ~self._is_dropped[self.content_ids[companions]]]
        return rows

    def _in_state(self, state: State, reviewer: str) -> NDArray[np.bool_]:
        """Returns which images are in a state, for a reviewer."""
        answered, skipped = self._mask(self._answered_by, reviewer), self._mask(self._skipped_by, reviewer)
        is_needed = ~answered & ((self._reviewers == 0) | (self._is_shared & (self._reviewers < 2)))
        masks: dict[str, NDArray[np.bool_]] = {
            "open": is_needed & ~skipped,
            "skipped": is_needed & skipped,
            "unsure": self._is_unsure,
            "disputed": self._is_disputed,
            "answered": self._reviewers > 0,
            "all": np.ones(len(is_needed), dtype=np.bool_),
        }
        return masks[state]

    def _find_rows(self, spec: Spec) -> NDArray[np.int64]:
        """Returns the rows of a queue in order, one of each group of copies; depends on the verdicts only."""
        if spec.queue == "audit":
            rows = self.design.order
        elif spec.is_of_findings:
            candidates = self.findings.rows(spec.queue)
            rows = candidates[np.isin(candidates, self._chosen(spec.filters))]
        else:
            rows = self._sorted(spec.queue, self._chosen(spec.filters))
        _, first = np.unique(self.content_ids[rows], return_index=True)
        return np.asarray(rows[np.sort(first)])

    def _chosen(self, filters: Filters) -> NDArray[np.int64]:
        """Returns the rows that pass the filters, by rank."""
        verdicts, keep = self.verdicts, np.ones(len(self.verdicts), dtype=np.bool_)
        if filters.which == "unreadable":
            keep &= ~verdicts.is_readable
        elif filters.which != "all":
            keep &= verdicts.is_readable & (verdicts.is_issue == (filters.which == "flagged"))
        for name, column in ((filters.given, verdicts.given), (filters.suggested, verdicts.predicted)):
            if name is not None:
                keep &= column == _class_index(verdicts, name)
        if (filters.low, filters.high) != (0.0, 1.0):
            quality = verdicts.label_quality
            keep &= (quality >= np.float32(filters.low)) & (quality <= np.float32(filters.high))
        if filters.text:
            keep &= np.asarray(pc.match_substring(verdicts.table["id"], filters.text, ignore_case=True))
        return np.asarray(self._order[keep[self._order]])

    def _sorted(self, queue: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sorts rows by class or confused pair, the one with the most images first, and within it by rank."""
        if queue not in ("class", "pair"):
            return rows
        codes = self.verdicts.given[rows]
        if queue == "pair":
            codes = codes * (len(self.verdicts.class_names) + 1) + self.verdicts.predicted[rows] + 1
        _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        return np.asarray(rows[np.lexsort((codes, -counts[inverse]))])

    # leases

    def lease(self, rows: Iterable[int] | NDArray[np.int64], client: str) -> None:
        """Reserves images for a browser until it answers, releases them, or sends no request for too long."""
        until = self._clock() + LEASE
        self._leases.update({int(self.content_ids[row]): (client, until) for row in rows})

    def renew(self, client: str) -> None:
        """Extends the leases of a browser after a request."""
        until = self._clock() + LEASE
        for content, (holder, _) in self._leases.items():
            if holder == client:
                self._leases[content] = (holder, until)

    def release(self, client: str, rows: Iterable[int] | None = None) -> None:
        """Releases all images of a browser, or only some rows."""
        chosen = None if rows is None else {int(self.content_ids[row]) for row in rows}
        for content, (holder, _) in list(self._leases.items()):
            if holder == client and (chosen is None or content in chosen):
                del self._leases[content]

    def _is_free(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        now = self._clock()
        self._leases = {content: lease for content, lease in self._leases.items() if lease[1] > now}
        if not self._leases:
            return np.ones(len(rows), dtype=np.bool_)
        return ~np.isin(self.content_ids[rows], np.fromiter(self._leases, dtype=np.int64))


def is_shared(contents: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Returns which images are assigned to two reviewers, (N,): about a share of them, always the same ones.

    Args:
        contents: Hashes of the images, (N,).
        share: The share, from 0 to 1.
    """
    if share >= 1:
        return np.ones(len(contents), dtype=np.bool_)
    return np.asarray((contents * _MIX).astype(np.float64) / 2.0**64 < share)


def _class_index(verdicts: Verdicts, name: str) -> int:
    if name not in verdicts.class_names:
        raise DataError(f'expected a class of the run, got "{shown(name)}"{did_you_mean(name, verdicts.class_names)}')
    return verdicts.class_names.index(name)
