"""Checks whether a detector works with the data, the model and the test images. Imports torch only when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelsieve.core.errors import DataError, SettingsError, listed, setting, shown
from labelsieve.detect.base import Detector
from labelsieve.detect.registry import DETECTORS, detector_class, feature_detectors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.vlm.base import VisionLanguageModel


def check_input(
    detector: Detector,
    data: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None,
    *,
    test: LabelledImages | None = None,
) -> None:
    """Checks that a detector works with the data before anything expensive starts.

    Args:
        detector: The detector with its settings.
        data: N images or rows of features.
        vlm: The model; not used with features.
        test: Images to classify after the scan; None if there are none.

    Raises:
        SettingsError: Images, a model or class texts are missing, or the detector cannot use the test images or the
            labels of several annotators.
        DataError: There are fewer than two classes.
    """
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.detect.inputs import NO_MODEL

    if not isinstance(detector, Detector):
        raise SettingsError(
            f"expected a detector, found {shown(detector)}; derive its class from labelsieve.detect.base.Detector"
        )
    name = DETECTORS.label_of(detector)
    if len(data.class_names) < 2:
        raise DataError(
            f"expected at least two classes to scan, found {listed(data.class_names, quoted=True)}; one class has no "
            "wrong labels"
        )
    if data.annotations is not None and not detector.weighs_annotators:
        raise SettingsError(
            f"{setting('detector')} {name} with these settings reads one label per image, and there "
            f"are {len(data.annotations.names)} label columns; use joint, or deft with {setting('evidence')} joint, or "
            "name one column"
        )
    if test is not None:
        if isinstance(data, LabelledFeatures):
            raise SettingsError("test images need a model to look at them, and features come without; leave them out")
        check_predicts_test(type(detector), name)
    if isinstance(data, LabelledFeatures):
        _check_features(detector, name, data)
    elif vlm is None:
        raise SettingsError(NO_MODEL)
    else:
        if "text" in detector.requires:
            check_texts(name, data.class_names, vlm, others=feature_detectors(text=False))
        detector.check_model(vlm)


def _check_features(detector: Detector, name: str, features: LabelledFeatures) -> None:
    known = ", ".join(feature_detectors(text=features.text is not None))
    if "images" in detector.requires:
        raise SettingsError(
            f"{setting('detector')} {name} needs the images and a model; with features alone use one of {known}"
        )
    if "text" in detector.requires and features.text is None:
        raise SettingsError(
            f"{setting('detector')} {name} needs text features of the classes, which these features lack; add them "
            f"with their {setting('logit_scale')}, or use one of {known}"
        )


def check_predicts_test(kind: type[Detector], name: str) -> None:
    """Checks that a detector class can classify test images.

    Raises:
        SettingsError: It cannot.
    """
    if not kind.predicts_test:
        known = ", ".join(each for each in DETECTORS if detector_class(each).predicts_test)
        raise SettingsError(
            f"{setting('detector')} {name} has no model that could be tested; leave the test images out, or use one of "
            f"{known}"
        )


def check_texts(name: str, class_names: tuple[str, ...], vlm: VisionLanguageModel, *, others: Iterable[str]) -> None:
    """Refuses a detector that relies on the class names if the model reads all of them as the same text.

    Args:
        name: Name of the detector, for the message.
        class_names: The K names.
        vlm: The model.
        others: Names of the detectors that the message suggests instead.
    """
    from labelsieve.detect.zero_shot import same_texts

    if any(len(names) == len(class_names) for names in same_texts(vlm, class_names)):
        raise SettingsError(
            f"{setting('detector')} {name} goes by the class names, but {listed(class_names, quoted=True)} are one "
            f"text to {vlm.name}; give other words with {setting('class_names')}, or use one of {', '.join(others)}"
        )
