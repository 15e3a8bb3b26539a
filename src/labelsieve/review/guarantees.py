"""What an audit proves: exact bounds on wrong labels, from a random sample of each side of the flag.

The labels that are flagged and the others are two *sides*. Of each side a random sample was looked at, spread evenly
over strata of p_clean (`sampling.py`). A stratum of which every label is known is no matter of chance: its wrong labels
are counted. Of the rest, the *open* labels, M on a side with K wrong among them, n were seen and x of these are wrong.
Then x is hypergeometric, and every bound here is the inversion of a test of it:

* one side: the bounds of Clopper and Pearson for a finite population. K is ruled out where so few (or so many) wrong
  labels among n have a probability of at most the error allowed;
* both sides, for a sum or a ratio: the test statistic is the estimate, and how the wrong labels are divided between the
  sides is a nuisance parameter, over which the probability is maximised (Wendell and Schmee 1996), within bounds that
  take a twentieth of the error (Berger and Boos 1994).

Sampling evenly over strata makes x vary less than a plain random sample does, which keeps the bounds on the safe side
(Hoeffding 1956); the tests measure it. An answer `unsure` counts as wrong in upper bounds and as right in lower ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.metrics import Interval

# Divisions of the wrong labels between the sides that are tried, and the share of the error that bounds their range.
_GRID, _OF_ERROR = 64, 1 / 20
_EXACT = 1e-9
# Numbers that are kept for a side: as many probabilities, for all numbers of wrong labels.
_TABLE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is known of the labels on one side of the flag.

    Attributes:
        images: How many labels there are.
        whole: Labels of the strata that are known as a whole.
        whole_wrong: How many of these are wrong.
        seen: Labels of the other strata that are in the sample.
        seen_wrong: How many of these are wrong.
        seen_unsure: How many of these were answered without a decision.
        known_wrong: Labels of the side that are known to be wrong, in the sample or not.
        known_right: Labels of the side that are known to be right.
    """

    images: int
    whole: int = 0
    whole_wrong: int = 0
    seen: int = 0
    seen_wrong: int = 0
    seen_unsure: int = 0
    known_wrong: int = 0
    known_right: int = 0

    @property
    def open(self) -> int:
        """Labels of the strata of which not all are known."""
        return self.images - self.whole

    @property
    def is_sampled(self) -> bool:
        """Whether anything can be said of the side: a label of it was seen, or there are none to see."""
        return not self.open or self.seen > self.seen_unsure

    @property
    def estimate(self) -> float:
        """About how many of its labels are wrong, at best; NaN where nothing can be said."""
        if not self.is_sampled:
            return math.nan
        return self.whole_wrong + self.open * (self.seen_wrong / max(self.seen - self.seen_unsure, 1))

    def mirrored(self) -> Side:
        """Returns the side with right and wrong exchanged, so that a lower bound is an upper one."""
        return replace(
            self,
            whole_wrong=self.whole - self.whole_wrong,
            seen_wrong=self.seen - self.seen_wrong - self.seen_unsure,
            known_wrong=self.known_right,
            known_right=self.known_wrong,
        )


class _Count(NamedTuple):
    """A side for one test: `wrong` of `seen` among `open` labels, of which `low` to `high` can be wrong at all."""

    fixed: int
    open: int
    seen: int
    wrong: int
    low: int
    high: int

    @property
    def weight(self) -> float:
        return self.open / self.seen if self.seen else 0.0

    @property
    def estimate(self) -> float:
        return self.fixed + self.weight * self.wrong

    @property
    def is_free(self) -> bool:
        """Whether its number of wrong labels is not known already."""
        return self.low < self.high


def _counted(side: Side, *, unsure_is_wrong: bool) -> _Count:
    low = side.known_wrong - side.whole_wrong
    high = side.open - (side.known_right - (side.whole - side.whole_wrong))
    wrong = side.seen_wrong + (side.seen_unsure if unsure_is_wrong else 0)
    return _Count(side.whole_wrong, side.open, side.seen, wrong, low, high)


def wrong_on_side(side: Side, *, confidence: float) -> Interval | None:
    """Returns how many labels of one side are wrong; None where nothing can be said.

    Args:
        side: The side.
        confidence: How often both ends hold, between 0 and 1.

    Example:
        >>> wrong_on_side(Side(images=1000, seen=100, seen_wrong=10, known_wrong=10, known_right=90), confidence=0.95)
        Interval(value=100.0, low=52.0, high=172.0)
    """
    if not side.is_sampled:
        return None
    error = (1 - confidence) / 2
    high = _upper_of_side(_counted(side, unsure_is_wrong=True), error)
    low = side.images - _upper_of_side(_counted(side.mirrored(), unsure_is_wrong=True), error)
    return within(side.estimate, low, high)


