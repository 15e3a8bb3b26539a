"""The parts of all summaries in the terminal: texts, tables, files, and commands that can be copied."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from labelsieve.core.files import named, quoted
from labelsieve.core.quantities import bind_units, megabytes, plain
from labelsieve.core.text import clean

# A private-use character: one column wide, not a space for `rich`, and never in cleaned text.
_GLUE = "\ue000"
# The command that opens a file with its default program.
OPEN = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
# Maximum length of a name in a table.
_NAME_WIDTH = 32


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


def new_table(first: str, *numbers: str, texts: Iterable[str] = ()) -> Table:
    """Returns a table without lines.

    Args:
        first: Title of the first column, whose texts wrap.
        numbers: Titles of columns of numbers, which stay on one line.
        texts: Titles of further columns of texts.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column(first, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    for title in texts:
        table.add_column(title, overflow="fold")
    return table


def print_table(table: Table, console: Console, *, left_out: int = 0) -> None:
    """Prints an empty line, a table, and how many rows it leaves out, if any.

    Args:
        table: The table.
        console: Where to print.
        left_out: Number of further rows; none if it is negative.
    """
    console.print()
    console.print(table)
    if left_out > 0:
        console.print(Unbroken(f"and {left_out:,} more", style="dim"))


def print_facts(facts: Iterable[object], console: Console) -> None:
    """Prints facts in one line, without those that are empty; nothing if all are."""
    if texts := [clean(str(fact)) for fact in facts if fact]:
        console.print(Unbroken(" · ".join(texts), style="dim"))


def print_folder(title: str, folder: Path, content: str, console: Console) -> None:
    """Prints an empty line and a folder with its content.

    Args:
        title: What the folder holds.
        folder: The folder.
        content: A text on its files.
        console: Where to print.
    """
    console.print()
    line = Text.assemble((f"{title} ", "dim"), (clean(str(folder)), "bold"), f"  {content}")
    console.print(line, soft_wrap=True)  # a path that is broken in two cannot be copied


def print_files(folder: Path, names: Iterable[str], console: Console) -> None:
    """Prints which of some files a folder has.

    Args:
        folder: The folder.
        names: Names of the files.
        console: Where to print.
    """
    print_folder("Files", folder, ", ".join(name for name in names if (folder / name).is_file()), console)


def step_to_report(report: Path, what: str) -> list[tuple[str, str]]:
    """Returns the step that opens a report, with its size; none if there is no report."""
    if not report.is_file():
        return []
    size = plain(megabytes(report.stat().st_size))
    return [(f"look at {what} ({size})", f"{OPEN} {quoted(report)}")]


def print_next_steps(steps: Iterable[tuple[str, str]], console: Console) -> None:
    """Prints commands, each with what it is for, ready to be copied."""
    console.print(Text("Next steps", style="dim"))
    for title, command in steps:
        console.print(Text.assemble((f"  {title}: ", "dim"), clean(command)), soft_wrap=True)


def next_to(run: Path, ending: str) -> str:
    """Returns a path next to a run folder, named like it but for an ending, quoted for a shell."""
    return quoted(Path(f"{named(run)}{ending}"))


def class_name(text: str) -> Text:
    """Returns a name, shortened to fit into a column."""
    cleaned = clean(text)
    return Text(cleaned if len(cleaned) <= _NAME_WIDTH else cleaned[: _NAME_WIDTH - 1] + "…")
