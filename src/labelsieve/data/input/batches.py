"""Batches of images: decoding in worker processes, image processing of the model, and augmentation.

All random numbers depend on (seed, epoch, row), never on a global generator, so that batches do not depend on the
number of workers, and a resumed run sees the same images as an uninterrupted one.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import v2

from labelsieve.core.errors import RunError
from labelsieve.data.images import Images, UnreadableImageError
from labelsieve.data.input.image_cache import CachedImages
from labelsieve.data.input.rgb import is_flat

if TYPE_CHECKING:
    from collections.abc import Callable


# Minimum and maximum area of a crop, as a share of the image.
SCALE = (0.5, 1.0)
_FLIP_PROBABILITY = 0.5
# Timeout in seconds for a batch: a network drive may never answer.
WAIT = 600
# Shared memory of worker processes, number of batches that must fit into it, and minimum free bytes to start workers.
SHARED, _QUEUED_BATCHES, _MIN_SHARED_BYTES = Path("/dev/shm"), 8, 2**20


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of rows of the data.

    Attributes:
        rows: (B,), int64: row numbers of the readable images.
        inputs: (B, ...): pixels, or the output of the transform.
        errors: Row number to reason, for the images of this batch that cannot be read.
        flat: Row numbers of decoded images that show nothing, see :func:`labelsieve.data.input.rgb.is_flat`.
    """

    rows: Tensor
    inputs: Tensor
    errors: dict[int, str]
    flat: list[int] = field(default_factory=list)


_Item = tuple[int, Tensor | str, bool]
_Packed = tuple[list[int], Tensor | NDArray[Any], dict[int, str], list[int]]


