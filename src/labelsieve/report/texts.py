"""Texts of report and terminal on the numbers and findings of a run."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.quantities import NBSP, UNKNOWN, counted, percent, points, thousands
from labelsieve.curation.findings import KINDS, FindingKind, rows_of
from labelsieve.data.published.base import named_source
from labelsieve.metrics import Interval
from labelsieve.records import OriginRecord, RunRecord
from labelsieve.report import MAX_IMAGES_LIMIT
from labelsieve.tags.verdicts import MISSING, WRONG, TagVerdicts
from labelsieve.verdicts import Verdicts

LEVELS = {"problem": "Problem", "warning": "Warning", "info": "Note"}


def reviewed(run: RunRecord) -> str:
    """Returns a text on the labels that the scan knew from an earlier review; empty without one."""
    if run.reviewed is None or run.reviewed.images is None:
        return ""
    known, wrong = counted(run.reviewed.images, "label", "labels"), run.reviewed.wrong or 0
    return f"{known}, {wrong:,} of them wrong, which are among the flagged ones"


def tested(run: RunRecord) -> str:
    """Returns a text on the accuracy of the model on test images; empty without test images."""
    test = run.test
    return f"right on {points(test.accuracy)} of {test.images - test.unreadable:,}" if test else ""


def agreement(run: RunRecord) -> str:
    """Returns a text on how often the zero-shot model predicts the given label, as in the findings; else empty."""
    balanced, share = run.zero_shot_balanced_agreement, run.zero_shot_agreement
    if balanced is not None:
        return f"{percent(balanced)} of given labels (mean over classes)"
    return "" if share is None else f"{percent(share)} of given labels"


def estimate(verdicts: Verdicts) -> list[str]:
    """Returns texts on the estimated numbers of wrong labels, right flags and missed labels; empty if unknown."""
    recorded, readable = verdicts.run.estimate, int(verdicts.is_readable.sum())
    wrong, right, missed = recorded.wrong_labels, recorded.right_flags, recorded.missed_labels
    if wrong is None or not readable:
        return []
    flagged = int(verdicts.is_issue.sum())
    lines = [f"about {count_text(wrong)} of {readable:,} labels are wrong (estimate); {flagged:,} flagged"]
    if right is not None and missed is not None:
        value, low, high = (percent(share) for share in right)
        missed_text = f"of the others about {count_text(missed)}"
        lines.append(f"of the flagged about {value} ({low} to {high}) are wrong; {missed_text}")
    return lines


def estimate_of_tags(verdicts: TagVerdicts) -> str:
    """Returns a text on the estimated numbers of wrong and missing tags; empty without an estimate."""
    counts = verdicts.estimated()
    if counts is None:
        return ""
    wrong, missing = (f"{round(counts[kind]):,}" for kind in (WRONG, MISSING))
    return f"about {wrong} tags are wrong and {missing} are missing (estimate)"


def annotators(run: RunRecord) -> list[dict[str, str]]:
    """Returns the texts of a table of annotators, the least accurate first; empty with one label per image."""
    rows = []
    for annotator in sorted(run.annotators, key=lambda annotator: (annotator.accuracy is None, annotator.accuracy)):
        pair, has_interval = annotator.confused, annotator.low is not None and annotator.high is not None
        rows.append(
            {
                "name": annotator.name or "",
                "labels": thousands(annotator.labels or 0),
                "accuracy": percent(annotator.accuracy),
                "interval": f"{percent(annotator.low)} to {percent(annotator.high)}" if has_interval else UNKNOWN,
                "agreement": percent(annotator.agreement),
                "confused": f"{pair.consensus} → {pair.label}" if pair else UNKNOWN,
                "times": thousands(pair.times) if pair and pair.times is not None else "",
            }
        )
    return rows


def consensus(run: RunRecord) -> str:
    """Returns a text on how the consensus of annotators and images differs from the majority vote; else empty."""
    consensus = run.consensus
    if consensus is None or consensus.changed is None:
        return ""
    line = (
        f"consensus with the image evidence: another class than most annotators gave for {consensus.changed:,} images"
    )
    if consensus.accuracy is not None and consensus.accuracy_of_vote is not None:
        line += f"; right on {points(consensus.accuracy)}, the vote on {points(consensus.accuracy_of_vote)}"
    return line


def count_text(interval: Interval) -> str:
    """Formats an estimated number with its interval."""
    estimate, low, high = (f"{round(each):,}" for each in interval)
    return f"{estimate} ({low} to {high})"


def all_flagged(verdicts: Verdicts, *, shown: int) -> str:
    """Returns the command to show all flagged images; empty if the report shows all."""
    flagged = int(verdicts.is_issue.sum())
    if shown >= flagged:
        return ""
    run = shlex.quote(verdicts.run.out or "RUN")
    command = f"labelsieve report {run} --max-images {min(flagged, MAX_IMAGES_LIMIT)}"
    note = "; a report shows no more, the rest is in verdicts.csv" if flagged > MAX_IMAGES_LIMIT else ""
    return command + note


def suffix_of_corrected(origin: OriginRecord) -> str | None:
    """Returns the suffix of the corrected data, None if labels cannot be written back."""
    source = origin.source or ""
    if not source or origin.noise or named_source(source) or not isinstance(origin.label_column, str | None):
        return None
    path = Path(source)
    # for YOLO a folder is written, since the labels are beside the YAML file
    return path.suffix if path.is_file() and path.suffix.lower() not in (".yaml", ".yml") else ""


def findings(run: RunRecord) -> list[dict[str, str]]:
    """Returns the findings of a record, problems first, with `level`, `title`, `figure`, `message` and `advice`."""
    order = list(LEVELS)
    rows = []
    for finding in run.findings:
        level = finding.level if finding.level in LEVELS else "info"
        texts = {key: getattr(finding, key) or "" for key in ("code", "figure", "message", "advice")}
        rows.append({"level": level, "title": LEVELS[level], **texts})
    return sorted(rows, key=lambda row: order.index(row["level"]))


def image_findings(verdicts: Verdicts) -> list[tuple[FindingKind, str, pa.Table]]:
    """Returns for each kind that was found: kind, a line with the number of images, and the findings."""
    if verdicts.image_findings is None:
        return []
    sections = []
    for name, kind in KINDS.items():
        table = verdicts.image_findings.filter(pc.equal(verdicts.image_findings["kind"], name))
        if len(table):
            sections.append((kind, f"{kind.title}: {_of_kind(verdicts, kind, table)}", table))
    return sections


def _of_kind(verdicts: Verdicts, kind: FindingKind, table: pa.Table) -> str:
    text = counted(len(table), "image", "images")
    if expected := round(kind.level * int(verdicts.is_readable.sum())):
        text += f" (about {expected:,} {'is' if expected == 1 else 'are'} expected by chance)"
    if kind.other == "against":
        other = (verdicts.run.against and verdicts.run.against.source_name) or "the other split"
        return f"{text}, also in {other}"
    if kind.other != "data":
        return text
    given = verdicts.table["given_label"].take(rows_of(table["id"], verdicts.table["id"]))
    table_of_labels = pa.table({"group": table["group"], "label": given})
    several = table_of_labels.group_by("group").aggregate([("label", "count_distinct")])["label_count_distinct"]
    mixed = int(pc.sum(pc.greater(several, 1)).as_py() or 0)
    return f"{text} in {counted(len(several), 'group', 'groups')}" + (
        f", {mixed:,} with different given labels" if mixed else ""
    )


def score(value: float | None) -> str:
    """Formats a score between 0 and 1 with three decimals."""
    if value is None or value != value:
        return UNKNOWN
    return f"<{NBSP}0.001" if 0 < value < 0.001 else f"{value:.3f}"


def moment(text: str | None) -> str:
    """Formats an ISO time as a date and a time of day; other texts stay unchanged."""
    if not text:
        return ""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = when.tzname() or ""
    return f"{when.day} {when:%B %Y, %H:%M} {zone}".strip()
