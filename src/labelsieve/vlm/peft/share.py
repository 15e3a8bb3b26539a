"""How much of a vision tower each kind of module trains."""

from __future__ import annotations

import torch
from torch import nn

from labelsieve.errors import SettingsError
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.sites import BareTower, Tower


def vit_b16() -> Tower:
    """Returns the vision tower of CLIP ViT-B/16, with shapes and no values: nothing is loaded and no memory taken."""
    import transformers

    width, patch = 768, 16
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 12, "patch_size": patch}
    with torch.device("meta"):
        model: nn.Module = transformers.CLIPModel(transformers.CLIPConfig(vision_config=sizes))
    tower = model.get_submodule("vision_model")
    return BareTower("CLIP ViT-B/16", width, patch, tower, list(tower.get_submodule("encoder.layers").children()))


def trainable(kind: str, vlm: Tower, *, tokens: int, bottleneck: int) -> tuple[int, float] | None:
    """Counts what a module trains.

    Args:
        kind: A name of `PEFT`.
        vlm: The model that it would adapt.
        tokens: L, the number of visual prompts.
        bottleneck: Rank of `lora` and width of `adapter`.

    Returns:
        Number of values, and their share of the values of the vision tower, between 0 and 1; None where the kind does
        not go with the model.
    """
    try:
        module = build_peft(kind, vlm, tokens=tokens, bottleneck=bottleneck, generator=torch.Generator())
    except SettingsError:
        return None
    count = 0 if module is None else sum(value.numel() for value in module.parameters())
    return count, count / sum(value.numel() for value in vlm.vision_tower.parameters())
