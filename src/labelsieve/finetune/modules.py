"""The modules of phase 1 on a backbone: its blocks as an encoder, a module that stays attached, and what merges."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.core.errors import LabelsieveError, SettingsError
from labelsieve.finetune.backbones import Backbone
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.sequence import block_stacks, patch_size_of, sequence_blocks
from labelsieve.vlm.peft.ssf import ScaleShift, scaled_layers
from labelsieve.vlm.peft.target_layers import BareEncoder

# Where the module hangs in the model: as a part of it, it is trained, summed over processes and kept like the rest.
NAME = "module_of_tune"
_PROMPTS = ("vpt-deep", "vpt-shallow")


class Attached(nn.Module):
    """A module that is attached until it is removed.

    Args:
        module: The module.
        encoder: Where it attaches.

    Attributes:
        module: The same.
        encoder: The same.
    """

    def __init__(self, module: Any, encoder: BareEncoder) -> None:
        super().__init__()
        self.module, self.encoder = module, encoder
        self._handles = module.attach(encoder)

    def remove(self) -> None:
        """Leaves the image encoder as it was."""
        for handle in self._handles:
            handle.remove()


def attach(backbone: Backbone, kind: str, *, tokens: int, bottleneck: int, generator: torch.Generator) -> None:
    """Attaches a fresh module to the blocks of a backbone, as a part of its model.

    Args:
        backbone: Changed in place; its own weights are not.
        kind: A name of `PEFT`.
        tokens: L, the number of visual prompts, at least 1.
        bottleneck: Width of `adapter`, at least 1.
        generator: Source of the initial values.

    Raises:
        SettingsError: The module has no place in the backbone; or it cannot be merged later, though it should.
    """
    encoder = _encoder(backbone, prompted=kind in _PROMPTS)
    try:
        module: Any = build_peft(kind, encoder, tokens=tokens, bottleneck=bottleneck, generator=generator)
    except SettingsError as error:  # in the words of phase 1
        raise _unfit(backbone, kind) from error
    if isinstance(module, ScaleShift) and _merged_configuration(backbone, encoder) is None:
        raise SettingsError(
            f"--tune {kind} merges into the biases of linear layers, and some of {backbone.name} cannot have one; "
            "use --tune lora, bitfit or full"
        )
    backbone.model.add_module(NAME, Attached(module.to(backbone.device), encoder))


def merge(backbone: Backbone) -> None:
    """Merges scales and shifts into the layers in front of them; visual prompts and adapters stay attached."""
    part = getattr(backbone.model, NAME, None)
    if part is None or not isinstance(part.module, ScaleShift):
        return
    backbone.model.config = _merged_configuration(backbone, part.encoder)
    _detach(backbone)
    part.module.merge(part.encoder)


def _detach(backbone: Backbone) -> None:
    getattr(backbone.model, NAME).remove()
    delattr(backbone.model, NAME)


def _encoder(backbone: Backbone, *, prompted: bool) -> BareEncoder:
    """Returns a backbone as what modules attach to; visual prompts want the blocks of one sequence of tokens."""

    def run() -> Tensor:
        side = backbone.image_size
        return backbone.logits(torch.zeros(1, 3, side, side, device=backbone.device))

    blocks, width = sequence_blocks(backbone.model, run) if prompted else ((), backbone.vision_width)
    return BareEncoder(backbone.name, width, patch_size_of(backbone.model), backbone.model, blocks, run)


def _merged_configuration(backbone: Backbone, encoder: BareEncoder) -> Any:
    """Returns the configuration of the model with merged shifts; None where no such model has all biases."""
    model, layers = backbone.model, {id(site.layer) for site in scaled_layers(encoder) if site.layer.bias is None}
    config = copy.deepcopy(model.config)
    new = {f"{name}.bias" for name, part in model.named_modules() if id(part) in layers}
    if not new:
        return config
    if backbone.kind == "timm_wrapper":
        config.model_args = {**(config.model_args or {}), "qkv_bias": True}
    else:
        config.qkv_bias = True
    with suppress(Exception), torch.device("meta"):  # an option that `timm` does not know for this model
        return config if new <= set(type(model)(config).state_dict()) else None
    return None


def _unfit(backbone: Backbone, kind: str) -> LabelsieveError:
    if kind in _PROMPTS:
        why = f"needs a vision transformer whose blocks share one sequence of tokens, and {backbone.name} is none"
    else:
        first = next(
            (type(part).__name__ for _, stack in block_stacks(backbone.model) for part in stack), "it has none"
        )
        why = f"does not know the blocks of {backbone.name} ({first})"
    return SettingsError(f"--tune {kind} {why}; use --tune lora, bitfit or full")
