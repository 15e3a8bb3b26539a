"""Results for several annotators: the quality of each, the consensus of each image, and whom to ask next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelsieve.data.annotators import Annotations
from labelsieve.data.labelled import Labelled
from labelsieve.detect.scores import Crowd


def consensus_table(images: Labelled, annotations: Annotations, crowd: Crowd) -> pa.Table:
    """Returns a table with one row per image, in the order of the data.

    Columns: `id`, `given_label` (the majority vote), `consensus_label` and `consensus_confidence` (from the image and
    the annotators), `labels` (number of annotators who labelled it), `agree` (number who gave the consensus),
    `ask_rank` (1 = ask about this image first) and `ask` (the annotator to ask; null if all gave the consensus).
    Columns that need the image are null for unreadable images.

    Args:
        images: N images, with the majority vote as their label.
        annotations: The labels of A annotators for these images.
        crowd: Estimates of the detector about the annotators and the readable images.
    """
    names, annotators = pa.array(images.class_names, pa.string()), pa.array(annotations.names, pa.string())
    consensus, ask, rank = (np.full(len(images), -1, dtype=np.int64) for _ in range(3))
    confidence = np.zeros(len(images), dtype=np.float32)
    consensus[crowd.rows], ask[crowd.rows], confidence[crowd.rows] = crowd.consensus, crowd.ask, crowd.probability
    # images without an annotator to ask come last
    rank[crowd.rows[np.lexsort((crowd.probability, crowd.ask < 0))]] = np.arange(1, len(crowd.rows) + 1)
    is_unread = consensus < 0
    return pa.table(
        {
            "id": pa.array(images.ids, pa.string()),
            "given_label": names.take(pa.array(images.labels)),
            "consensus_label": names.take(pa.array(consensus, mask=is_unread)),
            "consensus_confidence": pa.array(confidence, mask=is_unread),
            "labels": pa.array((annotations.labels >= 0).sum(axis=1)),
            "agree": pa.array((annotations.labels == consensus[:, None]).sum(axis=1), mask=is_unread),
            "ask_rank": pa.array(rank, mask=is_unread),
            "ask": annotators.take(pa.array(ask, mask=ask < 0)),
        }
    )


def annotator_records(images: Labelled, annotations: Annotations, crowd: Crowd) -> list[dict[str, Any]]:
    """Returns the statistics of each annotator, in the order of the columns.

    Keys: `name`, `labels` (number for readable images), `accuracy` with `low` and `high` (a 95 % interval), `agreement`
    (share of the labels that equal the consensus) and `confused` (`consensus`, `label` and `times` of the most frequent
    pair that differs; None if there is none).

    Args:
        images: See :func:`consensus_table`.
        annotations: See :func:`consensus_table`.
        crowd: See :func:`consensus_table`.
    """
    records: list[dict[str, Any]] = []
    for number, name in enumerate(annotations.names):
        all_labels = annotations.labels[crowd.rows, number]
        has_label = all_labels >= 0
        consensus, labels, count = crowd.consensus[has_label], all_labels[has_label], int(has_label.sum())
        record: dict[str, Any] = {
            "name": name,
            "labels": count,
            **dict.fromkeys(("accuracy", "low", "high", "agreement")),
        }
        if count:
            right, low, high = (float(each[number]) for each in (crowd.right, crowd.low, crowd.high))
            agreement = float((labels == consensus).mean())
            record |= {"accuracy": min(right / count, 1.0), "low": low, "high": high, "agreement": agreement}
        records.append(record | {"confused": _most_confused(consensus, labels, images.class_names)})
    return records


def _most_confused(
    consensus: NDArray[np.int64], labels: NDArray[np.int64], class_names: tuple[str, ...]
) -> dict[str, Any] | None:
    differs = consensus != labels
    pairs, counts = np.unique(consensus[differs] * len(class_names) + labels[differs], return_counts=True)
    if not len(pairs):
        return None
    true, label = divmod(int(pairs[counts.argmax()]), len(class_names))
    return {"consensus": class_names[true], "label": class_names[label], "times": int(counts.max())}


def consensus_record(images: Labelled, crowd: Crowd) -> dict[str, Any]:
    """Returns the number of changes from the vote to the consensus and, with true labels, the accuracy of both."""
    given = images.labels[crowd.rows]
    record: dict[str, Any] = {"images": len(crowd.rows), "changed": int((given != crowd.consensus).sum())}
    if images.truth is not None:
        truth = images.truth[crowd.rows]
        record["accuracy"] = float((crowd.consensus == truth).mean())
        record["accuracy_of_vote"] = float((given == truth).mean())
    return record


def annotator_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Returns :func:`annotator_records` as a table with one row per annotator."""
    pairs = [record["confused"] or {} for record in records]
    texts, numbers, counts = pa.string(), pa.float64(), pa.int64()
    return pa.table(
        {
            "annotator": pa.array([record["name"] for record in records], texts),
            "labels": pa.array([record["labels"] for record in records], counts),
            "accuracy": pa.array([record["accuracy"] for record in records], numbers),
            "accuracy_low": pa.array([record["low"] for record in records], numbers),
            "accuracy_high": pa.array([record["high"] for record in records], numbers),
            "agreement": pa.array([record["agreement"] for record in records], numbers),
            "confused_class": pa.array([pair.get("consensus") for pair in pairs], texts),
            "confused_label": pa.array([pair.get("label") for pair in pairs], texts),
            "confused_times": pa.array([pair.get("times") for pair in pairs], counts),
        }
    )
