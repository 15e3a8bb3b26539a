"""Low-rank adaptation (Hu et al., ICLR 2022), by the layers of the `peft` library."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from labelsieve.vlm.peft.target_layers import Block, Encoder, Handle, Site, Sizes, Undo, blocks_of, unknown_blocks

_NAME = "default"
"""What `peft` calls a single adapter."""


class LoRA(nn.Module):
    """Adds `x A B / rank` to the query and value projection `x W + b` of every block (Hu et al., Eq. 3).

    While attached, layers of `peft` stand in the places of the projections and call them. A starts Kaiming-uniform,
    `U(±1/sqrt(width))`, and B at 0, so that a fresh module leaves the features as they are.

    Args:
        vlm: The model; nothing in it changes before :meth:`attach`.
        rank: Columns of A and rows of B, at least 1.
        generator: Source of A.

    Attributes:
        blocks: For each block `query` and `value`, each with `A`, weight (rank, width), and `B`, weight (width, rank).

    Raises:
        MisfitError: The blocks are of an unknown kind, or have no query and value projections of their own.
    """

    def __init__(self, vlm: Encoder, *, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        # in a tuple, which registers nothing: the projections that they wrap are not ours to train or save
        self._layers = tuple(tuple(_wrap(site, rank, generator) for site in pair) for pair in _sites(vlm))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: _trained(layer) for name, layer in zip(("query", "value"), pair, strict=True)})
            for pair in self._layers
        )

    def attach(self, vlm: Encoder) -> list[Handle]:
        """Puts the layers in place; removing the returned handles puts the model's own ones back."""
        pairs = zip(_sites(vlm), self._layers, strict=True)
        return [_replace(site, layer) for sites, layers in pairs for site, layer in zip(sites, layers, strict=True)]


def _sites(vlm: Encoder) -> list[tuple[Site, Site]]:
    def pair(block: Block) -> tuple[Site, Site]:
        if len(block.attention_in) != 3:
            raise unknown_blocks(vlm, peft="lora")
        return block.attention_in[0], block.attention_in[2]

    return [pair(block) for block in blocks_of(vlm, peft="lora")]


def _wrap(site: Site, rank: int, generator: torch.Generator) -> Any:
    """Makes a layer of `peft` around a projection, which stays where it is."""
    from peft import LoraConfig, inject_adapter_in_model  # slow to load, and seldom asked for

    box = nn.ModuleDict({"projection": site.layer})
    with torch.random.fork_rng(devices=[]):  # it draws values too, which are replaced below
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=1, target_modules=["projection"]), box)
    layer: Any = box["projection"]
    weight = layer.lora_A[_NAME].weight
    values = nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        weight.copy_(values)
    return layer


def _trained(layer: Any) -> nn.ModuleDict:
    return nn.ModuleDict({"A": layer.lora_A[_NAME], "B": layer.lora_B[_NAME]})


def _replace(site: Site, layer: Any) -> Undo:
    original = site.layer
    layer.base_layer = original
    setattr(site.parent, site.name, layer)
    return Undo(lambda: setattr(site.parent, site.name, original))


def build(vlm: Encoder, sizes: Sizes, generator: torch.Generator) -> LoRA:
    """Makes the module for a model."""
    return LoRA(vlm, rank=sizes.bottleneck, generator=generator)
