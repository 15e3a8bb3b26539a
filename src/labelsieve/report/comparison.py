"""Compares two runs: matches their images, and lists flags that are new, removed or changed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from labelsieve.core.quantities import UNKNOWN, counted, percent, plain
from labelsieve.core.text import clean
from labelsieve.metrics import METRIC_TITLES
from labelsieve.records import RunRecord
from labelsieve.report import texts
from labelsieve.report.printing import Unbroken, new_table, print_table
from labelsieve.verdicts import Verdicts

CHANGE_KINDS = {
    "new": ("new flag", "new flags"),
    "removed": ("removed flag", "removed flags"),
    "changed": ("other label changed", "other labels changed"),
}
"""Kinds of changes between two runs: the word in the table of changes, and its singular and plural in a text."""
# Maximum number of changes of each kind in the terminal.
_TOP = 10
_COLUMNS = ("given_label", "predicted_label", "label_quality", "is_label_issue")


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The differences between two runs.

    Attributes:
        first: The earlier run.
        second: The later run.
        pairs: Shape (M, 2), int64: rows of the same image in the first and in the second run.
        by_content: Whether images were matched by content instead of by id.
        table: One row for each change, most suspicious first: `change` (a key of :data:`CHANGE_KINDS`), `id` in the
            second run, `first_id`, and given and predicted label, label quality and flag of both runs.
    """

    first: Verdicts
    second: Verdicts
    pairs: NDArray[np.int64]
    by_content: bool
    table: pa.Table

    def of_kind(self, change: str) -> pa.Table:
        """Returns the changes of one kind."""
        return self.table.filter(pc.equal(self.table["change"], change))

    def count(self, change: str) -> int:
        """Returns the number of changes of one kind."""
        return len(self.of_kind(change))


def needs_contents(first: Verdicts, second: Verdicts) -> bool:
    """Returns whether ids cannot match the images, since the ids of the runs differ."""
    fingerprints = [run.run.data.fingerprint for run in (first, second)]
    if fingerprints[0] is not None and fingerprints[0] == fingerprints[1]:
        return False
    return set(first.table["id"].to_pylist()) != set(second.table["id"].to_pylist())


def compare(
    first: Verdicts,
    second: Verdicts,
    *,
    contents: tuple[NDArray[np.uint64], NDArray[np.uint64]] | None = None,
) -> Comparison:
    """Compares two runs image by image.

    Args:
        first: The earlier run, of N images.
        second: The later run, of M images.
        contents: Hashes of the images of both runs, shapes (N,) and (M,), to match images by; among several copies of
            an image, those with the same id are matched first. None matches by id.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> right = ls.scan(ls.load_features(points, labels=labels), detector=ls.KNN())
        >>> labels[:2] = "dog"
        >>> wrong = ls.scan(ls.load_features(points, labels=labels), detector=ls.KNN())
        >>> compare(right, wrong).table.select(["change", "id", "given_label"]).to_pylist()[0]
        {'change': 'new', 'id': '0000000', 'given_label': 'dog'}
    """
    ids = first.table["id"].to_pylist(), second.table["id"].to_pylist()
    keys: Sequence[Sequence[Any]] = ids if contents is None else [each.tolist() for each in contents]
    pairs = _pairs(ids[0], ids[1], keys[0], keys[1])
    return Comparison(
        first=first,
        second=second,
        pairs=pairs,
        by_content=contents is not None,
        table=_changes(first, second, pairs),
    )


def _pairs(
    first_ids: Sequence[str], second_ids: Sequence[str], first: Sequence[Any], second: Sequence[Any]
) -> NDArray[np.int64]:
    """Returns the rows with the same key; if there are several, first those with the same id, then in order."""
    first_row = {name: row for row, name in enumerate(first_ids)}
    matches = {row: first_row[name] for row, name in enumerate(second_ids) if name in first_row}
    matches = {row: first_index for row, first_index in matches.items() if first[first_index] == second[row]}
    matched = set(matches.values())
    unmatched: dict[Any, deque[int]] = defaultdict(deque)
    for row, key in enumerate(first):
        if row not in matched:
            unmatched[key].append(row)
    for row, key in enumerate(second):
        if row not in matches and unmatched[key]:
            matches[row] = unmatched[key].popleft()
    return np.array([(matches[row], row) for row in sorted(matches)], dtype=np.int64).reshape(-1, 2)


def _changes(first: Verdicts, second: Verdicts, pairs: NDArray[np.int64]) -> pa.Table:
    before, after = (
        verdicts.table.take(pa.array(rows)) for verdicts, rows in zip((first, second), pairs.T, strict=True)
    )
    kinds = [_kind(*each) for each in zip(before.to_pylist(), after.to_pylist(), strict=True)]
    table = pa.table(
        {
            "change": pa.array(kinds, pa.string()),
            "id": after["id"],
            "first_id": before["id"],
            **{f"first_{name}": before[name] for name in _COLUMNS},
            **{name: after[name] for name in _COLUMNS},
        }
    )
    chosen = [row for row, kind in enumerate(kinds) if kind is not None]
    rank, first_rank = after["rank"].to_pylist(), before["rank"].to_pylist()
    last = len(first) + len(second)
    order = sorted(chosen, key=lambda row: (first_rank[row] if kinds[row] == "removed" else rank[row]) or last)
    return table.take(pa.array(order, pa.int64()))


