"""A dataset card for the Hugging Face Hub: contents of a data set, and its corrected labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import yaml

from labelsieve.core.files import write_text
from labelsieve.core.quantities import counted, percent, plain
from labelsieve.core.text import escape_markdown
from labelsieve.report.exports.registry import ExportRequest
from labelsieve.review.row_reviews import Reviewed
from labelsieve.verdicts import Verdicts
from labelsieve.vlm.names import without_folders

# Maximum number of pairs of classes in the table.
_PAIRS = 20
# The size categories of the Hub.
_SIZES = {
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
    100_000_000: "10M<n<100M",
}


def write_card(request: ExportRequest) -> None:
    """Writes a `README.md` with metadata for the Hub.

    Raises:
        RunError: The file cannot be written.
    """
    head = yaml.safe_dump(_metadata(request.verdicts), sort_keys=False, allow_unicode=True)
    write_text(request.out, "\n".join(["---", f"{head}---", "", *_body(request.reviewed)]) + "\n")


def _metadata(verdicts: Verdicts) -> dict[str, Any]:
    names = {str(index): name for index, name in enumerate(verdicts.class_names)}
    features = [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": {"class_label": {"names": names}}}]
    return {
        "task_categories": ["image-classification"],
        "size_categories": [size_category(len(verdicts))],
        "tags": ["labelsieve"],
        "dataset_info": {"features": features},
    }


def size_category(images: int) -> str:
    """Returns the size category of the Hub for a number of images.

    Example:
        >>> size_category(3_000_000)
        '1M<n<10M'
    """
    return next((name for limit, name in _SIZES.items() if images < limit), "100M<n<1B")


def _body(reviewed: Reviewed) -> list[str]:
    verdicts, labels, marks, dropped = reviewed.verdicts, reviewed.labels, reviewed.marks, reviewed.is_dropped
    changed = np.flatnonzero(reviewed.is_corrected & ~dropped)
    unknown = (marks == "wrong") & ~reviewed.is_corrected & ~dropped
    names = (verdicts.run.detector.name, without_folders(verdicts.run.model.name or ""))
    by = " with ".join(escape_markdown(name) for name in names if name)
    images = counted(len(verdicts), "image", "images")
    people = f"People reviewed {counted(len(reviewed.reviews or {}), 'image', 'images')}."
    lines = [
        "# Labels that were corrected",
        "",
        f"{images} in {counted(len(verdicts.class_names), 'class', 'classes')}. "
        f"The labels were scanned by labelsieve {escape_markdown(verdicts.run.labelsieve or '')}".rstrip()
        + (f" ({by})" if by else "")
        + f", which flagged {int(verdicts.is_issue.sum()):,} of them. {people}",
        "",
        "| | images | share |",
        "|---|---:|---:|",
        _share_row("label corrected", len(changed), len(verdicts)),
        _share_row("left out: wrong, and the right class is not known", int(unknown.sum()), len(verdicts)),
        _share_row("left out: a copy, a leak or a defect", int(dropped.sum()), len(verdicts)),
        _share_row("reviewed and right", int(((marks == "right") & ~dropped).sum()), len(verdicts)),
    ]
    pairs = Counter(zip(verdicts.given[changed].tolist(), labels[changed].tolist(), strict=True))
    if not pairs:
        return lines
    lines += ["", "| given label | corrected label | images |", "|---|---|---:|"]
    for pair, count in pairs.most_common(_PAIRS):
        given, new = (escape_markdown(verdicts.class_names[label]) for label in pair)
        lines.append(f"| {given} | {new} | {count:,} |")
    remaining = len(pairs) - _PAIRS
    return [*lines, *(["", f"and {counted(remaining, 'other pair', 'other pairs')}"] if remaining > 0 else [])]


def _share_row(title: str, count: int, of: int) -> str:
    return f"| {title} | {count:,} | {plain(percent(count / of))} |"
