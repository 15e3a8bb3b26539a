"""The summary of a scan of tags in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from labelsieve.core.files import quoted
from labelsieve.core.quantities import duration, percent, plain
from labelsieve.report import common
from labelsieve.report.printing import (
    Unbroken,
    class_name,
    new_table,
    next_to,
    print_facts,
    print_files,
    print_next_steps,
    print_table,
    step_to_report,
)
from labelsieve.tags.verdicts import KINDS, MEASURES, MISSING, TAG_FILES, WRONG, TagVerdicts
from labelsieve.verdicts import REPORT

_TOP = 10


def summarize_tags(verdicts: TagVerdicts, console: Console) -> None:
    """Prints counts, the most affected classes, metrics if any, and the files."""
    console.print()
    console.print(_headline(verdicts))
    if line := common.estimate_of_tags(verdicts):
        console.print(Unbroken(line))
    run = verdicts.run
    print_facts([run.source, run.detector.name, run.model.name, duration(run.seconds)], console)
    _print_classes(verdicts, console)
    if verdicts.metrics:
        _print_metrics(verdicts, console)
    _print_files(verdicts, console)
    console.print()


def _headline(verdicts: TagVerdicts) -> Unbroken:
    wrong, missing = (len(verdicts.of_kind(kind)) for kind in (WRONG, MISSING))
    readable, unreadable = int(verdicts.is_readable.sum()), len(verdicts.unreadable)
    given = int(verdicts.given[verdicts.is_readable].sum())
    return Unbroken(
        (f"{wrong:,}", "bold yellow" if wrong else "bold green"),
        (" wrong", "bold"),
        f" of {given:,} tags ({percent(wrong / given if given else 0)}), ",
        (f"{missing:,}", "bold yellow" if missing else "bold green"),
        (" missing", "bold"),
        f"; {readable:,} images, {len(verdicts.class_names):,} classes",
        (f", {unreadable:,} unreadable" if unreadable else "", "red"),
    )


def _print_classes(verdicts: TagVerdicts, console: Console) -> None:
    rows = [row for row in verdicts.per_class() if row[WRONG] or row[MISSING]]
    rows.sort(key=lambda row: (-row[WRONG] - row[MISSING], row["class_name"]))
    if not rows:
        return
    table = new_table("Most affected classes", "tagged", "wrong", "missing", "wrong (est.)", "missing (est.)")
    for row in rows[:_TOP]:
        rates = (plain(percent(row[rate])) for rate in ("commission", "omission"))
        table.add_row(class_name(row["class_name"]), *(f"{row[name]:,}" for name in ("tagged", WRONG, MISSING)), *rates)
    print_table(table, console, left_out=len(rows) - _TOP)


def _print_metrics(verdicts: TagVerdicts, console: Console) -> None:
    metrics = verdicts.metrics or {}
    table = new_table("Against the truth", *MEASURES.values(), "share")
    for kind, title in KINDS.items():
        scores = (plain(common.score(metrics.get(f"{kind}_{name}"))) for name in MEASURES)
        table.add_row(title, *scores, plain(percent(metrics.get(f"{kind}_rate"))))
    print_table(table, console)
    console.print(Unbroken(f"mean average precision over the classes {common.score(metrics.get('map'))}"))


def _print_files(verdicts: TagVerdicts, console: Console) -> None:
    if not verdicts.run.out:
        return
    folder = Path(verdicts.run.out)
    print_files(folder, TAG_FILES, console)
    steps = step_to_report(folder / REPORT, "the verdicts")
    command = f"labelsieve export {quoted(folder)} --format csv --out {next_to(folder, '-corrected.csv')}"
    steps.append(("write the tags as the verdicts have them", command))
    steps.append(("with what you marked in the report", "add --marks labelsieve-marks.csv to this"))
    print_next_steps(steps, console)
