"""A scan that knows what was answered before: by content, wherever the images lie now."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelsieve import review
from labelsieve.cli import main
from labelsieve.data.features import load_features
from labelsieve.data.loading import load_images
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.scores import Estimate, Scores
from labelsieve.flagging import FlagRule, NamedIssues
from labelsieve.metrics import Interval
from labelsieve.review.earlier_review import read_earlier_review
from labelsieve.review.known_labels import known_labels
from labelsieve.review.queue import Filters, ReviewQueue, Spec
from labelsieve.review.row_reviews import marks_of_rows, read_reviews
from labelsieve.verdicts import Verdicts
from slow_cases import mostly_slow
from small_answers import answer, run_of

Run = Callable[..., tuple[int, str, str]]
SCAN = ("--model", str(MINI_CLIP), "--device", "cpu")


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Path:
    return photo_folder({"cat": 3, "dog": 3, "owl": 2})


def known(run: Path, source: Path, **options: object) -> dict[str, tuple[str, str]]:
    """Returns what is known of images: right or wrong, and the label they should have."""
    images = load_images(str(source), **options)  # type: ignore[arg-type]
    found = read_earlier_review(run, images)
    return {
        name: ("right" if found.is_right[row] else "wrong", images.class_names[found.labels[row]])
        for row, name in enumerate(images.ids)
        if found.is_right[row] or found.is_wrong[row]
    }


def test_answers_are_found_by_content(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    images = run_of(run, photos)
    answer(run, images, {"cat/0.png": "dog", "cat/1.png": "cat", "dog/0.png": "<none>", "dog/1.png": "<wrong>"})
    answer(run, images, {"owl/0.png": ("cat", "owl"), "owl/1.png": "<unsure>", "dog/2.png": "<skip>"})
    assert known(run, photos) == {
        "cat/0.png": ("wrong", "dog"),
        "cat/1.png": ("right", "cat"),
        "dog/0.png": ("wrong", "dog"),
        "dog/1.png": ("wrong", "dog"),
        "owl/0.png": ("right", "owl"),
    }
    # moved into the right class folder; what is only known to be wrong says nothing of another label
    (photos / "cat/0.png").rename(photos / "dog/new.png")
    (photos / "dog/1.png").rename(photos / "owl/new.png")
    (photos / "dog/0.png").unlink()
    found = known(run, photos)
    assert found["dog/new.png"] == ("right", "dog") and "owl/new.png" not in found
    images = load_images(str(photos))
    seen = read_earlier_review(run, images).unreviewed_labels
    before = {name: images.class_names[seen[row]] for row, name in enumerate(images.ids)}
    assert before.pop("dog/new.png") == "cat", "as it was when it was looked at"
    assert all(name.startswith(label) for name, label in before.items())
    note = read_earlier_review(run, load_images(str(photos))).notes[-1]
    assert note == "1 reviewed image is not among these"


def test_a_table_that_was_written_again_keeps_them(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer(run, run_of(run, photos), {"cat/0.png": "dog", "cat/1.png": "cat"})
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    table = photos / "umbenannt.csv"
    lines = [f"{number};{name};{name[:3].upper()}" for number, name in enumerate(reversed(names))]
    table.write_text("id;path;label\r\n" + "\r\n".join(lines), encoding="utf-16")
    assert known(run, table) == {"6": ("right", "CAT"), "7": ("wrong", "DOG")}


def test_a_class_that_is_gone_is_asked_again(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    images = run_of(run, photos)
    answer(run, images, {"cat/0.png": "owl", "cat/1.png": "cat"})
    shutil.rmtree(photos / "owl")
    found = read_earlier_review(run, load_images(str(photos)))
    assert found.is_wrong.sum() == 0 and found.is_right.sum() == 1 and len(found.answers) == 1
    assert found.notes[1] == "1 answer names classes that are not there, so these images are asked again: owl"


def test_where_the_label_that_was_seen_is_gone_the_given_one_counts_as_seen(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer(run, run_of(run, photos), {"owl/0.png": "dog"})
    (photos / "owl" / "0.png").rename(photos / "cat" / "9.png")
    shutil.rmtree(photos / "owl")
    images = load_images(str(photos))
    found, row = read_earlier_review(run, images), images.ids.index("cat/9.png")
    names = [images.class_names[labels[row]] for labels in (found.labels, found.unreviewed_labels)]
    assert names == ["dog", "cat"]


def test_what_is_known_is_certain(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    images = run_of(run, photos)
    answer(run, images, {"cat/0.png": "dog", "cat/1.png": "cat", "dog/0.png": "<none>"})
    quality = np.array([0.9, 0.1, 0.8, 0.7, 0.2, 0.6, np.nan, 0.9], np.float32)
    predicted = np.array([1, 2, 0, 1, 2, 1, -1, 2])
    estimate = Estimate(Interval(1.8, 1.0, 3.0), Interval(0.85, 0.5, 1.0), Interval(0.1, 0.0, 1.0))
    for rule in (FlagRule(), NamedIssues(issue=quality <= 0.5)):
        scores = Scores(
            label_quality=quality,
            predicted=predicted,
            confidence=quality,
            rule=rule,
            estimate=estimate,
            errors={6: "x"},
        )
        found = read_earlier_review(run, images).on(scores, images.labels)
        assert found.label_quality.tolist()[:5] == pytest.approx([0, 1, 0.8, 0, 0.2]) and np.isnan(
            found.label_quality[6]
        )
        assert found.predicted.tolist() == [1, 0, 0, 1, 2, 1, -1, 2]
        flags = found.rule.flags(found.label_quality, predicted=found.predicted, given=images.labels)
        assert np.flatnonzero(flags).tolist() == [0, 3, 4], "right ones are not flagged, wrong ones are"
        # 0.1 + 0.9 + 0.3 of three labels became 1 + 0 + 1
        assert found.estimate is not None and found.estimate.wrong_labels.value == pytest.approx(1.8 - 1.3 + 2)
        assert found.estimate.right_flags is not None
        assert found.estimate.right_flags.value == pytest.approx((1.7 - 1.7 + 2.8) / 3)
        wrong, right, missed = found.estimate
        assert right is not None
        assert wrong.low >= 2 and wrong.high <= 6, "two are known to be wrong and one of seven to be right"
        assert right.low >= 2 / 3 and right.high <= 1 and missed.high <= min(3, wrong.high)


def test_answers_go_to_the_new_run(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    images = run_of(run, photos)
    answer(run, images, {"cat/0.png": "dog", "cat/1.png": "<unsure>"}, mode="audit", shown={"stratum": 1})
    (photos / "cat/0.png").rename(photos / "dog/9.png")
    new, again = tmp_path / "new", load_images(str(photos))
    new.mkdir()
    for _ in range(2):
        review.AnswerLog(new).append_all(read_earlier_review(run, again).answers)
    answers = review.AnswerLog(new).answers()
    assert [(each.id, each.kind, each.mode) for each in answers] == [
        ("dog/9.png", "label", "review"),
        ("cat/1.png", "unsure", "review"),
    ]
    assert answers[0].shown == {"stratum": 1, "from": str(run)} and answers[0].reviewer == "ann"
    # and from there to a third
    assert read_earlier_review(new, again).is_right.sum() == 1


@pytest.mark.parametrize("detector", mostly_slow(["label-match", "joint"], quick={"label-match"}))
def test_round_trip(detector: str, drawn_folder: Path, tmp_path: Path, run: Run) -> None:
    photos, first, fixed, second = (tmp_path / name for name in ("photos", "first", "fixed", "second"))
    shutil.copytree(drawn_folder, photos)
    words = (*SCAN, "--detector", detector)
    assert main(["scan", str(photos), *words, "--out", str(first)]) == 0
    images = load_images(str(photos))
    # the names tell the truth, see the fixture
    right = {name: Path(name).stem.split("-")[0] for name in images.ids}
    wrong = [name for name in images.ids if not name.startswith(right[name])]
    kept = [name for name in images.ids if name.startswith(right[name])][:5]
    answer(first, images, {name: right[name] for name in (*wrong, *kept)})
    # on the same data the wrong labels are flagged for certain, most suspicious of all
    code, told, err = run("scan", photos, *words, "--reviewed", first, "--out", tmp_path / "same")
    assert (code, err) == (0, "") and "5 labels are right and 4 wrong for certain" in " ".join(told.split())
    known = "9 labels, 4 of them wrong, which are among the flagged ones"
    assert f"known from a review: {known}" in " ".join(told.split())
    page = re.sub("<[^>]+>", "", (tmp_path / "same/report.html").read_text()).replace("\u00a0", " ")
    assert known in page
    verdicts = Verdicts.load(tmp_path / "same")
    rows = {row["id"]: row for row in verdicts.table.to_pylist()}
    assert sorted(rows[name]["rank"] for name in wrong) == [1, 2, 3, 4]
    for name in wrong:
        assert (rows[name]["predicted_label"], rows[name]["label_quality"]) == (right[name], 0)
    assert all(not rows[name]["is_label_issue"] and rows[name]["label_quality"] == 1 for name in kept)
    record = json.loads((tmp_path / "same/run.json").read_text())["reviewed"]
    assert (record["run"], record["images"], record["wrong"]) == (str(first), 9, 4)
    # corrected, and scanned again: nothing that was answered is flagged or asked again
    assert run("apply", first, "--out", fixed, "--copy")[0] == 0
    assert run("scan", fixed, *words, "--reviewed", first, "--out", second)[0] == 0
    verdicts = Verdicts.load(second)
    again = load_images(str(fixed))
    assert all(name.startswith(Path(name).stem.split("-")[0]) for name in again.ids)
    assert verdicts.label_quality.tolist().count(1.0) >= 9
    reviews = review.load(second)
    assert len(reviews) == 9 and all(each.is_right(each.labels[0]) for each in reviews.by_key.values())
    issues = {key for key, issue in zip(again.contents.tolist(), verdicts.is_issue, strict=True) if issue}
    assert not issues & {int(key, 16) for key in reviews.by_key}
    queue = ReviewQueue(verdicts, again.contents)
    queue.add(review.AnswerLog(second).answers())
    everything = Spec(queue="suspicious", filters=Filters(which="all"))
    asked = queue.take(everything, client="browser", reviewer="ben", count=99).tolist()
    assert len(asked) == len(again) - 9 and not {queue.key(row) for row in asked} & reviews.by_key.keys()
    assert "0 new flags" in run("compare", second, second)[1]


def test_features_remember_too(tmp_path: Path, run: Run) -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0) + np.random.default_rng(0).normal(0, 0.1, (30, 3))
    names = np.repeat(["cat", "dog", "owl"], 10)
    names[0] = "dog"
    np.savez(tmp_path / "f.npz", features=points.astype(np.float32), labels=names)
    words = ("scan", tmp_path / "f.npz", "--detector", "knn", "--device", "cpu", "--out")
    assert run(*words, tmp_path / "one")[0] == 0
    features = load_features(tmp_path / "f.npz")
    answer(tmp_path / "one", features, {features.ids[0]: "dog", features.ids[1]: "owl"})
    # in the same folder, too: the answers stay
    assert run(*words, tmp_path / "one", "--overwrite", "--reviewed", tmp_path / "one")[0] == 0
    verdicts = Verdicts.load(tmp_path / "one")
    assert verdicts.label_quality[:2].tolist() == [1, 0] and verdicts.is_issue[:2].tolist() == [False, True]
    assert verdicts.table["predicted_label"].to_pylist()[:2] == ["dog", "owl"]
    assert len(review.AnswerLog(tmp_path / "one").answers()) == 2


def test_reviews_that_do_not_fit(photos: Path, drawn_folder: Path, tmp_path: Path, run: Run) -> None:
    done, out = tmp_path / "run", tmp_path / "out"
    words = ("scan", drawn_folder, *SCAN, "--detector", "label-match", "--out", out, "--reviewed")
    images = run_of(done, photos)
    for folder, said in (
        (done, "expected a reviewed run with a reviews.jsonl"),
        (tmp_path / "no", f"run.json in {tmp_path / 'no'}, found none; check the path"),
    ):
        code, _, err = run(*words, folder)
        assert code == 1 and err.count("\n") == 1 and said in err and not out.exists()
    answer(done, images, {"cat/0.png": "dog"})
    code, _, err = run(*words, done)
    assert code == 1 and err.count("\n") == 1 and "has reviews of other data: none of its 1 reviewed images" in err
    (done / "reviews.jsonl").write_text('{"format": 9}\n')
    code, _, err = run(*words, done)
    assert code == 1 and err.count("\n") == 1 and "expected format 1" in err


def test_a_class_that_is_spelled_otherwise_stays_right(photo_folder: Callable[..., Path], tmp_path: Path) -> None:
    source, done, again = photo_folder({"t_shirt": 2, "dress": 2}), tmp_path / "run", tmp_path / "again"
    answer(done, run_of(done, source), {"t_shirt/0.png": "t_shirt"})
    (source / "t_shirt").rename(source / "T-Shirt")
    images = run_of(again, source)
    review.AnswerLog(again).append_all(read_earlier_review(done, images).answers)
    verdicts = Verdicts.load(again)
    found = known_labels(verdicts, review.load(again), contents=images.contents)
    assert (found.is_decided.sum(), found.is_wrong.sum()) == (1, 0)
    assert [*marks_of_rows(verdicts, read_reviews(again, verdicts, images=images))].count("right") == 1
