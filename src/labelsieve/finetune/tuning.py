"""Selects the weights of a backbone that are trained in addition to the head.

:mod:`labelsieve.finetune.registry` lists the choices of `--tune`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from labelsieve.core.errors import ModelError, setting
from labelsieve.finetune import peft_modules
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.registry import TUNE
from labelsieve.finetune.settings import Adaptation
from labelsieve.vlm.peft.sequence import block_stacks
from labelsieve.vlm.peft.target_layers import ModuleSpec


def train_head(_backbone: Backbone, _spec: ModuleSpec) -> None:
    """Trains only the head, which :func:`prepare` does in any case."""


def train_all(backbone: Backbone, _spec: ModuleSpec) -> None:
    """Trains all parameters."""
    backbone.model.requires_grad_(True)


def train_blocks(backbone: Backbone, _spec: ModuleSpec) -> None:
    """Trains the blocks, without embeddings and outer layer norms, as the published code of DeFT does."""
    for _, module in _stacks(backbone):
        module.requires_grad_(True)


def train_biases(backbone: Backbone, _spec: ModuleSpec) -> None:
    """BitFit (Ben Zaken et al., ACL 2022)."""
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))  # `timm` calls some q_bias and v_bias


def train_low_rank(backbone: Backbone, spec: ModuleSpec) -> None:
    """LoRA (Hu et al., ICLR 2022) on the linear layers of the blocks; if there are none, on convolutions.

    The matrices become part of the model. The library draws from the global generator, which :func:`prepare` seeds.
    """
    from peft import LoraConfig, inject_adapter_in_model

    block_modules = {f"{path}.{name}": m for path, module in _stacks(backbone) for name, m in module.named_modules()}
    targets = [name for name, module in block_modules.items() if isinstance(module, nn.Linear)] or [
        name for name, module in block_modules.items() if isinstance(module, nn.Conv2d) and module.groups == 1
    ]
    if not targets:
        raise ModelError(f"{backbone.name} has no layers that LoRA can go beside; choose another {setting('tune')}")
    rank = spec.bottleneck
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), backbone.model)


def prepare(backbone: Backbone, settings: Adaptation, *, generator: torch.Generator) -> None:
    """Sets `requires_grad` of the trained weights: the head, and those that `settings.tune` selects.

    Weights that the forward pass does not use are not trained, since weight decay would change them.

    Args:
        backbone: Changed in place.
        settings: Has `tune` and the size of modules.
        generator: Source of the initial values of LoRA and the modules.

    Raises:
        ModelError: The backbone has no blocks, or none with layers for LoRA.
        SettingsError: The backbone does not support the module.
    """
    backbone.model.requires_grad_(False)
    spec = ModuleSpec(settings.tune, settings.visual_prompts, settings.bottleneck, generator)
    with torch.random.fork_rng(devices=[]):  # the libraries draw from the global generator
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        TUNE[settings.tune](backbone, spec)
    backbone.head.requires_grad_(True)
    for name, parameter in backbone.model.named_parameters():
        if name in backbone.unused:
            parameter.requires_grad_(False)


def merge(backbone: Backbone) -> None:
    """Merges LoRA and modules into the weights of the backbone, if possible: the model is then a standard one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, name_in_parent = name.rpartition(".")
            setattr(backbone.model.get_submodule(parent), name_in_parent, module.get_base_layer())
    peft_modules.merge(backbone)


def _stacks(backbone: Backbone) -> list[tuple[str, Any]]:
    """Returns the stacks of blocks with their names."""
    stacks = list(block_stacks(backbone.model))
    if not stacks:
        raise ModelError(
            f"{backbone.name} has no blocks to tell from the rest; use {setting('tune')} full, linear or bitfit"
        )
    return stacks
