"""What detectors get: features, labels and class texts, from images and a model or computed before."""

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
    """N rows as a detector gets them, without their true labels.

    There are two kinds of features, and one rule which to use: distances are measured in the joint space (`joint`),
    which contrastive training made for cosines, and linear classifiers are fitted to what comes before the projection
    (`pooled`), as the authors of CLIP do (Radford et al., 2021, section 3.2). Features computed before are both.

    Attributes:
        features: Features before the projection; tells which images can be read.
        labels: Shape (N,): the given labels.
        class_names: The K names.
        engine: Device, processes, precision, seed, checkpoint and progress.
        text: Normalised text features of the classes, (K, D), or None.
        logit_scale: Factor from cosine similarity to logit, where there is text.
        project: Takes pooled features (n, W) into the joint space (n, D), not normalised.
        images: The images; None for features computed before.
        vlm: The model; None for features computed before.
        annotations: The labels of A annotators, (N, A), -1 where there is none; None where there is one label an image.
        test: T images to classify at the end, whose labels are never read and by which nothing is chosen; or None.
        unreviewed_labels: Shape (N,): the labels as they were given before a review corrected some of `labels`; None
            where there was none. A review corrects what is most suspicious; only these tell how many labels are wrong.
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
        """Where to compute."""
        return self.engine.device

    @property
    def progress(self) -> Progress:
        """Receives progress."""
        return self.engine.progress

    def images_and_model(self) -> tuple[LabelledImages, VisionLanguageModel]:
        """Returns the images and the model, for detectors that require images.

        Raises:
            SettingsError: There are features alone.
        """
        if self.images is None or self.vlm is None:
            raise SettingsError(NO_MODEL)
        return self.images, self.vlm

    @property
    def texts(self) -> Tensor:
        """`text`, for what cannot do without.

        Raises:
            DataError: There is none.
        """
        if self.text is None:
            raise DataError("expected text features of the classes, found none; add them to the features")
        return self.text

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers of the readable images, ascending, at least one."""
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
        """Returns normalised features in the joint space, (n, D), of some rows; a row of zeros stays one."""
        return normalize(self.project(self.pooled(rows)), dim=-1)

    def all_joint(self) -> Tensor:
        """Returns :meth:`joint` of all readable rows, (n, D): the one array that is held in memory."""
        return self.joint_of(self.rows)

    def joint_of(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns :meth:`joint` of many rows, chunk by chunk."""
        chunks = np.split(rows, range(CHUNK, len(rows), CHUNK))
        return torch.cat([self.joint(chunk) for chunk in chunks])

    @torch.no_grad()
    def logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns zero-shot logits (n, K) of some rows, at the model's own temperature. Needs `text`."""
        return self.logit_scale * self.joint(rows) @ self.texts.T

    @cached_property
    @torch.inference_mode()
    def zero_shot(self) -> ZeroShot:
        """What the zero-shot model says of the readable rows. Needs `text`."""
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
        """Expands scores of the n readable rows to all rows; unreadable ones get NaN and their reason.

        Args:
            quality: Label quality, (n,); it is clipped to 0 to 1.
            predicted: Most likely classes, (n,).
            confidence: Their probabilities, (n,); they are clipped to 0 to 1.
            issue: Which labels are issues, (n,); None leaves that to `rule`.
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
        """Returns the zero-shot class of each test image, (T,), -1 where unreadable; None where there are none."""
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
    """Computes the features of images, which are cached, or takes those computed before.

    Class texts of a model are averaged over `TEMPLATES`.

    Args:
        data: N images or rows of features.
        vlm: The model; not used with features.
        engine: Device, processes, precision, seed, checkpoint and progress.
        test: See :class:`DetectorInputs`.

    Raises:
        DataError: Not a single image can be read.
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
    """Computes the features of images, whatever their labels are: all labels of the result are 0.

    Args:
        images: N images.
        vlm: The model; it is moved to the device.
        class_names: The K names, for the class texts.
        engine: Device, processes, precision, seed, checkpoint and progress.

    Raises:
        DataError: Not a single image can be read.
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
