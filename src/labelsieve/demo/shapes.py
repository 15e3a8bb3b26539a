"""The things that can be drawn: one short function per class, in a frame from -1 to 1 (y downwards)."""

import math
from collections.abc import Callable

import numpy as np

from labelsieve.demo.pen import Pen, Point

Shape = Callable[[Pen, np.random.Generator], None]


def _around(count: int, radius: float, x: float = 0.0, y: float = 0.0, start: float = -90.0) -> list[Point]:
    turns = (math.radians(start + 360.0 * step / count) for step in range(count))
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]


def _arc(x: float, y: float, across: float, down: float, start: float, end: float, steps: int = 13) -> list[Point]:
    turns = (math.radians(start + (end - start) * step / (steps - 1)) for step in range(steps))
    return [(x + across * math.cos(turn), y + down * math.sin(turn)) for turn in turns]


def _bird(pen: Pen, rng: np.random.Generator) -> None:
    for x in (-0.1, 0.12):
        pen.line([(x, 0.4), (x, 0.9), (x + 0.15, 0.9)], width=0.06)
    pen.shape([(-0.4, -0.05), (-1.0, rng.uniform(-0.4, 0.0)), (-0.95, 0.25), (-0.35, 0.3)])
    pen.shape([(0.7, -0.6), (1.05, -0.42), (0.7, -0.32)], "accent")
    pen.oval(0.0, 0.12, 0.58, 0.4)
    pen.oval(0.5, -0.42, 0.3)
    pen.shape([(0.2, 0.0), (-0.6, rng.uniform(-0.3, 0.3)), (-0.1, 0.35)], "accent")
    pen.oval(0.58, -0.5, 0.07, role="dark")


def _boat(pen: Pen, rng: np.random.Generator) -> None:
    pen.line([(0.0, 0.4), (0.0, -1.0)], width=0.08)
    pen.shape([(0.08, -0.95), (0.08, 0.25), (rng.uniform(0.6, 0.85), 0.25)], "light")
    if rng.random() < 0.7:
        pen.shape([(-0.08, -0.75), (-0.08, 0.25), (rng.uniform(-0.7, -0.45), 0.25)], "accent")
    pen.shape([(-0.95, 0.38), (0.95, 0.38), (0.6, 0.9), (-0.6, 0.9)])


def _bus(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-1.0, -0.6, 1.0, 0.5)
    count = int(rng.integers(3, 6))
    step = 1.8 / count
    for window in range(count):
        left = -0.9 + step * window
        pen.box(left + 0.03, -0.42, left + step - 0.06, 0.0, "light")
    if rng.random() < 0.6:
        pen.box(-0.98, 0.14, 0.98, 0.26, "accent")
    for x in (-0.58, 0.58):
        pen.oval(x, 0.5, 0.22, role="dark")


def _car(pen: Pen, rng: np.random.Generator) -> None:
    roof = rng.uniform(-0.6, -0.45)
    pen.shape([(-0.7, 0.0), (-0.4, roof), (0.3, roof), (0.65, 0.0)])
    pen.shape([(-0.52, -0.02), (-0.33, roof + 0.12), (-0.08, roof + 0.12), (-0.08, -0.02)], "light")
    pen.shape([(0.02, -0.02), (0.02, roof + 0.12), (0.24, roof + 0.12), (0.46, -0.02)], "light")
    pen.shape([(-1.0, 0.02), (0.85, 0.02), (1.0, 0.2), (1.0, 0.46), (-1.0, 0.46)])
    for x in (-0.55, 0.55):
        pen.oval(x, 0.46, 0.25, role="dark")
        pen.oval(x, 0.46, 0.1, role="light")


def _cat(pen: Pen, rng: np.random.Generator) -> None:
    tip = rng.uniform(0.6, 0.8)
    for side in (-1, 1):
        pen.shape([(side * 0.72, -0.1), (side * tip, -0.98), (side * 0.12, -0.5)])
        pen.shape([(side * 0.6, -0.3), (side * tip * 0.92, -0.78), (side * 0.3, -0.5)], "accent")
    pen.oval(0.0, 0.1, 0.78, 0.68)
    for side in (-1, 1):
        pen.oval(side * 0.32, -0.02, 0.12, 0.15, "dark")
        for y in (0.22, 0.4):
            pen.line([(side * 0.25, 0.32), (side * 1.0, y + 0.02)], width=0.05)
    pen.shape([(-0.11, 0.22), (0.11, 0.22), (0.0, 0.36)], "accent")


