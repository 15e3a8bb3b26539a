"""Drawing style, and the pen that draws shapes in that style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

Rgb = tuple[int, int, int]
Point = tuple[float, float]
Role = Literal["body", "accent", "light", "dark"]
Fill = Literal["flat", "wash", "hatch", "dots"]
Background = Literal["plain", "gradient", "striped", "chequered", "ruled"]
FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")

CANVAS = 256
"""Side of the canvas in pixels; four times that of the finished sketch, for anti-aliasing."""

_CIRCLE = np.stack([f(np.linspace(0.0, 2 * math.pi, 24, endpoint=False)) for f in (np.cos, np.sin)], axis=1)


@dataclass(frozen=True, kw_only=True)
class Style:
    """A drawing style, independent of the class.

    Attributes:
        palette: Names and values of the colours of things.
        grounds: Names and values of the colours of backgrounds.
        fills: Fills of closed shapes, each with its probability.
        backgrounds: Kinds of background, each with its probability.
        outline: Minimum and maximum width of outlines, in pixels of the finished sketch.
        outlined: Probability that a sketch has outlines.
        strokes: Number of strokes per outline.
        clutter: Maximum number of small distracting shapes.
        wobble: Standard deviation of the jitter of points, in units of the frame.
        rotation: Maximum rotation to either side, in degrees.
        scale: Minimum and maximum size; 1 fills the image.
        stretch: Maximum relative change of the aspect ratio.
        shift: Maximum distance from the centre, as a share of the image's side.
        noise: Standard deviation of the pixel noise, out of 255.
    """

    palette: tuple[tuple[str, Rgb], ...]
    grounds: tuple[tuple[str, Rgb], ...]
    fills: tuple[tuple[Fill, float], ...]
    backgrounds: tuple[tuple[Background, float], ...]
    outline: tuple[float, float]
    outlined: float
    strokes: int
    clutter: int
    wobble: float
    rotation: float
    scale: tuple[float, float]
    stretch: float
    shift: float
    noise: float


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Blends two colours.

    Args:
        first: A colour.
        second: Another colour.
        share: Share of the second colour, from 0 to 1.
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def brightness(colour: Rgb) -> float:
    """Returns the luma of a colour, from 0 (black) to 255 (white)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def choose(options: Sequence[tuple[T, float]], rng: np.random.Generator) -> T:
    """Returns a random option, drawn by the weights of the options."""
    remaining = rng.random() * sum(weight for _, weight in options)
    for option, weight in options:
        remaining -= weight
        if remaining < 0:
            return option
    return options[-1][0]


