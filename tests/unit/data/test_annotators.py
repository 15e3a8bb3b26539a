"""Several annotators: the vote, their confusions, whom to ask again, and what a run says of them."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import labelsieve as ls
from labelsieve.cli import main
from labelsieve.core.errors import LabelsieveError
from labelsieve.data.annotators import Annotations, vote
from labelsieve.data.features import LabelledFeatures
from labelsieve.detect.evidence.annotators import (
    AnnotatorNoise,
    Chunks,
    fit_annotators,
    interval_of_accuracy,
    whom_to_ask,
)
from labelsieve.verdicts import Verdicts

NAMES = ("ant", "bee", "cat", "dog")
ACCURACY = {"ann": 0.95, "bob": 0.75, "dice": 0.25}
IMAGES = 300


def annotated(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Features of four classes that overlap, labels of three annotators with gaps (-1), the last one throws dice."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(NAMES), IMAGES)
    features = np.eye(len(NAMES))[truth] + rng.normal(scale=0.35, size=(IMAGES, len(NAMES)))
    arrays: dict[str, NDArray[Any]] = {"features": features, "truth": truth, "class_names": np.array(NAMES)}
    for name, accuracy in ACCURACY.items():
        other = (truth + rng.integers(1, len(NAMES), IMAGES)) % len(NAMES)
        arrays[name] = np.where(rng.random(IMAGES) < accuracy, truth, other)
        arrays[name][rng.random(IMAGES) < 0.2] = -1
    arrays["ann"] = np.where(arrays["bob"] < 0, truth, arrays["ann"])  # nobody is without any
    return arrays


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("annotated") / "features.npz"
    np.savez(path, **annotated())  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def data(source: Path) -> LabelledFeatures:
    return ls.load_features(source, label_column=list(ACCURACY))


@pytest.fixture(scope="module")
def verdicts(data: LabelledFeatures) -> Verdicts:
    return ls.scan(data, detector=ls.Joint())


# ---------------------------------------------------------------- labels


def test_the_given_label_is_the_vote_and_gaps_are_allowed(data: LabelledFeatures) -> None:
    arrays = annotated()
    assert data.annotations is not None
    assert data.annotations.names == tuple(ACCURACY)
    for number, name in enumerate(ACCURACY):
        np.testing.assert_array_equal(data.annotations.labels[:, number], arrays[name])
    two = (arrays["ann"] == arrays["bob"]) & (arrays["bob"] >= 0)
    np.testing.assert_array_equal(data.labels[two], arrays["ann"][two])
    alone = (arrays["bob"] < 0) & (arrays["dice"] < 0)
    np.testing.assert_array_equal(data.labels[alone], arrays["ann"][alone])


def test_of_two_who_differ_the_one_who_agrees_more_often_wins() -> None:
    labels = np.array([[0, 0, 1], [1, 1, 0], [2, 2, 0], [0, 0, 2], [2, 1, -1], [-1, 1, 2], [1, -1, 2]])
    assert vote(labels, classes=3)[5:].tolist() == [1, 1]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_the_order_of_annotators_does_not_change_the_vote(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, (30, 4))
    labels[:, 0] = rng.integers(0, 3, 30)
    votes = vote(labels, classes=3)
    np.testing.assert_array_equal(vote(labels[:, rng.permutation(4)], classes=3), votes)
    counts = np.stack([(labels == label).sum(axis=1) for label in range(3)], axis=1)
    np.testing.assert_array_equal(counts[np.arange(30), votes], counts.max(axis=1))


def test_one_annotator_is_the_ordinary_scan(source: Path, tmp_path: Path) -> None:
    arrays = annotated()
    arrays["ann"][arrays["ann"] < 0] = 0
    np.savez(tmp_path / "whole.npz", **arrays)  # type: ignore[arg-type]
    one, plain = (ls.load_features(tmp_path / "whole.npz", label_column=column) for column in (["ann"], "ann"))
    assert one.annotations is None
    assert (one.fingerprint, one.origin) == (plain.fingerprint, plain.origin)


def test_other_labels_leave_the_annotators_behind(data: LabelledFeatures) -> None:
    assert data.with_labels(data.labels).annotations is None
    part = data.take(np.array([5, 2]))
    assert part.annotations is not None and data.annotations is not None
    np.testing.assert_array_equal(part.annotations.labels, data.annotations.labels[[5, 2]])
    assert data.fingerprint != data.with_labels(data.labels).fingerprint


def test_tables_of_images_have_several_label_columns(tmp_path: Path) -> None:
    from PIL import Image

    rows = [("1.png", "cat", "cat", ""), ("2.png", "", "Dog", "dog"), ("3.png", "dog", "cat", "cat")]
    for name, *_ in rows:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    text = "\n".join(["image,a,b,c", *(",".join(row) for row in rows)])
    (tmp_path / "labels.csv").write_text(text)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    images = ls.load_images(tmp_path / "labels.csv", label_column=["a", "b", "c"], class_names=tmp_path / "names.txt")
    assert images.annotations is not None
    assert images.annotations.labels.tolist() == [[0, 0, -1], [-1, 1, 1], [1, 0, 0]]
    assert images.labels.tolist() == [0, 1, 0]
    assert ls.load_images(**images.origin).fingerprint == images.fingerprint
    assert images.take(np.array([1])).annotations is not None


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({}, ["ann", "bob", "ann"], '"ann" is named twice'),
        ({}, [], "expected the names of label columns"),
        ({}, ["ann", "bbo"], 'expected a column "bbo"'),
        ({}, ["ann", "truth"], 'the truth column "truth" is one of the label columns'),
        ({"bob": np.full(IMAGES, -1)}, ["ann", "bob"], 'expected labels in the column "bob" of .*, found none'),
        ({"bob": np.full(IMAGES, 7)}, ["ann", "bob", "dice"], 'none of 7 in the column "bob" of .* is in another'),
        ({"bob": np.where(annotated()["bob"] == 1, 9, 0)}, ["ann", "bob"], 'in the column "bob" .* outside of the 4'),
        ({"ann": np.r_[-1, annotated()["bob"][1:]], "bob": np.r_[-1, np.zeros(IMAGES - 1)]}, ["ann", "bob"],
         'images have no label in any of the 2 label columns .first: id "0000000"'),
    ],
)  # fmt: skip
def test_bad_labels_get_one_clear_line(change: dict[str, Any], columns: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **{**annotated(), **change})
    with pytest.raises(LabelsieveError, match=message) as error:
        ls.load_features(tmp_path / "f.npz", label_column=columns)
    assert "\n" not in str(error.value)


def test_class_labels_with_other_names_are_refused(tmp_path: Path) -> None:
    import datasets

    kinds = {"a": datasets.ClassLabel(names=["cat", "dog"]), "b": datasets.ClassLabel(names=["dog", "fox"])}
    kinds["image"] = datasets.Image()
    from PIL import Image

    rows = {"a": [0, 1], "b": [0, 1], "image": [Image.new("RGB", (8, 8))] * 2}
    rows = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    with pytest.raises(LabelsieveError, match="expected the same classes in all label columns, found cat, dog in"):
        ls.load_images(rows, label_column=["a", "b"])


def test_a_detector_of_one_label_refuses_several(data: LabelledFeatures) -> None:
    with pytest.raises(LabelsieveError, match="detector knn with these settings reads one label per image"):
        ls.scan(data, detector=ls.KNN())
    assert ls.DeFT().weighs_annotators
    assert not ls.DeFT(evidence="threshold").weighs_annotators


def test_a_file_of_noise_does_not_go_with_several(tmp_path: Path) -> None:
    with pytest.raises(LabelsieveError, match="one label column"):
        ls.load_images(tmp_path, label_column=["a", "b"], noise=tmp_path / "noise.parquet")


# ---------------------------------------------------------------- the model


def drawn(confusions: NDArray[np.float64], *, images: int, seed: int) -> tuple[NDArray[Any], Any, NDArray[Any]]:
    """Draws class probabilities (n, K), true classes from them, and labels (n, A) from confusions (A, K, K)."""
    rng = np.random.default_rng(seed)
    classes = confusions.shape[1]
    probability = rng.dirichlet(np.full(classes, 0.3), images)
    truth = (probability.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1).clip(max=classes - 1)
    cumulated = confusions[:, truth].cumsum(axis=2)
    labels = (cumulated < rng.random((len(confusions), images, 1))).sum(axis=2).clip(max=classes - 1).T
    return probability.astype(np.float32), truth, labels


CONFUSIONS = np.array(
    [
        [[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]],
        [[0.6, 0.4, 0.0], [0.1, 0.8, 0.1], [0.3, 0.0, 0.7]],
        [[1 / 3] * 3] * 3,
    ]
)


def fitted(probability: Any, labels: NDArray[Any], *, rate: float | None = None) -> AnnotatorNoise:
    chunks = Chunks(lambda rows: torch.from_numpy(probability[rows]), labels, np.arange(len(labels)), classes=3)
    votes = vote(labels, classes=3)
    given = {"annotators": labels.shape[1], "classes": 3, "votes": votes}
    return fit_annotators(chunks, **given, rate=rate, advance=lambda _count: None)


def confusion_of(noise: AnnotatorNoise) -> NDArray[np.float64]:
    """T as the formula has it, (A, K, K)."""
    annotators, classes = noise.errors.shape
    every = [noise.likelihood(annotator, torch.arange(classes)).T for annotator in range(annotators)]
    return torch.stack(every).double().numpy()


def test_confusions_that_labels_were_drawn_from_are_found() -> None:
    probability, _, labels = drawn(CONFUSIONS, images=4000, seed=0)
    labels[np.random.default_rng(1).random(labels.shape) < 0.2] = -1
    labels[:, 0][(labels < 0).all(axis=1)] = 0
    noise = fitted(probability, labels)
    np.testing.assert_allclose(confusion_of(noise), CONFUSIONS, atol=0.06)
    np.testing.assert_allclose(confusion_of(noise).sum(axis=2), 1, atol=1e-5)


def test_the_posterior_is_that_of_brute_force() -> None:
    probability, _, labels = drawn(CONFUSIONS, images=40, seed=2)
    labels[np.random.default_rng(3).random(labels.shape) < 0.4] = -1
    noise = dataclasses.replace(fitted(probability, np.where(labels < 0, 0, labels)), weight=0.7)
    expected = probability.astype(np.float64)
    cells = confusion_of(noise)
    for row, given_labels in enumerate(labels):
        for annotator, label in enumerate(given_labels):
            if label >= 0:
                expected[row] *= cells[annotator, :, label] ** 0.7
    expected /= expected.sum(axis=1, keepdims=True)
    found = noise.posterior(torch.from_numpy(probability), torch.from_numpy(labels))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_probabilities_that_are_not_held_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    probability, _, labels = drawn(CONFUSIONS, images=300, seed=7)
    held = fitted(probability, labels, rate=0.2)
    monkeypatch.setattr("labelsieve.detect.evidence.annotators.MAX_HELD", 0)
    again = fitted(probability, labels, rate=0.2)
    assert torch.equal(held.errors, again.errors) and held.weight == again.weight


def test_many_classes_have_no_confusion_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    probability, truth, labels = drawn(CONFUSIONS, images=2000, seed=8)
    monkeypatch.setattr("labelsieve.detect.evidence.annotators.MAX_CELLS", 0)
    noise = fitted(probability, labels)
    assert noise.confusion is None
    share = np.stack([[(labels[truth == k, a] != k).mean() for k in range(3)] for a in range(3)])
    np.testing.assert_allclose(noise.errors.numpy(), share, atol=0.08)


def test_labels_count_for_less_where_annotators_err_together() -> None:
    probability, truth, labels = drawn(CONFUSIONS[:1], images=2000, seed=4)
    copies = np.repeat(labels, 3, axis=1)
    wrong = float((labels[:, 0] != truth).mean())
    assert fitted(probability, copies, rate=wrong).weight == pytest.approx(1 / 3, abs=0.05), (
        "three copies are one label"
    )
    probability, truth, labels = drawn(np.repeat(CONFUSIONS[:1], 3, axis=0), images=2000, seed=5)
    wrong = float((vote(labels, classes=3) != truth).mean())
    assert fitted(probability, labels, rate=wrong).weight > 0.75, "independent ones count nearly in full"


def test_what_a_label_would_tell_is_the_mutual_information() -> None:
    probability, _, labels = drawn(CONFUSIONS, images=500, seed=6)
    noise = fitted(probability, labels)
    joint = probability[:, :, None].astype(np.float64) * confusion_of(noise)[1]
    apart = joint.sum(axis=2, keepdims=True) * joint.sum(axis=1, keepdims=True)
    expected = np.where(joint > 0, joint * np.log(np.maximum(joint, 1e-300) / np.maximum(apart, 1e-300)), 0).sum((1, 2))
    np.testing.assert_allclose(noise.informative(1, torch.from_numpy(probability)).numpy(), expected, atol=1e-4)
    even = dataclasses.replace(noise, confusion=None)
    spelt = dataclasses.replace(noise, confusion=((1 - torch.eye(3)) / 2).expand(3, 3, 3))
    first, second = (each.informative(0, torch.from_numpy(probability)).numpy() for each in (even, spelt))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_who_is_asked_next() -> None:
    noise = AnnotatorNoise(torch.tensor([[0.05] * 3, [0.3] * 3, [0.1] * 3]), None)
    unsure = torch.tensor([[0.5, 0.4, 0.1]]).expand(4, 3)
    labels = torch.tensor([[-1, -1, 0], [0, -1, -1], [0, 0, 0], [0, 2, 1]])
    asked = whom_to_ask(noise, unsure, labels).tolist()
    assert asked == [0, 2, -1, 1], "the best who has not labelled it; nobody; the least likely right"


def test_the_interval_of_an_accuracy_covers_it() -> None:
    """The share is that of all labels an annotator could give; which ones are right is known with doubt only."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        accuracy, count = rng.uniform(0.5, 0.98), int(rng.integers(20, 300))
        right = rng.random(count) < accuracy
        # what calibrated evidence would say: of such labels a share of q is right
        ratio = np.exp(np.where(right, 1, -1) * 2 + 2 * rng.normal(size=count))
        chance = accuracy * ratio / (accuracy * ratio + 1 - accuracy)
        low, high = interval_of_accuracy(count, float(chance.sum()), float((chance * (1 - chance)).sum()))
        covered += low <= accuracy <= high
    assert covered / 400 >= 0.93


