"""A scan with test images says how well what it trained classifies them; and a context that does not learn."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.nn.functional import normalize

import labelsieve as ls
from interrupting import break_off
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import DataError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.sketches import CLASS_NAMES, DEMO_STYLE, draw, sketches
from labelsieve.detect.base import Detector
from labelsieve.detect.deft import scoring
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.gmm import GMM
from labelsieve.detect.inputs import DetectorInputs, detector_inputs
from labelsieve.detect.label_match import LabelMatch
from labelsieve.detect.registry import DETECTORS, detector_class
from labelsieve.detect.scores import Scores
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.detect.training import cross_entropy
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.settings import Training
from labelsieve.pipeline import scan
from labelsieve.verdicts import Verdicts
from labelsieve.vlm.base import VisionLanguageModel
from slow_cases import mostly_slow

QUICK: dict[str, Any] = {"epochs": 2, "min_steps": 0, "batch_size": 16, "visual_prompts": 2}
FIXED: dict[str, Any] = {**QUICK, "context_learns": False}
TESTABLE = ("deft", "label-match", "clip-margin", "small-loss", "gmm")


@pytest.fixture(scope="module")
def images(drawn_folder: Path) -> LabelledImages:
    return load_images(drawn_folder)


@pytest.fixture(scope="module")
def test_images() -> LabelledImages:
    """Returns drawings of the four classes of `images`, in another order of the classes and spelled in another way."""
    names, rng = ("Tree", "CUP", "cat", "boat"), np.random.default_rng(7)
    labels = np.arange(20) % 4
    pictures = [draw(names[label].lower(), rng=rng, style=DEMO_STYLE) for label in labels]
    return load_images(pictures, labels=labels, class_names=names)


def run(images: Any, vlm: Any, detector: Any, **options: Any) -> Verdicts:
    return scan(images, vlm, detector=detector, device="cpu", precision="fp32", **options)


def predictions(
    detector: Any, images: LabelledImages, vlm: VisionLanguageModel, test: LabelledImages
) -> NDArray[np.int64]:
    """Returns what is predicted for the test images."""
    predicted = score(detector, images, vlm, test=test).test_predicted
    assert predicted is not None
    return predicted


def score(detector: Any, images: LabelledImages, vlm: VisionLanguageModel, **options: Any) -> Scores:
    engine = make_engine(device="cpu", precision="fp32")
    scores: Scores = detector.score(detector_inputs(images, vlm, engine=engine, **options))
    return scores


def keep_learners(patch: pytest.MonkeyPatch, module: Any) -> list[Learner]:
    """Returns a list that gets each learner when its training ends."""
    kept: list[Learner] = []
    real = module.train

    def train(feed: BatchSource, *arguments: Any, **options: Any) -> Any:
        history = real(feed, *arguments, **options)
        kept.append(feed.learner)
        return history

    patch.setattr(module, "train", train)
    return kept


@torch.inference_mode()
def by_hand(vlm: VisionLanguageModel, images: LabelledImages, text: Tensor) -> NDArray[np.int64]:
    """Encodes pictures one at a time with the untouched encoder, and compares them with texts (K, D)."""
    found = [
        int((normalize(vlm.project(vlm.pool(vlm.pixels([images.open(row)]))), dim=-1) @ text.T).argmax())
        for row in range(len(images))
    ]
    return np.array(found)


@torch.inference_mode()
def encoded(vlm: VisionLanguageModel, names: tuple[str, ...], context: Tensor) -> Tensor:
    token_ids, _ = vlm.tokenize_names(names, context_tokens=len(context))
    return normalize(vlm.encode_prompts(context, token_ids), dim=-1)


def share_right(predicted: NDArray[np.int64], classes: tuple[str, ...], test: LabelledImages) -> float:
    told = [test.class_names[label].lower() for label in test.labels]
    return float(np.mean([classes[index] == name for index, name in zip(predicted, told, strict=True)]))


# ---------------------------------------------------------------- what is predicted


@pytest.mark.parametrize(
    ("detector", "module"),
    [
        (DeFT(**QUICK, evidence="threshold"), scoring),
        (GMM(**QUICK), cross_entropy),
        (SmallLoss(**QUICK), cross_entropy),
    ],
    ids=["deft", "gmm", "small-loss"],
)
def test_accuracy_is_that_of_the_trained_prompts(
    detector: Training,
    module: Any,
    images: LabelledImages,
    test_images: LabelledImages,
    tiny_clip: VisionLanguageModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = keep_learners(monkeypatch, module)
    found = run(images, tiny_clip, detector, test=test_images).record["test"]
    (learner,) = kept
    text = encoded(tiny_clip, images.class_names, learner.prompts.positive.detach())
    predicted = by_hand(tiny_clip, test_images, text)
    assert found["accuracy"] == pytest.approx(share_right(predicted, images.class_names, test_images))
    assert np.array_equal(predictions(detector, images, tiny_clip, test_images), predicted)
    assert found["images"] == 20 and found["unreadable"] == 0 and found["fingerprint"]


def test_without_training_it_is_zero_shot_with_the_prompt(
    images: LabelledImages, test_images: LabelledImages, mini_clip: VisionLanguageModel
) -> None:
    text = normalize(mini_clip.encode_text([f"a photo of a {name}." for name in images.class_names]), dim=-1)
    predicted = by_hand(mini_clip, test_images, text)
    for detector in (GMM(epochs=0), DeFT(epochs=0, evidence="threshold")):
        assert np.array_equal(predictions(detector, images, mini_clip, test_images), predicted)


@pytest.mark.parametrize("name", ["label-match", "clip-margin"])
def test_what_trains_nothing_is_tested_zero_shot(
    name: str, images: LabelledImages, test_images: LabelledImages, mini_clip: VisionLanguageModel
) -> None:
    found = run(images, mini_clip, detector_class(name)(), test=test_images).record["test"]
    alone = run(test_images, mini_clip, LabelMatch())
    assert found["accuracy"] == pytest.approx((alone.predicted == test_images.labels).mean())


@pytest.mark.slow
@pytest.mark.parametrize("peft", mostly_slow(["none", "vpt-deep", "full"], quick={"vpt-deep"}))
def test_training_images_as_test_images_are_predicted_alike(
    peft: str, images: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    detector = GMM(**QUICK, peft=peft, learning_rate=1e-3)
    own = score(detector, images, tiny_clip).predicted
    assert np.array_equal(predictions(detector, images, tiny_clip, images), own)
    backwards = images.take(np.arange(len(images))[::-1].copy())
    assert np.array_equal(predictions(detector, images, tiny_clip, backwards)[::-1], own)


def test_an_adapted_encoder_is_what_is_tested(
    images: LabelledImages, test_images: LabelledImages, tiny_clip: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keep_learners(monkeypatch, cross_entropy)
    predicted = predictions(GMM(**QUICK, peft="vpt-deep"), images, tiny_clip, test_images)
    (learner,) = kept
    text = encoded(tiny_clip, images.class_names, learner.prompts.positive.detach())
    with learner.attached():
        assert np.array_equal(by_hand(tiny_clip, test_images, text), predicted)


@pytest.mark.parametrize("name", TESTABLE)
def test_test_images_change_no_verdict(
    name: str, images: LabelledImages, test_images: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    kind = detector_class(name)
    more: dict[str, Any] = (
        {"evidence": "threshold"} if name == "deft" else {}
    )  # whose fit takes longer than all the rest
    detector = kind(**QUICK, **more) if issubclass(kind, Training) else kind()
    shown, alone = (run(images, tiny_clip, detector, test=test) for test in (test_images, None))
    assert shown.table.equals(alone.table) and alone.record["test"] is None
    other = dataclasses.replace(test_images, labels=(test_images.labels + 1) % 4)
    relabelled = run(images, tiny_clip, detector, test=other)
    assert relabelled.table.equals(shown.table), "the labels of test images are read by nobody but the accuracy"
    assert relabelled.record["test"]["fingerprint"] != shown.record["test"]["fingerprint"]


def test_the_record_is_kept_with_the_run(
    drawn_folder: Path, test_images: LabelledImages, mini_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    images = load_images(drawn_folder)
    verdicts = run(images, mini_clip, LabelMatch(), test=images, out=tmp_path / "run")
    found = json.loads((tmp_path / "run" / "run.json").read_text())["test"]
    assert found == Verdicts.load(tmp_path / "run").record["test"] == verdicts.record["test"]
    assert (found["source"], found["source_name"], found["images"]) == (str(drawn_folder), drawn_folder.name, 32)
    assert found["fingerprint"] == images.fingerprint and 0 < found["accuracy"] < 1
    (note,) = (note for note in verdicts.record["notes"] if "accuracy on the test set flatters" in note)
    assert note.startswith("32 of 32 test images are among the training images")
    assert not any("flatters" in n for n in run(images, mini_clip, LabelMatch(), test=test_images).record["notes"])


@pytest.mark.parametrize(
    "detector",
    mostly_slow([LabelMatch(), GMM(**QUICK), GMM(**QUICK, peft="vpt-deep")], quick=[LabelMatch(), GMM(**QUICK)]),
    ids=["label-match", "gmm", "gmm-vpt-deep"],
)
def test_unreadable_test_images_do_not_count(
    detector: Any,
    images: LabelledImages,
    test_images: LabelledImages,
    tiny_clip: VisionLanguageModel,
    photo_folder: Callable[..., Path],
) -> None:
    folder = photo_folder({"boat": 3, "cat": 3})
    whole = load_images(folder)
    (folder / "boat" / "0.png").write_bytes(b"")
    broken = load_images(folder)
    predicted, full = (predictions(detector, images, tiny_clip, test) for test in (broken, whole))
    assert predicted[0] == -1 and np.array_equal(predicted[1:], full[1:])
    found = run(images, tiny_clip, detector, test=broken).record["test"]
    assert found["unreadable"] == 1 and found["images"] == 6
    right = np.array(images.class_names)[full] == np.repeat(["boat", "cat"], 3)
    assert found["accuracy"] == pytest.approx(right[1:].mean())
    for each in folder.rglob("*.png"):
        each.write_bytes(b"")
    none = run(images, tiny_clip, detector, test=load_images(folder)).record["test"]
    assert (none["unreadable"], none["accuracy"]) == (6, 0.0)


# ---------------------------------------------------------------- what cannot be tested


def test_those_that_have_a_model_can_be_tested() -> None:
    assert tuple(name for name in DETECTORS if detector_class(name).predicts_test) == TESTABLE


def test_others_say_so(
    subtests: pytest.Subtests, images: LabelledImages, test_images: LabelledImages, mini_clip: VisionLanguageModel
) -> None:
    for name in [name for name in DETECTORS if name not in TESTABLE]:
        said = f"detector {name} has no model that could be tested; .* deft"
        with subtests.test(name):
            with pytest.raises(SettingsError, match=said) as caught:
                run(images, mini_clip, detector_class(name)(), test=test_images)
            assert "\n" not in str(caught.value)


def test_a_detector_of_the_users_own_need_not_know_of_them(
    images: LabelledImages, test_images: LabelledImages, mini_clip: VisionLanguageModel
) -> None:
    class Own(Detector):
        def score(self, inputs: DetectorInputs) -> Scores:
            ones = np.ones(len(inputs.labels), np.float32)
            return Scores(label_quality=ones, predicted=inputs.labels, confidence=ones)

    assert run(images, mini_clip, Own()).record["test"] is None
    with pytest.raises(SettingsError, match=r"detector .*Own has no model that could be tested"):
        run(images, mini_clip, Own(), test=test_images)


def test_features_cannot_be_tested(test_images: LabelledImages) -> None:
    rng = np.random.default_rng(0)
    features = ls.load_features(rng.normal(size=(12, 4)).astype(np.float32), labels=np.arange(12) % 3)
    with pytest.raises(SettingsError, match="test images need a model to look at them"):
        run(features, None, LabelMatch(), test=test_images)


def test_unknown_classes_are_one_line(images: LabelledImages, mini_clip: VisionLanguageModel) -> None:
    pictures, labels = sketches(4, seed=3)
    test = load_images(pictures, labels=labels, class_names=("boatt", *CLASS_NAMES[1:]))
    with pytest.raises(DataError, match=r'the class "boatt" .* of the test set is none of the 4') as caught:
        run(images, mini_clip, LabelMatch(), test=test)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- command line

Run = Callable[..., tuple[int, str, str]]


def words(source: Path, out: Path, *more: object) -> list[object]:
    return ["scan", source, "--model", MINI_CLIP, "--device", "cpu", "--out", out, "--detector", "label-match", *more]


def test_from_the_command_line(drawn_folder: Path, run: Run, tmp_path: Path) -> None:
    code, out, err = run(*words(drawn_folder, tmp_path / "run", "--test", drawn_folder))
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "run" / "run.json").read_text())["test"]
    said = f"{100 * found['accuracy']:.1f}"
    assert f"right on {said} % of 32 test images" in out
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f'right on <span class="unbroken">{said}\u00a0%</span> of 32' in report and "Test images" in report
    assert "test images" not in run(*words(drawn_folder, tmp_path / "other"))[1]
    assert "Test images" not in (tmp_path / "other" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--test-split", "test"], "the options of the test set go with --test SOURCE only"),
        (["--test", "./none"], "./none does not exist"),
        (["--test", "HERE", "--detector", "knn"], "--detector knn has no model that could be tested"),
    ],
    ids=["no-source", "missing", "knn"],
)
def test_bad_words_are_one_line(more: list[str], said: str, drawn_folder: Path, run: Run, tmp_path: Path) -> None:
    placed = [str(drawn_folder) if word == "HERE" else word for word in more]
    code, _, err = run(*words(drawn_folder, tmp_path / "run", *placed))
    assert code == 1 and said in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- a context that does not learn


def changed_by(detector: Training, images: LabelledImages, vlm: VisionLanguageModel, kept: list[Learner]) -> set[str]:
    """Returns the names of the parameters of which training changed a single bit."""
    run(images, vlm, detector)
    start = Learner(vlm, images.class_names, settings=detector, engine=make_engine(device="cpu", precision="fp32"))
    before, after = dict(start.named_parameters()), dict(kept[-1].named_parameters())
    return {name for name in after if not torch.equal(before[name], after[name])}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "module"),
    [
        (GMM(**FIXED, peft="vpt-deep"), cross_entropy),
        (SmallLoss(**FIXED, peft="bitfit", context_init="random"), cross_entropy),
        (DeFT(**FIXED, peft="none"), scoring),
        (DeFT(**FIXED, peft="vpt-shallow", weight_decay=0.1), scoring),
    ],
    ids=["gmm", "small-loss-random", "deft-frozen", "deft"],
)
def test_a_fixed_context_stays_and_the_rest_learns(
    detector: Training,
    module: Any,
    images: LabelledImages,
    tiny_clip: VisionLanguageModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = changed_by(detector, images, tiny_clip, keep_learners(monkeypatch, module))
    assert "prompts.positive" not in changed
    assert ("prompts.negative" in changed) == isinstance(detector, DeFT)
    assert any(name.startswith("peft.") for name in changed) == (detector.peft != "none")


def test_a_learning_context_learns(
    images: LabelledImages, tiny_clip: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changed_by(GMM(**QUICK, peft="none"), images, tiny_clip, keep_learners(monkeypatch, cross_entropy)) == {
        "prompts.positive"
    }


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (GMM, {"peft": "none"}),
        (SmallLoss, {"peft": "vpt-deep", "visual_prompts": 0}),
        (SmallLoss, {"peft": "auto", "visual_prompts": 0}),
        (DeFT, {"peft": "none", "negative_prompts": False, "evidence": "threshold"}),
    ],
)
def test_nothing_to_train_is_one_line(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"nothing is left to train: .* peft {settings['peft']}") as caught:
        kind(**settings, context_learns=False)
    assert "\n" not in str(caught.value)
    kind(**settings, context_learns=False, epochs=0)  # which trains nothing anyway


def test_auto_takes_visual_prompts_where_nothing_else_would_learn(
    images: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=500))
    verdicts = run(images, tiny_clip, GMM(**FIXED, peft="auto"), progress=progress)
    assert verdicts.record["detector"]["resolved"]["peft"] == "vpt-deep"
    assert "peft auto: visual prompts; nothing else is left to train" in out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "detector", [DeFT(**FIXED, evidence="threshold"), GMM(**FIXED, peft="vpt-deep")], ids=["deft", "gmm-vpt-deep"]
)
def test_resuming_with_a_fixed_context(
    detector: Training,
    images: LabelledImages,
    test_images: LabelledImages,
    tiny_clip: VisionLanguageModel,
    tmp_path: Path,
) -> None:
    detector = dataclasses.replace(detector, batch_size=8)
    unbroken = run(images, tiny_clip, detector, test=test_images)
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, BatchSource, "epoch", epoch=2, batch=2)
        with pytest.raises(KeyboardInterrupt):
            run(images, tiny_clip, detector, out=tmp_path)
    resumed = run(images, tiny_clip, detector, test=test_images, out=tmp_path, resume=True)
    assert resumed.table.equals(unbroken.table)
    losses = [[epoch["loss"] for epoch in each.record["history"]] for each in (unbroken, resumed)]
    assert losses[0] == losses[1] and resumed.record["test"] == unbroken.record["test"]
