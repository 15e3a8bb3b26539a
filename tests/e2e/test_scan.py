"""The main job as a function: what it keeps, what it refuses, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

import labelsieve as ls
from labelsieve.core.errors import ModelError, RunError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.noise import inject
from labelsieve.detect.base import Detector
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.label_match import LabelMatch
from labelsieve.detect.scores import Scores
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.pipeline import scan
from labelsieve.run_folder import check_run_folder
from labelsieve.verdicts import Verdicts
from labelsieve.vlm.base import VisionLanguageModel

ISSUES = {"boat/tree-0.png", "cat/boat-0.png", "cup/cat-0.png", "tree/cup-0.png"}
FILES = {"run.json", "verdicts.csv", "verdicts.parquet", "findings.parquet"}


@pytest.fixture(scope="module")
def images(drawn_folder: Path) -> LabelledImages:
    return load_images(drawn_folder)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_example_of_the_package(drawn_folder: Path, mini_clip: VisionLanguageModel, tmp_path: Path) -> None:
    images = ls.load_images(drawn_folder)
    verdicts = ls.scan(images, mini_clip, detector=ls.LabelMatch())
    verdicts.save(tmp_path)
    ls.write_report(verdicts, images, tmp_path / "report.html")
    assert names(tmp_path) == {*FILES, "report.html"}
    flagged = {verdicts.table["id"][row].as_py() for row in np.flatnonzero(verdicts.is_issue)}
    assert flagged >= ISSUES and len(flagged) <= 8, "a model that knows drawings finds the wrong ones"
    first = np.argsort(np.asarray(verdicts.table["rank"]))[:4]
    assert {verdicts.table["id"][row].as_py() for row in first} <= flagged, "ranks begin with the issues"


def test_a_run_folder_says_where_it_came_from(
    images: LabelledImages, mini_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    detector = SmallLoss(epochs=2, min_steps=0, noise_rate=0.125)
    verdicts = scan(images, mini_clip, detector=detector, seed=7, device="cpu", precision="fp32", out=tmp_path / "run")
    assert names(tmp_path / "run") == FILES
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["detector"]["name"] == "small-loss" and record["detector"]["recipe"] is None
    assert record["detector"]["settings"] == {**vars(detector)}
    assert (record["seed"], record["precision"], record["processes"]) == (7, "fp32", 1)
    assert record["data"] == {"images": 32, "classes": 4, "fingerprint": images.fingerprint}
    assert record["model"]["fingerprint"] == mini_clip.fingerprint
    assert record["source"] == images.origin["source"] and record["out"] == str(tmp_path / "run")
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2]
    assert {"torch", "transformers", "python", "labelsieve"} <= set(record["versions"])
    assert verdicts.is_issue.sum() == 4
    assert Verdicts.load(tmp_path / "run").table.equals(verdicts.table)


def test_the_default_is_deft(
    images: LabelledImages, mini_clip: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def score(self: DeFT, *_: object, **__: object) -> Scores:
        seen.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(DeFT, "score", score)
    with pytest.raises(KeyboardInterrupt):
        scan(images, mini_clip)
    assert seen == [DeFT()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EveryThird(Detector):
    """A detector of the user's own, which looks at nothing."""

    quality: float = 0.25

    def score(self, inputs: DetectorInputs) -> Scores:
        quality = np.where(np.arange(len(inputs.labels)) % 3 == 0, self.quality, 1.0).astype(np.float32)
        return Scores(label_quality=quality, predicted=inputs.labels, confidence=quality)


def test_a_detector_of_the_users_own(images: LabelledImages, mini_clip: VisionLanguageModel, tmp_path: Path) -> None:
    verdicts = scan(images, mini_clip, detector=EveryThird(quality=0.5), out=tmp_path / "run")
    assert np.flatnonzero(verdicts.is_issue).tolist() == list(range(0, 32, 3))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["detector"]["name"] == "EveryThird" and record["detector"]["settings"] == {"quality": 0.5}
    assert record["zero_shot_agreement"] is None and record["history"] == []
    ls.write_report(verdicts, images, tmp_path / "run" / "report.html")


def test_says_how_many_labels_are_wrong_where_p_clean_is_a_probability(
    images: LabelledImages, mini_clip: VisionLanguageModel
) -> None:
    joint = scan(inject(images, kind="symmetric", rate=0.3), mini_clip, detector=ls.Joint())
    expected = float((1 - joint.label_quality.astype(np.float64)).sum())
    estimate = joint.record["estimate"]
    assert estimate["wrong_labels"]["value"] == pytest.approx(expected) and expected > 0
    assert all(each["low"] <= each["value"] <= each["high"] for each in estimate.values())
    flagged = joint.is_issue
    assert estimate["right_flags"]["value"] == pytest.approx((1 - joint.label_quality[flagged]).mean())
    assert estimate["missed_labels"]["value"] == pytest.approx((1 - joint.label_quality[~flagged]).sum())
    assert not any("noise rate" in note for note in joint.record["notes"]), "one estimate, not two"
    match = scan(images, mini_clip, detector=ls.LabelMatch())
    assert match.record["estimate"] is None
    by_class = [(match.predicted == match.given)[match.given == k].mean() for k in range(len(images.class_names))]
    assert match.record["zero_shot_balanced_agreement"] == pytest.approx(np.mean(by_class))


