"""Features that are kept on disk: where they lie, and reading them, which takes no model and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.cache import cache_folder
from labelsieve.core.provenance import read_json
from labelsieve.data.images import Images

if TYPE_CHECKING:
    from collections.abc import Mapping

# Goes up when the same model gives other features for the same images, be it by rounding: those kept from before do
# not count then.
COMPUTED = 3


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What the frozen image encoder says of N images.

    Attributes:
        pooled: Shape (N, vision_width), float32, memory-mapped: the input of the visual projection; zero where the
            image could not be read.
        errors: Row number to reason, for the images that could not be read.
        flat: Row numbers of the images that show nothing, since all of their pixels are alike.
    """

    pooled: NDArray[np.float32]
    errors: Mapping[int, str]
    flat: tuple[int, ...] = ()

    @property
    def readable(self) -> NDArray[np.int64]:
        """Row numbers of the images that could be read, ascending."""
        keep = np.ones(len(self.pooled), dtype=bool)
        keep[list(self.errors)] = False
        return np.flatnonzero(keep)


def feature_stem(images: Images, model: str, precision: str) -> Path:
    """Returns where the features of images are kept, without the endings of the files.

    Args:
        images: The images.
        model: Fingerprint of the model.
        precision: In which it computed them.
    """
    return cache_folder() / "features" / f"{images.pixels_fingerprint}-{model}-{precision}-{COMPUTED}"


def read_features(stem: Path, images: Images) -> ImageFeatures | None:
    """Reads what `features.extract()` wrote, or returns None if that is missing, unfinished or of other images."""
    try:
        record = read_json(stem.with_suffix(".json"))
        pooled = np.lib.format.open_memmap(stem.with_suffix(".npy"), mode="r")
        # reasons begin with the id, which is not part of the fingerprint of the images
        errors = {int(row): f"{images.ids[int(row)]}: {why}" for row, why in record["errors"].items()}
        flat = tuple(int(row) for row in record["flat"])
        whole = pooled.dtype == np.float32 and list(pooled.shape) == record["shape"] and len(pooled) == len(images)
    except Exception:  # on damaged files the readers raise nearly anything
        return None
    return ImageFeatures(pooled, errors, flat) if whole else None
