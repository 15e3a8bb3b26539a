"""Queues of image findings: copies, leaks between splits, images of no class, defects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.curation.findings import DATA_KINDS, DEFECTS, EXACT_DUPLICATE, EXACT_LEAK, NEAR_LEAK, NO_CLASS, rows_of
from labelsieve.review.answers import KEEP_ONE
from labelsieve.verdicts import Verdicts

FindingQueue = Literal["conflicts", "copies", "leaks", "no-class", "defects"]


class _QueueKind(NamedTuple):
    title: str
    kinds: tuple[str, ...]


FINDING_QUEUES: dict[FindingQueue, _QueueKind] = {
    "conflicts": _QueueKind("Copies with different labels", DATA_KINDS),
    "copies": _QueueKind("Copies", DATA_KINDS),
    "leaks": _QueueKind("Leaks between splits", (EXACT_LEAK, NEAR_LEAK)),
    "no-class": _QueueKind("Images of no class", (NO_CLASS,)),
    "defects": _QueueKind("Defects of images", DEFECTS),
}
"""The title of each queue, and the kinds of findings in it."""


@dataclass(frozen=True, kw_only=True)
class QueuedFinding:
    """An image finding, as shown on a card.

    Attributes:
        kind: A key of :data:`labelsieve.curation.findings.KINDS`.
        score: Between 0 and 1, higher = more certain.
        other_id: Id of the other image on the card; empty if the kind has none.
        other_row: Its row in the run; -1 if it is not in the run, like the other image of a leak.
        drop: The answer that leaves out images: `keep-one` for all copies except this image, `drop` for this image;
            empty if there is no such choice.
    """

    kind: str
    score: float
    other_id: str
    other_row: int
    drop: str


class FindingQueues:
    """The findings of a run as queues, the most certain first.

    `conflicts` are copies with different given labels, `copies` those with equal labels.

    Args:
        verdicts: Verdicts of N images.

    Raises:
        RunError: The findings name an image that is not in the run.
    """

    def __init__(self, verdicts: Verdicts) -> None:
        self._given = verdicts.given
        self._rows: dict[str, NDArray[np.int64]] = {}
        self._findings: dict[str, dict[int, QueuedFinding]] = {}
        if verdicts.image_findings is None:
            return
        ids = verdicts.table["id"]
        for queue in FINDING_QUEUES:
            self._add(queue, verdicts.image_findings, ids)

    def _add(self, queue: FindingQueue, table: pa.Table, ids: pa.ChunkedArray) -> None:
        kinds = FINDING_QUEUES[queue].kinds
        table = pa.concat_tables([table.filter(pc.equal(table["kind"], kind)) for kind in kinds])
        rows = rows_of(table["id"], ids)
        companions = rows_of(table["other_id"], ids) if kinds == DATA_KINDS else np.full(len(rows), -1)
        group = table["group"].fill_null(-1).to_numpy()
        if kinds == DATA_KINDS:
            chosen, companions = self._by_conflict(rows, companions, group, queue == "conflicts")
            table, rows, companions = table.filter(pa.array(chosen)), rows[chosen], companions[chosen]
        names = table["other_id"].fill_null("").to_pylist() if kinds != DATA_KINDS else ids.take(companions).to_pylist()
        columns = (table["kind"].to_pylist(), table["score"].to_pylist(), names, companions.tolist())
        findings: dict[int, QueuedFinding] = {}
        for row, kind, score, name, other in zip(rows.tolist(), *columns, strict=True):
            drop = KEEP_ONE if kind == EXACT_DUPLICATE else "" if kind == NO_CLASS else "drop"
            findings.setdefault(row, QueuedFinding(kind=kind, score=score, other_id=name, other_row=other, drop=drop))
        if findings:
            self._rows[queue] = np.array([*findings], dtype=np.int64)
            self._findings[queue] = findings

    def _by_conflict(
        self, rows: NDArray[np.int64], companions: NDArray[np.int64], group: NDArray[np.int64], conflicts: bool
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns which findings belong to groups with (or without) conflicts, and the image to show beside each.

        In a group with different labels, that is an image with another label, not necessarily the most similar one.
        """
        members: dict[int, list[int]] = {}
        for row, number in zip(rows.tolist(), group.tolist(), strict=True):
            members.setdefault(number, []).append(row)
        mixed = {number for number, copies in members.items() if len({*self._given[copies].tolist()}) > 1}
        chosen = np.array([(number in mixed) == conflicts for number in group.tolist()], dtype=np.bool_)
        result = companions.copy()
        if conflicts:
            for position in np.flatnonzero(chosen & (self._given[rows] == self._given[companions])).tolist():
                label, copies = self._given[rows[position]], members[int(group[position])]
                result[position] = next(row for row in copies if self._given[row] != label)
        return chosen, result

    @property
    def sizes(self) -> dict[str, int]:
        """Returns the number of images of each queue that is not empty."""
        return {queue: len(rows) for queue, rows in self._rows.items()}

    def rows(self, queue: str) -> NDArray[np.int64]:
        """Returns the images of a queue, in its order."""
        return self._rows.get(queue, np.zeros(0, dtype=np.int64))

    def companions(self, queue: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the row of the image to show beside each image in `rows`; -1 if it is not in the run."""
        findings = self._findings.get(queue, {})
        return np.array([findings[row].other_row for row in rows.tolist()], dtype=np.int64)

    def finding(self, queue: str, row: int) -> QueuedFinding | None:
        """Returns the finding of an image in a queue; None if there is none."""
        return self._findings.get(queue, {}).get(row)
