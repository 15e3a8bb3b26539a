"""Phase 2: what is trained on, what comes out, and that it is the same after an interruption."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import labelsieve as ls
from interrupting import break_off
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import DataError, LabelsieveError, ModelError, RunError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.test_sets import with_class_names
from labelsieve.detect.evidence.discriminants import fit_linear
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.scores import Scores
from labelsieve.finetune import loop as training
from labelsieve.finetune import losses as robust
from labelsieve.finetune.backbones import load_backbone
from labelsieve.finetune.job import draw_validation_rows
from labelsieve.finetune.registry import LOSSES, TUNE
from labelsieve.finetune.result import Adapted, model_card
from labelsieve.finetune.run import check_model_folder
from labelsieve.finetune.selection import Selection, choose
from labelsieve.finetune.settings import RECIPES, Adaptation
from labelsieve.finetune.terminal import summarize
from labelsieve.finetune.timm_classifier import TimmEncoder
from labelsieve.finetune.timm_encoders import IMAGE_ENCODERS
from labelsieve.finetune.tuning import prepare
from labelsieve.flagging import FlagRule, NamedIssues
from labelsieve.metrics import measure
from labelsieve.review.row_reviews import Reviewed, RowReviews, clean_part, marks_of_rows, read_reviews
from labelsieve.verdicts import Verdicts, decide
from slow_cases import mostly_slow
from small_adaptations import CLASSES, FLAGGED, QUICK, adapted, differs, mislabelled, pictures, verdicts_on, weights
from small_backbones import BACKBONES, SIZE, backbone_folder
from small_models import edit_json, edit_weights, random_clip

UNREADABLE = 7
Model = Callable[[str], Path]


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return mislabelled()


@pytest.fixture(scope="module")
def test_images() -> LabelledImages:
    drawn, labels = pictures(12, seed=1)
    return load_images(drawn, labels=labels, class_names=CLASSES)


@pytest.fixture(scope="module")
def verdicts(images: LabelledImages) -> Verdicts:
    return verdicts_on(images)


@pytest.fixture(scope="module")
def starts(images: LabelledImages, verdicts: Verdicts, model: Model) -> Callable[[str], Adapted]:
    """Returns a function that gives a backbone as it is before the first epoch, with a head of zeros, made once."""
    return cache(lambda kind: adapted(images, verdicts, model(kind), epochs=0, head_init="zeros"))


def assert_same(first: Adapted, second: Adapted) -> None:
    one, two = weights(first), weights(second)
    assert list(one) == list(two)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=0, msg=key)
    assert history(first) == history(second)


def history(result: Adapted) -> list[dict[str, Any]]:
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in result.history]


# ---------------------------------------------------------------- every kind of backbone


# a vision transformer, stages of convolutions, stages of attention, and image encoders out of models with texts
OFTEN = {"vit", "resnet", "swin", "clip"}


@pytest.mark.parametrize("kind", mostly_slow(BACKBONES, quick=OFTEN))
def test_the_result_is_a_standard_classifier(
    kind: str, images: LabelledImages, verdicts: Verdicts, test_images: LabelledImages, model: Model, tmp_path: Path
) -> None:
    result = adapted(images, verdicts, model(kind), out=tmp_path / "m", test=test_images, learning_rate=1e-3, epochs=1)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        *("README.md", "adapt.json", "config.json", "metrics.json", "model.safetensors", "preprocessor_config.json")
    }
    modes = {path.stat().st_mode for path in (tmp_path / "m").iterdir()}
    assert len(modes) == 1, "who may read one file may read all"
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "m")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "m")
    assert loaded.config.id2label == dict(enumerate(CLASSES))
    assert loaded.config.label2id == {name: index for index, name in enumerate(CLASSES)}
    shown = [test_images.open(row) for row in range(6)]
    with torch.inference_mode():
        inputs = processor(images=shown, return_tensors="pt")["pixel_values"]
        there, here = loaded(pixel_values=inputs).logits, result.backbone.logits(result.backbone.pixels(shown))
    torch.testing.assert_close(there, here, rtol=1e-6, atol=1e-5)  # convolutions have another memory layout here
    classify = transformers.pipeline("image-classification", str(tmp_path / "m"), device="cpu")
    found = [answer[0]["label"] for answer in classify(shown)]
    assert found == [CLASSES[index] for index in there.argmax(dim=1)]
    saved = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert saved == json.loads(json.dumps(result.metrics))
    assert result.metrics["test"]["accuracy"] > 0.6, "three colours, told apart by chance in a third"


@pytest.mark.parametrize("kind", mostly_slow(BACKBONES, quick=OFTEN))
def test_training_sees_the_colours_that_the_processor_makes(kind: str, model: Model) -> None:
    backbone = load_backbone(str(model(kind)), CLASSES)
    picture = pictures(1)[0][0]  # of the right size, so that nothing is resized
    plain = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(backbone.normalise(plain), backbone.pixels([picture]), rtol=0, atol=1e-5)


def test_colours_in_another_order_are_found_out(model: Model, tmp_path: Path) -> None:
    folder = backbone_folder(tmp_path, "vit")
    config = {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True, "do_center_crop": False}
    size = {"size": {"height": SIZE, "width": SIZE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config | size))
    backbone, picture = load_backbone(str(folder), CLASSES), pictures(1)[0][0]
    plain = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(backbone.normalise(plain), plain.flip(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(backbone.normalise(plain), backbone.pixels([picture]), rtol=0, atol=1e-5)


# ---------------------------------------------------------------- what is trained


@pytest.mark.slow
def test_the_ways_to_train_change_what_they_say(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    start = adapted(images, verdicts, model("vit"), epochs=0)
    changed = {
        tune: differs(start, adapted(images, verdicts, model("vit"), tune=tune, epochs=1, learning_rate=1e-2))
        for tune in TUNE
    }
    head, every = {"classifier.weight", "classifier.bias"}, set(weights(start))
    assert changed["linear"] == head
    assert changed["full"] == every
    outside = {key for key in every if ".embeddings." in key or key.startswith("vit.layernorm")}
    assert changed["paper"] == every - outside and len(outside) == 6
    assert changed["bitfit"] == {key for key in every if key.endswith("bias")} | head
    matrices = {key for key in every if ".layers." in key and "norm" not in key and key.endswith("weight")}
    assert changed["lora"] == matrices | head, "merged: no weight of its own is left"
    assert changed["ssf"] == {key for key in every if ".layers." in key and "norm" not in key} | head
    assert changed["vpt-deep"] == changed["vpt-shallow"] == changed["adapter"] == head


def test_the_ways_to_train_fit_every_architecture(
    images: LabelledImages,
    verdicts: Verdicts,
    model: Model,
    starts: Callable[[str], Adapted],
    subtests: pytest.Subtests,
) -> None:
    for tune, kind in (
        *(("paper", kind) for kind in ("resnet", "swin", "siglip")),
        *(("lora", kind) for kind in ("convnext", "swin", "clip")),
        *(("bitfit", kind) for kind in ("resnet", "convnext", "siglip", "clip")),
    ):
        with subtests.test(tune, kind=kind):
            start = starts(kind)  # the probe would leave next to no loss on these, and so no gradient
            result = adapted(images, verdicts, model(kind), tune=tune, epochs=1, learning_rate=1e-2, head_init="zeros")
            changed = differs(start, result)  # the same names: what LoRA added is merged
            assert len(changed) > 2
            if tune == "bitfit":
                heads = {"classifier.weight", "classifier.1.weight", "timm_model.head.weight"}
                assert all(key.split(".")[-1] == "bias" for key in changed - heads)
            else:
                assert not {key for key in changed if "embed" in key}
            if tune != "paper":
                statistics = {key for key in changed if "running" in key or "num_batches" in key}
                assert not statistics, "frozen, with their statistics"
            if tune != "lora":  # whose weights of its own are merged by now
                sizes = {key: value.numel() for key, value in result.model.named_parameters()}
                told = result.record["backbone"]
                assert sum(sizes[key] for key in changed & set(sizes)) <= told["trained"] < told["parameters"]


def test_weights_without_influence_stay(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    start = adapted(images, verdicts, model("dinov2"), epochs=0)
    result = adapted(images, verdicts, model("dinov2"), weight_decay=0.5, learning_rate=1e-2)
    same = set(weights(start)) - differs(start, result)
    assert same == {"dinov2.embeddings.mask_token"}, "pictures have no masks"


def test_zero_epochs_are_the_pretrained_features_with_the_first_head(
    images: LabelledImages, verdicts: Verdicts, model: Model
) -> None:
    pretrained = load_backbone(str(model("vit")), CLASSES)
    zeros = adapted(images, verdicts, model("vit"), epochs=0, head_init="zeros")
    probe = adapted(images, verdicts, model("vit"), epochs=0)
    for result in (zeros, probe):
        assert differs_from(pretrained, result) <= {"classifier.weight", "classifier.bias"}
        assert result.history == [] and result.metrics["saved_epoch"] == 0
    assert not zeros.backbone.head.weight.any() and not zeros.backbone.head.bias.any()
    rows = choose(verdicts, Adaptation()).rows
    with torch.inference_mode():
        features = torch.cat([pretrained.pool(pretrained.pixels([images.open(row)])) for row in range(len(images))])
    logits = features @ probe.backbone.head.weight.T + probe.backbone.head.bias
    assert (logits.argmax(dim=1).numpy() == images.labels)[rows].all()


def differs_from(backbone: Any, result: Adapted) -> set[str]:
    before, after = backbone.model.state_dict(), weights(result)
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


def linear(features: NDArray[Any], labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Returns the logits of the head that starts from the features."""
    generator = torch.Generator().manual_seed(0)
    slopes, biases = fit_linear(features, labels, rows=np.arange(len(labels)), classes=classes, generator=generator)
    return (torch.from_numpy(features) @ slopes.T + biases).numpy()


