"""Which labels are flagged by their scores: the rule, applied, described and kept in the record of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.quantities import percent

SAMPLED = "the audited images were drawn at random and the answers are right"
HOLDS_IF = f"{SAMPLED}; on average over audits"
"""What a share of false flags rests on."""


@dataclass(frozen=True, kw_only=True)
class FlagRule:
    """Flags labels of low quality and, where it demands agreement, those that are not predicted.

    Its settings are entries of `run.json`; what they have to be stands beside their types, as in `records.py`.

    Attributes:
        threshold: A label is flagged where its quality is at most this; None where the detector names the issues by a
            rule that no threshold can express.
        demand_agreement: Whether a label is flagged, too, where another class is predicted.
        false_flags: The share of false flags that the threshold was chosen for by an audit, which may then leave out
            labels that it says nothing of, above 0 and below 1; without a threshold no more than the labels that are
            known to be wrong are flagged. None where the detector has chosen.

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
        """Reads it from the entries of `run.json`; what is missing there has its default, a threshold None.

        Example:
            >>> FlagRule.of({"threshold": 0.3, "demand_agreement": None, "detector": {"name": "joint"}})
            FlagRule(threshold=0.3, demand_agreement=False, false_flags=None)
        """
        known = {name: record[name] for name in _names() if record.get(name) is not None}
        return FlagRule(**{"threshold": None, **known})

    def to_record(self) -> dict[str, Any]:
        """Returns its entries of `run.json`; where no threshold tells the issues, agreement is none of them."""
        return self._settings() | ({"demand_agreement": None} if self.threshold is None else {})

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _names()}

    def naming(self, issue: NDArray[np.bool_]) -> NamedIssues:
        """Returns the rule with all flags, (N,), named one by one."""
        return NamedIssues(**self._settings(), issue=issue)

    def knowing(self, *, right: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> FlagRule:
        """Returns the rule for labels, (N,), of which some are known; their quality says so, too."""
        return self

    def flags(
        self, quality: NDArray[np.float32], *, predicted: NDArray[np.int64], given: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Returns which labels are flagged, (N,).

        Args:
            quality: Shape (N,), between 0 and 1, higher = more likely correct; NaN is never below the threshold.
            predicted: Shape (N,): most likely classes.
            given: Shape (N,): given labels.
        """
        return np.asarray(self._low(quality) | self._differs(predicted, given))

    def for_quality_alone(
        self, quality: NDArray[np.float32], *, predicted: NDArray[np.int64], given: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Returns which labels are flagged by the threshold alone, (N,), and not for want of agreement, too."""
        return np.asarray(self._low(quality) & ~self._differs(predicted, given))

    def _low(self, quality: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self.threshold is None:
            return np.zeros(len(quality), dtype=np.bool_)
        # in float32 on both sides: a quality of 0.1 in float32 lies above the float64 number 0.1
        return np.asarray(quality <= np.float32(self.threshold))

    def _differs(self, predicted: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(predicted != given) if self.demand_agreement else np.zeros(len(given), dtype=np.bool_)

    @property
    def line(self) -> float | None:
        """Where a plot over the quality has a line: at 0 only agreement decides, and flags would stand right of it."""
        return self.threshold if self.threshold is not None and 0 < self.threshold <= 1 else None

    def facts(self) -> dict[str, str]:
        """Returns what a report says of the rule, by its title."""
        facts = {"Threshold": f"{self.threshold:.3g}"} if self.threshold else {}
        if self.demand_agreement:
            facts["Also flagged" if self.threshold else "Flagged"] = "where another class is likelier"
        if self.false_flags is not None:
            facts |= {} if self.threshold is not None else {"Flagged": "only labels that are known to be wrong"}
            facts["False flags"] = self.promise()
        return facts

    def promise(self) -> str:
        """Says how many of the flags are false, with what that rests on; empty where nothing was asked for."""
        if self.false_flags is None:
            return ""
        return f"at most {percent(self.false_flags)}, if {HOLDS_IF}"


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedIssues(FlagRule):
    """Flags labels that are named one by one, where no threshold tells them.

    Attributes:
        issue: Shape (N,): which labels are flagged; those of images that could not be read are not.
    """

    threshold: float | None = None
    issue: NDArray[np.bool_] = field(repr=False)

    def knowing(self, *, right: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> NamedIssues:
        """Returns the rule without the labels that are right, (N,), and with those that are wrong, (N,)."""
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
