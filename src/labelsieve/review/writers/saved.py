"""Corrected labels in a folder of `Dataset.save_to_disk`, written by the `datasets` library itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from labelsieve.core.errors import DataError, RunError, shown
from labelsieve.core.provenance import fingerprint
from labelsieve.data.sources.arrow_labels import new_labels
from labelsieve.data.sources.edits import Edits
from labelsieve.data.sources.quiet import quiet, reading
from labelsieve.data.sources.splits import choose_split
from labelsieve.review.writers.base import Applied
from labelsieve.review.writers.placing import Placing
from labelsieve.review.writers.whole_folders import WholeFolder

if TYPE_CHECKING:
    from datasets import Dataset


class Saved(WholeFolder):
    """Writes a folder of `save_to_disk` again."""

    def write(self, part: Path, placing: Placing) -> None:
        """Writes all splits, one of them with other labels."""
        write_saved(self.place.path, part, split=self.split, column=self.column, edits=self.edits)


class OfHub(WholeFolder):
    """Writes a data set of the Hub as a folder of `save_to_disk`."""

    def write(self, part: Path, placing: Placing) -> None:
        """Writes the split that was read."""
        rows = relabelled(self.table.rows, column=self.column, edits=self.edits, where=self.table.where)
        rows.save_to_disk(str(part))

    def in_place(self) -> Applied:
        """Refuses it.

        Raises:
            DataError: Always.
        """
        raise DataError(f"{self.source} is a data set of the Hub, which is not changed; pass --out FOLDER")


def write_saved(source: Path, part: Path, *, split: str | None, column: str, edits: Edits) -> None:
    """Writes a saved data set with other labels in one split; other splits stay.

    Args:
        source: The folder of `save_to_disk`.
        part: The folder to write.
        split: The split that the labels are of, if there are several.
        column: The column of labels.
        edits: Of its N rows.
    """
    import datasets

    where = f"the folder {source}"
    with quiet(), reading(where):
        found = datasets.load_from_disk(str(source))
    is_one = isinstance(found, datasets.Dataset)
    chosen = None if is_one else choose_split(list(found), split, where=where)[0]
    new = relabelled(found if chosen is None else found[chosen], column=column, edits=edits, where=where)
    with quiet():
        if chosen is None:
            new.save_to_disk(str(part), num_shards=_shards(source))
        else:
            found[chosen] = new
            found.save_to_disk(str(part), num_shards={name: _shards(source / name) for name in found})


def relabelled(found: Dataset, *, column: str, edits: Edits, where: str) -> Dataset:
    """Returns a data set with other labels, and without the rows that are left out."""
    from datasets import Dataset

    if len(found) != len(edits):
        raise RunError(f"expected {len(edits):,} rows in {where}, found {len(found):,}; try it again")
    rows = found.with_format(None)
    rows = rows if rows._indices is None else rows.flatten_indices(keep_in_memory=True)
    table: Any = rows.data.table
    place = table.schema.get_field_index(column)
    labels = new_labels(
        table.column(column),
        edits,
        feature=rows.features[column],
        where=f'the column "{shown(column)}" of {where}',
    )
    chunks = _as_chunks(labels, table)
    table = table.set_column(place, table.schema.field(place), pa.chunked_array(chunks, labels.type))
    # the library keeps results by this fingerprint
    name = fingerprint(rows._fingerprint, edits.new)
    made = Dataset(table, info=rows.info, split=rows.split, fingerprint=name)
    return made if edits.kept.all() else made.select(np.flatnonzero(edits.kept))


def _as_chunks(labels: Any, table: pa.Table) -> list[Any]:
    """Cuts the labels as the table is cut, so that no other column is copied."""
    ends = np.cumsum([len(chunk) for chunk in table.column(0).chunks])
    return [labels.slice(end - len(chunk), len(chunk)) for end, chunk in zip(ends, table.column(0).chunks, strict=True)]


def _shards(folder: Path) -> int:
    return max(1, len([*folder.glob("data-*.arrow")]))
