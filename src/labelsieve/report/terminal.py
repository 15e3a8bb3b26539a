"""The summaries of a scan in the terminal: of labels, and of tags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from labelsieve.core.files import quoted
from labelsieve.core.quantities import UNKNOWN, duration, percent, plain
from labelsieve.core.text import clean
from labelsieve.metrics import OTHER_METRICS, SIDE_SCORES
from labelsieve.records import RunRecord
from labelsieve.report import MAX_IMAGES, texts
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
from labelsieve.tags.verdicts import MEASURES, MISSING, TAG_FILES, TAG_KINDS, WRONG, TagVerdicts
from labelsieve.verdicts import CONSENSUS, REPORT, RUN_FILES, Verdicts

_TOP, _TOP_TAGS = 5, 10
_STYLES = {"problem": "bold red", "warning": "bold yellow", "info": "bold cyan"}


def summarize(verdicts: Verdicts, console: Console) -> None:
    """Prints counts, the most affected classes, findings with advice, metrics if any, and the files."""
    console.print()
    console.print(_headline(verdicts))
    for line in texts.estimate(verdicts):
        console.print(Unbroken(line))
    _print_facts(verdicts.run, console)
    _print_classes(verdicts, console)
    _print_annotators(verdicts.run, console)
    _print_findings(verdicts.run, console)
    _print_image_findings(verdicts, console)
    if verdicts.metrics:
        _print_metrics(verdicts.metrics, console)
    _print_files(verdicts.run, console)
    _print_next_steps(verdicts, console)
    console.print()


def _headline(verdicts: Verdicts) -> Unbroken:
    flagged, readable = int(verdicts.is_issue.sum()), int(verdicts.is_readable.sum())
    unreadable = len(verdicts) - readable
    return Unbroken(
        (f"{flagged:,}", "bold yellow" if flagged else "bold green"),
        (" flagged", "bold"),
        f" of {readable:,} {verdicts.unit}",
        f" ({percent(flagged / readable)})" if readable else "",
        f", {len(verdicts.class_names):,} classes",
        (f", {unreadable:,} unreadable" if unreadable else "", "red"),
    )


def _print_facts(run: RunRecord, console: Console) -> None:
    print_facts([run.source, run.detector.name, run.model.name, duration(run.seconds)], console)
    if agreement := texts.agreement(run):
        console.print(Unbroken(f"the zero-shot model agrees with {agreement}", style="dim"))
    if reviewed := texts.reviewed(run):
        console.print(Unbroken(f"known from a review: {reviewed}", style="dim"))
    if tested := texts.tested(run):
        console.print(Unbroken(f"{tested} test images", style="dim"))
    if run.rule.false_flags is not None:
        console.print(Unbroken(f"false flags: {run.rule.bound_text()}", style="dim"))


def _print_classes(verdicts: Verdicts, console: Console) -> None:
    rows = [row for row in verdicts.per_class() if row["flagged"]]
    rows.sort(key=lambda row: (-row["share_flagged"], -row["flagged"], row["class_name"]))
    if not rows:
        return
    table = new_table("Most affected classes", verdicts.unit, "flagged", "share", texts=["most often suggested"])
    for row in rows[:_TOP]:
        suggested = row["most_often_suggested"]
        table.add_row(
            class_name(row["class_name"]),
            f"{row['images']:,}",
            f"{row['flagged']:,}",
            plain(percent(row["share_flagged"])),
            class_name(suggested).append(f" ({row['most_often_count']:,})", style="dim")
            if suggested is not None
            else Text(UNKNOWN),
        )
    print_table(table, console, left_out=len(rows) - _TOP)


def _print_annotators(run: RunRecord, console: Console) -> None:
    rows = texts.annotators(run)
    if not rows:
        return
    table = new_table("Annotator", "labels", "right (estimate)", "95 % interval", texts=["most often confused"])
    for row in rows[:_TOP]:
        right, interval = plain(row["accuracy"]), plain(row["interval"])
        confused = Text(clean(row["confused"])).append(f" ({row['times']})" if row["times"] else "", style="dim")
        table.add_row(class_name(row["name"]), row["labels"], right, interval, confused)
    print_table(table, console, left_out=len(rows) - _TOP)
    parts = (texts.consensus(run), f"whom to ask again about which image: {CONSENSUS}")
    console.print(Unbroken("; ".join(filter(None, parts))))


def _print_findings(run: RunRecord, console: Console) -> None:
    for finding in texts.findings(run):
        console.print()
        title = (f"{finding['title']}: ", _STYLES[finding["level"]])
        head = " ".join(f"{finding[key].strip().rstrip('.')}." for key in ("figure", "message") if finding[key])
        console.print(Unbroken(title, clean(head)))
        if finding["advice"]:
            console.print(Padding(Unbroken(("→ ", "bold"), clean(finding["advice"])), (0, 0, 0, 2)))


def _print_image_findings(verdicts: Verdicts, console: Console) -> None:
    lines = [line for _, line, _ in texts.image_findings(verdicts)]
    if not lines:
        return
    console.print()
    console.print(Text("Other issues", style="dim"))
    for line in lines:
        console.print(Unbroken(f"  {clean(line)}"))


def _print_metrics(metrics: Mapping[str, Any], console: Console) -> None:
    table = new_table("Against the truth", "precision", "recall", "F1")
    for side, title in (("clean", "correct labels kept (clean_*)"), ("issue", "wrong labels flagged (issue_*)")):
        table.add_row(title, *(plain(texts.score(metrics.get(f"{side}_{name}"))) for name in SIDE_SCORES))
    print_table(table, console)
    other = (
        *(f"{title} {texts.score(metrics.get(name))}" for name, title in OTHER_METRICS.items()),
        f"wrong labels {percent(metrics.get('noise_rate'))}",
        f"flagged {percent(metrics.get('flagged_rate'))}",
    )
    console.print(Unbroken(", ".join(other)))


def _print_files(run: RunRecord, console: Console) -> None:
    if not run.out:
        return
    print_files(Path(run.out), RUN_FILES, console)


def _print_next_steps(verdicts: Verdicts, console: Console) -> None:
    """Prints the commands that use the run, ready to be copied; none without an `out`."""
    if not verdicts.run.out:
        return
    folder = Path(verdicts.run.out)
    steps = step_to_report(folder / REPORT, "the flagged images")
    shown = min(int(verdicts.is_issue.sum()), MAX_IMAGES)
    if more := texts.all_flagged(verdicts, shown=shown):
        steps.append((f"the report shows {shown:,} of them; for all", more))
    if verdicts.run.model.name:  # features have no images to write or to train on
        run = quoted(folder)
        clean_folder, model = (next_to(folder, f"-{title}") for title in ("clean", "model"))
        steps.append(("give the right labels", f"labelsieve review {run}"))
        verbs = "export or adapt"
        if (suffix := texts.suffix_of_corrected(verdicts.run.origin)) is not None:
            corrected, verbs = next_to(folder, f"-corrected{suffix}"), f"apply, {verbs}"
            steps.append(("write the data with them", f"labelsieve apply {run} --out {corrected}"))
        steps.append(("write the clean part", f"labelsieve export {run} --format imagefolder --out {clean_folder}"))
        option, note = _fast_training(verdicts.run)
        steps.append((f"train a classifier on it{note}", f"labelsieve adapt {run} --out {model}{option}"))
        steps.append(("with what you marked in the report", f"add --marks labelsieve-marks.csv to {verbs}"))
    if steps:
        print_next_steps(steps, console)


def _fast_training(run: RunRecord) -> tuple[str, str]:
    """Returns the option that makes training fast without an accelerator, and a note; both empty if the run had one."""
    if not (run.hardware or "").startswith("cpu"):
        return "", ""
    return " --tune linear", " (fast on a CPU; without --tune linear all weights are trained)"


# ------------------------------------------------------------------------------------------------------------ of tags


def summarize_tags(verdicts: TagVerdicts, console: Console) -> None:
    """Prints counts, the most affected classes, metrics if any, and the files."""
    console.print()
    console.print(_tag_headline(verdicts))
    if line := texts.estimate_of_tags(verdicts):
        console.print(Unbroken(line))
    run = verdicts.run
    print_facts([run.source, run.detector.name, run.model.name, duration(run.seconds)], console)
    _print_tag_classes(verdicts, console)
    if verdicts.metrics:
        _print_tag_metrics(verdicts, console)
    _print_tag_files(verdicts, console)
    console.print()


def _tag_headline(verdicts: TagVerdicts) -> Unbroken:
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


def _print_tag_classes(verdicts: TagVerdicts, console: Console) -> None:
    rows = [row for row in verdicts.per_class() if row[WRONG] or row[MISSING]]
    rows.sort(key=lambda row: (-row[WRONG] - row[MISSING], row["class_name"]))
    if not rows:
        return
    table = new_table("Most affected classes", "tagged", "wrong", "missing", "wrong (est.)", "missing (est.)")
    for row in rows[:_TOP_TAGS]:
        rates = (plain(percent(row[rate])) for rate in ("commission", "omission"))
        table.add_row(class_name(row["class_name"]), *(f"{row[name]:,}" for name in ("tagged", WRONG, MISSING)), *rates)
    print_table(table, console, left_out=len(rows) - _TOP_TAGS)


def _print_tag_metrics(verdicts: TagVerdicts, console: Console) -> None:
    metrics = verdicts.metrics or {}
    table = new_table("Against the truth", *MEASURES.values(), "share")
    for kind, title in TAG_KINDS.items():
        scores = (plain(texts.score(metrics.get(f"{kind}_{name}"))) for name in MEASURES)
        table.add_row(title, *scores, plain(percent(metrics.get(f"{kind}_rate"))))
    print_table(table, console)
    console.print(Unbroken(f"mean average precision over the classes {texts.score(metrics.get('map'))}"))


def _print_tag_files(verdicts: TagVerdicts, console: Console) -> None:
    if not verdicts.run.out:
        return
    folder = Path(verdicts.run.out)
    print_files(folder, TAG_FILES, console)
    steps = step_to_report(folder / REPORT, "the verdicts")
    command = f"labelsieve export {quoted(folder)} --format csv --out {next_to(folder, '-corrected.csv')}"
    steps.append(("write the tags as the verdicts have them", command))
    steps.append(("with what you marked in the report", "add --marks labelsieve-marks.csv to this"))
    print_next_steps(steps, console)
