"""What a detector is: something that scores how likely each given label is correct.

A detector only scores; :func:`labelsieve.verdicts.decide` turns scores into verdicts. A new detector is one file and
one line in `DETECTORS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from labelsieve.errors import SettingsError, listed, look_up

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.detect.view import FeatureView
    from labelsieve.engine import Engine
    from labelsieve.vlm.base import VisionLanguageModel


class Interval(NamedTuple):
    """An estimate and the ends of its interval of 95 %."""

    value: float
    low: float
    high: float


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a detector found out about N images. Nothing here grows with N times the number of classes.

    Attributes:
        label_quality: Shape (N,), float32, between 0 and 1, higher = given label more likely correct; NaN where the
            image could not be read.
        predicted: Shape (N,), int64: index of the most likely class, -1 where the image could not be read.
        confidence: Shape (N,), float32, between 0 and 1: probability of the predicted class; NaN where unreadable.
        threshold: A label is an issue where `label_quality <= threshold`.
        demand_agreement: If true, a label is an issue too where `predicted` differs from it.
        issue: Shape (N,), or None: the issues themselves, from a rule that no threshold can express. Where it is given
            it decides, and threshold and demand_agreement do not; rows that could not be read are false.
        errors: Row number to reason, for the images that could not be read.
        flat: Row numbers of the images that show nothing: all of their pixels are alike.
        zero_shot_agreement: Share of readable images whose given label the untrained model predicts; None if the
            detector did not ask the model.
        zero_shot_per_class: The same for each class, shape (K,), NaN for a class without images; None as above.
        estimate: How many labels are wrong; None where `label_quality` is no probability that was fitted to the labels.
        history: One record for each epoch: losses, learning rate, share selected. The audit trail of training.
        notes: Remarks for the user, one line each.
        settled: What settings of `auto` became, by their names.
        test_predicted: Shape (T,), int64: most likely class of each test image, -1 where it could not be read; None
            where there are no test images.
    """

    label_quality: NDArray[np.float32]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    threshold: float = 0.5
    demand_agreement: bool = False
    issue: NDArray[np.bool_] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)
    flat: tuple[int, ...] = ()
    zero_shot_agreement: float | None = None
    zero_shot_per_class: NDArray[np.float64] | None = None
    estimate: Estimate | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    settled: Mapping[str, Any] = field(default_factory=dict)
    test_predicted: NDArray[np.int64] | None = None


class Detector(Protocol):
    """A frozen, keyword-only dataclass of settings that can score images."""

    def score(self, images: LabelledImages, vlm: VisionLanguageModel, *, engine: Engine) -> Scores:
        """Scores every image.

        Args:
            images: N images with given labels; `truth` is never read.
            vlm: The model.
            engine: Device, precision, seed, checkpoints and progress.
        """
        ...


class TestableDetector(Detector, Protocol):
    """A detector with a model, trained or not, that can classify other images too.

    Attributes:
        predicts_test: True, which tells it from others.
    """

    predicts_test: ClassVar[bool]

    def score(
        self,
        images: LabelledImages,
        vlm: VisionLanguageModel,
        *,
        engine: Engine,
        test: LabelledImages | None = None,
    ) -> Scores:
        """Scores every image, and classifies the test images, by which nothing is chosen.

        Args:
            images: See :class:`Detector`.
            vlm: See :class:`Detector`.
            engine: See :class:`Detector`.
            test: T images; their labels are never read.
        """
        ...


class FeatureDetector:
    """Base of detectors that need features only: those of images and a model, or features computed before.

    A detector of this kind implements `score_features` and gets `score` from here.

    Attributes:
        needs_text: Whether it asks for a text feature of each class.
        uses_text: Whether its scores are others with text features than without.
        predicts_test: Whether it judges by the untrained model, which can be shown test images.
    """

    needs_text: ClassVar[bool] = False
    uses_text: ClassVar[bool] = True
    predicts_test: ClassVar[bool] = False

    def score(
        self,
        images: LabelledImages | LabelledFeatures,
        vlm: VisionLanguageModel | None,
        *,
        engine: Engine,
        test: LabelledImages | None = None,
    ) -> Scores:
        """Scores every image, or every row of features without a model; see :class:`TestableDetector`."""
        from labelsieve.detect.view import score_by_features

        return score_by_features(self, images, vlm, engine=engine, test=test)

    def score_features(self, view: FeatureView, *, engine: Engine) -> Scores:
        """Scores every row of a view.

        Args:
            view: Features, labels and class texts.
            engine: Device, seed and progress.
        """
        raise NotImplementedError


