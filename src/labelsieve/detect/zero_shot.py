"""What the untouched model says of the images: the first look of every detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.data.images import LabelledImages
from labelsieve.detect.base import Scores
from labelsieve.engine import Engine
from labelsieve.errors import DataError
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.features import ImageFeatures, image_features

# Averaged, as CLIP's authors do (Radford et al., 2021, section 3.1.4), from the general ones of their list.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a good photo of a {}.",
)

CHUNK = 4096


@dataclass(frozen=True, eq=False)
class _Logits:
    vlm: VisionLanguageModel
    features: ImageFeatures
    text: Tensor

    @torch.no_grad()
    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        pooled = torch.from_numpy(self.features.pooled[rows]).to(self.text.device)
        return self.vlm.logit_scale * normalize(self.vlm.project(pooled), dim=-1) @ self.text.T


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Zero-shot classification of N images by the untouched model.

    Attributes:
        features: The image features it was made from; tells which images can be read.
        logits: Takes n row numbers and returns their logits (n, K), at the model's own temperature.
        rows: Row numbers of the readable images, ascending; what follows is in this order.
        label_probability: Probability of the given label.
        predicted: Most likely class.
        confidence: Probability of that class.
        agreement: Share of readable images whose given label is predicted.
        per_class: Shape (K,): the same for each given class, NaN for a class without images.
    """

    features: ImageFeatures
    logits: Callable[[NDArray[np.int64]], Tensor]
    rows: NDArray[np.int64]
    label_probability: NDArray[np.float32]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    agreement: float
    per_class: NDArray[np.float64]

    def scores(
        self,
        images: LabelledImages,
        *,
        quality: NDArray[Any],
        predicted: NDArray[np.int64],
        confidence: NDArray[Any],
        **more: Any,
    ) -> Scores:
        """Lays scores of the readable images out over all rows, with the reasons of the unreadable ones."""
        all_quality = np.full(len(images), np.nan, dtype=np.float32)
        all_predicted, all_confidence = np.full(len(images), -1, dtype=np.int64), all_quality.copy()
        all_quality[self.rows] = np.clip(quality, 0.0, 1.0)
        all_predicted[self.rows], all_confidence[self.rows] = predicted, confidence
        return Scores(
            label_quality=all_quality,
            predicted=all_predicted,
            confidence=all_confidence,
            errors=dict(self.features.errors),
            zero_shot_agreement=self.agreement,
            zero_shot_per_class=self.per_class,
            **more,
        )


@torch.inference_mode()
def zero_shot(images: LabelledImages, vlm: VisionLanguageModel, *, engine: Engine) -> ZeroShot:
    """Classifies all images with the untouched model and a few templates around each class name.

    Raises:
        DataError: Not a single image can be read.
    """
    vlm.to(engine.device)
    features = image_features(images, vlm, engine=engine)
    rows = features.readable
    if not len(rows):
        reason = next(iter(features.errors.values()), "there are none")
        raise DataError(f"none of the {len(images)} images can be read, for example {reason}; check the source")
    logits = _Logits(vlm, features, class_features(vlm, images.class_names))
    given = images.labels[rows]
    own, predicted, confidence = in_chunks(lambda part: by_probability(logits(part), images.labels[part]), rows)
    agrees = predicted == given
    counts = np.bincount(given, minlength=len(images.class_names))
    hits = np.bincount(given, weights=agrees, minlength=len(images.class_names))
    per_class = np.divide(hits, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return ZeroShot(features, logits, rows, own, predicted, confidence, float(agrees.mean()), per_class)


def by_probability(logits: Tensor, labels: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the probability of the label, the most likely class and its probability, (n,) each, of logits (n, K)."""
    probability = logits.softmax(dim=1)
    confidence, predicted = probability.max(dim=1)
    return probability.gather(1, torch.from_numpy(labels).to(logits.device)[:, None])[:, 0], predicted, confidence


def in_chunks(judge: Callable[[NDArray[np.int64]], Sequence[Tensor]], rows: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Applies a judge to some rows at a time, so that no array of N times K is ever held.

    Args:
        judge: Takes n row numbers and returns tensors of shape (n,).
        rows: Row numbers, at least one.

    Returns:
        What the judge returned, each of the shape of `rows`.
    """
    parts = [[value.cpu().numpy() for value in judge(rows[at : at + CHUNK])] for at in range(0, len(rows), CHUNK)]
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


@torch.inference_mode()
def class_features(vlm: VisionLanguageModel, class_names: tuple[str, ...]) -> Tensor:
    """Returns (K, D): for each class the normalised mean of the normalised features of all templates."""
    names = [name.replace("_", " ").lower() for name in class_names]
    total = sum(normalize(vlm.encode_text([t.format(name) for name in names]), dim=-1) for t in TEMPLATES)
    return normalize(torch.as_tensor(total), dim=-1)


def shortened_note(shortened: list[str]) -> tuple[str, ...]:
    """Returns a warning for class names that are longer than the text tower bears, if there are any."""
    if not shortened:
        return ()
    more = f" and {len(shortened) - 1} more" if len(shortened) > 1 else ""
    return (f'class name "{shortened[0]}"{more} is longer than the text tower bears and was shortened',)
