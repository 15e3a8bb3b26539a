"""From scores to verdicts: which given labels are issues, their ranking, and their metrics against a truth.

The rule that comes with the scores decides which labels are issues, see `flagging.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, RunError
from labelsieve.core.files import (
    check_reachable,
    quoted,
    read_json,
    read_parquet,
    remove,
    target_of,
    write_json,
    write_parquet,
)
from labelsieve.core.output_folders import check_report
from labelsieve.core.provenance import fingerprint
from labelsieve.core.spreadsheets import write_csv
from labelsieve.curation.findings import IMAGE_FINDINGS, image_findings
from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.data.sources.columns import BOX_NAMES
from labelsieve.data.sources.image_paths import folder_of, relative_path
from labelsieve.data.tags.records import TaggedImages
from labelsieve.detect.scores import Scores
from labelsieve.metrics import DETECTION, RATES, evaluate
from labelsieve.records import RUN, RunRecord, check_kinds, is_tag_record

VERDICTS, TABLE_CSV, RECORD, METRICS_JSON = "verdicts.parquet", "verdicts.csv", "run.json", "metrics.json"
REPORT, AUDIT = "report.html", "audit.json"
# Of a run with several labels per image, see `labelsieve.tags`.
TAG_IMAGES = "images.parquet"
# Of several annotators.
ANNOTATORS, CONSENSUS = "annotators.csv", "consensus.csv"
RUN_FILES = (REPORT, TABLE_CSV, VERDICTS, IMAGE_FINDINGS, METRICS_JSON, AUDIT, ANNOTATORS, CONSENSUS, RECORD)
# Only in an unfinished run.
CHECKPOINT_FOLDER = "checkpoint"
# Rows per row group of the Parquet file, which readers may load separately.
_ROW_GROUP_SIZE = 65_536
_METRIC_KINDS = dict.fromkeys((*DETECTION, *RATES), "a number from 0 to 1")
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "given_label": pa.string(),
        "predicted_label": pa.string(),
        "label_quality": pa.float32(),
        "is_label_issue": pa.bool_(),
        "rank": pa.int64(),
        "predicted_confidence": pa.float32(),
        "error": pa.string(),
    }
)
# Further columns where rows are boxes.
_BOX_FIELDS = [pa.field("image", pa.string()), *(pa.field(name, pa.float64()) for name in BOX_NAMES)]
_BOX_SCHEMA = pa.schema([*_SCHEMA, *_BOX_FIELDS])
# Their decimals: enough for fractions of an image, too few to show rounding errors.
_DECIMALS = 9


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """One row for each image, in the order of the data.

    Attributes:
        table: Columns `id`, `given_label`, `predicted_label`, `label_quality` (between 0 and 1, higher = more likely
            correct), `is_label_issue`, `rank` (1 = most suspicious), `predicted_confidence` and `error` (the reason
            where an image could not be read; all but `id` and `given_label` are null there). Where rows are boxes also
            `image`, its file as seen from the folder of all of them, and `x`, `y`, `width` and `height`.
        class_names: The K names of the classes.
        record: Provenance: data, model, detector, settings, versions, findings. Saved as `run.json`; :attr:`run` is
            its typed form.
        metrics: See :func:`labelsieve.metrics.evaluate`; None without a truth column.
        annotators: Of several annotators, one row each: the table of `annotators.csv`. None after :meth:`load`.
        consensus: Of several annotators, one row for each image: the table of `consensus.csv`. None after :meth:`load`.
        image_findings: Copies, leaks and images of no class, see
            :func:`labelsieve.curation.findings.image_findings`; None where none were searched for.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.KNN())
        >>> frame = verdicts.table.to_pandas()
        >>> frame[frame.is_label_issue].sort_values("rank")[["id", "given_label", "predicted_label"]].values.tolist()
        [['0000000', 'dog', 'cat'], ['0000001', 'dog', 'cat']]
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = ls.Verdicts.load(verdicts.save(f"{folder}/run"))
        >>> len(again)
        100
    """

    table: pa.Table
    class_names: tuple[str, ...]
    record: Mapping[str, Any]
    metrics: Mapping[str, Any] | None = None
    annotators: pa.Table | None = None
    consensus: pa.Table | None = None
    image_findings: pa.Table | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def unit(self) -> str:
        """What rows are: `images`, or `boxes` in them."""
        return "boxes" if BOX_NAMES[0] in self.table.column_names else "images"

    @cached_property
    def run(self) -> RunRecord:
        """Returns :attr:`record` in its typed form."""
        return RunRecord.of(self.record)

    @cached_property
    def is_issue(self) -> NDArray[np.bool_]:
        """Shape (N,): true where the given label is an issue; false where the image could not be read."""
        return np.asarray(pc.fill_null(self.table["is_label_issue"], False))

    @cached_property
    def is_readable(self) -> NDArray[np.bool_]:
        """Shape (N,): false where the image could not be read."""
        return np.asarray(self.table["error"].is_null())

    @cached_property
    def label_quality(self) -> NDArray[np.float32]:
        """Shape (N,), float32, between 0 and 1; NaN where the image could not be read."""
        return np.asarray(pc.fill_null(self.table["label_quality"], float("nan")))

    @cached_property
    def given(self) -> NDArray[np.int64]:
        """Shape (N,): the given labels as indices into `class_names`."""
        return class_indices(self.table["given_label"], self.class_names)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Shape (N,): the predicted labels as indices into `class_names`, -1 where the image could not be read."""
        return class_indices(self.table["predicted_label"], self.class_names)

    def given_label(self, row: int) -> str:
        """Returns the given label of one row."""
        return str(self.class_names[self.given[row]])

    def per_class(self) -> list[dict[str, Any]]:
        """Returns for each class its name, number of images and of flags, and the most frequent suggestion."""
        classes = len(self.class_names)
        images = np.bincount(self.given[self.is_readable], minlength=classes)
        flagged = np.bincount(self.given[self.is_issue], minlength=classes)
        suggested, counts = self._top_suggestions()
        return [
            {
                "class_name": name,
                "images": int(images[index]),
                "flagged": int(flagged[index]),
                "share_flagged": float(flagged[index] / images[index]) if images[index] else 0.0,
                "most_often_suggested": self.class_names[suggested[index]] if counts[index] else None,
                "most_often_count": int(counts[index]),
            }
            for index, name in enumerate(self.class_names)
        ]

    def confusion(self) -> NDArray[np.int64]:
        """Returns shape (K, K): number of flagged images with given label k (row) and another suggestion (column)."""
        given, suggested, counts = self.suggestions()
        result = np.zeros((len(self.class_names), len(self.class_names)), dtype=np.int64)
        result[given, suggested] = counts
        return result

    def suggestions(
        self, rows: Sequence[int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Returns given labels, other suggested labels and counts of the P pairs that occur among the flagged images.

        Three arrays (P,), int64, in ascending order. A K x K matrix may not fit into memory; None counts all `rows`.
        """
        chosen = self.is_issue & (self.predicted != self.given)
        if rows is not None:
            chosen &= np.isin(np.arange(len(self)), rows)
        codes = self.given[chosen] * len(self.class_names) + self.predicted[chosen]
        pairs, counts = np.unique(codes, return_counts=True)
        given, suggested = np.divmod(pairs, max(len(self.class_names), 1))
        return given, suggested, counts.astype(np.int64)

    def _top_suggestions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns for each class the most frequent suggestion (ties: the first) and its count, both shape (K,)."""
        given, suggested, counts = self.suggestions()
        order = np.lexsort((suggested, -counts, given))
        classes, first = np.unique(given[order], return_index=True)
        suggestion, count = (np.zeros(len(self.class_names), dtype=np.int64) for _ in range(2))
        suggestion[classes], count[classes] = suggested[order][first], counts[order][first]
        return suggestion, count

    def save(self, folder: str | Path) -> Path:
        """Writes `verdicts.parquet`, `verdicts.csv`, `findings.parquet`, `metrics.json` and, last, `run.json`.

        Findings are written if they were searched for, metrics if there is a truth, `annotators.csv` and
        `consensus.csv` if there are several annotators.

        A folder without `run.json` is not a result: an earlier `run.json` is removed first, so that a crash never
        leaves the record of one run beside the verdicts of another.

        Raises:
            RunError: The folder cannot be written to, the disk is full, or one of these names is taken by something
            other than a file, or by a foreign report.
        """
        folder = Path(folder)
        check_report(folder / REPORT)
        for name in RUN_FILES:
            target_of(folder / name)
        for name in (REPORT, AUDIT):  # of an earlier run
            remove(folder / name)
        _remove_tags(folder)
        remove(folder / RECORD)
        write_parquet(folder / VERDICTS, self.table, row_group_size=_ROW_GROUP_SIZE)
        write_csv(folder / TABLE_CSV, self.table)
        optional: dict[str, tuple[Callable[..., None], Any]] = {
            IMAGE_FINDINGS: (write_parquet, self.image_findings),
            METRICS_JSON: (write_json, self.metrics),
            ANNOTATORS: (write_csv, self.annotators),
            CONSENSUS: (write_csv, self.consensus),
        }
        for name, (write, value) in optional.items():
            remove(folder / name) if value is None else write(folder / name, value)
        written = fingerprint((folder / VERDICTS).read_bytes())
        write_json(folder / RECORD, {**self.record, "class_names": self.class_names, "verdicts_fingerprint": written})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Verdicts:
        """Reads a finished run.

        Raises:
            RunError: There is no finished run in the folder, or its files do not belong together.
        """
        folder = Path(folder)
        check_finished(folder, verb="scan")
        record = dict(read_json(folder / RECORD))
        if is_tag_record(record):
            raise RunError(
                f"{folder} is a run of labelsieve scan-tags, with several labels per image; look at its {REPORT} and "
                f"{TABLE_CSV}, or write the tags with: labelsieve export {quoted(folder)} --format csv --out FILE"
            )
        check_kinds(record, RUN, folder / RECORD)
        names, expected = record.pop("class_names"), record.pop("verdicts_fingerprint")
        table = read_parquet(folder / VERDICTS, _SCHEMA, _BOX_SCHEMA, written=expected)
        metrics = read_json(folder / METRICS_JSON) if (folder / METRICS_JSON).is_file() else None
        check_kinds(metrics or {}, _METRIC_KINDS, folder / METRICS_JSON)
        findings = image_findings(folder) if (folder / IMAGE_FINDINGS).is_file() else None
        verdicts = cls(table=table, class_names=tuple(names), record=record, metrics=metrics, image_findings=findings)
        if (verdicts.given < 0).any() or (verdicts.predicted < 0)[verdicts.is_readable].any():
            raise RunError(f"{folder / RECORD} does not name all classes of {VERDICTS}; make the run again")
        return verdicts


def class_indices(labels: pa.ChunkedArray, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """Returns the labels as indices into `class_names`, -1 for null and other names."""
    indices = pc.index_in(labels, value_set=pa.array(class_names, pa.string()))
    return np.asarray(pc.fill_null(indices, -1)).astype(np.int64)


def check_finished(folder: Path, *, verb: str) -> None:
    """Raises a `RunError` if a folder has no finished run; the message names the verb that makes one."""
    check_reachable(folder / RECORD, RunError)
    if not (folder / RECORD).is_file():
        unfinished = (folder / CHECKPOINT_FOLDER).is_dir()
        advice = "finish it with --resume" if unfinished else f"make one with: labelsieve {verb} SOURCE --out RUN"
        raise RunError(f"expected a finished run with a {RECORD} in {folder}, found none; {advice}")


def _remove_tags(folder: Path) -> None:
    """Removes the files that only a run with several labels per image has, if such a run is to be replaced."""
    with suppress(RunError):
        if is_tag_record(read_json(folder / RECORD)):
            remove(folder / TAG_IMAGES)


def require_same_images(table: pa.Table, images: Labelled | TaggedImages) -> None:
    """Checks that row i of the table of a run belongs to image i.

    Raises:
        RunError: The images have other ids.
    """
    if len(table) != len(images):
        raise RunError(f"expected the {len(table):,} images of the run, got {len(images):,}; pass those it scanned")
    if not pa.array(images.ids, pa.string()).equals(table["id"].combine_chunks()):
        raise RunError("the images have other ids than those of the run; pass the ones it scanned, in the same order")


def decide(images: Labelled, scores: Scores, *, record: Mapping[str, Any] | None = None) -> Verdicts:
    """Turns scores into verdicts.

    The rule of the scores decides which given labels are issues, see :class:`labelsieve.flagging.FlagRule`. Ranks go
    by ascending quality, issues first, ties by row.

    Args:
        images: N images, boxes or rows of features; a known truth adds metrics.
        scores: Their scores.
        record: The record of the run; None for an empty one.

    Raises:
        DataError: There is not exactly one score per image.
    """
    _check_shapes(len(images), scores.label_quality, scores.predicted, scores.confidence)
    quality = np.asarray(scores.label_quality, dtype=np.float32)
    readable = ~np.isnan(quality)
    issue = scores.rule.flags(quality, predicted=scores.predicted, given=images.labels)
    _check_shapes(len(images), issue)
    issue = readable & issue
    rank, unreadable = ranks(quality, issue), ~readable
    names = pa.array(images.class_names, pa.string())
    table = pa.table(
        {
            "id": pa.array(images.ids, pa.string()),
            "given_label": names.take(pa.array(images.labels)),
            "predicted_label": names.take(pa.array(scores.predicted, mask=unreadable)),
            "label_quality": pa.array(quality, mask=unreadable),
            "is_label_issue": pa.array(issue, mask=unreadable),
            "rank": pa.array(rank, mask=unreadable),
            "predicted_confidence": pa.array(np.asarray(scores.confidence, np.float32), mask=unreadable),
            "error": pa.array(_reasons(scores, unreadable), pa.string()),
            **_box_columns(images),
        }
    )
    metrics = None
    if images.truth is not None:
        wrong = (images.truth != images.labels)[readable]
        metrics = evaluate(wrong=wrong, flagged=issue[readable], quality=quality[readable])
    return Verdicts(table=table, class_names=images.class_names, record=dict(record or {}), metrics=metrics)


def _check_shapes(images: int, *parts: NDArray[Any]) -> None:
    shapes = {np.shape(values) for values in parts}
    if shapes != {(images,)}:
        raise DataError(f"expected scores of shape ({images},), one for each image, got {sorted(shapes)}")


def _box_columns(images: Labelled) -> dict[str, pa.Array]:
    """Returns the columns that locate boxes; none where rows are images."""
    if not isinstance(images, LabelledImages) or images.boxes is None:
        return {}
    paths = images.dataset.with_format("arrow")[:]["image"].combine_chunks().field("path").to_pylist()
    existing = [Path(path) for path in {*paths} if path]
    root = str(folder_of(existing)) if existing else ""
    relative = [relative_path(path, root) if path else None for path in paths]
    sides = zip(_BOX_FIELDS[1:], images.boxes.sides.T, strict=True)
    return {
        "image": pa.array(relative, pa.string()),
        **{field.name: pa.array(np.round(values, _DECIMALS)) for field, values in sides},
    }


def ranks(quality: NDArray[np.float32], issue: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the ranks of N images, 1 = most suspicious: issues first, each part by ascending quality.

    Args:
        quality: Shape (N,); NaN (unreadable image) comes last.
        issue: Shape (N,): true where the label is an issue.

    Example:
        >>> import numpy as np
        >>> ranks(np.array([0.9, 0.1, 0.4], dtype=np.float32), np.array([False, False, True]))
        array([3, 2, 1])
    """
    order = np.lexsort((quality, ~issue))
    rank = np.empty(len(quality), dtype=np.int64)
    rank[order] = np.arange(1, len(quality) + 1)
    return rank


def _reasons(scores: Scores, unreadable: NDArray[np.bool_]) -> list[str | None]:
    """Returns a reason for each row without a score, None for the others: readers rely on it to find these rows."""
    reasons: list[str | None] = [None] * len(unreadable)
    for row in np.flatnonzero(unreadable).tolist():
        reasons[row] = scores.errors.get(row) or "the detector gave no score"
    return reasons
