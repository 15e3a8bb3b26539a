"""What follows from the answers: which of them stand, and what they say of each image."""

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
from labelsieve.review.answers import DECIDED, DROPPED, Answer, is_right
from labelsieve.review.log import AnswerLog


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What the reviewers say of one image together.

    Attributes:
        key: The content of the image.
        kind: `label`, `several`, `none`, `wrong`, `drop`, `keep-one` or `unsure`: what the majority says. A tie is
            `unsure`.
        labels: The classes, in the order in which they were said; empty but for `label` and `several`.
        reviewers: Who answered, in the order of their latest answers.
        agreed: Whether all of them said the same.
        answers: The latest standing answer of each of them.
    """

    key: str
    kind: str
    labels: tuple[str, ...]
    reviewers: tuple[str, ...]
    agreed: bool
    answers: tuple[Answer, ...]

    @property
    def disputed(self) -> bool:
        """Whether reviewers differ and none of the answers has the majority."""
        return self.kind == "unsure" and any(answer.kind in (*DECIDED, *DROPPED) for answer in self.answers)

    @property
    def note(self) -> str:
        """The notes of the reviewers."""
        return " / ".join(answer.note for answer in self.answers if answer.note)

    def speaks_of(self, given_label: str) -> bool:
        """Returns whether it says anything of a given label, which may have changed since or be that of a copy.

        That a label is wrong says nothing of another one.
        """
        if self.kind != "wrong":
            return True
        labels = (answer.given_label for answer in self.answers if answer.kind == "wrong")
        return normalise(given_label) in map(normalise, labels)

    def is_right(self, given_label: str) -> bool | None:
        """Returns whether a given label is right; None where the reviewers leave that open."""
        return is_right(self.kind, self.labels, given_label) if self.speaks_of(given_label) else None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far reviewers agree on the images that more than one of them answered.

    Attributes:
        images: How many images these are.
        share: How often two reviewers say the same, from 0 to 1; NaN without such images.
        kappa: Cohen's kappa: agreement beyond chance, 1 at best. The mean over the pairs of reviewers, weighted by
            their images; NaN where it is not defined, since all of them say the same of everything.
        pairs: For each two reviewers their images and their kappa.
    """

    images: int
    share: float
    kappa: float
    pairs: Mapping[tuple[str, str], tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """All answers that stand.

    Attributes:
        standing: The answers that were not taken back, in the order in which they came.
        by_key: What they say of each image that somebody answered; skipped images are not among them.
    """

    standing: tuple[Answer, ...]
    by_key: Mapping[str, Resolved]

    def __len__(self) -> int:
        return len(self.by_key)

    @cached_property
    def facts(self) -> Mapping[str, Resolved]:
        """Those images of which something is known: answered with `label`, `several`, `none` or `wrong`."""
        return {key: found for key, found in self.by_key.items() if found.kind in DECIDED}

    @cached_property
    def audit(self) -> tuple[Answer, ...]:
        """The audit: for each image the first answer of mode `audit` that stands, with its stratum in `shown`."""
        answers = (each for each in self.standing if each.mode == "audit" and each.kind != "skip")
        first: dict[str, Answer] = {}
        for each in answers:
            first.setdefault(each.key, each)
        return tuple(first.values())

    def agreement(self) -> Agreement:
        """Returns how far the reviewers agree where more than one of them answered."""
        said: dict[str, dict[str, str]] = {}
        shared = {key: found for key, found in self.by_key.items() if len(found.answers) > 1}
        for key, found in shared.items():
            for answer in found.answers:
                said.setdefault(answer.reviewer, {})[key] = "\0".join(_said(answer))
        pairs, same = {}, 0.0
        for one, other in combinations(sorted(said), 2):
            both = sorted(said[one].keys() & said[other].keys())
            if both:
                first, second = [said[one][key] for key in both], [said[other][key] for key in both]
                pairs[one, other] = (len(both), _kappa(first, second))
                same += sum(map(str.__eq__, first, second))
        compared = sum(images for images, _ in pairs.values())
        known = [(images, kappa) for images, kappa in pairs.values() if math.isfinite(kappa)]
        weights = sum(images for images, _ in known)
        mean = sum(images * kappa for images, kappa in known) / weights if weights else math.nan
        return Agreement(images=len(shared), share=same / compared if compared else math.nan, kappa=mean, pairs=pairs)


def load(run_folder: str | Path, *, progress: Progress | None = None) -> Reviews:
    """Reads the answers of a run.

    Args:
        run_folder: Folder of the run; without a log there are no answers.
        progress: Where to say that a torn line was dropped.

    Raises:
        RunError: The log cannot be read.

    Example:
        >>> len(load("no such run"))
        0
    """
    return resolve(AnswerLog(run_folder, progress=progress).answers())


def resolve(answers: Iterable[Answer]) -> Reviews:
    """Returns which answers stand and what they say together.

    Of each reviewer the latest answer on an image counts; to skip an image says nothing of it. Where reviewers differ
    the majority counts. Those who are unsure have no vote, and `wrong` goes with every other answer by which the given
    label is wrong. A tie is `unsure`.

    Args:
        answers: In the order in which they came.
    """
    standing = Standing()
    for each in answers:
        standing.add(each)
    return standing.reviews()


class Standing:
    """The answers that stand, kept up to date answer by answer: each costs the same however many there are."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        self._undone: set[str] = set()
        self._of_key: dict[str, dict[str, Answer]] = {}
        self.by_key: dict[str, Resolved] = {}

    def add(self, answer: Answer) -> str | None:
        """Takes one more answer.

        Returns:
            The key of the image of which the state may have changed.
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
        """Returns the standing answers on an image, skips included, in the order in which they came."""
        return tuple(self._of_key.get(key, {}).values())

    def recent(self, reviewer: str, count: int) -> list[Answer]:
        """Returns the last answers of a reviewer that stand, skips included, the latest first."""
        own = (each for each in reversed(self._answers.values()) if each.reviewer == reviewer)
        return list(islice(own, count))

    def last(self, reviewer: str) -> list[Answer]:
        """Returns what an undo takes back: the last answer of a reviewer that stands, or the group it was given with.

        Those that were given at once have the same `group` in what was shown.
        """
        latest = self.recent(reviewer, 1)
        group = latest[0].shown.get("group") if latest else None
        if not group:
            return latest
        own = (each for each in self._answers.values() if each.reviewer == reviewer)
        return [each for each in own if each.shown.get("group") == group]

    def reviews(self) -> Reviews:
        """Returns what stands now."""
        return Reviews(standing=tuple(self._answers.values()), by_key=dict(self.by_key))

    def _resolve(self, key: str) -> str:
        latest: dict[str, Answer] = {}
        for each in self._of_key[key].values():
            if each.kind != "skip":
                latest.pop(each.reviewer, None)  # so that the order is that of the latest answers
                latest[each.reviewer] = each
        if latest:
            self.by_key[key] = resolve_one(latest.values())
        else:
            self.by_key.pop(key, None)
        return key


def resolve_one(answers: Iterable[Answer]) -> Resolved:
    """Returns what reviewers say together of one image, of which each has one answer here; at least one."""
    answers = tuple(answers)
    said = [_said(each) for each in answers]
    kind, labels = _majority(answers)
    return Resolved(
        key=answers[0].key,
        kind=kind,
        labels=labels,
        reviewers=tuple(each.reviewer for each in answers),
        agreed=len(set(said)) == 1,
        answers=answers,
    )


def _majority(answers: Sequence[Answer]) -> tuple[str, tuple[str, ...]]:
    votes = [each for each in answers if each.kind in (*DECIDED, *DROPPED)]
    precise = [each for each in votes if each.kind != "wrong"]
    if precise and all(each.is_right is False for each in votes):
        votes = precise
    counts = Counter(map(_said, votes)).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return "unsure", ()
    winner = next(each for each in votes if _said(each) == counts[0][0])
    return winner.kind, winner.labels


def _said(answer: Answer) -> tuple[str, ...]:
    """Returns what an answer says, whatever the order and the spelling of its classes."""
    return (answer.kind, *sorted(map(normalise, answer.labels)))


def _kappa(first: list[str], second: list[str]) -> float:
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return math.nan
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # on what is not defined
        return float(cohen_kappa_score(first, second))
