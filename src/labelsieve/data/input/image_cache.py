"""Decoded images on disk: a photo is decoded and shrunk once, whatever number of epochs sees it.

An image of more pixels than a crop can use is shrunk, its shape kept; a smaller one stays as it is. Epochs see the
shrunk image whether it comes from the disk or is made again, so that nothing depends on what is cached.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
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

_PIXELS, _SHAPES, _ROOM = ".pixels", ".shapes.npy", ".room"
_SAMPLE = 32
# A disk gives room in blocks of so many bytes.
_BLOCK = 4096
# Every so many bytes one is summed up, so that a block that a power cut has lost is noticed.
_STRIDE = 512
# Goes up when the same file gives other pixels than before.
_MADE = 3


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a data set as training sees them.

    Attributes:
        images: N images.
        make: What becomes of a decoded image, (H, W, 3); the epoch of training does not come into it.
        area: Most pixels that it keeps.
        stem: Three files begin like this: `.pixels`, with 3 `area` bytes for each image, of which those that it does
            not fill take no room on the disk; `.shapes.npy`, (N, 3) int32, height, width and a checksum above 0 of each
            image that is there, else 0; and `.room`, how many bytes they will take in all. None where nothing is
            kept.
        beside: Another version of the same images, to keep as well whenever one is decoded.
    """

    images: Images
    make: Callable[[Image.Image], NDArray[np.uint8]]
    area: int
    stem: Path | None
    beside: Pictures | None = None

    def __getitem__(self, row: int) -> Tensor:
        """Returns one image, (3, H, W), uint8, not to be changed, from the disk, or decodes it and keeps it there.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        kept = self._kept(row)
        return _tensor(self._take(row, self.images.open(row)) if kept is None else kept)

    def holds(self, rows: NDArray[np.int64]) -> bool:
        """Returns whether all of these images are kept."""
        return self._files is not None and bool(self._files[1][rows, 2].all())

    def _kept(self, row: int) -> NDArray[np.uint8] | None:
        """Returns one image from the disk, (H, W, 3); None if it is not there, or a power cut has lost some of it."""
        if self._files is None:
            return None
        pixels, shapes = self._files
        height, width, check = (int(value) for value in shapes[row])
        values = pixels[3 * self.area * row :][: 3 * height * width]
        return values.reshape(height, width, 3) if check and check == _checksum(values) else None

    def _take(self, row: int, image: Image.Image) -> NDArray[np.uint8]:
        """Makes what is kept of a decoded image, (H, W, 3), and keeps it."""
        values = self.make(image)
        if self._files is not None:
            with suppress(OSError):
                self._write(values, row)
                # last: it makes the pixels count
                self._files[1][row] = *values.shape[:2], _checksum(values.reshape(-1))
        if self.beside is not None and self.beside._files is not None and self.beside._kept(row) is None:
            self.beside._take(row, image)
        return values

    def _write(self, values: NDArray[np.uint8], row: int) -> None:
        """Writes one image; not to the memory map, which would end the process where the disk is full."""
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
            # not read-only, of which a tensor would warn, though nothing is written to it
            pixels = np.memmap(_file(self.stem, _PIXELS), dtype=np.uint8, mode="r+")
            # as plain arrays, of which parts are made in less time
            return np.asarray(pixels), np.asarray(np.lib.format.open_memmap(_file(self.stem, _SHAPES), mode="r+"))
        except (OSError, ValueError):  # another run needed their room
            return None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the open files out: a process that is not forked opens them itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_files"}


def _checksum(values: NDArray[np.uint8]) -> int:
    """Returns a checksum from 1 on, by which changed pixels are found."""
    return int(values[::_STRIDE].sum(dtype=np.int64)) % (2**31 - 2) + 1


def shrink(image: Image.Image, area: int) -> Image.Image:
    """Returns an image of at most so many pixels and, as nearly as whole pixels allow, the same shape."""
    width, height = image.size
    if width * height <= area:
        return image
    factor = (area / (width * height)) ** 0.5
    sides = (min(area, max(1, int(side * factor))) for side in (width, height))
    return image.resize((next(sides), next(sides)), Image.Resampling.BICUBIC)


def _tensor(values: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(values).permute(2, 0, 1)


@dataclass(frozen=True)
class Shrink:
    """Makes images of at most so many pixels; see :func:`shrink`."""

    area: int

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Returns (H, W, 3)."""
        return np.array(shrink(image, self.area))


