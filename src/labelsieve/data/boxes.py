"""Boxes: rows that show a part of an image each, cut out of it when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.core.provenance import fingerprint
from labelsieve.core.validation import Range, check_value

if TYPE_CHECKING:
    from PIL import Image

MARGIN = 0.1
"""What a crop has around its box by default, as a share of the sides of the box; see docs/boxes.md."""
BoxMargin = Annotated[float, Range(0, 10)]
# Sides of a box that is too small to show anything, in pixels.
_TINY = 2.0
# Shares of an image give pixels with errors of rounding, which are not to become a pixel more.
_NEAR = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """Which part of which image each of N rows shows.

    Coordinates are those of the image as it is seen: turned upright as its EXIF orientation says.

    Attributes:
        sides: Shape (N, 4), float64: left, top, width and height, in pixels; as they were read, even where that is no
            part of the image.
        image_of: Shape (N,), int64: a number of the image, the same for all boxes of one image.
        is_relative: Whether `sides` are shares of width and height of the image, from 0 to 1, and not pixels.
        margin: What a crop has around its box, as a share of the sides of the box; what lies beyond the image is left
            out.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from labelsieve.data.boxes import Boxes
        >>> boxes = Boxes(sides=np.array([[10.0, 10, 20, 40]]), image_of=np.zeros(1, dtype=np.int64), margin=0.1)
        >>> boxes.area(0, size=(100, 100)), boxes.crop(Image.new("RGB", (100, 100)), 0).size
        ((8, 6, 32, 54), (24, 48))
    """

    sides: NDArray[np.float64]
    image_of: NDArray[np.int64]
    is_relative: bool = False
    margin: float = MARGIN

    def __len__(self) -> int:
        return len(self.sides)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all boxes and the margin."""
        return fingerprint(self.sides, self.image_of, [self.is_relative, self.margin])

    def take(self, rows: NDArray[np.int64]) -> Boxes:
        """Returns the boxes of the given rows, in that order."""
        return replace(self, sides=self.sides[rows], image_of=self.image_of[rows])

    def with_margin(self, margin: float) -> Boxes:
        """Returns the same boxes with another margin.

        Raises:
            SettingsError: It is out of its range, 0 to 10.
        """
        check_value("box_margin", margin, BoxMargin)
        return replace(self, margin=float(margin))

    def by_image(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns some rows such that boxes of one image follow one another, so that it is decoded once."""
        return rows[np.argsort(self.image_of[rows], kind="stable")]

    def in_batches(self, rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        """Cuts rows of :meth:`by_image` into batches of at most `size`; an image of fewer boxes lies in one of them."""
        ends = np.flatnonzero(np.diff(self.image_of[rows])) + 1
        cuts, start = [0], 0
        for end in (*ends.tolist(), len(rows)):
            if end - cuts[-1] > size and start > cuts[-1]:
                cuts.append(start)
            while end - cuts[-1] > size:
                cuts.append(cuts[-1] + size)
            start = end
        return np.split(rows, cuts[1:])

    def in_pixels(self, row: int, *, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Returns left, top, right and bottom of a box within its image of a size (width, height).

        Raises:
            DataError: The box is no part of the image, or so small that it shows nothing.
        """
        left, top, width, height = (float(value) for value in self.sides[row])
        if not np.isfinite([left, top, width, height]).all():
            raise DataError("the box has coordinates that are no numbers")
        if self.is_relative:
            left, width, top, height = left * size[0], width * size[0], top * size[1], height * size[1]
        if width <= 0 or height <= 0:
            raise DataError(f"the box has no area: {width:g} x {height:g}")
        right, bottom = min(left + width, size[0]), min(top + height, size[1])
        left, top = max(left, 0.0), max(top, 0.0)
        if right <= left or bottom <= top:
            raise DataError(f"the box lies outside of its image of {size[0]} x {size[1]} pixels")
        if min(right - left, bottom - top) < _TINY:
            raise DataError(f"the box is smaller than {_TINY:g} pixels: {right - left:.1f} x {bottom - top:.1f}")
        return left, top, right, bottom

    def area(self, row: int, *, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of what is cut out of an image of a size, in whole pixels.

        Raises:
            DataError: See :meth:`in_pixels`.
        """
        left, top, right, bottom = self.in_pixels(row, size=size)
        beside, above = self.margin * (right - left), self.margin * (bottom - top)
        corner = max(0, int(np.floor(left - beside + _NEAR))), max(0, int(np.floor(top - above + _NEAR)))
        end = min(size[0], int(np.ceil(right + beside - _NEAR))), min(size[1], int(np.ceil(bottom + above - _NEAR)))
        return *corner, *end

    def crop(self, image: Image.Image, row: int) -> Image.Image:
        """Cuts what a row shows out of its upright image.

        Raises:
            DataError: See :meth:`in_pixels`.
        """
        return image.crop(self.area(row, size=image.size))


@dataclass(frozen=True, kw_only=True)
class BoxFiles:
    """The annotation files that hold N boxes, in the order of the rows.

    Attributes:
        files: The files, also those without a box.
        counts: How many boxes each holds.
        codes: How the files write each of the K classes.
        column: What the label is called in them.
        takes_new: Whether they may name a class that none of them names yet.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...]
    codes: tuple[str, ...]
    column: str
    takes_new: bool = False


class LastImage(threading.local):
    """The image that a thread has decoded last: boxes of one image mostly follow one another."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.image: Image.Image | None = None

    def get(self, number: int, decode: Callable[[], Image.Image]) -> Image.Image:
        """Returns the image with a number, decoded unless it was the last one."""
        if self.number != number or self.image is None:
            self.number, self.image = None, None  # not two large ones at once
            self.image = decode()
            self.number = number
        return self.image

    def __reduce__(self) -> Any:
        """Another process begins without an image."""
        return LastImage, ()