def test_the_first_head_is_the_discriminant_of_scikit_learn() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(0)
    labels = rng.choice(4, 2000, p=[0.1, 0.2, 0.3, 0.4])
    means = rng.normal(0, 1, (4, 5))
    features = (rng.normal(0, 1, (2000, 5)) + means[labels]).astype(np.float32)
    ours = torch.from_numpy(linear(features, labels, 4)).softmax(dim=1).numpy()
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels).predict_proba(features)
    np.testing.assert_allclose(ours, theirs, atol=0.04)  # one pseudo-image a class, and a little shrinkage


def test_the_first_head_is_not_too_sure_of_itself() -> None:
    """With as many dimensions as images a discriminant is right of all that it was fitted on."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    features, fresh = (rng.normal(0, 1, (80, 80)) + np.eye(4, 80)[labels] for _ in "ab")
    logits = linear(features.astype(np.float32), labels, 4)
    slopes, *_ = np.linalg.lstsq(np.c_[features, np.ones(80)], logits, rcond=None)
    new = torch.from_numpy(np.c_[fresh, np.ones(80)] @ slopes)
    loss = float(torch.nn.functional.cross_entropy(new, torch.from_numpy(labels)))
    assert loss < np.log(4) + 0.2, "no worse than knowing nothing"


def test_an_empty_class_does_not_win() -> None:
    features = np.random.default_rng(0).normal(0, 1, (60, 6)).astype(np.float32)
    labels = np.arange(60) % 2
    features[:, 0] += 6 * labels
    logits = linear(features, labels, 3)
    assert (logits.argmax(axis=1) == labels).all()
    assert np.ptp(logits[:, 2]) < 1e-5, "it has no slope"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train(name: str, images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    settings = dataclasses.replace(RECIPES[name], epochs=1, min_steps=0)
    result = ls.adapt(images, verdicts, backbone=model("vit"), settings=settings, device="cpu", precision="fp32")
    assert result.record["settings"] == dataclasses.asdict(settings)
    assert result.history[0]["learning_rate"] == settings.learning_rate


def test_the_recipe_of_the_paper() -> None:
    paper = RECIPES["paper"]
    assert (paper.optimizer, paper.learning_rate, paper.head_learning_rate) == ("sgd", 5e-4, 5e-4)
    assert (paper.momentum, paper.weight_decay, paper.epochs, paper.batch_size) == (0.9, 5e-4, 10, 64)
    assert (paper.tune, paper.loss, paper.labels, paper.min_steps) == ("full", "ce", "selected", 0)


def test_the_rate_decays_by_epoch_and_small_data_are_passed_often(
    images: LabelledImages, verdicts: Verdicts, model: Model
) -> None:
    result = adapted(images, verdicts, model("vit"), tune="linear", epochs=4, min_steps=30)
    rates = [epoch["head_learning_rate"] for epoch in result.history]
    assert rates == pytest.approx([3e-4 * 0.5 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4)])
    assert sum(epoch["steps"] for epoch in result.history) == 36, "3 steps a pass, 3 passes an epoch"
    assert {epoch["images"] for epoch in result.history} == {3 * 21}


def test_cross_entropy_training_is_what_the_settings_say(
    images: LabelledImages, verdicts: Verdicts, model: Model
) -> None:
    """One full-batch step of SGD on the head, by hand."""
    settings = {"tune": "linear", "head_init": "zeros", "optimizer": "sgd", "epochs": 1, "batch_size": 99}
    result = adapted(images, verdicts, model("vit"), **settings, head_learning_rate=0.5, weight_decay=0.1)
    backbone, rows = load_backbone(str(model("vit")), CLASSES), choose(verdicts, Adaptation()).rows
    with torch.inference_mode():
        features = torch.cat([backbone.pool(backbone.pixels([images.open(row)])) for row in rows])
    target = torch.nn.functional.one_hot(torch.from_numpy(images.labels[rows]), 3) - 1 / 3
    slope = target.T.float() @ features / len(rows)
    torch.testing.assert_close(result.backbone.head.weight.detach(), 0.5 * slope, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- what is trained on


@pytest.mark.slow
def test_nothing_flagged_selected_is_all(images: LabelledImages, model: Model) -> None:
    clean = verdicts_on(images, flagged=())
    assert_same(
        adapted(images, clean, model("vit"), labels="selected"), adapted(images, clean, model("vit"), labels="all")
    )
    assert_same(
        adapted(images, clean, model("vit"), labels="relabel"), adapted(images, clean, model("vit"), labels="all")
    )


@pytest.mark.slow
def test_weights_of_one_are_no_weights(images: LabelledImages, model: Model) -> None:
    sure = verdicts_on(images, flagged=(), label_quality=np.ones(len(images), dtype=np.float32))
    plain = adapted(images, sure, model("vit"), labels="all")
    assert_same(adapted(images, sure, model("vit"), labels="all", weighting="p_clean"), plain)
    even = images.with_labels(np.arange(24) % 3)
    assert_same(
        adapted(even, verdicts_on(even, flagged=()), model("vit"), class_weights="balanced"),
        adapted(even, verdicts_on(even, flagged=()), model("vit")),
    )
    unsure = verdicts_on(images, flagged=())
    assert differs(adapted(images, unsure, model("vit"), weighting="p_clean"), plain)


def test_selection(images: LabelledImages) -> None:
    verdicts = verdicts_on(images, unreadable=(UNREADABLE,))
    selected, every = choose(verdicts, Adaptation()), choose(verdicts, Adaptation(labels="all"))
    relabelled = choose(verdicts, Adaptation(labels="relabel"))
    readable = set(range(24)) - {UNREADABLE}
    assert set(selected.rows) == readable - set(FLAGGED)
    assert set(every.rows) == set(relabelled.rows) == readable
    assert (every.labels == images.labels)[every.rows].all()
    rows = list(FLAGGED)
    assert (relabelled.labels[rows] == (images.labels[rows] - 1) % 3).all()
    common = {"images": 24, "kept": 0, "left_out": 0, "unreadable": 1}
    assert selected.counts == {**common, "used": 20, "dropped": 3, "relabelled": 0}
    assert relabelled.counts == {**common, "used": 23, "dropped": 0, "relabelled": 3}


@given(st.lists(st.floats(0, 1, width=32), min_size=24, max_size=24), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30)
def test_of_the_flagged_those_are_dropped_whose_label_is_hardly_right(
    images: LabelledImages, quality: list[float], threshold: float, drop_at: float
) -> None:
    values = np.array([*quality[:-1], 1.0], dtype=np.float32)  # something is always left
    threshold = min(threshold, 0.99)
    scanned = verdicts_on(images, rule=FlagRule(threshold=threshold), label_quality=values)
    found = choose(scanned, Adaptation(drop_at=drop_at))
    dropped = np.setdiff1d(np.arange(24), found.rows)
    lower = min(np.float32(threshold), np.float32(drop_at))
    assert dropped.tolist() == np.flatnonzero(values <= lower).tolist()
    assert found.counts["dropped"] + found.counts["kept"] == int((values <= np.float32(threshold)).sum())
    every = choose(scanned, Adaptation(drop_at=1.0))
    assert not every.counts["kept"] and not scanned.is_issue[every.rows].any()
    assert choose(scanned, Adaptation(labels="all", drop_at=drop_at)).counts["kept"] == 0


def test_what_is_flagged_for_another_reason_is_not_kept(images: LabelledImages, tmp_path: Path) -> None:
    quality = np.full(24, 0.9, dtype=np.float32)
    quality[[0, 5, 7, 11]] = 0.6
    other = images.labels.copy()
    other[[5, 11]] = (other[[5, 11]] + 1) % 3
    demanding = verdicts_on(
        images, flagged=(), label_quality=quality, predicted=other, rule=FlagRule(threshold=0.7, demand_agreement=True)
    )
    assert choose(demanding, Adaptation()).counts["kept"] == 2
    assert set(range(24)) - set(choose(demanding, Adaptation()).rows) == {5, 11}, "the model disagrees with these"
    named = verdicts_on(images, flagged=(), label_quality=quality, rule=NamedIssues(issue=quality < 0.7))
    assert set(range(24)) - set(choose(named, Adaptation()).rows) == {0, 5, 7, 11}, "the detector named them"
    scanned = verdicts_on(images, flagged=(), label_quality=quality, rule=FlagRule(threshold=0.7))
    marks = read_reviews(write_marks(tmp_path / "marks.csv", scanned, {0: "wrong", 5: "right", 7: "unsure"}), scanned)
    marked = choose(scanned, Adaptation(), reviews=marks)
    assert set(range(24)) - set(marked.rows) == {0} and marked.counts["kept"] == 2
    relabelled = choose(scanned, Adaptation(labels="relabel"))
    assert not relabelled.counts["relabelled"] and relabelled.counts["kept"] == 4


def test_relabelling_drops_what_has_no_other_label(images: LabelledImages) -> None:
    verdicts = verdicts_on(images, predicted=images.labels)
    assert not set(choose(verdicts, Adaptation(labels="relabel")).rows) & set(FLAGGED)


def test_weights_have_mean_one(images: LabelledImages) -> None:
    verdicts = verdicts_on(images, flagged=range(0, 24, 3))
    settings = Adaptation(weighting="p_clean", class_weights="balanced", labels="relabel")
    selection = choose(verdicts, settings)
    assert selection.weights[selection.rows].mean() == pytest.approx(1)
    sums = np.bincount(selection.labels[selection.rows], weights=selection.weights[selection.rows])
    assert sums == pytest.approx(np.full(3, len(selection.rows) / 3), rel=1e-5), "each class weighs the same"
    plain = choose(verdicts, Adaptation(weighting="p_clean", labels="all"))
    ratio = plain.weights / verdicts.label_quality
    assert ratio == pytest.approx(np.full(24, ratio[0]), rel=1e-4)


def test_a_new_label_weighs_what_the_detector_is_sure_of_it(images: LabelledImages) -> None:
    confidence = np.full(24, 0.5, dtype=np.float32)
    verdicts = verdicts_on(images, confidence=confidence)
    found = choose(verdicts, Adaptation(weighting="p_clean", labels="relabel"))
    rows, kept = list(FLAGGED), np.setdiff1d(np.arange(24), FLAGGED)
    ratio = found.weights[kept] / verdicts.label_quality[kept]
    assert ratio == pytest.approx(np.full(21, ratio[0]), rel=1e-4)
    assert found.weights[rows] == pytest.approx(np.full(3, 0.5 * ratio[0]), rel=1e-4), "not by its old label, 0.2"


def test_of_many_emptied_classes_a_few_are_named() -> None:
    names = tuple(f"kind {letter}" for letter in "abcdefgh")
    many = load_images(np.zeros((16, 4, 4), np.uint8), labels=np.arange(16) % 8, class_names=names)
    (note,) = choose(verdicts_on(many, flagged=np.flatnonzero(many.labels > 0)), Adaptation()).notes
    assert note.startswith(
        "no image is left of kind b, kind c, kind d, kind e, kind f and 2 more: the classifier keeps a"
    )
    assert "a place for them" in note


def test_an_emptied_class_keeps_its_place(images: LabelledImages, model: Model, tmp_path: Path) -> None:
    verdicts = verdicts_on(images, flagged=np.flatnonzero(images.labels == 1))
    result = adapted(images, verdicts, model("vit"), out=tmp_path / "m", test=images)
    assert result.backbone.head.out_features == 3
    assert transformers.AutoConfig.from_pretrained(tmp_path / "m").id2label == dict(enumerate(CLASSES))
    (note,) = [note for note in result.record["notes"] if "no image is left" in note]
    assert note.startswith("no image is left of green: the classifier keeps a place for it")
    assert "no image is left of green" in (tmp_path / "m" / "README.md").read_text()
    assert result.metrics["test"]["per_class"][1]["images"] > 0


def test_nothing_left_is_told(images: LabelledImages, model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all of 24 are flagged or unreadable; .* labels all"):
        adapted(images, verdicts_on(images, flagged=range(24)), model("vit"), out=tmp_path / "m")
    nothing = verdicts_on(images, flagged=(), label_quality=np.zeros(24, dtype=np.float32))
    with pytest.raises(DataError, match="weight 0"):
        adapted(images, nothing, model("vit"), labels="all", weighting="p_clean")


@pytest.mark.parametrize("tune", ["linear", "full"])
def test_mixture_learns_from_what_it_takes_for_clean(
    tune: str, images: LabelledImages, verdicts: Verdicts, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After warm-up: the losses are those of the weights that the epoch before left."""
    how: dict[str, Any] = {"labels": "all", "tune": tune, "learning_rate": 1e-3, "head_learning_rate": 1e-2}
    result = adapted(images, verdicts, model("vit"), loss="gmm", warmup_epochs=2, **how)
    plain = adapted(images, verdicts, model("vit"), **how)
    assert history(result)[:2] == history(plain)[:2] and len(result.history) == QUICK["epochs"]
    losses: list[NDArray[np.float64]] = []

    def kept(values: NDArray[np.float64]) -> Any:
        losses.append(values)
        return small_mean_posterior(values)

    monkeypatch.setattr(robust, "small_mean_posterior", kept)
    again = adapted(images, verdicts, model("vit"), loss="gmm", warmup_epochs=0, epochs=1, **how)
    start = adapted(images, verdicts, model("vit"), epochs=0, **how).backbone
    with torch.inference_mode():
        logits = start.logits(start.pixels([images.open(row) for row in range(len(images))]))
        expected = cross_entropy(logits, torch.from_numpy(images.labels), reduction="none")
    np.testing.assert_allclose(losses[0], expected, atol=1e-4)
    chosen = small_mean_posterior(expected.double().numpy()) > 0.5
    assert 0 < chosen.sum() < len(images) and again.history[0]["images"] == chosen.sum()


