"""Number of trainable parameters of each kind of module."""

from __future__ import annotations

from labelsieve.core.errors import SettingsError
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.target_layers import Encoder, ModuleSpec


def count_trainable(kind: str, vlm: Encoder, *, tokens: int, bottleneck: int) -> tuple[int, float] | None:
    """Counts the trainable parameters of a module.

    Args:
        kind: A name of `PEFT`.
        vlm: The model that it would adapt.
        tokens: L, the number of visual prompts.
        bottleneck: Rank of `lora` and width of `adapter`.

    Returns:
        Number of parameters, and their share of those of the image encoder, between 0 and 1; None if the kind does not
        support the model.
    """
    try:
        module = build_peft(ModuleSpec(kind, tokens, bottleneck), vlm)
    except SettingsError:
        return None
    count = 0 if module is None else sum(value.numel() for value in module.parameters())
    return count, count / sum(value.numel() for value in vlm.image_encoder.parameters())
