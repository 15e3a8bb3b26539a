"""Text of the terminal that is wrapped between words, but never between a number and its unit."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from labelsieve.core.quantities import bind_units

# One column wide, no space to `rich`, and in no text that was cleaned: a character for private use.
_GLUE = "\ue000"


class Unbroken:
    """A text that `rich` wraps without taking a number from its unit; usual spaces are printed.

    Args:
        text: What is printed, with its styles.
        parts: More of it, each with or without a style, as `Text.assemble` takes them.
        style: Of all of it.
    """

    def __init__(self, text: Any, *parts: Any, style: str = "") -> None:
        self.text = Text.assemble(text, *parts, style=style)
        self.text.plain = bind_units(self.text.plain, _GLUE)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Wraps as `Text` would, and puts the spaces back."""
        lines = self.text.wrap(
            console, options.max_width, justify=options.justify, overflow=options.overflow, no_wrap=options.no_wrap
        )
        for line in lines:
            line.plain = line.plain.replace(_GLUE, " ")
        yield Text("\n").join(lines)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Returns how wide it has to be and would like to be."""
        return self.text.__rich_measure__(console, options)
