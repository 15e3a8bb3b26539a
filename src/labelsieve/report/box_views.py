"""How a box is shown to a person: with what is around it, or in its whole image, and always with a line around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw

from labelsieve.core.errors import DataError
from labelsieve.data.images import Images, UnreadableImageError

DRAWN = 1
"""Goes up when the same box is drawn in another way, so that what was drawn before is not taken from the cache."""
# A part of an image that is shown has at least this side, in pixels of the image: less of it shows no place.
_LEAST = 32
# What is left of the brightness around a box: what belongs to the label is seen first, the rest is still recognised.
_DIMMED = 0.62
# One of so many pixels of the longest side makes the line around a box wide enough, in a part and in a whole image.
_LINE_OF_PART, _LINE_OF_WHOLE = 240, 300
# A box below this share of its image is hard to find in it, and gets a ring.
_HARD_TO_FIND = 0.05
_LIGHT, _DARK = (255, 255, 255), (16, 16, 16)


class Area(NamedTuple):
    """Left, top, right and bottom of a part of an image, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxView:
    """A box and the part of its image that is shown with it, before anything is drawn.

    Attributes:
        image: That part, as it is.
        box: Where the box is in it.
        place: Where the box is in the whole image.
        window: Where the part is in the whole image.
        image_size: Width and height of the whole image in pixels.

    Example:
        >>> from PIL import Image
        >>> from labelsieve.report.box_views import Area, BoxView
        >>> view = BoxView.around(Image.new("RGB", (400, 300), "red"), Area(100, 100, 150, 140))
        >>> view.image.size, view.box, view.drawn(200).size
        ((100, 80), Area(left=25, top=20, right=75, bottom=60), (200, 160))
    """

    image: Image.Image
    box: Area
    place: Area
    window: Area
    image_size: tuple[int, int]

    @classmethod
    def around(cls, image: Image.Image, box: Area) -> BoxView:
        """Returns a box with its surroundings, see :func:`window_of`."""
        window = window_of(box, size=image.size)
        left, top = window.left, window.top
        inside = Area(box.left - left, box.top - top, box.right - left, box.bottom - top)
        part = image.crop((int(left), int(top), int(window.right), int(window.bottom)))
        return cls(image=part, box=inside, place=box, window=window, image_size=image.size)

    def drawn(self, side: int) -> Image.Image:
        """Returns the part with a line around the box and the rest dimmed, scaled to a longest side in pixels.

        It is enlarged, too, and smoothly so: small parts of a photo are recognised better than with hard pixels. Lines
        are drawn afterwards and are as wide at each size.
        """
        scale = side / max(self.image.size)
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        filter = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        image = self.image.resize(size, filter, reducing_gap=2.0)
        image.info.clear()  # no place, camera or owner of the photo goes with it
        across, down = image.width / self.image.width, image.height / self.image.height
        box = Area(self.box.left * across, self.box.top * down, self.box.right * across, self.box.bottom * down)
        return _outlined(image, box, line=math.ceil(side / _LINE_OF_PART), dimmed=_DIMMED)

    def drawn_whole(self) -> Image.Image:
        """Returns the image at its own size with a line around the box, and a ring around one that is hard to find."""
        image, longest = self.image.copy(), max(self.image.size)
        image.info.clear()
        line = max(2, math.ceil(longest / _LINE_OF_WHOLE))
        image = _outlined(image, self.box, line=line)
        box = self.box
        if max(box.right - box.left, box.bottom - box.top) < _HARD_TO_FIND * longest:
            _draw_ring(image, box, line=line)
        return image


def in_context(images: Images, row: int) -> BoxView:
    """Returns the box of one row with its surroundings.

    Args:
        images: Boxes in images.
        row: Which of them.

    Raises:
        UnreadableImageError: The image cannot be read, or the box is no part of it.
    """
    return BoxView.around(*_placed(images, row))


def in_whole(images: Images, row: int) -> BoxView:
    """Returns the box of one row in its whole image.

    Args:
        images: Boxes in images.
        row: Which of them.

    Raises:
        UnreadableImageError: The image cannot be read, or the box is no part of it.
    """
    image, box = _placed(images, row)
    return BoxView(image=image, box=box, place=box, window=Area(0, 0, *image.size), image_size=image.size)


def window_of(box: Area, *, size: tuple[int, int]) -> Area:
    """Returns which part of an image of a size (width, height) is shown with a box, in whole pixels.

    It is twice the box in width and height, at least as wide and high as the longer side of the box, and at least 32
    pixels. Where it would leave the image it is moved in, so that a box at an edge is shown as large as any other.

    Example:
        >>> from labelsieve.report.box_views import Area, window_of
        >>> window_of(Area(100, 100, 150, 140), size=(400, 300))
        Area(left=75, top=80, right=175, bottom=160)
        >>> window_of(Area(0, 100, 50, 140), size=(400, 300))
        Area(left=0, top=80, right=100, bottom=160)
    """
    longer = max(box.right - box.left, box.bottom - box.top)
    left, right = _span(box.left, box.right, longer, size[0])
    top, bottom = _span(box.top, box.bottom, longer, size[1])
    return Area(left, top, right, bottom)


def _span(start: float, end: float, longer: float, size: int) -> tuple[int, int]:
    """Returns first and last pixel of a window in one direction."""
    length = min(float(size), max(2 * (end - start), longer, _LEAST))
    first = min(max((start + end - length) / 2, 0.0), size - length)
    return math.floor(first), min(size, math.ceil(first + length))


def _placed(images: Images, row: int) -> tuple[Image.Image, Area]:
    """Returns the whole image of one row and its box in it."""
    if images.boxes is None:
        raise ValueError("expected rows that are boxes")
    image = images.whole(row)
    try:
        return image, Area(*images.boxes.in_pixels(row, size=image.size))
    except DataError as error:
        raise UnreadableImageError(f"{images.ids[row]}: {error}") from None


def _outlined(image: Image.Image, box: Area, *, line: int, dimmed: float = 1.0) -> Image.Image:
    """Draws a light and a dark line around a box, one of which is seen on any ground, and dims what is outside.

    The lines lie outside of the box, so that nothing of a small one is covered; at an edge of the image they move in.
    """
    hole = _within(box, image.size, margin=2 * line)
    shown = image
    if dimmed < 1:
        shown = image.point([round(dimmed * (level % 256)) for level in range(256 * len(image.getbands()))])
        shown.paste(image.crop(hole), hole)
    draw = ImageDraw.Draw(shown)
    for colour, grown in ((_DARK, 2 * line), (_LIGHT, line)):
        left, top, right, bottom = hole
        edges = (left - grown, top - grown, right + grown - 1, bottom + grown - 1)  # the last pixel counts in Pillow
        draw.rectangle(edges, outline=colour, width=line)
    return shown


def _within(box: Area, size: tuple[int, int], *, margin: int) -> tuple[int, int, int, int]:
    """Returns a box in whole pixels, at least one wide and high, with room for a margin in its image if it has any."""
    left, right = _between(box.left, box.right, margin, size[0])
    top, bottom = _between(box.top, box.bottom, margin, size[1])
    return left, top, right, bottom


def _between(start: float, end: float, margin: int, size: int) -> tuple[int, int]:
    first = max(margin, min(math.floor(start), size - margin - 1))
    return first, max(first + 1, min(math.ceil(end), size - margin))


def _draw_ring(image: Image.Image, box: Area, *, line: int) -> None:
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    draw = ImageDraw.Draw(image)
    for colour, radius in ((_DARK, 12 * line), (_LIGHT, 11 * line)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=line)
