"""Findings about images other than wrong labels: their kinds, and the file of a run that contains them.

The `findings` in `run.json` are different: they are about the run, from :mod:`labelsieve.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import RunError, shown
from labelsieve.core.files import read_parquet
from labelsieve.core.registry import Entry, Registry

IMAGE_FINDINGS = "findings.parquet"
SCHEMA = pa.schema(
    {
        "kind": pa.string(),
        "id": pa.string(),
        "other_id": pa.string(),
        "score": pa.float32(),
        "group": pa.int64(),
    }
)
"""The columns of the table of findings; see :func:`image_findings`."""


@dataclass(frozen=True)
class FindingKind(Entry):
    """A kind of finding about images; `place` is the function that finds it, and `about` its meaning and advice.

    Attributes:
        title: Name of the images with this finding.
        other: The other image of a finding: one of the data, which is in the same group; one of the `against` images;
            or none.
        level: Significance level of its test: the share of images without this finding that are listed by chance.
    """

    title: str = ""
    other: Literal["", "data", "against"] = ""
    level: float = 0.0


EXACT_DUPLICATE, NEAR_DUPLICATE, EXACT_LEAK, NEAR_LEAK = "exact-duplicate", "near-duplicate", "exact-leak", "near-leak"
NO_CLASS, SAME_BOX = "no-class", "same-box"
# Significance level of the one-sided test: the share of inliers above it, by construction.
LEVEL_OF_NO_CLASS = 0.01
DARK, LIGHT, BLURRY, LOW_INFORMATION = "dark", "light", "blurry", "low-information"
ODD_SHAPE, ODD_SIZE = "odd-aspect-ratio", "odd-size"
DEFECTS = (DARK, LIGHT, BLURRY, LOW_INFORMATION, ODD_SHAPE, ODD_SIZE)
"""The defects that `cleanvision` detects."""
_COPIES, _NO_CLASS = "labelsieve.curation.search:find_copies", "labelsieve.curation.search:find_no_class"
_DEFECTS = "labelsieve.curation.defects:find_defects"
_LOOK = "see whether the class can be recognised."
FINDINGS: Registry[Callable[..., Iterator[pa.Table]], FindingKind] = Registry(
    "finding",
    FindingKind(
        EXACT_LEAK,
        _COPIES,
        "The same file is among the images that were compared with: remove it from one of the two splits.",
        title="leaks between splits (exact)",
        other="against",
    ),
    FindingKind(
        NEAR_LEAK,
        _COPIES,
        "The image looks like a copy of one of those that were compared with: look at both, and remove one.",
        title="leaks between splits (near copies)",
        other="against",
    ),
    FindingKind(
        EXACT_DUPLICATE,
        _COPIES,
        "The same file is there more than once: keep one, with the right label.",
        title="exact duplicates",
        other="data",
    ),
    FindingKind(
        NEAR_DUPLICATE,
        _COPIES,
        "Another image looks like a copy, such as a smaller, cropped or re-encoded one: look at both, and keep one.",
        title="near duplicates",
        other="data",
    ),
    FindingKind(
        SAME_BOX,
        "labelsieve.curation.same_boxes:find_same_boxes",
        "Another box in the image is nearly the same and has another label: keep one, with the right label.",
        title="overlapping boxes with different labels",
        other="data",
    ),
    FindingKind(
        NO_CLASS,
        _NO_CLASS,
        "They are unusually far from all classes, not from the given one alone: leave out those that show none.",
        title="images that may belong to none of the classes",
        level=LEVEL_OF_NO_CLASS,
    ),
    FindingKind(DARK, _DEFECTS, f"Hardly anything in them is bright: {_LOOK}", title="dark images"),
    FindingKind(LIGHT, _DEFECTS, f"Hardly anything in them is dark: {_LOOK}", title="bright images"),
    FindingKind(BLURRY, _DEFECTS, f"They have hardly an edge: {_LOOK}", title="blurred images"),
    FindingKind(
        LOW_INFORMATION,
        _DEFECTS,
        "They hold little more than one colour: leave out those that show nothing.",
        title="images with little in them",
    ),
    FindingKind(
        ODD_SHAPE,
        _DEFECTS,
        "They are about three times as long as wide, or more: models see a square, cut out of them or squeezed.",
        title="images of an odd shape",
    ),
    FindingKind(
        ODD_SIZE,
        _DEFECTS,
        "They are far larger or smaller than the others: see whether they are what the others are.",
        title="images of an odd size",
    ),
)
"""In display order. One function may find several kinds.

A new kind requires an entry, and a function of a :class:`labelsieve.curation.search.Search` that yields a
:func:`finding_table`.
"""
KINDS = FINDINGS.entries
# Kinds whose other image is one of the data.
DATA_KINDS = tuple(name for name, kind in KINDS.items() if kind.other == "data")


def finding_table(kind: str, ids: list[str], *, score: Any, other_id: Any = None, group: Any = None) -> pa.Table:
    """Returns findings of one kind, the most certain first; see :func:`image_findings`.

    Args:
        kind: A key of `KINDS`.
        ids: Ids of n images.
        score: Shape (n,), between 0 and 1, higher = more certain.
        other_id: n ids, for kinds with another image.
        group: n integers, for kinds whose other image is one of the data.
    """
    nulls = [None] * len(ids)
    columns = {
        "kind": [kind] * len(ids),
        "id": ids,
        "other_id": nulls if other_id is None else other_id,
        "score": score,
        "group": nulls if group is None else group,
    }
    return pa.table(columns, schema=SCHEMA)


def image_findings(run_folder: str | Path) -> pa.Table:
    """Reads the findings about images of a run.

    Args:
        run_folder: Folder of a finished run.

    Returns:
        One row for each finding, grouped by kind, the most certain first. Columns: `kind`, a key of `KINDS`; `id` of
        the image; `other_id`, the most similar image (for leaks an id of the `against` images), null for kinds without
        one; `score` between 0 and 1, higher = more certain; `group`, an integer that all duplicates of an image share,
        null for other kinds.

    Raises:
        RunError: The file cannot be read, or has other columns.
    """
    path = Path(run_folder) / IMAGE_FINDINGS
    return read_parquet(path, SCHEMA) if path.exists() else SCHEMA.empty_table()


def rows_of(names: pa.Array | pa.ChunkedArray, ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Returns the rows of the images that findings name, (n,).

    Args:
        names: Ids of these images, n strings.
        ids: The ids of all images of the run.

    Raises:
        RunError: The run has no such image.
    """
    rows = pc.index_in(names, value_set=ids.combine_chunks())
    if rows.null_count:
        name = names[rows.is_null().to_pylist().index(True)].as_py()
        raise RunError(f"the findings name {shown(name)}, which is no image of the run; make the run again")
    return np.asarray(rows.to_numpy(), dtype=np.int64)
