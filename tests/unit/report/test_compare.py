"""Two runs side by side: the same images found again, and what differs between them."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from labelsieve.cli import main
from labelsieve.data.loading import load_images
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.scores import Scores
from labelsieve.records import RunRecord
from labelsieve.report.comparison import compare, differences, needs_contents
from labelsieve.verdicts import Verdicts, decide

Run = Callable[..., tuple[int, str, str]]
SCAN = ("--model", str(MINI_CLIP), "--device", "cpu", "--detector", "label-match")


def run_of(source: Path, qualities: Sequence[float], *, out: Path | None = None, truth: bool = False) -> Verdicts:
    """Returns verdicts on a folder, flagged where the quality is at most 0.5; all suggest the first class."""
    images = load_images(str(source))
    if truth:
        images = images.with_labels(images.labels, truth=np.zeros(len(images), dtype=np.int64))
    scores = Scores(
        label_quality=np.array(qualities, np.float32),
        predicted=np.zeros(len(images), np.int64),
        confidence=np.array(qualities, np.float32),
    )
    record = {"data": {"fingerprint": images.fingerprint}, "origin": {"source": str(source)}}
    verdicts = decide(images, scores, record=record)
    if out is not None:
        verdicts.save(out)
    return verdicts


def test_which_flags_are_new_or_removed(photo_folder: Callable[..., Path]) -> None:
    source = photo_folder({"cat": 2, "dog": 2})
    first, second = run_of(source, [0.1, 0.9, 0.2, 0.9]), run_of(source, [0.1, 0.3, 0.9, 0.9])
    assert not needs_contents(first, second)
    found = compare(first, second)
    assert found.table.select(["change", "id", "first_label_quality"]).to_pylist() == [
        {"change": "new", "id": "cat/1.png", "first_label_quality": pytest.approx(0.9)},
        {"change": "removed", "id": "dog/0.png", "first_label_quality": pytest.approx(0.2)},
    ]
    assert (found.count("new"), found.count("removed"), found.count("changed")) == (1, 1, 0)


def test_what_the_runs_differ_in() -> None:
    record = {
        "source": "photos",
        "data": {"fingerprint": "a"},
        "model": {"name": "clip"},
        "detector": {"name": "deft", "settings": {"epochs": 10, "peft": "auto"}},
        "seed": 0,
        "estimate": {"wrong_labels": {"value": 119.2, "low": 65, "high": 186}},
    }
    first = RunRecord.of(record)
    assert differences(first, first) == ["data, model, settings and seed are the same"]
    other = {
        **record,
        "data": {"fingerprint": "b"},
        "detector": {"name": "deft", "settings": {"epochs": 5, "peft": "auto"}},
        "seed": 1,
        "reviewed": {"run": "runs/photos"},
        "estimate": {"wrong_labels": {"value": 236.1, "low": 108, "high": 240}},
    }
    assert differences(first, RunRecord.of(other)) == [
        "they differ in: data photos (a) → photos (b), epochs 10 → 5, seed 0 → 1, review none → runs/photos",
        "wrong labels (estimate): 119 (65 to 186) → 236 (108 to 240)",
    ]
    knn = {**record, "source": "new", "data": {"fingerprint": "b"}, "detector": {"name": "knn", "settings": {"k": 9}}}
    assert differences(first, RunRecord.of(knn)) == ["they differ in: data photos → new, detector deft → knn"]


def test_an_image_that_moved_is_found_by_its_content(
    photo_folder: Callable[..., Path], tmp_path: Path, run: Run
) -> None:
    source = photo_folder({"cat": 2, "dog": 2})
    run_of(source, [0.9, 0.1, 0.9, 0.9], out=tmp_path / "one")
    moved = tmp_path / "moved"
    shutil.copytree(source, moved)
    # takes the name of an image that is another one
    (moved / "dog/1.png").rename(moved / "dog/2.png")
    (moved / "cat/1.png").rename(moved / "dog/1.png")
    run_of(moved, [0.9, 0.9, 0.9, 0.2], out=tmp_path / "two")
    code, out, err = run("compare", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "changes.csv")
    assert (code, err) == (0, "")
    assert "4 images are in both, matched by content" in out
    assert "1 new flag, 1 removed flag, 0 other labels changed; 0 flagged in both" in out
    with (tmp_path / "changes.csv").open() as handle:
        rows = [(row["change"], row["first_id"], row["id"]) for row in csv.DictReader(handle)]
    assert rows == [("removed", "cat/1.png", "dog/1.png"), ("new", "dog/1.png", "dog/2.png")]
    assert re.search(r"dog/1\.png +cat → dog", out)


def test_images_that_are_gone_are_matched_by_id(photo_folder: Callable[..., Path], tmp_path: Path, run: Run) -> None:
    source = photo_folder({"cat": 2, "dog": 2})
    run_of(source, [0.1, 0.9, 0.9, 0.9], out=tmp_path / "one")
    (source / "dog/1.png").unlink()
    run_of(source, [0.1, 0.1, 0.9], out=tmp_path / "two")
    code, out, _ = run("compare", tmp_path / "one", tmp_path / "two")
    assert code == 0
    assert "note: the images are matched by id" in out and "changed since the run" in out
    assert "3 images are in both, matched by id, 1 only in the first" in out
    code, _, err = run("compare", tmp_path / "one", tmp_path / "two", "--source", source)
    assert code == 1 and err.count("\n") == 1 and "changed since the run" in err
    export = ("export", tmp_path / "one", "--format", "csv", "--out", tmp_path / "x.csv")
    for words in (("compare", tmp_path / "one", tmp_path / "two"), export):
        code, _, err = run(*words, "--source", "")
        assert code == 1 and err.count("\n") == 1 and "as --source, got an empty text" in err


def test_copies_of_an_image_are_matched_one_to_one(photo_folder: Callable[..., Path]) -> None:
    source = photo_folder({"cat": 1, "dog": 1})
    images = load_images(str(source))
    shutil.copy(source / "cat/0.png", source / "dog/1.png")
    first = run_of(source, [0.9, 0.9, 0.1])
    contents = load_images(str(source)).contents
    assert contents[0] == contents[2] == images.contents[0]
    assert compare(first, first, contents=(contents, contents)).pairs.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_a_copy_without_its_id_takes_the_next_one(photo_folder: Callable[..., Path]) -> None:
    first = run_of(photo_folder({"cat": 2, "owl": 1}, name="one"), [0.9, 0.9, 0.1])
    second = run_of(photo_folder({"cat": 1, "dog": 2}, name="two"), [0.9, 0.9, 0.1])
    same, other = np.uint64(7), np.uint64(8)
    hashes = np.array([same, same, same]), np.array([same, other, same])
    # cat/0.png is in both; of the copies that are left the first is taken
    assert compare(first, second, contents=hashes).pairs.tolist() == [[0, 0], [1, 2]]


def test_metrics_side_by_side(photo_folder: Callable[..., Path], tmp_path: Path, run: Run) -> None:
    source = photo_folder({"cat": 2, "dog": 2})
    run_of(source, [0.9, 0.9, 0.1, 0.9], out=tmp_path / "one", truth=True)
    run_of(source, [0.9, 0.9, 0.1, 0.2], out=tmp_path / "two", truth=True)
    lines = [" ".join(line.split()) for line in run("compare", tmp_path / "one", tmp_path / "two")[1].splitlines()]
    assert "issue R 0.500 1.000 +0.500" in lines and "AUROC 0.750 1.000 +0.250" in lines


def test_names_are_texts_and_no_markup(photo_folder: Callable[..., Path], tmp_path: Path, run: Run) -> None:
    source = photo_folder({"[red]": 2, "dog": 2})
    for name, qualities in (("[b]", [0.9, 0.9, 0.9, 0.9]), ("two", [0.9, 0.1, 0.9, 0.9])):
        run_of(source, qualities, out=tmp_path / name, truth=True)
    out = run("compare", tmp_path / "[b]", tmp_path / "two")[1]
    assert "[red]/1.png" in out and "[b]" in out and out.count("[red]") == 3


def test_the_same_run_twice(drawn_folder: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    assert main(["scan", str(drawn_folder), *SCAN, "--out", str(out)]) == 0
    code, said, err = run("compare", out, out)
    assert (code, err) == (0, "") and "0 new flags, 0 removed flags, 0 other labels changed" in said
    assert "Against the truth" not in said


def test_what_cannot_be_compared(photo_folder: Callable[..., Path], tmp_path: Path, run: Run) -> None:
    run_of(photo_folder({"cat": 2, "dog": 2}), [0.9] * 4, out=tmp_path / "one")
    code, _, err = run("compare", tmp_path / "one", tmp_path / "no")
    assert code == 1 and err.count("\n") == 1 and "expected a finished run" in err
    assert run("compare", tmp_path / "one")[0] == 2
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    code, _, err = run("compare", tmp_path / "one", tmp_path / "one", "--out", taken)
    assert code == 1 and "is there already" in err and taken.read_text() == "mine"
