"""What a detector returns: a score of each given label, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.flagging import FlagRule
from labelsieve.metrics import Interval

# Agreement with the given labels on a scale where guessing is 0 and full agreement 1: below this a model guesses. CLIP
# models reach 0.2 to 0.9 on photos they can classify, even with more than half of the labels wrong.
GUESSING = 0.05


class Estimate(NamedTuple):
    """How many labels are wrong, and how good the flags are, without any truth.

    Attributes:
        wrong_labels: Number of wrong labels.
        right_flags: Share of the flagged labels that are wrong, between 0 and 1; None where none is flagged.
        missed_labels: Number of wrong labels that are not flagged.
    """

    wrong_labels: Interval
    right_flags: Interval | None
    missed_labels: Interval


class Crowd(NamedTuple):
    """What was found out about A annotators and n readable images.

    Attributes:
        rows: Shape (n,): row numbers of the images.
        right: Shape (A,): the expected number of right labels of each annotator among these images.
        low: Shape (A,): lower end of an interval of 95 % of the share of right ones.
        high: Shape (A,): its upper end.
        consensus: Shape (n,): the most likely class, by image and annotators.
        probability: Shape (n,): its probability.
        ask: Shape (n,): the annotator to ask next, -1 where all have given the consensus.
    """

    rows: NDArray[np.int64]
    right: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    consensus: NDArray[np.int64]
    probability: NDArray[np.float32]
    ask: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a detector found out about N images. Nothing here grows with N times the number of classes.

    Attributes:
        label_quality: Shape (N,), float32, between 0 and 1, higher = given label more likely correct; NaN where the
            image could not be read.
        predicted: Shape (N,), int64: index of the most likely class, -1 where the image could not be read.
        confidence: Shape (N,), float32, between 0 and 1: probability of the predicted class; NaN where unreadable.
        rule: Which labels are issues: those of low quality, those that are not predicted, or those that it names.
        errors: Row number to reason, for the images that could not be read.
        flat: Row numbers of the images that show nothing: all of their pixels are alike.
        zero_shot_agreement: Share of readable images whose given label the zero-shot model predicts; None
            without class texts.
        zero_shot_per_class: The same for each class, shape (K,), NaN for a class without images; None as above.
        estimate: How many labels are wrong; None where `label_quality` is no probability that was fitted to the labels.
        crowd: What was found out about several annotators; None where there is one label an image.
        history: One record for each epoch: losses, learning rate, share selected. The audit trail of training.
        notes: Remarks for the user, one line each.
        resolved: What settings of `auto` resolved to, by their names.
        test_predicted: Shape (T,), int64: most likely class of each test image, -1 where it could not be read; None
            where there are no test images.
    """

    label_quality: NDArray[np.float32]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    rule: FlagRule = field(default_factory=FlagRule)
    errors: Mapping[int, str] = field(default_factory=dict)
    flat: tuple[int, ...] = ()
    zero_shot_agreement: float | None = None
    zero_shot_per_class: NDArray[np.float64] | None = None
    estimate: Estimate | None = None
    crowd: Crowd | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    resolved: Mapping[str, Any] = field(default_factory=dict)
    test_predicted: NDArray[np.int64] | None = None

    @property
    def balanced_agreement(self) -> float | None:
        """Mean of `zero_shot_per_class` over the classes that have images."""
        return None if self.zero_shot_per_class is None else float(np.nanmean(self.zero_shot_per_class))
