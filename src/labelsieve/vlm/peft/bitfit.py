"""Training the biases alone (BitFit; Ben Zaken et al., ACL 2022)."""

from __future__ import annotations

import torch

from labelsieve.core.errors import shown
from labelsieve.vlm.peft.functional_parameters import FunctionalParameters
from labelsieve.vlm.peft.target_layers import Encoder, Sizes, UnsupportedEncoderError


def build(vlm: Encoder, _sizes: Sizes, _generator: torch.Generator) -> FunctionalParameters:
    """Returns trainable copies of all biases of the image encoder: of linear layers and of layer norms.

    Args:
        vlm: The model.
        _sizes: Not used.
        _generator: Not used.

    Raises:
        UnsupportedEncoderError: The image encoder has no biases.
    """
    names = [name for name, _ in vlm.image_encoder.named_parameters() if name.endswith("bias")]
    if not names:
        raise UnsupportedEncoderError(
            f"--peft bitfit trains biases, and the image encoder of {shown(vlm.name)} has none"
        )
    return FunctionalParameters(vlm, names)
