"""Several labels per image: wrong and missing tags, their noise and their metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from labelsieve.core.engine import Engine
from labelsieve.core.errors import DataError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.tags.loading import load_tags
from labelsieve.data.tags.noise import inject_tags
from labelsieve.detect.folds import random_folds
from labelsieve.detect.registry import DETECTORS
from labelsieve.detect.tags.base import TagDetector
from labelsieve.detect.tags.commission import allowed
from labelsieve.detect.tags.confident_learning import TagConfidentLearning
from labelsieve.detect.tags.evidence import discriminant_kinds, neighbour_kind, neighbours_of
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.joint import TagJoint
from labelsieve.detect.tags.knn import TagKNN
from labelsieve.detect.tags.noise_model import TagNoise
from labelsieve.detect.tags.probe import fit_one_against_rest, out_of_fold_pair_probabilities
from labelsieve.detect.tags.registry import TAG_DETECTORS, check_tag_input, tag_detector_class
from labelsieve.detect.tags.scores import MAX_THRESHOLD, TagScores
from labelsieve.flagging import best_threshold
from labelsieve.metrics import TAG_DETECTION
from labelsieve.tag_metrics import evaluate_pairs
from slow_cases import mostly_slow

Tags = NDArray[np.bool_]
CLASSES, WIDTH = 6, 12
# deft has a model to train; tests/unit/detect/test_tag_deft.py is about it
ON_FEATURES = [name for name in TAG_DETECTORS if "images" not in TAG_DETECTORS[name].requires]


def world(
    count: int = 300, *, scale: float = 0.15, seed: int = 0, share: float = 0.3, classes: int = CLASSES
) -> tuple[NDArray[np.float32], Tags]:
    """Returns features, (n, D), to which each class that is there adds a direction, and what is there, (n, K)."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, classes)) < share
    points = truth @ np.eye(classes, 2 * classes) + rng.normal(scale=scale, size=(count, 2 * classes))
    return points.astype(np.float32), truth


def pairs_of(points: Any, tags: Any, *, text: bool = True, seed: int = 0) -> TagInputs:
    """Returns inputs with the directions of the classes as their texts."""
    classes = tags.shape[1]
    return TagInputs.of_features(
        points,
        tags,
        class_names=[f"class {number}" for number in range(classes)],
        engine=Engine(accelerator=Accelerator(cpu=True), seed=seed),
        text=np.eye(classes, points.shape[1], dtype=np.float32) if text else None,
        logit_scale=20.0 if text else None,
    )


def scored(name: str, points: Any, tags: Any) -> TagScores:
    """Returns what a detector of the registry says."""
    detector = tag_detector_class(name)()
    found: TagScores = detector.score(pairs_of(points, tags))
    return found


@pytest.mark.parametrize("name", mostly_slow(ON_FEATURES, quick=("joint",)))
def test_what_is_registered_finds_wrong_and_missing_tags(name: str) -> None:
    points, truth = world()
    tags = inject_tags(truth, seed=1)
    found = scored(name, points, tags)
    assert found.present.shape == found.issue.shape == tags.shape and found.present.dtype == np.float32
    assert found.present.min() >= 0 and found.present.max() <= 1
    measured = evaluate_pairs(truth=truth, tags=tags, quality=found.quality, flagged=found.issue)
    assert measured["wrong_auroc"] > 0.9 and measured["missing_auroc"] > 0.9  # type: ignore[operator]
    assert (found.wrong == found.issue & tags).all() and (found.missing == found.issue & ~tags).all()
    assert TAG_DETECTORS.about(name) and "\n" not in TAG_DETECTORS.about(name)


def test_the_joint_tells_how_many_tags_are_wrong_and_missing() -> None:
    points, truth = world(1000, scale=0.25)
    for omit, add in ((0.3, 0.1), (0.0, 0.0)):
        found = TagJoint().score(pairs_of(points, inject_tags(truth, omit=omit, add=add, seed=3), text=False))
        assert found.omission == pytest.approx(omit, abs=0.07) and found.commission == pytest.approx(add, abs=0.05)


@pytest.mark.parametrize("name", mostly_slow(("joint", "knn", "label-match"), quick=("joint",)))
def test_of_right_tags_that_are_easy_to_tell_nothing_is_flagged(name: str) -> None:
    points, truth = world(scale=0.05)
    assert scored(name, points, truth).issue.mean() < (0.001 if name == "joint" else 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(ON_FEATURES, quick=("joint",)))