def _kind(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    was_flagged, is_flagged = bool(before["is_label_issue"]), bool(after["is_label_issue"])
    if was_flagged != is_flagged:
        return "new" if is_flagged else "removed"
    is_relabelled = before["given_label"] != after["given_label"]
    return (
        "changed" if is_relabelled or (was_flagged and before["predicted_label"] != after["predicted_label"]) else None
    )


def print_comparison(comparison: Comparison, names: tuple[str, str], console: Console) -> None:
    """Prints both runs, their differences, the first changes of each kind, and metrics if a run has them.

    Args:
        comparison: The comparison.
        names: Names of the runs.
        console: The terminal.
    """
    console.print()
    for name, verdicts in zip(names, (comparison.first, comparison.second), strict=True):
        console.print(Unbroken(_about(name, verdicts)))
    for line in differences(comparison.first.run, comparison.second.run):
        console.print(Unbroken(clean(line)))
    console.print(Unbroken(_matched(comparison), style="dim"))
    console.print()
    in_both = comparison.first.is_issue[comparison.pairs[:, 0]] & comparison.second.is_issue[comparison.pairs[:, 1]]
    summary = ", ".join(counted(comparison.count(kind), *words) for kind, words in CHANGE_KINDS.items())
    console.print(Unbroken(f"{summary}; {int(in_both.sum()):,} flagged in both"))
    for kind, (_, title) in CHANGE_KINDS.items():
        _print_changes(comparison, kind, title, console)
    _print_metrics(comparison, names, console)
    console.print()


def _about(name: str, verdicts: Verdicts) -> str:
    flagged, readable = int(verdicts.is_issue.sum()), int(verdicts.is_readable.sum())
    share = f" ({percent(flagged / readable)})" if readable else ""
    detector = verdicts.run.detector.name
    by = f", {detector}" if detector else ""
    return clean(f"{name}: {flagged:,} flagged of {counted(readable, 'image', 'images')}{share}{by}")


def differences(first: RunRecord, second: RunRecord) -> list[str]:
    """Returns what two runs differ in, and their estimates if these differ: at most two lines.

    Args:
        first: The record of the earlier run.
        second: The record of the later run.
    """
    pairs = {
        "data": (_data_of(first, second), _data_of(second, first)),
        "model": (first.model.name, second.model.name),
        "detector": (first.detector.name, second.detector.name),
        **_settings(first, second),
        "seed": (first.seed, second.seed),
        "precision": (first.precision, second.precision),
        "false flags": (first.rule.false_flags, second.rule.false_flags),
        "review": tuple(None if run.reviewed is None else run.reviewed.run for run in (first, second)),
        "labelsieve": (first.labelsieve, second.labelsieve),
    }
    changes = [f"{name} {_value(a)} → {_value(b)}" for name, (a, b) in pairs.items() if a != b]
    lines = [f"they differ in: {', '.join(changes)}"] if changes else []
    if not changes and first.detector.name:
        lines = ["data, model, settings and seed are the same"]
    estimates = [run.estimate.wrong_labels for run in (first, second)]
    if estimates[0] != estimates[1]:
        counts = (UNKNOWN if each is None else texts.count_text(each) for each in estimates)
        lines.append(f"wrong labels (estimate): {' → '.join(counts)}")
    return lines


def _data_of(run: RunRecord, other: RunRecord) -> str | None:
    """Returns the source of a run, with its fingerprint if the content under the same name is another one."""
    if run.data.fingerprint == other.data.fingerprint:
        return None
    return run.source if run.source != other.source else f"{run.source} ({run.data.fingerprint})"


def _settings(first: RunRecord, second: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Returns the settings of both runs by their names; empty if their detectors differ."""
    if first.detector.name != second.detector.name:
        return {}
    before, after = (dict(run.detector.settings or {}) for run in (first, second))
    return {name: (before.get(name), after.get(name)) for name in {**before, **after}}


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _matched(comparison: Comparison) -> str:
    matched = len(comparison.pairs)
    how = "content" if comparison.by_content else "id"
    only = (
        f", {len(verdicts) - matched:,} only in the {which}"
        for which, verdicts in (("first", comparison.first), ("second", comparison.second))
        if len(verdicts) > matched
    )
    return f"{counted(matched, 'image is', 'images are')} in both, matched by {how}{''.join(only)}"


def _print_changes(comparison: Comparison, kind: str, title: str, console: Console) -> None:
    changes = comparison.of_kind(kind)
    if not len(changes):
        return
    table = new_table(title.capitalize(), texts=["given", "suggested"])
    for row in changes.slice(0, _TOP).to_pylist():
        table.add_row(
            Text(clean(row["id"])),
            *(_then(row[f"first_{name}"], row[name]) for name in ("given_label", "predicted_label")),
        )
    print_table(table, console, left_out=len(changes) - _TOP)


def _then(before: str | None, after: str | None) -> Text:
    words = [clean(each or "unreadable") for each in (before, after)]
    return Text(words[0] if words[0] == words[1] else " → ".join(words))


def _print_metrics(comparison: Comparison, names: tuple[str, str], console: Console) -> None:
    both = comparison.first.metrics, comparison.second.metrics
    if not any(both):
        return
    table = new_table("Against the truth")
    for name in (*map(clean, names), "difference"):  # names of runs may be long
        table.add_column(Text(name), justify="right", overflow="fold")
    for key, title in METRIC_TITLES.items():
        before, after = ((each or {}).get(key) for each in both)
        difference = "" if before is None or after is None else f"{after - before:+.3f}"
        table.add_row(title, *(plain(texts.score(value)) for value in (before, after)), difference)
    print_table(table, console)
