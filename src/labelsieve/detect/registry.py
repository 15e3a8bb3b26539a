"""The table of detectors. Nothing here loads torch."""

from __future__ import annotations

from typing import Any

from labelsieve.core.errors import look_up, setting
from labelsieve.core.registry import Entry, Registry

DETECTORS: Registry[type[Any], Entry] = Registry(
    "--detector",
    Entry("deft", "labelsieve.detect.deft.detector:DeFT"),
    Entry("joint", "labelsieve.detect.joint:Joint"),
    Entry("label-match", "labelsieve.detect.label_match:LabelMatch"),
    Entry("clip-margin", "labelsieve.detect.clip_margin:ClipMargin"),
    Entry("small-loss", "labelsieve.detect.small_loss:SmallLoss"),
    Entry("gmm", "labelsieve.detect.gmm:GMM"),
    Entry("confident-learning", "labelsieve.detect.confident_learning:ConfidentLearning"),
    Entry("knn", "labelsieve.detect.knn:KNN"),
    Entry("aum", "labelsieve.detect.aum:AUM"),
    Entry("lemon", "labelsieve.detect.lemon:Lemon"),
    Entry("prototype-gmm", "labelsieve.detect.prototype_gmm:PrototypeGMM"),
    Entry("clip-cleaner", "labelsieve.detect.clip_cleaner:CLIPCleaner"),
    Entry("simifeat", "labelsieve.detect.simifeat:SimiFeat"),
    Entry("fine", "labelsieve.detect.fine:FINE"),
)
"""The first sentence of each docstring is the description; loading the settings does not load torch."""
DEFAULT = next(iter(DETECTORS))


def detector_class(name: str) -> type[Any]:
    """Returns the settings class of a detector.

    Raises:
        SettingsError: There is no such detector.
    """
    return look_up(DETECTORS, name, what=setting("detector"))


def feature_detectors(*, text: bool) -> list[str]:
    """Returns the names of the detectors that work without images, with or without text features of the classes."""
    present = {"text"} if text else set()
    return [name for name in DETECTORS if detector_class(name).requires <= present]
