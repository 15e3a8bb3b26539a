"""Bottleneck adapters behind the MLP of each block (AdaptFormer, Chen et al., NeurIPS 2022; the form of LIFT)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from labelsieve.vlm.peft.target_layers import Encoder, Handle, ModuleSpec, blocks_of


class Adapter(nn.Module):
    """Adds `up(relu(down(norm(h))))` to the output h of the MLP of every block, before the block's residual sum.

    This is the adapter of LIFT (Shi et al., ICML 2024), which the reference of DeFT adopted; AdaptFormer takes the
    input of the MLP instead. `up` is initialised to 0, so that a new module does not change the features.

    Args:
        vlm: The model; not changed before :meth:`attach`.
        width: Of the bottleneck, at least 1.
        generator: Source of the initial weights of `down`, Kaiming-normal with a = sqrt 5 as in LIFT.
        skip: Whether to add h. Without it the adapter replaces the output of the MLP, which is then 0 in a new module,
            as in the reference of DeFT; for parity.

    Attributes:
        blocks: For each block `norm`, `down` (vision_width to width) and `up` (width to vision_width).

    Raises:
        UnsupportedEncoderError: The blocks are of an unknown kind.
    """

    def __init__(self, vlm: Encoder, *, width: int, generator: torch.Generator, skip: bool = True) -> None:
        super().__init__()
        self.skip = skip
        targets = [block.mlp_out for block in blocks_of(vlm, peft="adapter")]
        self.blocks = nn.ModuleList(_bottleneck(target.layer.out_features, width, generator) for target in targets)

    def attach(self, vlm: Encoder) -> list[Handle]:
        """Hooks the adapters to the outputs of the MLPs; removing the returned handles restores the encoder."""

        def hook(parts: Any) -> Any:
            def adapt(_module: nn.Module, _args: Any, hidden: Tensor) -> Tensor:
                change = parts["up"](relu(parts["down"](parts["norm"](hidden)))).to(hidden.dtype)
                return hidden + change if self.skip else change  # type: ignore[no-any-return]

            return adapt

        targets = [block.mlp_out for block in blocks_of(vlm, peft="adapter")]
        pairs = zip(targets, self.blocks, strict=True)
        return [target.layer.register_forward_hook(hook(parts)) for target, parts in pairs]


def _bottleneck(outer: int, width: int, generator: torch.Generator) -> nn.ModuleDict:
    down, up = nn.utils.skip_init(nn.Linear, outer, width), nn.utils.skip_init(nn.Linear, width, outer)
    nn.init.kaiming_normal_(down.weight, a=math.sqrt(5), generator=generator)
    for zero in (down.bias, up.weight, up.bias):
        nn.init.zeros_(zero)
    return nn.ModuleDict({"norm": nn.LayerNorm(outer), "down": down, "up": up})


def build(vlm: Encoder, spec: ModuleSpec) -> Adapter:
    """Builds the module for a model; the bottleneck is the width."""
    return Adapter(vlm, width=spec.bottleneck, generator=spec.generator)
