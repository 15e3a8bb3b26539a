"""Where the blocks of an image encoder are, and whether they pass on one sequence of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def stacks_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields the stacks of blocks with their names: module lists, and those of `timm`, that lie in no other one."""
    found: list[str] = []
    for name, module in model.named_modules():
        of_timm = isinstance(module, nn.Sequential) and name.endswith((".blocks", ".stages"))
        if (isinstance(module, nn.ModuleList) or of_timm) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
            yield name, module


def sequence_of(model: nn.Module, run: Callable[[], Any]) -> tuple[Sequence[nn.Module], int]:
    """Finds the blocks that pass on one sequence of tokens, by running the model once.

    Blocks that get more than the tokens, such as the position of each, would not know those of more tokens.

    Args:
        model: The model, or a part of it that holds all blocks.
        run: Passes one image through it.

    Returns:
        The blocks and the width of a token; no blocks where widths or lengths change, or there is no such stack.
    """
    stacks = [list(stack.children()) for _, stack in stacks_of(model)]
    if len(stacks) != 1:
        return (), 0
    shapes: list[tuple[int, ...]] = []

    def note(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        alone = len(tensors) == 1 and bool(args) and tensors[0] is args[0]
        shapes.append(tuple(tensors[0].shape) if alone else ())

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in stacks[0]]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    even = len(shapes) == len(stacks[0]) and len(set(shapes)) == 1 and len(shapes[0]) == 3
    return (stacks[0], shapes[0][2]) if even else ((), 0)


def patch_size_of(model: nn.Module) -> int:
    """Returns the side of a patch: the first convolution cuts them, whatever a configuration calls their size.

    0 where there is no convolution.
    """
    first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    return 0 if first is None else int(first.kernel_size[0])
