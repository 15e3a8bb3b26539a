"""The inputs of detectors: features, labels and class texts, from images and a model or precomputed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.core.engine import Engine
from labelsieve.core.errors import DataError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import Images, LabelledImages
from labelsieve.detect.chunks import CHUNK, in_chunks
from labelsieve.detect.scores import Scores
from labelsieve.detect.zero_shot import ZeroShot, by_probability, class_features, classify
from labelsieve.flagging import NamedIssues
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.feature_cache import ImageFeatures
from labelsieve.vlm.features import image_features


def _identity(pooled: Tensor) -> Tensor:
    return pooled


@dataclass(frozen=True, eq=False)
class DetectorInputs:
    """The N rows that a detector scores, without their true labels.

    There are two kinds of features. Distances use the joint space (`joint`), which contrastive training made for
    cosine similarities. Linear classifiers use the features before the projection (`pooled`), as the authors of CLIP do
    (Radford et al., 2021, section 3.2). Precomputed features serve as both.

    Attributes:
        features: Features before the projection, and which images can be read.
        labels: Given labels, (N,).
        class_names: The K names.
        engine: Device, processes, precision, seed, checkpoint and progress.
        text: Normalised text features of the classes, (K, D), or None.
        logit_scale: Factor from cosine similarity to logit; used with `text` only.
        project: Projects pooled features (n, W) into the joint space (n, D), without normalising them.
        images: The images; None for precomputed features.
        vlm: The model; None for precomputed features.
        annotations: Labels of A annotators, (N, A), -1 for a missing one; None if there is one label per image.
        test: T images to classify at the end, or None. Their labels are never read, and no choice depends on them.
        unreviewed_labels: Given labels before a review corrected some of `labels`, (N,); None without a review.
            Because a review corrects the most suspicious labels, only these show how many labels are wrong.
    """

    features: ImageFeatures
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    engine: Engine
    text: Tensor | None = None
    logit_scale: float = 1.0
    project: Callable[[Tensor], Tensor] = _identity
    images: LabelledImages | None = None
    vlm: VisionLanguageModel | None = None
    annotations: NDArray[np.int64] | None = None
    test: LabelledImages | None = None
    unreviewed_labels: NDArray[np.int64] | None = None

    @property
    def device(self) -> torch.device:
        """The device of the engine."""
        return self.engine.device

    @property
    def progress(self) -> Progress:
        """The progress of the engine."""
        return self.engine.progress

    def images_and_model(self) -> tuple[LabelledImages, VisionLanguageModel]:
        """Returns the images and the model, for detectors that require images.

        Raises:
            SettingsError: There are only precomputed features.
        """
        if self.images is None or self.vlm is None:
            raise SettingsError(NO_MODEL)
        return self.images, self.vlm

    @property
    def texts(self) -> Tensor:
        """The text features of the classes, for detectors that require them.

        Raises:
            DataError: There are none.
        """
        if self.text is None:
            raise DataError("expected text features of the classes, found none; add them to the features")
        return self.text

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers of the n readable images, ascending, n at least 1."""
        return self.features.readable

    @property
    def given(self) -> NDArray[np.int64]:
        """Given labels of the readable images, (n,)."""
        return self.labels[self.rows]

    @property
    def classes(self) -> int:
        """K."""
        return len(self.class_names)

    def pooled(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns features before the projection, (n, W), of some rows."""
        return torch.from_numpy(self.features.pooled[rows]).to(self.device)

    @torch.no_grad()
    def joint(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns normalised features in the joint space, (n, D), of some rows; rows of zeros stay zero."""
        return normalize(self.project(self.pooled(rows)), dim=-1)

    def all_joint(self) -> Tensor:
        """Returns :meth:`joint` of all readable rows, (n, D), as one array in memory."""
        return self.joint_of(self.rows)

    def joint_of(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns :meth:`joint` of many rows, computed in chunks."""
        chunks = np.split(rows, range(CHUNK, len(rows), CHUNK))
        return torch.cat([self.joint(chunk) for chunk in chunks])

    @torch.no_grad()
    def logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns zero-shot logits (n, K) of some rows, at the model's own temperature. Needs `text`."""
        return self.logit_scale * self.joint(rows) @ self.texts.T

    @cached_property
    @torch.inference_mode()
    def zero_shot(self) -> ZeroShot:
        """Zero-shot classification of the readable rows. Needs `text`."""
        of_label, predicted, confidence = in_chunks(
            lambda part: by_probability(self.logits(part), self.labels[part]), self.rows, progress=self.progress
        )
        agrees = predicted == self.given
        counts = np.bincount(self.given, minlength=self.classes)
        hits = np.bincount(self.given, weights=agrees, minlength=self.classes)
        per_class = np.divide(hits, counts, out=np.full(len(counts), np.nan), where=counts > 0)
        return ZeroShot(of_label, predicted, confidence, float(agrees.mean()), per_class)

    def scores(
        self,
        *,
        quality: NDArray[Any],
        predicted: NDArray[np.int64],
        confidence: NDArray[Any],
        issue: NDArray[np.bool_] | None = None,
        **more: Any,
    ) -> Scores:
        """Returns scores of all rows from those of the n readable rows; unreadable rows get NaN and their reason.

        Args:
            quality: Label quality, (n,), clipped to 0 to 1.
            predicted: Most likely classes, (n,).
            confidence: Their probabilities, (n,), clipped to 0 to 1.
            issue: Which labels are issues, (n,); if None, `rule` decides.
            **more: Other attributes of :class:`labelsieve.detect.scores.Scores`, such as `rule` or `notes`.
        """
        all_quality = np.full(len(self.labels), np.nan, dtype=np.float32)
        all_predicted, all_confidence = np.full(len(self.labels), -1, dtype=np.int64), all_quality.copy()
        all_quality[self.rows] = np.clip(quality, 0.0, 1.0)
        all_predicted[self.rows], all_confidence[self.rows] = predicted, np.clip(confidence, 0.0, 1.0)
        if issue is not None:
            flagged = np.zeros(len(self.labels), dtype=bool)
            flagged[self.rows] = issue
            more["rule"] = NamedIssues(issue=flagged)
        first = None if self.text is None else self.zero_shot
        return Scores(
            label_quality=all_quality,
            predicted=all_predicted,
            confidence=all_confidence,
            errors=dict(self.features.errors),
            flat=self.features.flat,
            zero_shot_agreement=None if first is None else first.agreement,
            zero_shot_per_class=None if first is None else first.per_class,
            **more,
        )

    def classify_test(self) -> NDArray[np.int64] | None:
        """Returns the zero-shot class of each test image, (T,), -1 if unreadable; None without test images."""
        if self.test is None or self.vlm is None:
            return None
        features = image_features(self.test, self.vlm, engine=self.engine)
        seen = dataclasses.replace(self, features=features, labels=self.test.labels)
        return classify(seen.logits, rows=seen.rows, images=len(self.test), progress=self.progress)


NO_MODEL = "images need a model to look at them; pass one from load_vlm()"


@torch.inference_mode()
def detector_inputs(
    data: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None,
    *,
    engine: Engine,
    test: LabelledImages | None = None,
) -> DetectorInputs:
    """Returns the inputs of a detector: computes and caches features of images, or takes precomputed ones.

    The class texts of a model are averaged over `TEMPLATES`.

    Args:
        data: N images or rows of features.
        vlm: The model; not used with features.
        engine: Device, processes, precision, seed, checkpoint and progress.
        test: See :class:`DetectorInputs`.

    Raises:
        DataError: No image can be read.
        SettingsError: There are images, but no model.
    """
    if isinstance(data, LabelledFeatures):
        text = None if data.text is None else normalize(torch.from_numpy(data.text).to(engine.device), dim=-1)
        return DetectorInputs(
            features=ImageFeatures(data.features, {}),
            labels=data.labels,
            class_names=data.class_names,
            engine=engine,
            text=text,
            logit_scale=data.logit_scale or 1.0,
            annotations=None if data.annotations is None else data.annotations.labels,
        )
    if vlm is None:
        raise SettingsError(NO_MODEL)
    inputs = inputs_of_images(data, vlm, class_names=data.class_names, engine=engine)
    return dataclasses.replace(
        inputs,
        labels=data.labels,
        annotations=None if data.annotations is None else data.annotations.labels,
        images=data,
        test=test,
    )


@torch.inference_mode()
def inputs_of_images(
    images: Images, vlm: VisionLanguageModel, *, class_names: tuple[str, ...], engine: Engine
) -> DetectorInputs:
    """Returns inputs with the features of images, whose labels are not used: all labels of the result are 0.

    Args:
        images: N images.
        vlm: The model; it is moved to the device.
        class_names: The K names, for the class texts.
        engine: Device, processes, precision, seed, checkpoint and progress.

    Raises:
        DataError: No image can be read.
    """
    vlm.to(engine.device)
    features = image_features(images, vlm, engine=engine)
    if not len(features.readable):
        reason = next(iter(features.errors.values()), "there are none")
        raise DataError(f"none of the {len(images)} images can be read, for example {reason}; check the source")
    return DetectorInputs(
        features=features,
        labels=np.zeros(len(images), dtype=np.int64),
        class_names=class_names,
        engine=engine,
        text=class_features(vlm, class_names, progress=engine.progress),
        logit_scale=vlm.logit_scale,
        project=vlm.project,
        vlm=vlm,
    )
