"""A common value range for all images of a data set whose values are not 0 to 255, so that they stay comparable."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelsieve.core.errors import DataError
from labelsieve.data.images import Images, reading
from labelsieve.data.input.rgb import value_kind, value_range

ImagesT = TypeVar("ImagesT", bound=Images)

# Maximum number of sampled images, which are evenly spaced, and of values per image.
_SAMPLED, _VALUES = 256, 2**16
# First bytes of formats whose values are always 0 to 255: JPEG, GIF, WebP, BMP. JPEG also has no transparency.
_JPEG = b"\xff\xd8"
_ALWAYS_8_BIT = (_JPEG, b"GIF8", b"RIFF", b"BM")


def with_ranges(images: ImagesT) -> ImagesT:
    """Returns the images with a range for each kind of values in a sample of them, and a note on each range.

    The sample only depends on the number of images.
    """
    values_of_kind: dict[str, list[NDArray[Any]]] = defaultdict(list)
    for row in np.unique(np.linspace(0, len(images) - 1, min(len(images), _SAMPLED)).astype(np.int64)).tolist():
        if not _is_8_bit(images.head(row)):
            with suppress(DataError):
                kind, values = reading(images.encoded(row), _values)
                values_of_kind[kind].append(values)
    ranges = {kind: value_range(np.concatenate(values)) for kind, values in values_of_kind.items() if kind != "8-bit"}
    notes = [
        f"values of {kind} images: {low:g} becomes black and {high:g} white" for kind, (low, high) in ranges.items()
    ]
    return replace(images, ranges=ranges, notes=(*images.notes, *notes)) if ranges else images


def _is_8_bit(head: bytes) -> bool:
    """Returns whether the first bytes of a file imply that its values are 0 to 255."""
    return not head or head.startswith(_ALWAYS_8_BIT) or (head[1:4] == b"PNG" and head[24:25] != b"\x10")


def never_converted(head: bytes) -> bool:
    """Returns whether the first bytes of a file imply that its values are 0 to 255, and that it is opaque."""
    return not head or head.startswith(_JPEG)


def _values(image: Image.Image) -> tuple[str, NDArray[Any]]:
    """Returns the kind of an image and some of its values."""
    kind = value_kind(image)
    if kind == "8-bit":
        return kind, np.empty(0)
    colour = kind == "16-bit colour"
    values = np.asarray(image.convert("RGB") if colour else image).ravel()
    values = values[:: values.size // _VALUES + 1]
    return kind, values.astype(np.float64) * (257 if colour else 1)
