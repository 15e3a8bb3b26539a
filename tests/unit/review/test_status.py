"""How far a review is, in the words that a person asks for."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from labelsieve import review
from labelsieve.data.images import LabelledImages
from labelsieve.review.status_lines import seconds_per_card
from labelsieve.verdicts import Verdicts
from small_answers import answer, run_of
from small_reviews import SmallRun
from small_server import session_of

Run = Callable[..., tuple[int, str, str]]


def test_status_of_a_review(photo_folder: Callable[..., Path], tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    images = run_of(done, photo_folder({"cat": 6, "dog": 6}))
    record = json.loads((done / "run.json").read_text())
    interval = {"value": 6.0, "low": 3.0, "high": 9.0}
    (done / "run.json").write_text(json.dumps({**record, "estimate": {"wrong_labels": interval}}))
    code, out, err = run("status", done)
    # p_clean goes evenly from 0.9 to 0.1
    assert (code, err, out) == (0, "", "0 reviewed, about 6 left (3 to 9)\n")
    answer(done, images, {"dog/5.png": "cat", "dog/4.png": "dog", "cat/0.png": "cat"}, seconds=11.0)
    lines = run("status", done)[1].splitlines()
    assert lines[0] == "3 reviewed, about 4 left (2 to 8), 11 s a card"
    assert "1 label found wrong" in lines and "4 flags without an answer: about 44 s" in lines
    assert any(line.startswith("what is left: by the model's own p_clean") for line in lines)
    answer(done, images, {"dog/5.png": "cat", "dog/4.png": "cat", "dog/3.png": "cat"}, reviewer="ben", seconds=11.0)
    lines = run("status", done)[1].splitlines()
    assert lines[0].startswith("4 reviewed, of them 1 disputed, about") and "ann 3, ben 3" in lines
    assert "2 images with several answers, which agree in 50 %, kappa 0.00" in lines
    answer(done, images, {"dog/0.png": "<skip>"}, reviewer="eve")
    assert run("status", done)[1].startswith("4 reviewed,"), "one that was skipped is not"


def run_with_a_copy(photo_folder: Callable[..., Path], done: Path, copy: str) -> LabelledImages:
    """Saves a run of twelve photos, of which one is a copy of the last."""
    photos = photo_folder({"cat": 6, "dog": 6})
    shutil.copy(photos / "dog/5.png", photos / copy)
    return run_of(done, photos)


def test_a_flag_is_answered_with_its_copy_and_under_another_name(
    photo_folder: Callable[..., Path], tmp_path: Path, run: Run
) -> None:
    done = tmp_path / "run"
    images = run_with_a_copy(photo_folder, done, "dog/4.png")
    answer(done, images, {"dog/5.png": "cat"}, id="an earlier name", seconds=11.0)
    assert "4 flags without an answer: about 44 s" in run("status", done)[1].splitlines()


def test_all_count_the_images_that_were_reviewed_with_their_copies(
    photo_folder: Callable[..., Path], tmp_path: Path, run: Run
) -> None:
    done = tmp_path / "run"
    images = run_with_a_copy(photo_folder, done, "cat/0.png")
    answer(done, images, {"dog/5.png": "dog", "dog/4.png": "cat"}, seconds=11.0)
    assert run("status", done)[1].startswith("3 reviewed,")
    said = run("audit", done)[1]
    assert "3 labels are known, 2 of them wrong" in said
    code, said, _ = run("apply", done, "--out", tmp_path / "corrected")
    assert code == 0 and "the answers on 3 images" in said, said
    code, said, _ = run("export", done, "--format", "dataset-card", "--out", tmp_path / "README.md")
    assert code == 0 and "the answers on 3 images" in said
    assert "People reviewed 3 images." in (tmp_path / "README.md").read_text()
    made = SmallRun(done, images, Verdicts.load(done))
    assert session_of(made).count_new_answers() == 3


def test_the_time_of_a_card_is_no_mean_with_breaks_in_it(photo_folder: Callable[..., Path], tmp_path: Path) -> None:
    done = tmp_path / "run"
    images = run_of(done, photo_folder({"cat": 3, "dog": 2}))
    answer(done, images, dict.fromkeys(images.ids, "cat"), seconds=4.0)
    reviews = review.load(done)
    slow = [dataclasses.replace(each, seconds=9000.0) for each in reviews.standing[:1]]
    assert seconds_per_card([*slow, *reviews.standing[1:]]) == 4
    assert seconds_per_card([dataclasses.replace(reviews.standing[0], kind="skip", labels=())]) is None


def test_status_of_no_run(tmp_path: Path, run: Run) -> None:
    code, _, err = run("status", tmp_path)
    assert code == 1 and err.count("\n") == 1 and "expected a finished run" in err
