"""The inputs of detectors of tags: the features and class texts of other detectors, and a table of tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.core.engine import Engine
from labelsieve.core.errors import DataError, shown
from labelsieve.data.tags.records import TaggedImages, checked_tags
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.vlm.feature_cache import ImageFeatures


@dataclass(frozen=True, eq=False)
class TagInputs:
    """N images with any number of K classes each.

    Attributes:
        images: Features, class names, class texts, model and engine; its labels are not used.
        tags: Shape (N, K), bool: the given tags of each image.
        source: The images; None for precomputed features.

    Raises:
        DataError: The tags do not match the images and classes, or all or none of them are given.
    """

    images: DetectorInputs
    tags: NDArray[np.bool_]
    source: TaggedImages | None = None

    def __post_init__(self) -> None:
        checked_tags(self.tags, shape=(len(self.images.features.pooled), self.images.classes))
        given = self.given
        if not given.any():
            raise DataError("expected images with tags, found no tag at all; name the column that holds them")
        if given.all():
            raise DataError("expected absent tags, too, found every class given to every image; give only those seen")

    @classmethod
    def of_features(
        cls,
        features: NDArray[np.float32],
        tags: NDArray[np.bool_],
        *,
        class_names: Sequence[str],
        engine: Engine,
        text: NDArray[np.float32] | None = None,
        logit_scale: float | None = None,
    ) -> TagInputs:
        """Returns inputs with precomputed features.

        Args:
            features: Shape (N, D); with `text`, in the same joint space.
            tags: Shape (N, K), bool.
            class_names: The K names.
            engine: Device, seed and progress.
            text: Shape (K, D), or None.
            logit_scale: Factor from cosine similarity to logit; used with `text` only.

        Raises:
            DataError: The arguments do not match, or all or none of the tags are given.
        """
        values = np.asarray(features, dtype=np.float32)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise DataError(
                f"expected finite features of shape (N, D), found {shown(values.shape)}; check their source"
            )
        texts = None if text is None else normalize(torch.from_numpy(np.asarray(text, np.float32)).to(engine.device))
        if texts is not None and texts.shape != (len(class_names), values.shape[1]):
            raise DataError(
                f"expected text features of shape ({len(class_names)}, {values.shape[1]}), found {tuple(texts.shape)}"
            )
        images = DetectorInputs(
            features=ImageFeatures(values, {}),
            labels=np.zeros(len(values), dtype=np.int64),
            class_names=tuple(class_names),
            engine=engine,
            text=texts,
            logit_scale=logit_scale or 1.0,
        )
        return cls(images, tags)

    @cached_property
    def given(self) -> NDArray[np.bool_]:
        """Tags of the readable images, (n, K)."""
        rows = self.images.rows
        return self.tags if len(rows) == len(self.tags) else self.tags[rows]

    @cached_property
    def frequency(self) -> Tensor:
        """Smoothed share of the readable images that have each tag, (K,), float64, never 0 or 1."""
        count = torch.from_numpy(self.given.sum(axis=0)).double()
        return (count + 0.5) / (len(self.given) + 1)
