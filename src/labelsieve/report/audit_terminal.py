"""The result of an audit in the terminal."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.padding import Padding

from labelsieve.core.quantities import plain
from labelsieve.report.wrapping import Unbroken
from labelsieve.review.statement import Statement


def print_audit(statement: Statement, console: Console, *, run: Path) -> None:
    """Prints the sentences of an audit, each with its assumption, and how to audit if there is no audit yet.

    Args:
        statement: All numbers of the audit.
        console: Where to print.
        run: The run folder, for the command that audits it.
    """
    for sentence in statement.sentences:
        console.print(Unbroken(plain(sentence.text)))
        if sentence.assumption:
            console.print(Padding(Unbroken(plain(f"if {sentence.assumption}"), style="dim"), (0, 0, 0, 2)))
    if not statement.audited:
        console.print(Unbroken(f"to audit: labelsieve review {shlex.quote(str(run))}"))
