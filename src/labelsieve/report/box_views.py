"""Renders a box for a person: with its surroundings or in the full image, always outlined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw

from labelsieve.core.errors import DataError
from labelsieve.data.images import Images, UnreadableImageError

DRAWN = 1
"""Version of the rendering; increment it when the rendering changes, to invalidate the cache."""
# Minimum side of a crop in pixels of the image: smaller crops show no context.
_MIN_SIDE = 32
# Brightness factor outside of the box: the box stands out, and the rest can still be recognised.
_DIMMED = 0.62
# The line width is the longest side divided by this, in a crop and in a full image.
_LINE_OF_CROP, _LINE_OF_IMAGE = 240, 300
# A box smaller than this share of its image is hard to find and gets a ring.
_SMALL_BOX = 0.05
_LIGHT, _DARK = (255, 255, 255), (16, 16, 16)


class Area(NamedTuple):
    """Left, top, right and bottom of a rectangle in an image, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxView:
    """A box and the crop of its image to show, before anything is drawn.

    Attributes:
        image: The crop.
        box: The box in the crop.
        box_in_image: The box in the full image.
        window: The crop in the full image.
        image_size: Width and height of the full image in pixels.

    Example:
        >>> from PIL import Image
        >>> from labelsieve.report.box_views import Area, BoxView
        >>> view = BoxView.around(Image.new("RGB", (400, 300), "red"), Area(100, 100, 150, 140))
        >>> view.image.size, view.box, view.drawn(200).size
        ((100, 80), Area(left=25, top=20, right=75, bottom=60), (200, 160))
    """

    image: Image.Image
    box: Area
    box_in_image: Area
    window: Area
    image_size: tuple[int, int]

    @classmethod
    def around(cls, image: Image.Image, box: Area) -> BoxView:
        """Returns a box with its surroundings, see :func:`window_around`."""
        window = window_around(box, size=image.size)
        left, top = window.left, window.top
        inside = Area(box.left - left, box.top - top, box.right - left, box.bottom - top)
        part = image.crop((int(left), int(top), int(window.right), int(window.bottom)))
        return cls(image=part, box=inside, box_in_image=box, window=window, image_size=image.size)

    def drawn(self, side: int) -> Image.Image:
        """Returns the crop with the box outlined and the rest dimmed, scaled to a longest side in pixels.

        Small crops are enlarged with smooth interpolation, in which people recognise more than in hard pixels. Lines
        are drawn afterwards, so that their width is the same at each scale.
        """
        scale = side / max(self.image.size)
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        filter = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        image = self.image.resize(size, filter, reducing_gap=2.0)
        image.info.clear()  # removes location, camera and owner of the photo
        across, down = image.width / self.image.width, image.height / self.image.height
        box = Area(self.box.left * across, self.box.top * down, self.box.right * across, self.box.bottom * down)
        return _outlined(image, box, line=math.ceil(side / _LINE_OF_CROP), dimmed=_DIMMED)


def in_context(images: Images, row: int) -> BoxView:
    """Returns the box of one row with its surroundings.

    Args:
        images: Boxes in images.
        row: Row of the box.

    Raises:
        UnreadableImageError: The image cannot be read, or does not contain the box.
    """
    return BoxView.around(*_image_and_box(images, row))


def in_full_image(images: Images, row: int) -> Image.Image:
    """Returns the full image of one row with its box outlined.

    Args:
        images: Boxes in images.
        row: Row of the box.

    Raises:
        UnreadableImageError: The image cannot be read, or does not contain the box.
    """
    return outlined(*_image_and_box(images, row))


def outlined(image: Image.Image, box: Area) -> Image.Image:
    """Returns an image in its own size with a box outlined, and a ring around a small box."""
    image, longest = image.copy(), max(image.size)
    image.info.clear()
    line = max(2, math.ceil(longest / _LINE_OF_IMAGE))
    image = _outlined(image, box, line=line)
    if max(box.right - box.left, box.bottom - box.top) < _SMALL_BOX * longest:
        _draw_ring(image, box, line=line)
    return image


def window_around(box: Area, *, size: tuple[int, int]) -> Area:
    """Returns the crop to show a box with, in integer pixels of an image of a size (width, height).

    It has twice the width and height of the box; each side is at least the longer side of the box and 32 pixels. A
    crop that would leave the image is moved inside, so that boxes at an edge have the same scale as others.

    Example:
        >>> from labelsieve.report.box_views import Area, window_around
        >>> window_around(Area(100, 100, 150, 140), size=(400, 300))
        Area(left=75, top=80, right=175, bottom=160)
        >>> window_around(Area(0, 100, 50, 140), size=(400, 300))
        Area(left=0, top=80, right=100, bottom=160)
    """
    longer = max(box.right - box.left, box.bottom - box.top)
    left, right = _span(box.left, box.right, longer, size[0])
    top, bottom = _span(box.top, box.bottom, longer, size[1])
    return Area(left, top, right, bottom)


def _span(start: float, end: float, longer: float, size: int) -> tuple[int, int]:
    """Returns first and last pixel of a window in one direction."""
    length = min(float(size), max(2 * (end - start), longer, _MIN_SIDE))
    first = min(max((start + end - length) / 2, 0.0), size - length)
    return math.floor(first), min(size, math.ceil(first + length))


def _image_and_box(images: Images, row: int) -> tuple[Image.Image, Area]:
    """Returns the full image of one row and the box in it."""
    assert images.boxes is not None, "only rows that are boxes are drawn"
    image = images.full_image(row)
    try:
        return image, Area(*images.boxes.in_pixels(row, size=image.size))
    except DataError as error:
        raise UnreadableImageError(f"{images.ids[row]}: {error}") from None


def _outlined(image: Image.Image, box: Area, *, line: int, dimmed: float = 1.0) -> Image.Image:
    """Draws a light and a dark line around a box, one of them visible on any background, and dims the outside.

    The lines lie outside of the box, so that they do not cover a small box; at an edge of the image they move inside.
    """
    hole = _integer_box(box, image.size, margin=2 * line)
    outlined = image
    if dimmed < 1:
        outlined = image.point([round(dimmed * (level % 256)) for level in range(256 * len(image.getbands()))])
        outlined.paste(image.crop(hole), hole)
    draw = ImageDraw.Draw(outlined)
    for colour, offset in ((_DARK, 2 * line), (_LIGHT, line)):
        left, top, right, bottom = hole
        edges = (left - offset, top - offset, right + offset - 1, bottom + offset - 1)  # Pillow includes the last pixel
        draw.rectangle(edges, outline=colour, width=line)
    return outlined


def _integer_box(box: Area, size: tuple[int, int], *, margin: int) -> tuple[int, int, int, int]:
    """Returns a box in integer pixels, at least 1 x 1, moved to leave a margin in the image if possible."""
    left, right = _integer_span(box.left, box.right, margin, size[0])
    top, bottom = _integer_span(box.top, box.bottom, margin, size[1])
    return left, top, right, bottom


def _integer_span(start: float, end: float, margin: int, size: int) -> tuple[int, int]:
    first = max(margin, min(math.floor(start), size - margin - 1))
    return first, max(first + 1, min(math.ceil(end), size - margin))


def _draw_ring(image: Image.Image, box: Area, *, line: int) -> None:
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    draw = ImageDraw.Draw(image)
    for colour, radius in ((_DARK, 12 * line), (_LIGHT, 11 * line)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=line)
