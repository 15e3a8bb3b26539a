"""Synthetic sketches of everyday things: labelled images for demonstrations and tests, generated from a seed."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from labelsieve.core.validation import Seed, check_value
from labelsieve.demo.pen import CANVAS, Background, Pen, Rgb, Style, choose, mix
from labelsieve.demo.shapes import SHAPES

__all__ = [
    "CLASS_NAMES",
    "DEMO_STYLE",
    "PRETRAINING_STYLE",
    "SIMILAR",
    "SIZE",
    "Sketch",
    "Style",
    "draw",
    "render",
    "sketches",
]

SIZE = 64
"""Width and height of a sketch, in pixels."""

CLASS_NAMES: tuple[str, ...] = tuple(sorted(SHAPES))
"""Names of the classes; labels are indices into them."""

SIMILAR: dict[str, str] = {
    "bird": "fish",
    "boat": "tent",
    "bus": "car",
    "car": "bus",
    "cat": "dog",
    "cup": "teapot",
    "dog": "cat",
    "fish": "bird",
    "flower": "star",
    "house": "tent",
    "mushroom": "umbrella",
    "star": "flower",
    "teapot": "cup",
    "tent": "house",
    "tree": "mushroom",
    "umbrella": "mushroom",
}
"""The most similar class of each class."""

PRETRAINING_STYLE = Style(
    palette=(
        ("red", (214, 48, 44)),
        ("orange", (240, 138, 36)),
        ("yellow", (246, 208, 54)),
        ("green", (60, 160, 76)),
        ("blue", (48, 104, 206)),
        ("purple", (134, 70, 170)),
        ("pink", (240, 128, 170)),
        ("brown", (128, 84, 50)),
        ("grey", (140, 142, 148)),
        ("black", (40, 40, 46)),
        ("white", (246, 246, 242)),
    ),
    grounds=(
        ("white", (252, 252, 250)),
        ("grey", (176, 178, 182)),
        ("yellow", (250, 232, 150)),
        ("green", (176, 222, 164)),
        ("blue", (160, 204, 240)),
        ("pink", (248, 206, 216)),
        ("black", (30, 30, 36)),
    ),
    fills=(("flat", 0.7), ("wash", 0.2), ("hatch", 0.1)),
    backgrounds=(("plain", 0.6), ("gradient", 0.3), ("striped", 0.1)),
    outline=(0.5, 1.5),
    outlined=0.4,
    strokes=1,
    clutter=2,
    wobble=0.012,
    rotation=16.0,
    scale=(0.7, 0.92),
    stretch=0.2,
    shift=0.06,
    noise=3.0,
)
"""Flat shapes with sharp edges in solid colours on simple backgrounds: the training images of the bundled model."""

DEMO_STYLE = Style(
    palette=(
        ("teal", (20, 120, 124)),
        ("maroon", (128, 28, 56)),
        ("navy", (34, 46, 112)),
        ("olive", (104, 110, 36)),
        ("rust", (176, 78, 34)),
        ("plum", (102, 46, 104)),
        ("charcoal", (56, 58, 66)),
    ),
    grounds=(
        ("cream", (246, 236, 212)),
        ("sand", (228, 208, 172)),
        ("sage", (196, 208, 184)),
        ("lilac", (214, 204, 226)),
        ("mist", (204, 218, 222)),
        ("slate", (62, 70, 84)),
    ),
    fills=(("wash", 0.4), ("hatch", 0.4), ("dots", 0.2)),
    backgrounds=(("plain", 0.2), ("gradient", 0.2), ("striped", 0.2), ("chequered", 0.2), ("ruled", 0.2)),
    outline=(0.8, 1.4),
    outlined=1.0,
    strokes=2,
    clutter=5,
    wobble=0.02,
    rotation=16.0,
    scale=(0.72, 0.92),
    stretch=0.2,
    shift=0.06,
    noise=7.0,
)
"""Sketches in ink with hatching, on patterned paper with distracting shapes: the images of the demonstration."""


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A sketch and its description.

    Attributes:
        image: The image, 64 x 64 RGB.
        colour: Name of the thing's colour.
        ground: Name of the background's colour.
        background: Kind of the background.
    """

    image: Image.Image
    colour: str
    ground: str
    background: Background


def render(class_name: str, *, rng: np.random.Generator, style: Style) -> Sketch:
    """Draws one thing and describes it.

    Args:
        class_name: One of ``CLASS_NAMES``.
        rng: Source of all randomness.
        style: Style to draw in.

    Returns:
        The sketch with its colours and background.
    """
    ground_name, ground = style.grounds[rng.integers(len(style.grounds))]
    colours = choose_colours(ground, rng, style)
    background = choose(style.backgrounds, rng)
    canvas = paint_background(background, ground, rng, style)
    scatter(canvas, rng, style)
    draw_shape(canvas, class_name, rng=rng, style=style, colours=colours, ground=ground)
    image = add_noise(canvas.reduce(CANVAS // SIZE), rng, style.noise)
    return Sketch(image=image, colour=colours.name, ground=ground_name, background=background)


def draw(class_name: str, *, rng: np.random.Generator, style: Style) -> Image.Image:
    """Draws one thing.

    Args:
        class_name: One of ``CLASS_NAMES``.
        rng: Source of all randomness.
        style: Style to draw in.

    Returns:
        An image of 64 x 64 RGB pixels.
    """
    return render(class_name, rng=rng, style=style).image


def sketches(count: int, *, seed: int, style: Style = DEMO_STYLE) -> tuple[list[Image.Image], npt.NDArray[np.int64]]:
    """Draws a balanced, shuffled set of labelled images.

    Args:
        count: Number of sketches.
        seed: Seed; the same seed gives the same sketches.
        style: Style to draw in.

    Returns:
        The images and their labels, which are indices into ``CLASS_NAMES``.
    """
    check_value("seed", seed, Seed)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASS_NAMES))
    return [draw(CLASS_NAMES[label], rng=rng, style=style) for label in labels], labels


