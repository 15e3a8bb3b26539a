"""Thumbnails of images, cached on disk for all reviews.

If rows are boxes, the large thumbnail shows the outlined box with its context, the small one the crop, and the original
the whole image with the box outlined, so that the browser draws nothing, whatever the format and orientation of the
file.
"""

from __future__ import annotations

import io
import os
import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from labelsieve.core.cache import cache_folder
from labelsieve.core.errors import DataError
from labelsieve.core.provenance import fingerprint
from labelsieve.data.images import LabelledImages, UnreadableImageError, reading
from labelsieve.report.box_views import DRAWN, in_context, in_full_image
from labelsieve.report.thumbnails import TINY, encode
from labelsieve.review.answers import key_of

# Longest sides in pixels: of a card, and of the small example images.
SIDES = {"large": 720, "small": 160}
_QUALITY = 82
# JPEG quality of whole images with an outlined box: visually lossless, and fast also for large photos.
_WHOLE_QUALITY = 92
# Increased when the thumbnail of the same image changes.
_VERSION = 1
# Formats that all browsers display, by their names in Pillow.
_BROWSER_FORMATS = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # photos of some phones: a JPEG followed by more images
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
_BROWSER_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


class Thumbnails:
    """The thumbnails of images; if the cache is not writable, they are made each time.

    Args:
        images: The images.
    """

    def __init__(self, images: LabelledImages) -> None:
        self.images = images
        # the ranges of values change how an image looks
        version = fingerprint(_VERSION, sorted(SIDES.items()), sorted(images.ranges.items()), *_box_style(images))
        self.folder = cache_folder() / "thumbnails" / version

    @cached_property
    def rows(self) -> dict[str, int]:
        """Returns the row of each image by its id."""
        return {name: row for row, name in enumerate(self.images.ids)}

    def get(self, row: int, side: str) -> tuple[str, bytes]:
        """Returns the media type and the bytes of a thumbnail, `large` or `small`.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        data = self._read_cache(row, side)
        if data is None:
            data = self._make(row, SIDES[side])
            self._write_cache(row, side, data)
        return "image/webp", data

    def original(self, row: int) -> tuple[str, bytes]:
        """Returns the media type and the bytes of the original image, as PNG if browsers do not display its format.

        For a box this is the whole image with the box outlined.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        if self.images.boxes is not None:
            return "image/jpeg", _encoded(in_full_image(self.images, row), "JPEG", quality=_WHOLE_QUALITY)
        data = self.images.encoded(row)
        try:
            kind, mode = reading(data, lambda image: (image.format, image.mode))
        except DataError as error:
            raise UnreadableImageError(f"{self.images.ids[row]}: {error}") from None
        if kind in _BROWSER_FORMATS and mode in _BROWSER_MODES:
            return _BROWSER_FORMATS[kind], data
        # in little time instead of little space: it is looked at once
        return "image/png", _encoded(self.images.open(row), "PNG", compress_level=1)

    def _path(self, row: int, side: str) -> Path:
        key = key_of(int(self.images.contents[row]))
        return self.folder / key[:2] / f"{key}-{side}"

    def _read_cache(self, row: int, side: str) -> bytes | None:
        try:
            return self._path(row, side).read_bytes() or None
        except OSError:
            return None

    def _make(self, row: int, side: int) -> bytes:
        if self.images.boxes is not None and side == SIDES["large"]:
            return encode(in_context(self.images, row).drawn(side), quality=_QUALITY)
        image = self.images.open(row)
        image.info.clear()
        quality = None if max(image.size) <= TINY else _QUALITY
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        return encode(image, quality=quality)

    def _write_cache(self, row: int, side: str, data: bytes) -> None:
        path = self._path(row, side)
        with suppress(OSError):  # the cache is full or not writable
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                temporary.write_bytes(data)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)


def _box_style(images: LabelledImages) -> list[Any]:
    """Returns the settings of drawing boxes; empty without boxes."""
    return [] if images.boxes is None else [DRAWN, images.boxes.margin, images.boxes.is_relative]


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
