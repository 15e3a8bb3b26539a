"""The output of a detector: a score for each given label, and how to interpret it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.flagging import FlagRule
from labelsieve.metrics import Interval

# Minimum agreement with the given labels, from 0 for guessing to 1 for full agreement, of a model that does not guess.
# CLIP models reach 0.2 to 0.9 on photos they can classify, even with more than half of the labels wrong.
GUESSING = 0.05


class Estimate(NamedTuple):
    """Estimates of the number of wrong labels and of the quality of the flags, made without true labels.

    Attributes:
        wrong_labels: Number of wrong labels.
        right_flags: Share of the flagged labels that are wrong, between 0 and 1; None if no label is flagged.
        missed_labels: Number of wrong labels that are not flagged.
    """

    wrong_labels: Interval
    right_flags: Interval | None
    missed_labels: Interval


class Crowd(NamedTuple):
    """Results for A annotators and n readable images.

    Attributes:
        rows: Row numbers of the images, (n,).
        right: Expected number of right labels of each annotator among these images, (A,).
        low: Lower end of the 95 % interval of the share of right labels, (A,).
        high: Upper end of the interval, (A,).
        consensus: Most likely class given the image and the annotators, (n,).
        probability: Probability of the consensus, (n,).
        ask: Annotator to ask next, (n,); -1 if all have given the consensus.
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
    """The results of a detector for N images. No array grows with N times the number of classes.

    Attributes:
        label_quality: Label quality, (N,), float32, between 0 and 1, higher = given label more likely correct; NaN if
            the image could not be read.
        predicted: Index of the most likely class, (N,), int64; -1 if the image could not be read.
        confidence: Probability of the predicted class, (N,), float32, between 0 and 1; NaN if unreadable.
        rule: Which labels are issues: those of low quality, those that are not predicted, or an explicit list.
        errors: Reasons by row number, for the images that could not be read.
        flat: Row numbers of the images whose pixels are all equal.
        zero_shot_agreement: Share of readable images whose given label the zero-shot model predicts; None without class
            texts.
        zero_shot_per_class: The same share per class, (K,), NaN for a class without images; None without class texts.
        estimate: Estimated number of wrong labels; None if `label_quality` is not a probability fitted to the labels.
        crowd: Results for several annotators; None if there is one label per image.
        history: One record per epoch: losses, learning rate, share selected.
        notes: Remarks for the user, one line each.
        resolved: Resolved values of `auto` by the names of the settings.
        test_predicted: Most likely class of each test image, (T,), int64, -1 if it could not be read; None without test
            images.
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
