"""What the report, the terminal and the export share: how numbers read, and whether images belong to verdicts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.errors import RunError, shown
from labelsieve.core.quantities import NBSP, UNKNOWN, counted, percent, points
from labelsieve.curation.findings import KINDS, FindingKind
from labelsieve.data.labelled import Labelled
from labelsieve.metrics import Interval
from labelsieve.records import RunRecord
from labelsieve.report import MOST_IMAGES
from labelsieve.verdicts import Verdicts

LEVELS = {"problem": "Problem", "warning": "Warning", "info": "Note"}


def require_same_images(verdicts: Verdicts, images: Labelled) -> None:
    """Checks that row i of the verdicts speaks of image i.

    Raises:
        RunError: The images are others than the verdicts were made from.
    """
    if len(verdicts) != len(images):
        raise RunError(f"expected the {len(verdicts):,} images of the run, got {len(images):,}; pass those it scanned")
    if not pa.array(images.ids, pa.string()).equals(verdicts.table["id"].combine_chunks()):
        raise RunError("the images have other ids than those of the run; pass the ones it scanned, in the same order")


def tested(run: RunRecord) -> str:
    """Says how well the model of a scan classifies test images; empty where there were none."""
    test = run.test
    return f"right on {points(test.accuracy)} of {test.images - test.unreadable:,}" if test else ""


def agreement(run: RunRecord) -> str:
    """Says how often the zero-shot model predicts the given label, by the number that findings speak of; else empty."""
    balanced, share = run.zero_shot_balanced_agreement, run.zero_shot_agreement
    if balanced is not None:
        return f"{percent(balanced)} of given labels (mean over classes)"
    return "" if share is None else f"{percent(share)} of given labels"


def estimate(verdicts: Verdicts) -> list[str]:
    """Says about how many labels are wrong, which flags are right and what they miss; empty where nothing is known."""
    found, readable = verdicts.run.estimate, int(verdicts.is_readable.sum())
    wrong, right, missed = found.wrong_labels, found.right_flags, found.missed_labels
    if wrong is None or not readable:
        return []
    flagged = int(verdicts.is_issue.sum())
    lines = [f"about {_count(wrong)} of {readable:,} labels are wrong (estimate); {flagged:,} flagged"]
    if right is not None and missed is not None:
        value, low, high = (percent(share) for share in right)
        others = f"of the others about {_count(missed)}"
        lines.append(f"of the flagged about {value} ({low} to {high}) are wrong; {others}")
    return lines


def annotators(run: RunRecord) -> list[dict[str, str]]:
    """Returns the texts of a table of annotators, the least accurate first; empty where there is one label an image."""
    rows = []
    for each in sorted(run.annotators, key=lambda each: (each.accuracy is None, each.accuracy)):
        pair, has_interval = each.confused, each.low is not None and each.high is not None
        rows.append(
            {
                "name": each.name or "",
                "labels": thousands(each.labels or 0),
                "accuracy": percent(each.accuracy),
                "interval": f"{percent(each.low)} to {percent(each.high)}" if has_interval else UNKNOWN,
                "agreement": percent(each.agreement),
                "confused": f"{pair.consensus} → {pair.label}" if pair else UNKNOWN,
                "times": thousands(pair.times) if pair and pair.times is not None else "",
            }
        )
    return rows


def consensus(run: RunRecord) -> str:
    """Says how the consensus of annotators and images differs from the vote; empty where there is one label."""
    found = run.consensus
    if found is None or found.changed is None:
        return ""
    line = f"consensus with the image evidence: another class than most annotators gave for {found.changed:,} images"
    if found.accuracy is not None and found.accuracy_of_vote is not None:
        line += f"; right on {points(found.accuracy)}, the vote on {points(found.accuracy_of_vote)}"
    return line


def _count(interval: Interval) -> str:
    value, low, high = (f"{round(each):,}" for each in interval)
    return f"{value} ({low} to {high})"


def all_flagged(verdicts: Verdicts, *, shown: int) -> str:
    """Says how to get all flagged images where a report shows fewer; empty where it shows all."""
    flagged = int(verdicts.is_issue.sum())
    if shown >= flagged:
        return ""
    run = shlex.quote(verdicts.run.out or "RUN")
    command = f"labelsieve report {run} --max-images {min(flagged, MOST_IMAGES)}"
    rest = "; a report shows no more, the rest is in verdicts.csv" if flagged > MOST_IMAGES else ""
    return command + rest


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
    """Returns kind, a line of how many images have it, and the findings, for each kind that was found."""
    if verdicts.image_findings is None:
        return []
    found = []
    for name, kind in KINDS.items():
        table = verdicts.image_findings.filter(pc.equal(verdicts.image_findings["kind"], name))
        if len(table):
            found.append((kind, f"{kind.title}: {_of_kind(verdicts, kind, table)}", table))
    return found


def _of_kind(verdicts: Verdicts, kind: FindingKind, table: pa.Table) -> str:
    text = counted(len(table), "image", "images") + (f" ({kind.remark})" if kind.remark else "")
    if kind.other == "against":
        other = (verdicts.run.against and verdicts.run.against.source_name) or "the other split"
        return f"{text}, also in {other}"
    if kind.other != "data":
        return text
    given = verdicts.table["given_label"].take(rows_of(verdicts, table["id"].to_pylist()))
    labels = pa.table({"group": table["group"], "label": given})
    several = labels.group_by("group").aggregate([("label", "count_distinct")])["label_count_distinct"]
    mixed = int(pc.sum(pc.greater(several, 1)).as_py() or 0)
    return f"{text} in {counted(len(several), 'group', 'groups')}" + (
        f", {mixed:,} with different given labels" if mixed else ""
    )


def rows_of(verdicts: Verdicts, ids: Sequence[str]) -> list[int]:
    """Returns the row numbers of some ids of the run.

    Raises:
        RunError: One is none of the run.
    """
    found = pc.index_in(pa.array(ids, pa.string()), value_set=verdicts.table["id"].combine_chunks())
    if found.null_count:
        unknown = ids[found.is_null().to_pylist().index(True)]
        raise RunError(f"the findings name {shown(unknown)}, which is no image of the run; make the run again")
    return [int(row) for row in found.to_pylist()]


def score(value: float | None) -> str:
    """Writes a score between 0 and 1 with three digits."""
    if value is None or value != value:
        return UNKNOWN
    return f"<{NBSP}0.001" if 0 < value < 0.001 else f"{value:.3f}"


def thousands(number: int) -> str:
    """Writes a count with its thousands apart."""
    return f"{number:,}"


def moment(text: str | None) -> str:
    """Writes an ISO time as a date and a time of day; what is no ISO time stays as it is."""
    if not text:
        return ""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = when.tzname() or ""
    return f"{when.day} {when:%B %Y, %H:%M} {zone}".strip()
