"""Resolves answers: which of them stand, and the combined answer on each image."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice
from pathlib import Path

import numpy as np

from labelsieve.core.progress import Progress
from labelsieve.data.labels import normalise
from labelsieve.review.answers import DECIDED, DROPPED, KEEP_ONE, Answer, is_right
from labelsieve.review.log import AnswerLog


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The combined answer of all reviewers on one image.

    Attributes:
        key: The content of the image.
        kind: `label`, `several`, `none`, `wrong`, `drop` or `unsure`: the majority of the answers on the label. A tie
            is `unsure`. `keep-one` if reviewers only chose which of its copies stays.
        labels: The classes, in the order of the answer; empty except for `label` and `several`.
        keeps: Id of the only image with this content that stays; empty if all stay.
        reviewers: The reviewers, in the order of their latest answers.
        answers: The answers of each reviewer that count: the latest on the label, and the latest on which copy stays.
    """

    key: str
    kind: str
    labels: tuple[str, ...]
    keeps: str = ""
    reviewers: tuple[str, ...]
    answers: tuple[Answer, ...]

    @property
    def on_label(self) -> tuple[Answer, ...]:
        """Returns the answers on the label; if there are none, those on which copy stays."""
        return tuple(each for each in self.answers if each.kind != KEEP_ONE) or self.answers

    @property
    def leaves_out(self) -> bool:
        """Returns whether an image with this content is left out, whatever its label."""
        return self.kind in DROPPED or bool(self.keeps)

    @property
    def disputed(self) -> bool:
        """Returns whether reviewers differ and no answer has the majority."""
        answers = self.on_label if self.keeps else self.answers
        return self.kind == "unsure" and any(answer.kind in (*DECIDED, *DROPPED) for answer in answers)

    @property
    def note(self) -> str:
        """The notes of the reviewers."""
        return " / ".join(answer.note for answer in self.answers if answer.note)

    def speaks_of(self, given_label: str) -> bool:
        """Returns whether the answer applies to a given label, which may have changed since or be that of a copy.

        The answer that a label is wrong does not apply to another label.
        """
        if self.kind != "wrong":
            return True
        labels = (answer.given_label for answer in self.answers if answer.kind == "wrong")
        return normalise(given_label) in map(normalise, labels)

    def is_right(self, given_label: str) -> bool | None:
        """Returns whether a given label is right; None if the reviewers do not decide."""
        return is_right(self.kind, self.labels, given_label) if self.speaks_of(given_label) else None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The agreement of reviewers on images with several answers.

    Attributes:
        images: Number of these images.
        share: Share of equal answers of two reviewers, from 0 to 1; NaN without such images.
        kappa: Cohen's kappa: agreement beyond chance, 1 at best. The mean over the pairs of reviewers, weighted by
            their images; NaN if it is undefined because all answers are equal.
        pairs: For each pair of reviewers, the number of their images and their kappa.
    """

    images: int
    share: float
    kappa: float
    pairs: Mapping[tuple[str, str], tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """All answers that stand.

    Attributes:
        standing: The answers that were not taken back, in chronological order.
        by_key: The combined answer on each answered image; skipped images are not included.
    """

    standing: tuple[Answer, ...]
    by_key: Mapping[str, Resolved]

    def __len__(self) -> int:
        return len(self.by_key)

    @cached_property
    def facts(self) -> Mapping[str, Resolved]:
        """Returns the decided images: answered with `label`, `several`, `none` or `wrong`."""
        return {key: resolved for key, resolved in self.by_key.items() if resolved.kind in DECIDED}

    def agreement(self) -> Agreement:
        """Returns the agreement of reviewers on images with several answers."""
        votes: dict[str, dict[str, str]] = {}
        shared = {key: resolved for key, resolved in self.by_key.items() if len(resolved.on_label) > 1}
        for key, resolved in shared.items():
            for answer in resolved.on_label:
                votes.setdefault(answer.reviewer, {})[key] = "\0".join(_vote(answer))
        pairs, agreeing = {}, 0.0
        for first_reviewer, second_reviewer in combinations(sorted(votes), 2):
            common = sorted(votes[first_reviewer].keys() & votes[second_reviewer].keys())
            if common:
                first, second = (
                    [votes[first_reviewer][key] for key in common],
                    [votes[second_reviewer][key] for key in common],
                )
                pairs[first_reviewer, second_reviewer] = (len(common), _kappa(first, second))
                agreeing += sum(map(str.__eq__, first, second))
        compared = sum(images for images, _ in pairs.values())
        defined = [(images, kappa) for images, kappa in pairs.values() if math.isfinite(kappa)]
        weights = sum(images for images, _ in defined)
        mean = sum(images * kappa for images, kappa in defined) / weights if weights else math.nan
        return Agreement(
            images=len(shared), share=agreeing / compared if compared else math.nan, kappa=mean, pairs=pairs
        )


def load(run_folder: str | Path, *, progress: Progress | None = None) -> Reviews:
    """Reads the answers of a run.

    Args:
        run_folder: Folder of the run; without a log there are no answers.
        progress: Receives a note if a truncated line was ignored.

    Raises:
        RunError: The log cannot be read.

    Example:
        >>> len(load("no such run"))
        0
    """
    return resolve(AnswerLog(run_folder, progress=progress).answers())


def resolve(answers: Iterable[Answer]) -> Reviews:
    """Returns which answers stand, and the combined answer on each image.

    The latest answer of each reviewer on an image counts; skips are ignored. An answer on which copy stays does not
    replace an answer on the label. If reviewers differ, the majority counts. Unsure reviewers have no vote, and `wrong`
    supports every other answer by which the given label is wrong. A tie is `unsure`.

    Args:
        answers: In chronological order.
    """
    standing = StandingAnswers()
    for each in answers:
        standing.add(each)
    return standing.reviews()


class StandingAnswers:
    """The standing answers, updated incrementally: the cost per answer does not depend on their number."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        self._undone: set[str] = set()
        self._of_key: dict[str, dict[str, Answer]] = {}
        self.by_key: dict[str, Resolved] = {}

    def add(self, answer: Answer) -> str | None:
        """Adds an answer.

        Returns:
            The key of the image whose state may have changed.
        """
        if answer.kind == "undo":
            self._undone.add(answer.undoes)
            undone = self._answers.pop(answer.undoes, None)
            if undone is None:
                return None
            del self._of_key[undone.key][undone.token]
            return self._resolve(undone.key)
        if answer.token in self._undone:
            return None
        self._answers[answer.token] = answer
        self._of_key.setdefault(answer.key, {})[answer.token] = answer
        return self._resolve(answer.key)

    def of_key(self, key: str) -> tuple[Answer, ...]:
        """Returns the standing answers on an image, including skips, in chronological order."""
        return tuple(self._of_key.get(key, {}).values())

    def recent(self, reviewer: str, count: int) -> list[Answer]:
        """Returns the last standing answers of a reviewer, including skips, the latest first."""
        answers = (each for each in reversed(self._answers.values()) if each.reviewer == reviewer)
        return list(islice(answers, count))

    def last(self, reviewer: str) -> list[Answer]:
        """Returns the answers that an undo takes back: the last standing answer of a reviewer, or its group.

        Answers that were given together have the same `group` in `shown`.
        """
        latest = self.recent(reviewer, 1)
        group = latest[0].shown.get("group") if latest else None
        if not group:
            return latest
        answers = (each for each in self._answers.values() if each.reviewer == reviewer)
        return [each for each in answers if each.shown.get("group") == group]

    def reviews(self) -> Reviews:
        """Returns the current reviews."""
        return Reviews(standing=tuple(self._answers.values()), by_key=dict(self.by_key))

    def _resolve(self, key: str) -> str:
        latest: dict[str, tuple[Answer, ...]] = {}
        for each in self._of_key[key].values():
            if each.kind != "skip":
                before = latest.pop(each.reviewer, ())  # so that the order is that of the latest answers
                latest[each.reviewer] = (*(old for old in before if not _replaces(each, old)), each)
        if latest:
            self.by_key[key] = _combined(latest)
        else:
            self.by_key.pop(key, None)
        return key


