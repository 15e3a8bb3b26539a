"""The colour transform and the output size of an image processor, measured on test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from labelsieve.core.errors import ModelError, shown
from labelsieve.vlm.pretrained import error_summary

_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))


@dataclass(frozen=True, eq=False)
class ColourTransform:
    """The effect of a processor on colours: an affine map, whatever its steps.

    Attributes:
        offset: (3,): the output for black.
        matrix: (3, 3): what full red, green and blue add to it.
        side: Side of the square output images, in pixels.
    """

    offset: Tensor
    matrix: Tensor
    side: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """Maps RGB pixels between 0 and 1: (B, 3, S, S) to (B, 3, S, S)."""
        mapped = torch.einsum("oc,bchw->bohw", self.matrix.to(pixels), pixels)
        return mapped + self.offset.to(pixels).view(1, 3, 1, 1)


def read_colours(processor: Any, name: str) -> ColourTransform:
    """Measures the colour transform of a processor with images of one colour.

    Args:
        processor: An image processor of `transformers`.
        name: Of the model, for the error.

    Raises:
        ModelError: The output of the processor is not square images with three channels.
    """
    images = [Image.new("RGB", (40, 30), colour) for colour in _COLOURS]
    try:
        pixels: Any = processor(images=images, return_tensors="pt")["pixel_values"]
        shape: Any = tuple(pixels.shape)
    except Exception as error:  # any error of a processor with unusual settings
        pixels, shape = None, error_summary(error)
    if pixels is None or len(shape) != 4 or shape[:2] != (4, 3) or shape[2] != shape[3]:
        raise ModelError(
            f"expected the image processor of {shown(name)} to give square images of shape (4, 3, S, S), got {shape}; "
            "copy the preprocessor_config.json of the model, or choose another model"
        )
    values = pixels[:, :, shape[2] // 2, shape[3] // 2].float()
    return ColourTransform(values[0], (values[1:] - values[0]).T.contiguous(), shape[2])
