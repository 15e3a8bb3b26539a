"""SigLIP 2 of flexible resolution, NaFlex (Tschannen et al., 2025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from labelsieve.vlm.families.siglip import SigLIP


def square_side(vision: Any) -> int:
    """Returns the side in pixels of a square of as many patches as an image encoder has position embeddings."""
    return math.isqrt(vision.num_patches) * int(vision.patch_size)


def pool_square(encoder: Any, pixels: Tensor) -> Tensor:
    """Cuts square images into patches and runs an image encoder: (B, 3, S, S) to (B, vision_width)."""
    patch = int(encoder.config.patch_size)
    count, grid = len(pixels), pixels.shape[-1] // patch
    cut = pixels.reshape(count, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
    shapes = torch.tensor([[grid, grid]] * count, device=pixels.device)
    # no mask, since no patch is padding
    return encoder(cut.reshape(count, grid**2, -1), None, shapes).pooler_output  # type: ignore[no-any-return]


class SigLIP2(SigLIP):
    """SigLIP 2 of flexible resolution (NaFlex): `Siglip2Model` of `transformers`.

    The model takes any grid of patches. labelsieve gives it a square one, of as many patches as its position
    embedding has: images are squeezed to a square, as for SigLIP 2 of fixed resolution, and all have the same size.
    """

    architecture: ClassVar[str] = "Siglip2Model"

    def side(self, vision: Any) -> int:
        """Returns the side of a square of as many patches as there are position embeddings."""
        return square_side(vision)

    @property
    def _grid(self) -> int:
        return self.image_size // self.patch_size

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Squeezes RGB images to a square and prepares them as the model's own processor does: (B, 3, S, S)."""
        side, resample = self.image_size, Image.Resampling(int(self.processor.resample))
        square = [image.resize((side, side), resample) for image in images]
        patches = self.processor(images=square, max_num_patches=self._grid**2, return_tensors="pt")["pixel_values"]
        cut = patches.reshape(len(square), self._grid, self._grid, self.patch_size, self.patch_size, 3)
        return cut.permute(0, 5, 1, 3, 2, 4).reshape(len(square), 3, side, side)  # type: ignore[no-any-return]

    def pool(self, pixels: Tensor) -> Tensor:
        """Cuts images into patches and runs the image encoder: (B, 3, S, S) to (B, vision_width)."""
        return pool_square(self.model.vision_model, pixels)