def _replaces(new: Answer, old: Answer) -> bool:
    """Returns whether an answer of a reviewer replaces an earlier one on the same image.

    Answers on the label and on which copy stays are independent, unless the card of the new answer asked for both.
    """
    if new.kind == KEEP_ONE:
        return old.kind in DROPPED
    return old.kind != KEEP_ONE or new.kind == "drop" or new.shown.get("drop") == KEEP_ONE


def _combined(latest: Mapping[str, Sequence[Answer]]) -> Resolved:
    """Combines the answers on one image, one or two of each reviewer; at least one."""
    answers = tuple(each for of_reviewer in latest.values() for each in of_reviewer)
    keeping = [each for each in answers if each.kind == KEEP_ONE]
    on_label = [each for each in answers if each.kind != KEEP_ONE]
    kind, labels = _majority(on_label) if on_label else (KEEP_ONE, ())
    # a label as the answer to a card that offered keep-one means that all copies stay
    against = sum(
        of_reviewer[-1].kind != KEEP_ONE and of_reviewer[-1].shown.get("drop") == KEEP_ONE
        for of_reviewer in latest.values()
    )
    if keeping and len(keeping) == against:
        kind, labels = "unsure", ()
    return Resolved(
        key=answers[0].key,
        kind=kind,
        labels=labels,
        keeps=keeping[0].id if len(keeping) > against else "",
        reviewers=tuple(latest),
        answers=answers,
    )


def _majority(answers: Sequence[Answer]) -> tuple[str, tuple[str, ...]]:
    votes = [each for each in answers if each.kind in (*DECIDED, *DROPPED)]
    precise = [each for each in votes if each.kind != "wrong"]
    if precise and all(each.is_right is False for each in votes):
        votes = precise
    counts = Counter(map(_vote, votes)).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return "unsure", ()
    winner = next(each for each in votes if _vote(each) == counts[0][0])
    return winner.kind, winner.labels


def _vote(answer: Answer) -> tuple[str, ...]:
    """Returns the kind and the classes of an answer, independent of the order and spelling of the classes."""
    return (answer.kind, *sorted(map(normalise, answer.labels)))


def _kappa(first: list[str], second: list[str]) -> float:
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return math.nan
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # if kappa is undefined
        return float(cohen_kappa_score(first, second))