def test_unreadable_images_are_left_out(photo_folder: Callable[..., Path], model: Model) -> None:
    folder = photo_folder({"cat": 5, "dog": 5})
    (folder / "cat" / "1.png").write_bytes(b"not a picture")
    images = load_images(folder)
    quality, predicted = np.ones(10, dtype=np.float32), images.labels.copy()
    quality[1], predicted[1] = np.nan, -1
    known = decide(images, Scores(label_quality=quality, predicted=predicted, confidence=quality))
    result = adapted(images, known, model("vit"), test=images)
    assert {epoch["images"] for epoch in result.history} == {9}
    assert (result.metrics["test"]["images"], result.metrics["test"]["unreadable"]) == (9, 1)
    broken_since = verdicts_on(images, flagged=())
    result = adapted(images, broken_since, model("vit"))
    assert {epoch["images"] for epoch in result.history} == {9}, "and one that broke since the scan is passed over"
    result = adapted(images, broken_since, model("vit"), loss="gmm", labels="all", warmup_epochs=1, epochs=2)
    assert result.history[0]["images"] == 9 and result.history[1]["images"] <= 9


# ---------------------------------------------------------------- marks


def said_of(verdicts: Verdicts, reviews: RowReviews) -> dict[str, str]:
    marks = marks_of_rows(verdicts, reviews)
    return {name: mark for name, mark in zip(verdicts.table["id"].to_pylist(), marks.tolist(), strict=True) if mark}


