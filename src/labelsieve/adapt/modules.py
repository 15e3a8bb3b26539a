"""The modules of phase 1 on a backbone: its blocks as a tower, a module that stays attached, and what merges."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.adapt.backbones import Backbone
from labelsieve.errors import LabelsieveError, SettingsError
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.share import BareTower
from labelsieve.vlm.peft.sites import block_in
from labelsieve.vlm.peft.ssf import ScaleShift, scaled_layers

# Where the module hangs in the model: as a part of it, it is trained, summed over processes and kept like the rest.
NAME = "module_of_tune"
_PROMPTS = ("vpt-deep", "vpt-shallow")


class Attached(nn.Module):
    """A module that is attached until it is removed.

    Args:
        module: The module.
        tower: Where it attaches.

    Attributes:
        module: The same.
        tower: The same.
    """

    def __init__(self, module: Any, tower: BareTower) -> None:
        super().__init__()
        self.module, self.tower = module, tower
        self._handles = module.attach(tower)

    def remove(self) -> None:
        """Leaves the tower as it was."""
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
    tower = _sequence(backbone) if kind in _PROMPTS else _known_blocks(backbone)
    if tower is None:
        raise _unfit(backbone, kind)
    try:
        module: Any = build_peft(kind, tower, tokens=tokens, bottleneck=bottleneck, generator=generator)
    except SettingsError as error:  # in the words of phase 1
        raise _unfit(backbone, kind) from error
    if isinstance(module, ScaleShift) and _merged_configuration(backbone, tower) is None:
        raise SettingsError(
            f"--tune {kind} merges into the biases of linear layers, and some of {backbone.name} cannot have one; "
            "use --tune lora, bitfit or full"
        )
    backbone.model.add_module(NAME, Attached(module.to(backbone.device), tower))
    if not _reaches_logits(backbone):
        _detach(backbone)
        raise _unfit(backbone, kind)


def merge(backbone: Backbone) -> None:
    """Merges scales and shifts into the layers in front of them; visual prompts and adapters stay attached."""
    part = getattr(backbone.model, NAME, None)
    if part is None or not isinstance(part.module, ScaleShift):
        return
    backbone.model.config = _merged_configuration(backbone, part.tower)
    _detach(backbone)
    part.module.merge(part.tower)


def stacks_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields the stacks of blocks with their names: module lists, and those of `timm`, that lie in no other one."""
    found: list[str] = []
    for name, module in model.named_modules():
        of_timm = isinstance(module, nn.Sequential) and name.endswith((".blocks", ".stages"))
        if (isinstance(module, nn.ModuleList) or of_timm) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
            yield name, module


def _detach(backbone: Backbone) -> None:
    getattr(backbone.model, NAME).remove()
    delattr(backbone.model, NAME)


def _known_blocks(backbone: Backbone) -> BareTower | None:
    """Returns all blocks whose linear layers are known, at whatever depth; None where there are none."""
    parts = [part for _, stack in stacks_of(backbone.model) for part in stack.modules()]
    return _bare(backbone, [part for part in parts if block_in(part) is not None], width=backbone.vision_width)


def _sequence(backbone: Backbone) -> BareTower | None:
    """Returns the blocks that pass on one sequence of tokens; None where widths or lengths change, or there is none."""
    stacks = [list(stack.children()) for _, stack in stacks_of(backbone.model)]
    if len(stacks) != 1:
        return None
    shapes: list[tuple[int, ...]] = []

    def note(_module: nn.Module, args: tuple[Any, ...]) -> None:
        shapes.append(tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ())

    handles = [layer.register_forward_pre_hook(note) for layer in stacks[0]]
    try:
        with torch.no_grad():
            backbone.logits(_black(backbone))
    finally:
        for handle in handles:
            handle.remove()
    even = len(shapes) == len(stacks[0]) and len(set(shapes)) == 1 and len(shapes[0]) == 3
    return _bare(backbone, stacks[0], width=shapes[0][2]) if even else None


def _bare(backbone: Backbone, layers: list[nn.Module], *, width: int) -> BareTower | None:
    # the first convolution cuts the patches, whatever a configuration calls their size
    patches = next((part for part in backbone.model.modules() if isinstance(part, nn.Conv2d)), None)
    if patches is None or not layers:
        return None
    return BareTower(backbone.name, width, int(patches.kernel_size[0]), backbone.model, layers)


def _reaches_logits(backbone: Backbone) -> bool:
    """Tells whether the model runs with its module, and all parts of that have a say.

    There are blocks that read the weights of a layer without calling it, and attention that knows one length only.
    """
    done = False
    with suppress(Exception):  # each architecture has its own
        backbone.logits(_black(backbone)).sum().backward()
        done = all(value.grad is not None for value in getattr(backbone.model, NAME).parameters())
    backbone.model.zero_grad(set_to_none=True)
    return done


def _black(backbone: Backbone) -> Tensor:
    return torch.zeros(1, 3, backbone.image_size, backbone.image_size, device=backbone.device)


def _merged_configuration(backbone: Backbone, tower: BareTower) -> Any:
    """Returns the configuration of the model with merged shifts; None where no such model has all biases."""
    model, layers = backbone.model, {id(site.layer) for site in scaled_layers(tower) if site.layer.bias is None}
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
        first = next((type(part).__name__ for _, stack in stacks_of(backbone.model) for part in stack), "it has none")
        why = f"does not know the blocks of {backbone.name} ({first})"
    return SettingsError(f"--tune {kind} {why}; use --tune lora, bitfit or full")
