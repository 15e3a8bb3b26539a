"""Queues of what was found in images beside wrong labels: copies, leaks between splits, no class, defects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import RunError, shown
from labelsieve.curation.findings import DATA_KINDS, DEFECTS, EXACT_DUPLICATE, EXACT_LEAK, NEAR_LEAK, NO_CLASS
from labelsieve.verdicts import Verdicts

FindingQueue = Literal["conflicts", "copies", "leaks", "no-class", "defects"]
FINDING_QUEUES: tuple[FindingQueue, ...] = get_args(FindingQueue)
_KINDS_OF = {
    **dict.fromkeys(("conflicts", "copies"), DATA_KINDS),
    "leaks": (EXACT_LEAK, NEAR_LEAK),
    "no-class": (NO_CLASS,),
    "defects": DEFECTS,
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finding about an image, as a card shows it.

    Attributes:
        kind: A key of :data:`labelsieve.curation.findings.KINDS`.
        score: Between 0 and 1, higher = surer.
        other_id: The image most like it; empty where the kind has none.
        other_row: Its row in the run; -1 if it is none of the run, as the other image of a leak.
        drop: The kind of answer that leaves out what there is too much of: `keep-one` all copies but this image, `drop`
            this image, empty where there is no such choice.
    """

    kind: str
    score: float
    other_id: str
    other_row: int
    drop: str


class FindingQueues:
    """The findings of a run as queues, the surest first.

    `conflicts` are copies with different given labels, `copies` those with the same.

    Args:
        verdicts: Of N images.

    Raises:
        RunError: The findings name an image that is none of the run.
    """

    def __init__(self, verdicts: Verdicts) -> None:
        self._size, self._given = len(verdicts), verdicts.given
        self._rows: dict[str, NDArray[np.int64]] = {}
        self._found: dict[str, dict[int, Found]] = {}
        if verdicts.image_findings is None:
            return
        ids = verdicts.table["id"].combine_chunks()
        for queue in FINDING_QUEUES:
            self._add(queue, verdicts.image_findings, ids)

    def _add(self, queue: FindingQueue, table: pa.Table, ids: pa.Array) -> None:
        kinds = _KINDS_OF[queue]
        table = pa.concat_tables([table.filter(pc.equal(table["kind"], kind)) for kind in kinds])
        rows = _places(table["id"], ids)
        others = _places(table["other_id"], ids) if kinds == DATA_KINDS else np.full(len(rows), -1)
        group = table["group"].fill_null(-1).to_numpy()
        if kinds == DATA_KINDS:
            chosen, others = self._by_conflict(rows, others, group, queue == "conflicts")
            table, rows, others = table.filter(pa.array(chosen)), rows[chosen], others[chosen]
        names = table["other_id"].fill_null("").to_pylist() if kinds != DATA_KINDS else ids.take(others).to_pylist()
        columns = (table["kind"].to_pylist(), table["score"].to_pylist(), names, others.tolist())
        found: dict[int, Found] = {}
        for row, kind, score, name, other in zip(rows.tolist(), *columns, strict=True):
            drop = "keep-one" if kind == EXACT_DUPLICATE else "" if kind == NO_CLASS else "drop"
            found.setdefault(row, Found(kind=kind, score=score, other_id=name, other_row=other, drop=drop))
        if found:
            self._rows[queue] = np.array([*found], dtype=np.int64)
            self._found[queue] = found

    def _by_conflict(
        self, rows: NDArray[np.int64], others: NDArray[np.int64], group: NDArray[np.int64], wanted: bool
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns which findings are of groups with several labels, or with one, and the image to show beside each.

        In a group with several labels that is one with another label: the most alike one need not be.
        """
        members: dict[int, list[int]] = {}
        for row, number in zip(rows.tolist(), group.tolist(), strict=True):
            members.setdefault(number, []).append(row)
        mixed = {number for number, own in members.items() if len({*self._given[own].tolist()}) > 1}
        chosen = np.array([(number in mixed) == wanted for number in group.tolist()], dtype=np.bool_)
        shown = others.copy()
        if wanted:
            for place in np.flatnonzero(chosen & (self._given[rows] == self._given[others])).tolist():
                own = self._given[rows[place]]
                shown[place] = next(row for row in members[int(group[place])] if self._given[row] != own)
        return chosen, shown

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each queue has; only those that have any."""
        return {queue: len(rows) for queue, rows in self._rows.items()}

    def rows(self, queue: str) -> NDArray[np.int64]:
        """Returns the images of a queue, in its order."""
        return self._rows.get(queue, np.zeros(0, dtype=np.int64))

    def others(self, queue: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the row of the image beside each of some images of a queue, -1 where there is none in the run."""
        found = self._found.get(queue, {})
        return np.array([found[row].other_row for row in rows.tolist()], dtype=np.int64)

    def found(self, queue: str, row: int) -> Found | None:
        """Returns why an image is in a queue; None if it is not, or the queue is none of findings."""
        return self._found.get(queue, {}).get(row)


def _places(names: pa.ChunkedArray, ids: pa.Array) -> NDArray[np.int64]:
    places = pc.index_in(names, value_set=ids)
    if places.null_count:
        name = names[places.is_null().to_pylist().index(True)].as_py()
        raise RunError(f"the findings name {shown(name)}, which is no image of the run; make the run again")
    return np.asarray(places.to_numpy(), dtype=np.int64)