def write_marks(path: Path, verdicts: Verdicts, marks: dict[int, str]) -> Path:
    lines = ["id,given_label,suggested_label,label_quality,mark"]
    for row, mark in marks.items():
        cells = (
            verdicts.table[column][row].as_py() for column in ("id", "given_label", "predicted_label", "label_quality")
        )
        lines.append(",".join([*map(str, cells), mark]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_marks_count_more_than_verdicts(images: LabelledImages, verdicts: Verdicts, tmp_path: Path) -> None:
    path = write_marks(tmp_path / "marks.csv", verdicts, {0: "right", 5: "unsure", 11: "wrong", 3: "wrong", 4: "right"})
    marks = read_reviews(path, verdicts)
    assert len(marks) == 5
    chosen = {
        labels: choose(verdicts, Adaptation(labels=labels), reviews=marks) for labels in ("selected", "all", "relabel")
    }
    assert set(range(24)) - set(chosen["selected"].rows) == {5, 11, 3}
    assert set(range(24)) - set(chosen["all"].rows) == {11, 3}, "a person called them wrong"
    assert set(range(24)) - set(chosen["relabel"].rows) == {3}, "no other label is known for it"
    assert chosen["relabel"].labels[0] == images.labels[0] and chosen["relabel"].labels[11] != images.labels[11]
    counts = chosen["selected"].counts
    assert (counts["marked_right"], counts["marked_wrong"], counts["marked_unsure"]) == (2, 2, 1)
    weighted = choose(verdicts, Adaptation(weighting="p_clean"), reviews=marks)
    assert weighted.weights[0] == weighted.weights.max(), "a person is believed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("wrong", "wrnog"), r'found "wrnog" \(did you mean "wrong"\?\)'),
        (lambda text: text.replace("mark\n", "verdict\n"), 'expected a column "mark"'),
        (lambda text: text.replace("0000003", "other"), '"other" in line 3 .* is no image of this run'),
        (lambda text: text.replace(",red,", ",blue,"), "is no image of this run with that label"),
        (lambda text: text + text.splitlines()[1].replace("right", "wrong") + "\n", "is marked right and wrong"),
        (lambda text: "", 'expected a column "id"'),
    ],
)
def test_bad_marks_are_told(change: Any, said: str, verdicts: Verdicts, tmp_path: Path) -> None:
    path = write_marks(tmp_path / "marks.csv", verdicts, {0: "right", 3: "wrong"})
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=said) as caught:
        read_reviews(path, verdicts)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read as a CSV of marks"):
        read_reviews(tmp_path / "none.csv", verdicts)


def test_marks_of_several_files_are_joined(verdicts: Verdicts, tmp_path: Path) -> None:
    first = write_marks(tmp_path / "a.csv", verdicts, {0: "right", 3: "wrong", 4: "wrong"})
    second = write_marks(tmp_path / "b.csv", verdicts, {4: "right", 5: "unsure"})
    heard = io.StringIO()
    progress = Progress(Console(file=heard, width=200))
    expected = {"0000000": "right", "0000003": "wrong", "0000004": "right", "0000005": "unsure"}
    assert said_of(verdicts, read_reviews([first, str(second)], verdicts, progress=progress)) == expected
    assert heard.getvalue() == (
        "note: 2 files of marks, 4 images marked; the files differ on 1, where the last one counts: 0000004\n"
    )
    assert said_of(verdicts, read_reviews([second, first], verdicts))["0000004"] == "wrong", "the order counts"
    read_reviews([first], verdicts, progress=progress)
    assert heard.getvalue().count("\n") == 1, "one file needs no remark"


