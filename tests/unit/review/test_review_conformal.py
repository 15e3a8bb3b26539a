"""Flags of which at most a wanted share is false: p-values, and the share of false flags over simulated audits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from labelsieve.review.conformal import FlagThreshold, calibration_rows, flag_threshold, p_values_of
from labelsieve.review.sampling import design
from small_verdicts import made

IMAGES, LOOKS = 2000, 300
# The means over them are at least 3.8 standard errors from what they are compared with: chance alone passes that in one
# of 10,000 cases.
DATA_SETS = 60
NONE = np.zeros(IMAGES, dtype=np.bool_)


def simulated(seed: int, *, oversure: bool) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns p_clean and which labels are wrong: one in five; `oversure` draws p_clean to 0 and 1."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(IMAGES) < 0.2
    score = generator.normal(np.where(wrong, -1.5, 1.5)) * (3 if oversure else 1) + 0.7
    return 1 / (1 + np.exp(-2 * score)), wrong


def flagged_by(
    seed: int, *, false_flags: float, oversure: bool = False, thinned: bool = True
) -> tuple[FlagThreshold, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns the threshold, which labels it flags, which of them are wrong, and which were not audited."""
    quality, wrong = simulated(seed, oversure=oversure)
    plan = design(made(quality, quality <= 0.5), seed=seed)
    sample = plan.order[:LOOKS]
    rows = calibration_rows(plan, sample) if thinned else sample
    found, flagged = flagged_from(quality, wrong, rows, false_flags=false_flags)
    rest = np.ones(IMAGES, dtype=np.bool_)
    rest[rows] = False
    return found, flagged, wrong, rest


def flagged_from(
    quality: NDArray[np.float64], wrong: NDArray[np.bool_], calibration: NDArray[np.int64], *, false_flags: float
) -> tuple[FlagThreshold, NDArray[np.bool_]]:
    """Returns the threshold that some labels give that were looked at, and which labels it flags."""
    as_floats = quality.astype(np.float32)
    found = flag_threshold(
        as_floats,
        readable=np.ones(IMAGES, dtype=np.bool_),
        calibration=calibration,
        right=~wrong,
        undecided=NONE,
        expected_wrong=400,
        false_flags=false_flags,
    )
    return found, as_floats <= np.float32(-1 if found.threshold is None else found.threshold)


@pytest.mark.parametrize("oversure", [False, True])
@pytest.mark.parametrize("false_flags", [0.1, 0.3])
def test_the_share_of_false_flags_is_at_most_what_was_asked_for(false_flags: float, oversure: bool) -> None:
    shares, found_share = [], []
    for seed in range(DATA_SETS):
        found, flagged, wrong, rest = flagged_by(seed, false_flags=false_flags, oversure=oversure)
        assert found.flagged == flagged.sum()
        shares.append((flagged & ~wrong & rest).sum() / max((flagged & rest).sum(), 1))
        found_share.append((flagged & wrong).sum() / wrong.sum())
    assert np.mean(shares) <= false_flags
    assert np.mean(shares) > 0.4 * false_flags, "it is not so careful that it proves nothing"
    assert np.mean(found_share) > 0.4


def test_the_simulation_tells_a_sample_that_is_no_random_one() -> None:
    """Right labels that were looked at because they are sure say too little of how low p_clean gets."""
    shares = []
    for seed in range(DATA_SETS):
        quality, wrong = simulated(seed, oversure=False)
        rows = np.flatnonzero(quality > 0.5)[:LOOKS]
        _, flagged = flagged_from(quality, wrong, rows, false_flags=0.1)
        shares.append((flagged & ~wrong).sum() / max(flagged.sum(), 1))
    assert np.mean(shares) > 0.12


def test_p_values_count_the_right_labels_that_look_as_bad() -> None:
    right = np.array([0.2, 0.6, 0.6, 0.9], dtype=np.float32)
    assert p_values_of(np.array([0.1, 0.2, 0.6, 1.0], dtype=np.float32), right).tolist() == [0.2, 0.4, 0.8, 1.0]


def test_undecided_labels_count_so_that_a_p_value_holds_whichever_of_them_are_right() -> None:
    quality = np.linspace(0, 1, 21, dtype=np.float32)
    right, undecided = np.array([0.3, 0.5, 0.8], dtype=np.float32), np.array([0.1, 0.45, 0.95], dtype=np.float32)
    found = p_values_of(quality, right, undecided)
    assert (np.diff(found) >= 0).all(), "lower scores are flagged first"
    for chosen in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        assert (
            p_values_of(quality, np.sort(np.append(right, undecided[np.array(chosen, dtype=np.int64)]))) <= found
        ).all()


def test_each_label_is_as_likely_as_any_other_to_be_in_the_calibration() -> None:
    quality, _ = simulated(0, oversure=False)
    plans = [design(made(quality, quality <= 0.5), seed=seed) for seed in range(20)]
    for plan in plans:
        rows = calibration_rows(plan, plan.order[:LOOKS])
        is_flagged = quality[rows] <= 0.5
        assert abs(is_flagged.mean() - (quality <= 0.5).mean()) < 0.01
        assert set(rows.tolist()) < set(plan.order[:LOOKS].tolist()) and len(rows) > LOOKS // 2


def test_an_audit_that_is_too_small_says_what_it_takes() -> None:
    quality, wrong = simulated(0, oversure=False)
    rows = np.flatnonzero(~wrong)[:4]
    found = flag_threshold(
        quality.astype(np.float32),
        readable=np.ones(IMAGES, dtype=np.bool_),
        calibration=rows,
        right=~wrong,
        undecided=NONE,
        expected_wrong=400,
        false_flags=0.01,
    )
    assert (found.threshold, found.flagged, found.right_seen) == (None, 0, 4)
    assert found.right_needed == 498  # (2000 - 4) / (0.01 x 400) is 499, one of which is the label itself
    nothing = flag_threshold(
        quality.astype(np.float32),
        readable=np.ones(IMAGES, dtype=np.bool_),
        calibration=rows[:0],
        right=~wrong,
        undecided=NONE,
        expected_wrong=400,
        false_flags=0.5,
    )
    assert nothing.threshold is None and nothing.right_seen == 0
