"""Phase 2 on several labels per image: what it learns from, how good it is, and what comes out and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score

import labelsieve as ls
from forked import Command
from interrupting import break_off
from labelsieve.cli import main
from labelsieve.core.errors import DataError, LabelsieveError, RunError, SettingsError
from labelsieve.detect.tags.scores import TagScores
from labelsieve.finetune import loop as training
from labelsieve.finetune.losses import binary_cross_entropy
from labelsieve.finetune.result import Adapted, model_card
from labelsieve.finetune.settings import Adaptation
from labelsieve.finetune.tag_head import PENALTIES, fit_tag_head
from labelsieve.finetune.tag_selection import choose_tags
from labelsieve.finetune.target_kinds import MultiLabel
from labelsieve.finetune.terminal import summarize
from labelsieve.tag_metrics import average_precisions, best_f1_threshold, measure_tags
from labelsieve.tags.verdicts import TagVerdicts, decide_tags
from slow_cases import mostly_slow
from small_adaptations import adapted, verdicts_on, weights
from small_backbones import SIZE

CLASSES = ("red", "green", "blue")
Model = Callable[[str], Path]
Run = Callable[..., tuple[int, str, str]]
# Given tags that are wrong, at p_clean 0.2 and 0.6, and one that is missing, as (row, class).
WRONG, DOUBTFUL, MISSING = (1, 0), (2, 0), (9, 1)


def pictures(count: int, *, seed: int = 0) -> tuple[list[Image.Image], NDArray[np.bool_]]:
    """Draws noisy pictures in which the channels of their classes are bright: all eight sets of them in turn."""
    rng, numbers = np.random.default_rng(seed), np.arange(count) % 8
    tags = (numbers[:, None] >> np.arange(3)) & 1 == 1
    pixels = rng.integers(0, 120, (count, SIZE, SIZE, 3)) + 100 * tags[:, None, None, :]
    return [Image.fromarray(each.astype(np.uint8)) for each in pixels], tags


def tagged(count: int, *, seed: int = 0) -> ls.TaggedImages:
    drawn, tags = pictures(count, seed=seed)
    return ls.load_tags(drawn, tags=tags, class_names=CLASSES)


@pytest.fixture(scope="module")
def images() -> ls.TaggedImages:
    """24 pictures; the tags of `WRONG`, `DOUBTFUL` and `MISSING` are the other way round."""
    right = tagged(24)
    tags = right.tags.copy()
    for pair in (WRONG, DOUBTFUL, MISSING):
        tags[pair] = ~tags[pair]
    return right.with_tags(tags)


def verdicts_of(
    images: ls.TaggedImages, *, quality: Any = ((WRONG, 0.2), (DOUBTFUL, 0.6), (MISSING, 0.1))
) -> TagVerdicts:
    """Returns verdicts by which some pairs are flagged with the given quality."""
    clean = np.full(images.tags.shape, 0.9, dtype=np.float32)
    for pair, value in quality:
        clean[pair] = value
    scores = TagScores(
        tags=images.tags,
        present=np.where(images.tags, clean, 1 - clean),
        thresholds=(0.65, 0.65),
        issue=clean < 0.65,
        omission=np.full(3, np.nan),
        commission=np.full(3, np.nan),
    )
    record = {"data": {"fingerprint": images.fingerprint}, "source": "photos", "detector": {"name": "joint"}}
    return decide_tags(images, scores, record={**record, "origin": dict(images.origin)})


@pytest.fixture(scope="module")
def verdicts(images: ls.TaggedImages) -> TagVerdicts:
    return verdicts_of(images)


@pytest.fixture(scope="module")
def test_images() -> ls.TaggedImages:
    return tagged(16, seed=1)


def tag_run(images: Any, verdicts: Any, backbone: Path, **settings: Any) -> Adapted:
    return adapted(images, verdicts, backbone, **{"labels": "relabel", **settings})


# ---------------------------------------------------------------- what is learned from


def test_targets_are_the_tags_as_the_verdicts_have_them(images: ls.TaggedImages, verdicts: TagVerdicts) -> None:
    assert np.array_equal(choose_tags(verdicts, Adaptation(labels="all")).labels, images.tags)
    found = choose_tags(verdicts, Adaptation(labels="relabel"))
    assert np.argwhere(found.labels != images.tags).tolist() == [list(WRONG), list(MISSING)], "0.6 is right, rather"
    assert {key: found.counts[key] for key in ("removed", "added", "left_out", "kept")} == {
        **{"removed": 1, "added": 1, "left_out": 0, "kept": 1}
    }
    every = choose_tags(verdicts, Adaptation(labels="relabel", drop_at=1))
    assert np.array_equal(every.labels, verdicts.corrected())
    masked = choose_tags(verdicts, Adaptation(labels="selected"))
    assert np.argwhere(np.isnan(masked.labels)).tolist() == [list(WRONG), list(MISSING)]
    assert masked.counts["left_out"] == 2 and masked.counts["tags"] == np.nansum(masked.labels)


def test_the_loss_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(5, 4, generator=generator), torch.randint(2, (5, 4), generator=generator).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(binary_cross_entropy(logits, targets).mean(), expected)
    targets[0, 1] = targets[3, 2] = torch.nan
    logits.requires_grad_(True)
    known = ~targets.isnan()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], targets[known], reduction="sum") / 20
    loss = binary_cross_entropy(logits, targets).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None and torch.equal(logits.grad == 0, ~known), "what is left out pulls nowhere"


def test_the_first_head_is_the_logistic_regression_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (120, 5)).astype(np.float32)
    targets = (features[:, :2] + rng.normal(0, 2, (120, 2)) > 3).astype(np.float32)
    rows = np.arange(100)
    fitted, biases, logits = fit_tag_head(features, targets, rows=rows, generator=torch.Generator().manual_seed(0))
    standard = (features - features[rows].mean(axis=0)) / features[rows].std(axis=0)
    found = features @ fitted.numpy().T + biases.numpy()
    distances = []
    for penalty in PENALTIES:
        known = LogisticRegression(C=1 / (penalty * len(rows)), tol=1e-8)
        expected = [known.fit(standard[rows], own).decision_function(standard) for own in targets[rows].T]
        distances.append(np.abs(found - np.stack(expected, axis=1)).max())
    assert min(distances) < 0.02
    assert logits.shape == (100, 2)
    inside = found[rows]
    assert not np.allclose(logits.numpy(), inside), "of fits that have not seen the image"


@pytest.mark.slow
def test_a_class_that_no_image_has_keeps_its_place(images: ls.TaggedImages, model: Model) -> None:
    tags = images.tags.copy()
    tags[:, 2] = False
    none = images.with_tags(tags)
    result = tag_run(none, verdicts_of(none, quality=()), model("vit"), tune="linear")
    assert 'no image is left with the tag "blue"' in result.record["notes"][0]
    assert all(torch.isfinite(value).all() for value in weights(result).values())


# ---------------------------------------------------------------- how good it is


def test_average_precision_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, logits = rng.random((50, 4)) < [0.5, 0.2, 0.1, 0], rng.normal(size=(50, 4)).astype(np.float32)
    expected = [average_precision_score(truth[:, each], logits[:, each]) for each in range(3)]
    assert average_precisions(logits, truth) == [*map(pytest.approx, expected), None]
    assert MultiLabel().score(logits, truth) == pytest.approx(np.mean(expected))
    found = MultiLabel().measure(logits, truth, "abcd", 0.3)
    assert found["map"] == pytest.approx(np.mean(expected))
    assert found["micro_f1"] == pytest.approx(f1_score(truth, logits >= 0, average="micro"))
    at = np.log(0.3 / 0.7)
    assert found["macro_f1_tuned"] == pytest.approx(np.mean(f1_score(truth, logits >= at, average=None)[:3]))
    logits[4] = np.nan
    assert MultiLabel().measure(logits, truth, "abcd", 0.3)["unreadable"] == 1
    read = np.arange(50) != 4
    assert MultiLabel().score(logits, truth) == pytest.approx(MultiLabel().score(logits[read], truth[read]))


def test_large_logits_stay_apart() -> None:
    truth = np.array([[True], [False]])
    assert MultiLabel().measure(np.array([[31.0], [30.0]], np.float32), truth, "a", 0.5)["map"] == 1


def test_the_threshold_gives_the_best_f1() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.3
    probability = np.clip(rng.normal(0.3, 0.1, 200) + 0.15 * truth, 0, 1)
    best = max(f1_score(truth, probability >= each) for each in probability)
    assert f1_score(truth, probability >= best_f1_threshold(probability, truth)) == pytest.approx(best)
    assert best_f1_threshold(probability, np.zeros(200, dtype=bool)) == 0.5
    assert measure_tags(np.zeros((2, 1)), np.zeros((2, 1), dtype=bool), ["a"], threshold=0.5)["map"] is None


@pytest.mark.slow
def test_the_test_set_chooses_nothing(
    images: ls.TaggedImages, verdicts: TagVerdicts, test_images: ls.TaggedImages, model: Model
) -> None:
    one = tag_run(images, verdicts, model("vit"), test=test_images, tune="linear")
    other = tag_run(images, verdicts, model("vit"), test=test_images.with_tags(~test_images.tags), tune="linear")
    assert one.metrics["threshold"] == other.metrics["threshold"] == one.metrics["test"]["threshold"]
    assert all(torch.equal(value, weights(other)[key]) for key, value in weights(one).items())
    held = tag_run(images, verdicts, model("vit"), tune="linear", validation=0.3, labels="selected")
    assert held.record["selection"]["held_out"] == 7 and 0 <= held.metrics["validation_map"] <= 1
    assert held.metrics["threshold"] != one.metrics["threshold"]
    zeros = tag_run(images, verdicts, model("vit"), tune="linear", head_init="zeros", epochs=0)
    assert zeros.metrics["threshold"] == one.metrics["threshold"] and not weights(zeros)["classifier.weight"].any()


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("kind", mostly_slow(["vit", "clip"], quick=["vit"]))
def test_the_result_is_a_standard_classifier_of_several_labels(
    kind: str,
    images: ls.TaggedImages,
    verdicts: TagVerdicts,
    test_images: ls.TaggedImages,
    model: Model,
    tmp_path: Path,
) -> None:
    out = tmp_path / "m"
    result = tag_run(images, verdicts, model(kind), out=out, test=test_images, learning_rate=1e-3)
    config = json.loads((out / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    classify = transformers.pipeline("image-classification", str(out), device="cpu")
    shown = [test_images.open(row) for row in range(4)]
    with torch.inference_mode():
        expected = torch.sigmoid(result.backbone.logits(result.backbone.pixels(shown)))
    for answers, own in zip(classify(shown), expected, strict=True):
        found = {each["label"]: each["score"] for each in answers}
        assert found == {name: pytest.approx(float(value), abs=1e-4) for name, value in zip(CLASSES, own, strict=True)}
    assert result.metrics["test"]["map"] > 0.8, "three colours; by chance one half"
    assert json.loads((out / "adapt.json").read_text())["kind"] == "tags"
    assert (result.metrics["test_map_last"], result.metrics["test_map_best"]) == (
        result.history[-1]["test_map"],
        max(result.metrics["test_map_start"], *(epoch["test_map"] for epoch in result.history)),
    )


def test_one_label_an_image_stays_a_choice_among_classes(model: Model) -> None:
    drawn, _ = pictures(24)
    one = ls.load_images(drawn, labels=np.arange(24) % 3, class_names=CLASSES)
    result = adapted(one, verdicts_on(one), model("clip"), tune="linear", epochs=0)
    assert result.model.config.problem_type == "single_label_classification"


@pytest.mark.slow
def test_resuming_gives_the_model_of_an_unbroken_run(
    images: ls.TaggedImages, verdicts: TagVerdicts, test_images: ls.TaggedImages, model: Model, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"validation": 0.3, "test": test_images, "learning_rate": 1e-3}
    unbroken = tag_run(images, verdicts, model("swin"), **settings)  # drops paths at random
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, training, "_batches", epoch=2)
        with pytest.raises(KeyboardInterrupt):
            tag_run(images, verdicts, model("swin"), out=tmp_path / "m", **settings)
    with pytest.raises(RunError, match="belongs to another run: labels was relabel and is all"):
        tag_run(images, verdicts, model("swin"), out=tmp_path / "m", resume=True, **settings, labels="all")
    resumed = tag_run(images, verdicts, model("swin"), out=tmp_path / "m", resume=True, **settings)
    for key, value in weights(unbroken).items():
        torch.testing.assert_close(weights(resumed)[key], value, rtol=0, atol=0, msg=key)
    assert resumed.metrics == unbroken.metrics


@pytest.mark.slow
def test_card_and_summary_speak_of_tags(
    images: ls.TaggedImages, verdicts: TagVerdicts, test_images: ls.TaggedImages, model: Model
) -> None:
    result = tag_run(images, verdicts, model("vit"), tune="linear", test=test_images, validation=0.3)
    card = model_card(result)
    assert "any number of classes" in card and "| changed | 1 wrong tags taken away, 1 missing ones given |" in card
    assert "mAP" in card and "average precision" in card and "accuracy" not in card.partition("## How it was")[0]
    console = Console(file=io.StringIO(), width=200)
    summarize(result, Path("m"), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 wrong tags taken away, 1 missing tags given, 1 flagged pairs kept as they were" in said
    assert "on 16 test images" in said and "micro F1" in said and "mAP" in said
    untested = tag_run(images, verdicts, model("vit"), tune="linear", epochs=0)
    summarize(untested, Path("m"), console)
    assert "has not been evaluated" in model_card(untested)


# ---------------------------------------------------------------- what is refused


def test_what_does_not_go_with_tags_is_refused(
    images: ls.TaggedImages, verdicts: TagVerdicts, test_images: ls.TaggedImages, model: Model, tmp_path: Path
) -> None:
    drawn, _ = pictures(24)
    one = ls.load_images(drawn, labels=np.arange(24) % 3, class_names=CLASSES)

    def refused(error: type[LabelsieveError], said: str, data: Any, found: Any, **settings: Any) -> None:
        with pytest.raises(error, match=said):
            tag_run(data, found, model("vit"), **settings)

    for options, said in (
        ({"loss": "gce"}, "--loss gce is for one label per image"),
        ({"class_weights": "balanced"}, "--class-weights balanced is for one label"),
        ({"weighting": "p_clean"}, "--weighting p_clean is for one label"),
        ({"test": one}, "expected test images with tags"),
    ):
        refused(SettingsError, said, images, verdicts, **options)
    tags = np.broadcast_to(np.arange(24)[:, None] % 2 == 0, (24, 4)).copy()
    other = ls.load_tags(drawn, tags=tags, class_names=list("abcd"))
    refused(DataError, 'the class "a" and 3 more of the test set', images, verdicts, test=other)
    refused(DataError, "as a CSV of marks of tags: it does not exist", images, verdicts, marks=[tmp_path / "m.csv"])
    refused(SettingsError, "those of scan\\(\\); use scan_tags", images, verdicts_on(one))
    refused(SettingsError, "those of scan_tags\\(\\); use scan", one, verdicts)
    refused(SettingsError, "expected test images with one label", one, verdicts_on(one), test=test_images)
    refused(RunError, "not those that the verdicts were made from", images.with_tags(~images.tags), verdicts)
    unread = dataclasses.replace(
        verdicts, images=verdicts.images.set_column(2, "error", pa.array(["gone"] * len(images)))
    )
    refused(DataError, "none of 24 can be read", images, unread)


def test_tags_of_a_test_set_are_matched_by_name(test_images: ls.TaggedImages) -> None:
    drawn, tags = pictures(16, seed=1)
    turned = ls.load_tags(drawn, tags=tags[:, ::-1][:, :2], class_names=("Blue", "green"))
    found = MultiLabel().match_classes(turned, CLASSES)
    assert found.class_names == CLASSES
    expected = test_images.tags & [False, True, True]
    assert np.array_equal(MultiLabel().targets(found), expected)


# ---------------------------------------------------------------- the command


def parquet(path: Path, drawn: list[Image.Image], tags: NDArray[np.bool_], **more: Any) -> Path:
    def encoded(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    names = [[name for name, there in zip(CLASSES, row, strict=True) if there] for row in tags.tolist()]
    column = [{"bytes": encoded(image), "path": None} for image in drawn]
    pq.write_table(pa.table({"image": column, "tags": names, **more}), path)
    return path


@pytest.fixture
def finished(images: ls.TaggedImages, tmp_path: Path) -> Path:
    """Returns the folder of a run on `photos.parquet` beside it."""
    source = parquet(tmp_path / "photos.parquet", pictures(24)[0], images.tags)
    return verdicts_of(ls.load_tags(source, class_names=CLASSES)).save(tmp_path / "run")


@pytest.mark.slow
def test_several_processes_give_the_model_of_one(finished: Path, model: Model, tmp_path: Path) -> None:
    checked = parquet(tmp_path / "checked.parquet", *pictures(15, seed=1))
    quick = ("--device", "cpu", "--precision", "fp32", "--epochs", "1", "--min-steps", "0", "--batch-size", "7")
    more = [*quick, "--backbone", str(model("vit")), "--test", str(checked), "--validation", "0.3"]
    with Command(["adapt", finished, "--out", tmp_path / "two", *more], processes=2) as together:
        said = together.communicate()
    assert together.returncode == 0 and "Traceback" not in said, said
    assert main(["adapt", str(finished), "--out", str(tmp_path / "one"), *more]) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-4)
    records = [json.loads((tmp_path / name / "adapt.json").read_text()) for name in ("one", "two")]
    assert [record["processes"] for record in records] == [1, 2]
    found = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    for key in ("threshold", "validation_map", "test_map_start", "test_map_last"):
        assert found[1][key] == pytest.approx(found[0][key], rel=1e-3), key


def test_from_a_run_of_tags_to_a_model(finished: Path, model: Model, run: Run, tmp_path: Path) -> None:
    checked = parquet(tmp_path / "checked.parquet", *pictures(16, seed=1), other=[["x"]] * 16)
    quick = ("--device", "cpu", "--tune", "linear", "--epochs", "1", "--min-steps", "0", "--backbone", model("vit"))
    test = ("--test", checked, "--test-tag-column", "tags")
    code, out, err = run("adapt", finished, "--out", tmp_path / "m", *test, *quick)
    assert (code, err) == (0, "")
    record = json.loads((tmp_path / "m" / "adapt.json").read_text())
    assert record["settings"]["labels"] == "relabel"
    assert "1 wrong tags taken away, 1 missing tags given" in " ".join(out.split())
    assert "mAP" in out and record["test"]["images"] == 16
    for words, said in (
        (("--loss", "sce"), "--loss sce is for one label per image"),
        (("--marks", "m.csv"), "m.csv cannot be read as a CSV of marks of tags"),
        (("--test", checked, "--test-label-column", "tags"), "name tags with --test-tag-column"),
        (("--test-tag-column", "tags"), "go with --test SOURCE only"),
    ):
        code, _, err = run("adapt", finished, "--out", tmp_path / "no", *words, *quick)
        assert code == 1 and err.count("\n") == 1 and said in err, err
    table = TagVerdicts.load(finished).table.slice(0, 1).select(["id", "class_name", "kind"]).to_pylist()[0]
    mark = {"wrong": "present", "missing": "absent"}[table["kind"]]  # the given state is right
    (tmp_path / "m.csv").write_text(f"id,class_name,mark\n{table['id']},{table['class_name']},{mark}\n")
    code, out, err = run("adapt", finished, "--out", tmp_path / "marked", *quick, "--marks", tmp_path / "m.csv")
    assert (code, err) == (0, "") and "1 mark in" in out
    changes = {"wrong": "1 wrong tags taken away", "missing": "1 missing tags given"}
    found = " ".join(out.split())
    assert changes.pop(table["kind"]) not in found and all(each in found for each in changes.values())
    code, out, err = run("adapt", finished, "--out", tmp_path / "given", *quick, "--labels", "all")
    assert code == 0 and "taken away" not in out
    assert json.loads((tmp_path / "given" / "adapt.json").read_text())["settings"]["labels"] == "all"
