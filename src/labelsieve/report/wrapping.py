"""Text for the terminal that wraps between words, but never between a number and its unit."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from labelsieve.core.quantities import bind_units

# A private-use character: one column wide, not a space for `rich`, and never in cleaned text.
_GLUE = "\ue000"


class Unbroken:
    """A text that `rich` wraps without separating a number from its unit; normal spaces are printed.

    Args:
        text: The text, with its styles.
        parts: Further parts, each with or without a style, as in `Text.assemble`.
        style: Style of the complete text.
    """

    def __init__(self, text: Any, *parts: Any, style: str = "") -> None:
        self.text = Text.assemble(text, *parts, style=style)
        self.text.plain = bind_units(self.text.plain, _GLUE)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Wraps like `Text`, and restores the spaces."""
        lines = self.text.wrap(
            console, options.max_width, justify=options.justify, overflow=options.overflow, no_wrap=options.no_wrap
        )
        for line in lines:
            line.plain = line.plain.replace(_GLUE, " ")
        yield Text("\n").join(lines)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Returns minimum and maximum width."""
        return self.text.__rich_measure__(console, options)
