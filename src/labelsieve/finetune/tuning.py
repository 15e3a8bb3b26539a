"""Which weights of a backbone are trained beside the head.

:mod:`labelsieve.finetune.registry` has the table of ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from labelsieve.core.errors import ModelError
from labelsieve.finetune import modules
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.registry import TUNE
from labelsieve.finetune.settings import Adaptation
from labelsieve.vlm.peft.sequence import block_stacks

Way = Callable[[Backbone, Adaptation, torch.Generator], None]


def train_head(_backbone: Backbone, _settings: Adaptation, _generator: torch.Generator) -> None:
    """Leaves the backbone as it is: the head alone is trained."""


def train_all(backbone: Backbone, _settings: Adaptation, _generator: torch.Generator) -> None:
    """Trains all parameters."""
    backbone.model.requires_grad_(True)


def train_blocks(backbone: Backbone, _settings: Adaptation, _generator: torch.Generator) -> None:
    """Leaves embeddings and outer layer norms, as the published code of DeFT does."""
    for _, module in _stacks(backbone):
        module.requires_grad_(True)


def train_biases(backbone: Backbone, _settings: Adaptation, _generator: torch.Generator) -> None:
    """BitFit (Ben Zaken et al., ACL 2022)."""
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))  # `timm` calls some q_bias and v_bias


def train_low_rank(backbone: Backbone, settings: Adaptation, _generator: torch.Generator) -> None:
    """LoRA (Hu et al., ICLR 2022) beside the linear layers of the blocks; where there are none, beside convolutions."""
    from peft import LoraConfig, inject_adapter_in_model

    inside = {f"{path}.{name}": m for path, module in _stacks(backbone) for name, m in module.named_modules()}
    targets = [name for name, module in inside.items() if isinstance(module, nn.Linear)] or [
        name for name, module in inside.items() if isinstance(module, nn.Conv2d) and module.groups == 1
    ]
    if not targets:
        raise ModelError(f"{backbone.name} has no layers that LoRA can go beside; choose another --tune")
    rank = settings.bottleneck
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), backbone.model)


def train_module(backbone: Backbone, settings: Adaptation, generator: torch.Generator) -> None:
    """A module of phase 1, on the blocks."""
    modules.attach(
        backbone, settings.tune, tokens=settings.visual_prompts, bottleneck=settings.bottleneck, generator=generator
    )


def prepare(backbone: Backbone, settings: Adaptation, *, generator: torch.Generator) -> None:
    """Marks what is trained by `requires_grad`: the head, and what `settings.tune` says of the rest.

    Weights that the forward pass never uses stay out: weight decay would change them for nothing.

    Args:
        backbone: Changed in place.
        settings: Says which way, and how large a module is.
        generator: Draws what LoRA and the modules start from.

    Raises:
        ModelError: The backbone has no blocks, or none with layers for LoRA.
        SettingsError: The module does not go with the backbone.
    """
    backbone.model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # the libraries draw from the global generator
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        TUNE[settings.tune](backbone, settings, generator)
    backbone.head.requires_grad_(True)
    for name, parameter in backbone.model.named_parameters():
        if name in backbone.unused:
            parameter.requires_grad_(False)


def merge(backbone: Backbone) -> None:
    """Merges what can be into the weights of the backbone: then its model is a standard one again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(backbone.model.get_submodule(parent), own, module.get_base_layer())
    modules.merge(backbone)


def _stacks(backbone: Backbone) -> list[tuple[str, Any]]:
    """Returns the stacks of blocks with their names."""
    found = list(block_stacks(backbone.model))
    if not found:
        raise ModelError(f"{backbone.name} has no blocks to tell from the rest; use --tune full, linear or bitfit")
    return found
