"""Checkpoints: a run that is interrupted, by whatever, goes on to the verdicts of an unbroken one."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from accelerate import Accelerator
from numpy.typing import NDArray
from rich.console import Console
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from forked import Command
from interrupting import break_off
from labelsieve.cli import main
from labelsieve.core import checkpoints
from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import LabelsieveError, RunError
from labelsieve.core.progress import STOPPING, Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.gmm import GMM
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.detect.training import loop as training
from labelsieve.detect.training.cross_entropy import CrossEntropyObjective
from labelsieve.detect.training.learner import BatchSource
from labelsieve.detect.training.settings import Training
from labelsieve.pipeline import scan
from labelsieve.verdicts import CHECKPOINT_FOLDER, RECORD, Verdicts
from labelsieve.vlm import features as vlm_features
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.features import extract
from slow_cases import mostly_slow
from small_models import tiny_folder

STATE = Path(CHECKPOINT_FOLDER) / checkpoints.CHECKPOINT
QUICK: dict[str, Any] = {"epochs": 4, "min_steps": 0, "batch_size": 8, "visual_prompts": 2, "peft": "none"}


@pytest.fixture(scope="module")
def images(drawn_folder: Path) -> LabelledImages:
    return load_images(drawn_folder)


def run(images: LabelledImages, vlm: VisionLanguageModel, detector: Training, **options: Any) -> Verdicts:
    return scan(images, vlm, detector=detector, device="cpu", **{"precision": "fp32", **options})


def history(record: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in record["history"]]


def assert_same(first: Verdicts, second: Verdicts) -> None:
    assert first.table.equals(second.table)
    assert history(first.record) == history(second.record)


def interrupted(
    images: LabelledImages, vlm: VisionLanguageModel, detector: Training, out: Path, *, epoch: int = 3, **options: Any
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, BatchSource, "epoch", epoch=epoch, batch=2)
        with pytest.raises(KeyboardInterrupt):
            run(images, vlm, detector, out=out, **options)


def epochs_in(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return len(json.loads(file.metadata()["history"]))


def rewrite_owner(path: Path, change: Callable[[str], str]) -> None:
    with safe_open(path, framework="np") as file:
        metadata = {**file.metadata(), "identity": change(file.metadata()["identity"])}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it cannot be iterated
    save_file(tensors, path, metadata=metadata)


# ---------------------------------------------------------------- checkpoints


def test_there_is_a_checkpoint_after_each_epoch(
    images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, whole = [], BatchSource.epoch

    def watched(self: BatchSource, number: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        state = tmp_path / "run" / STATE
        seen.append(epochs_in(state) if state.is_file() else 0)
        return whole(self, number)

    monkeypatch.setattr(BatchSource, "epoch", watched)
    run(images, tiny_clip, GMM(**QUICK), out=tmp_path / "run")
    assert seen == [0, 1, 2, 3]
    assert not (tmp_path / "run" / CHECKPOINT_FOLDER).exists(), "a finished run needs none"


@pytest.mark.parametrize(
    "detector",
    [
        DeFT(**QUICK),
        *mostly_slow(
            [
                DeFT(**{**QUICK, "peft": "vpt-deep"}, warmup_epochs=3, evidence="threshold"),
                DeFT(**QUICK, evidence="threshold", scores_from="last-epoch"),
                SmallLoss(**{**QUICK, "peft": "vpt-shallow"}),
                GMM(**{**QUICK, "peft": "vpt-deep"}),
            ],
            quick=[],
        ),
        GMM(**QUICK, learns_from="all"),
    ],
    ids=["deft", "deft-vpt-deep", "deft-last-epoch", "small-loss-vpt-shallow", "gmm-vpt-deep", "gmm-all"],
)
def test_resuming_gives_the_verdicts_of_an_unbroken_run(
    detector: Training, images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    unbroken = run(images, tiny_clip, detector)
    interrupted(images, tiny_clip, detector, tmp_path, epoch=3)
    assert epochs_in(tmp_path / STATE) == 2
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FOLDER], "nothing may pass for a result"
    interrupted(images, tiny_clip, detector, tmp_path, epoch=4, resume=True)
    assert_same(run(images, tiny_clip, detector, out=tmp_path, resume=True), unbroken)
    assert (tmp_path / RECORD).is_file() and not (tmp_path / CHECKPOINT_FOLDER).exists()


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(
    images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    interrupted(images, tiny_clip, GMM(**QUICK), tmp_path, epoch=3)
    with safe_open(tmp_path / STATE, framework="np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it cannot be iterated
    slow = json.dumps([{**epoch, "seconds": 1000.0} for epoch in json.loads(metadata["history"])])
    save_file(tensors, tmp_path / STATE, metadata={**metadata, "history": slow})
    assert 2000 < run(images, tiny_clip, GMM(**QUICK), out=tmp_path, resume=True).record["seconds"] < 2500


def test_resuming_without_a_checkpoint_begins_anew(
    images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    detector = GMM(**QUICK)
    interrupted(images, tiny_clip, detector, tmp_path, epoch=1)
    assert list(tmp_path.iterdir()) == []
    assert_same(run(images, tiny_clip, detector, out=tmp_path, resume=True), run(images, tiny_clip, detector))


def test_without_resume_a_checkpoint_is_not_lost_by_accident(
    images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    detector = GMM(**QUICK)
    interrupted(images, tiny_clip, detector, tmp_path)
    with pytest.raises(RunError, match=r"already holds an unfinished run; use resume .* or overwrite"):
        run(images, tiny_clip, detector, out=tmp_path)
    assert epochs_in(tmp_path / STATE) == 2
    started_again = run(images, tiny_clip, GMM(**{**QUICK, "epochs": 2}), out=tmp_path, overwrite=True)
    assert len(started_again.record["history"]) == 2


OTHER_RUNS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"detector": GMM(**{**QUICK, "epochs": 5})}, f"epochs was {QUICK['epochs']} and is 5"),
    ({"detector": GMM(**{**QUICK, "peft": "vpt-deep"})}, "peft was none and is vpt-deep"),
    ({"detector": SmallLoss(**QUICK)}, "it is of GMM, not of SmallLoss"),
    ({"detector": DeFT(**QUICK)}, "it is of GMM, not of DeFT"),
    ({"seed": 1}, "seed was 0 and is 1"),
    ({"precision": "bf16"}, "precision was fp32 and is bf16"),
    ({"labels": True}, "the data changed"),
    ({"model": True}, "the model changed"),
    ({"labels": True, "model": True, "seed": 1}, "seed was 0 and is 1; the data and the model changed"),
    ({"written": ""}, "it is of another version of labelsieve"),
    ({"written": '{"settings": 3}'}, "it is of another version of labelsieve"),
    ({"more": True}, "it is of another version of labelsieve"),
)


def test_a_checkpoint_of_another_run_is_refused(
    images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    def check(other: dict[str, Any], said: str, out: Path, patch: pytest.MonkeyPatch) -> None:
        interrupted(images, tiny_clip, GMM(**QUICK), out)
        options: dict[str, Any] = {"detector": GMM(**QUICK), **other}
        given = images.with_labels(np.roll(images.labels, 1)) if options.pop("labels", False) else images
        if options.pop("model", False):
            patch.setattr(tiny_clip, "fingerprint", "of another model")
        written, more = options.pop("written", None), options.pop("more", False)
        if written is not None:
            rewrite_owner(out / STATE, lambda _text: written)
        if more:
            rewrite_owner(out / STATE, lambda text: text.replace('"seed"', '"sown": 1, "seed"'))
        refusal = f"belongs to another run: {said}.*; resume with .* with overwrite"
        with pytest.raises(RunError, match=refusal) as caught:
            run(given, tiny_clip, out=out, resume=True, **options)
        assert "\n" not in str(caught.value)
        assert epochs_in(out / STATE) == 2, "the checkpoint is still good for its own run"

    for number, (other, said) in enumerate(OTHER_RUNS):
        with subtests.test(said, changed=[*other]), pytest.MonkeyPatch.context() as patch:
            check(other, said, tmp_path / str(number), patch)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-100], lambda data: b"x" * len(data)])
def test_a_damaged_checkpoint_is_told(
    damage: Any, images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    interrupted(images, tiny_clip, GMM(**QUICK), tmp_path)
    (tmp_path / STATE).write_bytes(damage((tmp_path / STATE).read_bytes()))
    with pytest.raises(RunError, match=r"cannot be read; start again with overwrite") as caught:
        run(images, tiny_clip, GMM(**QUICK), out=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = make_engine(device="cpu", checkpoint=tmp_path / "file" / CHECKPOINT_FOLDER)
    with pytest.raises(RunError, match="could not write"):
        checkpoints.write_checkpoint(engine, {}, identity={}, history=[])


@pytest.mark.usefixtures("any_number")
def test_a_broken_training_leaves_no_checkpoint_of_its_end(
    images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(LabelsieveError, match="no longer a finite number"):
        run(images, tiny_clip, GMM(**{**QUICK, "epochs": 1, "batch_size": 32, "learning_rate": 1e38}), out=tmp_path)
    assert list(tmp_path.rglob("*.*")) == []


# ---------------------------------------------------------------- epochs and rates


@pytest.mark.parametrize(
    ("settings", "images", "expected"),
    [
        ({"epochs": 10, "warmup_epochs": 1, "min_steps": 300}, 64, (300, 30)),
        ({"epochs": 10, "warmup_epochs": 1, "min_steps": 300}, 65, (150, 15)),
        ({"epochs": 10, "warmup_epochs": 1, "min_steps": 300}, 64 * 29 + 1, (10, 1)),
        ({"epochs": 10, "warmup_epochs": 10, "min_steps": 300}, 64, (300, 300)),
        ({"epochs": 3, "warmup_epochs": 7, "min_steps": 0}, 64, (3, 3)),
        ({"epochs": 3, "warmup_epochs": 0, "min_steps": 9}, 64, (9, 0)),
        ({"epochs": 0, "warmup_epochs": 1, "min_steps": 300}, 64, (0, 0)),
        ({"epochs": 10, "warmup_epochs": 1, "min_steps": 300}, 0, (0, 0)),
    ],
)
def test_epochs_and_warm_up_are_stretched_alike(
    settings: dict[str, Any], images: int, expected: tuple[int, int]
) -> None:
    found = training.make_schedule(SmallLoss(**settings, batch_size=64), images=images)
    assert (found.epochs, found.warmup) == expected


def test_the_rate_decays_by_epoch_as_a_cosine(images: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    found = run(images, tiny_clip, GMM(**{**QUICK, "learning_rate": 0.02})).record["history"]
    expected = [0.02 * 0.5 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4)]
    assert [epoch["learning_rate"] for epoch in found] == pytest.approx(expected)


# ---------------------------------------------------------------- real processes


def words(source: Path, out: Path, *more: str) -> list[str]:
    common = ("--model", str(tiny_folder()), "--device", "cpu", "--precision", "fp32", "--out", str(out))
    frozen = () if "--peft" in more else ("--peft", "none")
    sizes = ("--min-steps", "0", "--batch-size", "8", "--visual-prompts", "2")
    return ["scan", str(source), *common, *sizes, *frozen, *more]


# Images that are enough where only the way of a run matters.
FEW = ("--limit", "16")


def wait_for(state: Path, process: Command) -> None:
    deadline = time.monotonic() + 60
    while not state.is_file():
        assert process.poll() is None and time.monotonic() < deadline, "there never was a checkpoint"
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [["--epochs", "24", "--detector", "small-loss"], ["--epochs", "6", "--peft", "vpt-deep", *FEW]],
    ids=["none", "vpt-deep"],
)
def test_a_killed_process_is_resumed(more: list[str], drawn_folder: Path, tmp_path: Path) -> None:
    arguments = words(drawn_folder, tmp_path / "run", *more)
    with Command(arguments) as process:
        wait_for(tmp_path / "run" / STATE, process)
        process.send(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / RECORD).exists()
    done = epochs_in(tmp_path / "run" / STATE)
    assert 1 <= done < int(more[1])
    assert main([*arguments, "--resume"]) == 0
    assert main(words(drawn_folder, tmp_path / "unbroken", *more)) == 0
    assert_same(Verdicts.load(tmp_path / "run"), Verdicts.load(tmp_path / "unbroken"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        path.name for path in (tmp_path / "unbroken").iterdir()
    }


ENDING = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["control-c", "terminated", "hung-up"]
)


@ENDING
def test_a_signal_in_an_epoch_ends_the_run_with_how_to_go_on(
    number: signal.Signals,
    drawn_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = BatchSource.epoch

    def epoch(batches: BatchSource, count: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        if count == 2:
            signal.raise_signal(number)
        yield from whole(batches, count)

    arguments = words(drawn_folder, tmp_path / "a run", "--detector", "gmm", "--epochs", "2", *FEW, "--overwrite")
    # a shell in the background lets what it starts ignore Ctrl-C, and nohup lets it ignore SIGHUP
    before = signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(BatchSource, "epoch", epoch)
            assert main(arguments) == 1
    finally:
        signal.signal(number, before)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("labelsieve: stopped; to go on: labelsieve scan "), said
    again = shlex.split(said.partition("to go on: labelsieve ")[2])
    assert again == [*arguments, "--resume"] and epochs_in(tmp_path / "a run" / STATE) == 1
    assert main(again) == 0
    assert len(Verdicts.load(tmp_path / "a run").record["history"]) == 2


@pytest.mark.slow
@ENDING
def test_a_stopped_run_says_how_to_go_on(number: signal.Signals, drawn_folder: Path, tmp_path: Path) -> None:
    arguments = words(drawn_folder, tmp_path / "a run", "--peft", "vpt-deep", "--epochs", "6", *FEW, "--overwrite")
    with Command(arguments) as process:
        wait_for(tmp_path / "a run" / STATE, process)
        process.send(number)
        said = process.communicate()
    assert process.returncode == 1
    assert said.count("\n") == 1 and said.startswith("labelsieve: stopped; to go on: labelsieve scan "), said
    files = [path.relative_to(tmp_path / "a run") for path in (tmp_path / "a run").rglob("*") if path.is_file()]
    assert files == [STATE]
    again = shlex.split(said.partition("to go on: labelsieve ")[2])
    assert again == [*arguments, "--resume"]
    assert epochs_in(tmp_path / "a run" / STATE) < 6
    assert main(again) == 0
    assert len(Verdicts.load(tmp_path / "a run").record["history"]) == 6


@pytest.mark.slow
def test_control_c_before_the_first_epoch_of_an_overwrite(
    drawn_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed has to work although a finished run lies there and no checkpoint does."""
    assert main(words(drawn_folder, tmp_path / "run", "--detector", "gmm", "--epochs", "1")) == 0
    before = Verdicts.load(tmp_path / "run").record["created"]
    with monkeypatch.context() as patch:
        break_off(patch, BatchSource, "epoch", epoch=1)
        arguments = words(drawn_folder, tmp_path / "run", "--detector", "gmm", "--epochs", "2", "--overwrite")
        capsys.readouterr()
        assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert Verdicts.load(tmp_path / "run").record["created"] == before, "the old run stays until the new one is whole"
    assert main(shlex.split(said.partition("to go on: labelsieve ")[2])) == 0
    assert len(Verdicts.load(tmp_path / "run").record["history"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_run_with_a_line(lost: int, drawn_folder: Path, tmp_path: Path) -> None:
    arguments = words(
        drawn_folder, tmp_path / "run", "--detector", "small-loss", "--peft", "vpt-deep", "--epochs", "16", *FEW
    )
    with Command(arguments, processes=2) as process:
        wait_for(tmp_path / "run" / STATE, process)
        ranks = sorted(psutil.Process(process.pid).children(), key=lambda child: child.pid)  # forked in their order
        assert len(ranks) == 2
        ranks[lost].kill()
        said = process.communicate()
    ours = [line for line in said.splitlines() if line.startswith(("labelsieve: ", "labelsieve ("))]
    assert len(ours) == 1, said
    who = "labelsieve: " if lost == 1 else "labelsieve (process 1): "
    assert ours[0].startswith(who) and ours[0].endswith("--resume"), ours[0]
    before = said[: said.index(ours[0])]
    assert "Traceback" not in before and "Exception ignored" not in before, before
    assert 1 <= epochs_in(tmp_path / "run" / STATE) < 16
    assert main(shlex.split(ours[0].partition("to go on: labelsieve ")[2])) == 0
    assert len(Verdicts.load(tmp_path / "run").record["history"]) == 16


@pytest.mark.parametrize("shown", [True, False])
def test_a_stop_that_was_lost_on_the_way_counts_at_the_next_step(shown: bool) -> None:
    """Python drops what a signal raises while it forks a process."""
    progress = Progress(Console(file=io.StringIO()) if shown else None)
    with progress.task("training", total=3, unit="steps") as advance:
        advance(1)
        STOPPING.set()
        try:
            with pytest.raises(KeyboardInterrupt):
                advance(1)
        finally:
            STOPPING.clear()


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_machines_share_for_a_moment_lies_in_the_run(
    epochs: int, images: LabelledImages, tiny_clip: VisionLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder for temporary files is one of each machine alone."""
    stems: list[Path] = []

    def watched(images: LabelledImages, vlm: Any, stem: Path, *more: Any, **named: Any) -> None:
        if stem.name == "adapted":  # others are features of the zero-shot model, which the cache keeps
            stems.append(stem)
        extract(images, vlm, stem, *more, **named)

    monkeypatch.setattr(vlm_features, "extract", watched)
    detector = GMM(**{**QUICK, "epochs": epochs, "peft": "vpt-deep"})
    run(images, tiny_clip, detector, out=tmp_path / "run")
    run(images, tiny_clip, detector)
    within = [stem.is_relative_to(tmp_path / "run" / CHECKPOINT_FOLDER) for stem in stems]
    assert within == [True, False] and not any(stem.parent.exists() for stem in stems)


def test_who_fails_alone_does_not_wait_for_the_others(
    images: LabelledImages, tiny_clip: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(Accelerator, "wait_for_everyone", lambda _accelerator: pytest.fail("waits for ever"))
        raise RunError("no room")

    monkeypatch.setattr(vlm_features, "extract", fail)
    with pytest.raises(RunError, match="no room"):
        run(images, tiny_clip, GMM(**{**QUICK, "epochs": 0, "peft": "vpt-deep"}))


class Elsewhere(Tensor):
    """Stands for a tensor on a GPU: so is what is made of it, and nothing else is."""


def test_what_processes_sum_lies_on_their_device(
    images: LabelledImages, tiny_clip: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL, through which GPUs talk, refuses a tensor on the CPU."""
    compute, summed = CrossEntropyObjective.__call__, []

    def on_a_gpu(self: CrossEntropyObjective, step: training.Step) -> tuple[Tensor, Any]:
        loss, seen = compute(self, step)
        return loss.as_subclass(Elsewhere), seen

    def total(_engine: Engine, value: Tensor) -> Tensor:
        summed.append(value)
        return value

    with monkeypatch.context() as patch:
        patch.setattr(CrossEntropyObjective, "__call__", on_a_gpu)
        patch.setattr(Engine, "total", total)
        run(images, tiny_clip, GMM(**{**QUICK, "epochs": 1}))
    counts = [value for value in summed if value.dtype.is_floating_point]
    assert len(counts) == 3 and all(isinstance(value, Elsewhere) for value in counts)


def by_accelerate(arguments: list[str]) -> tuple[int, str]:
    """Runs a command in two processes as docs/several-machines.md has it for CPUs, but for a port of its own."""
    accelerate = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    launch = [sys.executable, "-m", *accelerate, "-m", "labelsieve"]
    ended = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=120)
    return ended.returncode, ended.stderr


def by_forking(arguments: list[str]) -> tuple[int | None, str]:
    with Command(arguments, processes=2) as process:
        said = process.communicate()
    return process.returncode, said


_THRESHOLD = ["--evidence", "threshold"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained", "start"),
    [
        ([*_THRESHOLD, "--peft", "vpt-deep"], by_accelerate),
        ([*_THRESHOLD, "--no-context-learns"], by_forking),
        (["--detector", "small-loss", "--noise-rate", "0.4", "--warmup-epochs", "0"], by_forking),
        (["--detector", "gmm", "--peft", "vpt-deep"], by_forking),
    ],
    ids=["all", "negative-prompts", "small-loss", "gmm"],
)
def test_several_processes_give_the_verdicts_of_one(
    trained: list[str], start: Callable[[list[str]], tuple[int | None, str]], drawn_folder: Path, tmp_path: Path
) -> None:
    # the threshold alone: what is fitted for the joint evidence magnifies the last digits
    more = [*trained, "--epochs", "2", "--batch-size", "7", "--test", str(drawn_folder)]
    more += ["--limit", "29"]  # so that the last batch has an image for one of them only
    code, said = start(words(drawn_folder, tmp_path / "two", *more))
    assert code == 0 and "Traceback" not in said, said
    assert main(words(drawn_folder, tmp_path / "one", *more)) == 0
    one, two = Verdicts.load(tmp_path / "one"), Verdicts.load(tmp_path / "two")
    assert (one.record["processes"], two.record["processes"]) == (1, 2)
    assert one.table["id"].equals(two.table["id"])
    np.testing.assert_allclose(two.label_quality, one.label_quality, atol=1e-4)
    assert np.array_equal(one.predicted, two.predicted)
    assert one.record["test"] == two.record["test"]
    assert [epoch["loss"] for epoch in two.record["history"]] == pytest.approx(
        [epoch["loss"] for epoch in one.record["history"]], rel=1e-4
    )
