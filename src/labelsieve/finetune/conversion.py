"""Which images training converts to RGB in another way than `pipeline("image-classification")` does."""

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

# Decoding leaves Python's lock, so that threads help.
_THREADS = 4


def converted_rows(images: Images, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns those of some rows whose image the pipeline sees with other pixels, or cannot read.

    Transparency and values that are not 0 to 255 make the difference. Only images that have one of them are decoded;
    those that cannot be read at all do not count.
    """
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        differ = pool.map(partial(_is_converted, images), rows.tolist())
        return np.array([row for row, differs in zip(rows.tolist(), differ, strict=True) if differs], dtype=np.int64)


def _is_converted(images: Images, row: int) -> bool:
    if never_converted(images.head(row)):
        return False
    try:
        if reading(images.encoded(row), _is_plain, mended=False):
            return False
    except UnreadableImageError:
        return False
    except DataError:  # perhaps of the pipeline alone
        pass
    try:
        ours = images.open(row)
    except UnreadableImageError:
        return False
    try:
        return bool(ours.tobytes() != images.seen_by_pipeline().open(row).tobytes())
    except UnreadableImageError:
        return True


def _is_plain(image: Image.Image) -> bool:
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return value_kind(image) == "8-bit" and not has_alpha
