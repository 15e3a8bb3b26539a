"""From rows to batches: decoding in worker processes, the model's own image processing, augmentation.

Everything random is drawn from (seed, epoch, row), never from a global generator, so that a batch does not depend on
the number of workers, and a resumed run sees the images that an unbroken one would have seen.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence
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
from labelsieve.data.input.image_cache import Pictures
from labelsieve.data.input.rgb import is_flat

if TYPE_CHECKING:
    from collections.abc import Callable


# Smallest and largest share of the area that a crop keeps.
SCALE = (0.5, 1.0)
_TURNED = 0.5
# After so many seconds without a batch the run ends: a network drive may never answer.
WAIT = 600
# Where decoding processes leave their batches, how many there has to be room for, and bytes without which none starts.
SHARED, _ROOM, _LEAST_ROOM = Path("/dev/shm"), 8, 2**20


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of the data.

    Attributes:
        rows: (B,), int64: row numbers of the readable images.
        inputs: (B, ...): pixels or whatever the image was turned into.
        errors: Row number to reason, for the images of this batch that cannot be read.
        flat: Row numbers of the images that were decoded and show nothing: all pixels are alike.
    """

    rows: Tensor
    inputs: Tensor
    errors: dict[int, str]
    flat: list[int] = field(default_factory=list)


_Item = tuple[int, Tensor | str, bool]
_Packed = tuple[list[int], Tensor | NDArray[Any], dict[int, str], list[int]]