def test_an_export_can_hold_what_training_takes(images: LabelledImages, tmp_path: Path) -> None:
    quality = np.full(24, 0.9, dtype=np.float32)
    quality[[0, 5, 7, 11]] = 0.6, 0.4, 0.6, 0.6
    scanned = verdicts_on(images, flagged=(), label_quality=quality, rule=FlagRule(threshold=0.7))
    marks = write_marks(tmp_path / "marks.csv", scanned, {7: "wrong", 5: "right", 2: "wrong"})
    trained = choose(scanned, Adaptation(), reviews=read_reviews(marks, scanned))
    assert set(range(24)) - set(trained.rows) == {7, 2} and trained.counts["kept"] == 2
    marked = Reviewed(verdicts=scanned, reviews=read_reviews(marks, scanned)).after
    assert np.flatnonzero(clean_part(marked, drop_at=0.5)).tolist() == trained.rows.tolist()
    every = choose(scanned, Adaptation(drop_at=1.0), reviews=read_reviews(marks, scanned))
    assert np.flatnonzero(clean_part(marked)).tolist() == every.rows.tolist()
    assert set(trained.rows) - set(every.rows) == {0, 11}


def test_marks_need_no_more_than_ids(verdicts: Verdicts, tmp_path: Path) -> None:
    (tmp_path / "marks.csv").write_text("\ufeffid,mark\n0000003,wrong\n0000003,wrong\n", encoding="utf-8")
    assert said_of(verdicts, read_reviews(tmp_path / "marks.csv", verdicts)) == {"0000003": "wrong"}


def test_a_label_that_a_person_names_is_trained_on(verdicts: Verdicts, tmp_path: Path) -> None:
    other = next(name for name in verdicts.class_names if name not in (verdicts.class_names[verdicts.given[3]],))
    (tmp_path / "marks.csv").write_text(f"id,mark,new_label\n0000003,wrong,{other}\n0000004,right,\n")
    reviews = read_reviews(tmp_path / "marks.csv", verdicts)
    for labels in ("selected", "all", "relabel"):
        chosen = choose(verdicts, Adaptation(labels=labels), reviews=reviews)
        assert 3 in chosen.rows and verdicts.class_names[chosen.labels[3]] == other
        assert chosen.counts["marked_wrong"] == 1 and chosen.counts["relabelled"] >= 1
    (tmp_path / "marks.csv").write_text("id,mark,new_label\n0000003,wrong,owl\n")
    with pytest.raises(DataError, match='found "owl"'):
        read_reviews(tmp_path / "marks.csv", verdicts)
    (tmp_path / "marks.csv").write_text(f"id,mark,new_label\n0000003,right,{other}\n")
    with pytest.raises(DataError, match="expected the mark wrong beside another new label in line 2"):
        read_reviews(tmp_path / "marks.csv", verdicts)


def test_a_share_of_each_class_is_held_out() -> None:
    labels = np.repeat([0, 1, 2], [20, 7, 1])
    rows = np.flatnonzero(np.arange(28) != 4)  # one is not selected
    weights = np.ones(28, dtype=np.float32)
    selection = Selection(rows=rows, labels=labels, weights=weights, counts={})
    held = draw_validation_rows(selection, 0.3, engine=make_engine(device="cpu", seed=1))
    assert np.bincount(labels[held], minlength=3).tolist() == [5, 2, 0], "rounded down"
    assert held.tolist() == sorted({*held.tolist()}) and set(held) < set(rows)
    assert not np.array_equal(held, draw_validation_rows(selection, 0.3, engine=make_engine(device="cpu", seed=2)))
    assert len(draw_validation_rows(selection, 0.0, engine=make_engine(device="cpu"))) == 0
    hundred = Selection(rows=np.arange(100), labels=np.zeros(100, int), weights=np.ones(100, np.float32), counts={})
    assert len(draw_validation_rows(hundred, 0.29, engine=make_engine(device="cpu"))) == 29, "0.29 * 100 is below 29"
    with pytest.raises(SettingsError, match=r"validation 0\.05 would hold out no image, .* fewer than 20"):
        draw_validation_rows(selection, 0.05, engine=make_engine(device="cpu"))


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param("vit", {"tune": "lora", "validation": 0.3}, marks=pytest.mark.slow),
        pytest.param("clip", {"tune": "ssf", "validation": 0.3}, marks=pytest.mark.slow),
        ("swin", {"loss": "elr", "labels": "all"}),  # drops paths at random
        pytest.param(
            "vit",
            {"loss": "gmm", "labels": "all", "epochs": 3, "tune": "linear"},  # selects from the second on
            marks=pytest.mark.slow,
        ),
        ("resnet", {"validation": 0.3, "learning_rate": 1e-2, "optimizer": "sgd"}),  # has statistics
    ],
    ids=["lora", "ssf", "elr", "gmm", "resnet"],
)
def test_resuming_gives_the_model_of_an_unbroken_run(
    kind: str, settings: dict[str, Any], images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path
) -> None:
    settings = {"epochs": 2, **settings}
    unbroken = adapted(images, verdicts, model(kind), **settings)
    out = tmp_path / "m"
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, training, "_batches", epoch=settings["epochs"])
        with pytest.raises(KeyboardInterrupt):
            adapted(images, verdicts, model(kind), out=out, **settings)
    assert [path.name for path in out.iterdir()] == ["checkpoint"], "nothing may pass for a result"
    with pytest.raises(RunError, match=r"already holds an unfinished model; use resume .* or overwrite"):
        adapted(images, verdicts, model(kind), out=out, **settings)
    with pytest.raises(RunError, match="belongs to another run: seed was 0 and is 1; resume with"):
        adapted(images, verdicts, model(kind), out=out, resume=True, seed=1, **settings)
    assert_same(adapted(images, verdicts, model(kind), out=out, resume=True, **settings), unbroken)
    assert (out / "adapt.json").is_file() and not (out / "checkpoint").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"], "no part is left over"


def test_the_same_seed_gives_the_same_model(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    torch.manual_seed(1)
    first = adapted(images, verdicts, model("swin"), tune="lora")
    torch.manual_seed(2)
    assert_same(adapted(images, verdicts, model("swin"), tune="lora"), first)
    assert differs(adapted(images, verdicts, model("swin"), tune="lora", seed=1), first)


def test_a_model_is_replaced_only_by_a_whole_one(
    images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    adapted(images, verdicts, model("vit"), out=out)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="already holds a finished model"):
        adapted(images, verdicts, model("vit"), out=out)
    with pytest.raises(RunError, match="holds a finished model: there is nothing to resume"):
        adapted(images, verdicts, model("vit"), out=out, resume=True)
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, training, "_batches", epoch=2)
        with pytest.raises(KeyboardInterrupt):
            adapted(images, verdicts, model("vit"), out=out, overwrite=True, seed=1)
    assert (out / "model.safetensors").read_bytes() == before
    adapted(images, verdicts, model("vit"), out=out, overwrite=True, resume=True, seed=1)
    assert (out / "model.safetensors").read_bytes() != before and not (out / "checkpoint").exists()
    (out / "notes.txt").touch()
    with pytest.raises(RunError, match=r"holds other files, such as notes\.txt; choose another folder"):
        adapted(images, verdicts, model("vit"), out=out, overwrite=True)
    assert (out / "notes.txt").is_file()