class Colours(NamedTuple):
    """The colours of one thing.

    Attributes:
        name: Name of the colour of the thing.
        main: The colour of the thing, in contrast to the background.
        accent: The colour of its details, in contrast to the colour of the thing.
    """

    name: str
    main: Rgb
    accent: Rgb


def choose_colours(ground: Rgb, rng: np.random.Generator, style: Style) -> Colours:
    """Draws the colours of one thing.

    Args:
        ground: Colour of the background; the thing contrasts with it.
        rng: Source of randomness.
        style: Provides the palette.
    """
    name, main = _contrasting(style.palette, ground, rng)
    return Colours(name, main, _contrasting(style.palette, main, rng)[1])


def draw_shape(
    canvas: Image.Image, class_name: str, *, rng: np.random.Generator, style: Style, colours: Colours, ground: Rgb
) -> None:
    """Draws one thing in a random pose onto a canvas.

    Args:
        canvas: The canvas, ``CANVAS`` x ``CANVAS`` pixels.
        class_name: One of ``CLASS_NAMES``.
        rng: Source of all randomness.
        style: Style to draw in.
        colours: From :func:`choose_colours`.
        ground: Colour of the background; outlines contrast with it.
    """
    pen = Pen(canvas, rng=rng, style=style, colour=colours.main, accent=colours.accent, ground=ground)
    SHAPES[class_name](pen, rng)


def _contrasting(options: tuple[tuple[str, Rgb], ...], other: Rgb, rng: np.random.Generator) -> tuple[str, Rgb]:
    options_apart = [item for item in options if sum(abs(a - b) for a, b in zip(item[1], other, strict=True)) > 160]
    return options_apart[rng.integers(len(options_apart))]


def paint_background(
    kind: Background, ground: Rgb, rng: np.random.Generator, style: Style, *, side: int = CANVAS
) -> Image.Image:
    """Paints the square background of a sketch or a scene.

    Args:
        kind: The pattern.
        ground: The main colour.
        rng: Source of all randomness.
        style: Provides the colours that may be mixed into the pattern.
        side: Width and height in pixels; the gradient scales with it, patterns do not.
    """
    second = mix(ground, style.grounds[rng.integers(len(style.grounds))][1], 0.35)
    if kind == "gradient":
        corners = Image.new("RGB", (2, 2), ground)
        corners.putpixel((1, int(rng.integers(2))), second)
        corners.putpixel((int(rng.integers(2)), 1), second)
        return corners.resize((side, side), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (side, side), ground)
    brush = ImageDraw.Draw(canvas)
    gap = int(rng.integers(24, 48))
    start = int(rng.integers(-gap, 0))
    if kind == "striped":
        slope = rng.uniform(-0.6, 0.6) * side
        for x in range(start - side, 2 * side, 2 * gap):
            brush.polygon((x, 0, x + gap, 0, x + gap + slope, side, x + slope, side), fill=second)
    elif kind == "chequered":
        for row, y in enumerate(range(start, side, gap)):
            for x in range(start + gap * (row % 2), side, 2 * gap):
                brush.rectangle((x, y, x + gap - 1, y + gap - 1), fill=second)
    elif kind == "ruled":
        for y in range(start, side, gap):
            brush.line((0, y, side, y), fill=second, width=5)
    return canvas


def scatter(
    canvas: Image.Image,
    rng: np.random.Generator,
    style: Style,
    *,
    centre: tuple[float, float] = (CANVAS / 2, CANVAS / 2),
    zoom: float = 1.0,
) -> None:
    """Draws small distracting shapes around a point.

    Args:
        canvas: The canvas to draw on.
        rng: Source of all randomness.
        style: Provides the maximum number of shapes.
        centre: The point, x and y in pixels of the canvas.
        zoom: Factor of the size and the distance from the centre; 1 for a single sketch.
    """
    brush = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(style.clutter + 1)):
        colour = style.palette[rng.integers(len(style.palette))][1]
        size = zoom * rng.uniform(7, 16)
        # Clutter is near the margins, because the thing would cover it in the middle.
        angle, radius = rng.uniform(0, 6.28), zoom * rng.uniform(85, 140)
        x, y = (float(v) for v in np.array(centre) + radius * np.array([np.cos(angle), np.sin(angle)]))
        kind = rng.integers(3)
        if kind == 0:
            brush.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        elif kind == 1:
            brush.regular_polygon((x, y, size), int(rng.integers(3, 5)), rotation=int(rng.integers(360)), fill=colour)
        else:
            width = max(1, round(6 * zoom))
            brush.line((x - size, y, x + size, y + rng.uniform(-size, size)), fill=colour, width=width)


def add_noise(image: Image.Image, rng: np.random.Generator, deviation: float) -> Image.Image:
    """Adds film grain to an image.

    Args:
        image: An RGB image.
        rng: Source of randomness.
        deviation: Standard deviation out of 255; 0 adds no noise.
    """
    if deviation <= 0:
        return image
    pixels = np.asarray(image, dtype=np.float32)
    # one value per pixel, like film grain, takes a third of the time of one per channel
    grain = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32) * deviation
    return Image.fromarray(np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8))
