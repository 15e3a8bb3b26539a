"""Finds the blocks of an image encoder, and whether they process one sequence of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def block_stacks(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields the outermost stacks of blocks with their names: module lists, and the sequential stacks of `timm`."""
    outer_names: list[str] = []
    for name, module in model.named_modules():
        is_timm_stack = isinstance(module, nn.Sequential) and name.endswith((".blocks", ".stages"))
        if (isinstance(module, nn.ModuleList) or is_timm_stack) and not any(
            name.startswith(f"{outer}.") for outer in outer_names
        ):
            outer_names.append(name)
            yield name, module


def sequence_blocks(model: nn.Module, run: Callable[[], Any]) -> tuple[Sequence[nn.Module], int]:
    """Finds the blocks that process one sequence of tokens, by running the model once.

    Blocks with other inputs than the tokens, such as positions, do not support additional tokens.

    Args:
        model: The model, or a part of it that contains all blocks.
        run: Runs it on one image.

    Returns:
        The blocks and the width of a token; no blocks if widths or lengths change, or if there is not exactly one
        stack.
    """
    stacks = [list(stack.children()) for _, stack in block_stacks(model)]
    if len(stacks) != 1:
        return (), 0
    shapes: list[tuple[int, ...]] = []

    def record_shape(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        is_only_input = len(tensors) == 1 and bool(args) and tensors[0] is args[0]
        shapes.append(tuple(tensors[0].shape) if is_only_input else ())

    handles = [layer.register_forward_pre_hook(record_shape, with_kwargs=True) for layer in stacks[0]]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    is_constant = len(shapes) == len(stacks[0]) and len(set(shapes)) == 1 and len(shapes[0]) == 3
    return (stacks[0], shapes[0][2]) if is_constant else ((), 0)


def patch_size_of(model: nn.Module) -> int:
    """Returns the side of a patch: the kernel size of the first convolution; 0 if there is no convolution."""
    first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    return 0 if first is None else int(first.kernel_size[0])