def _cup(pen: Pen, rng: np.random.Generator) -> None:
    foot = rng.uniform(0.38, 0.52)
    pen.line(_arc(0.55, 0.15, 0.36, 0.34, -95, 95), "body", 0.15)
    pen.shape([(-0.65, -0.4), (0.65, -0.4), (foot, 0.75), (-foot, 0.75)])
    pen.oval(0.0, -0.4, 0.65, 0.15, "light")
    if rng.random() < 0.5:
        for x in (-0.2, 0.2):
            pen.line([(x, -0.6), (x + 0.1, -0.72), (x - 0.08, -0.86), (x + 0.04, -1.0)], width=0.05)
    if rng.random() < 0.4:
        pen.box(-0.56, 0.05, 0.56, 0.3, "accent")


def _dog(pen: Pen, rng: np.random.Generator) -> None:
    pen.oval(0.0, -0.1, 0.62, 0.7)
    drop = rng.uniform(0.4, 0.65)
    for side in (-1, 1):
        pen.shape([(side * 0.35, -0.75), (side * 0.8, -0.65), (side * 0.98, drop), (side * 0.68, drop)], "accent")
        pen.oval(side * 0.24, -0.25, 0.09, 0.11, "dark")
    if rng.random() < 0.6:
        pen.shape([(-0.15, 0.55), (0.15, 0.55), (0.12, 1.0), (-0.12, 1.0)], "accent")
    pen.oval(0.0, 0.32, 0.42, 0.36, "light")
    pen.oval(0.0, 0.12, 0.2, 0.13, "dark")
    pen.line([(0.0, 0.2), (0.0, 0.45)], width=0.05)


def _fish(pen: Pen, rng: np.random.Generator) -> None:
    spread = rng.uniform(0.35, 0.55)
    pen.shape([(-0.4, 0.0), (-1.0, -spread), (-0.85, 0.0), (-1.0, spread)])
    pen.shape([(-0.2, -0.3), (0.0, -0.75), (0.35, -0.3)], "accent")
    pen.oval(0.15, 0.0, 0.78, rng.uniform(0.38, 0.5))
    if rng.random() < 0.5:
        for x in (-0.2, 0.05):
            pen.line(_arc(x - 0.2, 0.0, 0.25, 0.3, -70, 70, 7), "accent", 0.09)
    pen.shape([(0.1, 0.1), (-0.2, 0.3), (0.05, 0.35)], "accent")
    pen.oval(0.6, -0.1, 0.1, role="light")
    pen.oval(0.62, -0.1, 0.05, role="dark")


def _flower(pen: Pen, rng: np.random.Generator) -> None:
    pen.line([(0.0, 0.0), (rng.uniform(-0.1, 0.1), 0.5), (0.0, 1.0)], width=0.1)
    pen.shape([(0.0, 0.85), (0.25, 0.5), (0.6, 0.45), (0.35, 0.75)], "accent")
    for x, y in _around(int(rng.integers(5, 8)), 0.4, 0.0, -0.35, rng.uniform(0, 90)):
        pen.oval(x, y, 0.25)
    pen.oval(0.0, -0.35, 0.22, role="accent")


def _house(pen: Pen, rng: np.random.Generator) -> None:
    if rng.random() < 0.6:
        pen.box(0.35, -0.85, 0.58, -0.3, "dark")
    pen.box(-0.75, -0.15, 0.75, 0.9)
    pen.shape([(-0.98, -0.12), (0.0, rng.uniform(-0.95, -0.75)), (0.98, -0.12)], "accent")
    door = rng.uniform(-0.5, -0.05)
    pen.box(door, 0.3, door + 0.35, 0.9, "dark")
    pen.box(0.3, 0.15, 0.6, 0.48, "light")
    if door > -0.25:
        pen.box(-0.6, 0.15, -0.32, 0.48, "light")


