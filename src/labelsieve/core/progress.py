"""Progress with rate and remaining time on the terminal; silent without a console."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from labelsieve.core.quantities import plain
from labelsieve.core.text import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

# Seconds: brief tasks below the first leave no line; without a live display, a long task prints a line per _SILENT.
_BRIEF, _SILENT = 1.0, 30.0

STOPPING = threading.Event()
"""Set when the command has to stop: an exception raised by a signal handler can be lost, for example during a fork."""


def is_main_process() -> bool:
    """Returns whether this is the process that prints and writes; under `accelerate launch` there may be several."""
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "")).strip()
    # check_environment() reports values that are not numbers
    return not (rank.isdecimal() and rank.strip("0"))


def raise_if_stopping() -> None:
    """Raises `KeyboardInterrupt` if the command has to stop."""
    if STOPPING.is_set():
        raise KeyboardInterrupt


class Progress:
    """Shows tasks on a console; without one it shows nothing.

    Args:
        console: Where to draw. On a console that is not a terminal, each finished task prints one line, and a long
            task prints one every half minute.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """Prints a line to the user, if there is one."""
        if self.console is not None:
            text = plain("\n".join(map(clean, text.split("\n"))))
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def say_notes(self, notes: Iterable[str]) -> None:
        """Prints notes to the user, each in a line."""
        for note in notes:
            self.say(f"note: {note}")

    @contextmanager
    def task(self, label: str, *, total: int, unit: str, brief: bool = False) -> Iterator[Callable[[int], None]]:
        """Yields a function that takes the number of units done since the last call; 0 only signals activity.

        Args:
            label: Name of the task. The bar of a nested task is below the outer one while it runs.
            total: Number of units; with 0 nothing is shown.
            unit: Name of the unit, in the plural.
            brief: Leave no line if the task takes less than a second.
        """
        if self.console is None or total == 0:
            yield lambda _count: raise_if_stopping()
            return
        outer, started = self._bars, time.monotonic()
        bars = self._bars = outer or _make_bars(self.console)
        task = bars.add_task(label, total=total, rate="")
        if outer is None:
            self._last_line = started
            bars.start()
        try:
            yield partial(self._advance, bars, task, unit)
        finally:
            self._bars = outer
            done, seconds = next(each.completed for each in bars.tasks if each.id == task), time.monotonic() - started
            bars.update(task, rate=_rate(done / max(seconds, 1e-3), unit))  # mean rate of the whole task
            if outer is not None:
                bars.remove_task(task)
            elif brief and time.monotonic() - started < _BRIEF:
                bars.live.transient = True
                bars.live.stop()  # bars.stop() would leave an empty line
            else:
                bars.stop()

    def _advance(self, bars: Bars, task: TaskID, unit: str, count: int) -> None:
        raise_if_stopping()
        bars.advance(task, count)
        current = next(each for each in bars.tasks if each.id == task)
        bars.update(task, rate=_rate(current.speed, unit))
        if not bars.console.is_interactive and time.monotonic() - self._last_line > _SILENT:
            self._last_line = time.monotonic()
            self.say(f"{current.description}: {current.completed:,.0f} of {current.total:,.0f} {unit}")


def _rate(speed: float | None, unit: str) -> str:
    """Returns a speed per second as a text; empty if it is unknown or 0."""
    if not speed:
        return ""
    return f"{speed:,.{1 if speed < 10 else 0}f} {unit}/s" if speed >= 1 else f"{speed:.2g} {unit}/s"


def _make_bars(console: Console) -> Bars:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("\N{MIDDLE DOT}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Bars(*columns, console=console, refresh_per_second=4)
