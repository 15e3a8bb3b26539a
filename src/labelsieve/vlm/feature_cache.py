"""The cache of features on disk: paths and reading, without a model and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.cache import cache_folder
from labelsieve.core.files import read_json
from labelsieve.data.images import Images

if TYPE_CHECKING:
    from collections.abc import Mapping

# Increased when the features of the same model and images change, even by rounding: older caches are then ignored.
FEATURES_VERSION = 3


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Features of N images from the frozen image encoder.

    Attributes:
        pooled: Shape (N, vision_width), float32, memory-mapped: the input of the visual projection; zero for
            unreadable images.
        errors: Row number to reason, for unreadable images.
        flat: Row numbers of the images whose pixels are all equal.
    """

    pooled: NDArray[np.float32]
    errors: Mapping[int, str]
    flat: tuple[int, ...] = ()

    @property
    def readable(self) -> NDArray[np.int64]:
        """Row numbers of the readable images, ascending."""
        is_readable = np.ones(len(self.pooled), dtype=bool)
        is_readable[list(self.errors)] = False
        return np.flatnonzero(is_readable)


def feature_stem(images: Images, model: str, precision: str) -> Path:
    """Returns the path of cached features, without the suffixes of the files.

    Args:
        images: The images.
        model: Fingerprint of the model.
        precision: Precision of the computation.
    """
    return cache_folder() / "features" / f"{images.pixels_fingerprint}-{model}-{precision}-{FEATURES_VERSION}"


def read_features(stem: Path, images: Images) -> ImageFeatures | None:
    """Reads what `features.extract()` wrote, or returns None if it is missing, unfinished or for other images."""
    try:
        record = read_json(stem.with_suffix(".json"))
        pooled = np.lib.format.open_memmap(stem.with_suffix(".npy"), mode="r")
        # reasons begin with the id, which is not part of the fingerprint of the images
        errors = {int(row): f"{images.ids[int(row)]}: {why}" for row, why in record["errors"].items()}
        flat = tuple(int(row) for row in record["flat"])
        is_complete = (
            pooled.dtype == np.float32 and list(pooled.shape) == record["shape"] and len(pooled) == len(images)
        )
    except Exception:  # on damaged files the readers raise nearly anything
        return None
    return ImageFeatures(pooled, errors, flat) if is_complete else None
