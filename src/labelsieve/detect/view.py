"""What detectors see of the data: features, labels and class texts, from a model and images or computed before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.detect.base import NO_MODEL, FeatureDetector, Scores, check_input
from labelsieve.detect.zero_shot import (
    CHUNK,
    TEMPLATES,
    ZeroShot,
    class_features,
    classify,
    shortened_note,
    zero_shot,
)
from labelsieve.engine import Engine
from labelsieve.errors import DataError, SettingsError
from labelsieve.progress import Progress
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.features import ImageFeatures, image_features


@dataclass(frozen=True, eq=False)
class FeatureView:
    """N rows as a detector sees them; the truth is not among what it sees.

    There are two kinds of features, and one rule which to use: distances are measured in the joint space (`joint`),
    which contrastive training made for cosines, and linear classifiers are fitted to what comes before the projection
    (`pooled`), as the authors of CLIP do (Radford et al., 2021, section 3.2). Features computed before are both.

    Attributes:
        features: Features before the projection; tells which images can be read.
        labels: Shape (N,): the given labels.
        class_names: The K names.
        text: Normalised text features of the classes, (K, D), or None.
        logit_scale: Factor from cosine similarity to logit, where there is text.
        project: Takes pooled features (n, W) into the joint space (n, D), not normalised.
        device: Where to compute.
        progress: Where to show how far it is.
    """

    features: ImageFeatures
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    text: Tensor | None
    logit_scale: float
    project: Callable[[Tensor], Tensor]
    device: torch.device
    progress: Progress = field(default_factory=Progress)

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
        """Returns :meth:`joint` of all readable rows, (n, D): the one array of a view that is held in memory."""
        return torch.cat([self.joint(self.rows[start : start + CHUNK]) for start in range(0, len(self.rows), CHUNK)])

    @torch.no_grad()
    def logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns zero-shot logits (n, K) of some rows, at the model's own temperature. Needs `text`."""
        if self.text is None:
            raise DataError("expected text features of the classes, found none; add them to the features")
        return self.logit_scale * self.joint(rows) @ self.text.T

    @cached_property
    def zero_shot(self) -> ZeroShot:
        """What the untouched model says of the readable rows. Needs `text`."""
        return zero_shot(self.logits, self.labels, rows=self.rows, classes=self.classes, progress=self.progress)

    def scores(
        self,
        *,
        quality: NDArray[Any],
        predicted: NDArray[np.int64],
        confidence: NDArray[Any],
        issue: NDArray[np.bool_] | None = None,
        **more: Any,
    ) -> Scores:
        """Lays scores of the readable rows, (n,) each, out over all rows, with the reasons of the unreadable ones."""
        all_quality = np.full(len(self.labels), np.nan, dtype=np.float32)
        all_predicted, all_confidence = np.full(len(self.labels), -1, dtype=np.int64), all_quality.copy()
        all_quality[self.rows] = np.clip(quality, 0.0, 1.0)
        all_predicted[self.rows], all_confidence[self.rows] = predicted, np.clip(confidence, 0.0, 1.0)
        if issue is not None:
            flagged = np.zeros(len(self.labels), dtype=bool)
            flagged[self.rows] = issue
            issue = flagged
        first = None if self.text is None else self.zero_shot
        return Scores(
            label_quality=all_quality,
            predicted=all_predicted,
            confidence=all_confidence,
            issue=issue,
            errors=dict(self.features.errors),
            flat=self.features.flat,
            zero_shot_agreement=None if first is None else first.agreement,
            zero_shot_per_class=None if first is None else first.per_class,
            **more,
        )


@torch.inference_mode()
def view_of(data: LabelledImages | LabelledFeatures, vlm: VisionLanguageModel | None, *, engine: Engine) -> FeatureView:
    """Looks at images with a model, whose features are cached, or at features computed before.

    Class texts of a model are averaged over `TEMPLATES`.

    Raises:
        DataError: Not a single image can be read.
        SettingsError: There are images, but no model.
    """
    if isinstance(data, LabelledFeatures):
        text = None if data.text is None else normalize(torch.from_numpy(data.text).to(engine.device), dim=-1)
        return FeatureView(
            ImageFeatures(data.features, {}),
            data.labels,
            data.class_names,
            text,
            data.logit_scale or 1.0,
            lambda pooled: pooled,
            engine.device,
            engine.progress,
        )
    if vlm is None:
        raise SettingsError(NO_MODEL)
    vlm.to(engine.device)
    features = image_features(data, vlm, engine=engine)
    if not len(features.readable):
        reason = next(iter(features.errors.values()), "there are none")
        raise DataError(f"none of the {len(data)} images can be read, for example {reason}; check the source")
    text = class_features(vlm, data.class_names, progress=engine.progress)
    shown = engine.device, engine.progress
    return FeatureView(features, data.labels, data.class_names, text, vlm.logit_scale, vlm.project, *shown)


def score_by_features(
    detector: FeatureDetector,
    data: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None,
    *,
    engine: Engine,
    test: LabelledImages | None = None,
) -> Scores:
    """Scores images or features with a detector that needs features only; test images are classified zero-shot.

    Raises:
        SettingsError: The detector needs a model or class texts that are not there, or cannot be tested.
    """
    check_input(detector, data, vlm, test=test)
    view = view_of(data, vlm, engine=engine)
    scores = detector.score_features(view, engine=engine)
    if isinstance(data, LabelledFeatures) or vlm is None:
        return scores
    if test is not None:
        seen = dataclasses.replace(view, features=image_features(test, vlm, engine=engine), labels=test.labels)
        predicted = classify(seen.logits, rows=seen.rows, images=len(test), progress=engine.progress)
        scores = dataclasses.replace(scores, test_predicted=predicted)
    longest = max(len(template.replace("{}.", "").split()) for template in TEMPLATES)
    _, shortened = vlm.tokenize_names(data.class_names, context_tokens=longest)
    return dataclasses.replace(scores, notes=(*shortened_note(shortened), *scores.notes))