# Agreement with the given labels on a scale where guessing is 0 and full agreement 1: below this a model guesses. CLIP
# models reach 0.2 to 0.9 on photos they can judge, even with more than half of the labels wrong.
GUESSING = 0.05
NO_MODEL = "images need a model to look at them; pass one from load_vlm()"

# Named, not imported: the command line reads the settings without loading torch.
DETECTORS = {
    "deft": "labelsieve.detect.deft:DeFT",
    "joint": "labelsieve.detect.training_free:Joint",
    "label-match": "labelsieve.detect.label_match:LabelMatch",
    "clip-margin": "labelsieve.detect.clip_margin:ClipMargin",
    "small-loss": "labelsieve.detect.small_loss:SmallLoss",
    "gmm": "labelsieve.detect.gmm:GMM",
    "confident-learning": "labelsieve.detect.confident_learning:ConfidentLearning",
    "knn": "labelsieve.detect.knn:KNN",
    "aum": "labelsieve.detect.aum:AUM",
    "lemon": "labelsieve.detect.lemon:Lemon",
    "prototype-gmm": "labelsieve.detect.prototype:PrototypeGMM",
    "clip-cleaner": "labelsieve.detect.clip_cleaner:CLIPCleaner",
    "simifeat": "labelsieve.detect.simifeat:SimiFeat",
    "fine": "labelsieve.detect.fine:FINE",
}


def detector_class(name: str) -> type[Any]:
    """Returns the settings class of a detector.

    Raises:
        SettingsError: There is no such detector.
    """
    module, _, attribute = look_up(DETECTORS, name, what="--detector").partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


def detector_name(detector: Detector) -> str:
    """Returns the name of a detector in the table, or its class name if it is not in it."""
    own = f"{type(detector).__module__}:{type(detector).__qualname__}"
    return next((name for name, path in DETECTORS.items() if path == own), type(detector).__qualname__)


def feature_detectors(*, text: bool) -> list[str]:
    """Returns the names of the detectors that work on features alone, with or without class text features."""
    kinds = {name: detector_class(name) for name in DETECTORS}
    return [name for name, kind in kinds.items() if issubclass(kind, FeatureDetector) and (text or not kind.needs_text)]


def predicts_test(kind: type[Any]) -> bool:
    """Tells whether a kind of detector has a model that can classify test images, too."""
    return bool(getattr(kind, "predicts_test", False))


def check_predicts_test(kind: type[Any], name: str) -> None:
    """Checks that a kind of detector can be shown test images.

    Raises:
        SettingsError: It cannot.
    """
    if not predicts_test(kind):
        known = ", ".join(each for each in DETECTORS if predicts_test(detector_class(each)))
        raise SettingsError(
            f"--detector {name} has no model that could be tested; leave the test images out, or use one of {known}"
        )


def check_input(
    detector: Detector,
    data: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None,
    *,
    test: LabelledImages | None = None,
) -> None:
    """Checks that a detector can do with what there is, before anything expensive starts.

    Raises:
        SettingsError: It needs images, a model or class texts that are not there, or there are test images that it can
            do nothing with.
    """
    from labelsieve.data.features import LabelledFeatures

    if test is not None:
        if isinstance(data, LabelledFeatures):
            raise SettingsError("test images need a model to look at them, and features come without; leave them out")
        check_predicts_test(type(detector), detector_name(detector))
    if not isinstance(data, LabelledFeatures):
        if vlm is None:
            raise SettingsError(NO_MODEL)
        _check_texts(detector, data.class_names, vlm)
        return
    name, known = detector_name(detector), ", ".join(feature_detectors(text=data.text is not None))
    if not isinstance(detector, FeatureDetector):
        raise SettingsError(f"--detector {name} needs the images and a model; with features alone use one of {known}")
    if detector.needs_text and data.text is None:
        raise SettingsError(
            f"--detector {name} needs text features of the classes, which these features lack; add them with their "
            f"logit_scale, or use one of {known}"
        )


def _check_texts(detector: Detector, class_names: tuple[str, ...], vlm: VisionLanguageModel) -> None:
    """Refuses a detector that goes by the class names, if all of them are one text to the model."""
    from labelsieve.detect.zero_shot import same_texts

    name = detector_name(detector)
    needed = detector.needs_text if isinstance(detector, FeatureDetector) else name in DETECTORS
    if needed and any(len(names) == len(class_names) for names in same_texts(vlm, class_names)):
        raise SettingsError(
            f"--detector {name} goes by the class names, but {listed(class_names, quoted=True)} are one text to "
            f"{vlm.name}; give other words with --class-names, or use one of "
            f"{', '.join(feature_detectors(text=False))}"
        )
