"""The summary of an adaptation in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from labelsieve.core.quantities import duration, plain, points
from labelsieve.core.text import clean
from labelsieve.finetune.result import Adapted
from labelsieve.metrics import CLASSIFICATION, TAG_CLASSIFICATION, TAG_DECISIONS, Metric
from labelsieve.records import is_tag_record
from labelsieve.report.printing import Unbroken, new_table, print_facts, print_folder, print_table
from labelsieve.review.mark_files import MARKS

_WORST = 5


def summarize(adapted: Adapted, folder: Path, console: Console) -> None:
    """Prints the selection, the metrics, the hardest classes, and how to load the model.

    Args:
        adapted: The classifier with its record and metrics.
        folder: The folder that it is saved in, for the last lines.
        console: Where to print.
    """
    record, metrics = adapted.record, adapted.metrics
    console.print()
    console.print(_headline(record))
    facts = [record["backbone"]["name"], f"{record['settings']['tune']} fine-tuning", duration(record["seconds"])]
    print_facts(facts, console)
    has_tags = is_tag_record(record)
    value = metrics["validation_map" if has_tags else "validation_accuracy"]
    if value is not None:
        saved, score = f"epoch {metrics['saved_epoch']} of {len(adapted.history)} is saved", "mAP " if has_tags else ""
        console.print(Unbroken(f"{score}{points(value)} on the held-out training images: {saved}"))
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
        _print_test(metrics, console, has_tags=has_tags)
    print_folder("Model", folder, "README.md says what it is", console)
    console.print(Text(f'pipeline("image-classification", "{clean(str(folder))}")', style="dim"), soft_wrap=True)
    console.print()


def _headline(record: Any) -> Unbroken:
    selection, details = record["selection"], []
    if is_tag_record(record):
        return _headline_of_tags(selection)
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
        details += [f"{count:,} {what}"] if count else []
    return Unbroken(
        (f"{selection['trained_on']:,}", "bold green"),
        (" images trained on", "bold"),
        f" of {selection['images']:,}",
        f" ({', '.join(details)})" if details else "",
    )


def _headline_of_tags(selection: Any) -> Unbroken:
    changes = (
        (selection["removed"], "wrong tags taken away"),
        (selection["added"], "missing tags given"),
        (selection["left_out"], "pairs left out of the loss"),
        (selection["kept"], "flagged pairs kept as they were"),
        (selection["unreadable"], "unreadable images"),
        (selection["held_out"], "images held out"),
    )
    details = ", ".join(f"{count:,} {what}" for count, what in changes if count)
    return Unbroken(
        (f"{selection['trained_on']:,}", "bold green"),
        (" images trained on", "bold"),
        f" of {selection['images']:,} with {selection['tags']:,} tags",
        f" ({details})" if details else "",
    )


def _print_test(metrics: Any, console: Console, *, has_tags: bool) -> None:
    test, score, title = metrics["test"], "map" if has_tags else "accuracy", "mAP " if has_tags else ""
    images = f"{test['images']:,} test images"
    start, last, best, converted = (
        points(metrics.get(f"test_{score}_{which}")) for which in ("start", "last", "best", "converted")
    )
    what = f"on {images}, mean over the classes that they show" if has_tags else f"right of {images}"
    other = _other_metrics(TAG_CLASSIFICATION if has_tags else CLASSIFICATION, test)
    console.print()
    console.print(Unbroken((title, "bold"), (points(test[score]), "bold green"), f" {what}{other}"))
    if has_tags:
        console.print(
            Unbroken(
                f"{' and '.join(f'{each.title} {points(test[name])}' for name, each in TAG_DECISIONS.items())} at 0.5, "
                f"{' and '.join(points(test[f'{name}_tuned']) for name in TAG_DECISIONS)} at {test['threshold']:.2f}, "
                "which suits the training images best"
            )
        )
    console.print(Unbroken(f"before training {title}{start}, last epoch {last}", style="dim"))
    console.print(Unbroken(f"best epoch by the test set {best}, to compare with papers only", style="dim"))
    if metrics["test_converted"]:
        console.print(
            Unbroken(
                f"{metrics['test_converted']:,} test images are not what training saw: pipeline() drops transparency "
                "and cuts values off; converted as README.md says "
                f"{f'the mAP is {converted}' if has_tags else f'{converted} are right'}"
            )
        )
    _print_hardest(test["per_class"], "average_precision" if has_tags else "accuracy", console)


def _other_metrics(metrics: Mapping[str, Metric], test: Any) -> str:
    """Lists all metrics except the first, which starts the line."""
    return "".join(f", {metric.full_name} {points(test[name])}" for name, metric in [*metrics.items()][1:])


def _print_hardest(per_class: Any, score: str, console: Console) -> None:
    rows = [row for row in per_class if row[score] is not None]
    rows.sort(key=lambda row: (row[score], row["class_name"]))
    table = new_table("Hardest classes", "test images", score.replace("_", " "))
    for row in rows[:_WORST]:
        table.add_row(clean(row["class_name"]), f"{row['images']:,}", plain(points(row[score])))
    print_table(table, console)
