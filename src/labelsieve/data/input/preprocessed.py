"""Images as a model's own image processor prepares them, kept on disk for those who see them several times."""

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
from labelsieve.data.input.image_cache import Pictures, kept

if TYPE_CHECKING:
    from accelerate import Accelerator

    from labelsieve.data.images import Images

# Images that show whether a processor's pixels are integers.
_SAMPLE = 4
_TOLERANCE = 1e-4
# An image that is so many times as long as wide may be cut before it is prepared.
_LONG = 32


class Prepares(Protocol):
    """A model that prepares images."""

    @property
    def image_size(self) -> int:
        """Side S of a prepared image in pixels."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of configuration, weights and image processing."""
        ...

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Prepares RGB images as the model's own processor does: (B, 3, S, S)."""
        ...

    def normalise(self, pixels: Tensor) -> Tensor:
        """Does to the colours of RGB pixels between 0 and 1, (B, 3, S, S), what preparing does."""
        ...


def shortened(image: Image.Image, model: Prepares) -> Image.Image:
    """Returns an image as it is, or the middle of a very long one if the model crops that anyway.

    Resized as a whole until its short side fits, an image of 20 x 4,000,000 pixels would take gigabytes.
    """
    short, long = sorted(image.size)
    if long <= _LONG * short or not crops_middle(model):
        return image
    kept = _LONG * short + (long - _LONG * short) % 2  # the middle stays where it is
    start = (long - kept) // 2
    across = image.width == long
    return image.crop((start, 0, start + kept, short) if across else (0, start, short, start + kept))


def crops_middle(model: Prepares) -> bool:
    """Returns whether the ends of a long image have no influence on what a model sees."""
    prepared = []
    for shade in (0, 255):
        values = np.full((8, 8 * _LONG, 3), shade, dtype=np.uint8)
        values[:, 4 * _LONG - 32 : 4 * _LONG + 32] = 128
        prepared.append(model.pixels([Image.fromarray(values)])[0])
    return torch.equal(*prepared)


class Preprocessed:
    """What a model makes of an image, as bytes: before it changes the colours, which is undone here.

    Nearly all processors resize and crop bytes, and turn them into other numbers last.

    Args:
        model: The model.
    """

    def __init__(self, model: Prepares) -> None:
        self.model = model
        offset = model.normalise(torch.zeros(1, 3, 1, 1))[0, :, 0, 0].double()
        ends = model.normalise(torch.eye(3).view(3, 3, 1, 1))[:, :, 0, 0].double()
        self._offset, self._inverse = offset, torch.linalg.inv((ends - offset).T)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Returns (S, S, 3)."""
        return self._undone(image)[0].round().clamp(0, 255).to(torch.uint8).numpy()

    def is_exact(self, image: Image.Image) -> bool:
        """Returns whether nothing is lost in an image of the right size."""
        undone, prepared = self._undone(image)
        if tuple(prepared.shape) != (3, self.model.image_size, self.model.image_size):
            return False
        again = self.model.normalise(unit(undone.round().clamp(0, 255).to(torch.uint8).permute(2, 0, 1)[None]))[0]
        return bool((again - prepared).abs().max() < _TOLERANCE)

    def _undone(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Returns the bytes as numbers, (S, S, 3), and what the processor made of them, (3, S, S)."""
        prepared = self.model.pixels([shortened(image, self.model)])[0]
        whole = torch.einsum("oc,chw->hwo", self._inverse, prepared.double() - self._offset[:, None, None])
        return 255 * whole, prepared


def preprocessed_images(images: Images, model: Prepares, *, accelerator: Accelerator) -> Pictures | None:
    """Opens the prepared images of a data set and a model, or begins to keep them; all processes call this together.

    Args:
        images: N images.
        model: What prepares them. Its :meth:`normalise` has to follow.
        accelerator: The first process makes the files.

    Returns:
        Images (3, S, S), uint8; None where the model does not prepare bytes.
    """
    crop, size = Preprocessed(model), 3 * model.image_size**2
    for row in range(0, len(images), max(1, len(images) // _SAMPLE)):
        with suppress(UnreadableImageError):
            if not crop.is_exact(images.open(row)):
                return None
    stem = f"{images.pixels_fingerprint}-plain-{model.fingerprint}"
    return kept(
        images,
        crop,
        name=stem,
        area=model.image_size**2,
        room=lambda: size * len(images),
        accelerator=accelerator,
    )
