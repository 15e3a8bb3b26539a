"""Progress with rate and remaining time on the terminal; silent where nobody looks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

STOPPING = threading.Event()
"""Set once the command is asked to stop. What a signal raises may be lost, as while a process is forked."""


def is_main_process() -> bool:
    """Tells whether this is the process that prints and writes; under `accelerate launch` there may be several."""
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "")).strip()
    # what is no number at all is told by the check of these variables
    return not (rank.isdecimal() and rank.strip("0"))


def stop_if_asked() -> None:
    """Raises `KeyboardInterrupt` if the command has been asked to stop."""
    if STOPPING.is_set():
        raise KeyboardInterrupt


def about(seconds: float) -> str:
    """Returns a time that is no more than a guess in words, to two digits at most."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"about {value:.1f} {unit}" if value < 10 else f"about {value:.0f} {unit}"
    return f"about {max(1, round(seconds))} s"


def clean(text: str) -> str:
    """Takes out control characters: the name of a class or a file must not be able to steer the terminal."""
    return "".join(letter if letter.isprintable() or letter == "\u00a0" else "\ufffd" for letter in text)


class Progress:
    """Shows tasks on a console; without one it shows nothing.

    Args:
        console: Where to draw. On a console that is not a terminal each finished task leaves one line.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console, self._is_drawing = console, False

    def say(self, text: str) -> None:
        """Prints a line to the user, if there is one."""
        if self.console is not None:
            text = "\n".join(map(clean, text.split("\n")))
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, label: str, *, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Yields a function that takes how many units were done since the last call.

        A task within another shows nothing.
        """
        if self.console is None or total == 0 or self._is_drawing:
            yield lambda _count: stop_if_asked()
            return
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
        with Bars(*columns, console=self.console, refresh_per_second=4) as bars:
            task = bars.add_task(label, total=total, rate="")
            self._is_drawing = True

            def advance(count: int) -> None:
                stop_if_asked()
                bars.advance(task, count)
                speed = bars.tasks[0].speed
                bars.update(task, rate=f"{speed:,.{1 if speed < 10 else 0}f} {unit}/s" if speed else "")

            try:
                yield advance
            finally:
                self._is_drawing = False
