"""What every detector has to keep, over the whole table, and the identities that hold at the ends of the settings."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, normalize

import labelsieve as ls
from labelsieve.commands.scan import Scan
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import ModelError, SettingsError, TrainingError
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.run import mislabel
from labelsieve.demo.sketches import CLASS_NAMES, sketches
from labelsieve.detect.deft import objective as dual
from labelsieve.detect.deft.detector import RECIPES, DeFT
from labelsieve.detect.deft.objective import DualObjective
from labelsieve.detect.gmm import GMM
from labelsieve.detect.inputs import detector_inputs
from labelsieve.detect.label_match import LabelMatch
from labelsieve.detect.losses import dual_prompt_loss
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.registry import DETECTORS, detector_class
from labelsieve.detect.scores import Scores
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.detect.training.cross_entropy import SmallestLosses
from labelsieve.detect.training.loop import Schedule, Step
from labelsieve.detect.training.settings import Training
from labelsieve.detect.zero_shot import TEMPLATES
from labelsieve.finetune.selection import choose
from labelsieve.finetune.settings import Adaptation
from labelsieve.metrics import evaluate
from labelsieve.pipeline import scan
from labelsieve.verdicts import decide
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.loading import load_vlm
from slow_cases import mostly_slow

# few neighbours, since the test data have four images of a class
QUICK: dict[str, Any] = {
    "epochs": 2,
    "min_steps": 0,
    "batch_size": 16,
    "peft": "none",
    "visual_prompts": 2,
    "neighbours": 3,
}
# SimiFeat's estimate of the noise is tested with its other rivals
pytestmark = pytest.mark.usefixtures("few_steps")
TRAINED = [name for name in DETECTORS if issubclass(detector_class(name), Training)]
# DeFT without what is added to s+ at the end, so that it can be compared with cross-entropy training
PROMPTS_ALONE: dict[str, Any] = {"evidence": "threshold", "demand_agreement": False, "warmup_loss": "ce"}

# for what does not depend on how the evidence is joined after training
ONE_EPOCH: dict[str, Any] = {"epochs": 1, "evidence": "threshold"}

often = pytest.mark.parametrize("name", mostly_slow(DETECTORS, quick={"deft", "joint", "label-match", "gmm", "knn"}))
trained_detector = pytest.mark.parametrize("name", TRAINED)


def quick(name: str, **changes: Any) -> Any:
    """Returns a detector of the table with few steps, and with those of the changes that it knows."""
    kind = detector_class(name)
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in {**QUICK, **changes}.items() if key in known})


def score(detector: Any, images: LabelledImages, vlm: VisionLanguageModel, *, seed: int = 0) -> Scores:
    engine = make_engine(device="cpu", precision="fp32", seed=seed)
    scores: Scores = detector.score(detector_inputs(images, vlm, engine=engine))
    return scores


def same(first: Scores, second: Scores) -> bool:
    return (
        all(
            np.array_equal(getattr(first, name), getattr(second, name), equal_nan=name != "predicted")
            for name in ("label_quality", "predicted", "confidence")
        )
        and first.rule == second.rule
    )


@pytest.fixture(scope="module")
def clean() -> LabelledImages:
    pictures, labels = sketches(64, seed=0)
    return load_images(pictures, labels=labels, class_names=CLASS_NAMES)


@pytest.fixture(scope="module")
def drawn(drawn_folder: Path) -> LabelledImages:
    return load_images(drawn_folder)


@pytest.fixture(scope="module")
def noisy(clean: LabelledImages) -> LabelledImages:
    return mislabel(clean, seed=0)


@pytest.fixture(scope="module")
def scored(noisy: LabelledImages, mini_clip: VisionLanguageModel) -> Callable[[str], Scores]:
    """Returns a function that gives what a quick detector says of the noisy images, scored once."""
    return cache(lambda name: score(quick(name), noisy, mini_clip))


def check_contract(scores: Scores, images: LabelledImages, *, unreadable: list[int]) -> None:
    count = len(images)
    readable = np.setdiff1d(np.arange(count), unreadable)
    for values in (scores.label_quality, scores.confidence):
        assert values.shape == (count,) and values.dtype == np.float32
        assert np.flatnonzero(np.isnan(values)).tolist() == unreadable
        assert (values[readable] >= 0).all() and (values[readable] <= 1).all()
    assert scores.predicted.shape == (count,) and scores.predicted.dtype == np.int64
    assert (scores.predicted[unreadable] == -1).all()
    assert (scores.predicted[readable] >= 0).all() and (scores.predicted[readable] < len(images.class_names)).all()
    assert sorted(scores.errors) == unreadable
    assert all(
        reason.startswith(f"{images.ids[row]}: ") and "\n" not in reason for row, reason in scores.errors.items()
    )
    assert scores.zero_shot_agreement is not None and 0 <= scores.zero_shot_agreement <= 1
    assert scores.zero_shot_per_class is not None and scores.zero_shot_per_class.shape == (len(images.class_names),)
    assert not any("\n" in note for note in scores.notes)


# ---------------------------------------------------------------- every detector of the table


def test_the_table_names_it(subtests: pytest.Subtests) -> None:
    for name in DETECTORS:
        with subtests.test(name=name):
            detector = detector_class(name)()
            assert DETECTORS.label_of(detector) == name
            with pytest.raises(dataclasses.FrozenInstanceError):
                detector.anything = 1
            with pytest.raises(TypeError):
                detector_class(name)(1)


def test_scores_have_their_shapes_and_ranges(
    noisy: LabelledImages, scored: Callable[[str], Scores], subtests: pytest.Subtests
) -> None:
    for name in DETECTORS:
        with subtests.test(name=name):
            scores = scored(name)
            check_contract(scores, noisy, unreadable=[])
            assert [record["epoch"] for record in scores.history] == ([1, 2] if hasattr(quick(name), "epochs") else [])
            assert all(np.isfinite(list(record.values())).all() for record in scores.history)


@pytest.fixture(scope="module")
def agreement(drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> float | None:
    return score(LabelMatch(), drawn, tiny_clip).zero_shot_agreement


@pytest.fixture(scope="module")
def with_unreadable(drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelledImages:
    folder = shutil.copytree(drawn_folder, tmp_path_factory.mktemp("unreadable") / "photos")
    (folder / "boat" / "aaa.png").write_bytes(b"")
    (folder / "tree" / "zzz.jpg").write_text("no picture")
    return load_images(folder)


@often
def test_unreadable_images_get_a_reason_and_no_score(
    name: str, with_unreadable: LabelledImages, agreement: float | None, tiny_clip: VisionLanguageModel
) -> None:
    scores = score(quick(name), with_unreadable, tiny_clip)
    check_contract(scores, with_unreadable, unreadable=[0, len(with_unreadable) - 1])
    # what cannot be read has no influence on the zero-shot look
    assert scores.zero_shot_agreement == agreement


def test_scores_depend_on_images_labels_and_seed_alone(
    noisy: LabelledImages,
    scored: Callable[[str], Scores],
    mini_clip: VisionLanguageModel,
    subtests: pytest.Subtests,
) -> None:
    truth = noisy.truth
    assert truth is not None
    shuffled = noisy.with_labels(noisy.labels, truth=np.random.default_rng(0).permutation(truth))
    assert shuffled.truth is not None and not np.array_equal(shuffled.truth, truth)
    for name in DETECTORS:
        with subtests.test(name=name):
            torch.manual_seed(1)
            scores = scored(name)
            torch.manual_seed(2)
            before = torch.get_rng_state()
            assert same(scores, score(quick(name), shuffled, mini_clip)), (
                "read the truth, or drew from a global generator"
            )
            assert torch.equal(torch.get_rng_state(), before), "the generator of the user was drawn from"
            if name in TRAINED:
                assert not same(scores, score(quick(name), noisy, mini_clip, seed=4))


@trained_detector
def test_training_leaves_the_model_as_it_was(name: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    pixels = tiny_clip.pixels([drawn.open(row) for row in range(4)])
    with torch.inference_mode():
        before = tiny_clip.pool(pixels)
    adapted = score(quick(name, peft="vpt-deep", **ONE_EPOCH), drawn, tiny_clip)
    with torch.inference_mode():
        assert torch.equal(tiny_clip.pool(pixels), before)
    check_contract(adapted, drawn, unreadable=[])
    assert not same(adapted, score(quick(name, peft="none", **ONE_EPOCH), drawn, tiny_clip)), (
        "the image encoder was not adapted"
    )


def test_a_model_that_was_moved_without_gradients_can_be_trained() -> None:
    """The first look at the images moves the model to its device, and needs no gradients."""
    vlm = load_vlm(MINI_CLIP)
    with torch.inference_mode():
        vlm.to(torch.device("cpu", 0))
    assert not any(value.is_inference() for value in vlm.vision_layers[0].parameters())


def test_wrong_labels_are_more_suspicious(
    noisy: LabelledImages,
    scored: Callable[[str], Scores],
    mini_clip: VisionLanguageModel,
    subtests: pytest.Subtests,
) -> None:
    for name in DETECTORS:
        with subtests.test(name=name):
            # a probe that starts at nothing needs more than two epochs
            scores = score(quick(name, epochs=20), noisy, mini_clip) if name == "aum" else scored(name)
            figures = evaluate(
                wrong=np.asarray(noisy.truth != noisy.labels),
                flagged=np.zeros(len(noisy), dtype=bool),
                quality=scores.label_quality,
            )
            assert figures["auroc"] is not None and figures["auroc"] > 0.75, "barely better than guessing"


@trained_detector
def test_no_visual_prompts_are_no_module(name: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    frozen = score(quick(name, peft="none", **ONE_EPOCH), drawn, tiny_clip)
    for kind in ("vpt-deep", "vpt-shallow"):
        assert same(frozen, score(quick(name, peft=kind, visual_prompts=0, **ONE_EPOCH), drawn, tiny_clip))


@trained_detector
def test_a_batch_may_be_larger_than_the_data(name: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    exact, larger = (score(quick(name, batch_size=size, **ONE_EPOCH), drawn, tiny_clip) for size in (len(drawn), 1000))
    check_contract(larger, drawn, unreadable=[])
    assert same(exact, larger)


@trained_detector
def test_small_data_are_trained_for_enough_steps(
    name: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    # 32 images: 2 steps of 16 an epoch
    assert len(score(quick(name, min_steps=9, evidence="threshold"), drawn, tiny_clip).history) == 5


@often
def test_a_class_may_have_one_image_or_none(
    name: str, drawn_folder: Path, tmp_path: Path, tiny_clip: VisionLanguageModel
) -> None:
    shutil.copytree(drawn_folder, tmp_path / "photos")
    for path in sorted((tmp_path / "photos" / "cup").iterdir())[1:]:
        path.unlink()
    images = load_images(tmp_path / "photos", class_names=["boat", "cat", "cup", "tree", "zebra"])
    assert np.bincount(images.labels, minlength=5).tolist() == [8, 8, 1, 8, 0]
    scores = score(quick(name), images, tiny_clip)
    check_contract(scores, images, unreadable=[])
    assert scores.zero_shot_per_class is not None
    assert np.isnan(scores.zero_shot_per_class).tolist() == [False] * 4 + [True]


@often
def test_two_images_are_enough(name: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    drawn = drawn.take(np.array([0, 8]))
    check_contract(score(quick(name), drawn, tiny_clip), drawn, unreadable=[])


@often
def test_long_class_names_are_shortened_with_a_note(
    name: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    def notes(images: LabelledImages) -> list[str]:
        scanned = scan(images, tiny_clip, detector=quick(name, **ONE_EPOCH), device="cpu", precision="fp32")
        return [note for note in scanned.record["notes"] if "shortened" in note]

    long = "a very long name of a class " * 20
    images = dataclasses.replace(drawn, class_names=(f"{long}1", f"{long}2", *drawn.class_names[2:]))
    (note,) = notes(images)
    assert "a very long name" in note and "1 more" in note
    assert not notes(drawn)


@pytest.mark.usefixtures("any_number")
def test_training_that_breaks_says_so(
    drawn: LabelledImages, tiny_clip: VisionLanguageModel, subtests: pytest.Subtests
) -> None:
    # the last step may be the first that breaks
    for name, peft, epochs in product(TRAINED, ("none", "vpt-deep"), (1, 3)):
        with subtests.test(name=name, peft=peft, epochs=epochs):
            detector = quick(name, epochs=epochs, peft=peft, batch_size=len(drawn), learning_rate=1e38)
            with pytest.raises(TrainingError, match=r"no longer .*finite number.*lower learning_rate") as caught:
                score(detector, drawn, tiny_clip)
            assert "\n" not in str(caught.value)


@trained_detector
def test_contexts_too_long_for_the_text_encoder(
    name: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    with pytest.raises(ModelError, match=r"no room for a class name .* use fewer \(context_tokens\)"):
        score(quick(name, context_tokens=tiny_clip.context_length), drawn, tiny_clip)


def test_there_is_a_page_on_it(subtests: pytest.Subtests) -> None:
    folder = Path(__file__).parents[3] / "docs" / "detectors"
    for name in DETECTORS:
        with subtests.test(name=name):
            page = (folder / f"{name}.md").read_text(encoding="utf-8")
            (row,) = re.findall(
                rf"^\| \[`{name}`\]\({name}\.md\) .*", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE
            )
            assert page.startswith(f"# `{name}`") and f"`ls.{detector_class(name).__name__}`" in row
            assert getattr(ls, detector_class(name).__name__) is detector_class(name)
            for part in (
                "| input |",
                "| output |",
                "| source |",
                "| command |",
                "**Settings.**",
                "**What to expect.**",
            ):
                assert part in page
            assert "**When it fails.**" in page
            (command,) = re.findall(r"\| command \| `labelsieve scan (.+?)` \|", page)
            parsed: Any = Scan.parse(shlex.split(command), prog="labelsieve scan")
            assert DETECTORS.label_of(parsed.settings) == name
            for flag in re.findall(r"`--([a-z-]+)", page):
                options = {field.name for field in (*dataclasses.fields(parsed.settings), *dataclasses.fields(parsed))}
                assert flag.replace("-", "_") in options, f"no option --{flag}"


# ---------------------------------------------------------------- settings


WRONG_SETTINGS: tuple[dict[str, Any], ...] = (
    {"epochs": -1},
    {"min_steps": -1},
    {"warmup_epochs": -1},
    {"batch_size": 0},
    {"learning_rate": 0.0},
    {"learning_rate": float("nan")},
    {"learning_rate": float("inf")},
    {"epochs": "many"},
    {"learning_rate": "slow"},
    {"weight_decay": float("nan")},
    {"momentum": 1.0},
    {"momentum": -0.1},
    {"weight_decay": -1e-3},
    {"visual_prompts": -1},
    {"context_tokens": 0},
)


def test_settings_out_of_range(subtests: pytest.Subtests) -> None:
    for name, wrong in product(TRAINED, WRONG_SETTINGS):
        with subtests.test(name=name, wrong=wrong):
            with pytest.raises(SettingsError, match=rf"expected {next(iter(wrong))}\b.* got ") as caught:
                detector_class(name)(**wrong)
            assert "\n" not in str(caught.value)


WRONG_SETTINGS_OF_DEFT: tuple[tuple[dict[str, Any], str], ...] = (
    ({"folds": 1}, "expected folds from 2 to 100, got 1"),
    ({"evidence": "jont"}, r'got jont \(did you mean "joint"\?\)'),
    ({"warmup_loss": "ces"}, r'got ces \(did you mean "ce"\?\)'),
    ({"positive_weight": -1.0}, "expected positive_weight from 0 to 1,000, got -1.0"),
    ({"dual_prompt_weight": -1.0}, "expected dual_prompt_weight from 0 to 1,000, got -1.0"),
    ({"negative_weight": -1.0}, "expected negative_weight from 0 to 1,000, got -1.0"),
    ({"negative_prompts": False}, "without negative_prompts use threshold"),
    ({"similarity_weight": float("nan")}, "expected similarity_weight from 0 to 1,000, got nan"),
    ({"scores_from": "last-epoch", "evidence": "joint"}, "last-epoch goes with evidence threshold"),
    ({"scores_from": "last-epoch", "evidence": "threshold", "epochs": 0}, "and at least one epoch only"),
)


def test_settings_of_deft_out_of_range(subtests: pytest.Subtests) -> None:
    for wrong, said in WRONG_SETTINGS_OF_DEFT:
        with subtests.test(wrong=wrong), pytest.raises(SettingsError, match=said):
            DeFT(**wrong)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_noise_rate_out_of_range(rate: float) -> None:
    with pytest.raises(SettingsError, match="expected noise_rate from 0 to below 1"):
        SmallLoss(noise_rate=rate)


def test_unknown_way_to_adapt_the_encoder(drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    with pytest.raises(SettingsError, match=r'got vpt-depp .did you mean "vpt-deep"'):
        score(quick("gmm", peft="vpt-depp"), drawn, tiny_clip)


def test_unknown_detector() -> None:
    with pytest.raises(SettingsError, match=r'got small-los .did you mean "small-loss"'):
        detector_class("small-los")


def test_recipes_are_those_of_the_paper() -> None:
    assert RECIPES["default"] == DeFT()
    paper = RECIPES["paper"]
    assert (paper.epochs, paper.warmup_epochs, paper.batch_size, paper.learning_rate) == (10, 1, 64, 3e-2)
    assert (paper.momentum, paper.weight_decay, paper.context_tokens, paper.visual_prompts) == (0.9, 5e-4, 16, 20)
    assert (paper.peft, paper.evidence, paper.demand_agreement, paper.min_steps) == ("vpt-deep", "threshold", False, 0)
    severe, real = RECIPES["paper-severe"], RECIPES["paper-real"]
    assert dataclasses.replace(severe, learning_rate=3e-2, positive_weight=1.0) == paper
    assert (severe.learning_rate, severe.positive_weight) == (1e-2, 0.25)
    assert (real.warmup_epochs, real.warmup_loss, real.demand_agreement) == (5, "sce", True)


# ---------------------------------------------------------------- identities of the trained ones


def template_probability(images: LabelledImages, vlm: VisionLanguageModel, template: str) -> NDArray[np.float32]:
    """Classifies zero-shot without any of our code but the image encoder's: (N, K)."""
    with torch.inference_mode():
        pooled = vlm.pool(vlm.pixels([images.open(row) for row in range(len(images))]))
        text = normalize(vlm.encode_text([template.format(name) for name in images.class_names]), dim=-1)
        logits = vlm.logit_scale * normalize(vlm.project(pooled), dim=-1) @ text.T
    return np.asarray(logits.softmax(dim=1).numpy(), dtype=np.float32)


