"""Full fine-tuning of the image encoder: the baseline of the parameter-efficient modules."""

from __future__ import annotations

from labelsieve.vlm.peft.functional_parameters import FunctionalParameters
from labelsieve.vlm.peft.target_layers import Encoder, ModuleSpec, unknown_blocks


def build(vlm: Encoder, _spec: ModuleSpec) -> FunctionalParameters:
    """Returns trainable copies of all parameters that :meth:`VisionLanguageModel.pool` uses.

    The projection into the joint space stays frozen, as in the reference of DeFT: text features and zero-shot
    predictions are computed in that space.
    """
    return FunctionalParameters(vlm, [name for name, _ in vlm.image_encoder.named_parameters()])


def build_paper(vlm: Encoder, _spec: ModuleSpec) -> FunctionalParameters:
    """Returns trainable copies of the parameters of the transformer blocks, which the reference of DeFT trains.

    Class token, patch and position embeddings and the layer norms outside of the blocks stay frozen.

    Raises:
        UnsupportedEncoderError: The image encoder has no blocks.
    """
    in_blocks = {id(value) for layer in vlm.vision_layers for value in layer.parameters()}
    names = [name for name, value in vlm.image_encoder.named_parameters() if id(value) in in_blocks]
    if not names:
        raise unknown_blocks(vlm, peft="full-paper")
    return FunctionalParameters(vlm, names)
