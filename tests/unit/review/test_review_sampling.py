"""The audit sample: strata, shares, and an order of which every prefix is a stratified random sample."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from labelsieve.core.errors import SettingsError
from labelsieve.review.sampling import design, flagged_share, strata
from labelsieve.verdicts import Verdicts
from small_verdicts import made


def skewed(count: int = 1000, *, unreadable: int = 0) -> Verdicts:
    """Returns verdicts of which about one in eight is flagged."""
    quality = np.random.default_rng(3).beta(3, 1, size=count)
    quality[:unreadable] = np.nan
    return made(quality, quality <= 0.5)


def test_strata_part_the_readable_images_by_flag_and_p_clean() -> None:
    verdicts = skewed(unreadable=7)
    ids, sizes = strata(verdicts)
    assert (ids == -1).tolist() == (~verdicts.is_readable).tolist()
    assert len(sizes) == 20 and sizes.sum() == 993
    assert np.bincount(ids[ids >= 0]).tolist() == sizes.tolist()
    ends = [
        (verdicts.label_quality[ids == each].min(), verdicts.label_quality[ids == each].max()) for each in range(20)
    ]
    assert all(one[1] <= two[0] for one, two in pairwise(ends))
    assert verdicts.is_issue[(ids >= 0) & (ids < 10)].all() and not verdicts.is_issue[ids >= 10].any()


@pytest.mark.parametrize(
    ("count", "flagged", "expected"),
    [(0, 0, []), (1, 0, [1]), (1, 1, [1]), (19, 0, [19]), (45, 5, [5, 10]), (300, 300, [30] * 10)],
)
def test_small_and_one_sided_data_have_fewer_strata(count: int, flagged: int, expected: list[int]) -> None:
    verdicts = made(np.linspace(0.1, 0.9, count), np.arange(count) < flagged)
    plan = design(verdicts)
    assert plan.sizes.sum() == count and (plan.sizes > 0).all()
    assert sorted(plan.order.tolist()) == list(range(count))
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
    plan, clean = design(skewed()), np.clip(skewed().label_quality.astype(np.float64), 0.02, 0.98)
    of_flags = flagged_share(np.sqrt(clean * (1 - clean)), flagged=skewed().is_issue)
    assert 0.35 < of_flags < 0.6, "flags are looked at far more than their eighth"
    side = np.where(plan.flagged, of_flags, 1 - of_flags)
    within = plan.sizes / np.where(plan.flagged, plan.sizes[plan.flagged].sum(), plan.sizes[~plan.flagged].sum())
    for end in range(10, 100):
        counts = np.bincount(plan.stratum[plan.order[:end]], minlength=20)
        assert np.abs(counts - end * side * within).max() <= 2


@pytest.mark.slow
def test_each_label_of_a_side_is_as_likely_as_any_other_to_be_in_a_prefix() -> None:
    verdicts = skewed(300)
    plans = [design(verdicts, seed=seed) for seed in range(2000)]
    drawn = np.sum([np.bincount(plan.order[:60], minlength=300) for plan in plans], axis=0)
    flagged = verdicts.is_issue
    for rows in (flagged, ~flagged):
        share = drawn[rows].mean() / 2000
        assert np.abs(drawn[rows] / 2000 - share).max() <= 5 * np.sqrt(share * (1 - share) / 2000)


def test_the_prefix_ends_where_something_is_not_known() -> None:
    plan = design(skewed())
    known = np.zeros(1000, dtype=np.bool_)
    known[plan.order[[0, 1, 3, 4]]] = True
    assert plan.prefix(known).tolist() == plan.order[:2].tolist()
    known[plan.order[2]] = True
    assert plan.prefix(known).tolist() == plan.order[:5].tolist()
    assert plan.prefix(np.ones(1000, dtype=np.bool_)).tolist() == plan.order.tolist()