class Rows(Dataset[_Item]):
    """Reads and transforms one row at a time; returns the reason instead of a tensor if an image is unreadable.

    The third value is true if the image was decoded and shows nothing.
    """

    def __init__(self, images: Images | CachedImages, transform: Callable[[Any, int], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __getitem__(self, row: int) -> _Item:
        try:
            if isinstance(self.images, CachedImages):
                return row, self.transform(self.images[row], row), False
            image = self.images.open(row)
            return row, self.transform(image, row), is_flat(image)
        except UnreadableImageError as error:
            return row, str(error), False


def crop_area(size: int) -> int:
    """Returns the number of pixels of an image whose smallest crop still has size x size pixels."""
    return math.ceil(size**2 / SCALE[0])


class Augment:
    """Random resized crop and horizontal flip to a (3, S, S) uint8 tensor, drawn from (seed, epoch, row).

    Args:
        size: S.
        seed: The seed of the run.
        epoch: The epoch; two epochs see different crops.
    """

    def __init__(self, size: int, *, seed: int, epoch: int) -> None:
        self.seed, self.epoch = seed, epoch
        self.crop = v2.RandomResizedCrop((size, size), scale=SCALE, antialias=True)

    def __call__(self, image: Tensor, row: int) -> Tensor:
        """Crops and flips the image of one row, (3, H, W), uint8."""
        seed = int(np.random.SeedSequence([self.seed, self.epoch, row]).generate_state(1)[0])
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed is slower: it also records the stack for absent GPUs
            torch.default_generator.manual_seed(seed)
            at = self.crop.make_params([image])
            turned = bool(torch.rand(1) < _FLIP_PROBABILITY)
        # same result as the transform itself, which takes twice as long because it keeps the memory layout of the image
        part = image[:, at["top"] : at["top"] + at["height"], at["left"] : at["left"] + at["width"]][None]
        part = part.contiguous(memory_format=torch.channels_last)
        resized = interpolate(part, size=self.crop.size, mode="bicubic", antialias=True)[0]
        return resized.flip(-1) if turned else resized


def unit(pixels: Tensor) -> Tensor:
    """Returns uint8 pixels (B, 3, S, S) as float32 from 0 to 1, contiguous in memory."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def batches(
    images: Images | CachedImages,
    rows: Sequence[NDArray[np.int64]],
    *,
    transform: Callable[[Any, int], Tensor],
    device: torch.device,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Yields a :class:`Batch` for each array of rows, in their order.

    Args:
        images: The images, or their cached versions for many epochs.
        rows: The row numbers of each batch.
        transform: Function from an image (PIL, or a tensor for :class:`CachedImages`) and its row number to a tensor.
        device: The device of the model.
        workers: Number of worker processes. None: :func:`default_workers`, or 0 if all images are cached and the model
            runs on the CPU, where transferring a batch takes longer than making it. If no process can be started, the
            calling process decodes.

    Raises:
        RunError: No batch arrived for ten minutes.
        RuntimeError: A worker process was killed.
    """
    is_cached = isinstance(images, CachedImages) and images.holds(np.concatenate([*rows, np.empty(0, dtype=np.int64)]))
    if workers is None:
        workers = 0 if is_cached and device.type == "cpu" else default_workers()
    # starting processes takes longer than decoding a few batches, and their communication needs shared memory
    workers = workers if len(rows) > 4 and _free_shared_memory() >= _MIN_SHARED_BYTES else 0

    def start(processes: int) -> Any:
        loader = DataLoader(
            Rows(images, transform),
            batch_sampler=[batch.tolist() for batch in rows],
            collate_fn=_pack,
            num_workers=processes,
            generator=torch.Generator(),  # else the loader draws a seed from the global one
            multiprocessing_context="fork" if processes and hasattr(os, "fork") else None,
        )
        return iter(loader)

    try:
        source = start(workers)
    except OSError:  # the limit of processes is reached
        source = start(0)
    return _unpacked(source)


def _unpacked(source: Any) -> Iterator[Batch]:
    workers = getattr(source, "_workers", [])  # empty if this process decodes
    timed_out = threading.Event()

    def give_up() -> None:
        timed_out.set()
        for worker in workers:
            worker.kill()  # other signals do not end a worker that waits for a drive, and joining it would block

    while True:
        # The timeout of the loader only covers messages. The data of a message are fetched from the worker that sent
        # it, and a blocked worker never answers.
        watch = threading.Timer(WAIT, give_up)
        watch.daemon = True
        try:
            if workers:
                watch.start()
            packed = next(source, None)
        except (RuntimeError, OSError, EOFError):
            if not timed_out.is_set():
                raise
            for worker in workers:
                with suppress(RuntimeError):  # the loader raises an error per killed worker, now or when it is deleted
                    worker.join()
            raise RunError(
                f"no image could be read for {WAIT} seconds; check the disk or network drive that the images lie on"
            ) from None
        finally:
            watch.cancel()
        if packed is None:
            return
        rows, inputs, errors, flat = packed
        inputs = inputs if isinstance(inputs, Tensor) else torch.from_numpy(inputs)
        yield Batch(torch.tensor(rows, dtype=torch.int64), inputs, errors, flat)


def default_workers() -> int:
    """Returns the number of worker processes for this machine: the number of cores minus one, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(8, cores - 1))


def _stack(values: list[Tensor]) -> Tensor:
    """Stacks tensors in their memory layout, because changing the layout takes longer than a crop."""
    if values[0].ndim == 3 and values[0].stride(0) == 1:
        return torch.stack([value.permute(1, 2, 0) for value in values]).permute(0, 3, 1, 2)
    return torch.stack(values)


def _pack(items: list[_Item]) -> _Packed:
    good = [(row, value) for row, value, _ in items if isinstance(value, Tensor)]
    inputs = _stack([value for _, value in good]) if good else torch.empty(0)
    errors = {row: value for row, value, _ in items if isinstance(value, str)}
    flat = [row for row, _, is_flat in items if is_flat]
    return [row for row, _ in good], inputs if get_worker_info() is None else _shared(inputs), errors, flat


def _shared(inputs: Tensor) -> Tensor | NDArray[Any]:
    """Moves a batch to shared memory or, if that is full, returns an array, which is sent through a pipe.

    Without this, the loader would lose a batch that does not fit, and wait for it forever.
    """
    try:
        return inputs.share_memory_() if _free_shared_memory() >= _QUEUED_BATCHES * inputs.nbytes else inputs.numpy()
    except RuntimeError:  # another process filled it first
        return inputs.numpy()


def _free_shared_memory() -> float:
    """Returns the number of free bytes of shared memory."""
    if sys.platform != "linux":
        return math.inf
    try:
        status = os.statvfs(SHARED)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize if os.access(SHARED, os.W_OK) else 0
