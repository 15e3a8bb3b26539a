"""The rule that flags labels by their scores: applied, described and kept in the record of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.quantities import percent

SAMPLED = "the audited images were drawn at random and the answers are right"
HOLDS_IF = f"{SAMPLED}; on average over audits"
"""The assumptions behind a share of false flags."""

# No label is flagged that is more than three times more likely right than wrong.
MAX_THRESHOLD = 0.75


@dataclass(frozen=True, kw_only=True)
class FlagRule:
    """Flags labels of low quality and, where it demands agreement, those that are not predicted.

    Its settings are entries of `run.json`; their types are annotated as in `records.py`.

    Attributes:
        threshold: A label is flagged if its quality is at most this; None if the detector names the issues by a rule
            that no threshold can express.
        demand_agreement: Whether a label is also flagged if another class is predicted.
        false_flags: The share of false flags, above 0 and below 1, for which an audit chose the threshold. The audit
            may then leave out labels that it does not cover; without a threshold only labels that are known to be
            wrong are flagged. None if the detector chose the threshold.

    Example:
        >>> import numpy as np
        >>> rule = FlagRule(threshold=0.5, demand_agreement=True)
        >>> quality = np.array([0.2, 0.7, 0.9], dtype=np.float32)
        >>> rule.flags(quality, predicted=np.array([1, 2, 1]), given=np.array([1, 1, 1])).tolist()
        [True, True, False]
    """

    threshold: float | None = 0.5
    demand_agreement: bool = False
    false_flags: Annotated[float, "a number from 0 to 1"] | None = None

    @staticmethod
    def of(record: Mapping[str, Any]) -> FlagRule:
        """Reads the rule from the entries of `run.json`; missing entries get their defaults, the threshold None.

        Example:
            >>> rule = FlagRule.of({"threshold": 0.3, "demand_agreement": None, "detector": {"name": "joint"}})
            >>> rule.threshold, rule.demand_agreement
            (0.3, False)
        """
        settings = {name: record[name] for name in _names() if record.get(name) is not None}
        return FlagRule(**{"threshold": None, **settings})

    def to_record(self) -> dict[str, Any]:
        """Returns the entries of `run.json`; agreement is null if no threshold defines the issues."""
        return self._settings() | ({"demand_agreement": None} if self.threshold is None else {})

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _names()}

    def with_issues(self, issue: NDArray[np.bool_]) -> NamedIssues:
        """Returns the rule with all flags, (N,), listed explicitly."""
        return NamedIssues(**self._settings(), issue=issue)

    def with_known(self, *, right: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> FlagRule:
        """Returns the rule where some labels, (N,), are known to be right or wrong; their quality is already set."""
        return self

    def flags(
        self, quality: NDArray[np.float32], *, predicted: NDArray[np.int64], given: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Returns which labels are flagged, (N,).

        Args:
            quality: Shape (N,), between 0 and 1, higher = more likely correct; NaN is never flagged by the threshold.
            predicted: Shape (N,): most likely classes.
            given: Shape (N,): given labels.
        """
        return np.asarray(self.is_low(quality) | self._differs(predicted, given))

    def flags_by_quality_only(
        self, quality: NDArray[np.float32], *, predicted: NDArray[np.int64], given: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Returns which labels are flagged by the threshold only, (N,), and not also for lack of agreement.

        Args:
            quality: See :meth:`flags`.
            predicted: See :meth:`flags`.
            given: See :meth:`flags`.
        """
        return np.asarray(self.is_low(quality) & ~self._differs(predicted, given))

    def is_low(self, quality: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns which qualities, (N,), the threshold flags; none without a threshold."""
        if self.threshold is None:
            return np.zeros(len(quality), dtype=np.bool_)
        # in float32 on both sides: a quality of 0.1 in float32 lies above the float64 number 0.1
        return np.asarray(quality <= np.float32(self.threshold))

    def _differs(self, predicted: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(predicted != given) if self.demand_agreement else np.zeros(len(given), dtype=np.bool_)

    @property
    def plotted_threshold(self) -> float | None:
        """The threshold that a plot over the quality shows; None at 0, where only agreement decides."""
        return self.threshold if self.threshold is not None and 0 < self.threshold <= 1 else None

    def facts(self) -> dict[str, str]:
        """Returns the lines of a report about the rule, by title."""
        facts = {"Threshold": f"{self.threshold:.3g}"} if self.threshold else {}
        if self.demand_agreement:
            facts["Also flagged" if self.threshold else "Flagged"] = "where another class is likelier"
        if self.false_flags is not None:
            facts |= {} if self.threshold is not None else {"Flagged": "only labels that are known to be wrong"}
            facts["False flags"] = self.bound_text()
        return facts

    def bound_text(self) -> str:
        """Returns the bound on false flags with its assumptions as a text; empty if none was requested."""
        if self.false_flags is None:
            return ""
        return f"at most {percent(self.false_flags)}, if {HOLDS_IF}"


BY_DISAGREEMENT = FlagRule(threshold=0.0, demand_agreement=True)
"""Flags the labels that are not predicted, whatever their quality."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedIssues(FlagRule):
    """Flags labels that are listed explicitly, where no threshold can express the rule.

    Attributes:
        issue: Shape (N,): which labels are flagged; those of unreadable images are not.
    """

    threshold: float | None = None
    issue: NDArray[np.bool_] = field(repr=False)

    def with_known(self, *, right: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> NamedIssues:
        """Returns the rule without the labels known to be right, (N,), and with those known to be wrong, (N,)."""
        return replace(self, issue=wrong | (self.issue & ~right))

    def flags(
        self,
        quality: NDArray[np.float32],
        *,
        predicted: NDArray[np.int64],
        given: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Returns which labels are flagged, (N,)."""
        return self.issue


def _names() -> list[str]:
    return [each.name for each in fields(FlagRule)]


def best_threshold(clean: NDArray[np.float32], *, maximum: float = MAX_THRESHOLD) -> float:
    """Returns the threshold on p_clean below which flagging is expected to give the best F1 of the issues.

    The F1 that is expected under the probabilities themselves, `F = max_j 2 Σ_{i≤j} q_i / (j + Σ_i q_i)` over the
    labels in descending order of q = 1 - p_clean, is reached by flagging where q is at least F / 2 (Lipton et al.,
    ECML 2014, theorem 1). So a strong model flags at one half, and a weak one, which would miss most wrong labels
    there, a little more.

    F falls with Σ q: where almost nothing is wrong no F1 can be reached, and flagging everything would promise the
    most. So nothing is flagged whose p_clean is above `maximum`, and only what lies below is sorted: pairs of image and
    class are many.

    Args:
        clean: p_clean, (n,).
        maximum: At least 0.5.

    Returns:
        Between 0.5 and `maximum`.
    """
    suspicion = np.sort(1 - clean[clean <= maximum].astype(np.float64))[::-1]
    if not len(suspicion):
        return maximum
    total = len(clean) - float(clean.sum(dtype=np.float64))
    expected = 2 * np.cumsum(suspicion) / (np.arange(1, len(suspicion) + 1) + total)
    return min(float(1 - expected.max() / 2), maximum)
