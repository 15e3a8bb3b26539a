"""Images in memory, encoded losslessly so that they are a source like any other."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from labelsieve.core.errors import DataError, first_line, shown
from labelsieve.data.input.rgb import upright, value_kind

if TYPE_CHECKING:
    from datasets import Dataset

# Number of rows per Arrow array.
_ROWS = 256
# File formats for values that PNG does not support, and the modes that PNG supports.
_FORMATS = {"32-bit": "TIFF", "float": "TIFF"}
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def read_memory(images: Any) -> Dataset:
    """Encodes images in memory, losslessly, one at a time.

    Args:
        images: Array of shape (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4), uint8, or a sequence of arrays of
            such shapes without N, or of PIL images. Arrays of other types are rejected, because the meaning of their
            values is unknown; PIL images are read like files of their mode.

    Raises:
        DataError: An image has another shape or type.
    """
    import pyarrow as pa
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    if not isinstance(images, list | tuple):
        images = np.asarray(images)
        _check_array(images, dimensions=(3, 4), expected="(N, H, W) or (N, H, W, 3)")
    schema = Features({"image": ImageFeature(decode=False)}).arrow_schema
    batches = []
    for start in range(0, len(images), _ROWS):  # an Arrow array has at most 2 GiB
        rows = [
            {"bytes": _encode(image, start + row), "path": None}
            for row, image in enumerate(images[start : start + _ROWS])
        ]
        batches.append(pa.record_batch([pa.array(rows, schema.field("image").type)], schema=schema))
    return Dataset(pa.Table.from_batches(batches, schema=schema))


def _encode(image: Any, row: int) -> bytes:
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        _check_array(array, dimensions=(2, 3), expected=f"(H, W) or (H, W, 3) for image {row}")
        image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    buffer = io.BytesIO()
    try:
        kind = value_kind(image)
        image.load()
        _storable(upright(image), kind).save(buffer, _FORMATS.get(kind, "PNG"), compress_level=1)
    except Exception as error:  # a file that was opened, but not decoded, may be broken in any way
        raise DataError(f"image {row} cannot be decoded: {first_line(error)}; leave it out") from None
    return buffer.getvalue()


def _storable(image: Image.Image, kind: str) -> Image.Image:
    """Returns an image in a mode that its format stores without loss; keeps transparency and large values."""
    if kind == "16-bit":
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    return image if kind in _FORMATS or image.mode in _MODES else image.convert("RGB")


def _check_array(array: Any, *, dimensions: tuple[int, int], expected: str) -> None:
    colours_last = array.ndim == dimensions[0] or (array.ndim == dimensions[1] and array.shape[-1] in (1, 3, 4))
    if array.dtype != np.uint8 or not colours_last or 0 in array.shape[-3:]:
        raise DataError(
            f"expected images as uint8 of shape {expected}, got {shown(array.dtype)} of shape {shown(array.shape)}; "
            "bring values to 0..255 and colours to the last axis"
        )