# ---------------------------------------------------------------- the run


def test_annotators_are_rated_and_dice_are_found_out(verdicts: Verdicts) -> None:
    rows = {row["name"]: row for row in verdicts.record["annotators"]}
    for name, accuracy in ACCURACY.items():
        assert rows[name]["accuracy"] == pytest.approx(accuracy, abs=0.08)
        assert rows[name]["low"] < rows[name]["accuracy"] < rows[name]["high"]
        assert rows[name]["labels"] == int((annotated()[name] >= 0).sum())
        assert rows[name]["agreement"] == pytest.approx(accuracy, abs=0.08)
        assert rows[name]["confused"]["times"] >= 1
    found = verdicts.record["consensus"]
    assert found["accuracy"] > found["accuracy_of_vote"] + 0.05
    assert verdicts.metrics is not None and verdicts.metrics["issue_f1"] > 0.7


def test_the_consensus_table_has_a_row_for_each_image(verdicts: Verdicts, data: LabelledFeatures) -> None:
    assert verdicts.consensus is not None and data.annotations is not None
    rows = verdicts.consensus.to_pylist()
    assert [row["id"] for row in rows] == list(data.ids)
    assert sorted(row["ask_rank"] for row in rows) == list(range(1, IMAGES + 1))
    for row, labels, mark in zip(rows, data.annotations.labels, verdicts.is_issue, strict=True):
        assert row["labels"] == (labels >= 0).sum()
        assert row["agree"] == (labels == NAMES.index(row["consensus_label"])).sum()
        assert mark or row["consensus_label"] == row["given_label"] or row["consensus_confidence"] < 0.75
        if (labels < 0).any():
            assert labels[list(ACCURACY).index(row["ask"])] < 0, "who has not labelled it is asked"
    first = min(rows, key=lambda row: row["ask_rank"])
    assert first["consensus_confidence"] == min(row["consensus_confidence"] for row in rows if row["ask"])


