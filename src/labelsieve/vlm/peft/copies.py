"""Training parameters of the image encoder itself, by copies that stand in for them while attached."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from labelsieve.vlm.peft.sites import Handle, Tower, Undo


class OwnCopies(nn.Module):
    """Trainable copies of some parameters of the image encoder.

    The tower keeps its own values: they wait while the copies are attached, and are back bit for bit afterwards.
    Copies start equal, so that a fresh module leaves the features as they are.

    Args:
        vlm: The model; nothing in it changes before :meth:`attach`.
        names: Names of the parameters within `vlm.vision_tower`.

    Attributes:
        values: The copies by name, `/` instead of the dots.
    """

    def __init__(self, vlm: Tower, names: Sequence[str]) -> None:
        super().__init__()
        tower = vlm.vision_tower
        self.values = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(tower.get_parameter(name).detach().clone()) for name in names}
        )

    def attach(self, vlm: Tower) -> list[Handle]:
        """Puts the copies in place; removing the returned handles puts the tower's own parameters back."""
        return [_replace(vlm.vision_tower, name.replace("/", "."), copy) for name, copy in self.values.items()]


def _replace(tower: nn.Module, name: str, copy: nn.Parameter) -> Undo:
    parent, _, leaf = name.rpartition(".")
    own = tower.get_submodule(parent)._parameters
    original, own[leaf] = own[leaf], copy

    def restore() -> None:
        own[leaf] = original

    return Undo(restore)
