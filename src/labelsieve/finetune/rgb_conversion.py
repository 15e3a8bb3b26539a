"""Finds images that training converts to RGB differently from `pipeline("image-classification")`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelsieve.core.errors import DataError
from labelsieve.data.images import Images, UnreadableImageError, reading
from labelsieve.data.input.ranges import never_converted
from labelsieve.data.input.rgb import value_kind

# Decoding releases the global interpreter lock.
_THREADS = 4


def converted_rows(images: Images, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the rows whose image has other pixels in the pipeline, or cannot be read by it.

    The causes are transparency and values outside 0 to 255. Only images with one of them are decoded; images that
    training cannot read either are not returned.
    """
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        results = pool.map(partial(_differs, images), rows.tolist())
        return np.array([row for row, differs in zip(rows.tolist(), results, strict=True) if differs], dtype=np.int64)


def _differs(images: Images, row: int) -> bool:
    if never_converted(images.head(row)):
        return False
    try:
        if reading(images.encoded(row), _is_plain, retries=False):
            return False
    except UnreadableImageError:
        return False
    except DataError:  # perhaps only the pipeline cannot read it
        pass
    try:
        image = images.open(row)
    except UnreadableImageError:
        return False
    try:
        return bool(image.tobytes() != images.seen_by_pipeline().open(row).tobytes())
    except UnreadableImageError:
        return True


def _is_plain(image: Image.Image) -> bool:
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return value_kind(image) == "8-bit" and not has_alpha
