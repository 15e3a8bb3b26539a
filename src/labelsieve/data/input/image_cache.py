"""Cache of decoded images on disk: a photo is decoded and shrunk once for all epochs.

An image with more pixels than a crop can use is shrunk with its aspect ratio; a smaller one stays unchanged. Training
always sees the shrunk image, from the cache or not, so that results do not depend on the cache.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from labelsieve.core.cache import cache_folder, cache_limit, reserve_disk_space
from labelsieve.data.images import UnreadableImageError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from labelsieve.data.images import Images

_PIXELS, _SHAPES, _RESERVED = ".pixels", ".shapes.npy", ".room"
_SAMPLE = 32
# Block size of disks in bytes.
_BLOCK = 4096
# Stride of the bytes that the checksum sums; less than a block, to detect blocks lost in a power cut.
_STRIDE = 512
# Version of the cached pixels; increment it when the same file gives other pixels.
_VERSION = 3


@dataclass(frozen=True, eq=False)
class CachedImages:
    """The converted images of a data set, cached on disk.

    Attributes:
        images: N images.
        make: Converts a decoded image to (H, W, 3), independent of the epoch.
        area: Maximum number of pixels of an image.
        stem: Common path of three files: `.pixels`, a sparse file with 3 `area` bytes per image; `.shapes.npy`, (N, 3)
            int32, with height, width and a positive checksum of each cached image, 0 for the others; and `.room`, the
            total number of reserved bytes. None without a cache.
        companion: Cache of another version of the same images, which is also filled whenever an image is decoded.
    """

    images: Images
    make: Callable[[Image.Image], NDArray[np.uint8]]
    area: int
    stem: Path | None
    companion: CachedImages | None = None

    def __getitem__(self, row: int) -> Tensor:
        """Returns one image, (3, H, W), uint8, read-only, from the cache, or decodes and caches it.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        cached = self._kept(row)
        return _tensor(self._take(row, self.images.open(row)) if cached is None else cached)

    def holds(self, rows: NDArray[np.int64]) -> bool:
        """Returns whether all of these images are cached."""
        return self._files is not None and bool(self._files[1][rows, 2].all())

    def _kept(self, row: int) -> NDArray[np.uint8] | None:
        """Returns one image from the cache, (H, W, 3); None if it is missing or its checksum is wrong."""
        if self._files is None:
            return None
        pixels, shapes = self._files
        height, width, check = (int(value) for value in shapes[row])
        values = pixels[3 * self.area * row :][: 3 * height * width]
        return values.reshape(height, width, 3) if check and check == _checksum(values) else None

    def _take(self, row: int, image: Image.Image) -> NDArray[np.uint8]:
        """Converts a decoded image to (H, W, 3), and caches it."""
        values = self.make(image)
        if self._files is not None:
            with suppress(OSError):
                self._write(values, row)
                # last, because it marks the pixels as valid
                self._files[1][row] = *values.shape[:2], _checksum(values.reshape(-1))
        if self.companion is not None and self.companion._files is not None and self.companion._kept(row) is None:
            self.companion._take(row, image)
        return values

    def _write(self, values: NDArray[np.uint8], row: int) -> None:
        """Writes one image to the file; through the memory map, a full disk would kill the process."""
        assert self.stem is not None
        file = os.open(_file(self.stem, _PIXELS), os.O_WRONLY)
        try:
            if os.pwrite(file, np.ascontiguousarray(values).data, 3 * self.area * row) != values.size:
                raise OSError(errno.ENOSPC, "written in part")
        finally:
            os.close(file)

    @cached_property
    def _files(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
        if self.stem is None:
            return None
        try:
            # not read-only, because torch warns about tensors of read-only arrays, although nothing is written
            pixels = np.memmap(_file(self.stem, _PIXELS), dtype=np.uint8, mode="r+")
            # as ordinary arrays, which are faster to slice
            return np.asarray(pixels), np.asarray(np.lib.format.open_memmap(_file(self.stem, _SHAPES), mode="r+"))
        except (OSError, ValueError):  # another run removed them
            return None

    def __getstate__(self) -> dict[str, Any]:
        """Excludes the open files; a process that is not forked opens them again."""
        return {name: value for name, value in self.__dict__.items() if name != "_files"}


def _checksum(values: NDArray[np.uint8]) -> int:
    """Returns a positive checksum, to detect changed pixels."""
    return int(values[::_STRIDE].sum(dtype=np.int64)) % (2**31 - 2) + 1


def shrink(image: Image.Image, area: int) -> NDArray[np.uint8]:
    """Returns an image (H, W, 3) with at most `area` pixels and, up to rounding, the same aspect ratio."""
    width, height = image.size
    if width * height > area:
        factor = (area / (width * height)) ** 0.5
        sides = (min(area, max(1, int(side * factor))) for side in (width, height))
        image = image.resize((next(sides), next(sides)), Image.Resampling.BICUBIC)
    return np.array(image)


def _tensor(values: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(values).permute(2, 0, 1)


def cached_images(
    images: Images, *, area: int, accelerator: Accelerator, companion: CachedImages | None = None
) -> CachedImages:
    """Opens or creates the cache of the shrunk images of a data set; all processes must call this together.

    Args:
        images: N images.
        area: Maximum number of pixels of an image.
        accelerator: The first process creates the files.
        companion: See :class:`CachedImages`.

    Returns:
        Images that are cached if there is space for them, else decoded each time.

    Raises:
        SettingsError: The limit of the cache size is not a number.
    """
    name = f"{images.pixels_fingerprint}-{area}"
    return open_cache(
        images,
        partial(shrink, area=area),
        name=name,
        area=area,
        reserved_size=lambda: _estimate(images, area),
        accelerator=accelerator,
        companion=companion,
    )


def open_cache(
    images: Images,
    make: Callable[[Image.Image], NDArray[np.uint8]],
    *,
    name: str,
    area: int,
    reserved_size: Callable[[], int],
    accelerator: Accelerator,
    companion: CachedImages | None = None,
) -> CachedImages:
    """Opens or creates a cache of images; see :func:`cached_images`.

    Args:
        images: N images.
        make: See :class:`CachedImages`.
        name: Name of the files, which identifies the images and their conversion.
        area: Maximum number of pixels of an image.
        reserved_size: Returns an estimate of the number of bytes on the disk.
        accelerator: The first process creates the files.
        companion: See :class:`CachedImages`.
    """
    stem = cache_folder() / "pixels" / f"{name}-{_VERSION}"
    limit = cache_limit()
    if not hasattr(os, "pwrite"):  # Windows, which also lacks sparse files
        return CachedImages(images, make, area, None, companion)
    if accelerator.is_main_process:
        with suppress(OSError):  # no space, or not writable
            if _reserved(stem) > limit:  # the limit was higher before
                _remove(stem)
            if not _is_complete(stem, len(images), area):
                size = reserved_size()
                if _make_room(stem.parent, size, limit):
                    _make(stem, len(images), area, reserved_size=size)
    accelerator.wait_for_everyone()
    is_cached = limit and _is_complete(stem, len(images), area)
    return CachedImages(images, make, area, stem if is_cached else None, companion)


def _estimate(images: Images, area: int) -> int:
    """Estimates the number of bytes of the images on the disk, from a sample."""
    sizes = []
    for row in range(0, len(images), max(1, len(images) // _SAMPLE)):
        with suppress(UnreadableImageError):
            width, height = images.open(row).size
            size = 3 * min(area, width * height)
            # complete blocks, and usually one more, because images are not aligned to blocks
            sizes.append(size if size == 3 * area else _BLOCK * (-(-size // _BLOCK) + 1))
    return round(float(np.mean(sizes)) * len(images)) if sizes else 0


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _is_complete(stem: Path, count: int, area: int) -> bool:
    try:
        shapes = np.lib.format.open_memmap(_file(stem, _SHAPES), mode="r+")
        np.memmap(_file(stem, _PIXELS), dtype=np.uint8, mode="r+", shape=(3 * area * count,))
    except (OSError, ValueError):
        return False
    with suppress(OSError):
        os.utime(_file(stem, _SHAPES))  # so that _make_room removes the most recently used cache last
    return shapes.dtype == np.int32 and shapes.shape == (count, 3)


def _make(stem: Path, count: int, area: int, *, reserved_size: int) -> None:
    part = _file(stem, f".{secrets.token_hex(4)}.part")
    try:
        part.write_text(str(reserved_size))
        part.replace(_file(stem, _RESERVED))
        with part.open("wb") as file:
            file.truncate(3 * area * count)
        part.replace(_file(stem, _PIXELS))
        np.lib.format.open_memmap(part, mode="w+", dtype=np.int32, shape=(count, 3)).flush()
        reserve_disk_space(part)
        part.replace(_file(stem, _SHAPES))
    finally:
        part.unlink(missing_ok=True)


def _reserved(stem: Path) -> int:
    """Returns the number of bytes of a cache, including the bytes reserved for missing images."""
    sizes = [path.stat().st_blocks * 512 for suffix in (_PIXELS, _SHAPES) if (path := _file(stem, suffix)).exists()]
    with suppress(OSError, ValueError):
        return max(sum(sizes), int(_file(stem, _RESERVED).read_text()))
    return sum(sizes)


def _remove(stem: Path) -> None:
    for suffix in (_SHAPES, _PIXELS, _RESERVED):
        _file(stem, suffix).unlink(missing_ok=True)


def _make_room(folder: Path, required: int, limit: float) -> bool:
    """Removes the least recently used caches until the required bytes fit the limit; returns whether they do."""
    folder.mkdir(parents=True, exist_ok=True)
    existing = sorted(folder.glob(f"*{_SHAPES}"), key=lambda path: path.stat().st_mtime)
    stems = [path.with_name(path.name.removesuffix(_SHAPES)) for path in existing]
    sizes = [_reserved(stem) for stem in stems]
    free, used = shutil.disk_usage(folder).free, sum(sizes)
    if required > limit or required > (free + used) / 2:
        return False
    for stem, size in zip(stems, sizes, strict=True):
        if used + required <= limit and required <= free / 2:
            break
        _remove(stem)
        free, used = free + size, used - size
    return True
