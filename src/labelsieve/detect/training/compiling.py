"""Compiles an image encoder with `torch.compile`, which fuses the element-wise operations between matrix products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Loggers that warn of absent GPUs and of recompilation, which is expected for modules inside the blocks.
_LOUD = ("torch._dynamo", "torch._inductor", "torch.utils.cpp_extension")


@contextmanager
def compiled(blocks: Sequence[nn.Module], *, batch: int) -> Iterator[None]:
    """Compiles modules within a `with` statement; hooks and modules attached to them stay in effect.

    All modules share the compiled code, so that compiling takes seconds, not minutes. Batches of another size, such as
    the last of an epoch, run uncompiled.

    Args:
        blocks: Modules whose first argument is the hidden states, (B, ...).
        batch: B, the batch size to compile for.
    """
    import torch._inductor.config as inductor

    before = [vars(block).get("forward") for block in blocks]  # None if it is the method of the class
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    for block in blocks:
        block.forward = _of_size(batch, torch.compile(block.forward, dynamic=False), block.forward)
    try:
        with inductor.patch(compile_threads=1):  # avoids a process pool next to the decoding processes
            yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _of_size(batch: int, fast: Callable[..., Any], eager: Callable[..., Any]) -> Callable[..., Any]:
    def forward(hidden: torch.Tensor, *args: Any, **named: Any) -> Any:
        return (fast if len(hidden) == batch else eager)(hidden, *args, **named)

    return forward
