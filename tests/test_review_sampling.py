"""The audit sample: strata, shares, and an order of which every prefix is a stratified random sample."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from labelsieve.errors import SettingsError
from labelsieve.review.sampling import design, shares, strata
from labelsieve.verdicts import _SCHEMA, Verdicts, ranks


def made(quality: NDArray[np.float64], flagged: NDArray[np.bool_]) -> Verdicts:
    """Returns verdicts with the qualities given, NaN where an image could not be read."""
    count, unreadable = len(quality), np.isnan(quality)
    as_floats = quality.astype(np.float32)
    columns = [
        pa.array([f"{row:05}" for row in range(count)]),
        pa.array(["a"] * count),
        pa.array(["b"] * count, mask=unreadable),
        pa.array(as_floats, mask=unreadable),
        pa.array(flagged, mask=unreadable),
        pa.array(ranks(as_floats, flagged & ~unreadable), mask=unreadable),
        pa.array(as_floats, mask=unreadable),
        pa.array([("broken" if each else None) for each in unreadable], pa.string()),
    ]
    return Verdicts(table=pa.table(columns, schema=_SCHEMA), class_names=("a", "b"), record={})


def skewed(count: int = 1000, *, unreadable: int = 0) -> Verdicts:
    """Returns verdicts of which about one in ten is flagged."""
    quality = np.random.default_rng(3).beta(4, 1, size=count)
    quality[:unreadable] = np.nan
    return made(quality, quality <= 0.5)


def test_strata_part_the_readable_images_by_flag_and_p_clean() -> None:
    verdicts = skewed(unreadable=7)
    ids, sizes = strata(verdicts)
    assert (ids == -1).tolist() == (~verdicts.is_readable).tolist()
    assert len(sizes) == 6 and sizes.sum() == 993
    assert np.bincount(ids[ids >= 0]).tolist() == sizes.tolist()
    ends = [(verdicts.label_quality[ids == each].min(), verdicts.label_quality[ids == each].max()) for each in range(6)]
    assert all(one[1] <= two[0] for one, two in pairwise(ends))
    assert verdicts.is_issue[(ids >= 0) & (ids < 3)].all() and not verdicts.is_issue[ids >= 3].any()


@pytest.mark.parametrize(
    ("count", "flagged", "expected"),
    [(0, 0, []), (1, 0, [1]), (1, 1, [1]), (30, 0, [30]), (45, 5, [5]), (300, 300, None)],
)
def test_small_and_one_sided_data_have_fewer_strata(count: int, flagged: int, expected: list[int] | None) -> None:
    verdicts = made(np.linspace(0.1, 0.9, count), np.arange(count) < flagged)
    plan = design(verdicts)
    assert plan.sizes.sum() == count and (plan.sizes > 0).all()
    assert sorted(plan.order.tolist()) == list(range(count))
    if expected is not None:
        assert plan.sizes[: len(expected)].tolist() == expected
    assert int(plan.sizes[plan.flagged].sum()) == flagged


def test_equal_qualities_of_zero_and_one_make_strata_that_hold_images() -> None:
    plan = design(made(np.repeat([0.0, 1.0], 100), np.repeat([True, False], 100)))
    assert (plan.sizes > 0).all() and plan.sizes.sum() == 200


def test_the_order_depends_on_the_seed_alone() -> None:
    verdicts = skewed(unreadable=7)
    order = design(verdicts, seed=4).order
    assert order.tolist() == design(verdicts, seed=4).order.tolist() != design(verdicts, seed=5).order.tolist()
    assert sorted(order.tolist()) == list(range(7, 1000))
    with pytest.raises(SettingsError, match="seed"):
        design(verdicts, seed=-1)


def test_every_prefix_has_the_shares_of_the_design() -> None:
    plan, doubt = design(skewed()), _doubt_of(skewed())
    expected = shares(plan.sizes, flagged=plan.flagged, doubt=np.bincount(plan.stratum, doubt).astype(np.float64))
    assert expected[plan.flagged].sum() > 0.35, "flags are looked at far more than their tenth"
    for end in range(10, 120):
        counts = np.bincount(plan.stratum[plan.order[:end]], minlength=6)
        assert np.abs(counts - expected * end).max() <= 1.5


def _doubt_of(verdicts: Verdicts) -> NDArray[np.float64]:
    clean = np.clip(verdicts.label_quality.astype(np.float64), 0.02, 0.98)
    return np.asarray(np.sqrt(clean * (1 - clean)))


def test_a_prefix_is_a_simple_random_sample_of_each_stratum() -> None:
    """Every image of a stratum is as likely as every other, first or second, whatever its p_clean."""
    verdicts = skewed(300)
    plans = [design(verdicts, seed=seed) for seed in range(2000)]
    first = [np.bincount(plan.order[:60], minlength=300) for plan in plans]
    drawn, plan = np.sum(first, axis=0), plans[0]
    for index in range(len(plan.sizes)):
        rows = plan.stratum == index
        expected = drawn[rows].mean()
        share = expected / 2000
        limit = 5 * np.sqrt(2000 * share * (1 - share)) + 1e-9
        assert np.abs(drawn[rows] - expected).max() <= limit


def test_draw_leaves_out_what_is_known_and_prefix_ends_where_something_is_not() -> None:
    plan = design(skewed())
    known = np.zeros(1000, dtype=np.bool_)
    known[plan.order[[0, 1, 3, 4]]] = True
    assert plan.draw(known=known, count=2).tolist() == plan.order[[2, 5]].tolist()
    assert plan.prefix(known).tolist() == plan.order[:2].tolist()
    known[plan.order[2]] = True
    assert plan.prefix(known).tolist() == plan.order[:5].tolist()
    assert plan.prefix(np.ones(1000, dtype=np.bool_)).tolist() == plan.draw().tolist() == plan.order.tolist()
    assert plan.draw(count=0).tolist() == []