def test_a_disk_that_is_full_leaves_the_model_of_before(
    images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = adapted(images, verdicts, model("vit"), epochs=0)
    assert result.save(tmp_path / "m") == tmp_path / "m"
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for owner, name in ((os, "fsync"), (type(result.model), "save_pretrained")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            for folder in ("m", "new"):
                with pytest.raises(RunError, match=r"could not write .*: No space left on device; free some space"):
                    result.save(tmp_path / folder)
    assert [path.name for path in tmp_path.iterdir()] == ["m"], "no part is left over"
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"holds other files, such as run\.json; choose another folder"):
        check_model_folder(tmp_path, overwrite=True)
    assert (tmp_path / "run.json").is_file()


def test_a_folder_that_cannot_be_replaced_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path)  # as a volume of a container
    with pytest.raises(RunError, match="a disk is mounted there; choose a folder in it"):
        check_model_folder(tmp_path)
    assert check_model_folder(tmp_path / "model").is_dir()


# ---------------------------------------------------------------- accuracy


def test_measure() -> None:
    predicted, labels = np.array([0, 0, 1, 1, 0, -1]), np.array([0, 0, 0, 1, 1, 1])
    found = measure(predicted, labels, ("a", "b", "c"))
    assert found["images"] == 5 and found["unreadable"] == 1
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert [row["accuracy"] for row in found["per_class"]] == [pytest.approx(2 / 3), 0.5, None]  # type: ignore[union-attr]
    assert measure(np.array([-1]), np.array([0]), ("a", "b"))["accuracy"] == 0


def test_best_and_last_are_named_and_the_last_is_saved(
    images: LabelledImages, verdicts: Verdicts, test_images: LabelledImages, model: Model
) -> None:
    result = adapted(images, verdicts, model("vit"), test=test_images, learning_rate=3e-2)
    scores, metrics = [epoch["test_accuracy"] for epoch in result.history], result.metrics
    start = adapted(images, verdicts, model("vit"), test=test_images, epochs=0)
    scores.insert(0, start.metrics["test"]["accuracy"])
    assert metrics["test_accuracy_start"] == scores[0]
    assert metrics["test_accuracy_last"] == scores[-1] == metrics["test"]["accuracy"]
    assert metrics["test_accuracy_best"] == max(scores) == scores[metrics["test_best_epoch"]]
    assert metrics["saved_epoch"] == 2 and "was not chosen by it" in metrics["note"]
    assert_same_weights(result, adapted(images, verdicts, model("vit"), learning_rate=3e-2))


def assert_same_weights(first: Adapted, second: Adapted) -> None:
    assert not differs(first, second), "looking at the test set changes nothing"


@pytest.mark.slow
def test_validation_chooses_the_epoch(
    images: LabelledImages, verdicts: Verdicts, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.3, 0.5, 0.9, 0.9, 0.1])
    monkeypatch.setattr(training, "evaluate", lambda _job: {"validation_accuracy": next(scores, 0.0)})
    chosen = adapted(images, verdicts, model("vit"), validation=0.3, epochs=4)
    assert chosen.metrics["saved_epoch"] == 2 and chosen.metrics["validation_accuracy"] == 0.9
    scores = iter([0.3, 0.5, 0.9, 0.9, 0.95])
    assert differs(adapted(images, verdicts, model("vit"), validation=0.3, epochs=4), chosen)
    scores = iter([0.9, 0.5, 0.9, 0.9, 0.2])
    start = adapted(images, verdicts, model("vit"), validation=0.3, epochs=4)
    assert start.metrics["saved_epoch"] == 0
    assert_same_weights(start, adapted(images, verdicts, model("vit"), validation=0.3, epochs=0))
    held = chosen.record["selection"]
    assert held["trained_on"] + held["held_out"] == held["used"] == 21 and held["held_out"] == 5
    assert {epoch["images"] for epoch in chosen.history} == {16}


