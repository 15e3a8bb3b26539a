"""Images preprocessed by the image processor of a model, cached on disk for repeated use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from labelsieve.data.images import UnreadableImageError
from labelsieve.data.input.batches import unit
from labelsieve.data.input.image_cache import CachedImages, open_cache

if TYPE_CHECKING:
    from accelerate import Accelerator

    from labelsieve.data.images import Images

# Number of images for which it is checked that the pixels of a processor are integers.
_SAMPLE = 4
_TOLERANCE = 1e-4
# Maximum aspect ratio of images; longer ones may be cropped before preprocessing.
_MAX_ASPECT = 32


class ImagePreprocessor(Protocol):
    """A model that preprocesses images."""

    @property
    def image_size(self) -> int:
        """Side S of a preprocessed image in pixels."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of configuration, weights and image processing."""
        ...

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Preprocesses RGB images as the model's own processor does: (B, 3, S, S)."""
        ...

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalises the colours of RGB pixels between 0 and 1, (B, 3, S, S), as `pixels` does."""
        ...


def shortened(image: Image.Image, model: ImagePreprocessor) -> Image.Image:
    """Returns the middle of a very long image if the model crops it anyway, else the image unchanged.

    Resizing an image of 20 x 4,000,000 pixels until its short side fits would take gigabytes.
    """
    short, long = sorted(image.size)
    if long <= _MAX_ASPECT * short or not crops_middle(model):
        return image
    length = _MAX_ASPECT * short + (long - _MAX_ASPECT * short) % 2  # keeps the middle in place
    start = (long - length) // 2
    across = image.width == long
    return image.crop((start, 0, start + length, short) if across else (0, start, short, start + length))


def crops_middle(model: ImagePreprocessor) -> bool:
    """Returns whether a model ignores the ends of a long image."""
    prepared = []
    for shade in (0, 255):
        values = np.full((8, 8 * _MAX_ASPECT, 3), shade, dtype=np.uint8)
        values[:, 4 * _MAX_ASPECT - 32 : 4 * _MAX_ASPECT + 32] = 128
        prepared.append(model.pixels([Image.fromarray(values)])[0])
    return torch.equal(*prepared)


class Preprocessed:
    """Preprocesses images as a model does, but returns bytes: it inverts the final normalisation of the colours.

    This is exact for nearly all processors, because they resize and crop bytes, and normalise them last.

    Args:
        model: The model.
    """

    def __init__(self, model: ImagePreprocessor) -> None:
        self.model = model
        offset = model.normalise(torch.zeros(1, 3, 1, 1))[0, :, 0, 0].double()
        ends = model.normalise(torch.eye(3).view(3, 3, 1, 1))[:, :, 0, 0].double()
        self._offset, self._inverse = offset, torch.linalg.inv((ends - offset).T)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Returns (S, S, 3)."""
        return self._undone(image)[0].round().clamp(0, 255).to(torch.uint8).numpy()

    def is_exact(self, image: Image.Image) -> bool:
        """Returns whether the bytes reproduce the preprocessed image, in the right size."""
        undone, prepared = self._undone(image)
        if tuple(prepared.shape) != (3, self.model.image_size, self.model.image_size):
            return False
        again = self.model.normalise(unit(undone.round().clamp(0, 255).to(torch.uint8).permute(2, 0, 1)[None]))[0]
        return bool((again - prepared).abs().max() < _TOLERANCE)

    def _undone(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Returns the bytes as numbers, (S, S, 3), and the output of the processor, (3, S, S)."""
        prepared = self.model.pixels([shortened(image, self.model)])[0]
        values = torch.einsum("oc,chw->hwo", self._inverse, prepared.double() - self._offset[:, None, None])
        return 255 * values, prepared


def preprocessed_images(images: Images, model: ImagePreprocessor, *, accelerator: Accelerator) -> CachedImages | None:
    """Opens or creates the cache of the preprocessed images of a data set; all processes must call this together.

    Args:
        images: N images.
        model: The model that preprocesses them. Its :meth:`normalise` must be applied afterwards.
        accelerator: The first process creates the files.

    Returns:
        Images (3, S, S), uint8; None if bytes do not reproduce the preprocessed images.
    """
    crop, size = Preprocessed(model), 3 * model.image_size**2
    for row in range(0, len(images), max(1, len(images) // _SAMPLE)):
        with suppress(UnreadableImageError):
            if not crop.is_exact(images.open(row)):
                return None
    stem = f"{images.pixels_fingerprint}-plain-{model.fingerprint}"
    return open_cache(
        images,
        crop,
        name=stem,
        area=model.image_size**2,
        reserved_size=lambda: size * len(images),
        accelerator=accelerator,
    )