class Rows(Dataset[_Item]):
    """Reads and transforms one row at a time; an unreadable image yields the reason instead of a tensor.

    The third value says whether it was decoded and all pixels are alike.
    """

    def __init__(self, images: Images | Pictures, transform: Callable[[Any, int], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __getitem__(self, row: int) -> _Item:
        try:
            if isinstance(self.images, Pictures):
                return row, self.transform(self.images[row], row), False
            image = self.images.open(row)
            return row, self.transform(image, row), is_flat(image)
        except UnreadableImageError as error:
            return row, str(error), False


def crop_area(size: int) -> int:
    """Returns of how many pixels the smallest crop still has one for each of those it becomes, size x size."""
    return math.ceil(size**2 / SCALE[0])


class Augment:
    """Random resized crop and horizontal flip to a (3, S, S) uint8 tensor, drawn from (seed, epoch, row).

    Args:
        size: S.
        seed: The seed of the run.
        epoch: The epoch; two epochs see different crops.
        scale: Smallest and largest share of the area that a crop keeps.
    """

    def __init__(self, size: int, *, seed: int, epoch: int, scale: tuple[float, float] = SCALE) -> None:
        self.seed, self.epoch = seed, epoch
        self.crop = v2.RandomResizedCrop((size, size), scale=scale, antialias=True)

    def __call__(self, image: Tensor, row: int) -> Tensor:
        """Crops and flips the image of one row, (3, H, W), uint8."""
        seed = int(np.random.SeedSequence([self.seed, self.epoch, row]).generate_state(1)[0])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed takes note of the stack for absent GPUs, too
            at = self.crop.make_params([image])
            turned = bool(torch.rand(1) < _TURNED)
        # what the transform itself would do, which takes twice as long: it keeps the order of the colours in memory
        part = image[:, at["top"] : at["top"] + at["height"], at["left"] : at["left"] + at["width"]][None]
        part = part.contiguous(memory_format=torch.channels_last)
        found = interpolate(part, size=self.crop.size, mode="bicubic", antialias=True)[0]
        return found.flip(-1) if turned else found


def unit(pixels: Tensor) -> Tensor:
    """Returns uint8 pixels (B, 3, S, S) as numbers from 0 to 1, plane by plane in memory."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def batches(
    images: Images | Pictures,
    rows: Sequence[NDArray[np.int64]],
    *,
    transform: Callable[[Any, int], Tensor],
    device: torch.device,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Yields a :class:`Batch` for each array of rows, in their order.

    Args:
        images: The data: as they are, or shrunk and kept for many epochs.
        rows: The row numbers of each batch.
        transform: Turns an image, a PIL image or for :class:`Pictures` a tensor, and its row number into a tensor.
        device: Where the batches go: beside an accelerator this process has time to spare.
        workers: Processes that decode; None leaves one core to the model and takes at most 8, and none where images
            are kept and the model runs on the CPU: handing a batch over takes longer than making it. Where none can be
            started, this process decodes.

    Raises:
        RunError: No batch came for ten minutes.
        RuntimeError: A decoding process was killed.
    """
    kept = isinstance(images, Pictures) and images.holds(np.concatenate([*rows, np.empty(0, dtype=np.int64)]))
    if workers is None:
        workers = 0 if kept and device.type == "cpu" else default_workers()
    # starting processes costs more than decoding a few batches, and what they talk through needs some room
    workers = workers if len(rows) > 4 and _shared_room() >= _LEAST_ROOM else 0

    def start(processes: int) -> Any:
        loader = DataLoader(
            Rows(images, transform),
            batch_sampler=[batch.tolist() for batch in rows],
            collate_fn=_pack,
            num_workers=processes,
            generator=torch.Generator(),  # else a seed that nobody uses is drawn from the global one
            multiprocessing_context="fork" if processes and hasattr(os, "fork") else None,
        )
        return iter(loader)

    try:
        source = start(workers)
    except OSError:  # no more processes are allowed
        source = start(0)
    return _unpacked(source)


def _unpacked(source: Any) -> Iterator[Batch]:
    workers = getattr(source, "_workers", [])  # without any this process decodes
    given_up = threading.Event()

    def give_up() -> None:
        given_up.set()
        for worker in workers:
            worker.kill()  # less than this does not end one that waits for a drive, and it would be waited for

    while True:
        # The loader's own limit is that of a message. What a message refers to is then asked of the worker that sent
        # it, and one that stands still never answers.
        watch = threading.Timer(WAIT, give_up)
        watch.daemon = True
        try:
            if workers:
                watch.start()
            packed = next(source, None)
        except (RuntimeError, OSError, EOFError):
            if not given_up.is_set():
                raise
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
    """Returns the number of decoding processes for this machine: the cores less one, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(8, cores - 1))


def _stack(values: list[Tensor]) -> Tensor:
    """Stacks tensors, in the order that they have in memory: to change that of colours takes longer than a crop."""
    if values[0].ndim == 3 and values[0].stride(0) == 1:
        return torch.stack([value.permute(1, 2, 0) for value in values]).permute(0, 3, 1, 2)
    return torch.stack(values)


def _pack(items: list[_Item]) -> _Packed:
    good = [(row, value) for row, value, _ in items if isinstance(value, Tensor)]
    inputs = _stack([value for _, value in good]) if good else torch.empty(0)
    errors = {row: value for row, value, _ in items if isinstance(value, str)}
    flat = [row for row, _, is_flat in items if is_flat]
    return [row for row, _ in good], inputs if get_worker_info() is None else _handed_over(inputs), errors, flat


def _handed_over(inputs: Tensor) -> Tensor | NDArray[Any]:
    """Moves a batch to shared memory; where that is full it goes through a pipe, as an array.

    Left to the loader, a batch that finds no room is lost and waited for without end.
    """
    try:
        return inputs.share_memory_() if _shared_room() >= _ROOM * inputs.nbytes else inputs.numpy()
    except RuntimeError:  # another process was faster
        return inputs.numpy()


def _shared_room() -> float:
    """Returns how many bytes of shared memory are free."""
    if sys.platform != "linux":
        return math.inf
    try:
        there = os.statvfs(SHARED)
    except OSError:
        return 0
    return there.f_bavail * there.f_frsize if os.access(SHARED, os.W_OK) else 0
