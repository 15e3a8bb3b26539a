"""The bounds of an audit: exact where all is known, and right as often as they say on simulated data."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, hypergeom

from labelsieve.metrics import Interval
from labelsieve.review.audit import sides_of
from labelsieve.review.guarantees import (
    Side,
    lower_bound,
    missed_share,
    upper_bound,
    wrong_on_side,
)
from labelsieve.review.known_labels import Known
from labelsieve.review.sampling import AuditDesign, design
from small_verdicts import made

Draw = Callable[[np.random.Generator, NDArray[np.float64]], NDArray[np.bool_]]
IMAGES, CONFIDENCE = 160, 0.9
QUICK, MANY = 60, 200
# In which share of them a bound has to hold: one that holds as often as it says does so in fewer than 44 of 60 with a
# probability of 0.00006.
LEAST = float(binom.ppf(1e-4, QUICK, CONFIDENCE)) / QUICK
SIMULATED = [pytest.param(QUICK, LEAST, id="quick"), pytest.param(MANY, 0.88, marks=pytest.mark.slow, id="many")]
NONE = Side(images=0)


def known_of(known: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> Known:
    return Known(is_decided=known, is_wrong=known & wrong, is_audited=known, is_closed=known)


def seen_sides(plan: AuditDesign, wrong: NDArray[np.bool_], looks: int) -> tuple[Side, Side]:
    known = np.zeros(len(wrong), dtype=np.bool_)
    known[plan.order[:looks]] = True
    return sides_of(plan, known_of(known, wrong), plan.order[:looks])


# --------------------------------------------------------------------------------------------------------- exactness


def test_all_audited_gives_the_exact_numbers() -> None:
    quality = np.linspace(0, 1, 100)
    wrong = np.random.default_rng(0).random(100) > quality
    sides = seen_sides(design(made(quality, quality <= 0.5)), wrong, 100)
    flagged, others = int(wrong[quality <= 0.5].sum()), int(wrong[quality > 0.5].sum())
    assert [side.known_wrong for side in sides] == [flagged, others] and flagged > others > 0
    assert wrong_on_side(sides[0], confidence=0.99) == (flagged, flagged, flagged)
    assert upper_bound(sides, confidence=0.99) == lower_bound(sides, confidence=0.99) == flagged + others
    found = missed_share(sides, confidence=0.99)
    assert found is not None and np.allclose(found, others / (flagged + others), atol=1e-4)


def test_the_bounds_of_one_side_are_those_of_clopper_and_pearson() -> None:
    """In a huge population the sample is binomial, for which scipy has them."""
    huge = Side(images=10_000_000, seen=120, seen_wrong=9, known_wrong=9, known_right=111)
    expected = binomtest(9, 120).proportion_ci(0.95, method="exact")
    found = wrong_on_side(huge, confidence=0.95)
    assert found is not None
    assert np.allclose(np.array(found) / 1e7, [9 / 120, expected.low, expected.high], rtol=1e-4)
    one_sided = binomtest(9, 120, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound((NONE, huge), confidence=0.95) / 1e7 == pytest.approx(one_sided, rel=1e-4)


@pytest.mark.parametrize("wrong", [0, 1, 5, 12, 20])
def test_in_a_small_population_they_invert_the_hypergeometric_test(wrong: int) -> None:
    side = Side(images=50, seen=20, seen_wrong=wrong, known_wrong=wrong, known_right=20 - wrong)
    found = wrong_on_side(side, confidence=0.9)
    possible = range(wrong, 50 - (20 - wrong) + 1)
    kept = [k for k in possible if hypergeom.cdf(wrong, 50, k, 20) > 0.05 and hypergeom.sf(wrong - 1, 50, k, 20) > 0.05]
    assert found is not None and (found.low, found.high) == (min(kept), max(kept))


def test_a_whole_stratum_is_counted_and_not_estimated() -> None:
    open_part = Side(images=100, seen=30, seen_wrong=3, known_wrong=3, known_right=27)
    with_whole = Side(images=160, counted=60, counted_wrong=50, seen=30, seen_wrong=3, known_wrong=53, known_right=37)
    alone, both = (wrong_on_side(side, confidence=0.9) for side in (open_part, with_whole))
    assert alone is not None and both is not None
    assert np.allclose(np.array(both) - 50, np.array(alone))


def test_what_is_known_beyond_the_sample_limits_the_bounds() -> None:
    side = Side(images=100, seen=5, seen_wrong=0, known_wrong=4, known_right=90)
    assert upper_bound((NONE, side), confidence=0.95) == 10
    assert lower_bound((NONE, side), confidence=0.95) == 4


def test_an_estimate_is_within_its_bounds_though_a_review_found_more_than_the_sample() -> None:
    side = Side(images=100, seen=10, seen_wrong=0, known_wrong=30, known_right=10)
    assert wrong_on_side(side, confidence=0.95) == (30, 30, 30)


def test_undecided_answers_are_the_worst_case_both_ways() -> None:
    flagged = Side(images=100, seen=30, seen_wrong=20, known_wrong=20, known_right=10)
    asked = {"images": 300, "seen": 50}
    undecided = Side(**asked, seen_wrong=3, seen_unsure=4, known_wrong=3, known_right=43)
    wrong = Side(**asked, seen_wrong=7, known_wrong=7, known_right=43)
    right = Side(**asked, seen_wrong=3, known_wrong=3, known_right=47)
    assert upper_bound((flagged, undecided), confidence=0.9) == upper_bound((flagged, wrong), confidence=0.9)
    assert lower_bound((flagged, undecided), confidence=0.9) == lower_bound((flagged, right), confidence=0.9)
    shares = [missed_share((flagged, side), confidence=0.9) for side in (undecided, wrong, right)]
    assert all(each is not None for each in shares)
    middle, many, few = (each or Interval(0, 0, 0) for each in shares)
    assert middle.high == pytest.approx(many.high) and middle.low == pytest.approx(few.low)


@pytest.mark.parametrize(
    "side", [Side(images=10), Side(images=10, seen=2, seen_unsure=2), Side(images=10, known_wrong=3, known_right=2)]
)
def test_nothing_is_said_of_a_side_that_was_not_sampled(side: Side) -> None:
    assert wrong_on_side(side, confidence=0.9) is None
    assert missed_share((side, NONE), confidence=0.9) is None
    assert upper_bound((side, NONE), confidence=0.9) == 10 - side.known_right


def test_more_confidence_and_fewer_looks_make_wider_bounds() -> None:
    def bound(seen: int, confidence: float) -> int:
        side = Side(images=500, seen=seen, seen_wrong=seen // 10, known_wrong=seen // 10, known_right=seen * 9 // 10)
        return upper_bound((side, side), confidence=confidence)

    assert bound(40, 0.95) > bound(100, 0.95) > bound(100, 0.8) > 100


def test_two_sides_together_are_bounded_more_closely_than_each_by_itself() -> None:
    side = Side(images=500, seen=100, seen_wrong=20, known_wrong=20, known_right=80)
    apart = wrong_on_side(side, confidence=0.95)
    assert apart is not None
    together = upper_bound((side, side), confidence=0.975)
    assert 200 < together < 2 * apart.high


# ---------------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize(("sizes", "looks"), [((12, 15), (5, 6)), ((4, 30), (3, 8)), ((9, 9), (9, 2))])
def test_every_bound_holds_as_often_as_it_says_whatever_is_true(sizes: tuple[int, int], looks: tuple[int, int]) -> None:
    """Exactly, for plain random samples: all that can be seen, weighed by its probability, for all that can be true."""
    outcomes = {
        (one, two): bounds(
            (
                Side(images=sizes[0], seen=looks[0], seen_wrong=one, known_wrong=one, known_right=looks[0] - one),
                Side(images=sizes[1], seen=looks[1], seen_wrong=two, known_wrong=two, known_right=looks[1] - two),
            )
        )
        for one, two in itertools.product(range(looks[0] + 1), range(looks[1] + 1))
    }
    seen = [np.arange(count + 1) for count in looks]
    for first, second in itertools.product(range(sizes[0] + 1), range(sizes[1] + 1)):
        of_first, of_second = (
            hypergeom.pmf(each, size, wrong, count)
            for each, size, wrong, count in zip(seen, sizes, (first, second), looks, strict=True)
        )
        held = np.zeros(5)
        for (one, two), found in outcomes.items():
            held += of_first[one] * of_second[two] * np.array(_hold(found, first, second))
        assert (held >= CONFIDENCE - 1e-9).all(), (first, second, held)


def test_more_wrong_labels_seen_never_make_a_bound_smaller() -> None:
    def most(one: int, two: int) -> int:
        first = Side(images=40, seen=8, seen_wrong=one, known_wrong=one, known_right=8 - one)
        second = Side(images=90, seen=12, seen_wrong=two, known_wrong=two, known_right=12 - two)
        return upper_bound((first, second), confidence=0.95)

    found = np.array([[most(one, two) for two in range(13)] for one in range(9)])
    assert (np.diff(found, axis=0) >= 0).all() and (np.diff(found, axis=1) >= 0).all()
    assert found[0, 0] > 0 and found[-1, -1] == 130


@cache
def bounds(sides: tuple[Side, Side]) -> tuple[int, int, Interval | None, Interval | None, Interval | None]:
    confidence = CONFIDENCE
    return (
        upper_bound(sides, confidence=confidence),
        lower_bound(sides, confidence=confidence),
        wrong_on_side(sides[0], confidence=confidence),
        wrong_on_side(sides[1], confidence=confidence),
        missed_share(sides, confidence=confidence),
    )


def _hold(
    found: tuple[int, int, Interval | None, Interval | None, Interval | None], on_flags: int, others: int
) -> list[bool]:
    """Returns whether each bound holds; what says nothing cannot be wrong."""
    high, low, of_flags, of_others, missed = found
    pairs = ((of_flags, on_flags), (of_others, others), (missed, others / max(on_flags + others, 1)))
    return [
        high >= on_flags + others,
        low <= on_flags + others,
        *(each is None or each.low - 1e-4 <= truth <= each.high + 1e-4 for each, truth in pairs),
    ]


def holds(sides: tuple[Side, Side], wrong: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> list[bool]:
    return _hold(bounds(sides), int((wrong & flagged).sum()), int((wrong & ~flagged).sum()))


def as_scored(generator: np.random.Generator, quality: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(generator.random(len(quality)) > quality)


def exactly(count: int) -> Draw:
    return lambda generator, quality: generator.permutation(np.arange(len(quality)) < count)


def within(start: int, end: int) -> Draw:
    return lambda generator, quality: (np.arange(len(quality)) >= start) & (np.arange(len(quality)) < end)


CASES: dict[str, tuple[Draw, int]] = {
    "as p_clean says": (as_scored, 60),
    "p_clean the wrong way round": (lambda generator, quality: generator.random(len(quality)) < quality, 40),
    "none wrong": (exactly(0), 40),
    "two wrong": (exactly(2), 60),
    "half wrong, few looks": (exactly(IMAGES // 2), 24),
    "all wrong but one": (exactly(IMAGES - 1), 40),
    "only the most suspicious wrong": (within(0, 12), 40),
    "only the surest wrong": (within(IMAGES - 20, IMAGES), 40),
}


@pytest.mark.parametrize(("data_sets", "least"), SIMULATED)
@pytest.mark.parametrize("case", CASES)
def test_the_bounds_hold_as_often_as_they_say(case: str, data_sets: int, least: float) -> None:
    """Over skewed strata, small counts and none wrong."""
    draw, looks = CASES[case]
    quality = np.sort(np.random.default_rng(1).beta(2, 1, IMAGES))
    verdicts, held = made(quality, quality <= 0.5), []
    for seed in range(data_sets):
        plan, generator = design(verdicts, seed=seed), np.random.default_rng(seed)
        wrong = draw(generator, quality)
        held.append(holds(seen_sides(plan, wrong, looks), wrong, quality <= 0.5))
    assert (np.mean(held, axis=0) >= least).all(), dict(enumerate(np.mean(held, axis=0)))


@pytest.mark.parametrize(("data_sets", "least"), SIMULATED)
def test_the_bounds_hold_for_an_audit_within_a_review_of_the_most_suspicious(data_sets: int, least: float) -> None:
    """One card in five is drawn for the audit, and what the review answered before its turn takes its place there."""
    quality = np.sort(np.random.default_rng(1).beta(2, 1, IMAGES))
    verdicts, held = made(quality, quality <= 0.5), []
    for seed in range(data_sets):
        plan, known = design(verdicts, seed=seed), np.zeros(IMAGES, dtype=np.bool_)
        wrong = as_scored(np.random.default_rng(seed), quality)
        for card in range(80):
            next_row = plan.order[~known[plan.order]][0] if card % 5 == 4 else np.flatnonzero(~known)[0]
            known[next_row] = True
        sides = sides_of(plan, known_of(known, wrong), plan.prefix(known))
        assert sides[0].counted, "the most suspicious stratum is known as a whole"
        held.append(holds(sides, wrong, quality <= 0.5))
    assert (np.mean(held, axis=0) >= least).all(), dict(enumerate(np.mean(held, axis=0)))


def test_the_simulation_tells_bounds_that_do_not_hold() -> None:
    """The estimate itself, taken for a bound, fails about every other time, and so do bounds on the shown images."""
    quality = np.sort(np.random.default_rng(1).beta(2, 1, IMAGES))
    verdicts, above = made(quality, quality <= 0.5), []
    for seed in range(MANY):
        wrong = as_scored(np.random.default_rng(seed), quality)
        sides = seen_sides(design(verdicts, seed=seed), wrong, 60)
        above.append(sum(side.estimate for side in sides) >= wrong.sum())
    assert 0.3 < np.mean(above) < 0.7 < LEAST
