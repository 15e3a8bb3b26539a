"""Parameter-efficient modules on a backbone: attaching and merging them."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.core.errors import LabelsieveError, SettingsError, setting
from labelsieve.finetune.backbones import Backbone
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.registry import PEFT
from labelsieve.vlm.peft.sequence import block_stacks, patch_size_of, sequence_blocks
from labelsieve.vlm.peft.ssf import ScaleShift, scaled_layers
from labelsieve.vlm.peft.target_layers import BareEncoder, ModuleSpec

# Name of the module in the model: as a submodule it is trained, synchronised and saved like the rest.
SUBMODULE = "module_of_tune"


class AttachedModule(nn.Module):
    """A module that is attached until it is removed.

    Args:
        module: The module.
        encoder: The encoder that it is attached to.
        merges: Whether it is merged into the weights at the end.
    """

    def __init__(self, module: Any, encoder: BareEncoder, *, merges: bool) -> None:
        super().__init__()
        self.module, self.encoder, self.merges = module, encoder, merges
        self._handles = module.attach(encoder)

    def remove(self) -> None:
        """Detaches the module from the encoder."""
        for handle in self._handles:
            handle.remove()


def attach(backbone: Backbone, spec: ModuleSpec) -> None:
    """Attaches a new module to the blocks of a backbone, as a submodule of its model.

    The weights of the backbone do not change.

    Raises:
        SettingsError: The backbone does not support the module, or does not support merging it.
    """
    kind, entry = spec.kind, PEFT.entries[spec.kind]
    encoder, merges = _encoder(backbone, prompted=entry.is_prompted), entry.phase_2 == "merged"
    try:
        module: Any = build_peft(spec, encoder)
    except SettingsError as error:  # its message names options of phase 1
        raise _unsupported_error(backbone, kind) from error
    if isinstance(module, ScaleShift) and _merged_configuration(backbone, encoder) is None:
        raise SettingsError(
            f"{setting('tune')} {kind} merges into the biases of linear layers, and some of {backbone.name} cannot "
            f"have one; use {setting('tune')} lora, bitfit or full"
        )
    backbone.model.add_module(SUBMODULE, AttachedModule(module.to(backbone.device), encoder, merges=merges))


def merge(backbone: Backbone) -> None:
    """Merges a module that can be merged into the weights; visual prompts and adapters stay attached."""
    part = getattr(backbone.model, SUBMODULE, None)
    if part is None or not part.merges:
        return
    if isinstance(part.module, ScaleShift):  # which gives layers a bias
        backbone.model.config = _merged_configuration(backbone, part.encoder)
    _detach(backbone)
    part.module.merge(part.encoder)


def _detach(backbone: Backbone) -> None:
    getattr(backbone.model, SUBMODULE).remove()
    delattr(backbone.model, SUBMODULE)


def _encoder(backbone: Backbone, *, prompted: bool) -> BareEncoder:
    """Returns the encoder to attach to; visual prompts need blocks with one sequence of tokens."""

    def run() -> Tensor:
        side = backbone.image_size
        return backbone.logits(torch.zeros(1, 3, side, side, device=backbone.device))

    blocks, width = sequence_blocks(backbone.model, run) if prompted else ((), backbone.vision_width)
    return BareEncoder(backbone.name, width, patch_size_of(backbone.model), backbone.model, blocks, run)


def _merged_configuration(backbone: Backbone, encoder: BareEncoder) -> Any:
    """Returns the configuration after merging shifts; None if the architecture cannot have all biases."""
    model, layers = backbone.model, {id(target.layer) for target in scaled_layers(encoder) if target.layer.bias is None}
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


def _unsupported_error(backbone: Backbone, kind: str) -> LabelsieveError:
    if PEFT.entries[kind].is_prompted:
        why = f"needs a vision transformer whose blocks share one sequence of tokens, and {backbone.name} is none"
    else:
        first = next(
            (type(part).__name__ for _, stack in block_stacks(backbone.model) for part in stack), "it has none"
        )
        why = f"does not know the blocks of {backbone.name} ({first})"
    return SettingsError(f"{setting('tune')} {kind} {why}; use {setting('tune')} lora, bitfit or full")
