"""SVG plots of tables with one metric, by matplotlib, an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labelsieve.core.files import write_atomically

MAX_NAME_LENGTH = 10  # longer names would overlap
_MARKERS = "osD^v<>PX*hp"


def can_plot() -> bool:
    """Returns whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot(series: Mapping[str, Sequence[Any]], *, title: str, columns: Sequence[str], path: Path) -> None:
    """Draws mean and standard deviation of each method over the columns; does nothing without matplotlib.

    Args:
        series: For each method one :class:`labelsieve.bench.tables.Spread` for each column, None where there is none.
        title: Title of the vertical axis.
        columns: Names of the columns.
        path: SVG file to write.
    """
    if not can_plot() or not any(value is not None for values in series.values() for value in values):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 1.1 * len(columns) + 3.5), 4.2), layout="constrained")
    axes = figure.add_subplot()
    step = 0.6 / max(1, len(series) - 1)  # offsets, so that error bars do not overlap
    for number, (name, values) in enumerate(series.items()):
        points = [(position, value) for position, value in enumerate(values) if value is not None]
        axes.errorbar(
            [position - 0.3 + number * step if len(series) > 1 else position for position, _ in points],
            [value.mean for _, value in points],
            [value.deviation or 0.0 for _, value in points],
            fmt=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            capsize=2,
            linewidth=1,
            label=name,
        )
    tick_options: dict[str, Any] = {"rotation": 20, "ha": "right"} if max(map(len, columns)) > MAX_NAME_LENGTH else {}
    axes.set_xticks(range(len(columns)), columns, **tick_options)
    axes.set_ylabel(title)
    axes.grid(axis="y", alpha=0.3)
    for position in range(1, len(columns)):
        axes.axvline(position - 0.5, color="black", alpha=0.12, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_reliability(bins: Mapping[str, Sequence[Sequence[float]]], *, path: Path) -> None:
    """Draws a reliability diagram of the predicted probability of right labels; does nothing without matplotlib.

    Args:
        bins: Bins of each method: number of images, sum of their probabilities, number of right labels.
        path: SVG file to write.
    """
    if not can_plot() or not bins:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="black", alpha=0.3, linewidth=0.8)
    for number, (name, rows) in enumerate(bins.items()):
        occupied = [row for row in rows if row[0]]
        axes.plot(
            [expected / count for count, expected, _ in occupied],
            [right / count for count, _, right in occupied],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            linewidth=1,
            label=name,
        )
    axes.set_xlabel("probability that the label is right")
    axes.set_ylabel("share of right labels")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.legend(loc="outside right upper", frameon=False)
    with write_atomically(path) as part, rc_context({"svg.hashsalt": path.name}):  # for reproducible ids
        FigureCanvasSVG(figure).print_svg(part, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
