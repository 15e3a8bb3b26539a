"""Full fine-tuning of the image encoder: the baseline of the parameter-efficient modules."""

from __future__ import annotations

import torch

from labelsieve.vlm.peft.functional_parameters import FunctionalParameters
from labelsieve.vlm.peft.target_layers import Encoder, Sizes, unknown_blocks


def build(vlm: Encoder, _sizes: Sizes, _generator: torch.Generator) -> FunctionalParameters:
    """Returns trainable copies of all parameters that :meth:`VisionLanguageModel.pool` uses.

    The projection into the joint space stays frozen, as in the reference of DeFT: text features and zero-shot
    predictions are computed in that space.

    Args:
        vlm: The model.
        _sizes: Not used.
        _generator: Not used.
    """
    return FunctionalParameters(vlm, [name for name, _ in vlm.image_encoder.named_parameters()])


def build_paper(vlm: Encoder, _sizes: Sizes, _generator: torch.Generator) -> FunctionalParameters:
    """Returns trainable copies of the parameters of the transformer blocks, which the reference of DeFT trains.

    Class token, patch and position embeddings and the layer norms outside of the blocks stay frozen.

    Args:
        vlm: The model.
        _sizes: Not used.
        _generator: Not used.

    Raises:
        UnsupportedEncoderError: The image encoder has no blocks.
    """
    in_blocks = {id(value) for layer in vlm.vision_layers for value in layer.parameters()}
    names = [name for name, value in vlm.image_encoder.named_parameters() if id(value) in in_blocks]
    if not names:
        raise unknown_blocks(vlm, peft="full-paper")
    return FunctionalParameters(vlm, names)
