"""The table of detectors of tags, and whether one goes with what there is. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labelsieve.core.errors import SettingsError, look_up, setting, shown
from labelsieve.core.registry import Entry, Registry
from labelsieve.detect.registry import DETECTORS, check_texts
from labelsieve.detect.tags.base import TagDetector

if TYPE_CHECKING:
    from labelsieve.vlm.base import VisionLanguageModel

_HERE = "labelsieve.detect.tags."
TAG_DETECTORS: Registry[type[Any], Entry] = Registry(
    "--detector",
    Entry("joint", _HERE + "joint:TagJoint"),
    Entry("deft", _HERE + "deft.detector:TagDeFT"),
    Entry("label-match", _HERE + "label_match:TagLabelMatch"),
    Entry("confident-learning", _HERE + "confident_learning:TagConfidentLearning"),
    Entry("knn", _HERE + "knn:TagKNN"),
)
"""Those that make sense where an image has several labels, under the names that they have for one; the first is the
default. What each is, the first sentence of its docstring says."""
DEFAULT = next(iter(TAG_DETECTORS))


def tag_detector_class(name: str) -> type[Any]:
    """Returns the settings class of a detector of tags.

    Raises:
        SettingsError: There is no such detector, or it reads one label an image.

    Example:
        >>> tag_detector_class("joint").__name__
        'TagJoint'
    """
    if name in DETECTORS and name not in TAG_DETECTORS:
        raise SettingsError(
            f"{setting('detector')} {name} reads one label an image, and these have several; use "
            f"{', '.join(TAG_DETECTORS)}"
        )
    return look_up(TAG_DETECTORS, name, what=TAG_DETECTORS.title)


def tag_detector_name(detector: object) -> str:
    """Returns the name in the table, or the class where a detector is not in it."""
    return TAG_DETECTORS.name_of(type(detector)) or type(detector).__qualname__


def check_tag_detector(detector: object) -> None:
    """Raises a `SettingsError` if something is no detector of tags."""
    if not isinstance(detector, TagDetector):
        raise SettingsError(f"expected a detector of tags, found {shown(detector)}; use {', '.join(TAG_DETECTORS)}")


def check_tag_model(detector: TagDetector, class_names: tuple[str, ...], vlm: VisionLanguageModel) -> None:
    """Checks that a detector can do with a model, before all images are read.

    Args:
        detector: The detector with its settings.
        class_names: The K names.
        vlm: The model.

    Raises:
        SettingsError: It goes by the class names, and they are one text to the model.
    """
    if "text" in detector.requires:
        others = [name for name in TAG_DETECTORS if "text" not in tag_detector_class(name).requires]
        check_texts(tag_detector_name(detector), class_names, vlm, others=others)