class Pen:
    """Draws shapes given in a frame from -1 to 1 (x to the right, y downwards) in one style, pose and colouring.

    Args:
        canvas: Image of ``CANVAS`` x ``CANVAS`` pixels to draw on.
        rng: Source of randomness.
        style: Style of the sketch.
        colour: Colour of the thing.
        accent: Colour of its details.
        ground: Colour of the background; outlines contrast with it.
    """

    def __init__(
        self, canvas: Image.Image, *, rng: np.random.Generator, style: Style, colour: Rgb, accent: Rgb, ground: Rgb
    ) -> None:
        self._canvas = canvas
        self._draw = ImageDraw.Draw(canvas)
        self._rng = rng
        self._style = style
        self._matrix, self._offset = _pose(rng, style)
        self._unit = math.sqrt(abs(float(np.linalg.det(self._matrix))))
        self._fill = choose(style.fills, rng)
        pale = self._fill != "flat"
        # A pale fill needs an outline to be visible.
        self._width = 4 * rng.uniform(*style.outline) if pale or rng.random() < style.outlined else 0.0
        ink = mix(colour, (16, 16, 24), 0.35 if pale else 0.65)
        if pale and brightness(ground) < 120:
            ink = mix(colour, (255, 255, 255), 0.75)
        paper = mix(ground, (255, 255, 255) if brightness(ground) >= 120 else (0, 0, 0), 0.45)
        self._ink = ink
        self._colours: dict[Role, Rgb] = {
            "body": mix(paper, colour, 0.3) if pale else colour,
            "accent": mix(paper, accent, 0.45) if pale else accent,
            "light": paper if pale else (244, 244, 238),
            "dark": ink if pale else (34, 34, 40),
        }
        slope, gap = int(rng.integers(-4, 5)), int(rng.integers(14, 24))
        self._texture = _texture(self._fill, slope, gap) if self._fill in ("hatch", "dots") else None

    def shape(self, points: Sequence[Point] | FloatArray, role: Role = "body") -> None:
        """Draws a closed shape with the given corners."""
        placed = self._place(np.asarray(points, dtype=np.float64), closed=True)
        corners = _flat(placed)
        self._draw.polygon(corners, fill=self._colours[role])
        if self._texture and role in ("body", "accent"):
            mask = Image.new("L", self._canvas.size)
            ImageDraw.Draw(mask).polygon(corners, fill=255)
            mask = ImageChops.darker(mask, self._texture)
            box = mask.getbbox() or (0, 0, 0, 0)
            self._canvas.paste(self._ink, box, mask.crop(box))  # only the bounding box, for speed
        if self._width >= 1:
            self._trace(placed)

    def oval(self, x: float, y: float, across: float, down: float | None = None, role: Role = "body") -> None:
        """Draws an ellipse.

        Args:
            x: Horizontal centre, in the frame.
            y: Vertical centre.
            across: Horizontal half-axis.
            down: Vertical half-axis; None for a circle.
            role: Role of its colour in the sketch.
        """
        self.shape(_CIRCLE * (across, across if down is None else down) + (x, y), role)

    def box(self, left: float, top: float, right: float, bottom: float, role: Role = "body") -> None:
        """Draws a rectangle.

        Args:
            left: Left edge, in the frame.
            top: Top edge, less than `bottom`, because y points downwards.
            right: Right edge.
            bottom: Bottom edge.
            role: Role of its colour in the sketch.
        """
        self.shape([(left, top), (right, top), (right, bottom), (left, bottom)], role)

    def line(self, points: Sequence[Point] | FloatArray, role: Role = "dark", width: float = 0.05) -> None:
        """Draws an open line.

        Args:
            points: Corners, x and y in the frame.
            role: Role of its colour in the sketch.
            width: Width, in units of the frame.
        """
        corners = _flat(self._place(np.asarray(points, dtype=np.float64), closed=False))
        thick = max(3, round(width * self._unit))
        if self._width >= 1 and role != "dark" and width > 0.08:
            self._draw.line(corners, fill=self._ink, width=thick + 2 * round(self._width), joint="curve")
        self._draw.line(corners, fill=self._colours[role], width=thick, joint="curve")

    def _trace(self, placed: FloatArray) -> None:
        width = max(1, round(self._width))
        for stroke in range(self._style.strokes):
            shaken = placed
            if stroke:
                shaken = placed + self._rng.normal(0.0, self._style.wobble * self._unit, placed.shape)
            corners = _flat(shaken)
            self._draw.line(corners + corners[:4], fill=self._ink, width=width)

    def _place(self, points: FloatArray, *, closed: bool) -> FloatArray:
        if self._style.wobble > 0:
            # Straight edges need points in between, so that jitter bends them.
            if len(points) < 12:
                ends = np.roll(points, -1, axis=0)
                points = np.stack([points, points + (ends - points) / 2], axis=1).reshape(-1, 2)
                points = points if closed else points[:-1]
            points = points + self._rng.normal(0.0, self._style.wobble, points.shape)
        return points @ self._matrix.T + self._offset


@cache
def _texture(fill: Fill, slope: int, gap: int) -> Image.Image:
    sheet = Image.new("L", (CANVAS, CANVAS))
    pencil = ImageDraw.Draw(sheet)
    if fill == "hatch":
        lean = slope * CANVAS // 4
        for start in range(-CANVAS, 2 * CANVAS, gap):
            pencil.line((start, 0, start + lean, CANVAS), fill=255, width=4)
    else:
        for row, y in enumerate(range(0, CANVAS, gap)):
            for x in range(gap // 2 * (row % 2), CANVAS, gap):
                pencil.rectangle((x - 3, y - 3, x + 3, y + 3), fill=255)
    return sheet


def _pose(rng: np.random.Generator, style: Style) -> tuple[FloatArray, FloatArray]:
    angle = math.radians(rng.uniform(-style.rotation, style.rotation))
    size = CANVAS / 2 * rng.uniform(*style.scale)
    aspect = math.exp(rng.uniform(-style.stretch, style.stretch) / 2)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    offset = CANVAS * (0.5 + rng.uniform(-style.shift, style.shift, 2))
    return turn @ np.diag([size * aspect * mirror, size / aspect]), offset


def _flat(points: FloatArray) -> list[float]:
    # ImageDraw reads a flat list much faster than a list of pairs.
    flat: list[float] = points.ravel().tolist()
    return flat
