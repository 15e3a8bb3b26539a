"""From scores to verdicts: the decision, the metrics against independent implementations, and runs on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from labelsieve.core.errors import DataError, LabelsieveError, RunError
from labelsieve.data.images import LabelledImages
from labelsieve.detect.scores import Scores
from labelsieve.flagging import FlagRule, NamedIssues
from labelsieve.metrics import evaluate
from labelsieve.verdicts import METRICS_JSON, RECORD, TABLE_CSV, VERDICTS, Verdicts, decide
from slow_cases import mostly_slow

NAN = float("nan")
NO_PICTURES = Dataset.from_dict({"image": []})
NAMES = ("cat", "dog", "fox")
FILES = (VERDICTS, TABLE_CSV, METRICS_JSON, RECORD)


def make_images(labels: list[int], *, names: tuple[str, ...] = NAMES, truth: list[int] | None = None) -> LabelledImages:
    return LabelledImages(
        dataset=NO_PICTURES,
        ids=tuple(f"img-{row}" for row in range(len(labels))),
        labels=np.array(labels, np.int64),
        class_names=names,
        contents=np.arange(len(labels), dtype=np.uint64),
        truth=None if truth is None else np.array(truth, np.int64),
    )


def make_scores(quality: list[float], *, predicted: list[int] | None = None, **settings: Any) -> Scores:
    unreadable = np.isnan(np.array(quality, float))
    return Scores(
        label_quality=np.array(quality, np.float32),
        predicted=np.where(unreadable, -1, predicted or 0).astype(np.int64),
        confidence=np.where(unreadable, np.nan, 0.9).astype(np.float32),
        **settings,
    )


def verdicts_by(quality: list[float], *, truth: list[int] | None = None, **settings: Any) -> Verdicts:
    """Decides about images that are all labelled and predicted as cats, unless told otherwise."""
    return decide(make_images([0] * len(quality), truth=truth), make_scores(quality, **settings), record={"seed": 3})


# --- decide


def test_a_label_at_the_threshold_is_an_issue() -> None:
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert verdicts_by([0.5, above, 0.0, 1.0]).is_issue.tolist() == [True, False, True, False]


@pytest.mark.parametrize("threshold", [0.1, np.float64(0.1), np.float32(0.1)])
def test_a_quality_equal_to_the_threshold_is_an_issue_whatever_the_number_type(threshold: float) -> None:
    assert verdicts_by([0.1], rule=FlagRule(threshold=threshold)).is_issue.tolist() == [True]


def test_agreement_is_demanded_only_if_the_detector_says_so() -> None:
    quality, predicted = [0.9, 0.9, 0.1, 0.1], [0, 1, 0, 1]
    assert verdicts_by(quality, predicted=predicted).is_issue.tolist() == [False, False, True, True]
    demanding = verdicts_by(quality, predicted=predicted, rule=FlagRule(demand_agreement=True))
    assert demanding.is_issue.tolist() == [False, True, True, True]


def test_issues_that_the_detector_names_decide_alone() -> None:
    named = np.array([False, True, False])
    verdicts = verdicts_by(
        [0.1, 0.9, NAN], predicted=[1, 0, 1], rule=FlagRule(demand_agreement=True).with_issues(named)
    )
    assert verdicts.is_issue.tolist() == [False, True, False]
    assert verdicts.table["rank"].to_pylist() == [2, 1, None], "issues come first, whatever their quality"
    assert verdicts.table["is_label_issue"].to_pylist() == [False, True, None]


def test_issues_come_first_then_lower_quality_then_earlier_rows() -> None:
    verdicts = verdicts_by([0.9, 0.2, 0.8, 0.2, 0.9], predicted=[1, 0, 0, 0, 0], rule=FlagRule(demand_agreement=True))
    assert verdicts.table["rank"].to_pylist() == [3, 1, 4, 2, 5]


qualities = st.lists(st.one_of(st.just(NAN), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])), max_size=30)


@given(quality=qualities, demand=st.booleans(), data=st.data())
def test_ranks_are_a_permutation_in_the_promised_order(quality: list[float], demand: bool, data: st.DataObject) -> None:
    predicted = data.draw(st.lists(st.integers(0, 2), min_size=len(quality), max_size=len(quality)))
    verdicts = verdicts_by(quality, predicted=predicted, rule=FlagRule(demand_agreement=demand))
    rank, readable = verdicts.table["rank"].to_pylist(), [q == q for q in quality]
    keys = [(not verdicts.is_issue[row], quality[row], row) for row in range(len(quality)) if readable[row]]
    expected = {row: place for place, (_, _, row) in enumerate(sorted(keys), start=1)}
    assert rank == [expected.get(row) for row in range(len(quality))]


def test_unreadable_rows_are_null_and_unranked() -> None:
    verdicts = verdicts_by([0.9, NAN, 0.1], errors={1: "the file is empty"})
    row = verdicts.table.to_pylist()[1]
    assert row.pop("error") == "the file is empty"
    assert (row.pop("id"), row.pop("given_label")) == ("img-1", "cat")
    assert set(row.values()) == {None}
    assert verdicts.table["rank"].to_pylist() == [2, None, 1]
    assert verdicts.is_readable.tolist() == [True, False, True]
    assert verdicts.is_issue.tolist() == [False, False, True]
    assert verdicts.predicted.tolist() == [0, -1, 0] and verdicts.given.tolist() == [0, 0, 0]
    assert np.isnan(verdicts.label_quality).tolist() == [False, True, False]
    assert verdicts.label_quality.dtype == np.float32


def test_a_row_without_a_score_or_a_reason_counts_as_unreadable() -> None:
    verdicts = verdicts_by([0.9, NAN], errors={0: "read at the second attempt"})
    assert verdicts.is_readable.tolist() == [True, False]
    assert verdicts.table["error"].to_pylist() == [None, "the detector gave no score"]


def test_unreadable_images_are_left_out_of_the_metrics() -> None:
    metrics = verdicts_by([0.9, NAN, 0.1], truth=[0, 1, 1]).metrics
    assert metrics is not None and metrics["images"] == 2 and metrics["issue_recall"] == 1.0


def test_without_truth_there_are_no_metrics() -> None:
    assert verdicts_by([0.9, 0.1]).metrics is None


def test_no_images_and_only_unreadable_images() -> None:
    assert len(verdicts_by([], truth=[])) == 0
    verdicts = verdicts_by([NAN, NAN], truth=[0, 1])
    assert not verdicts.is_issue.any() and verdicts.metrics is not None and verdicts.metrics["images"] == 0
    assert [row["images"] for row in verdicts.per_class()] == [0, 0, 0]


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected scores of shape \(3,\)"):
        decide(make_images([0, 1, 2]), make_scores([0.5, 0.5]))
    with pytest.raises(DataError, match=r"expected scores of shape \(2,\)"):
        decide(make_images([0, 1]), make_scores([0.5, 0.5], rule=NamedIssues(issue=np.ones(3, bool))))


def test_decide_leaves_its_inputs_alone() -> None:
    images, scores, record = make_images([0, 1]), make_scores([0.1, NAN]), {"seed": 1}
    decided = decide(images, scores, record=record)
    assert decided.record == record and decided.record is not record
    assert scores.predicted.tolist() == [0, -1] and images.labels.tolist() == [0, 1]


# --- evaluate


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    n = draw(st.integers(1, 40))
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    # steps of 1/64 are exact in float32, so that 1 - quality has the same ties as quality
    quality = draw(st.lists(st.integers(0, 64), min_size=n, max_size=n))
    return np.array(draw(flags)), np.array(draw(flags)), np.array(quality, np.float32) / np.float32(64)


@given(case=cases())
def test_metrics_against_scikit_learn(case: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]) -> None:
    wrong, flagged, quality = case
    metrics = evaluate(wrong=wrong, flagged=flagged, quality=quality)
    precision, recall, f1, _ = precision_recall_fscore_support(wrong, flagged, labels=[False, True], zero_division=0)
    for index, side in enumerate(("clean", "issue")):
        found = [metrics[f"{side}_{name}"] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx([precision[index], recall[index], f1[index]])
    if wrong.any() and not wrong.all():
        assert metrics["auroc"] == pytest.approx(roc_auc_score(wrong, 1 - quality))
        assert metrics["average_precision"] == pytest.approx(average_precision_score(wrong, 1 - quality))
    assert metrics["noise_rate"] == pytest.approx(wrong.mean()) and metrics["flagged_rate"] == pytest.approx(
        flagged.mean()
    )


@given(case=cases())
def test_auroc_is_the_share_of_pairs_in_the_right_order(
    case: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]],
) -> None:
    wrong, flagged, quality = case
    pairs = [(clean > issue) + (clean == issue) / 2 for issue in quality[wrong] for clean in quality[~wrong]]
    auroc = evaluate(wrong=wrong, flagged=flagged, quality=quality)["auroc"]
    assert auroc == (pytest.approx(float(np.mean(pairs))) if pairs else None)


def test_the_smallest_qualities_are_told_apart() -> None:
    # 1 - 1e-9 and 1 - 1e-12 are both 1 in float32
    metrics = evaluate(
        wrong=np.array([True, False]), flagged=np.array([True, True]), quality=np.array([1e-12, 1e-9], np.float32)
    )
    assert metrics["auroc"] == 1.0 and metrics["average_precision"] == 1.0


@pytest.mark.parametrize(
    ("wrong", "flagged", "clean", "issue"),
    [
        ([0, 0], [0, 0], (1, 1, 1), (0, 0, 0)),  # no issue, none flagged
        ([1, 1], [1, 1], (0, 0, 0), (1, 1, 1)),  # all issues, all flagged
        ([1, 0], [0, 0], (0.5, 1, 2 / 3), (0, 0, 0)),  # none flagged
        ([1, 0], [1, 1], (0, 0, 0), (0.5, 1, 2 / 3)),  # all flagged
        ([], [], (0, 0, 0), (0, 0, 0)),
    ],
)
def test_metrics_at_the_edges(
    wrong: list[int], flagged: list[int], clean: tuple[float, ...], issue: tuple[float, ...]
) -> None:
    metrics = evaluate(
        wrong=np.array(wrong, bool),
        flagged=np.array(flagged, bool),
        quality=np.linspace(0, 1, len(wrong), dtype=np.float32),
    )
    for side, expected in (("clean", clean), ("issue", issue)):
        assert [metrics[f"{side}_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(list(expected))
    assert (metrics["auroc"] is None) == (len(set(wrong)) < 2) == (metrics["average_precision"] is None)
    json.dumps(metrics, allow_nan=False)


# --- per class and confusion


@given(data=st.data(), n=st.integers(0, 40), classes=st.integers(1, 5))
def test_counts_against_a_simple_loop(data: st.DataObject, n: int, classes: int) -> None:
    labels, predicted = (data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)) for _ in range(2))
    quality = data.draw(st.lists(st.sampled_from([0.1, 0.9, NAN]), min_size=n, max_size=n))
    names = tuple(f"n{k}" for k in range(classes))
    verdicts = decide(make_images(labels, names=names), make_scores(quality, predicted=predicted))
    confusion = [[0] * classes for _ in range(classes)]
    rows: list[dict[str, Any]] = [{"class_name": name, "images": 0, "flagged": 0} for name in names]
    for y, z, q in zip(labels, predicted, quality, strict=True):
        rows[y]["images"] += q == q
        rows[y]["flagged"] += q == 0.1
        confusion[y][z] += q == 0.1 and y != z
    assert verdicts.confusion().tolist() == confusion and verdicts.confusion().dtype == np.int64
    for row, counts in zip(rows, confusion, strict=True):
        row["share_flagged"] = row["flagged"] / row["images"] if row["images"] else 0.0
        row["most_often_suggested"] = names[counts.index(max(counts))] if max(counts) else None
        row["most_often_count"] = max(counts)
    assert verdicts.per_class() == rows


def test_per_class_takes_no_table_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = 20_000  # whose pairs would take 3.2 GB
    names, labels = tuple(str(k) for k in range(classes)), [0, 0, 0, classes - 1]
    verdicts = decide(make_images(labels, names=names), make_scores([0.1] * 4, predicted=[7, classes - 1, 7, 0]))

    def refuse(self: Verdicts) -> None:
        raise AssertionError("K x K numbers were counted")

    monkeypatch.setattr(Verdicts, "confusion", refuse)
    rows = verdicts.per_class()
    assert (rows[0]["most_often_suggested"], rows[0]["most_often_count"]) == ("7", 2)
    assert (rows[-1]["most_often_suggested"], rows[1]["most_often_suggested"]) == ("0", None)


# --- save and load


def test_save_and_load_give_the_same(tmp_path: Path) -> None:
    verdicts = verdicts_by([0.9, NAN, 0.1], predicted=[0, 0, 2], truth=[0, 0, 1], errors={1: "empty"})
    assert verdicts.save(str(tmp_path / "deep" / "run")) == tmp_path / "deep" / "run"
    loaded = Verdicts.load(tmp_path / "deep" / "run")
    assert loaded.table.equals(verdicts.table) and loaded.class_names == NAMES
    assert loaded.record == {"seed": 3} and loaded.metrics == verdicts.metrics
    assert sorted(os.listdir(tmp_path / "deep" / "run")) == sorted(FILES)
    assert pyarrow.csv.read_csv(tmp_path / "deep" / "run" / TABLE_CSV).num_rows == 3


@pytest.mark.parametrize("name", ["", "null", "nan", 'a,"b"', "two\nlines", "=1+1", "Ω 猫"])
def test_odd_class_names_survive(name: str, tmp_path: Path) -> None:
    images = make_images([0, 1], names=(name, "other"))
    decide(images, make_scores([0.1, 0.9], predicted=[1, 1])).save(tmp_path)
    loaded = Verdicts.load(tmp_path)
    assert loaded.class_names == (name, "other") and loaded.given.tolist() == [0, 1]


def test_saving_twice_replaces_and_leaves_no_old_metrics(tmp_path: Path) -> None:
    verdicts_by([0.1, 0.9], truth=[0, 1]).save(tmp_path)
    verdicts_by([0.9, 0.9, 0.1]).save(tmp_path)
    loaded = Verdicts.load(tmp_path)
    assert len(loaded) == 3 and loaded.metrics is None and not (tmp_path / METRICS_JSON).exists()


def test_equal_verdicts_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        verdicts_by([0.1, NAN, 0.9], truth=[0, 1, 2]).save(tmp_path / name)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_without_a_record_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="labelsieve scan"):
        Verdicts.load(tmp_path / "nowhere")
    verdicts_by([0.1]).save(tmp_path)
    (tmp_path / RECORD).unlink()
    with pytest.raises(RunError, match="labelsieve scan"):
        Verdicts.load(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(RunError, match="--resume"):
        Verdicts.load(tmp_path)


def _of_another_run(folder: Path) -> None:
    verdicts_by([0.9, 0.8]).save(folder / "other")
    shutil.copy(folder / "other" / VERDICTS, folder / VERDICTS)


def _one_byte(folder: Path) -> None:
    data = bytearray((folder / VERDICTS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / VERDICTS).write_bytes(data)


def _half(folder: Path) -> None:
    os.truncate(folder / VERDICTS, 100)


def _gone(folder: Path) -> None:
    (folder / VERDICTS).unlink()


def _flipped_labels(folder: Path) -> None:
    table = pq.read_table(folder / VERDICTS)
    column = table.schema.get_field_index("is_label_issue")
    pq.write_table(table.set_column(column, "is_label_issue", pa.array([False] * len(table))), folder / VERDICTS)


def _record_with(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps({**json.loads((folder / RECORD).read_text()), **changes}))

    return change


def _broken_record(folder: Path) -> None:
    (folder / RECORD).write_text('{"seed": 3, "class_na')


def _broken_metrics(folder: Path) -> None:
    (folder / METRICS_JSON).write_text("")


OF_ANOTHER_RUN = r"verdicts\.parquet is not the file that run\.json was written for"
NO_LIST = r'expected "class_names" in .*run\.json to be a list of texts, found '
TAMPERINGS = (
    (_of_another_run, OF_ANOTHER_RUN),
    (_one_byte, OF_ANOTHER_RUN),
    (_half, OF_ANOTHER_RUN),
    (_gone, r"verdicts\.parquet is missing"),
    (_flipped_labels, OF_ANOTHER_RUN),
    (_broken_record, r"run\.json cannot be read as JSON"),
    (_broken_metrics, r"metrics\.json cannot be read as JSON"),
    (_record_with(class_names=None), NO_LIST + "none"),
    (_record_with(class_names=7), NO_LIST + "7"),
    (_record_with(class_names="catdogfox"), NO_LIST + '"catdogfox"'),
    (_record_with(class_names=["dog", "fox"]), r"run\.json does not name all classes of verdicts\.parquet"),
    (_record_with(verdicts_fingerprint="0" * 16), OF_ANOTHER_RUN),
    (_record_with(verdicts_fingerprint=None), r'"verdicts_fingerprint" in .*run\.json to be a text, found none'),
)


def test_a_tampered_run_is_refused(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (tamper, message) in enumerate(TAMPERINGS):
        with subtests.test(tamper.__name__, number=number):
            folder = tmp_path / str(number)
            verdicts_by([0.1, 0.2, 0.9], truth=[1, 0, 0]).save(folder)
            tamper(folder)
            with pytest.raises(RunError, match=rf"{message}.*(make the run again|has to be made again)$"):
                Verdicts.load(folder)


class PowerCutError(Exception):
    """Ends a test's writing in the middle."""