def test_classes_in_another_order_give_the_same(name: str) -> None:
    points, truth = world(150)
    tags, order = inject_tags(truth, seed=1), np.array([3, 1, 5, 0, 2, 4])
    inputs = pairs_of(points, tags)
    images = dataclasses.replace(inputs.images, text=inputs.images.text[order])  # type: ignore[index]
    detector = tag_detector_class(name)()
    one, other = detector.score(inputs), detector.score(TagInputs(images, np.ascontiguousarray(tags[:, order])))
    np.testing.assert_allclose(one.present[:, order], other.present, atol=0.03)


@pytest.mark.parametrize("name", mostly_slow(ON_FEATURES, quick=("joint",)))
def test_odd_tags_give_finite_scores(name: str) -> None:
    points, truth = world(40)
    truth[:, 0], truth[:, 1] = False, True
    found = scored(name, points, truth)
    assert np.isfinite(found.present).all() and len(found.notes) >= 2
    assert 'no image has the tag "class 0"' in found.notes[0] and 'every image has the tag "class 1"' in found.notes[1]
    same = scored(name, np.ones_like(points), truth)
    assert np.isfinite(same.present).all() and same.issue.sum() <= truth.size // 4


@pytest.mark.parametrize("name", mostly_slow(ON_FEATURES, quick=("joint",)))
@pytest.mark.parametrize("images", [1, 5])
def test_fewer_images_than_classes(name: str, images: int) -> None:
    points, truth = world(5, classes=9)
    truth[0, 0], truth[1, 0] = True, False
    assert np.isfinite(scored(name, points[:images], truth[:images]).present).all()


@pytest.mark.parametrize("name", mostly_slow(("joint", "knn", "label-match"), quick=("joint",)))
def test_features_that_tell_nothing_flag_next_to_nothing(name: str) -> None:
    points, truth = world()
    found = scored(name, points[np.random.default_rng(1).permutation(len(points))], truth)
    assert found.issue.mean() < 0.01 and np.isnan(found.commission).all() and np.isnan(found.omission).all()
    assert "tells little of the tags" in found.notes[-1]


def test_what_weak_features_do_not_see_is_not_taken_for_wrong() -> None:
    rng = np.random.default_rng(0)
    _, truth = world(800)
    seen = truth & (np.random.default_rng(1).random(truth.shape) < 0.3)
    points = seen @ np.eye(CLASSES, WIDTH) + rng.normal(scale=0.5, size=(800, WIDTH))
    found = TagJoint().score(pairs_of(points, truth))
    assert not found.issue.any() and np.isnan(found.commission).all()
    assert "the evidence tells little of the tags (" in found.notes[-1]


def test_rates_are_no_higher_than_the_surest_pairs_allow() -> None:
    chance = torch.linspace(0.001, 0.999, 4000)[:, None]
    rate, frequency = torch.tensor([0.4]), torch.tensor([0.5])
    tags = chance > 0.5
    found = allowed(chance, tags, frequency=frequency, added=rate)
    assert found == pytest.approx(2 / (0.4 * 1920), rel=0.01), "none of the surest is tagged"
    tags[::2] = ~tags[::2]
    assert allowed(chance, tags, frequency=frequency, added=rate) == 1


