"""Thumbnails as data URIs, within a budget that holds for any images."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from labelsieve.core.errors import DataError
from labelsieve.core.progress import Progress
from labelsieve.data.images import Images
from labelsieve.report.box_views import BoxView, in_context

# Images up to this side are encoded losslessly and shown with hard pixels: smoothing would only blur them.
TINY = 64
# Scales of the requested side, and encoder qualities: tried in order until a thumbnail fits its share of the budget.
_STEPS = ((1.0, 80), (0.75, 60), (0.5, 50), (0.25, 40), (0.125, 30))
# Decoding releases the GIL, so that threads help; only a few, since each may hold a very large image.
_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small image. If the image can no longer be opened, `uri` is empty and `error` is the reason.

    Both are empty if there are no images at all.

    Attributes:
        uri: The image as a `data:` URI.
        width: Pixels of the thumbnail.
        height: Pixels of the thumbnail.
        full_size: Width and height of the image itself in pixels; None without an image.
        tiny: Whether the image itself has at most `TINY` pixels a side.
        box: Left, top, right and bottom of the box in the image in pixels, if a box is shown in its surroundings.
        window: The same for the crop that is shown.
        error: Why there is no image.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    full_size: tuple[int, int] | None = None
    tiny: bool = False
    box: tuple[float, ...] | None = None
    window: tuple[float, ...] | None = None
    error: str = ""


def make_thumbnails(
    images: Images,
    rows: Sequence[int],
    *,
    side: int,
    budget: int,
    surroundings: bool = False,
    progress: Progress | None = None,
) -> list[Thumbnail]:
    """Makes a thumbnail of each of the given rows.

    Args:
        images: Only the given rows are opened.
        rows: Row numbers.
        side: Longest side in pixels; smaller images are not enlarged.
        budget: Upper bound in characters for all data URIs together, at least about 2,000 for each row.
        surroundings: Show boxes outlined in their surroundings, small crops enlarged to `side`.
        progress: Receives progress.
    """
    limit = budget // max(1, len(rows))

    def make(row: int) -> Thumbnail:
        try:
            if surroundings and images.boxes is not None:
                return _of_box(in_context(images, row), side=side, limit=limit)
            image = images.open(row)
        except DataError as error:
            return Thumbnail(error=str(error))
        return _thumbnail(image, side=side, limit=limit)

    task_progress, thumbnails = progress or Progress(), []
    with (
        task_progress.task("making thumbnails", total=len(rows), unit="images", brief=True) as advance,
        ThreadPoolExecutor(max_workers=_THREADS) as pool,
    ):
        for thumbnail in pool.map(make, rows):
            thumbnails.append(thumbnail)
            advance(1)
    return thumbnails


def _thumbnail(image: Image.Image, *, side: int, limit: int) -> Thumbnail:
    tiny, full = max(image.size) <= TINY, image.size
    image.info.clear()  # keeps location, camera and owner of a photo out of the report
    if tiny:
        uri = _encode(image, quality=None)
        if len(uri) <= limit:
            return Thumbnail(uri=uri, width=image.width, height=image.height, full_size=full, tiny=True)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)

    def draw(max_side: int) -> Image.Image:
        small = image.copy()
        small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        return small

    uri, small = _fitting(draw, side=side, limit=limit)
    return Thumbnail(uri=uri, width=small.width, height=small.height, full_size=full, tiny=tiny)


def _of_box(view: BoxView, *, side: int, limit: int) -> Thumbnail:
    uri, small = _fitting(view.drawn, side=side, limit=limit)
    return Thumbnail(
        uri=uri,
        width=small.width,
        height=small.height,
        full_size=view.image_size,
        box=tuple(round(edge, 1) for edge in view.box_in_image),
        window=view.window,
    )


def _fitting(draw: Callable[[int], Image.Image], *, side: int, limit: int) -> tuple[str, Image.Image]:
    """Returns the largest and best version that fits a limit of characters, else the smallest."""
    for scale, quality in _STEPS:
        small = draw(max(32, int(side * scale)))
        uri = _encode(small, quality=quality)
        if len(uri) <= limit:
            break
    return uri, small


def _encode(image: Image.Image, *, quality: int | None) -> str:
    return f"data:image/webp;base64,{base64.b64encode(encode(image, quality=quality)).decode('ascii')}"


def encode(image: Image.Image, *, quality: int | None) -> bytes:
    """Encodes a small image to WebP, which has at most 16,383 pixels a side; losslessly if quality is None."""
    buffer = io.BytesIO()
    options = {"lossless": True} if quality is None else {"quality": quality}
    image.save(buffer, "WEBP", method=1, **options)
    return buffer.getvalue()