def _write_calls(monkeypatch: pytest.MonkeyPatch, *, cut_at: int, error: Callable[[], Exception]) -> Counter[str]:
    """Lets everything that writes or removes a file count its calls and raise at call number `cut_at`."""
    calls: Counter[str] = Counter()

    def watched(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            if calls.total() == cut_at:
                raise error()
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        (pq, "write_table"),
        (pyarrow.csv, "write_csv"),
        (os, "fsync"),
        (Path, "write_text"),
        (Path, "replace"),
        (Path, "unlink"),
    ):
        watched(owner, name)
    return calls


@pytest.mark.parametrize("error", [PowerCutError, lambda: OSError(28, "No space left on device")])
@pytest.mark.parametrize("truth", mostly_slow([None, [0, 1, 0]], quick=[[0, 1, 0]]))
def test_a_crash_at_any_point_never_leaves_a_mix(
    error: Callable[[], Exception], truth: list[int] | None, tmp_path: Path
) -> None:
    old, new = verdicts_by([0.1, 0.9], truth=[1, 0]), verdicts_by([0.9, 0.1, 0.2], truth=truth)
    for cut_at in range(1, 100):
        folder = tmp_path / str(cut_at)
        old.save(folder)
        with pytest.MonkeyPatch.context() as patch:
            calls = _write_calls(patch, cut_at=cut_at, error=error)
            with suppress(PowerCutError, RunError):
                new.save(folder)
            reached = calls.total() >= cut_at
        try:
            loaded = Verdicts.load(folder)
        except RunError:
            loaded = None
        if loaded is not None:
            one = next(run for run in (old, new) if len(run) == len(loaded))
            assert loaded.table.equals(one.table) and loaded.metrics == one.metrics
        new.save(folder)  # a crash does not stand in the way of the next attempt
        assert Verdicts.load(folder).table.equals(new.table)
        if not reached:
            break
    assert not reached and cut_at > 10


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabelsieveError, match="No space left on device") as caught:
        verdicts_by([0.1]).save(tmp_path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(RunError, match="choose a writable folder"):
        verdicts_by([0.1]).save(tmp_path / "run")