def test_an_image_that_could_not_be_read_has_no_score() -> None:
    points, truth = world(60)
    inputs = pairs_of(points, truth)
    broken = dataclasses.replace(inputs.images.features, errors={7: "class 7: broken"})
    found = TagJoint().score(TagInputs(dataclasses.replace(inputs.images, features=broken), truth))
    assert np.isnan(found.present[7]).all() and not found.issue[7].any() and found.errors == {7: "class 7: broken"}
    assert np.isfinite(np.delete(found.present, 7, axis=0)).all()


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (np.zeros((20, CLASSES), bool), "found no tag at all"),
        (np.ones((20, CLASSES), bool), "every class given to every image"),
        (np.ones((20, CLASSES)), r"an array of bool of shape \(20, 6\), .*, got float64"),
        (np.ones((19, CLASSES), bool), r"of shape \(20, 6\), .* got bool of shape \(19, 6\)"),
    ],
)
def test_bad_tags_get_one_line(tags: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        pairs_of(np.ones((20, WIDTH), np.float32), tags)
    assert "\n" not in str(error.value)


def test_bad_features_and_texts_get_one_line() -> None:
    points, truth = world(20)
    with pytest.raises(DataError, match="expected finite features"):
        pairs_of(np.full_like(points, np.nan), truth)
    with pytest.raises(DataError, match=r"expected text features of shape \(6, 12\), found \(5, 12\)"):
        TagInputs.of_features(
            points,
            truth,
            class_names=list("abcdef"),
            engine=Engine(accelerator=Accelerator(cpu=True)),
            text=np.eye(5, WIDTH, dtype=np.float32),
            logit_scale=1.0,
        )


def test_what_does_not_go_with_pairs_is_refused() -> None:
    for name in set(DETECTORS) - set(TAG_DETECTORS):
        with pytest.raises(SettingsError, match=f"{name} reads one label per image"):
            tag_detector_class(name)
    with pytest.raises(SettingsError, match="joint"):
        tag_detector_class("jiont")
    images = load_tags(np.zeros((2, 8, 8, 3), dtype=np.uint8), tags=[["cat"], []], class_names=["cat", "dog"])
    with pytest.raises(SettingsError, match="expected a detector of tags"):
        check_tag_input(DETECTORS["knn"](), images, None)
    assert all(issubclass(TAG_DETECTORS[name], TagDetector) for name in TAG_DETECTORS)


def test_a_discriminant_is_that_of_scikit_learn() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    points, truth = world(900, scale=0.6, seed=4)
    inputs = pairs_of(points, truth)
    deal = random_folds(900, folds=3, generator=torch.Generator().manual_seed(0))
    (kind,) = discriminant_kinds(inputs, torch.from_numpy(truth).float(), deal, shrinkages=(0.0,))
    here = np.flatnonzero(deal == 1)
    for column in range(CLASSES):
        rest = deal != 1
        fitted = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(points[rest], truth[rest, column])
        wanted = fitted.decision_function(points[here])
        # ours is shrunk
        assert np.corrcoef(kind(here)[:, column].numpy(), wanted)[0, 1] > 0.985


def test_one_against_rest_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    points, truth = world(200, scale=0.5)
    targets = torch.from_numpy(truth).float()
    weights, bias = fit_one_against_rest(torch.from_numpy(points), targets, penalty=1 / (0.7 * 200))
    for column in range(CLASSES):
        fitted = LogisticRegression(C=0.7, tol=1e-6, max_iter=1000).fit(points, truth[:, column])
        np.testing.assert_allclose(weights[:, column].numpy(), fitted.coef_[0], atol=0.02)
        assert float(bias[column]) == pytest.approx(float(fitted.intercept_[0]), abs=0.02)


def test_confident_learning_is_that_of_cleanlab() -> None:
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    points, truth = world(200, scale=0.4)
    tags = inject_tags(truth, seed=2)
    inputs = pairs_of(points, tags)
    found = TagConfidentLearning().score(inputs)
    labels = [np.flatnonzero(row).tolist() for row in tags]
    probability = out_of_fold_pair_probabilities(inputs, folds=5, strength=1.0)
    assert (found.issue == find_multilabel_issues_per_class(labels, probability, n_jobs=1)).all()
    np.testing.assert_allclose(found.quality, get_label_quality_scores_per_class(labels, probability), atol=1e-6)
    assert found.thresholds is None, "none says what cleanlab flags"


@pytest.mark.parametrize("images", [1, 2, 12])
def test_the_bar_of_a_probe_ends(images: int) -> None:
    class Counting(Progress):
        left = 0

        @contextmanager
        def task(self, label: str, *, total: int, unit: str, brief: bool = False) -> Iterator[Callable[[int], None]]:
            self.left += total

            def advance(count: int) -> None:
                self.left -= count

            yield advance

    points, _ = world(images)
    pairs, progress = pairs_of(points, np.arange(images * CLASSES).reshape(images, CLASSES) % 2 == 0), Counting()
    inputs = dataclasses.replace(pairs.images, engine=dataclasses.replace(pairs.images.engine, progress=progress))
    probability = out_of_fold_pair_probabilities(dataclasses.replace(pairs, images=inputs), folds=5, strength=1.0)
    assert probability.shape == (images, CLASSES) and probability.dtype == np.float32
    assert progress.left == 0


def test_neighbours_vote_by_their_share() -> None:
    points = np.repeat(np.eye(2, 4, dtype=np.float32), 10, axis=0)
    tags = np.zeros((20, 2), dtype=bool)
    tags[:10, 0] = tags[10:, 1] = True
    inputs = pairs_of(points, tags)
    kind = neighbour_kind(inputs, torch.from_numpy(tags).float(), neighbours_of(inputs, 9))
    share = torch.sigmoid(kind(np.arange(20)) + torch.tensor([0.5, 0.5]).logit())
    np.testing.assert_allclose(share[0].numpy(), [9.5 / 10, 0.5 / 10], atol=1e-5)
    assert not TagKNN(neighbours=5).score(inputs).issue.any()


def test_the_posterior_is_that_of_bayes() -> None:
    noise = TagNoise(torch.tensor([0.3]), torch.tensor([0.25]), torch.tensor([0.1]))
    prior = 0.3 * 0.9 / 0.75
    assert float(noise.prior) == pytest.approx(prior)
    assert float(noise.tagged(noise.prior)) == pytest.approx(0.3), "as many are tagged as there are tags"
    given = noise.posterior(noise.prior, torch.tensor([True])), noise.posterior(noise.prior, torch.tensor([False]))
    assert float(given[0]) == pytest.approx(0.9) and float(given[1]) == pytest.approx(prior * 0.25 / 0.7)


@pytest.mark.parametrize("most", [MAX_THRESHOLD, 0.75, 0.9])
def test_the_threshold_is_where_the_best_f1_is_expected(most: float) -> None:
    suspicion = np.random.default_rng(0).beta(0.3, 1.0, 400).astype(np.float32)
    order = np.sort(suspicion)[::-1].astype(np.float64)
    f1 = 2 * np.cumsum(order) / (np.arange(1, 401) + order.sum())
    assert best_threshold(1 - suspicion, maximum=most) == pytest.approx(float(np.clip(1 - f1.max() / 2, 0.5, most)))
    assert (
        best_threshold(np.ones(10, np.float32), maximum=most)
        == best_threshold(np.ones(0, np.float32), maximum=most)
        == most
    )


def test_tags_are_taken_away_and_put_in() -> None:
    truth = np.random.default_rng(0).random((500, 8)) < 0.2
    tags = inject_tags(truth, omit=0.2, add=0.1, seed=5)
    assert (truth & ~tags).sum() == round(0.2 * truth.sum())
    assert ((tags & ~truth).sum(axis=0) / tags.sum(axis=0)) == pytest.approx(0.1, abs=0.01)
    assert (inject_tags(truth, omit=0.2, add=0.1, seed=5) == tags).all()
    assert (inject_tags(truth, omit=0, add=0) == truth).all()
    assert inject_tags(np.zeros((0, 3), bool)).shape == (0, 3)
    with pytest.raises(SettingsError, match="expected add from 0 to below 1, got 10"):
        inject_tags(truth, add=10)
    with pytest.raises(DataError, match=r"of bool .*, got int64"):
        inject_tags([[1]])  # type: ignore[arg-type]


def test_metrics_of_pairs() -> None:
    truth = np.array([[True, False, False], [True, True, False], [False, False, True]])
    tags = np.array([[True, True, False], [False, True, False], [False, False, True]])
    quality = np.where(tags == truth, 0.9, 0.1).astype(np.float32)
    found = evaluate_pairs(truth=truth, tags=tags, quality=quality, flagged=tags != truth)
    assert {name: found[name] for name in TAG_DETECTION} == dict.fromkeys(TAG_DETECTION, 1.0)
    assert (found["wrong_rate"], found["missing_rate"], found["images"]) == (0.25, 0.2, 3)
    quality[0] = np.nan
    unread = evaluate_pairs(truth=truth, tags=tags, quality=quality, flagged=tags != truth)
    assert unread["images"] == 2 and unread["wrong_auroc"] is None and unread["wrong_f1"] == 0
    right = evaluate_pairs(truth=truth, tags=truth, quality=quality, flagged=tags != truth)
    assert right["map"] is None