def test_without_a_folder_nothing_is_kept(
    images: LabelledImages, mini_clip: VisionLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    verdicts = scan(images, mini_clip, detector=SmallLoss(epochs=1, min_steps=0), device="cpu")
    assert len(verdicts) == 32 and verdicts.record["out"] is None
    assert list(tmp_path.iterdir()) == []


def test_metrics_come_with_the_truth_only(
    images: LabelledImages, mini_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    truth = np.array([images.class_names.index(Path(name).stem.split("-")[0]) for name in images.ids])
    known = images.with_labels(images.labels, truth=truth)
    assert scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "without").metrics is None
    metrics = scan(known, mini_clip, detector=LabelMatch(), out=tmp_path / "with").metrics
    assert metrics is not None and metrics["noise_rate"] == 0.125
    assert json.loads((tmp_path / "with" / "metrics.json").read_text()) == metrics
    assert not (tmp_path / "without" / "metrics.json").exists()
    scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "with", overwrite=True)
    assert not (tmp_path / "with" / "metrics.json").exists(), "metrics of the replaced run"


def test_a_finished_run_is_not_replaced_by_accident(
    images: LabelledImages, mini_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RunError, match="already holds a finished run; use overwrite"):
        scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "run")
    with pytest.raises(RunError, match="finished run: there is nothing to resume"):
        scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "run", resume=True)
    with pytest.raises(ModelError, match="no room for a class name"):  # an overwrite that fails on the way
        scan(images, mini_clip, detector=SmallLoss(context_tokens=200), out=tmp_path / "run", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert Verdicts.load(tmp_path / "run").record["detector"]["name"] == "label-match"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("device", "tpu", "expected device to be one of those available here .*, got tpu"),
        ("precision", "fp16", "expected precision to be auto, fp32 or bf16, got fp16"),
    ],
)
def test_unknown_device_or_precision(
    option: str, value: str, message: str, images: LabelledImages, mini_clip: VisionLanguageModel
) -> None:
    with pytest.raises(SettingsError, match=message):
        scan(images, mini_clip, detector=LabelMatch(), **{option: value})  # type: ignore[arg-type]


def test_check_run_folder(tmp_path: Path) -> None:
    assert check_run_folder(tmp_path / "new" / "deeper").is_dir()
    assert check_run_folder(tmp_path / "new" / "deeper").is_dir(), "an empty folder is welcome"
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"expected out to be a folder, .*file is a file"):
        check_run_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(RunError, match="expected out to be UTF-8"):
        check_run_folder(tmp_path / "caf\udce9")
    with pytest.raises(RunError, match=r"could not make the folder .*: Not a directory; choose a writable place"):
        check_run_folder(tmp_path / "file" / "below")
    (tmp_path / "new" / "notes.txt").write_text("x")
    with pytest.raises(RunError, match=r"already holds other files; use overwrite to replace it, or choose another"):
        check_run_folder(tmp_path / "new")
    assert check_run_folder(tmp_path / "new", overwrite=True)
    assert (tmp_path / "new" / "notes.txt").is_file(), "files of the user are left alone"


@pytest.mark.parametrize("full", ["verdicts.parquet", "verdicts.csv", "run.json"])
def test_a_disk_that_fills_up_leaves_nothing_that_passes_for_a_result(
    full: str,
    images: LabelledImages,
    mini_clip: VisionLanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "run")

    def fsync(descriptor: int) -> None:
        if full in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to tell which file is written")
    with monkeypatch.context() as patch:
        patch.setattr("labelsieve.core.files.os.fsync", fsync)
        with pytest.raises(RunError, match=f"could not write .*{full}: No space left on device; free some space"):
            scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "run", overwrite=True)
    assert not any(name.endswith(".part") for name in names(tmp_path / "run"))
    with pytest.raises(RunError):
        Verdicts.load(tmp_path / "run")
    scan(images, mini_clip, detector=LabelMatch(), out=tmp_path / "run", overwrite=True)
    assert len(Verdicts.load(tmp_path / "run")) == 32


def test_notes_reach_the_user(
    images: LabelledImages, mini_clip: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    long = dataclasses.replace(images, class_names=("boat " * 100, *images.class_names[1:]))
    verdicts = scan(long, mini_clip, detector=LabelMatch())
    (note,) = (note for note in said if "shortened" in note)
    assert note.removeprefix("note: ") in verdicts.record["notes"]
