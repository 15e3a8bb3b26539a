"""Scenes: several sketches on one sheet of paper, with a box and a label for each; the labels are also its tags."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelsieve.core.files import write_atomically, write_json, write_parquet
from labelsieve.core.validation import SceneCount, Seed, check_value
from labelsieve.demo.pen import CANVAS, Rgb, choose
from labelsieve.demo.sketches import (
    CLASS_NAMES,
    DEMO_STYLE,
    SIZE,
    add_noise,
    choose_colours,
    draw_shape,
    paint_background,
    scatter,
)

__all__ = ["MAX_OVERLAP", "Scene", "scenes", "single_images", "write_coco", "write_tags"]

MAX_OVERLAP = 0.1
"""Maximum overlap of two boxes of a scene, as a share of the area of the smaller box."""

# Style of the shapes, minimum and maximum number of shapes, and side of a scene in pixels.
_STYLE, _SHAPES, _SIDE = DEMO_STYLE, (3, 8), 256
# Minimum and maximum length of the longer side of a box, as a share of the side of the scene.
_LENGTHS = (0.2, 0.43)
# Maximum number of attempts to place a box; if all fail, all shapes are scaled by the factor.
_ATTEMPTS, _SHRINK = 60, 0.93
Box = tuple[int, int, int, int]  # left, top, width and height

# Anti-aliasing factor, the same as in a single sketch.
_OVERSAMPLING = CANVAS // SIZE


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Several shapes on one sheet of paper.

    Attributes:
        image: The image, RGB.
        labels: Shape (n,), int64: classes of the shapes, indices into `CLASS_NAMES`.
        boxes: Shape (n, 4), float64: left, top, width and height in pixels, tight around the whole shape, including
            parts that another shape covers.
        seeds: Shape (n,), int64: seed of the random properties of each shape.
        ground: Colour of the paper.

    Example:
        >>> from labelsieve.demo.scenes import scenes
        >>> scene = scenes(1, seed=0)[0]
        >>> scene.image.size, scene.labels.shape, scene.boxes.shape
        ((256, 256), (8,), (8, 4))
    """

    image: Image.Image
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    seeds: NDArray[np.int64]
    ground: Rgb

    @property
    def tags(self) -> list[str]:
        """Sorted unique names of the classes of the scene."""
        return sorted({CLASS_NAMES[label] for label in self.labels})


class _Shape(NamedTuple):
    """The cropped RGBA pixels of a shape of a single sketch."""

    pixels: Image.Image

    @property
    def length(self) -> int:
        """Longer side, in pixels."""
        return max(self.pixels.size)

    def sized(self, length: float) -> tuple[int, int]:
        """Returns the width and height for a given longer side."""
        width, height = (max(1, round(side * length / self.length)) for side in self.pixels.size)
        return width, height


def scenes(count: int, *, seed: int) -> list[Scene]:
    """Draws scenes of three to eight shapes, 256 pixels wide and high; all classes occur equally often.

    The longer side of a shape is 0.2 to 0.43 of the side of the scene, or smaller if the shapes do not fit. All shapes
    are completely on the paper, and two boxes overlap by at most a tenth (`MAX_OVERLAP`) of the area of the smaller
    box. Smaller shapes are on top.

    Args:
        count: Number of scenes, 1 to 5,000.
        seed: Seed; the same seed gives the same scenes.

    Returns:
        The scenes.

    Raises:
        SettingsError: An argument is out of range.

    Example:
        >>> from labelsieve.demo.scenes import scenes
        >>> first, second = scenes(2, seed=0)
        >>> 3 <= len(first.labels) <= 8, first.tags == sorted(set(first.tags))
        (True, True)
    """
    check_value("count", count, SceneCount)
    check_value("seed", seed, Seed)
    rng = np.random.default_rng(seed)
    counts = rng.integers(_SHAPES[0], _SHAPES[1] + 1, count)
    labels = rng.permutation(np.arange(counts.sum(), dtype=np.int64) % len(CLASS_NAMES))
    return [_scene(each, rng) for each in np.split(labels, np.cumsum(counts)[:-1])]


def single_images(scene: Scene) -> list[Image.Image]:
    """Draws each shape of a scene as a single sketch: the same shape and colours, but another background.

    Args:
        scene: A scene.

    Returns:
        One image of 64 x 64 RGB pixels per shape, in the order of `scene.labels`.

    Example:
        >>> from labelsieve.demo.scenes import scenes, single_images
        >>> scene = scenes(1, seed=0)[0]
        >>> {image.size for image in single_images(scene)}, len(single_images(scene)) == len(scene.labels)
        ({(64, 64)}, True)
    """
    images = []
    for label, seed in zip(scene.labels, scene.seeds, strict=True):
        rng = np.random.default_rng(seed)
        layer = _layer(label, rng, scene.ground)
        sheet = paint_background(choose(_STYLE.backgrounds, rng), scene.ground, rng, _STYLE)
        scatter(sheet, rng, _STYLE)
        sheet.paste(layer, mask=layer)
        images.append(add_noise(sheet.reduce(_OVERSAMPLING), rng, _STYLE.noise))
    return images


def write_coco(folder: Path, scenes: Sequence[Scene]) -> Path:
    """Writes scenes as a COCO file of bounding boxes, with the images as `images/000000.png` and so on.

    Args:
        folder: Where to write; created if it does not exist.
        scenes: Scenes to write.

    Returns:
        The path of `annotations.json` in the folder. Ids of categories start at 1, all others at 0.

    Raises:
        RunError: A file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from labelsieve.demo.scenes import scenes, write_coco
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_coco(Path(folder), scenes(1, seed=0)).name
        'annotations.json'
    """
    names = [f"{number:06d}.png" for number in range(len(scenes))]
    for name, scene in zip(names, scenes, strict=True):
        with write_atomically(folder / "images" / name) as part:
            part.write_bytes(_png(scene.image))
    path = folder / "annotations.json"
    write_json(path, {"images": _images(names, scenes), "annotations": _annotations(scenes), "categories": _CATEGORIES})
    return path


