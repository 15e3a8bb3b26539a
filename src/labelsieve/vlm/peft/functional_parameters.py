"""Training parameters of the image encoder itself, by copies that stand in for them while attached."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from labelsieve.vlm.peft.target_layers import Encoder, Handle, Undo


class OwnCopies(nn.Module):
    """Trainable copies of some parameters of the image encoder.

    The encoder keeps its own values: they wait while the copies are attached, and are back bit for bit afterwards.
    Copies start equal, so that a fresh module leaves the features as they are.

    Args:
        vlm: The model; nothing in it changes before :meth:`attach`.
        names: Names of the parameters within `vlm.image_encoder`.

    Attributes:
        values: The copies by name, `/` instead of the dots.
    """

    def __init__(self, vlm: Encoder, names: Sequence[str]) -> None:
        super().__init__()
        encoder = vlm.image_encoder
        self.values = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(encoder.get_parameter(name).detach().clone()) for name in names}
        )

    def attach(self, vlm: Encoder) -> list[Handle]:
        """Puts the copies in place; removing the returned handles puts the image encoder's own parameters back."""
        return [_replace(vlm.image_encoder, name.replace("/", "."), copy) for name, copy in self.values.items()]


def _replace(encoder: nn.Module, name: str, copy: nn.Parameter) -> Undo:
    parent, _, leaf = name.rpartition(".")
    own = encoder.get_submodule(parent)._parameters
    original, own[leaf] = own[leaf], copy

    def restore() -> None:
        own[leaf] = original

    return Undo(restore)
