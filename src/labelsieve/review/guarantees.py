"""Exact bounds on wrong labels from an audit: a random sample of the flagged labels and one of the others.

The flagged labels and the others are two *sides*. A random sample of each side was reviewed, spread evenly over strata
of p_clean (`sampling.py`). In a stratum whose labels are all known, the wrong labels are counted exactly. The labels of
all other strata are *open*: a side has M of them, K of these are wrong, n were seen, and x of the seen ones are wrong.
Then x is hypergeometric, and every bound here inverts a test of it:

* one side: the bounds of Clopper and Pearson for a finite population. K is rejected if the probability of at most (or
  at least) x wrong labels among n is at most the error level;
* both sides, for a sum or a ratio: the test statistic is the estimate. The division of the wrong labels between the
  sides is a nuisance parameter, over which the probability is maximised (Wendell and Schmee 1996), within bounds that
  spend a twentieth of the error level (Berger and Boos 1994).

Sampling evenly over strata reduces the variance of x compared to a simple random sample, so the bounds are conservative
(Hoeffding 1956); the tests check this. `unsure` answers count as wrong in upper bounds and as right in lower ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.metrics import Interval

# Grid size over divisions of the wrong labels between the sides, and the share of the error that bounds their range.
_GRID, _ERROR_SHARE = 64, 1 / 20
_TOLERANCE = 1e-9
# Maximum number of entries in a cached table of probabilities, one row per number of wrong labels.
_MAX_TABLE_SIZE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Side:
    """The counts of labels on one side: flagged, or not flagged.

    Attributes:
        images: Number of labels.
        counted: Number of labels in strata whose labels are all known.
        counted_wrong: Number of wrong ones among these.
        seen: Number of sampled labels in the other strata.
        seen_wrong: Number of wrong ones among these.
        seen_unsure: Number of undecided ones among these.
        known_wrong: Number of labels of the side that are known to be wrong, in the sample or not.
        known_right: Number of labels of the side that are known to be right.
    """

    images: int
    counted: int = 0
    counted_wrong: int = 0
    seen: int = 0
    seen_wrong: int = 0
    seen_unsure: int = 0
    known_wrong: int = 0
    known_right: int = 0

    @property
    def open(self) -> int:
        """Returns the number of labels in strata that are not fully known."""
        return self.images - self.counted

    @property
    def is_sampled(self) -> bool:
        """Returns whether the side can be estimated: one of its labels was decided, or all are known."""
        return not self.open or self.seen > self.seen_unsure

    @property
    def estimate(self) -> float:
        """Returns the estimated number of wrong labels; NaN if there is no estimate."""
        if not self.is_sampled:
            return math.nan
        return self.counted_wrong + self.open * (self.seen_wrong / max(self.seen - self.seen_unsure, 1))

    def mirrored(self) -> Side:
        """Returns the side with right and wrong exchanged, which turns a lower bound into an upper bound."""
        return replace(
            self,
            counted_wrong=self.counted - self.counted_wrong,
            seen_wrong=self.seen - self.seen_wrong - self.seen_unsure,
            known_wrong=self.known_right,
            known_right=self.known_wrong,
        )


class _Count(NamedTuple):
    """A side for one test: `wrong` of `seen` among `open` labels, of which `low` to `high` can be wrong."""

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
        """Returns whether its number of wrong labels is still unknown."""
        return self.low < self.high


def _count_of(side: Side, *, unsure_is_wrong: bool) -> _Count:
    low = side.known_wrong - side.counted_wrong
    high = side.open - (side.known_right - (side.counted - side.counted_wrong))
    wrong = side.seen_wrong + (side.seen_unsure if unsure_is_wrong else 0)
    return _Count(side.counted_wrong, side.open, side.seen, wrong, low, high)


def wrong_on_side(side: Side, *, confidence: float) -> Interval | None:
    """Returns an interval for the number of wrong labels of one side; None if there is no estimate.

    Args:
        side: The side.
        confidence: Confidence level of the interval, between 0 and 1.

    Example:
        >>> wrong_on_side(Side(images=1000, seen=100, seen_wrong=10, known_wrong=10, known_right=90), confidence=0.95)
        Interval(value=100.0, low=52.0, high=172.0)
    """
    if not side.is_sampled:
        return None
    error = (1 - confidence) / 2
    high = _upper_of_side(_count_of(side, unsure_is_wrong=True), error)
    low = side.images - _upper_of_side(_count_of(side.mirrored(), unsure_is_wrong=True), error)
    return within(side.estimate, low, high)


def within(estimate: float, low: float, high: float) -> Interval:
    """Returns an interval with its estimate clipped to it.

    Args:
        estimate: The estimate, which may be outside: more labels may be known to be wrong than estimated.
        low: Lower end.
        high: Upper end, at least `low`.

    Example:
        >>> within(2.0, 5, 9)
        Interval(value=5.0, low=5.0, high=9.0)
    """
    return Interval(min(max(float(estimate), float(low)), float(high)), float(low), float(high))


def upper_bound(sides: tuple[Side, Side], *, confidence: float) -> int:
    """Returns an upper bound on the wrong labels of both sides together.

    Args:
        sides: The flagged labels and the others.
        confidence: Confidence level of the bound, between 0 and 1.

    Example:
        >>> others = Side(images=1000, seen=300, known_right=300)
        >>> upper_bound((Side(images=0), others), confidence=0.95)
        8
    """
    first, second = (_count_of(side, unsure_is_wrong=True) for side in sides)
    return _upper_of_sum(first, second, 1 - confidence)


def lower_bound(sides: tuple[Side, Side], *, confidence: float) -> int:
    """Returns a lower bound on the wrong labels of both sides together; see :func:`upper_bound`."""
    first, second = (side.mirrored() for side in sides)
    return first.images + second.images - upper_bound((first, second), confidence=confidence)


def missed_share(sides: tuple[Side, Side], *, confidence: float) -> Interval | None:
    """Returns an interval for the share of the wrong labels that is not flagged.

    Args:
        sides: The flagged labels and the others.
        confidence: Confidence level of the interval, between 0 and 1.

    Returns:
        None if one of the sides was not sampled, or no wrong label was found.
    """
    flagged, others = sides
    total = flagged.estimate + others.estimate
    if not total > 0:  # also if NaN
        return None
    error = (1 - confidence) / 2
    upper, lower = _count_of(others, unsure_is_wrong=True), _count_of(flagged, unsure_is_wrong=False)
    high = _first(lambda share: _p_value(lower, upper, (-share, 1 - share), 0.0, error) <= error)
    upper, lower = _count_of(flagged, unsure_is_wrong=True), _count_of(others, unsure_is_wrong=False)
    low = 1 - _first(lambda share: _p_value(lower, upper, (-share, 1 - share), 0.0, error) <= error)
    value = others.estimate / total
    return Interval(value, min(low, value), max(high, value))


def _upper_of_side(count: _Count, error: float) -> int:
    """Returns the largest number of wrong labels that is not rejected at the level `error`; see the module."""
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
    """Returns the last integer from `low` to `high` that is not ruled out, by bisection; at least `low`."""
    return low + bisect_left(range(low + 1, high + 1), True, key=is_ruled_out)


def _first(is_ruled_out: Callable[[float], bool]) -> float:
    """Returns the smallest share that is ruled out, by bisection; 1 if none is."""
    low, high = 0.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if is_ruled_out(middle) else (middle, high)
    return high


def _p_value(first: _Count, second: _Count, weights: tuple[float, float], minimum: float, error: float) -> float:
    """Returns the one-sided p-value of the estimate if the weighted sum of wrong labels is at least `minimum`.

    Args:
        first: One side; its number of wrong labels is the nuisance parameter.
        second: The other side, with a weight above 0.
        weights: Weights of both sides in the sum.
        minimum: The minimum of the sum under the hypothesis.
        error: The total error level; a twentieth of it bounds the nuisance parameter.
    """
    if weights[1] <= 0:
        return 1.0
    spent = error * _ERROR_SHARE if first.is_free and first.seen else 0.0
    low, high = _range(first, spent) if spent else (first.low, first.high)
    observed = weights[0] * first.estimate + weights[1] * second.estimate

    def probability(wrong: NDArray[np.int64]) -> NDArray[np.float64]:
        remaining = (minimum - weights[0] * (first.fixed + wrong)) / weights[1] - second.fixed
        second_wrong = np.maximum(np.ceil(remaining - _TOLERANCE), second.low).astype(np.int64)
        possible = second_wrong <= second.high
        result = np.zeros(len(wrong))
        if possible.any():
            result[possible] = _tail_probability(
                first, second, weights, observed, wrong[possible], second_wrong[possible]
            )
        return result

    return _maximum(probability, low, high) + spent


@lru_cache(maxsize=32)  # the same for all tests of one bound
def _range(count: _Count, error: float) -> tuple[int, int]:
    """Returns the two-sided bounds on the number of wrong labels, with a total error level of `error`."""
    upper = _upper_of_side(count._replace(fixed=0), error / 2)
    right = count._replace(
        fixed=0, wrong=count.seen - count.wrong, low=count.open - count.high, high=count.open - count.low
    )
    return count.open - _upper_of_side(right, error / 2), upper


def _maximum(function: Callable[[NDArray[np.int64]], NDArray[np.float64]], low: int, high: int) -> float:
    """Returns the maximum of a smooth function at the integers from `low` to `high`, by refining a grid."""
    best = 0.0
    while True:
        grid = np.unique(np.linspace(low, high, _GRID).round().astype(np.int64))
        values = function(grid)
        peak = int(values.argmax())
        best = max(best, float(values[peak]))
        if len(grid) > high - low:
            return best
        low, high = int(grid[max(peak - 1, 0)]), int(grid[min(peak + 1, len(grid) - 1)])


def _tail_probability(
    first: _Count,
    second: _Count,
    weights: tuple[float, float],
    observed: float,
    wrong: NDArray[np.int64],
    second_wrong: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Returns the probability of an estimate of at most `observed`, for C divisions of the wrong labels, (C,)."""
    seen = np.arange(first.seen + 1)
    remaining = observed - weights[0] * (first.fixed + first.weight * seen) - weights[1] * second.fixed
    step = weights[1] * second.weight
    # without a sample of the second side, its estimate is not random
    maximum = np.floor(remaining / step + _TOLERANCE) if step else np.where(remaining >= -_TOLERANCE, second.seen, -1)
    maximum = np.clip(maximum, -1, second.seen).astype(np.int64) + 1
    return np.asarray((_probabilities(first, wrong) * _below(second, second_wrong)[:, maximum]).sum(axis=1))


