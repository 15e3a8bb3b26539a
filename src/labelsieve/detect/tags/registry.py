"""The table of detectors of tags, and the check of their inputs. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labelsieve.core.errors import SettingsError, look_up, setting, shown
from labelsieve.core.registry import Entry, Registry
from labelsieve.detect.compatibility import check_texts
from labelsieve.detect.registry import DETECTORS
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
"""Detectors for several labels per image, with the names of their counterparts for one label; the first is the default.
The first sentence of each docstring is the description."""
DEFAULT = next(iter(TAG_DETECTORS))


def tag_detector_class(name: str) -> type[Any]:
    """Returns the settings class of a detector of tags.

    Raises:
        SettingsError: There is no such detector, or it needs one label per image.

    Example:
        >>> tag_detector_class("joint").__name__
        'TagJoint'
    """
    if name in DETECTORS and name not in TAG_DETECTORS:
        raise SettingsError(
            f"{setting('detector')} {name} reads one label per image, and these have several; use "
            f"{', '.join(TAG_DETECTORS)}"
        )
    return look_up(TAG_DETECTORS, name, what=setting("detector"))


def check_tag_input(detector: object, images: object, vlm: VisionLanguageModel | None) -> VisionLanguageModel:
    """Checks that a detector works with the images and the model, before all images are read; returns the model.

    Args:
        detector: The detector with its settings.
        images: The images with their tags.
        vlm: The model.

    Raises:
        SettingsError: The images are not from `load_tags()`, the detector is not one of tags, or there is no model; or
            the detector relies on the class names, and the model reads all of them as the same text.
    """
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.detect.inputs import NO_MODEL

    if not isinstance(images, TaggedImages):
        raise SettingsError(
            f"expected images from load_tags(), got {type(images).__name__}; for one label per image use scan()"
        )
    if not isinstance(detector, TagDetector):
        raise SettingsError(f"expected a detector of tags, found {shown(detector)}; use {', '.join(TAG_DETECTORS)}")
    if vlm is None:
        raise SettingsError(NO_MODEL)
    if "text" in detector.requires:
        others = [name for name in TAG_DETECTORS if "text" not in tag_detector_class(name).requires]
        check_texts(TAG_DETECTORS.label_of(detector), images.class_names, vlm, others=others)
    return vlm
