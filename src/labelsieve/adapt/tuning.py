"""Which weights of a backbone are trained beside the head.

A new way is one function and one line in `TUNE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from labelsieve.adapt.backbones import Backbone
from labelsieve.errors import ModelError

# Of the generator that draws what LoRA starts from.
INITIAL = 21


def _nothing(backbone: Backbone, *, rank: int) -> None:
    del rank


def _everything(backbone: Backbone, *, rank: int) -> None:
    del rank
    backbone.model.requires_grad_(True)


def _blocks(backbone: Backbone, *, rank: int) -> None:
    """Leaves embeddings and outer layer norms, as the published code of DeFT does."""
    del rank
    for _, module in _outer_lists(backbone):
        module.requires_grad_(True)


def _biases(backbone: Backbone, *, rank: int) -> None:
    """BitFit (Ben Zaken et al., ACL 2022)."""
    del rank
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(name.split(".")[-1] == "bias")


def _lora(backbone: Backbone, *, rank: int) -> None:
    """LoRA (Hu et al., ICLR 2022) beside the linear layers of the blocks; where there are none, beside convolutions."""
    from peft import LoraConfig, inject_adapter_in_model

    inside = {f"{path}.{name}": m for path, module in _outer_lists(backbone) for name, m in module.named_modules()}
    targets = [name for name, module in inside.items() if isinstance(module, nn.Linear)] or [
        name for name, module in inside.items() if isinstance(module, nn.Conv2d) and module.groups == 1
    ]
    if not targets:
        raise ModelError(f"{backbone.name} has no layers that LoRA can go beside; choose another --tune")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), backbone.model)


TUNE: dict[str, Callable[..., None]] = {
    "full": _everything,
    "linear": _nothing,
    "paper": _blocks,
    "lora": _lora,
    "bitfit": _biases,
}


def prepare(backbone: Backbone, tune: str, *, rank: int, generator: torch.Generator) -> None:
    """Marks what is trained by `requires_grad`: the head, and what `tune` says of the rest.

    Weights that the forward pass never uses stay out: weight decay would change them for nothing.

    Args:
        backbone: Changed in place.
        tune: A name of `TUNE`.
        rank: Of LoRA.
        generator: Draws what LoRA starts from.
    """
    backbone.model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # the libraries draw from the global generator
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        TUNE[tune](backbone, rank=rank)
    backbone.head.requires_grad_(True)
    for name, parameter in backbone.model.named_parameters():
        if name in backbone.unused:
            parameter.requires_grad_(False)


def merge(backbone: Backbone) -> None:
    """Merges low-rank matrices into the weights they stand beside, so that the model is a standard one again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(backbone.model.get_submodule(parent), own, module.get_base_layer())


def _outer_lists(backbone: Backbone) -> Iterator[tuple[str, Any]]:
    """Yields the stacks of blocks with their names: module lists, and those of `timm`, that lie in no other one."""
    found: list[str] = []
    for name, module in backbone.model.named_modules():
        of_timm = isinstance(module, nn.Sequential) and name.endswith((".blocks", ".stages"))
        if (isinstance(module, nn.ModuleList) or of_timm) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
            yield name, module
    if not found:
        raise ModelError(f"{backbone.name} has no blocks to tell from the rest; use --tune full, linear or bitfit")
