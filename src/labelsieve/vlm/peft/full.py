"""Full fine-tuning of the image encoder: no parameter-efficient module, but what these are compared with."""

from __future__ import annotations

import torch

from labelsieve.vlm.peft.functional_parameters import OwnCopies
from labelsieve.vlm.peft.target_layers import Encoder, Sizes, unknown_blocks


def build(vlm: Encoder, _sizes: Sizes, _generator: torch.Generator) -> OwnCopies:
    """Returns trainable copies of all parameters that :meth:`VisionLanguageModel.pool` computes with.

    The projection into the joint space comes after that and stays as it is, as in the reference of DeFT: the text side
    and what the zero-shot model says are measured in that space.
    """
    return OwnCopies(vlm, [name for name, _ in vlm.image_encoder.named_parameters()])


def build_paper(vlm: Encoder, _sizes: Sizes, _generator: torch.Generator) -> OwnCopies:
    """Returns trainable copies of the parameters of the transformer blocks, which the reference of DeFT trains.

    Class token, patch and position embeddings and the layer norms outside of the blocks stay as they are.

    Raises:
        MisfitError: The image encoder has no blocks.
    """
    within = {id(value) for layer in vlm.vision_layers for value in layer.parameters()}
    names = [name for name, value in vlm.image_encoder.named_parameters() if id(value) in within]
    if not names:
        raise unknown_blocks(vlm, peft="full-paper")
    return OwnCopies(vlm, names)
