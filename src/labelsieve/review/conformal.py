"""The threshold that keeps the share of false flags below a bound: conformal p-values with Benjamini-Hochberg.

Each label is tested against the hypothesis that it is right. The calibration set consists of the n labels that an audit
found right: if k of them have a p_clean at most that of a label, its p-value is (1 + k) / (n + 1) (Vovk et al. 2005;
Bates et al. 2023). The procedure of Benjamini and Hochberg (1995) then flags as many labels as possible while the
expected share of right labels among the flagged ones is at most q.

This requires that right labels in the audit and right labels outside of it are exchangeable. The audit samples flagged
labels at a higher rate than others, so only the first part of the side with the higher rate is used.
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
    """The threshold for a requested share of false flags.

    Attributes:
        false_flags: Maximum expected share q of flags whose label is right.
        threshold: The largest p_clean that is flagged; None if nothing can be flagged at this q.
        flagged: Number of labels with a p_clean of at most the threshold.
        right_seen: Number of right labels in the calibration set, without undecided ones.
        right_needed: Number of right labels required to flag as many labels as are expected to be wrong.
        tested: Number of labels outside of the calibration set.
    """

    false_flags: float
    threshold: float | None
    flagged: int
    right_seen: int
    right_needed: int
    tested: int

    @property
    def rule(self) -> FlagRule:
        """Returns the rule with this threshold."""
        return FlagRule(threshold=self.threshold, false_flags=self.false_flags)


def calibration_rows(design: AuditDesign, sample: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the rows of an audit that form a sample with equal inclusion probability for all labels, (n,).

    Args:
        design: The design of the audit.
        sample: The rows that were seen, in the order of the design.
    """
    of_side = design.flagged[design.stratum[sample]]
    sides = [(of_side == flagged, int(design.sizes[design.flagged == flagged].sum())) for flagged in (True, False)]
    sides = [(is_on_side, size) for is_on_side, size in sides if size]
    rate = min((is_on_side.sum() / size for is_on_side, size in sides), default=0.0)
    return np.concatenate(
        [sample[:0], *(sample[is_on_side][: math.floor(rate * size + 1e-9)] for is_on_side, size in sides)]
    )


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
    """Chooses the threshold on p_clean such that at most the requested share of flags is false, averaged over audits.

    Args:
        quality: p_clean, (N,).
        readable: Which labels have a p_clean and are to be tested, (N,); rows of the calibration set are never tested.
        calibration: Rows of the calibration set, from :func:`calibration_rows`.
        right: Which labels are known to be right, (N,); only rows of the calibration set are used.
        undecided: Which labels are undecided, (N,); in the calibration set they count as the worst case.
        expected_wrong: Estimated number of wrong labels among the tested ones.
        false_flags: The requested share, above 0 and below 1.
    """
    from scipy.stats import false_discovery_control

    tested = readable.copy()
    tested[calibration] = False
    right_quality = np.sort(quality[calibration[right[calibration]]])
    undecided_quality, labels = np.sort(quality[calibration[undecided[calibration]]]), int(tested.sum())
    p_values = p_values_of(quality[tested], right_quality, undecided_quality)
    rejected = false_discovery_control(p_values) <= false_flags if labels else np.zeros(0, dtype=np.bool_)
    threshold = float(quality[tested][rejected].max()) if rejected.any() else None
    flagged = int(FlagRule(threshold=threshold).is_low(quality[readable]).sum())
    return FlagThreshold(
        false_flags=false_flags,
        threshold=threshold,
        flagged=flagged,
        right_seen=len(right_quality),
        right_needed=right_needed(labels, expected_wrong=expected_wrong, false_flags=false_flags),
        tested=labels,
    )


def right_needed(labels: int, *, expected_wrong: float, false_flags: float) -> int:
    """Returns the number of right audited labels required to flag as many labels as are expected to be wrong.

    Args:
        labels: Number of tested labels.
        expected_wrong: Estimated number of wrong labels among them.
        false_flags: The requested share, above 0 and below 1.

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
        undecided: p_clean of labels that may be right, ascending. Each counts as right if that increases the p-value,
            so that the p-value is valid whichever of them are right.

    Example:
        >>> import numpy as np
        >>> p_values_of(np.array([0.1, 0.7]), np.array([0.6, 0.8, 0.9])).tolist()
        [0.25, 0.5]
    """
    at_most = np.searchsorted(right_quality, quality, side="right")
    ambiguous = 0 if undecided is None else np.searchsorted(undecided, quality, side="right")
    return np.asarray((1 + at_most + ambiguous) / (1 + len(right_quality) + ambiguous))