def _mushroom(pen: Pen, rng: np.random.Generator) -> None:
    pen.shape([(-0.22, 0.0), (0.22, 0.0), (0.32, 0.85), (-0.32, 0.85)], "light")
    height = rng.uniform(0.75, 0.95)
    pen.shape([*_arc(0.0, 0.08, 0.92, height, 180, 360), (0.4, 0.18), (-0.4, 0.18)])
    for x, y, size in ((-0.42, -0.2, 0.14), (0.1, -0.45, 0.16), (0.48, -0.15, 0.12)):
        pen.oval(x, y, size, role="accent")


def _star(pen: Pen, rng: np.random.Generator) -> None:
    outer, inner = _around(5, 0.98), _around(5, rng.uniform(0.36, 0.48), start=-54.0)
    pen.shape([corner for pair in zip(outer, inner, strict=True) for corner in pair])


def _teapot(pen: Pen, rng: np.random.Generator) -> None:
    pen.line(_arc(-0.5, 0.15, 0.42, 0.36, 80, 280), "body", 0.14)
    pen.shape([(0.4, 0.05), (0.8, rng.uniform(-0.5, -0.35)), (1.0, -0.4), (0.75, 0.2), (0.4, 0.5)])
    pen.oval(0.0, 0.2, 0.62, 0.54)
    pen.shape(_arc(0.0, -0.25, 0.38, 0.2, 180, 360), "accent")
    pen.oval(0.0, -0.52, 0.12, role="accent")
    if rng.random() < 0.4:
        pen.line(_arc(0.0, 0.05, 0.6, 0.2, 10, 170), "accent", 0.1)


def _tent(pen: Pen, rng: np.random.Generator) -> None:
    side = rng.uniform(0.8, 1.0)
    for x in (-1, 1):
        pen.line([(x * 0.12, -0.9), (x * -0.1, -0.6)], width=0.07)
    pen.shape([(0.0, -0.72), (side, 0.75), (-side, 0.75)])
    pen.shape([(0.0, -0.3), (0.34, 0.75), (-0.34, 0.75)], "dark")
    pen.shape([(0.0, -0.3), (-0.34, 0.75), (-0.5, 0.75)], "accent")


def _tree(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-0.13, 0.2, 0.13, 1.0, "accent")
    if rng.random() < 0.5:
        for top, half in ((0.0, 0.75), (-0.45, 0.6), (-0.95, 0.42)):
            pen.shape([(0.0, top - 0.05), (half, top + 0.6), (-half, top + 0.6)])
    else:
        for x, y, size in ((-0.38, 0.0, 0.4), (0.38, 0.0, 0.4), (0.0, -0.42, 0.48)):
            pen.oval(x, y, size)


def _umbrella(pen: Pen, rng: np.random.Generator) -> None:
    hook = _arc(0.16, 0.75, 0.16, 0.2, 180, 20, 7)
    pen.line([(0.0, -0.95), (0.0, 0.0), *hook], width=0.09)
    scallops = [point for x in (0.64, 0.0, -0.64) for point in _arc(x, 0.05, 0.3, 0.14, 0, -180, 5)]
    pen.shape(_arc(0.0, 0.05, 0.95, rng.uniform(0.75, 0.9), 180, 360) + scallops)
    pen.line([(0.0, -0.78), (-0.32, 0.0)], "accent", 0.06)
    pen.line([(0.0, -0.78), (0.32, 0.0)], "accent", 0.06)


SHAPES: dict[str, Shape] = {
    "bird": _bird,
    "boat": _boat,
    "bus": _bus,
    "car": _car,
    "cat": _cat,
    "cup": _cup,
    "dog": _dog,
    "fish": _fish,
    "flower": _flower,
    "house": _house,
    "mushroom": _mushroom,
    "star": _star,
    "teapot": _teapot,
    "tent": _tent,
    "tree": _tree,
    "umbrella": _umbrella,
}
"""The function that draws each class."""
