"""Memory: chunks with gradient checkpointing, the size of a chunk, reuse of freed memory, and memory layout."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labelsieve.core.attention import ExplicitAttention

# Share of the memory for activations; the rest is for the model, temporary tensors and other programs.
_SHARE = 0.25
_LIMIT = "/sys/fs/cgroup/memory.max"
# From glibc's malloc.h, with its defaults.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_DEFAULT_MMAP_MAX, _DEFAULT_THRESHOLD = 65_536, 32 * 2**20
_REUSING = threading.Event()


@contextmanager
def reuse_allocations() -> Iterator[None]:
    """Reuses the memory of freed CPU tensors for new tensors within a `with` statement.

    By default, glibc returns the memory of each large tensor to the system when it is freed, and requests it again for
    the next tensor. The system fills it with zeros each time, which takes half the time of a step on large batches
    (`benchmarks/step.py`). Without glibc, and if nested, this does nothing.
    """
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if library is None or _REUSING.is_set():
        yield
        return
    _REUSING.set()
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        _REUSING.clear()
        library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        library.mallopt(_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        library.mallopt(_TRIM_THRESHOLD, 2 * _DEFAULT_THRESHOLD)
        library.malloc_trim(0)


def checkpointed_chunks(
    work: Callable[[int, int], Tensor], *, count: int, chunk_size: int, device: torch.device
) -> Tensor:
    """Processes items in chunks, with gradient checkpointing if there is more than one chunk.

    The activations of only one chunk are in memory at a time.

    Args:
        work: Takes the start and the end of a chunk, as in `range`, and returns a tensor (n, ...).
        count: Number of items, at least 1.
        chunk_size: Items per chunk, at least 1.
        device: The device on which `work` computes.

    Returns:
        The results of all chunks, concatenated.
    """
    bounds = [(first, min(first + chunk_size, count)) for first in range(0, count, chunk_size)]
    if len(bounds) == 1:
        return work(*bounds[0])
    if not torch.is_grad_enabled():
        return torch.cat([work(*each) for each in bounds])

    def run_chunk(first: int, last: int, _device: Tensor) -> Tensor:
        with ExplicitAttention():  # the backward pass runs outside of the caller's contexts
            return work(first, last)

    placeholder = torch.empty(0, device=device)  # checkpoint() restores the random state of its device, for dropout
    return torch.cat([checkpoint(run_chunk, *each, placeholder, use_reentrant=False) for each in bounds])


def max_chunk_size(work: Callable[[Tensor], Tensor], one: Tensor, *, maximum: int, budget: int | None = None) -> int:
    """Returns how many items fit into memory with the activations that the backward pass needs.

    The limit is a part of the total memory, not of the free memory, so that the result does not depend on what else
    runs on the machine.

    Args:
        work: Differentiable function of a batch, (n, ...).
        one: A batch of one item, (1, ...).
        maximum: Largest useful number of items, at least 1.
        budget: Maximum number of bytes for activations; None for a quarter of the memory.

    Returns:
        `maximum`, or the largest power of two below it whose activations fit into the budget; at least 1.
    """
    one_item, two_items = _saved_bytes(work, one), _saved_bytes(work, torch.cat([one, one]))
    budget = int(_SHARE * memory_size(one.device)) if budget is None else budget
    size = budget // max(1, two_items - one_item)
    return maximum if maximum <= size else 1 << (max(1, size).bit_length() - 1)


def _saved_bytes(work: Callable[[Tensor], Tensor], batch: Tensor) -> int:
    """Returns the size in bytes of all tensors that `work` saves for the backward pass, including weights."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = work(batch)  # kept alive, so that no storage is freed and counted twice
    del output
    return sum(storages.values())


def memory_size(device: torch.device) -> int:
    """Returns the total memory of a device for this process in bytes.

    Processes on one machine share the memory of the CPU. The limit of a control group, as in a container, applies.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    size = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # "max", where there is no limit
        size = min(size, int(Path(_LIMIT).read_text()))
    return int(size // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def move(model: nn.Module, device: torch.device) -> None:
    """Moves a model to a device, and a model with several convolutions to the channels-last memory format.

    Convolutions are faster in that format, above all in bf16. A transformer has only the one that embeds the patches.
    """
    model.to(device)
    if sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 1:
        model.to(memory_format=torch.channels_last)
