"""Writes corrected labels to a folder of `Dataset.save_to_disk`, with the `datasets` library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from labelsieve.core.errors import DataError, RunError, shown
from labelsieve.core.provenance import fingerprint
from labelsieve.data.sources.arrow_writing import new_labels
from labelsieve.data.sources.edits import Edits
from labelsieve.data.sources.quiet import quiet, reading
from labelsieve.data.sources.splits import choose_split
from labelsieve.review.writers.base import Applied, FolderWriter
from labelsieve.review.writers.file_transfer import Transfer

if TYPE_CHECKING:
    from datasets import Dataset


class SavedDataset(FolderWriter):
    """Writes a folder of `save_to_disk`."""

    def write(self, part: Path, transfer: Transfer) -> None:
        """Writes all splits, one of them with the new labels."""
        import datasets

        source = self.location.path
        where = f"the folder {source}"
        with quiet(), reading(where):
            data = datasets.load_from_disk(str(source))
        is_single = isinstance(data, datasets.Dataset)
        chosen = None if is_single else choose_split(list(data), self.split, where=where)[0]
        rows = data if chosen is None else data[chosen]
        new = relabelled(rows, column=self.column, edits=self.edits, where=where)
        with quiet():
            if chosen is None:
                new.save_to_disk(str(part), num_shards=_shards(source))
            else:
                data[chosen] = new
                data.save_to_disk(str(part), num_shards={name: _shards(source / name) for name in data})


class HubDataset(FolderWriter):
    """Writes a data set of the Hub as a folder of `save_to_disk`."""

    def write(self, part: Path, transfer: Transfer) -> None:
        """Writes the split that was read."""
        rows = relabelled(self.table.rows, column=self.column, edits=self.edits, where=self.table.where)
        rows.save_to_disk(str(part))

    def in_place(self) -> Applied:
        """Rejects changes in place.

        Raises:
            DataError: Always.
        """
        raise DataError(f"{self.source} is a data set of the Hub, which is not changed; pass --out FOLDER")


def relabelled(data: Dataset, *, column: str, edits: Edits, where: str) -> Dataset:
    """Returns a data set with the new labels, without the rows that are left out.

    Args:
        data: A split of N rows.
        column: The column of the labels.
        edits: The new labels of these rows.
        where: Name of the data set, for messages.
    """
    from datasets import Dataset

    if len(data) != len(edits):
        raise RunError(f"expected {len(edits):,} rows in {where}, found {len(data):,}; try it again")
    rows = data.with_format(None)
    rows = rows if rows._indices is None else rows.flatten_indices(keep_in_memory=True)
    table: Any = rows.data.table
    index = table.schema.get_field_index(column)
    labels = new_labels(
        table.column(column),
        edits,
        feature=rows.features[column],
        where=f'the column "{shown(column)}" of {where}',
    )
    chunks = _as_chunks(labels, table)
    table = table.set_column(index, table.schema.field(index), pa.chunked_array(chunks, labels.type))
    # the library caches results by this fingerprint
    name = fingerprint(rows._fingerprint, edits.new)
    result = Dataset(table, info=rows.info, split=rows.split, fingerprint=name)
    return result if edits.is_kept.all() else result.select(np.flatnonzero(edits.is_kept))


def _as_chunks(labels: Any, table: pa.Table) -> list[Any]:
    """Splits the labels into the chunks of the table, so that no other column is copied."""
    ends = np.cumsum([len(chunk) for chunk in table.column(0).chunks])
    return [labels.slice(end - len(chunk), len(chunk)) for end, chunk in zip(ends, table.column(0).chunks, strict=True)]


def _shards(folder: Path) -> int:
    return max(1, len([*folder.glob("data-*.arrow")]))
