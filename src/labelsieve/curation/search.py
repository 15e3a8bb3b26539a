"""Looks for everything that is worth knowing of the images of a scan beside wrong labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.core.seeds import Purpose
from labelsieve.curation.duplicates import Copies, exact_copies, exact_leaks, groups, near_copies, too_much
from labelsieve.curation.findings import (
    EXACT_DUPLICATE,
    EXACT_LEAK,
    FINDINGS,
    NEAR_DUPLICATE,
    NEAR_LEAK,
    NO_CLASS,
    finding_table,
    schema,
)
from labelsieve.curation.outliers import strangeness
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.vlm.feature_cache import ImageFeatures
from labelsieve.vlm.features import image_features

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs


def inputs_of(against: LabelledImages | LabelledFeatures, inputs: DetectorInputs) -> DetectorInputs:
    """Returns images to compare with, as the model of a scan sees them.

    Args:
        against: The images, or features for a scan of features.
        inputs: What the detector of the scan gets.

    Raises:
        DataError: One are images and the other features, or features have another width.
    """
    if isinstance(against, LabelledFeatures) != (inputs.images is None):
        raise DataError(
            "expected images to compare images with, and features for features; pass --against of that kind"
        )
    if isinstance(against, LabelledFeatures):
        width, other = inputs.features.pooled.shape[1], against.features.shape[1]
        if width != other:
            raise DataError(f"expected features of width {width} to compare with, got {other}; use those of one model")
        features = ImageFeatures(against.features, {})
    else:
        _, vlm = inputs.images_and_model()
        features = image_features(against, vlm, engine=inputs.engine)
    return dataclasses.replace(inputs, features=features, labels=against.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """What there is to look at; no detector gets to know of what is found.

    Attributes:
        data: N images, or rows of features.
        inputs: What the detector got.
        flagged: Shape (N,): the labels that are not believed.
        against: Images that are only compared with, and what :func:`inputs_of` makes of them; or None.
        defects: Whether to look for defects of images, too.
    """

    data: Labelled
    inputs: DetectorInputs
    flagged: NDArray[np.bool_]
    against: tuple[Labelled, DetectorInputs] | None = None
    defects: bool = False


def find_in_images(search: Search) -> pa.Table:
    """Looks for every kind of finding; returns what :func:`labelsieve.curation.findings.image_findings` does."""
    finders = dict.fromkeys(FINDINGS.values())  # each once, though one may find several kinds
    return pa.concat_tables([schema().empty_table(), *(table for find in finders for table in find(search))])


def find_copies(search: Search) -> Iterator[pa.Table]:
    """Yields exact and near copies, and leaks where there are images to compare with."""
    data, inputs, against = search.data, search.inputs, search.against
    rows = inputs.rows
    exact = _at(rows, exact_copies(data.contents[rows]), others=rows)
    once = np.setdiff1d(rows, exact.rows[exact.others < exact.rows])  # the first of all copies
    vectors, other_rows = inputs.joint_of(once), np.empty(0, dtype=np.int64)
    if against is not None:
        other, other_inputs = against
        leaks = _at(rows, exact_leaks(data.contents[rows], other.contents), others=np.arange(len(other)))
        yield _table(EXACT_LEAK, data, leaks, others=other)
        fresh = other_inputs.rows[~np.isin(other.contents[other_inputs.rows], data.contents)]
        other_rows = fresh[np.sort(np.unique(other.contents[fresh], return_index=True)[1])]
        vectors = torch.cat([vectors, other_inputs.joint_of(other_rows)])
    if too_much(vectors, own=len(once)):
        inputs.progress.say(
            f"near copies were not looked for: {len(once):,} images take too long on a CPU; scan on an accelerator"
        )
        vectors = vectors[:0]
    near, near_leaks = near_copies(vectors, own=min(len(once), len(vectors)), progress=inputs.progress)
    near = _at(once, near, others=once)
    if against is not None:
        yield _table(NEAR_LEAK, data, _at(once, near_leaks, others=other_rows), others=against[0])
    group = groups(len(data), [exact, near])
    yield _table(EXACT_DUPLICATE, data, exact, group=group)
    yield _table(NEAR_DUPLICATE, data, near, group=group)


def _at(rows: NDArray[np.int64], copies: Copies, *, others: NDArray[np.int64]) -> Copies:
    """Returns copies among some rows as rows of all data.

    Args:
        rows: Those that were looked at.
        copies: What was found, counted from the first of them.
        others: Those that were compared with.
    """
    return dataclasses.replace(copies, rows=rows[copies.rows], others=others[copies.others])


def find_no_class(search: Search) -> Iterator[pa.Table]:
    """Yields images of no class, the strangest first."""
    data, inputs = search.data, search.inputs
    rows = inputs.rows
    strange = strangeness(
        inputs.features.pooled,
        inputs.labels,
        rows=rows,
        believed=~search.flagged[rows],
        classes=inputs.classes,
        generator=inputs.engine.generator(Purpose.STRANGENESS_FOLDS),
    )
    if strange is None:
        return
    chosen = np.flatnonzero(strange.outlier)
    chosen = chosen[np.argsort(-strange.distance[chosen], kind="stable")]
    yield finding_table(NO_CLASS, [data.ids[row] for row in rows[chosen]], score=strange.score[chosen])


def _table(
    kind: str, data: Labelled, copies: Copies, *, others: Labelled | None = None, group: NDArray[np.int64] | None = None
) -> pa.Table:
    order = np.argsort(-copies.similarity, kind="stable")
    ids = [data.ids[row] for row in copies.rows[order]]
    other_ids = [(data if others is None else others).ids[row] for row in copies.others[order]]
    own = None if group is None else group[copies.rows[order]]
    return finding_table(kind, ids, score=copies.similarity[order], other_id=other_ids, group=own)
