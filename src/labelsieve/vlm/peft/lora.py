"""Low-rank adaptation (Hu et al., ICLR 2022), with layers of the `peft` library."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from labelsieve.vlm.peft.target_layers import (
    Block,
    CallbackHandle,
    Encoder,
    Handle,
    ModuleSpec,
    TargetLayer,
    blocks_of,
    unknown_blocks,
)

_NAME = "default"
"""Name of a single adapter in `peft`."""


class LoRA(nn.Module):
    """Adds `x A B / rank` to the query and value projection `x W + b` of every block (Hu et al., Eq. 3).

    While attached, layers of `peft` replace the projections and call them. A is initialised Kaiming-uniform,
    `U(±1/sqrt(width))`, and B to 0, so that a new module does not change the features.

    Args:
        vlm: The model; not changed before :meth:`attach`.
        rank: Columns of A and rows of B, at least 1.
        generator: Source of A.

    Attributes:
        blocks: For each block `query` and `value`, each with `A`, weight (rank, width), and `B`, weight (width, rank).

    Raises:
        UnsupportedEncoderError: The blocks are of an unknown kind, or have no separate query and value projections.
    """

    def __init__(self, vlm: Encoder, *, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        # in a tuple, so that the wrapped projections are not registered, trained or saved
        self._layers = tuple(tuple(_wrap(target, rank, generator) for target in pair) for pair in _query_and_value(vlm))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: _trained(layer) for name, layer in zip(("query", "value"), pair, strict=True)})
            for pair in self._layers
        )

    def attach(self, vlm: Encoder) -> list[Handle]:
        """Replaces the projections by the layers; removing the returned handles restores them."""
        pairs = zip(_query_and_value(vlm), self._layers, strict=True)
        return [
            _replace(target, layer) for targets, layers in pairs for target, layer in zip(targets, layers, strict=True)
        ]


def _query_and_value(vlm: Encoder) -> list[tuple[TargetLayer, TargetLayer]]:
    def pair(block: Block) -> tuple[TargetLayer, TargetLayer]:
        if len(block.attention_in) != 3:
            raise unknown_blocks(vlm, peft="lora")
        return block.attention_in[0], block.attention_in[2]

    return [pair(block) for block in blocks_of(vlm, peft="lora")]


def _wrap(target: TargetLayer, rank: int, generator: torch.Generator) -> Any:
    """Wraps a projection in a layer of `peft`, without replacing it in the model."""
    from peft import LoraConfig, inject_adapter_in_model  # slow to import, and rarely needed

    box = nn.ModuleDict({"projection": target.layer})
    with torch.random.fork_rng(devices=[]):  # it also draws initial values, which are replaced below
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=1, target_modules=["projection"]), box)
    layer: Any = box["projection"]
    weight = layer.lora_A[_NAME].weight
    values = nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        weight.copy_(values)
    return layer


def _trained(layer: Any) -> nn.ModuleDict:
    return nn.ModuleDict({"A": layer.lora_A[_NAME], "B": layer.lora_B[_NAME]})


def _replace(target: TargetLayer, layer: Any) -> CallbackHandle:
    original = target.layer
    layer.base_layer = original
    setattr(target.parent, target.name, layer)
    return CallbackHandle(lambda: setattr(target.parent, target.name, original))


def build(vlm: Encoder, spec: ModuleSpec) -> LoRA:
    """Builds the module for a model; the bottleneck is the rank."""
    return LoRA(vlm, rank=spec.bottleneck, generator=spec.generator)
