"""The summary of an adaptation in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelsieve.core.progress import clean
from labelsieve.core.quantities import duration, plain, points
from labelsieve.finetune.result import Adapted
from labelsieve.report.wrapping import Unbroken
from labelsieve.review.rows import MARKS

_WORST = 5


def summarize(adapted: Adapted, folder: Path, console: Console) -> None:
    """Prints what was trained on, how well it does, where it is worst, and how to load it."""
    record, metrics = adapted.record, adapted.metrics
    console.print()
    console.print(_headline(record))
    facts = [record["backbone"]["name"], f"{record['settings']['tune']} fine-tuning", duration(record["seconds"])]
    console.print(Unbroken(" · ".join(clean(str(fact)) for fact in facts if fact), style="dim"))
    if metrics["validation_accuracy"] is not None:
        saved = f"epoch {metrics['saved_epoch']} of {len(adapted.history)} is saved"
        console.print(Unbroken(f"{points(metrics['validation_accuracy'])} on the held-out training images: {saved}"))
    if record["converted"]["images"]:
        console.print(
            Unbroken(
                f"{record['converted']['images']:,} training images have transparency or values above 255, which "
                "pipeline() drops or cuts off: README.md has the lines that convert them as training did"
            )
        )
    if metrics["test"] is None:
        console.print("no test set was given: measure it on images whose labels a person has checked (--test)")
    else:
        _print_test(metrics, console)
    console.print()
    console.print(
        Text.assemble(("Model ", "dim"), (clean(str(folder)), "bold"), "  README.md says what it is"), soft_wrap=True
    )
    console.print(Text(f'pipeline("image-classification", "{clean(str(folder))}")', style="dim"), soft_wrap=True)
    console.print()


def _headline(record: Any) -> Unbroken:
    selection, left = record["selection"], []
    marked = sum(selection.get(f"marked_{mark}", 0) for mark in MARKS)
    for count, what in (
        (selection["dropped"], "flagged left out"),
        (selection["left_out"], "left out in the review"),
        (selection["kept"], "flagged but kept"),
        (selection["relabelled"], "relabelled"),
        (selection["unreadable"], "unreadable"),
        (selection["held_out"], "held out"),
        (marked, "reviewed by a person"),
    ):
        left += [f"{count:,} {what}"] if count else []
    return Unbroken(
        (f"{selection['trained_on']:,}", "bold green"),
        (" images trained on", "bold"),
        f" of {selection['images']:,}",
        f" ({', '.join(left)})" if left else "",
    )


def _print_test(metrics: Any, console: Console) -> None:
    test = metrics["test"]
    start, last, best = (points(metrics[f"test_accuracy_{which}"]) for which in ("start", "last", "best"))
    console.print()
    console.print(
        Unbroken(
            (points(test["accuracy"]), "bold green"),
            f" right of {test['images']:,} test images",
            f", {points(test['balanced_accuracy'])} as a mean over the classes",
        )
    )
    console.print(Unbroken(f"before training {start}, last epoch {last}", style="dim"))
    console.print(Unbroken(f"best epoch by the test set {best}, to compare with papers only", style="dim"))
    if metrics["test_converted"]:
        console.print(
            Unbroken(
                f"{metrics['test_converted']:,} test images are not what training saw: pipeline() drops transparency "
                "and cuts values off; converted as README.md says "
                f"{points(metrics['test_accuracy_converted'])} are right"
            )
        )
    rows = [row for row in test["per_class"] if row["accuracy"] is not None]
    rows.sort(key=lambda row: (row["accuracy"], row["class_name"]))
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("Hardest classes", overflow="fold")
    for name in ("test images", "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:_WORST]:
        table.add_row(clean(row["class_name"]), f"{row['images']:,}", plain(points(row["accuracy"])))
    console.print()
    console.print(table)
