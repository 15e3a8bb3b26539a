"""Memory: work in parts that are computed again for their gradients, how large a part may be, and room that is kept."""

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
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from labelsieve.core.attention import WrittenOutAttention

# Share of the memory that activations may take; the rest is for the model, what comes and goes, and other programs.
_SHARE = 0.25
_LIMIT = "/sys/fs/cgroup/memory.max"
# From glibc's malloc.h, and its own defaults.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MMAPS, _LARGEST_OWN = 65_536, 32 * 2**20
_KEEPING = threading.Event()


@contextmanager
def keeping_room() -> Iterator[None]:
    """Keeps the room of large tensors on the CPU for the next ones, for the time of a block.

    The C library of Linux gives the room of each large tensor back to the system at once and asks for it again, and
    each time the system fills all of it with zeros: a step on large batches spends half of its time on that
    (`benchmarks/step.py`). Elsewhere, and within another such block, this does nothing.
    """
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if library is None or _KEEPING.is_set():
        yield
        return
    _KEEPING.set()
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        _KEEPING.clear()
        library.mallopt(_MMAP_MAX, _MMAPS)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_OWN)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_OWN)
        library.malloc_trim(0)


def in_parts(work: Callable[[int, int], Tensor], *, count: int, at_once: int, device: torch.device) -> Tensor:
    """Works on some things at a time; if there is more than one part, each is computed again for its gradients.

    What is kept for the backward pass is then that of one part, whatever number of parts there is.

    Args:
        work: Takes the first and the one behind the last; returns a tensor (n, ...).
        count: How many things there are, at least 1.
        at_once: How many to take at a time, at least 1.
        device: Where the work is done.

    Returns:
        What `work` made of all, one below the other.
    """
    bounds = [(first, min(first + at_once, count)) for first in range(0, count, at_once)]
    if len(bounds) == 1:
        return work(*bounds[0])
    if not torch.is_grad_enabled():
        return torch.cat([work(*each) for each in bounds])

    def again(first: int, last: int, _device: Tensor) -> Tensor:
        with WrittenOutAttention():  # the backward pass runs outside of whatever surrounds this
            return work(first, last)

    here = torch.empty(0, device=device)  # tells whose random numbers have to come again, for dropout
    return torch.cat([checkpoint(again, *each, here, use_reentrant=False) for each in bounds])


def fitting(work: Callable[[Tensor], Tensor], one: Tensor, *, most: int, room: int | None = None) -> int:
    """Finds out how many things fit into memory when work on them keeps what the backward pass needs.

    It counts bytes and reads the size of the memory, not how much of it is free: two runs take the same parts, however
    busy the machine is.

    Args:
        work: Takes some things, (n, ...), on their device; gradients flow through it.
        one: One of these things, (1, ...).
        most: How many are wanted, at least 1.
        room: How many bytes activations may take; None for a quarter of the memory.

    Returns:
        `most`, or the largest power of two below it whose activations take no more than the room; at least 1.
    """
    few, more = _kept(work, one), _kept(work, torch.cat([one, one]))
    room = int(_SHARE * memory_size(one.device)) if room is None else room
    at_once = room // max(1, more - few)
    return most if most <= at_once else 1 << (max(1, at_once).bit_length() - 1)


def _kept(work: Callable[[Tensor], Tensor], things: Tensor) -> int:
    """Returns how many bytes work on some things keeps for its backward pass, weights included."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = work(things)  # held, so that nothing takes the place of what is counted
    del made
    return sum(storages.values())


def memory_size(device: torch.device) -> int:
    """Returns how many bytes of memory a device has for this process, whether they are free or not.

    Processes on the same machine share what the CPU has; a limit of the control group counts, as in a container.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    size = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # "max", where there is no limit
        size = min(size, int(Path(_LIMIT).read_text()))
    return int(size // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
