"""How close are the bounds of an audit, and how often do they hold? On simulated verdicts.

`bounds`: data like the clothes of docs/results.md, 3,068 labels with 766 wrong ones, 897 of all flagged. p_clean is the
posterior of two normal scores, so far apart that some 79 % of the 200 most suspicious labels are wrong. These 200 are
reviewed and corrected, then images of the audit are looked at.

`looks`: an audit of 3,000 labels that ends as soon as its bound is at most 1 % (30 labels) though more are wrong. How
often does that happen, with a look at the bound after each image?

Example::

    OMP_NUM_THREADS=1 python benchmarks/audit_bounds.py bounds
    OMP_NUM_THREADS=1 python benchmarks/audit_bounds.py looks
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import beta, hypergeom

from labelsieve.review.audit import sides_of
from labelsieve.review.guarantees import lower_bound, missed_share, upper_bound, wrong_on_side
from labelsieve.review.known_labels import Known
from labelsieve.review.sampling import design
from labelsieve.verdicts import _SCHEMA, Verdicts, ranks

IMAGES, WRONG, FLAGGED, REVIEWED, APART = 3068, 766, 897, 200, 0.64
DATA_SETS, AUDITED = 200, (100, 200, 300)


def simulated(seed: int) -> tuple[Verdicts, NDArray[np.bool_]]:
    """Returns verdicts and which labels are wrong."""
    generator = np.random.default_rng(seed)
    wrong = generator.permutation(np.arange(IMAGES) < WRONG)
    score = generator.normal(np.where(wrong, -APART, APART))
    quality = (1 / (1 + WRONG / (IMAGES - WRONG) * np.exp(-2 * APART * score))).astype(np.float32)
    flagged = quality <= np.sort(quality)[FLAGGED - 1]
    text = pa.array([f"{row:04}" for row in range(IMAGES)])
    columns = [text, text, text, pa.array(quality), pa.array(flagged), pa.array(ranks(quality, flagged))]
    table = pa.table([*columns, pa.array(quality), pa.nulls(IMAGES, pa.string())], schema=_SCHEMA)
    return Verdicts(table=table, class_names=(), record={}), wrong


def bounds() -> None:
    rows: dict[int, list[list[float]]] = {audited: [] for audited in AUDITED}
    for seed in range(DATA_SETS):
        verdicts, wrong = simulated(seed)
        plan, known = design(verdicts, seed=seed), np.zeros(IMAGES, dtype=np.bool_)
        known[np.argsort(verdicts.label_quality, kind="stable")[:REVIEWED]] = True
        on_flags, others = (int((wrong & here).sum()) for here in (verdicts.is_issue, ~verdicts.is_issue))
        generator = np.random.default_rng(seed)
        for before, audited in zip((0, *AUDITED), AUDITED, strict=False):
            known[plan.order[~known[plan.order]][: audited - before]] = True
            now = Known(is_decided=known, is_wrong=known & wrong, is_audited=known, is_closed=known)
            sides, found = sides_of(plan, now, plan.prefix(known)), int((known & wrong).sum())
            high, low = upper_bound(sides, confidence=0.975), lower_bound(sides, confidence=0.975)
            bound, flags = upper_bound(sides, confidence=0.95), wrong_on_side(sides[0], confidence=0.95)
            missed, share = missed_share(sides, confidence=0.95), others / WRONG
            plain = int(wrong[generator.choice(IMAGES, audited, replace=False)].sum())
            of_plain = [beta.ppf(0.025, plain, audited - plain + 1), beta.ppf(0.975, plain + 1, audited - plain)]
            assert flags is not None and missed is not None
            rows[audited].append(
                [
                    WRONG - found,
                    sum(side.estimate for side in sides) - found,
                    low - found,
                    high - found,
                    bound - found,
                    low <= WRONG <= high,
                    bound >= WRONG,
                    flags.low <= on_flags <= flags.high,
                    missed.low <= share <= missed.high,
                    (of_plain[1] - of_plain[0]) * IMAGES / 2,
                ]
            )
    print("audited | left | estimate | from | to | at most | held: both ends, bound, flags, missed | plain sample: +-")
    for audited, each in rows.items():
        print(audited, *(f"{value:.3f}" for value in np.mean(each, axis=0)), sep=" | ")


def looks(images: int = 3000, wanted: int = 30, data_sets: int = 4000, most: int = 2000) -> None:
    generator, seen = np.random.default_rng(0), np.arange(1, most + 1)
    print("confidence | truly wrong | bound of 1 % reached: at some look | at the last")
    for confidence in (0.95, 0.99):
        allowed = hypergeom.ppf(1 - confidence, images, wanted + 1, seen)
        allowed -= hypergeom.cdf(allowed, images, wanted + 1, seen) > 1 - confidence
        for wrong in (31, 35, 40, 60):
            places = np.argpartition(generator.random((data_sets, images)), wrong, axis=1)[:, :wrong]
            found = np.cumsum(np.apply_along_axis(np.bincount, 1, places, minlength=images), axis=1)[:, :most]
            reached = found <= allowed
            print(confidence, wrong, reached.any(axis=1).mean(), reached[:, -1].mean(), sep=" | ")


if __name__ == "__main__":
    {"bounds": bounds, "looks": looks}[sys.argv[1]]()