def kept_images(images: Images, *, area: int, accelerator: Accelerator, beside: Pictures | None = None) -> Pictures:
    """Opens the shrunk images of a data set, or begins to keep them; all processes call this together.

    Args:
        images: N images.
        area: Most pixels that an image keeps.
        accelerator: The first process makes the files.
        beside: See :class:`Pictures`.

    Returns:
        Images that are kept where there is room for them, and else decoded each time.

    Raises:
        SettingsError: The limit is no number.
    """
    name = f"{images.pixels_fingerprint}-{area}"
    found = kept(
        images, Shrink(area), name=name, area=area, room=lambda: _estimate(images, area), accelerator=accelerator
    )
    return replace(found, beside=beside)


def kept(
    images: Images,
    make: Callable[[Image.Image], NDArray[np.uint8]],
    *,
    name: str,
    area: int,
    room: Callable[[], int],
    accelerator: Accelerator,
) -> Pictures:
    """Opens kept images, or begins to keep them; see :func:`kept_pictures`.

    Args:
        images: N images.
        make: See :class:`Pictures`.
        name: Of the files: of these images, and of what is made of them.
        area: Most pixels that an image keeps.
        room: Tells how many bytes of the disk they will take.
        accelerator: The first process makes the files.
    """
    stem = cache_folder() / "pixels" / f"{name}-{_MADE}"
    limit = cache_limit()
    if not hasattr(os, "pwrite"):  # Windows, which gives empty files all of their room on the disk, too
        return Pictures(images, make, area, None)
    if accelerator.is_main_process:
        with suppress(OSError):  # no room, or nowhere to write
            if _room(stem) > limit:  # which was another one before
                _remove(stem)
            if not _is_whole(stem, len(images), area):
                wanted = room()
                if _make_room(stem.parent, wanted, limit):
                    _make(stem, len(images), area, room=wanted)
    accelerator.wait_for_everyone()
    return Pictures(images, make, area, stem if limit and _is_whole(stem, len(images), area) else None)


def _estimate(images: Images, area: int) -> int:
    """Returns about how many bytes of the disk the images will take, from some of them."""
    sizes = []
    for row in range(0, len(images), max(1, len(images) // _SAMPLE)):
        with suppress(UnreadableImageError):
            width, height = images.open(row).size
            size = 3 * min(area, width * height)
            # in whole blocks, and mostly one more, since an image begins anywhere
            sizes.append(size if size == 3 * area else _BLOCK * (-(-size // _BLOCK) + 1))
    return round(float(np.mean(sizes)) * len(images)) if sizes else 0


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _is_whole(stem: Path, count: int, area: int) -> bool:
    try:
        shapes = np.lib.format.open_memmap(_file(stem, _SHAPES), mode="r+")
        np.memmap(_file(stem, _PIXELS), dtype=np.uint8, mode="r+", shape=(3 * area * count,))
    except (OSError, ValueError):
        return False
    with suppress(OSError):
        os.utime(_file(stem, _SHAPES))  # so that what was used last is removed last
    return shapes.dtype == np.int32 and shapes.shape == (count, 3)


def _make(stem: Path, count: int, area: int, *, room: int) -> None:
    part = _file(stem, f".{secrets.token_hex(4)}.part")
    try:
        part.write_text(str(room))
        part.replace(_file(stem, _ROOM))
        with part.open("wb") as file:
            file.truncate(3 * area * count)
        part.replace(_file(stem, _PIXELS))
        np.lib.format.open_memmap(part, mode="w+", dtype=np.int32, shape=(count, 3)).flush()
        reserve_disk_space(part)
        part.replace(_file(stem, _SHAPES))
    finally:
        part.unlink(missing_ok=True)


def _room(stem: Path) -> int:
    """Returns how many bytes a set takes, or will take once it is full."""
    there = [path.stat().st_blocks * 512 for suffix in (_PIXELS, _SHAPES) if (path := _file(stem, suffix)).exists()]
    with suppress(OSError, ValueError):
        return max(sum(there), int(_file(stem, _ROOM).read_text()))
    return sum(there)


def _remove(stem: Path) -> None:
    for suffix in (_SHAPES, _PIXELS, _ROOM):
        _file(stem, suffix).unlink(missing_ok=True)


def _make_room(folder: Path, wanted: int, limit: float) -> bool:
    """Removes what was not used for longest until so many bytes are within the limit; returns whether they are."""
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.glob(f"*{_SHAPES}"), key=lambda path: path.stat().st_mtime)
    stems = [path.with_name(path.name.removesuffix(_SHAPES)) for path in there]
    sizes = [_room(stem) for stem in stems]
    free, used = shutil.disk_usage(folder).free, sum(sizes)
    if wanted > limit or wanted > (free + used) / 2:
        return False
    for stem, size in zip(stems, sizes, strict=True):
        if used + wanted <= limit and wanted <= free / 2:
            break
        _remove(stem)
        free, used = free + size, used - size
    return True
