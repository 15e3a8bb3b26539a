"""What detectors of tags get: the features and class texts of all other detectors, and a table of tags."""

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
        images: Features, class names, class texts, model and engine; its one label an image is not read.
        tags: Shape (N, K), bool: which classes are given to which image.
        source: The images themselves; None for features computed before.

    Raises:
        DataError: The tags do not match the images and classes, or there is nothing to learn from them.
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
        """Returns inputs of features that were computed before.

        Args:
            features: Shape (N, D); where there is `text`, of the same joint space.
            tags: Shape (N, K), bool.
            class_names: The K names.
            engine: Device, seed and progress.
            text: Shape (K, D), or None.
            logit_scale: Factor from cosine similarity to logit, where there is text.

        Raises:
            DataError: They do not match, or there is nothing to learn from them.
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
        """Share of the readable images that have each tag, (K,), float64, never 0 nor 1."""
        count = torch.from_numpy(self.given.sum(axis=0)).double()
        return (count + 0.5) / (len(self.given) + 1)
