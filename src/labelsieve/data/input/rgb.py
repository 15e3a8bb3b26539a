"""Converts images of any type and transparency to 8-bit RGB.

The functions only need numpy and Pillow, because :func:`source_code` copies them into the model card.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image

_NOISE = 2

Ranges = Mapping[str, tuple[float, float]]
"""For each kind of :func:`value_kind`, the values that become black and white."""


def value_kind(image: Any) -> str:
    """Returns the kind of values of an image that is open, but not loaded; "8-bit" needs no scaling."""
    stored = str([tile[3] for tile in getattr(image, "tile", [])])  # before Pillow 11, tiles have no field names
    if ";16" in stored and "16S" not in stored:
        return "16-bit" if image.mode.startswith("I") else "16-bit colour"
    if image.mode.startswith("I;"):
        return "16-bit"
    return {"I": "32-bit", "F": "float"}.get(image.mode, "8-bit")


def upright(image: Any) -> Any:
    """Turns a loaded image upright by its EXIF orientation, if that can be read."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels may be fine if the EXIF block is broken
        return image
    return image if turn is None else image.transpose(turn)


def value_range(values: Any) -> tuple[float, float]:
    """Returns the values for black and white: 0 and a common maximum if values span half of it, else their range."""
    values = np.asarray(values, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.quantile(values, (0.001, 0.999)))  # ignores single hot pixels
    if low == high:
        low, high = float(values.min()), float(values.max())
    top = float(next((top for top in (1, 255, 1023, 4095, 16383, 65535) if top >= high), high))
    if low >= 0 and (high - low >= top / 2 or low == high):
        return 0.0, top or 1.0
    return low, high if high > low else low + 1.0


def on_ground(image: Any) -> Any:
    """Composites a transparent image on white, or on black if hardly anything would be visible on white."""
    layer = image.convert("RGBA")

    def on(ground: str) -> Any:
        return Image.alpha_composite(Image.new("RGBA", layer.size, ground), layer).convert("RGB")

    def is_seen(flat: Any) -> bool:
        return any(high - low >= 16 for low, high in flat.getextrema())

    white = on("white")
    return white if is_seen(white) or not is_seen(on("black")) else on("black")


def to_rgb(image: Any, kind: str, ranges: Any) -> Any:
    """Converts a loaded image to 8-bit RGB.

    Args:
        image: The image, in its original mode.
        kind: Its `value_kind`, from before it was loaded.
        ranges: Kind to the values that become black and white; other kinds are scaled by the values of the image.
    """
    if kind in ("8-bit", "16-bit colour"):
        transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        image = on_ground(image) if transparent else image.convert("RGB")
    if kind == "8-bit":
        return image
    values = np.asarray(image, dtype=np.float64)
    if kind == "16-bit colour":
        values = values * 257  # Pillow gives the upper eight bits
    low, high = ranges.get(kind) or value_range(values)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return Image.fromarray(np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)).convert("RGB")


def is_flat(image: Image.Image) -> bool:
    """Returns whether an RGB image shows nothing: all pixels are equal up to JPEG noise."""

    def spread(part: Image.Image) -> float:
        return max(high - low for low, high in part.getextrema())  # type: ignore[misc]

    corners = image.resize((8, 8), Image.Resampling.NEAREST)  # a quick check that excludes nearly all images
    return spread(corners) <= _NOISE and spread(image) <= _NOISE


def source_code(ranges: Ranges) -> str:
    """Returns Python code that opens an image file like :meth:`labelsieve.data.images.LabelledImages.open`."""
    functions = (value_kind, upright, value_range, on_ground, to_rgb)
    code = "\n\n".join(inspect.getsource(function) for function in functions)
    listed = {kind: tuple(ends) for kind, ends in sorted(ranges.items())}
    return f"""from typing import Any

import numpy as np
from PIL import ExifTags, Image

RANGES = {listed!r}  # what became black and white


{code}

def as_trained(file):
    image = Image.open(file)
    kind = value_kind(image)
    image.load()
    return to_rgb(upright(image), kind, RANGES)
"""
