"""Scaling and shifting of features (SSF; Lian et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.vlm.peft.target_layers import Block, Encoder, Handle, ModuleSpec, TargetLayer, blocks_of, unknown_blocks


class ScaleShift(nn.Module):
    """Turns the output h of the linear layers of every block into `scale * h + shift`.

    It follows the projections to query, key and value, the attention, and both layers of the MLP, as in the reference
    of DeFT. Scales are initialised to 1 and shifts to 0, so that a new module does not change the features: the first
    wrong labels are detected by the zero-shot model. The original adds noise with a standard deviation of 0.02; it is
    not needed, since there is no symmetry to break.

    Args:
        vlm: The model; not changed before :meth:`attach`.

    Attributes:
        scales: One (features,) for each layer, in the order of the forward pass: query, key, value, attention, MLP.
        shifts: The same.

    Raises:
        UnsupportedEncoderError: The blocks are of an unknown kind, or their attention has no separate layers.
    """

    def __init__(self, vlm: Encoder) -> None:
        super().__init__()
        widths = [target.layer.out_features for target in scaled_layers(vlm)]
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(width)) for width in widths)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)

    def attach(self, vlm: Encoder) -> list[Handle]:
        """Hooks scales and shifts to the layers; removing the returned handles restores the encoder."""

        def hook(index: int) -> Any:
            def change(_module: nn.Module, _args: Any, hidden: Tensor) -> Tensor:
                # in fp32 even under autocast: a scale near 1 has only three digits in bf16
                return torch.addcmul(self.shifts[index], hidden, self.scales[index]).to(hidden.dtype)

            return change

        return [target.layer.register_forward_hook(hook(index)) for index, target in enumerate(scaled_layers(vlm))]

    @torch.no_grad()
    def merge(self, vlm: Encoder) -> None:
        """Merges scale and shift into the layers: W' = diag(scale) W and b' = scale b + shift.

        A layer without bias gets one. The module must not be attached, and is not needed afterwards.
        """
        for target, scale, shift in zip(scaled_layers(vlm), self.scales, self.shifts, strict=True):
            bias = target.layer._parameters["bias"]
            target.layer.weight.mul_(scale[:, None])
            target.layer.bias = nn.Parameter(shift + (0 if bias is None else scale * bias))


def scaled_layers(vlm: Encoder) -> list[TargetLayer]:
    """Returns the layers that :class:`ScaleShift` follows, in the order of the forward pass.

    Raises:
        UnsupportedEncoderError: The blocks are of an unknown kind, or their attention has no separate layers.
    """

    def layers_of(block: Block) -> list[TargetLayer]:
        if block.attention_out is None:
            raise unknown_blocks(vlm, peft="ssf")
        return [*block.attention_in, block.attention_out, block.mlp_in, block.mlp_out]

    return [target for block in blocks_of(vlm, peft="ssf") for target in layers_of(block)]


def build(vlm: Encoder, _spec: ModuleSpec) -> ScaleShift:
    """Builds the module for a model; it starts as the identity."""
    return ScaleShift(vlm)
