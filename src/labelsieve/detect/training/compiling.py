"""An image encoder through `torch.compile`, which fuses what runs element by element between the matrix products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# They tell of absent GPUs, and of recompiling, which for modules inside the blocks is to be expected.
_LOUD = ("torch._dynamo", "torch._inductor", "torch.utils.cpp_extension")


@contextmanager
def compiled(blocks: Sequence[nn.Module], *, batch: int) -> Iterator[None]:
    """Compiles blocks for the time of a block of code; what is attached to them stays, before and after as within.

    All blocks share what is compiled, so that it takes seconds, not minutes. Batches of another size, such as the last
    of an epoch, pass the blocks as they are.

    Args:
        blocks: Modules that are called with hidden states (B, ...) first.
        batch: B.
    """
    import torch._inductor.config as inductor

    before = [vars(block).get("forward") for block in blocks]  # None where it is that of the class
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    for block in blocks:
        block.forward = _of_size(batch, torch.compile(block.forward, dynamic=False), block.forward)
    try:
        with inductor.patch(compile_threads=1):  # no pool of processes beside those that decode
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
