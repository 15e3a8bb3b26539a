"""Small versions of images, made once and kept in the cache from one review to the next.

Where rows are boxes, the large version of one shows it outlined in its surroundings, the small one what is cut out of
its image, and the original the whole image with the box outlined: browsers then have nothing to draw, whatever the
format and orientation of the file.
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

# Longest sides in pixels: of a card, and of the small images beside it.
SIDES = {"large": 720, "small": 160}
_QUALITY = 82
# Of whole images with a box in them: no more is lost than an eye sees, and large photos are encoded in a moment.
_WHOLE_QUALITY = 92
# Goes up when the same image gives another thumbnail.
_MADE = 1
# What every browser shows by itself, by Pillow's names.
_SHOWN_BY_BROWSERS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}


class Thumbnails:
    """The thumbnails of images; where the cache cannot be written, they are made again each time.

    Args:
        images: The images.
    """

    def __init__(self, images: LabelledImages) -> None:
        self.images = images
        # how values become black and white changes what an image looks like
        look = fingerprint(_MADE, sorted(SIDES.items()), sorted(images.ranges.items()), *_look_of_boxes(images))
        self.folder = cache_folder() / "thumbnails" / look

    def get(self, row: int, side: str) -> tuple[str, bytes]:
        """Returns the media type and the bytes of a thumbnail, `large` or `small`.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        kept = self._kept(row, side)
        if kept is None:
            kept = self._make(row, SIDES[side])
            self._keep(row, side, kept)
        return f"image/{_kind_of(kept)}", kept

    def original(self, row: int) -> tuple[str, bytes]:
        """Returns the media type and the bytes of an image itself, as a PNG where browsers do not show its format.

        Of a box that is the whole image with the box outlined.

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
        is_plain = reading(data, lambda image: image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"))
        if kind in _SHOWN_BY_BROWSERS and is_plain:
            return _SHOWN_BY_BROWSERS[kind], data
        kind, data = encode(self.images.open(row), quality=None)
        return f"image/{kind}", data

    def _path(self, row: int, side: str) -> Path:
        key = key_of(int(self.images.contents[row]))
        return self.folder / key[:2] / f"{key}-{side}"

    def _kept(self, row: int, side: str) -> bytes | None:
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

    def _keep(self, row: int, side: str, data: bytes) -> None:
        path = self._path(row, side)
        with suppress(OSError):  # the cache is full or cannot be written to
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            part.write_bytes(data)
            os.replace(part, path)


def _kind_of(data: bytes) -> str:
    if data.startswith(b"\x89PNG"):
        return "png"
    return "jpeg" if data.startswith(b"\xff\xd8") else "webp"


def _look_of_boxes(images: LabelledImages) -> list[Any]:
    """Returns what boxes look like apart from where they are, which is in their contents; nothing without boxes."""
    return [] if images.boxes is None else [DRAWN, images.boxes.margin, images.boxes.is_relative]


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_WHOLE_QUALITY)
    return buffer.getvalue()
