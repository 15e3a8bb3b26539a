"""Visual prompt tuning (Jia et al., ECCV 2022): learned tokens next to the patches of a frozen vision transformer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.core.errors import setting, shown
from labelsieve.vlm.peft.target_layers import Encoder, ModuleSpec, UnsupportedEncoderError


class VisualPrompts(nn.Module):
    """L learned tokens that are appended to the sequence of class token and patches.

    Deep prompts are replaced in each block: the sequence is cut to its original tokens, and the L prompts of the block
    are appended. Shallow prompts are appended in the first block and stay. They get no position embedding and skip the
    layer norm before the blocks. After the last block the sequence has its original length again.

    Args:
        vlm: The model whose image encoder is prompted; its modules are not changed.
        tokens: L, at least 0; with 0 nothing is attached.
        deep: Whether each block has separate prompts.
        generator: Source of the initial values, uniform in ±sqrt(6 / (3 p² + width)), p the patch size.

    Raises:
        UnsupportedEncoderError: The image encoder has no transformer blocks.
    """

    def __init__(self, vlm: Encoder, *, tokens: int, deep: bool, generator: torch.Generator) -> None:
        super().__init__()
        if not len(vlm.vision_layers):
            raise UnsupportedEncoderError(
                f"{setting('peft')} {'vpt-deep' if deep else 'vpt-shallow'} needs a vision transformer whose blocks "
                f"take one sequence of tokens, and the image encoder of {shown(vlm.name)} is none"
            )
        layers = len(vlm.vision_layers) if deep else 1
        bound = math.sqrt(6.0 / (3 * vlm.patch_size**2 + vlm.vision_width))
        values = torch.rand(layers, tokens, vlm.vision_width, generator=generator)
        self.prompts = nn.Parameter((2 * values - 1) * bound)

    def attach(self, vlm: Encoder) -> list[torch.utils.hooks.RemovableHandle]:
        """Adds the prompts to the image encoder; removing the returned handles restores it."""
        if self.prompts.shape[1] == 0:
            return []
        layers, length = list(vlm.vision_layers), 0

        def enter(index: int) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
                nonlocal length
                hidden = args[0]
                length = hidden.shape[1] if index == 0 else length
                prompts = self.prompts[index].to(hidden.dtype).expand(len(hidden), -1, -1)
                return (torch.cat([hidden[:, :length], prompts], dim=1), *args[1:])

            return hook

        def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return output[:, :length]
            return (output[0][:, :length], *output[1:])  # those of Data2Vec return a tuple

        handles = [layers[index].register_forward_pre_hook(enter(index)) for index in range(len(self.prompts))]
        return [*handles, layers[-1].register_forward_hook(leave)]


def build_deep(vlm: Encoder, spec: ModuleSpec) -> VisualPrompts | None:
    """Builds prompts for each block of a model; None for 0 tokens."""
    return VisualPrompts(vlm, tokens=spec.tokens, deep=True, generator=spec.generator) if spec.tokens else None


def build_shallow(vlm: Encoder, spec: ModuleSpec) -> VisualPrompts | None:
    """Builds prompts for the first block of a model; None for 0 tokens."""
    return VisualPrompts(vlm, tokens=spec.tokens, deep=False, generator=spec.generator) if spec.tokens else None
