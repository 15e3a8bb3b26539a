"""Images with and without a given label, as used by all later stages."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from labelsieve.core.errors import DataError, first_line, shown
from labelsieve.core.provenance import fingerprint
from labelsieve.data.boxes import Boxes, LastImage
from labelsieve.data.input.rgb import Ranges, to_rgb, upright, value_kind
from labelsieve.data.labelled import Labelled, Rows
from labelsieve.data.sources.file_kinds import is_pointer

if TYPE_CHECKING:
    from datasets import Dataset

# Maximum number of pixels, about 13,000 x 13,000; larger images are treated as decompression bombs.
MAX_PIXELS = 178_956_970
# Number of first bytes that identify the format of a file.
_HEAD = 32
_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks of a PNG file that are needed to decode pixels, palette, transparency and orientation.
_NEEDED_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"}
ReadT = TypeVar("ReadT")

# Log messages of Pillow go to the logging of the application, not to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class UnreadableImageError(DataError):
    """One image cannot be decoded. The run continues without it; its row contains the reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images(Rows):
    """N images, or boxes in images, decoded one at a time on demand.

    Attributes:
        dataset: A `datasets.Dataset` with N rows and a column `image` of undecoded images: dictionaries with `bytes`
            (the encoded file) or `path`.
        ids: N unique names of the rows, which are the same in every run (for a folder, the relative path).
        contents: Shape (N,), uint64: a hash of each encoded image, and of its box if rows are boxes; equal images have
            equal hashes.
        origin: Arguments of :func:`labelsieve.load_images` to load the same images; empty for data in memory.
        notes: Notes of the loader for the user, one line each.
        ranges: For each kind of values other than 0 to 255 (see `labelsieve.data.input.rgb.value_kind`), the values
            that become black and white. All images share one range, so that they stay comparable.
        boxes: The box of each row in its image; None if rows are full images.
        as_pipeline: Whether images are converted to RGB as `pipeline("image-classification")` does, see
            :meth:`seen_by_pipeline`.
    """

    dataset: Dataset
    ranges: Ranges = field(default_factory=dict)
    boxes: Boxes | None = None
    as_pipeline: bool = False

    @cached_property
    def pixels_fingerprint(self) -> str:
        """Fingerprint of the images and their order, without the labels, which identifies cached features."""
        changed: list[Any] = [*sorted(self.ranges.items())] if not self.as_pipeline else ["pipeline"]
        changed += [] if self.boxes is None else [self.boxes.fingerprint]
        return fingerprint(self.contents, changed) if changed else fingerprint(self.contents)

    @cached_property
    def _last(self) -> LastImage:
        return LastImage()

    def open(self, index: int) -> Image.Image:
        """Decodes one row to RGB: an image, turned upright by its EXIF orientation, or the crop of a box.

        For an animation, it returns the first frame.

        Raises:
            UnreadableImageError: The file is missing, empty, truncated, not an image, or far too large; or the box is
                outside of the image.
        """
        if self.boxes is None:
            return self._decode(index)
        image = self.full_image(index)
        try:
            return self.boxes.crop(image, int(index))
        except DataError as error:
            raise UnreadableImageError(f"{self.ids[index]}: {error}") from None

    def full_image(self, index: int) -> Image.Image:
        """Decodes the full image of one row; for boxes, the image of the last call is cached.

        Raises:
            UnreadableImageError: See :meth:`open`.
        """
        if self.boxes is None:
            return self._decode(index)
        return self._last.get(int(self.boxes.image_of[index]), lambda: self._decode(index))

    def _decode(self, index: int) -> Image.Image:
        data = self.encoded(index)
        try:
            if self.as_pipeline:
                return reading(data, lambda image: ImageOps.exif_transpose(image).convert("RGB"), retries=False)
            return decode(data, self.ranges)
        except DataError as error:
            raise UnreadableImageError(f"{self._named(index)}: {error}") from None

    def _named(self, index: int) -> str:
        """Returns the id of a row, and the name of its file if it differs."""
        row_id, name = self.ids[index], self.file_name(index)
        return row_id if name in row_id else f"{row_id}: {name}"

    def cell(self, index: int) -> tuple[bytes | None, str | None]:
        """Returns the stored bytes and the path of the full image of one row; None for whichever is missing."""
        row = self.dataset[int(index)]["image"] or {"bytes": None, "path": None}
        return row["bytes"], row["path"]

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of the file of the full image of one row.

        Raises:
            UnreadableImageError: It is missing or cannot be read.
        """
        data, path = self.cell(index)
        if data is not None:
            return data
        if path is None:
            raise UnreadableImageError(f"{self.ids[index]}: no image in this row")
        try:
            with open_file(path) as file:
                return file.read()
        except OSError as error:
            raise UnreadableImageError(f"{self._named(index)}: {error.strerror or error}") from None

    def file_name(self, index: int) -> str:
        """Returns the file name of the full image of one row; empty if it has none."""
        return os.path.basename(self.cell(index)[1] or "")

    def head(self, index: int) -> bytes:
        """Returns the first 32 bytes of the file of one image; empty if it cannot be read."""
        data, path = self.cell(index)
        if data is not None or path is None:
            return (data or b"")[:_HEAD]
        try:
            with open_file(path) as file:
                return file.read(_HEAD)
        except OSError:
            return b""

    def by_image(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sorts rows so that each image is decoded once; unchanged if rows are images."""
        return rows if self.boxes is None else self.boxes.by_image(rows)

    def in_batches(self, rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        """Splits rows of :meth:`by_image` into batches of at most `size`, between images if possible."""
        if self.boxes is None:
            return np.array_split(rows, max(1, -(-len(rows) // size)))
        return self.boxes.in_batches(rows, size)

    def cut_out(self, index: int) -> bytes:
        """Returns the crop of a box as a PNG file.

        Raises:
            UnreadableImageError: See :meth:`open`.
        """
        buffer = io.BytesIO()
        image = self.open(index)
        image.info.clear()  # removes location, camera and owner of the photo
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def seen_by_pipeline(self) -> Self:
        """Returns the same images, converted as `pipeline("image-classification")` does.

        The pipeline drops transparency, and clips values at 255 instead of scaling them.
        """
        return replace(self, as_pipeline=True)

    def read_like(self, other: Images) -> Self:
        """Returns the same images with the value ranges and the box margin of other images, if these have any."""
        boxes = self.boxes
        if boxes is not None and other.boxes is not None:
            boxes = boxes.with_margin(other.boxes.margin)
        return replace(self, ranges={**self.ranges, **other.ranges}, boxes=boxes)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages(Images, Labelled):
    """N images, or boxes in images, with a given label each; see :class:`Images` for its other attributes.

    Attributes:
        labels: Shape (N,), int64, values 0 to K-1: the given labels, indices into `class_names`.
        class_names: The K names, in the order of the indices.
        truth: Shape (N,), int64, or None: the true labels, if they are known. Used for metrics only.
        annotations: The labels of several annotators, whose majority vote is `labels`; None with one label per image.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> pixels = np.zeros((4, 32, 32, 3), dtype=np.uint8)
        >>> images = ls.load_images(pixels, labels=["cat", "dog", "cat", "dog"])
        >>> len(images), images.class_names, images.open(0).size
        (4, ('cat', 'dog'), (32, 32))
    """


def open_file(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading.

    Raises:
        OSError: It cannot be read, or is a pipe or a device, which may block or never end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    return Path(path).open("rb")


def decode(data: bytes, ranges: Ranges | None = None) -> Image.Image:
    """Decodes an encoded image to an upright RGB image.

    Palette and CMYK images are converted; transparent images are composited on white, or on black if hardly anything
    would be visible on white; values other than 0 to 255 are scaled; an animation is reduced to its first frame.
    Broken EXIF blocks and text chunks of any length are ignored.

    Args:
        data: The bytes of the file.
        ranges: See :class:`Images`; kinds without a range are scaled by the values of the image itself.

    Raises:
        DataError: The bytes are not a complete image, or it has more than `MAX_PIXELS` pixels.
    """

    def converted(image: Image.Image) -> Image.Image:
        kind = value_kind(image)
        image.load()  # before reading EXIF, so that truncated files are reported as such
        return to_rgb(upright(image), kind, ranges or {})  # type: ignore[no-any-return]

    return reading(data, converted)


def reading(data: bytes, read: Callable[[Image.Image], ReadT], *, retries: bool = True) -> ReadT:
    """Opens an encoded image and returns the result of `read`, without warnings of Pillow in the terminal.

    Args:
        data: The bytes of the file.
        read: A function of the open image.
        retries: If a PNG cannot be read, retry without its text chunks, whose length Pillow limits.

    Raises:
        DataError: The bytes are not a complete image, or it has more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise DataError("the file is empty")
    if is_pointer(data):
        raise DataError("a Git LFS pointer, not the image itself; get it with: git lfs pull")
    try:
        with _QUIET, Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} allowed")
            return read(image)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"more pixels than the {MAX_PIXELS:,} allowed") from None
    except Exception as error:  # decoders raise many kinds of errors on broken files, such as struct.error
        stripped = without_texts(data) if retries else data
        if len(stripped) < len(data):
            return reading(stripped, read, retries=False)
        if isinstance(error, UnidentifiedImageError):
            raise DataError("not an image that can be decoded") from None
        raise DataError(f"broken image: {shown(first_line(error))}") from None


def without_texts(data: bytes) -> bytes:
    """Returns a PNG file with only `_NEEDED_CHUNKS`; other files unchanged."""
    if not data.startswith(_PNG):
        return data
    parts, at = [_PNG], len(_PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] in _NEEDED_CHUNKS:
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


class _QuietPillow:
    """Suppresses Pillow's warnings while at least one thread decodes.

    Warning filters are global to the process: threads that restore them separately could leave them changed.
    """

    def __init__(self) -> None:
        self.lock, self.threads, self.before = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if not self.threads:
                self.before = warnings.catch_warnings()
                self.before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.threads += 1

    def __exit__(self, *_error: object) -> None:
        with self.lock:
            self.threads -= 1
            if not self.threads:
                self.before.__exit__(None, None, None)


_QUIET = _QuietPillow()
