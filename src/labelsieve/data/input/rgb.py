"""What becomes of the values of an image: 8-bit RGB, whatever type they have and however transparent they are.

The functions need numpy and Pillow alone and stand in the model card as they are here: :func:`source_code` copies them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

_NOISE = 2

Ranges = Mapping[str, tuple[float, float]]
"""For a kind of :func:`value_kind` the values that become black and white."""


def value_kind(image: Any) -> str:
    """Returns what the values of an image that is open, but not loaded, are: "8-bit" needs no scaling."""
    stored = str([tile[3] for tile in getattr(image, "tile", [])])  # before Pillow 11 it has no names
    if ";16" in stored and "16S" not in stored:
        return "16-bit" if image.mode.startswith("I") else "16-bit colour"
    if image.mode.startswith("I;"):
        return "16-bit"
    return {"I": "32-bit", "F": "float"}.get(image.mode, "8-bit")


def value_range(values: Any) -> tuple[float, float]:
    """Returns the values that become black and white: 0 and the top of a usual scale if they fill it, else the ends."""
    values = np.asarray(values, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.quantile(values, (0.001, 0.999)))  # single hot pixels do not count
    if low == high:
        low, high = float(values.min()), float(values.max())
    top = float(next((top for top in (1, 255, 1023, 4095, 16383, 65535) if top >= high), high))
    if low >= 0 and (high - low >= top / 2 or low == high):
        return 0.0, top or 1.0
    return low, high if high > low else low + 1.0


def on_ground(image: Any) -> Any:
    """Lays a transparent image on white, or on black where hardly anything would be seen on white."""
    layer = image.convert("RGBA")

    def on(ground: str) -> Any:
        return Image.alpha_composite(Image.new("RGBA", layer.size, ground), layer).convert("RGB")

    def is_seen(flat: Any) -> bool:
        return any(high - low >= 16 for low, high in flat.getextrema())

    white = on("white")
    return white if is_seen(white) or not is_seen(on("black")) else on("black")


def to_rgb(image: Any, kind: str, ranges: Any) -> Any:
    """Converts a loaded image to 8-bit RGB; a kind without a range is scaled by the range of the image itself."""
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
    """Returns whether an RGB image shows nothing: all pixels are alike but for the noise of JPEG."""

    def spread(part: Image.Image) -> float:
        return max(high - low for low, high in part.getextrema())  # type: ignore[misc]

    few = image.resize((8, 8), Image.Resampling.NEAREST)  # which tells of nearly all that they are not
    return spread(few) <= _NOISE and spread(image) <= _NOISE


def source_code(ranges: Ranges) -> str:
    """Returns Python that opens an image file as :meth:`labelsieve.data.images.LabelledImages.open` does."""
    functions = "\n\n".join(inspect.getsource(function) for function in (value_kind, value_range, on_ground, to_rgb))
    known = {kind: tuple(ends) for kind, ends in sorted(ranges.items())}
    return f"""from typing import Any

import numpy as np
from PIL import Image, ImageOps

RANGES = {known!r}  # what became black and white


{functions}

def as_trained(file):
    image = Image.open(file)
    kind = value_kind(image)
    return to_rgb(ImageOps.exif_transpose(image), kind, RANGES)
"""