def within(estimate: float, low: float, high: float) -> Interval:
    """Returns an interval with its estimate in it: more may be known to be wrong than the sample makes likely.

    Example:
        >>> within(2.0, 5, 9)
        Interval(value=5.0, low=5.0, high=9.0)
    """
    return Interval(min(max(float(estimate), float(low)), float(high)), float(low), float(high))


def most_wrong(sides: tuple[Side, Side], *, confidence: float) -> int:
    """Returns an upper bound on the wrong labels of both sides together.

    Args:
        sides: The flagged labels and the others.
        confidence: How often the bound holds, between 0 and 1.

    Example:
        >>> others = Side(images=1000, seen=300, known_right=300)
        >>> most_wrong((Side(images=0), others), confidence=0.95)
        8
    """
    first, second = (_counted(side, unsure_is_wrong=True) for side in sides)
    return _upper_of_sum(first, second, 1 - confidence)


def fewest_wrong(sides: tuple[Side, Side], *, confidence: float) -> int:
    """Returns a lower bound on the wrong labels of both sides together; see :func:`most_wrong`."""
    first, second = (side.mirrored() for side in sides)
    return first.images + second.images - most_wrong((first, second), confidence=confidence)


def missed_share(sides: tuple[Side, Side], *, confidence: float) -> Interval | None:
    """Returns which share of the wrong labels is not flagged.

    Args:
        sides: The flagged labels and the others.
        confidence: How often both ends hold, between 0 and 1.

    Returns:
        None where one of the sides was not sampled, or no label was found wrong.
    """
    flagged, others = sides
    total = flagged.estimate + others.estimate
    if not total > 0:  # NaN, too
        return None
    error = (1 - confidence) / 2
    many, few = _counted(others, unsure_is_wrong=True), _counted(flagged, unsure_is_wrong=False)
    high = _first(lambda share: _p_value(few, many, (-share, 1 - share), 0.0, error) <= error)
    many, few = _counted(flagged, unsure_is_wrong=True), _counted(others, unsure_is_wrong=False)
    low = 1 - _first(lambda share: _p_value(few, many, (-share, 1 - share), 0.0, error) <= error)
    value = others.estimate / total
    return Interval(value, min(low, value), max(high, value))


def _upper_of_side(count: _Count, error: float) -> int:
    """Returns the largest number of wrong labels under which no more than those seen are likelier than `error`."""
    from scipy.stats import hypergeom

    if not count.is_free:
        return count.fixed + count.low
    if not count.seen:
        return count.fixed + count.high

    def is_ruled_out(wrong: int) -> bool:
        return bool(hypergeom.cdf(count.wrong, count.open, wrong, count.seen) <= error)

    return count.fixed + _last_before(is_ruled_out, count.low, count.high)


def _upper_of_sum(first: _Count, second: _Count, error: float) -> int:
    if not first.is_free:
        return first.fixed + first.low + _upper_of_side(second, error)
    if not second.is_free:
        return second.fixed + second.low + _upper_of_side(first, error)
    fixed = first.fixed + second.fixed

    def is_ruled_out(wrong: int) -> bool:
        return _p_value(first, second, (1.0, 1.0), float(wrong), error) <= error

    return _last_before(is_ruled_out, fixed + first.low + second.low, fixed + first.high + second.high)