def test_the_order_of_annotators_changes_nothing(data: LabelledFeatures, verdicts: Verdicts) -> None:
    assert data.annotations is not None
    order = [2, 0, 1]
    turned = Annotations(names=("dice", "ann", "bob"), labels=data.annotations.labels[:, order])
    again = ls.scan(dataclasses.replace(data, annotations=turned), detector=ls.Joint())
    np.testing.assert_allclose(again.label_quality, verdicts.label_quality, atol=1e-4)
    accuracies = ([row["accuracy"] for row in each.record["annotators"]] for each in (again, verdicts))
    first, second = (list(each) for each in accuracies)
    assert first == pytest.approx([second[number] for number in order], abs=1e-4)


@pytest.mark.slow
def test_annotators_who_always_agree_are_as_one(data: LabelledFeatures) -> None:
    labels = annotated()["truth"].copy()
    labels[:45] = (labels[:45] + 1) % len(NAMES)
    one = dataclasses.replace(data, annotations=None, labels=labels)
    copies = Annotations(names=("a", "b"), labels=np.column_stack([labels, labels]))
    alone = ls.scan(one, detector=ls.Joint())
    both = ls.scan(dataclasses.replace(one, annotations=copies), detector=ls.Joint())
    assert (alone.is_issue == both.is_issue).mean() > 0.97
    first, second = both.record["annotators"]
    assert {**first, "name": "b"} == second
    assert first["accuracy"] == pytest.approx(0.85, abs=0.05)


