"""Single-label and multi-label classification: all differences between them are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.engine import Engine
from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.core.seeds import Purpose
from labelsieve.data.images import LabelledImages
from labelsieve.data.tags.records import TaggedImages
from labelsieve.data.test_sets import with_class_names, with_tag_names
from labelsieve.detect.evidence.discriminants import fit_linear
from labelsieve.finetune.losses import Loss, binary_cross_entropy, make_loss
from labelsieve.finetune.selection import Selection, choose
from labelsieve.finetune.settings import DEFAULT_FOR_TAGS, Adaptation, check_tag_settings
from labelsieve.finetune.tag_head import fit_tag_head
from labelsieve.finetune.tag_selection import choose_tags
from labelsieve.metrics import accuracy, measure
from labelsieve.records import TAGS
from labelsieve.review.row_reviews import ReviewFiles, read_reviews
from labelsieve.tag_metrics import average_precisions, best_f1_threshold, measure_tags
from labelsieve.tags.marks import with_marks
from labelsieve.tags.verdicts import TagVerdicts
from labelsieve.verdicts import Verdicts, require_same_images

AnyImages = LabelledImages | TaggedImages
AnyVerdicts = Verdicts | TagVerdicts


class InitialHead(NamedTuple):
    """The initial head of training.

    Attributes:
        weights: Shape (K, D).
        biases: Shape (K,).
        threshold: For tags, see :meth:`TargetKind.threshold`, chosen out of fold.
    """

    weights: Tensor
    biases: Tensor
    threshold: float | None = None


class TargetKind:
    """Single-label classification; :class:`MultiLabel` overrides what differs.

    Answers are indices of classes, (N,), int64.

    Attributes:
        problem_type: Entry of `config.json`, which `pipeline()` uses.
        score_name: The metric that selects the epoch, between 0 and 1.
        unreadable_value: The answer for unreadable images.
        has_threshold: Whether a threshold converts probabilities to tags.
        defaults: The default settings.
        record: Its entries in `adapt.json`.
    """

    problem_type: ClassVar[str] = "single_label_classification"
    score_name: ClassVar[str] = "accuracy"
    unreadable_value: ClassVar[float] = -1
    has_threshold: ClassVar[bool] = False
    defaults: ClassVar[Adaptation] = Adaptation()
    record: ClassVar[Mapping[str, str]] = {}

    def check(self, images: Any, verdicts: Any, settings: Adaptation) -> None:
        """Checks that row i of the verdicts is for image i and its label, and that the settings go with the kind.

        Args:
            images: N images of this kind.
            verdicts: Verdicts of either kind.
            settings: The settings of the training.

        Raises:
            RunError: The verdicts are for other data.
            SettingsError: The verdicts or a setting are for the other kind.
        """
        if not isinstance(verdicts, Verdicts):
            raise SettingsError("the images have one label each, and the verdicts are those of scan_tags(); use scan()")
        require_same_images(verdicts.table, images)
        _check_same(verdicts, images, np.array_equal(images.labels, verdicts.given))

    def choose(
        self,
        images: Any,
        verdicts: Any,
        settings: Adaptation,
        marks: ReviewFiles | None,
        progress: Progress | None,
    ) -> Selection:
        """Chooses rows and targets; see :func:`choose` and :func:`choose_tags`.

        Args:
            images: N images of this kind.
            verdicts: Their verdicts, after :meth:`check`.
            settings: The settings that the selection depends on.
            marks: Files of reviews, which override the verdicts; None without reviews.
            progress: Receives progress.
        """
        reviews = None if marks is None else read_reviews(marks, verdicts, images=images, progress=progress)
        return choose(verdicts, settings, reviews=reviews)

    def match_classes(self, test: Any, class_names: tuple[str, ...]) -> AnyImages:
        """Returns test images with the class names of the training images.

        Raises:
            SettingsError: They are of the other kind.
            DataError: A class of the test set does not exist in the training images.
        """
        if not isinstance(test, LabelledImages):
            raise SettingsError("expected test images with one label each, as the run has them; use load_images()")
        return with_class_names(test, class_names)

    def targets(self, test: Any) -> NDArray[Any]:
        """Returns the true targets of test images: labels, (N,), or tags, (N, K)."""
        return test.labels  # type: ignore[no-any-return]

    def make_loss(self, settings: Adaptation, *, images: int, classes: int) -> Loss:
        """Makes the loss.

        Args:
            settings: Has the name of the loss.
            images: N, the number of images of the data.
            classes: K.
        """
        return make_loss(settings.loss, images=images, classes=classes)

    def initial_head(
        self,
        features: NDArray[np.float32],
        targets: NDArray[Any],
        rows: NDArray[np.int64],
        classes: int,
        engine: Engine,
    ) -> InitialHead:
        """Fits a head to frozen features: a linear discriminant, or logistic regressions of each class.

        Args:
            features: Shape (N, D), may be memory-mapped.
            targets: The `labels` of a :class:`labelsieve.finetune.selection.Selection`: (N,), or (N, K) for tags.
            rows: The rows to fit to, at least one.
            classes: K.
            engine: Seed, device and progress.
        """
        generator = engine.generator(Purpose.HEAD_FOLDS)
        return InitialHead(
            *fit_linear(features, targets, rows=rows, classes=classes, generator=generator, progress=engine.progress)
        )

    def answers(self, logits: Tensor) -> Tensor:
        """Converts logits (B, K) to answers: (B,) or (B, K)."""
        return logits.argmax(dim=1)

    def score(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        """Returns the metric `score_name` of answers."""
        return accuracy(answers, targets)

    def measure(
        self, answers: NDArray[Any], targets: NDArray[Any], class_names: Sequence[str], threshold: float | None
    ) -> dict[str, Any]:
        """Returns all metrics of answers.

        Args:
            answers: Of N images, with `unreadable_value` for unreadable ones: (N,), or logits (N, K) for tags.
            targets: From :meth:`targets`.
            class_names: The K names.
            threshold: For tags, the probability from which on a class counts as predicted; None stands for 0.5.
        """
        return measure(answers, targets, class_names)

    def threshold(self, answers: NDArray[Any], targets: NDArray[Any]) -> float | None:
        """Returns the probability threshold with the highest micro F1 on these images; None for one label."""
        return None


class MultiLabel(TargetKind):
    """Multi-label classification; targets are (N, K), float32 or bool, answers logits (N, K), float32."""

    problem_type, score_name, unreadable_value = "multi_label_classification", "map", np.nan
    has_threshold, defaults = True, Adaptation(labels=DEFAULT_FOR_TAGS)
    record: ClassVar[Mapping[str, str]] = {"kind": TAGS}

    def check(self, images: Any, verdicts: Any, settings: Adaptation) -> None:
        """Checks that row i of the verdicts is for image i and its tags, and that the settings support tags."""
        if not isinstance(verdicts, TagVerdicts):
            raise SettingsError("the images have tags, and the verdicts are those of scan(); use scan_tags()")
        check_tag_settings(settings)
        _check_same(verdicts, images, np.array_equal(images.tags, verdicts.given))

    def choose(
        self,
        images: Any,
        verdicts: Any,
        settings: Adaptation,
        marks: ReviewFiles | None,
        progress: Progress | None,
    ) -> Selection:
        """Selects the tags by marks, and by the verdicts where there are none."""
        return choose_tags(verdicts if marks is None else with_marks(verdicts, marks, progress=progress), settings)

    def match_classes(self, test: Any, class_names: tuple[str, ...]) -> AnyImages:
        """Returns test images with the class names of the training images."""
        if not isinstance(test, TaggedImages):
            raise SettingsError("expected test images with tags, as the run has them; use load_tags()")
        return with_tag_names(test, class_names)

    def targets(self, test: Any) -> NDArray[Any]:
        """Returns the tags, (N, K)."""
        return test.tags  # type: ignore[no-any-return]

    def make_loss(self, settings: Adaptation, *, images: int, classes: int) -> Loss:
        """Makes binary cross-entropy."""
        return Loss(binary_cross_entropy)

    def initial_head(
        self,
        features: NDArray[np.float32],
        targets: NDArray[Any],
        rows: NDArray[np.int64],
        classes: int,
        engine: Engine,
    ) -> InitialHead:
        """Fits logistic regressions of each class against the rest."""
        generator = engine.generator(Purpose.HEAD_FOLDS)
        weights, biases, logits = fit_tag_head(
            features, targets, rows=rows, generator=generator, device=engine.device, progress=engine.progress
        )
        return InitialHead(weights, biases, self.threshold(logits.numpy(), targets[rows]))

    def answers(self, logits: Tensor) -> Tensor:
        """Returns the logits."""
        return logits

    def score(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        """Returns the mAP, over the known pairs; 0 if no image has a tag."""
        is_readable = ~np.isnan(answers).any(axis=1)
        precisions = [
            average_precisions(answer[known, None], target[known, None] == 1)[0]
            for answer, target in zip(answers[is_readable].T, targets[is_readable].T, strict=True)
            if (known := ~np.isnan(target.astype(np.float32))).any()
        ]
        defined = [each for each in precisions if each is not None]
        return float(np.mean(defined)) if defined else 0.0

    def measure(
        self, answers: NDArray[Any], targets: NDArray[Any], class_names: Sequence[str], threshold: float | None
    ) -> dict[str, Any]:
        """Returns mAP and F1 at one half and at the threshold."""
        return measure_tags(_sigmoid(answers), targets, class_names, threshold=0.5 if threshold is None else threshold)

    def threshold(self, answers: NDArray[Any], targets: NDArray[Any]) -> float | None:
        """Returns the probability threshold with the highest micro F1 on these images."""
        known = ~np.isnan(answers) & ~np.isnan(targets)
        return best_f1_threshold(_sigmoid(answers[known]), targets[known] == 1)


def kind_of(images: AnyImages) -> TargetKind:
    """Returns the kind of classification of images."""
    return MultiLabel() if isinstance(images, TaggedImages) else TargetKind()


def _sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    # in double precision, where large logits remain distinct
    return torch.from_numpy(logits).double().sigmoid().numpy()


def _check_same(verdicts: AnyVerdicts, images: AnyImages, same_labels: bool) -> None:
    fingerprint = verdicts.run.data.fingerprint or images.fingerprint
    if fingerprint != images.fingerprint or images.class_names != verdicts.class_names or not same_labels:
        raise RunError("the images or their labels are not those that the verdicts were made from; scan them again")