def write_tags(path: Path, scenes: Sequence[Scene]) -> Path:
    """Writes scenes with their tags as one Parquet file: columns `image`, as PNG, and `tags`, lists of names.

    Args:
        path: File to write.
        scenes: Scenes to write.

    Returns:
        The path.

    Raises:
        RunError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import pyarrow.parquet as pq
        >>> from labelsieve.demo.scenes import scenes, write_tags
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pq.read_table(write_tags(Path(folder) / "tags.parquet", scenes(2, seed=0))).column_names
        ['image', 'tags']
    """
    import pyarrow as pa
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    schema = Features({"image": ImageFeature(), "tags": [Value("string")]}).arrow_schema
    rows = [{"image": {"bytes": _png(scene.image), "path": None}, "tags": scene.tags} for scene in scenes]
    write_parquet(path, pa.Table.from_pylist(rows, schema=schema))
    return path


def _scene(labels: NDArray[np.int64], rng: np.random.Generator) -> Scene:
    ground = _STYLE.grounds[rng.integers(len(_STYLE.grounds))][1]
    seeds = rng.integers(2**63 - 1, size=len(labels))
    layers = [_layer(label, np.random.default_rng(each), ground) for label, each in zip(labels, seeds, strict=True)]
    shapes = [_Shape(layer.crop(layer.getbbox())) for layer in layers]
    placed = _random_boxes(shapes, rng)
    sheet = paint_background(choose(_STYLE.backgrounds, rng), ground, rng, _STYLE, side=_OVERSAMPLING * _SIDE)
    for shape, (left, top, width, height) in zip(shapes, placed, strict=True):
        # scatter around the shape, as in a single sketch
        centre = _OVERSAMPLING * (left + width / 2), _OVERSAMPLING * (top + height / 2)
        scatter(sheet, rng, _STYLE, centre=centre, zoom=_OVERSAMPLING * max(width, height) / shape.length)
    image, boxes = sheet.reduce(_OVERSAMPLING), np.zeros((len(labels), 4))
    for row in _largest_first(placed):
        boxes[row] = _paste(image, shapes[row], placed[row])
    return Scene(image=add_noise(image, rng, _STYLE.noise), labels=labels, boxes=boxes, seeds=seeds, ground=ground)


def _layer(label: int, rng: np.random.Generator, ground: Rgb) -> Image.Image:
    """Draws a shape as in a single sketch, but on a transparent background."""
    canvas = Image.new("RGBA", (CANVAS, CANVAS))
    colours = choose_colours(ground, rng, _STYLE)
    draw_shape(canvas, CLASS_NAMES[label], rng=rng, style=_STYLE, colours=colours, ground=ground)
    return canvas


def _random_boxes(shapes: Sequence[_Shape], rng: np.random.Generator) -> list[Box]:
    """Returns a random box per shape, smaller if the boxes do not fit."""
    lengths = _SIDE * rng.uniform(*_LENGTHS, size=len(shapes))
    while True:
        boxes = _place_boxes([shape.sized(length) for shape, length in zip(shapes, lengths, strict=True)], rng)
        if boxes is not None:
            return boxes
        lengths *= _SHRINK


def _place_boxes(sides: Sequence[tuple[int, int]], rng: np.random.Generator) -> list[Box] | None:
    """Places boxes at random with little overlap, largest first; returns None if one does not fit."""
    boxes: dict[int, Box] = {}
    for row in _largest_first([(0, 0, *each) for each in sides]):
        width, height = sides[row]
        for _ in range(_ATTEMPTS):
            box = int(rng.integers(_SIDE - width + 1)), int(rng.integers(_SIDE - height + 1)), width, height
            if all(_overlap(box, other) <= MAX_OVERLAP for other in boxes.values()):
                boxes[row] = box
                break
        else:
            return None
    return [boxes[row] for row in range(len(sides))]


def _largest_first(boxes: Sequence[Box]) -> list[int]:
    """Returns row numbers by decreasing area of the box."""
    return sorted(range(len(boxes)), key=lambda row: -boxes[row][2] * boxes[row][3])


def _overlap(first: Box, second: Box) -> float:
    """Returns the intersection of two boxes, as a share of the area of the smaller box."""
    across, down = (
        min(first[at] + first[at + 2], second[at] + second[at + 2]) - max(first[at], second[at]) for at in (0, 1)
    )
    return max(0, across) * max(0, down) / min(first[2] * first[3], second[2] * second[3])


def _paste(image: Image.Image, shape: _Shape, box: Box) -> Box:
    """Pastes a shape onto an image and returns the bounding box of its pixels."""
    left, top, width, height = box
    pixels = shape.pixels.resize((width, height), Image.Resampling.BOX)
    mask = pixels.getchannel("A")
    image.paste(pixels, (left, top), mask)
    inner = mask.getbbox() or (0, 0, width, height)
    return left + inner[0], top + inner[1], inner[2] - inner[0], inner[3] - inner[1]


_CATEGORIES = [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES, 1)]


def _images(names: Sequence[str], scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    return [
        {"id": number, "file_name": name, "width": scene.image.width, "height": scene.image.height}
        for number, (name, scene) in enumerate(zip(names, scenes, strict=True))
    ]


def _annotations(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        for label, box in zip(scene.labels.tolist(), scene.boxes.tolist(), strict=True):
            record = {"id": len(annotations), "image_id": number, "category_id": label + 1}
            annotations.append(record | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    return annotations


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