def test_the_command_writes_tables_and_a_section(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--detector", "joint", "--out", str(tmp_path / "run")]
    # the source may follow the names of the columns, as it may follow one
    assert main(["scan", "--label-column", *ACCURACY, str(source), *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "dice" in said and "consensus with the image evidence" in said and "right on" in said
    with (tmp_path / "run" / "annotators.csv").open(newline="") as file:
        assert [row["annotator"] for row in csv.DictReader(file)] == list(ACCURACY)
    with (tmp_path / "run" / "consensus.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == IMAGES
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["origin"]["label_column"] == list(ACCURACY)
    (tmp_path / "run" / "report.html").unlink()
    assert main(["report", str(tmp_path / "run")]) == 0, "loads the same labels again"
    assert '<section id="annotators"' in (tmp_path / "run" / "report.html").read_text()
    assert main(["scan", str(source), "--label-column", "truth", *words, "--overwrite"]) == 0
    assert not (tmp_path / "run" / "annotators.csv").exists(), "of the replaced run"
    assert not (tmp_path / "run" / "consensus.csv").exists()
    assert '<section id="annotators"' not in (tmp_path / "run" / "report.html").read_text()


def test_reviews_of_an_earlier_run_go_with_one_label_column(data: LabelledFeatures, tmp_path: Path) -> None:
    with pytest.raises(LabelsieveError, match="reviews of an earlier run go with one label column") as caught:
        ls.scan(data, detector=ls.Joint(), reviewed=tmp_path)
    assert "\n" not in str(caught.value)
