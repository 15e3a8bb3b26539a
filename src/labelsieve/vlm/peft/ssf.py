"""Scaling and shifting of features (SSF; Lian et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.vlm.peft.target_layers import Block, Encoder, Handle, Site, Sizes, blocks_of, unknown_blocks


class ScaleShift(nn.Module):
    """Turns the output h of the linear layers of every block into `scale * h + shift`.

    It sits behind the projections to query, key and value, behind the attention, and behind both layers of the MLP, as
    in the reference of DeFT. Scales start at 1 and shifts at 0, so that a fresh module leaves the features as they
    are: what the zero-shot model knows is what wrong labels are first detected by. The original draws both with a
    standard deviation of 0.02 around that; each number has a gradient of its own, so there is no symmetry to break.

    Args:
        vlm: The model; nothing in it changes before :meth:`attach`.

    Attributes:
        scales: One (features,) for each layer, in the order of a pass: query, key, value, attention, MLP.
        shifts: The same.

    Raises:
        MisfitError: The blocks are of an unknown kind, or their attention has no layers of its own.
    """

    def __init__(self, vlm: Encoder) -> None:
        super().__init__()
        widths = [site.layer.out_features for site in scaled_layers(vlm)]
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(width)) for width in widths)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)

    def attach(self, vlm: Encoder) -> list[Handle]:
        """Lets the layers' outputs pass the module; removing the returned handles leaves the encoder as it was."""

        def hook(index: int) -> Any:
            def change(_module: nn.Module, _args: Any, hidden: Tensor) -> Tensor:
                # in fp32 even under autocast: a scale near 1 has only three digits in bf16
                return torch.addcmul(self.shifts[index], hidden, self.scales[index]).to(hidden.dtype)

            return change

        return [site.layer.register_forward_hook(hook(index)) for index, site in enumerate(scaled_layers(vlm))]

    @torch.no_grad()
    def merge(self, vlm: Encoder) -> None:
        """Folds scale and shift into the layers for good: W' = diag(scale) W and b' = scale b + shift.

        A layer without bias gets one. The module must not be attached, and does nothing from then on that the layers do
        not do themselves.
        """
        for site, scale, shift in zip(scaled_layers(vlm), self.scales, self.shifts, strict=True):
            bias = site.layer._parameters["bias"]
            site.layer.weight.mul_(scale[:, None])
            site.layer.bias = nn.Parameter(shift + (0 if bias is None else scale * bias))


def scaled_layers(vlm: Encoder) -> list[Site]:
    """Finds the layers that :class:`ScaleShift` sits behind, in the order of a pass.

    Raises:
        MisfitError: The blocks are of an unknown kind, or their attention has no layers of its own.
    """

    def of(block: Block) -> list[Site]:
        if block.attention_out is None:
            raise unknown_blocks(vlm, peft="ssf")
        return [*block.attention_in, block.attention_out, block.mlp_in, block.mlp_out]

    return [site for block in blocks_of(vlm, peft="ssf") for site in of(block)]


def build(vlm: Encoder, _sizes: Sizes, _generator: torch.Generator) -> ScaleShift:
    """Makes the module for a model; it starts as the identity."""
    return ScaleShift(vlm)
