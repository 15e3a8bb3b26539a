"""Trains parameters of the image encoder through copies that replace them while attached."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from labelsieve.vlm.peft.target_layers import CallbackHandle, Encoder, Handle


class FunctionalParameters(nn.Module):
    """Trainable copies of some parameters of the image encoder.

    The original values are stored while the copies are attached, and restored bit for bit afterwards. Copies start
    equal, so that a new module does not change the features.

    Args:
        vlm: The model; not changed before :meth:`attach`.
        names: Names of the parameters within `vlm.image_encoder`.

    Attributes:
        values: The copies by name, with `/` instead of dots.
    """

    def __init__(self, vlm: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        encoder = vlm.image_encoder
        self.values = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(encoder.get_parameter(name).detach().clone()) for name in names}
        )

    def attach(self, vlm: Encoder) -> list[Handle]:
        """Replaces the parameters by the copies; removing the returned handles restores them."""
        return [_replace(vlm.image_encoder, name.replace("/", "."), copy) for name, copy in self.values.items()]


def _replace(encoder: nn.Module, name: str, copy: nn.Parameter) -> CallbackHandle:
    parent, _, leaf = name.rpartition(".")
    parameters = encoder.get_submodule(parent)._parameters
    original, parameters[leaf] = parameters[leaf], copy

    def restore() -> None:
        parameters[leaf] = original

    return CallbackHandle(restore)
