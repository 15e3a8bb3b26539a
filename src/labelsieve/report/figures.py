"""The data of the figures of the report. The template draws them, so that they follow the theme of the page.

Their size does not grow with the number of images; figures over classes are limited and state what they omit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.verdicts import Verdicts

MAX_BARS = 30
MAX_PAIRS = 20
MAX_MATRIX = 12
BINS = 40
# Above this ratio of the highest bar to a typical bar, low bars are invisible on a linear axis.
_LINEAR_RATIO = 20


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of the histogram. `height` and `flagged_height` are shares of the axis, between 0 and 1."""

    left: float
    right: float
    count: int
    flagged: int
    height: float
    flagged_height: float


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The distribution of the label quality. `ticks` are (value, share of the axis) from low to high."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[int, float], ...]
    logarithmic: bool
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """`count` flagged images with one given label and another suggested one; `share` of the largest count."""

    given: int
    suggested: int
    count: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Confusions:
    """Given and suggested labels of flagged images. `matrix` has K rows of K pairs, or is empty for many classes."""

    pairs: tuple[Pair, ...]
    left_out: int
    matrix: tuple[tuple[Pair, ...], ...]


def class_bars(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Picks the classes with the largest share of flagged images.

    Args:
        rows: As :meth:`Verdicts.per_class` returns them, each with `index` added.

    Returns:
        At most `MAX_BARS` rows, most affected first, and the number of affected classes that are left out.
    """
    affected = [row for row in rows if row["flagged"]]
    affected.sort(key=lambda row: (-row["share_flagged"], -row["flagged"], row["class_name"]))
    return affected[:MAX_BARS], max(0, len(affected) - MAX_BARS)


def histogram(verdicts: Verdicts) -> Histogram:
    """Counts readable and flagged images by label quality in `BINS` equal bins from 0 to 1."""
    quality = np.clip(verdicts.label_quality[verdicts.is_readable], 0, 1)
    counts, edges = np.histogram(quality, bins=BINS, range=(0, 1))
    flagged, _ = np.histogram(quality[verdicts.is_issue[verdicts.is_readable]], bins=BINS, range=(0, 1))
    top, logarithmic = int(counts.max()), _needs_logarithm(counts)
    ticks = _log_ticks(top) if logarithmic else _linear_ticks(top)
    scale = _height(max(top, ticks[-1]) if ticks else 1, logarithmic)
    bars = []
    for index, (count, issues) in enumerate(zip(counts.tolist(), flagged.tolist(), strict=True)):
        height = _height(count, logarithmic) / scale
        bars.append(
            Bar(
                left=float(edges[index]),
                right=float(edges[index + 1]),
                count=count,
                flagged=issues,
                height=height,
                flagged_height=height * issues / count if count else 0.0,
            )
        )
    return Histogram(
        bars=tuple(bars),
        ticks=tuple((tick, _height(tick, logarithmic) / scale) for tick in ticks),
        logarithmic=logarithmic,
        threshold=verdicts.run.rule.plotted_threshold,
    )


def confusions(verdicts: Verdicts, rows: Sequence[int] | None = None) -> Confusions:
    """Counts flagged images by given and suggested label, without a K x K matrix for many classes.

    Args:
        verdicts: Of N images.
        rows: Rows to count, such as those on a page; all by default.
    """
    classes = len(verdicts.class_names)
    given, suggested, counts = (each.tolist() for each in verdicts.suggestions(rows))
    top = max(counts, default=1)
    pairs = [
        Pair(given=label, suggested=other, count=count, share=count / top)
        for label, other, count in zip(given, suggested, counts, strict=True)
    ]
    matrix = _matrix(pairs, classes) if classes <= MAX_MATRIX else ()
    pairs.sort(key=lambda pair: -pair.count)
    return Confusions(pairs=tuple(pairs[:MAX_PAIRS]), left_out=max(0, len(pairs) - MAX_PAIRS), matrix=matrix)


def _matrix(pairs: list[Pair], classes: int) -> tuple[tuple[Pair, ...], ...]:
    by_classes = {(pair.given, pair.suggested): pair for pair in pairs}

    def cell(row: int, column: int) -> Pair:
        return by_classes.get((row, column)) or Pair(given=row, suggested=column, count=0, share=0.0)

    return tuple(tuple(cell(row, column) for column in range(classes)) for row in range(classes))


def _needs_logarithm(counts: NDArray[np.int64]) -> bool:
    filled = counts[counts > 0]
    return bool(filled.size > 1 and counts.max() > _LINEAR_RATIO * np.median(filled))


def _height(count: float, logarithmic: bool) -> float:
    return math.log10(1 + count) if logarithmic else float(count)


def _log_ticks(top: int) -> list[int]:
    return [10**power for power in range(len(str(top)))]


def _linear_ticks(top: int) -> list[int]:
    """Returns two to five round numbers; the last is at or above `top`."""
    if top < 1:
        return []
    power = 10 ** int(math.log10(top))
    step = next(step for step in (power // 5, power // 2, power, 2 * power) if step and top <= 5 * step)
    return list(range(step, top + step, step))
