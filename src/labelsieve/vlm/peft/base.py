"""What a parameter-efficient module is, and the table of kinds.

A new kind is one file and one line in `PEFT`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from labelsieve.errors import SettingsError, did_you_mean
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.peft.vpt import VisualPrompts


class Peft(Protocol):
    """Trainable parameters that attach to the frozen vision tower by hooks and leave no trace when detached."""

    def attach(self, vlm: VisionLanguageModel) -> list[torch.utils.hooks.RemovableHandle]:
        """Attaches to the vision tower; removing all returned handles restores it bit for bit."""
        ...


PEFT: dict[str, Callable[[VisionLanguageModel, int, torch.Generator], Peft] | None] = {
    "none": None,
    "vpt-deep": lambda vlm, tokens, generator: VisualPrompts(vlm, tokens=tokens, deep=True, generator=generator),
    "vpt-shallow": lambda vlm, tokens, generator: VisualPrompts(vlm, tokens=tokens, deep=False, generator=generator),
}


def build_peft(kind: str, vlm: VisionLanguageModel, *, tokens: int, generator: torch.Generator) -> Peft | None:
    """Builds a module of the given kind, or None where the tower stays as it is.

    Args:
        kind: A name of `PEFT`.
        vlm: The model to adapt.
        tokens: L, the number of visual prompts.
        generator: Source of the initial values.

    Raises:
        SettingsError: There is no such kind.
    """
    if kind not in PEFT:
        raise SettingsError(f"expected --peft to be one of {', '.join(PEFT)}, got {kind}{did_you_mean(kind, PEFT)}")
    factory = PEFT[kind]
    return None if factory is None or tokens == 0 else factory(vlm, tokens, generator)
