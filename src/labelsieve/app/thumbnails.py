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
_BROWSER_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}


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

    def get(self, row: int, side: str) -> tuple[str, bytes]:
        """Returns the media type and the bytes of a thumbnail, `large` or `small`.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        data = self._read_cache(row, side)
        if data is None:
            data = self._make(row, SIDES[side])
            self._write_cache(row, side, data)
        return f"image/{_kind_of(data)}", data

    def original(self, row: int) -> tuple[str, bytes]:
        """Returns the media type and the bytes of the original image, as PNG if browsers do not display its format.

        For a box this is the whole image with the box outlined.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        if self.images.boxes is not None:
            return "image/jpeg", _jpeg(in_full_image(self.images, row).drawn_full())
        data = self.images.encoded(row)
        try:
            kind = reading(data, lambda image: image.format)
        except DataError as error:
            raise UnreadableImageError(f"{self.images.ids[row]}: {error}") from None
        is_displayable = reading(data, lambda image: image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"))
        if kind in _BROWSER_FORMATS and is_displayable:
            return _BROWSER_FORMATS[kind], data
        kind, data = encode(self.images.open(row), quality=None)
        return f"image/{kind}", data

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
            return encode(in_context(self.images, row).drawn(side), quality=_QUALITY)[1]
        image = self.images.open(row)
        image.info.clear()
        quality = None if max(image.size) <= TINY else _QUALITY
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        return encode(image, quality=quality)[1]

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


def _kind_of(data: bytes) -> str:
    if data.startswith(b"\x89PNG"):
        return "png"
    return "jpeg" if data.startswith(b"\xff\xd8") else "webp"


def _box_style(images: LabelledImages) -> list[Any]:
    """Returns the settings of drawing boxes; empty without boxes."""
    return [] if images.boxes is None else [DRAWN, images.boxes.margin, images.boxes.is_relative]


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_WHOLE_QUALITY)
    return buffer.getvalue()