def test_training_images_in_the_test_set_are_told(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    notes = adapted(images, verdicts, model("vit"), test=images, epochs=0).record["notes"]
    assert any(note.startswith("21 of 24 test images are among the training images") for note in notes)


def test_what_the_scan_warned_of_is_told_again(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    findings = [
        {
            "code": "a",
            "level": "problem",
            "figure": "Half is flagged",
            "message": "It rests on nothing.",
            "advice": "Look.",
        },
        {"code": "b", "level": "warning", "figure": "Some are equal", "message": "No harm.", "advice": "Look."},
    ]
    doubtful = dataclasses.replace(verdicts, record={**verdicts.record, "findings": findings})
    result = adapted(images, doubtful, model("vit"), epochs=0)
    assert "the scan warned: Half is flagged. It rests on nothing." in result.record["notes"]
    assert "Half is flagged" in model_card(result) and "Some are equal" not in model_card(result)


def test_copies_that_a_review_gave_one_label_are_no_problem_any_more(model: Model, tmp_path: Path) -> None:
    drawn, labels = pictures(12)
    images = load_images([*drawn, drawn[0]], labels=[*labels, 1], class_names=CLASSES)
    warning = {"code": "duplicates-conflict", "level": "problem", "figure": "One image occurs twice", "message": "So."}
    verdicts = verdicts_on(images, flagged=())
    verdicts = dataclasses.replace(verdicts, record={**verdicts.record, "findings": [warning]})
    before = adapted(images, verdicts, model("vit"), epochs=0)
    assert "the scan warned: One image occurs twice. So." in before.record["notes"]
    assert "evaluated by a model, not by a person" in model_card(before)
    marks = tmp_path / "marks.csv"
    marks.write_text(f"id,mark,given_label,new_label\n{images.ids[12]},wrong,green,red\n")
    after = adapted(images, verdicts, model("vit"), epochs=0, marks=[marks])
    assert not any("occurs twice" in note for note in after.record["notes"])
    assert "not by a person" not in model_card(after) and "Labels that no person has marked were" in model_card(after)


def test_classes_are_matched_by_name(test_images: LabelledImages) -> None:
    drawn, labels = pictures(6)
    turned = load_images(drawn, labels=labels[::-1].copy(), class_names=("GREEN", "blue", "Red"))
    matched = with_class_names(turned, CLASSES)
    assert [CLASSES[index] for index in matched.labels] == [
        turned.class_names[index].lower() for index in turned.labels
    ]
    fewer = with_class_names(load_images(drawn[:4], labels=[0, 1, 0, 1], class_names=("blue", "red")), CLASSES)
    assert fewer.labels.tolist() == [2, 0, 2, 0]
    with pytest.raises(DataError, match=r'the class "gren" of the test set .* \(did you mean "green"\?\)') as caught:
        with_class_names(load_images(drawn, labels=labels, class_names=("red", "gren", "blue")), CLASSES)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- bad input


def test_verdicts_of_other_data_are_refused(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    others, labels = pictures(24, seed=9)
    for wrong in (
        load_images(others, labels=images.labels, class_names=CLASSES),
        images.with_labels(labels),
        images.take(np.arange(23)),
    ):
        with pytest.raises(RunError, match="scan"):
            adapted(wrong, verdicts, model("vit"))
    bare = dataclasses.replace(verdicts, record={})
    with pytest.raises(RunError, match="labels are not those"):
        adapted(images.with_labels(labels), bare, model("vit"))
    with pytest.raises(SettingsError, match=r"do not say which model .* \(backbone\)"):
        ls.adapt(images, bare, device="cpu")


def bad_folder(tmp_path: Path, how: str) -> Path:
    folder = backbone_folder(tmp_path / "m", "vit", size=48 if how == "size" else SIZE, processor=how != "processor")
    if how == "missing":
        edit_weights(folder, lambda state: state.pop("layernorm.weight"))
    elif how == "shape":
        edit_weights(folder, lambda state: state.update({"layernorm.weight": torch.ones(3)}))
    elif how == "infinite":
        edit_weights(folder, lambda state: state["layernorm.weight"].fill_(float("nan")))
    elif how == "truncated":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-50])
    elif how == "oblong":
        edit_json(folder / "preprocessor_config.json", size={"height": 32, "width": 48})
    elif how == "kind":
        edit_json(folder / "config.json", model_type="bert")
    elif how == "config":
        (folder / "config.json").unlink()
    return folder


def test_a_bad_backbone_is_told_in_one_line(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for how, said in (
        ("size", "does not take the 48 x 48 images that its image processor makes"),
        ("processor", "has no usable image processor"),
        ("oblong", r"to give square images .* got \(4, 3, 32, 48\)"),
        ("missing", r"incomplete, 1 missing such as vit\.layernorm\.weight"),
        ("shape", r"1 weights .* another shape than its config\.json says, such as vit\.layernorm\.weight"),
        ("infinite", "not finite"),
        ("truncated", "cannot be loaded"),
        ("kind", "is of kind bert, which transformers has no image classifier for; .* clip, siglip"),
        ("config", r"has no usable configuration \(config\.json\)"),
    ):
        with subtests.test(how):
            with pytest.raises(ModelError, match=said) as caught:
                load_backbone(str(bad_folder(tmp_path / how, how)), CLASSES)
            assert "\n" not in str(caught.value)


def test_a_model_that_does_not_end_in_a_linear_layer_is_told(tmp_path: Path) -> None:
    """That of ImageGPT has no bias."""
    folder = backbone_folder(tmp_path / "m", "vit")
    sizes: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    transformers.ImageGPTForImageClassification(transformers.ImageGPTConfig(**sizes)).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"ImageGPT.* does not end in one linear layer with bias.*another backbone"):
        load_backbone(str(folder), CLASSES)


@pytest.mark.parametrize(
    ("tune", "body", "said"),
    [
        ("paper", torch.nn.Conv2d(3, 3, 1), "has no blocks to tell from the rest; use tune full, linear or bitfit"),
        ("lora", torch.nn.Conv2d(3, 3, 1), "has no blocks to tell from the rest; use tune full, linear or bitfit"),
        ("lora", torch.nn.ModuleList([torch.nn.LayerNorm(3)]), "no layers that LoRA can go beside; choose another"),
    ],
    ids=["paper", "lora", "lora beside norms"],
)
def test_what_a_model_has_no_place_for_is_told(tune: Any, body: torch.nn.Module, said: str, model: Model) -> None:
    backbone = load_backbone(str(model("vit")), CLASSES)
    bare = dataclasses.replace(backbone, model=torch.nn.Sequential(body, backbone.head))
    with pytest.raises(ModelError, match=said):
        prepare(bare, Adaptation(tune=tune), generator=torch.Generator())


def test_an_encoder_that_computes_something_else_is_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a release of one of the libraries might; the weights fit all the same."""
    read = IMAGE_ENCODERS["clip"]

    def with_another_norm(name: str, options: dict[str, Any]) -> TimmEncoder:
        encoder = read(name, options)
        weights = {**encoder.weights, "norm_pre.weight": encoder.weights["norm_pre.weight"] * 0.5}
        return dataclasses.replace(encoder, weights=weights)

    monkeypatch.setitem(IMAGE_ENCODERS, "clip", with_another_norm)
    with pytest.raises(ModelError, match=r"computes something else than timm's .* \(off by .*another backbone"):
        load_backbone(str(model("clip")), CLASSES)


def test_a_name_that_is_no_model_is_told() -> None:
    with pytest.raises(ModelError, match=r'"\./none" is neither; give one with backbone'):
        load_backbone("./none", CLASSES)


def test_a_pickle_is_not_loaded(tmp_path: Path, model: Model) -> None:
    folder = backbone_folder(tmp_path / "m", "vit")
    state: dict[str, Any] = dict(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    torch.save({**state, "more": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle that holds more than tensors"):
        load_backbone(str(folder), CLASSES)


def test_a_clip_of_the_run_is_the_default(images: LabelledImages, model: Model, tmp_path: Path) -> None:
    random_clip().save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(
        (backbone_folder(tmp_path / "other", "vit", size=64) / "preprocessor_config.json").read_text()
    )
    verdicts = verdicts_on(images)
    record = {**verdicts.record, "model": {"name": str(tmp_path / "clip")}}
    settings = Adaptation(epochs=0)
    result = ls.adapt(images, dataclasses.replace(verdicts, record=record), settings=settings, device="cpu")
    assert (result.backbone.kind, result.backbone.image_size) == ("timm_wrapper", 64)


@pytest.mark.parametrize(
    "kind", ["clip", "clip-encoder", "altclip", "chinese-clip", "siglip", "siglip-encoder", "blip"]
)
def test_an_encoder_is_read_where_it_meets_texts(kind: str, model: Model, images: LabelledImages) -> None:
    source: Any = transformers.AutoModel.from_pretrained(model(kind)).eval()
    backbone = load_backbone(str(model(kind)), CLASSES)
    inputs = backbone.pixels([images.open(row) for row in range(4)])
    with torch.inference_mode():
        output = getattr(source, "vision_model", source)(pixel_values=inputs)
        expected = output.last_hidden_state[:, 0] if kind == "blip" else output.pooler_output
        torch.testing.assert_close(backbone.pool(inputs), expected, rtol=0, atol=1e-5)
        assert not backbone.logits(inputs).any(), "the head is new"


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("layer_norm_eps", 1e-3)])
def test_an_encoder_that_is_not_quite_clip_is_told(key: str, value: Any, tmp_path: Path) -> None:
    folder = backbone_folder(tmp_path, "clip")
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", vision_config={**config["vision_config"], key: value})
    with pytest.raises(ModelError, match=r"is none of timm's .*; choose another backbone"):
        load_backbone(str(folder), CLASSES)


def test_a_result_is_a_backbone_again(images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path) -> None:
    first = adapted(images, verdicts, model("clip"), out=tmp_path / "m", learning_rate=1e-3)
    assert "needs `timm`" in (tmp_path / "m" / "README.md").read_text()
    second = adapted(images, verdicts, tmp_path / "m", epochs=0)
    shown = first.backbone.pixels([images.open(0)])
    with torch.inference_mode():
        torch.testing.assert_close(second.backbone.pool(shown), first.backbone.pool(shown), rtol=0, atol=1e-5)


def test_bad_settings(subtests: pytest.Subtests) -> None:
    bad: tuple[tuple[dict[str, Any], str], ...] = (
        ({"loss": "gec"}, rf'expected loss to be one of {", ".join(LOSSES)}, got gec \(did you mean "gce"\?\)'),
        ({"epochs": -1}, "expected epochs from 0 to 1,000, got -1"),
        ({"learning_rate": 0.0}, "expected learning_rate above 0 and at most 10, got 0.0"),
        ({"head_learning_rate": float("nan")}, "expected head_learning_rate above 0 and at most 10, got nan"),
        ({"momentum": 1.0}, "expected momentum from 0 to below 1"),
        ({"drop_at": 1.01}, "expected drop_at from 0 to 1, got 1.01"),
        ({"drop_at": float("nan")}, "expected drop_at from 0 to 1"),
        ({"validation": 1.0}, "expected validation from 0 to below 1"),
        ({"batch_size": "8"}, "expected batch_size to be of type int"),
        ({"bottleneck": 0}, "expected bottleneck from 1 to 1,024, got 0"),
        ({"visual_prompts": 0}, "expected visual_prompts from 1 to 500, got 0"),
    )
    for wrong, said in bad:
        with subtests.test(**wrong), pytest.raises(SettingsError, match=said):
            Adaptation(**wrong)


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize(
    "how", [{}, {"loss": "gmm", "labels": "all", "batch_size": 24}], ids=["in-the-epoch", "before-the-next"]
)
def test_a_loss_that_is_no_number_is_told(
    how: dict[str, Any], images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path
) -> None:
    how = {"optimizer": "sgd", "head_learning_rate": 1e38, **how}
    with pytest.raises(LabelsieveError, match=r"no longer a finite number in epoch 1; use a lower learning_rate"):
        adapted(images, verdicts, model("vit"), out=tmp_path / "m", **how)
    assert {path.name for path in tmp_path.rglob("*.*")} <= {"state.safetensors"}, "nothing may pass for a result"


def test_half_precision_trains_too(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    how = Adaptation(**QUICK, head_init="zeros")  # the probe would leave next to no loss to compare
    full, half = (
        ls.adapt(images, verdicts, backbone=model("vit"), settings=how, device="cpu", precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert half.record["precision"] == "bf16" and differs(full, half), "the precision reached the model"
    assert {value.dtype for value in weights(half).values()} == {torch.float32}
    losses = [[epoch["loss"] for epoch in result.history] for result in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


# ---------------------------------------------------------------- the summary in the terminal


def summary(result: Adapted, *, width: int = 100, **changes: Any) -> str:
    console = Console(file=io.StringIO(), width=width)
    summarize(dataclasses.replace(result, **changes), Path("models/m"), console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_summary_says_what_matters(
    images: LabelledImages, verdicts: Verdicts, test_images: LabelledImages, model: Model
) -> None:
    result = adapted(images, verdicts, model("vit"), epochs=1, test=test_images, validation=0.2)
    rows = [{"class_name": f"kind {k}", "images": 9, "accuracy": k / 10} for k in range(8, 1, -1)]
    rows.append({"class_name": "never seen", "images": 0, "accuracy": None})
    test = {**result.metrics["test"], "accuracy": 0.8125, "balanced_accuracy": 0.75, "per_class": rows}
    told = {"test_accuracy_start": 0.5, "test_accuracy_last": 0.8125, "test_accuracy_best": 0.9}
    text = summary(result, metrics={**result.metrics, **told, "test": test, "validation_accuracy": 1.0})
    assert "18 images trained on of 24 (3 flagged left out, 3 held out)" in text
    kept = {**result.record["selection"], "dropped": 1, "kept": 2}
    assert "(1 flagged left out, 2 flagged but kept, 3 held out)" in summary(
        result, record={**result.record, "selection": kept}
    )
    marked = {**result.record["selection"], "marked_right": 2, "marked_wrong": 1, "marked_unsure": 1}
    assert "3 held out, 4 reviewed by a person)" in summary(result, record={**result.record, "selection": marked})
    assert "100.0 % on the held-out training images: epoch" in text and "full fine-tuning" in text
    assert "81.2 % right of 12 test images, mean over the classes 75.0 %" in text
    assert "before training 50.0 %, last epoch 81.2 %" in text
    assert "best epoch by the test set 90.0 %, to compare with papers only" in text
    hardest = [line.split()[1] for line in text.splitlines() if line.startswith("kind ")]
    assert hardest == ["2", "3", "4", "5", "6"] and "never seen" not in text
    assert 'pipeline("image-classification", "models/m")' in text


def test_the_summary_without_a_test_set(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    result = adapted(images, verdicts, model("vit"), epochs=0, labels="relabel")
    text = summary(result)
    assert "no test set was given: measure it on images whose labels a person has checked (--test)" in text
    assert "24 images trained on of 24 (3 relabelled)" in text
    assert "held-out" not in text and "Hardest classes" not in text
    record = {**result.record, "backbone": {**result.record["backbone"], "name": "\x1b[2J[red]evil[/red]"}}
    assert "\x1b" not in summary(result, record=record) and "[red]evil[/red]" in summary(result, record=record)


# ---------------------------------------------------------------- the model card


def test_the_model_card_says_what_it_was_trained_on(
    images: LabelledImages, verdicts: Verdicts, test_images: LabelledImages, model: Model
) -> None:
    card = model_card(adapted(images, verdicts, model("vit"), test=test_images, validation=0.2))
    for said in (
        images.fingerprint,
        test_images.fingerprint,
        "evaluated by | deft",
        "loss | ce",
        "18 images (75\u00a0%), 3 more held out for validation",
        "transformers",
        "3 flagged",
        "12 test images",
    ):
        assert said in card, said
    assert "No test set was given" not in card
    assert str(model("vit").parent) not in card, "folders of this machine are nobody's business"
    assert "base_model" not in card


def test_the_card_counts_what_is_flagged_but_kept(images: LabelledImages, model: Model) -> None:
    quality = np.linspace(0.3, 1.0, 24).astype(np.float32)
    scanned = verdicts_on(images, flagged=(), label_quality=quality, rule=FlagRule(threshold=0.7))
    result = adapted(images, scanned, model("vit"), epochs=0)
    kept = int(((quality > 0.5) & (quality <= 0.7)).sum())
    assert f"| flagged but kept | {kept}, whose label is right with a probability above 0.5 |" in model_card(result)


def test_a_class_name_cannot_break_the_card(images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    result = adapted(images, verdicts, model("vit"), epochs=0)
    card = model_card(dataclasses.replace(result, class_names=("a|b", "<img src=x>", "two\nlines")))
    assert "a\\|b, \\<img src=x\\>, two\ufffdlines" in card
