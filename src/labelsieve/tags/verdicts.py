"""Verdicts on tags: which given tags are wrong, which tags are missing, and their ranking.

A verdict is on one pair of image and class. Unlike with one label per image, only suspicious pairs are kept, because
each image has K pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, RunError, shown
from labelsieve.core.files import read_json, read_parquet, remove, target_of, write_json, write_parquet
from labelsieve.core.output_folders import check_report
from labelsieve.core.provenance import fingerprint
from labelsieve.core.spreadsheets import write_csv
from labelsieve.data.tags.records import TaggedImages
from labelsieve.detect.tags.scores import TagScores
from labelsieve.metrics import TAG_DETECTION
from labelsieve.records import RUN, TAGS, RunRecord, check_kinds, is_tag_record
from labelsieve.tag_metrics import evaluate_pairs
from labelsieve.verdicts import (
    METRICS_JSON,
    RECORD,
    REPORT,
    RUN_FILES,
    TABLE_CSV,
    TAG_IMAGES,
    VERDICTS,
    check_finished,
    class_indices,
)

TAG_FILES = (REPORT, TABLE_CSV, VERDICTS, TAG_IMAGES, METRICS_JSON, RECORD)
WRONG, MISSING = "wrong", "missing"
TAG_KINDS = {WRONG: "given tags that are wrong", MISSING: "tags that are missing"}
"""The kinds of verdicts, and their names in a sentence."""
_IN_FULL = {"P": "precision", "R": "recall"}
MEASURES = {
    name.removeprefix("wrong_"): _IN_FULL.get(title := metric.title.removeprefix("wrong "), title)
    for name, metric in TAG_DETECTION.items()
    if name.startswith("wrong_")
}
"""The metrics that both kinds have, and their titles in a table."""
_METRIC_KINDS = dict.fromkeys((*TAG_DETECTION, "wrong_rate", "missing_rate"), "a number from 0 to 1")
_RECORD_KINDS = {
    **RUN,
    "kind": "a text",
    "rates": "a list of objects",
    **dict.fromkeys(("rates.omission", "rates.commission"), "a number from 0 to 1"),
    "thresholds": "an object",
    **dict.fromkeys(("thresholds.wrong", "thresholds.missing"), "a number"),
}
_PAIRS = pa.schema(
    {
        "id": pa.string(),
        "class_name": pa.string(),
        "kind": pa.string(),
        "label_quality": pa.float32(),
        "rank": pa.int64(),
    }
)
_IMAGES = pa.schema({"id": pa.string(), "tags": pa.list_(pa.string()), "error": pa.string()})


@dataclass(frozen=True, kw_only=True, eq=False)
class TagVerdicts:
    """Suspicious pairs of N images and K classes.

    Attributes:
        table: One row for each suspicious pair, the most suspicious first. Columns `id` of the image; `class_name`;
            `kind`, `wrong` if the tag is given and `missing` if it is not; `label_quality`, between 0 and 1, higher =
            given state more likely right; `rank`, from 1.
        images: One row for each image, in the order of the data. Columns `id`; `tags`, the names of the given tags;
            `error`, the reason if the image could not be read. Such an image has no verdicts.
        class_names: The K names.
        record: Provenance: data, model, detector, settings, versions. Saved as `run.json`.
        metrics: See :func:`labelsieve.tag_metrics.evaluate_pairs`; None without true tags.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> from labelsieve.detect.tags.joint import TagJoint
        >>> drawn, labels = sketches(128, seed=0)
        >>> tags = [[] if row == 3 else [CLASS_NAMES[label]] for row, label in enumerate(labels)]
        >>> images = ls.load_tags(drawn, tags=tags, class_names=CLASS_NAMES)
        >>> verdicts = ls.scan_tags(images, ls.load_vlm(MINI_CLIP), detector=TagJoint(windows=1))
        >>> verdicts.table.select(["id", "class_name", "kind"]).to_pylist()[0], CLASS_NAMES[labels[3]]
        ({'id': '0000003', 'class_name': 'bus', 'kind': 'missing'}, 'bus')
        >>> verdicts.corrected().shape == images.tags.shape
        True
    """

    table: pa.Table
    images: pa.Table
    class_names: tuple[str, ...]
    record: Mapping[str, Any]
    metrics: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return int(self.images.num_rows)

    @cached_property
    def run(self) -> RunRecord:
        """Returns :attr:`record` in its typed form."""
        return RunRecord.of(self.record)

    @cached_property
    def is_readable(self) -> NDArray[np.bool_]:
        """Shape (N,): whether the image could be read."""
        return np.asarray(self.images["error"].is_null())

    @cached_property
    def unreadable(self) -> pa.Table:
        """The rows of :attr:`images` that could not be read."""
        return self.images.filter(pc.invert(self.images["error"].is_null()))

    @cached_property
    def given(self) -> NDArray[np.bool_]:
        """Shape (N, K), bool: the given tags."""
        lists = self.images["tags"].combine_chunks()
        rows = np.repeat(np.arange(len(self)), np.asarray(pc.list_value_length(lists)))
        return self._matrix(rows, pc.list_flatten(lists))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Shape (M,), int64: the row of the image of each suspicious pair."""
        rows = pc.index_in(self.table["id"], value_set=self.images["id"].combine_chunks())
        return np.asarray(pc.fill_null(rows, -1)).astype(np.int64)

    def of_kind(self, kind: str) -> NDArray[np.int64]:
        """Returns the rows of :attr:`table` of one kind, `wrong` or `missing`, by rank."""
        return np.flatnonzero(np.asarray(pc.equal(self.table["kind"], kind))).astype(np.int64)

    def corrected(self) -> NDArray[np.bool_]:
        """Returns the tags after correction, (N, K), bool: without the wrong ones and with the missing ones.

        This assumes that all verdicts are right, but some are not: review them first.
        """
        return self.given ^ self.flagged()

    def flagged(self, *, at: float = 1.0) -> NDArray[np.bool_]:
        """Returns which pairs of image and class have a verdict, (N, K), bool.

        Args:
            at: Maximum `label_quality` of the verdicts that count.
        """
        chosen = np.asarray(self.table["label_quality"]) <= np.float32(at)
        return self._matrix(self.rows[chosen], self.table["class_name"].filter(pa.array(chosen)))

    def _matrix(self, rows: NDArray[np.int64], names: Any) -> NDArray[np.bool_]:
        bits = np.zeros((len(self), len(self.class_names)), dtype=bool)
        bits[rows, class_indices(names, self.class_names)] = True
        return bits

    def per_class(self) -> list[dict[str, Any]]:
        """Returns the name, the number of images with the tag, and the number of verdicts of each kind, per class.

        `omission` is the estimated share of images with the class that lack its tag, `commission` the estimated share
        of its tags that are wrong; None if the detector does not estimate them.
        """
        tagged = self.given[self.is_readable].sum(axis=0)
        flagged = {kind: self._counts(kind) for kind in TAG_KINDS}
        rates = self.record.get("rates") or [{}] * len(self.class_names)
        return [
            {
                "class_name": name,
                "tagged": int(tagged[index]),
                **{kind: int(counts[index]) for kind, counts in flagged.items()},
                **{rate: rates[index].get(rate) for rate in ("omission", "commission")},
            }
            for index, name in enumerate(self.class_names)
        ]

    def estimated(self) -> dict[str, float] | None:
        """Returns the estimated number of `wrong` and `missing` tags of all classes; None if there is no estimate.

        For a class with t tags, commission c and omission o, c t tags are wrong. The class is in (1 - c) t / (1 - o)
        images, and a share o of these lacks the tag.
        """
        counts = {WRONG: 0.0, MISSING: 0.0}
        for row in self.per_class():
            omission, commission = row["omission"], row["commission"]
            if omission is None or commission is None or omission >= 1:
                return None
            counts[WRONG] += commission * row["tagged"]
            counts[MISSING] += (1 - commission) * row["tagged"] * omission / (1 - omission)
        return counts

    def _counts(self, kind: str) -> NDArray[np.int64]:
        names = self.table["class_name"].take(self.of_kind(kind))
        return np.bincount(class_indices(names, self.class_names), minlength=len(self.class_names))

    def corrected_table(self) -> pa.Table:
        """Returns one row for each image: `id`; `tags`, as :meth:`corrected`; `given_tags`; `error`."""
        return pa.table(
            {
                "id": self.images["id"],
                "tags": tag_column(self.corrected(), self.class_names),
                "given_tags": self.images["tags"],
                "error": self.images["error"],
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Writes `verdicts.parquet`, `verdicts.csv`, `images.parquet`, `metrics.json` and, last, `run.json`.

        A folder without `run.json` is not a result: an earlier `run.json` is removed first, so that a crash never
        leaves the record of one run beside the verdicts of another.

        Raises:
            RunError: The folder cannot be written to, the disk is full, or one of these names is taken by something
            other than a file, or by a report that labelsieve did not write.
        """
        folder = Path(folder)
        check_report(folder / REPORT)
        for name in {*RUN_FILES, *TAG_FILES}:
            target_of(folder / name)
        for name in (RECORD, *(each for each in RUN_FILES if each not in (VERDICTS, TABLE_CSV))):  # of an earlier run
            remove(folder / name)
        for name, table in ((VERDICTS, self.table), (TAG_IMAGES, self.images)):
            write_parquet(folder / name, table)
        write_csv(folder / TABLE_CSV, self.table)
        if self.metrics is not None:
            write_json(folder / METRICS_JSON, self.metrics)
        written = {"class_names": self.class_names, "verdicts_fingerprint": _written(folder)}
        write_json(folder / RECORD, {**self.record, "kind": TAGS, **written})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> TagVerdicts:
        """Reads a finished run on tags.

        Raises:
            RunError: There is none in the folder, or its files do not belong together.
        """
        folder = Path(folder)
        check_finished(folder, verb="scan-tags")
        record = dict(read_json(folder / RECORD))
        if not is_tag_record(record):
            raise RunError(f"{folder} is a run with one label per image, but a run of labelsieve scan-tags is needed")
        check_kinds(record, _RECORD_KINDS, folder / RECORD)
        names, expected = tuple(record.pop("class_names")), record.pop("verdicts_fingerprint")
        tables = [read_parquet(folder / name, schema) for name, schema in ((VERDICTS, _PAIRS), (TAG_IMAGES, _IMAGES))]
        if _written(folder) != expected:
            raise RunError(
                f"{VERDICTS} and {TAG_IMAGES} of {folder} are not what {RECORD} was written for; make the run again"
            )
        metrics = read_json(folder / METRICS_JSON) if (folder / METRICS_JSON).is_file() else None
        check_kinds(metrics or {}, _METRIC_KINDS, folder / METRICS_JSON)
        verdicts = cls(table=tables[0], images=tables[1], class_names=names, record=record, metrics=metrics)
        known = pa.array(names, pa.string())
        listed = (verdicts.table["class_name"], pc.list_flatten(verdicts.images["tags"].combine_chunks()))
        if (verdicts.rows < 0).any() or not all(
            pc.all(pc.is_in(each, known)).as_py() in (True, None) for each in listed
        ):
            raise RunError(f"{folder / RECORD} does not name all classes and images of {VERDICTS}; make the run again")
        if verdicts.record.get("rates") and len(verdicts.record["rates"]) != len(names):
            raise RunError(f'expected "rates" of {len(names)} classes in {folder / RECORD}; make the run again')
        return verdicts


def _written(folder: Path) -> str:
    """Returns the fingerprint of both tables in a folder.

    Raises:
        RunError: One is missing.
    """
    try:
        return fingerprint(*((folder / name).read_bytes() for name in (VERDICTS, TAG_IMAGES)))
    except OSError as error:
        raise RunError(f"{error.filename} cannot be read ({error.strerror}); make the run again") from None


def tag_column(tags: NDArray[np.bool_], class_names: tuple[str, ...]) -> pa.Array:
    """Returns tags, (N, K), as N lists of names.

    Example:
        >>> import numpy as np
        >>> tag_column(np.array([[True, True], [False, False]]), ("cat", "dog")).to_pylist()
        [['cat', 'dog'], []]
    """
    rows, classes = np.nonzero(tags)
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(tags)))])
    names = pa.array(class_names, pa.string()).take(pa.array(classes))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), names)


def decide_tags(images: TaggedImages, scores: TagScores, *, record: Mapping[str, Any] | None = None) -> TagVerdicts:
    """Returns verdicts on the pairs that are issues, ranked by ascending quality, ties by row.

    Args:
        images: N images with tags; true tags, if there are any, add metrics.
        scores: The scores of all pairs, (N, K).
        record: The record of the run, to which `kind` and `rates` are added; None for an empty one.

    Raises:
        DataError: There is not exactly one score per pair.
    """
    shape = images.tags.shape
    if scores.present.shape != shape or scores.issue.shape != shape:
        raise DataError(f"expected scores of shape {shape}, one for each pair, got {shown(scores.present.shape)}")
    readable, quality = _readable(scores), scores.quality
    rows, classes = np.nonzero(scores.issue & readable[:, None])
    order = np.argsort(quality[rows, classes], kind="stable")
    rows, classes = rows[order], classes[order]
    kinds = np.where(images.tags[rows, classes], WRONG, MISSING)
    ids, names = pa.array(images.ids, pa.string()), pa.array(images.class_names, pa.string())
    table = pa.table(
        [
            ids.take(pa.array(rows)),
            names.take(pa.array(classes)),
            pa.array(kinds.tolist(), pa.string()),
            pa.array(quality[rows, classes].astype(np.float32)),
            pa.array(np.arange(1, len(rows) + 1)),
        ],
        schema=_PAIRS,
    )
    reasons = [None if fine else scores.errors.get(row) or "no score" for row, fine in enumerate(readable.tolist())]
    tags = tag_column(images.tags, images.class_names)
    rates = [
        {"class_name": name, "omission": _rate(omission), "commission": _rate(commission)}
        for name, omission, commission in zip(images.class_names, scores.omission, scores.commission, strict=True)
    ]
    return TagVerdicts(
        table=table,
        images=pa.table([ids, tags, pa.array(reasons, pa.string())], schema=_IMAGES),
        class_names=images.class_names,
        record={**(record or {}), "kind": TAGS, "rates": rates},
        metrics=None
        if images.truth is None
        else evaluate_pairs(truth=images.truth, tags=images.tags, quality=quality, flagged=scores.issue),
    )


def _readable(scores: TagScores) -> NDArray[np.bool_]:
    return np.logical_not(np.isnan(scores.present).any(axis=1))


def _rate(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