def _last_before(is_ruled_out: Callable[[int], bool], low: int, high: int) -> int:
    """Returns the last integer from `low` to `high` that is not ruled out, by bisection; `low` at least."""
    if not is_ruled_out(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_ruled_out(middle) else (middle, high)
    return low


def _first(is_ruled_out: Callable[[float], bool]) -> float:
    """Returns the smallest share that is ruled out, by bisection; 1 where none is."""
    low, high = 0.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if is_ruled_out(middle) else (middle, high)
    return high


def _p_value(first: _Count, second: _Count, weights: tuple[float, float], least: float, error: float) -> float:
    """Tests whether the weighted sum of wrong labels is at least `least`: how likely is an estimate as small as ours?

    Args:
        first: One side; how many of its labels are wrong is the nuisance parameter.
        second: The other side, whose weight is above 0.
        weights: Of both sides in the sum.
        least: The smallest sum under the hypothesis.
        error: Which error is allowed in all; a twentieth of it bounds the nuisance parameter.
    """
    if weights[1] <= 0:
        return 1.0
    spent = error * _OF_ERROR if first.is_free and first.seen else 0.0
    low, high = _range(first, spent) if spent else (first.low, first.high)
    observed = weights[0] * first.estimate + weights[1] * second.estimate

    def probability(wrong: NDArray[np.int64]) -> NDArray[np.float64]:
        rest = (least - weights[0] * (first.fixed + wrong)) / weights[1] - second.fixed
        other = np.maximum(np.ceil(rest - _EXACT), second.low).astype(np.int64)
        possible = other <= second.high
        result = np.zeros(len(wrong))
        if possible.any():
            result[possible] = _as_small(first, second, weights, observed, wrong[possible], other[possible])
        return result

    return _maximum(probability, low, high) + spent


@lru_cache(maxsize=32)  # all tests of one bound ask for the same
def _range(count: _Count, error: float) -> tuple[int, int]:
    """Returns which numbers of wrong labels are within two-sided bounds; both ends together err with `error`."""
    upper = _upper_of_side(count._replace(fixed=0), error / 2)
    right = count._replace(
        fixed=0, wrong=count.seen - count.wrong, low=count.open - count.high, high=count.open - count.low
    )
    return count.open - _upper_of_side(right, error / 2), upper


def _maximum(function: Callable[[NDArray[np.int64]], NDArray[np.float64]], low: int, high: int) -> float:
    """Returns the largest value of a smooth function at the integers from `low` to `high`: on a grid, then near it."""
    best = 0.0
    while True:
        grid = np.unique(np.linspace(low, high, _GRID).round().astype(np.int64))
        values = function(grid)
        place = int(values.argmax())
        best = max(best, float(values[place]))
        if len(grid) > high - low:
            return best
        low, high = int(grid[max(place - 1, 0)]), int(grid[min(place + 1, len(grid) - 1)])


def _as_small(
    first: _Count,
    second: _Count,
    weights: tuple[float, float],
    observed: float,
    wrong: NDArray[np.int64],
    other: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Returns how likely an estimate of at most `observed` is for each of C divisions of the wrong labels, (C,)."""
    seen = np.arange(first.seen + 1)
    left = observed - weights[0] * (first.fixed + first.weight * seen) - weights[1] * second.fixed
    step = weights[1] * second.weight
    # where nothing was seen of the second side, its estimate is no matter of chance
    most = np.floor(left / step + _EXACT) if step else np.where(left >= -_EXACT, second.seen, -1)
    most = np.clip(most, -1, second.seen).astype(np.int64) + 1
    return np.asarray((_probabilities(first, wrong) * _below(second, other)[:, most]).sum(axis=1))


def _probabilities(count: _Count, wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns how likely 0 to n wrong labels are among the n seen, for each of C numbers of wrong ones, (C, n + 1)."""
    if (count.open + 1) * (count.seen + 1) <= _TABLE:
        return np.asarray(_table(count.open, count.seen)[0][wrong])
    return _hypergeometric(count.open, count.seen, wrong)


def _below(count: _Count, wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns how likely fewer than 0 to n + 1 wrong labels are among the n seen, (C, n + 2)."""
    if (count.open + 1) * (count.seen + 1) <= _TABLE:
        return np.asarray(_table(count.open, count.seen)[1][wrong])
    return _summed(_hypergeometric(count.open, count.seen, wrong))


@lru_cache(maxsize=8)  # one bound asks for the same numbers many times
def _table(labels: int, seen: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    every = _hypergeometric(labels, seen, np.arange(labels + 1))
    return every, _summed(every)


def _summed(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.pad(np.cumsum(probabilities, axis=1), ((0, 0), (1, 0)))


def _hypergeometric(labels: int, chosen: int, wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    seen, total, logs = np.arange(chosen + 1), wrong[:, None], _log_factorials(labels)

    def choose(among: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.float64]:
        left = among - taken
        ways = logs[among] - logs[np.maximum(taken, 0)] - logs[np.maximum(left, 0)]
        return np.asarray(np.where((taken < 0) | (left < 0), -np.inf, ways))

    every = choose(np.asarray(labels), np.asarray(chosen))
    return np.asarray(np.exp(choose(total, seen) + choose(labels - total, chosen - seen) - every))


@lru_cache(maxsize=8)
def _log_factorials(largest: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])
