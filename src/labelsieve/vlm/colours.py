"""What an image processor does to colours, and which size it makes, found out by trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from labelsieve.core.errors import ModelError, shown
from labelsieve.vlm.pretrained import first_line

_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))


@dataclass(frozen=True, eq=False)
class Colours:
    """What a processor does to colours: an affine map, whatever its steps are and in whatever order.

    Attributes:
        offset: (3,): what it makes of black.
        matrix: (3, 3): what it adds for full red, green and blue.
        side: Of the square images that it makes, in pixels.
    """

    offset: Tensor
    matrix: Tensor
    side: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """Maps RGB pixels between 0 and 1: (B, 3, S, S) to (B, 3, S, S)."""
        mixed = torch.einsum("oc,bchw->bohw", self.matrix.to(pixels), pixels)
        return mixed + self.offset.to(pixels).view(1, 3, 1, 1)


def read_colours(processor: Any, name: str) -> Colours:
    """Finds out what the processor of a model does to images of one colour.

    Args:
        processor: An image processor of `transformers`.
        name: Of the model, for the error.

    Raises:
        ModelError: The processor makes no square images of three colours.
    """
    images = [Image.new("RGB", (40, 30), colour) for colour in _COLOURS]
    try:
        made: Any = processor(images=images, return_tensors="pt")["pixel_values"]
        shape: Any = tuple(made.shape)
    except Exception as error:  # whatever a processor with odd settings raises
        made, shape = None, first_line(error)
    if made is None or len(shape) != 4 or shape[:2] != (4, 3) or shape[2] != shape[3]:
        raise ModelError(
            f"expected the image processor of {shown(name)} to give square images of shape (4, 3, S, S), got {shape}; "
            "copy the preprocessor_config.json of the model, or choose another model"
        )
    values = made[:, :, shape[2] // 2, shape[3] // 2].float()
    return Colours(values[0], (values[1:] - values[0]).T.contiguous(), shape[2])
