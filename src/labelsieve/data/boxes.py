"""Boxes: rows that are crops of images, cropped on demand."""

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
"""Default margin of a crop around its box, as a share of the sides of the box; see docs/boxes.md."""
BoxMargin = Annotated[float, Range(0, 10, hint="a share of the sides of the box, such as 0.1 for 10 %", is_share=True)]
# Minimum side of a box in pixels.
_MIN_SIDE = 2.0
# Tolerance for rounding errors of relative coordinates, which must not add a pixel.
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """N boxes in images.

    Coordinates refer to the upright image, after its EXIF orientation has been applied.

    Attributes:
        sides: Shape (N, 4), float64: left, top, width and height, in pixels; as read, not clipped to the image.
        image_of: Shape (N,), int64: the index of the image of each box; -1 if its image is unknown.
        is_relative: Whether `sides` are shares of the width and height of the image, from 0 to 1, instead of pixels.
        margin: Margin of a crop around its box, as a share of the sides of the box, clipped to the image.

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
            SettingsError: The margin is outside of 0 to 10.
        """
        check_value("box_margin", margin, BoxMargin)
        return replace(self, margin=float(margin))

    def by_image(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sorts rows by image, so that each image is decoded once."""
        return rows[np.argsort(self.image_of[rows], kind="stable")]

    def in_batches(self, rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        """Splits rows of :meth:`by_image` into batches of at most `size`; only splits images with more boxes."""
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
        """Returns left, top, right and bottom of a box, clipped to its image of size (width, height).

        Raises:
            DataError: The box is outside of the image, or too small.
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
        if min(right - left, bottom - top) < _MIN_SIDE:
            raise DataError(f"the box is smaller than {_MIN_SIDE:g} pixels: {right - left:.1f} x {bottom - top:.1f}")
        return left, top, right, bottom

    def area(self, row: int, *, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of the crop with its margin, in integer pixels of an image of that size.

        Raises:
            DataError: See :meth:`in_pixels`.
        """
        left, top, right, bottom = self.in_pixels(row, size=size)
        margin_x, margin_y = self.margin * (right - left), self.margin * (bottom - top)
        corner = max(0, int(np.floor(left - margin_x + _TOLERANCE))), max(0, int(np.floor(top - margin_y + _TOLERANCE)))
        end = (
            min(size[0], int(np.ceil(right + margin_x - _TOLERANCE))),
            min(size[1], int(np.ceil(bottom + margin_y - _TOLERANCE))),
        )
        return *corner, *end

    def crop(self, image: Image.Image, row: int) -> Image.Image:
        """Crops the box of a row from its upright image.

        Raises:
            DataError: See :meth:`in_pixels`.
        """
        return image.crop(self.area(row, size=image.size))


@dataclass(frozen=True, kw_only=True)
class BoxFiles:
    """The annotation files of N boxes, in the order of the rows.

    Attributes:
        files: The files, including those without a box.
        counts: Number of boxes of each file.
        codes: The code of each of the K classes in the files.
        column: Name of the label in the files.
        takes_new: Whether new classes may be written to the files.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...]
    codes: tuple[str, ...]
    column: str
    takes_new: bool = False


class LastImage(threading.local):
    """Caches the last decoded image of each thread, because boxes of one image are usually read in succession."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.image: Image.Image | None = None

    def get(self, number: int, decode: Callable[[], Image.Image]) -> Image.Image:
        """Returns the image with this number; decodes it unless it is cached."""
        if self.number != number or self.image is None:
            self.number, self.image = None, None  # frees it first: two large images may not fit into memory
            self.image = decode()
            self.number = number
        return self.image

    def __reduce__(self) -> Any:
        """Starts empty in another process."""
        return LastImage, ()
