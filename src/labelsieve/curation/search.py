"""Searches the images of a scan for all kinds of findings other than wrong labels."""

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
from labelsieve.curation.duplicates import Copies, exact_copies, exact_leaks, groups, is_too_slow, near_copies
from labelsieve.curation.findings import (
    EXACT_DUPLICATE,
    EXACT_LEAK,
    FINDINGS,
    NEAR_DUPLICATE,
    NEAR_LEAK,
    NO_CLASS,
    SCHEMA,
    finding_table,
)
from labelsieve.curation.outliers import outlier_scores
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.vlm.feature_cache import ImageFeatures
from labelsieve.vlm.features import image_features

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs


def comparison_inputs(against: LabelledImages | LabelledFeatures, inputs: DetectorInputs) -> DetectorInputs:
    """Returns the inputs of images to compare with, computed with the model of a scan.

    Args:
        against: The images, or features for a scan of features.
        inputs: The inputs of the detector of the scan.

    Raises:
        DataError: One has images and the other features, or the features differ in width.
    """
    if isinstance(against, LabelledFeatures) != (inputs.images is None):
        raise DataError(
            "expected images to compare images with, and features for features; pass --against of that kind"
        )
    if isinstance(against, LabelledFeatures):
        width, other_width = inputs.features.pooled.shape[1], against.features.shape[1]
        if width != other_width:
            raise DataError(
                f"expected features of width {width} to compare with, got {other_width}; use those of one model"
            )
        features = ImageFeatures(against.features, {})
    else:
        _, vlm = inputs.images_and_model()
        features = image_features(against, vlm, engine=inputs.engine)
    return dataclasses.replace(inputs, features=features, labels=against.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """The data to search; the findings have no effect on the verdicts.

    Attributes:
        data: N images, or rows of features.
        inputs: The inputs of the detector.
        flagged: Shape (N,): the flagged labels, which are not trusted.
        against: Images to compare with, and their :func:`comparison_inputs`; or None.
        defects: Whether to detect defects of images.
    """

    data: Labelled
    inputs: DetectorInputs
    flagged: NDArray[np.bool_]
    against: tuple[Labelled, DetectorInputs] | None = None
    defects: bool = False


def find_in_images(search: Search) -> pa.Table:
    """Searches for all kinds; returns a table as :func:`labelsieve.curation.findings.image_findings` does."""
    finders = dict.fromkeys(FINDINGS.values())  # each once, because one may find several kinds
    return pa.concat_tables([SCHEMA.empty_table(), *(table for find in finders for table in find(search))])


def find_copies(search: Search) -> Iterator[pa.Table]:
    """Yields exact and near copies, and leaks if there are images to compare with."""
    data, inputs, against = search.data, search.inputs, search.against
    rows = inputs.rows
    exact = _to_data_rows(rows, exact_copies(data.contents[rows]), others=rows)
    unique_rows = np.setdiff1d(rows, exact.rows[exact.others < exact.rows])  # the first of all copies
    vectors, other_rows = inputs.joint_of(unique_rows), np.empty(0, dtype=np.int64)
    if against is not None:
        other_data, other_inputs = against
        leaks = _to_data_rows(
            rows, exact_leaks(data.contents[rows], other_data.contents), others=np.arange(len(other_data))
        )
        yield copy_table(EXACT_LEAK, data, leaks, others=other_data)
        unseen = other_inputs.rows[~np.isin(other_data.contents[other_inputs.rows], data.contents)]
        other_rows = unseen[np.sort(np.unique(other_data.contents[unseen], return_index=True)[1])]
        vectors = torch.cat([vectors, other_inputs.joint_of(other_rows)])
    if is_too_slow(vectors, count=len(unique_rows)):
        inputs.progress.say(
            f"near copies were not looked for: {len(unique_rows):,} images take too long on a CPU; scan on an "
            "accelerator"
        )
        vectors = vectors[:0]
    near, near_leaks = near_copies(vectors, count=min(len(unique_rows), len(vectors)), progress=inputs.progress)
    near = _to_data_rows(unique_rows, near, others=unique_rows)
    if against is not None:
        yield copy_table(NEAR_LEAK, data, _to_data_rows(unique_rows, near_leaks, others=other_rows), others=against[0])
    group = groups(len(data), [exact, near])
    yield copy_table(EXACT_DUPLICATE, data, exact, group=group)
    yield copy_table(NEAR_DUPLICATE, data, near, group=group)


def _to_data_rows(rows: NDArray[np.int64], copies: Copies, *, others: NDArray[np.int64]) -> Copies:
    """Converts indices into compared rows to rows of the data.

    Args:
        rows: The rows that were searched.
        copies: Copies, as indices into `rows` and `others`.
        others: The rows that they were compared with.
    """
    return dataclasses.replace(copies, rows=rows[copies.rows], others=others[copies.others])


def find_no_class(search: Search) -> Iterator[pa.Table]:
    """Yields images of no class, the largest distance first."""
    data, inputs = search.data, search.inputs
    rows = inputs.rows
    scores = outlier_scores(
        inputs.features.pooled,
        inputs.labels,
        rows=rows,
        trusted=~search.flagged[rows],
        classes=inputs.classes,
        generator=inputs.engine.generator(Purpose.OUTLIER_FOLDS),
    )
    if scores is None:
        return
    chosen = np.flatnonzero(scores.outlier)
    chosen = chosen[np.argsort(-scores.distance[chosen], kind="stable")]
    yield finding_table(NO_CLASS, [data.ids[row] for row in rows[chosen]], score=scores.score[chosen])


def copy_table(
    kind: str, data: Labelled, copies: Copies, *, others: Labelled | None = None, group: NDArray[np.int64] | None = None
) -> pa.Table:
    """Returns copies as findings of one kind, the most certain first.

    Args:
        kind: The kind.
        data: N images.
        copies: The copies, as rows of `data` and of `others`.
        others: The images to which `copies.others` refers; None for `data`.
        group: The result of :func:`labelsieve.curation.duplicates.groups`, for copies among the same images.
    """
    order = np.argsort(-copies.similarity, kind="stable")
    ids = [data.ids[row] for row in copies.rows[order]]
    other_ids = [(data if others is None else others).ids[row] for row in copies.others[order]]
    groups_of_rows = None if group is None else group[copies.rows[order]]
    return finding_table(kind, ids, score=copies.similarity[order], other_id=other_ids, group=groups_of_rows)
