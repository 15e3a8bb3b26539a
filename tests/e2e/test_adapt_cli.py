"""`labelsieve adapt` end to end: from a run to a model, and what reaches the terminal."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
import transformers
from safetensors.torch import load_file

from forked import Command
from interrupting import break_off
from labelsieve.cli import main
from labelsieve.core.validation import field_kinds
from labelsieve.demo import MINI_CLIP
from labelsieve.finetune import loop as training
from labelsieve.finetune.registry import LOSSES, TUNE
from labelsieve.finetune.settings import RECIPES, Adaptation

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--device", "cpu", "--precision", "fp32", "--epochs", "2", "--min-steps", "0", "--batch-size", "16")
FILES = {"README.md", "adapt.json", "config.json", "metrics.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture(scope="module")
def photos(drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(drawn_folder, tmp_path_factory.mktemp("data") / "photos"))


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "photos"
    words = ["scan", str(photos), "--model", str(MINI_CLIP), "--detector", "label-match", "--device", "cpu"]
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_from_a_run_to_a_model(finished: Path, photos: Path, run: Run, tmp_path: Path) -> None:
    code, out, err = run("adapt", finished, "--out", tmp_path / "m", "--test", photos, *QUICK, "--tune", "linear")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES
    record = json.loads((tmp_path / "m" / "adapt.json").read_text())
    assert record["settings"]["tune"] == "linear" and record["backbone"]["name"] == str(MINI_CLIP)
    assert record["verdicts"]["detector"] == "label-match" and record["test"]["source"] == str(photos)
    used = record["selection"]["trained_on"]
    assert f"{used} images trained on of 32" in out and "of 32 test images" in out
    assert f"note: {used} of 32 test images are among the training images" in out
    assert "before training" in out and "is saved" not in out
    classify = transformers.pipeline("image-classification", str(tmp_path / "m"), device="cpu")
    assert {answer["label"] for answer in classify(str(photos / "cat" / "cat-1.png"))} == {"boat", "cat", "cup", "tree"}


@pytest.mark.slow
def test_scales_and_shifts_end_in_a_standard_model(finished: Path, photos: Path, run: Run, tmp_path: Path) -> None:
    code, out, err = run("adapt", finished, "--out", tmp_path / "m", "--test", photos, *QUICK, "--tune", "ssf")
    assert (code, err) == (0, "") and "ssf fine-tuning" in out
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES
    assert not [key for key in load_file(tmp_path / "m" / "model.safetensors") if "module" in key]
    classify = transformers.pipeline("image-classification", str(tmp_path / "m"), device="cpu")
    shown = sorted(photos.rglob("*.png"))
    right = [classify(str(path))[0]["label"] == path.parent.name for path in shown]
    record = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert sum(right) / len(right) == pytest.approx(record["test"]["accuracy"], abs=1 / len(right))


def test_help_names_every_option(run: Run) -> None:
    code, out, _ = run("adapt", "--help-all")
    assert code == 0
    options = (
        "backbone",
        "recipe",
        "marks",
        "test",
        "test-class-names",
        "labels",
        "weighting",
        "class-weights",
        "loss",
    )
    more = (
        "tune",
        "visual-prompts",
        "bottleneck",
        "head-init",
        "optimizer",
        "learning-rate",
        "head-learning-rate",
        "validation",
        "resume",
        "overwrite",
    )
    assert all(f"--{option}" in out for option in (*options, *more))
    assert "0.0005" in run("adapt", "--recipe", "paper", "--help")[1]
    listed = run("list")[1]
    assert all(name in listed for name in (*LOSSES, *TUNE, *RECIPES))
    kinds = field_kinds(Adaptation)
    assert (get_args(kinds["loss"]), get_args(kinds["tune"])) == (tuple(LOSSES), tuple(TUNE))


BAD_WORDS = (
    (["--recipe", "papr"], 2, 'got papr (did you mean "paper"?)'),
    (["--test-label-column", "label"], 1, "go with --test SOURCE only"),
    (["--backbone", "./none"], 1, '"./none" is neither; give one with --backbone'),
    (["--test", "./none"], 1, "./none does not exist"),
    (["--marks", "./none.csv"], 1, "cannot be read as a CSV of marks"),
    (["--tune", "vpt-deep"], 1, "so it cannot be saved; use --tune lora, ssf or bitfit"),
    (["--tune", "adapter", "--backbone", "./none"], 1, "so it cannot be saved; use --tune lora, ssf or bitfit"),
    (["--learning-rate", "-1"], 1, "expected --learning-rate above 0"),
    (["--source", "./none"], 1, "--source says where the images of a run lie now"),
)


def test_bad_words_are_one_line(subtests: pytest.Subtests, finished: Path, run: Run, tmp_path: Path) -> None:
    for number, (words, code, said) in enumerate(BAD_WORDS):
        with subtests.test(" ".join(words)):
            out = tmp_path / str(number)
            found, _, err = run("adapt", finished, "--out", out, *QUICK, *words)
            assert found == code and said in err and err.count("\n") == 1
            assert not out.exists(), "nothing is left behind"


def test_what_is_no_run_and_what_is_in_the_way(finished: Path, photos: Path, run: Run, tmp_path: Path) -> None:
    before = {path.name for path in finished.iterdir()}
    for source, out, said in (
        (tmp_path, tmp_path / "m", "expected a finished run"),
        (finished, finished, "holds other files"),
        (finished, photos / "m", "outside of the source folder"),
    ):
        code, _, err = run("adapt", source, "--out", out, "--overwrite")
        assert code == 1 and said in err and err.count("\n") == 1
    assert not (tmp_path / "m").exists() and not (photos / "m").exists()
    assert {path.name for path in finished.iterdir()} == before


def test_changed_data_are_refused(photos: Path, finished: Path, run: Run, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(photos, tmp_path / "moved"))
    (moved / "cat" / "cat-1.png").write_bytes((moved / "cat" / "cat-2.png").read_bytes())
    code, _, err = run("adapt", finished, "--out", tmp_path / "m", "--source", moved, *QUICK)
    assert code == 1 and "changed since the run; scan again" in err


@pytest.mark.slow
def test_control_c_says_how_to_go_on(finished: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["adapt", str(finished), "--out", str(tmp_path / "a model"), *QUICK, "--tune", "linear"]
    with monkeypatch.context() as patch:
        break_off(patch, training, "_batches", epoch=2)
        code, _, err = run(*words)
    assert code == 1 and err.startswith("labelsieve: stopped; to go on: labelsieve adapt ")
    code, out, _ = run(*shlex.split(err.partition("to go on: labelsieve ")[2]))
    assert code == 0 and "resuming after epoch 1" in out
    assert run(*words[:3], tmp_path / "unbroken", *words[4:])[0] == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("a model", "unbroken"))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--loss", "elr"), ("--tune", "ssf")], ids=["elr", "ssf"])
def test_several_processes_give_the_model_of_one(how: tuple[str, str], finished: Path, tmp_path: Path) -> None:
    more = [*QUICK, "--epochs", "1", "--batch-size", "7", *how, "--labels", "all"]
    with Command(["adapt", finished, "--out", tmp_path / "two", *more], processes=2) as together:
        said = together.communicate()
    assert together.returncode == 0 and "Traceback" not in said, said
    assert main(["adapt", str(finished), "--out", str(tmp_path / "one"), *more]) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert set(one) == set(two)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-4)
    records = [json.loads((tmp_path / name / "adapt.json").read_text()) for name in ("one", "two")]
    assert [record["processes"] for record in records] == [1, 2], "each process trained on its own"
    losses = [record["history"][0]["loss"] for record in records]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
