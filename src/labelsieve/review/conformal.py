"""Where to flag so that at most a wanted share of the flags is wrong: conformal p-values with Benjamini-Hochberg.

Each label is tested against the hypothesis that it is right. The labels that an audit found right say how low p_clean
gets on right labels: with n of them, of which k have a p_clean as low as that of a label or lower, its p-value is
(1 + k) / (n + 1) (Vovk et al. 2005; Bates et al. 2023). The rule of Benjamini and Hochberg (1995) then flags as many
as it can while the share of right labels among the flagged is at most q on average.

The argument is that right labels which were seen and right labels which were not are exchangeable. The audit looks at
flagged labels more often than at others, so of the side that it looked at more often only the first part counts, of
the same share as on the other side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelsieve.flagging import FlagRule
from labelsieve.review.sampling import AuditDesign


@dataclass(frozen=True, kw_only=True)
class FlagThreshold:
    """Where to flag for a wanted share of false flags.

    Attributes:
        false_flags: The share q of flags whose label is right, on average at most.
        threshold: The largest p_clean that is flagged; None where nothing can be flagged at this q.
        flagged: How many labels have a p_clean of at most the threshold.
        right_seen: How many right labels of the audit it rests on, without those left undecided.
        right_needed: How many it takes to flag as many labels as are expected to be wrong.
        tested: How many labels are not in the audit, or were left out of its calibration.
    """

    false_flags: float
    threshold: float | None
    flagged: int
    right_seen: int
    right_needed: int
    tested: int

    @property
    def rule(self) -> FlagRule:
        """The rule that flags there."""
        return FlagRule(threshold=self.threshold, false_flags=self.false_flags)


def calibration_rows(design: AuditDesign, sample: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns those rows of an audit in which each label is as likely to be as any other, (n,).

    Args:
        design: Of the audit.
        sample: The rows that were seen, in the order of the design.
    """
    of_side = design.flagged[design.stratum[sample]]
    sides = [(of_side == flagged, int(design.sizes[design.flagged == flagged].sum())) for flagged in (True, False)]
    sides = [(seen, size) for seen, size in sides if size]
    rate = min((seen.sum() / size for seen, size in sides), default=0.0)
    return np.concatenate([sample[:0], *(sample[seen][: math.floor(rate * size + 1e-9)] for seen, size in sides)])


def flag_threshold(
    quality: NDArray[np.float32],
    *,
    readable: NDArray[np.bool_],
    calibration: NDArray[np.int64],
    right: NDArray[np.bool_],
    undecided: NDArray[np.bool_],
    expected_wrong: float,
    false_flags: float,
) -> FlagThreshold:
    """Chooses the threshold on p_clean of which at most a share of the flags is wrong, on average over audits.

    Args:
        quality: p_clean, (N,).
        readable: Which labels have one and are to be tested, (N,); those of the calibration never are.
        calibration: Rows that were seen, from :func:`calibration_rows`.
        right: Which labels are known to be right, (N,); only the rows of the calibration are read.
        undecided: Which labels were left undecided, (N,); the same. They count as the worst case.
        expected_wrong: About how many of the labels to be tested are wrong.
        false_flags: The share wanted, above 0 and below 1.
    """
    from scipy.stats import false_discovery_control

    tested = readable.copy()
    tested[calibration] = False
    seen = np.sort(quality[calibration[right[calibration]]])
    unsure, labels = np.sort(quality[calibration[undecided[calibration]]]), int(tested.sum())
    p_values = p_values_of(quality[tested], seen, unsure)
    rejected = false_discovery_control(p_values) <= false_flags if labels else np.zeros(0, dtype=np.bool_)
    threshold = float(quality[tested][rejected].max()) if rejected.any() else None
    flagged = 0 if threshold is None else int((quality[readable] <= np.float32(threshold)).sum())
    return FlagThreshold(
        false_flags=false_flags,
        threshold=threshold,
        flagged=flagged,
        right_seen=len(seen),
        right_needed=right_needed(labels, expected_wrong=expected_wrong, false_flags=false_flags),
        tested=labels,
    )


def right_needed(labels: int, *, expected_wrong: float, false_flags: float) -> int:
    """Returns how many right labels an audit takes to flag as many labels as are expected to be wrong.

    Args:
        labels: How many labels are tested.
        expected_wrong: About how many of them are wrong.
        false_flags: The share wanted, above 0 and below 1.

    Example:
        >>> right_needed(1000, expected_wrong=100, false_flags=0.1)
        99
    """
    needed = math.ceil(labels / (false_flags * expected_wrong) - 1e-9) - 1 if expected_wrong > 0 else labels
    return max(needed, 1)


def p_values_of(
    quality: NDArray[np.float32], right_quality: NDArray[np.float32], undecided: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """Returns the conformal p-value of each label against the hypothesis that it is right, (n,).

    Args:
        quality: p_clean of n labels.
        right_quality: p_clean of labels that are known to be right, ascending.
        undecided: p_clean of labels that may be right, ascending. Each counts where that makes a p-value larger, so
            that it holds whichever of them are right.

    Example:
        >>> import numpy as np
        >>> p_values_of(np.array([0.1, 0.7]), np.array([0.6, 0.8, 0.9])).tolist()
        [0.25, 0.5]
    """
    as_low = np.searchsorted(right_quality, quality, side="right")
    may_be = 0 if undecided is None else np.searchsorted(undecided, quality, side="right")
    return np.asarray((1 + as_low + may_be) / (1 + len(right_quality) + may_be))