def _probabilities(count: _Count, wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the probabilities of 0 to n wrong labels among the n seen, for C totals of wrong labels, (C, n + 1)."""
    if (count.open + 1) * (count.seen + 1) <= _MAX_TABLE_SIZE:
        return np.asarray(_table(count.open, count.seen)[0][wrong])
    return _hypergeometric(count.open, count.seen, wrong)


def _below(count: _Count, wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the probabilities of fewer than 0 to n + 1 wrong labels among the n seen, (C, n + 2)."""
    if (count.open + 1) * (count.seen + 1) <= _MAX_TABLE_SIZE:
        return np.asarray(_table(count.open, count.seen)[1][wrong])
    return _summed(_hypergeometric(count.open, count.seen, wrong))


@lru_cache(maxsize=8)  # one bound uses the same numbers many times
def _table(labels: int, seen: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    probabilities = _hypergeometric(labels, seen, np.arange(labels + 1))
    return probabilities, _summed(probabilities)


def _summed(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.pad(np.cumsum(probabilities, axis=1), ((0, 0), (1, 0)))


def _hypergeometric(labels: int, chosen: int, wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    seen, total, logs = np.arange(chosen + 1), wrong[:, None], _log_factorials(labels)

    def choose(among: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.float64]:
        not_taken = among - taken
        log_ways = logs[among] - logs[np.maximum(taken, 0)] - logs[np.maximum(not_taken, 0)]
        return np.asarray(np.where((taken < 0) | (not_taken < 0), -np.inf, log_ways))

    log_total = choose(np.asarray(labels), np.asarray(chosen))
    return np.asarray(np.exp(choose(total, seen) + choose(labels - total, chosen - seen) - log_total))


@lru_cache(maxsize=8)
def _log_factorials(largest: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])