@pytest.mark.parametrize("detector", [quick("small-loss", epochs=0), quick("deft", epochs=0, **PROMPTS_ALONE)])
def test_without_training_it_is_the_frozen_model(
    detector: Training, noisy: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    scores = score(detector, noisy, tiny_clip)
    probability = template_probability(noisy, tiny_clip, f"{detector.context_init} {{}}.")
    assert scores.history == ()
    assert np.array_equal(scores.predicted, probability.argmax(axis=1))
    np.testing.assert_allclose(scores.confidence, probability.max(axis=1), atol=1e-5)
    if isinstance(detector, SmallLoss):
        np.testing.assert_allclose(scores.label_quality, probability[np.arange(len(noisy)), noisy.labels], atol=1e-5)
    else:  # both prompts are the same still, so the threshold is met exactly by all
        assert (scores.label_quality == 0.5).all()


@pytest.mark.parametrize("peft", ["none", "vpt-deep"])
def test_warm_up_over_all_epochs_is_cross_entropy_training(
    peft: str, drawn: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    training: dict[str, Any] = {"peft": peft, "warmup_epochs": 2}
    warm = score(quick("deft", **PROMPTS_ALONE, **training), drawn, tiny_clip)
    baseline = score(quick("small-loss", learns_from="all", **training), drawn, tiny_clip)
    assert np.array_equal(warm.predicted, baseline.predicted)
    np.testing.assert_allclose(warm.confidence, baseline.confidence, rtol=1e-5)
    for mine, other in zip(warm.history, baseline.history, strict=True):
        assert mine["similarity_loss"] == pytest.approx(other["loss"], rel=1e-5)
    shorter = score(quick("deft", **PROMPTS_ALONE, peft=peft, warmup_epochs=0), drawn, tiny_clip)
    assert not np.allclose(shorter.confidence, baseline.confidence, rtol=1e-5), "the selection changed nothing"


def test_a_batch_in_which_nothing_is_selected(drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    """Both prompts start alike, so that no image exceeds the threshold in the first step."""
    one_step: dict[str, Any] = {**PROMPTS_ALONE, "batch_size": len(drawn), "warmup_epochs": 0, "weight_decay": 0.0}
    scores = score(quick("deft", epochs=1, **one_step), drawn, tiny_clip)
    (record,) = scores.history
    assert record["selected"] == 0 and record["similarity_loss"] == 0 and np.isfinite(record["loss"])
    untrained = score(quick("deft", epochs=0, **one_step), drawn, tiny_clip)
    assert np.array_equal(scores.confidence, untrained.confidence), "the positive prompts learned from nothing"
    assert not np.array_equal(scores.label_quality, untrained.label_quality), "the negative prompts learn all the same"


def test_clean_labels_are_left_alone(clean: LabelledImages, mini_clip: VisionLanguageModel) -> None:
    scores = score(DeFT(min_steps=40, peft="none"), clean, mini_clip)
    assert decide(clean, scores).is_issue.mean() <= 0.05
    assert scores.zero_shot_agreement is not None and scores.zero_shot_agreement < 0.95, "too easy to tell anything"


def weights_of_deft(images: LabelledImages, vlm: VisionLanguageModel) -> dict[str, float]:
    (note,) = (note for note in score(quick("deft"), images, vlm).notes if "weights of the evidence" in note)
    assert note.endswith("(the larger, the more it counts in p_clean)")
    weights = dict(re.findall(r"([a-z][a-z -]+) ([\d.]+)", note.partition("evidence: ")[2]))
    assert set(weights) == {"zero-shot", "positive prompts", "learned threshold", "image features", "smoothed features"}
    return {kind: float(weight) for kind, weight in weights.items()}


@pytest.mark.slow
def test_deft_believes_the_zero_shot_model_as_far_as_it_knows_the_names(
    noisy: LabelledImages, mini_clip: VisionLanguageModel
) -> None:
    half = len(CLASS_NAMES) // 2
    turned = (*CLASS_NAMES[1:half], CLASS_NAMES[0], *CLASS_NAMES[half:])
    weights = weights_of_deft(dataclasses.replace(noisy, class_names=turned), mini_clip)
    assert weights["zero-shot"] > 0.1, "names of which half fit"
    turned = (*CLASS_NAMES[1:], CLASS_NAMES[0])
    weights = weights_of_deft(dataclasses.replace(noisy, class_names=turned), mini_clip)
    assert weights["zero-shot"] < 0.05, "names that fit nothing"


def test_last_epoch_keeps_what_training_saw(drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    one_step: dict[str, Any] = {**PROMPTS_ALONE, "batch_size": len(drawn), "epochs": 1}
    last = score(quick("deft", scores_from="last-epoch", **one_step), drawn, tiny_clip)
    check_contract(last, drawn, unreadable=[])
    assert (last.label_quality == 0.5).all(), "seen before the only step"
    assert not same(last, score(quick("deft", **one_step), drawn, tiny_clip))


# ---------------------------------------------------------------- the detectors to compare with


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_small_loss_flags_the_rate(rate: float, noisy: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    scores = score(quick("small-loss", noise_rate=rate, epochs=1), noisy, tiny_clip)
    verdicts = decide(noisy, scores)
    assert verdicts.is_issue.sum() == round(rate * len(noisy))
    if rate > 0:
        assert scores.label_quality[verdicts.is_issue].max() < scores.label_quality[~verdicts.is_issue].min()


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_small_loss_flags_the_rate_among_copies_too(
    rate: float, noisy: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    copies = noisy.take(np.repeat(np.arange(4), 7))
    scores = score(quick("small-loss", noise_rate=rate, epochs=1), copies, tiny_clip)
    assert decide(copies, scores).is_issue.sum() == round(rate * 28)


def test_label_match_is_the_argmax_of_zero_shot(noisy: LabelledImages, mini_clip: VisionLanguageModel) -> None:
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(mini_clip.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(mini_clip.name)
    with torch.inference_mode():
        pixels = mini_clip.pixels([noisy.open(row) for row in range(len(noisy))])
        image = normalize(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1)
        texts = []
        for name in noisy.class_names:
            inputs = tokenizer([template.format(name) for template in TEMPLATES], padding=True, return_tensors="pt")
            features = model.text_projection(model.text_model(**inputs).pooler_output)
            texts.append(normalize(normalize(features, dim=-1).mean(dim=0), dim=-1))
        probability = (model.logit_scale.exp() * image @ torch.stack(texts).T).softmax(dim=1).numpy()
    scores = score(LabelMatch(), noisy, mini_clip)
    assert np.array_equal(scores.predicted, probability.argmax(axis=1))
    np.testing.assert_allclose(
        scores.label_quality, probability[np.arange(len(noisy)), noisy.labels], rtol=1e-3, atol=1e-6
    )
    assert np.array_equal(decide(noisy, scores).is_issue, scores.predicted != noisy.labels)
    assert scores.zero_shot_agreement == pytest.approx((scores.predicted == noisy.labels).mean())


def test_gmm_gives_the_posterior_of_the_smaller_loss(noisy: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    training = {"epochs": 2, "min_steps": 0, "batch_size": 16, "peft": "none", "learns_from": "all"}
    baseline = score(SmallLoss(**training), noisy, tiny_clip)  # type: ignore[arg-type]
    scores = score(GMM(**training), noisy, tiny_clip)  # type: ignore[arg-type]
    assert np.array_equal(scores.predicted, baseline.predicted)
    losses = -np.log(baseline.label_quality.astype(np.float64))
    np.testing.assert_allclose(scores.label_quality, small_mean_posterior(losses), atol=1e-6)


@pytest.mark.slow
def test_small_loss_that_learns_from_its_own_selection(noisy: LabelledImages, mini_clip: VisionLanguageModel) -> None:
    rate, training = 0.3, {"epochs": 5, "warmup_epochs": 3, "batch_size": 16}
    scores = score(quick("small-loss", noise_rate=rate, **training), noisy, mini_clip)
    sizes = [min(16, len(noisy) - start) for start in range(0, len(noisy), 16)]
    for record, left_out in zip(scores.history, [0, rate / 2, rate, rate, rate], strict=True):
        kept = sum(int((1 - left_out) * size) for size in sizes)
        assert record["selected"] == pytest.approx(kept / len(noisy), abs=1e-6)
    baseline = score(quick("small-loss", learns_from="all", **training), noisy, mini_clip)
    assert scores.history[0]["loss"] == pytest.approx(baseline.history[0]["loss"], rel=1e-5), (
        "nothing is left out at first"
    )
    assert scores.history[-1]["loss"] < baseline.history[-1]["loss"], "the largest losses are left out"


@pytest.mark.parametrize(("warmup", "expected"), [(0, [0.4, 0.4]), (1, [0, 0.4]), (5, [0, 0.1, 0.2, 0.3, 0.4, 0.4])])
def test_share_that_small_loss_leaves_out(warmup: int, expected: list[float]) -> None:
    ready: Any = SimpleNamespace(schedule=Schedule(6, warmup, 1))
    objective = SmallestLosses(ready, noise_rate=0.4)
    assert [objective.left_out(epoch) for epoch in range(1, len(expected) + 1)] == pytest.approx(expected)


@given(st.integers(2, 40), st.floats(0, 0.99), st.integers(0, 2**16))
def test_smallest_losses_of_a_batch(images: int, rate: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randn(images, 7, generator=generator, requires_grad=True)
    labels = torch.randint(0, 7, (images,), generator=generator)
    ready: Any = SimpleNamespace(
        schedule=Schedule(1, 0, 1), batches=SimpleNamespace(engine=make_engine(device="cpu", precision="fp32"))
    )
    step = Step(positive, positive.detach(), labels, torch.arange(images), epoch=1)
    loss, seen = SmallestLosses(ready, noise_rate=rate)(step)
    # as the published code of DeFT has it: the mean over the first of the sorted losses
    kept = int((1 - rate) * images)
    smallest = cross_entropy(positive, labels, reduction="none").sort().values[:kept]
    assert seen["selected"] == kept
    assert loss.item() == pytest.approx(smallest.mean().item() if kept else 0.0, abs=1e-5)
    if kept:
        (mine,), (theirs,) = torch.autograd.grad(loss, positive), torch.autograd.grad(smallest.mean(), positive)
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
def test_gmm_that_learns_from_its_own_selection(noisy: LabelledImages, mini_clip: VisionLanguageModel) -> None:
    one: dict[str, Any] = {"epochs": 1, "batch_size": 16, "peft": "none", "min_steps": 0}
    untrained = score(SmallLoss(**{**one, "epochs": 0}), noisy, mini_clip)
    clean = small_mean_posterior(-np.log(untrained.label_quality.astype(np.float64))) > 0.5
    assert 0 < clean.mean() < 1
    scores = score(GMM(**one, warmup_epochs=0), noisy, mini_clip)
    assert scores.history[0]["selected"] == pytest.approx(clean.mean(), abs=1e-6)
    oracle = score(GMM(**one), noisy.take(np.flatnonzero(clean)), mini_clip)
    assert scores.history[0]["loss"] == pytest.approx(oracle.history[0]["loss"], rel=0.2), (
        "the others were learned from"
    )
    three: dict[str, Any] = {**one, "epochs": 3, "warmup_epochs": 2}
    later = score(GMM(**three), noisy, mini_clip)
    baseline = score(GMM(**three, learns_from="all"), noisy, mini_clip)
    assert [record.get("selected") is None for record in later.history] == [True, True, False]
    assert [a["loss"] == b["loss"] for a, b in zip(later.history, baseline.history, strict=True)] == [True, True, False]


@pytest.mark.parametrize("settings", [("small-loss", {"noise_rate": 0.0}), ("gmm", {"warmup_epochs": 2})], ids=str)
def test_learning_from_a_selection_of_all(
    settings: tuple[str, dict[str, Any]], drawn: LabelledImages, tiny_clip: VisionLanguageModel
) -> None:
    name, more = settings
    own, baseline = (score(quick(name, learns_from=which, **more), drawn, tiny_clip) for which in ("selected", "all"))
    assert same(own, baseline)


def test_posterior_of_two_clear_groups() -> None:
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(0.2, 0.05, 300), rng.normal(3.0, 0.2, 100)])
    posterior = small_mean_posterior(losses)
    assert posterior.shape == losses.shape and (posterior >= 0).all() and (posterior <= 1).all()
    assert (posterior[:300] > 0.99).all() and (posterior[300:] < 0.01).all()


@pytest.mark.parametrize("losses", [[], [0.5], [0.5, 0.5, 0.5]], ids=["none", "one", "equal"])
def test_posterior_of_losses_that_cannot_be_split(losses: list[float]) -> None:
    assert small_mean_posterior(losses).tolist() == [1.0] * len(losses)


@pytest.mark.parametrize(
    "losses", [[0.1, 0.2], [0.1, 0.1, 0.1, 4.0], [0.0] * 50 + [1e-9] * 50], ids=["2", "1:3", "near"]
)
def test_posterior_of_few_different_losses_is_quiet(losses: list[float]) -> None:
    posterior = small_mean_posterior(losses)
    assert (posterior >= 0).all() and (posterior <= 1).all()
    assert posterior[0] >= posterior[-1]


def test_small_loss_names_its_issues(tiny_clip: VisionLanguageModel, drawn: LabelledImages) -> None:
    """Its threshold is a rank: `adapt` has no business to compare it with a probability."""
    verdicts = ls.scan(drawn, tiny_clip, detector=SmallLoss(noise_rate=0.7, epochs=1, min_steps=0), device="cpu")
    assert int(verdicts.is_issue.sum()) == round(0.7 * len(drawn))
    assert verdicts.label_quality[verdicts.is_issue].max() <= verdicts.label_quality[~verdicts.is_issue].min()
    assert verdicts.record["threshold"] is None
    assert set(choose(verdicts, Adaptation()).rows) == set(np.flatnonzero(~verdicts.is_issue))


def objective_of(**settings: Any) -> tuple[DualObjective, Step]:
    engine = make_engine(device="cpu", precision="fp32")
    generator = torch.Generator().manual_seed(0)
    positive, negative = (3 * torch.randn(40, 5, generator=generator) for _ in range(2))
    labels = torch.randint(0, 5, (40,), generator=generator)
    made = DualObjective(DeFT(**settings), warmup=1, images=40, classes=5, engine=engine)
    return made, Step(positive, negative, labels=labels, rows=torch.arange(40), epoch=3)


def test_the_parts_of_the_loss_are_weighed() -> None:
    losses = {}
    for weights in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (2.0, 0.5), (0.0, 0.0)):
        objective, step = objective_of(dual_prompt_weight=weights[0], similarity_weight=weights[1])
        losses[weights] = float(objective(step)[0])
    dual, similarity = losses[1.0, 0.0], losses[0.0, 1.0]
    assert dual > 0 and similarity > 0 and losses[0.0, 0.0] == 0
    assert losses[1.0, 1.0] == pytest.approx(dual + similarity)
    assert losses[2.0, 0.5] == pytest.approx(2 * dual + similarity / 2)


def test_without_negative_prompts_one_half_of_the_probability_is_the_threshold() -> None:
    objective, step = objective_of(negative_prompts=False, evidence="threshold", demand_agreement=False)
    assert objective.required_negatives(step) is None
    likely = step.positive.softmax(dim=1)[torch.arange(40), step.labels]
    chosen = likely > 0.5
    loss, parts = objective(step)
    assert 0 < int(parts["selected"]) == int(chosen.sum()) < 40
    assert float(loss) == pytest.approx(float(-likely[chosen].log().mean()))
    quality, predicted, confidence = dual.score_by_threshold(step.positive, None, step.labels, True)
    assert torch.equal(quality, likely) and torch.equal(predicted, step.positive.argmax(dim=1))
    assert torch.equal(confidence, step.positive.softmax(dim=1).amax(dim=1))


def test_without_negative_prompts_none_is_trained(drawn: LabelledImages, tiny_clip: VisionLanguageModel) -> None:
    settings = dataclasses.replace(RECIPES["paper"], peft="none", negative_prompts=False, epochs=2)
    verdicts = ls.scan(drawn, tiny_clip, detector=settings)
    assert all("dual_prompt_loss" not in record for record in verdicts.record["history"])
    assert not verdicts.is_issue[verdicts.label_quality > 0.5].any()
    assert verdicts.is_issue[verdicts.label_quality <= 0.5].all()


def test_without_pseudo_labels_the_given_ones_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def spy(*arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(options["labels"])
        return dual_prompt_loss(*arguments, **options)

    monkeypatch.setattr(dual, "dual_prompt_loss", spy)
    for kind, replaced in (("never", False), ("after-warmup", True)):
        objective, step = objective_of(pseudo_labels_from=kind)
        objective(step)
        assert bool((seen[-1] != step.labels).any()) == replaced
