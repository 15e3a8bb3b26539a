"""What the other tags of an image say of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given as drawn
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from labelsieve.core.engine import Engine
from labelsieve.data.tags.noise import inject_tags
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.joint import TagJoint
from labelsieve.detect.tags.other_tags import _couplings, other_tags_kind
from labelsieve.tag_metrics import evaluate_pairs

Tags = NDArray[np.bool_]


def logits_of(tags: Tags, *, folds: int = 5) -> NDArray[np.float32]:
    every = np.arange(len(tags))
    return other_tags_kind(tags, every % folds)(every).numpy()


def going_together(count: int, classes: int = 8, *, strength: float, seed: int = 0) -> Tags:
    """Returns tags that depend on a few common causes, (n, K)."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(count, 3)) @ rng.normal(size=(3, classes)) * strength
    return causes + rng.logistic(size=(count, classes)) > 1


@drawn(st.data())
def test_a_tag_says_nothing_of_itself(data: Any) -> None:
    tags = going_together(40, 5, strength=1.0, seed=data.draw(st.integers(0, 99)))
    row, column = data.draw(st.integers(0, 39)), data.draw(st.integers(0, 4))
    before = logits_of(tags)[row, column]
    tags[row, column] = not tags[row, column]
    assert logits_of(tags)[row, column] == before


def test_weak_couplings_are_those_of_logistic_regression() -> None:
    tags = going_together(60_000, 5, strength=0.6)
    counts = tags.T.astype(float) @ tags
    slopes, _ = _couplings(torch.from_numpy(counts), len(tags))
    for each in range(5):
        others = np.delete(np.arange(5), each)
        fitted = LogisticRegression(C=1e6).fit(tags[:, others], tags[:, each]).coef_[0]
        np.testing.assert_allclose(slopes[others, each].numpy(), fitted, atol=0.03)
        assert slopes[each, each] == 0
        assert np.abs(fitted).max() > 0.1  # there is something to find


def test_the_scatter_by_chance_is_that_of_the_products() -> None:
    tags = going_together(200, 6, strength=0.5, seed=1)
    count = len(tags)
    mean = (tags.sum(axis=0) + 0.5) / (count + 1)
    scaled = (tags - mean) / np.sqrt(mean * (1 - mean))
    products, apart = scaled[:, :, None] * scaled[:, None, :], ~np.eye(6, dtype=bool)
    found = products.mean(axis=0)
    common = found[apart].mean()
    weight = products.var(axis=0)[apart].mean() / count / ((found - common)[apart] ** 2).mean()
    drawn_in = np.where(apart, found + weight * (common - found), 1 + 1 / count)
    spread = np.sqrt(mean * (1 - mean))
    expected = np.where(apart, -np.linalg.inv(drawn_in), 0) / np.outer(spread, spread)
    together = torch.from_numpy(tags.T.astype(float) @ tags)
    slopes, offsets = _couplings(together, count)
    assert 0.02 < weight < 0.98
    # the mean has half an image more than the products here
    np.testing.assert_allclose(slopes.numpy(), expected, atol=0.02 * np.abs(expected).max())
    np.testing.assert_allclose(offsets.numpy(), -mean @ expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("classes", [1, 2, 30])
def test_odd_tags_give_finite_log_odds(classes: int) -> None:
    tags = np.zeros((12, classes), dtype=bool)
    assert np.isfinite(logits_of(tags)).all()
    tags[:, 0] = True  # each image has it, and the others no one
    assert np.isfinite(logits_of(tags)).all()
    tags[::2] = True  # all go together
    found = logits_of(tags)
    assert np.isfinite(found).all()
    assert classes > 1 or (found == 0).all()


def test_tags_that_do_not_go_together_say_next_to_nothing() -> None:
    tags = np.random.default_rng(0).random((2000, 10)) < 0.3
    assert logits_of(tags).std() < 0.1
    assert logits_of(going_together(2000, 10, strength=1.0)).std() > 0.5


def test_of_images_that_tell_nothing_other_tags_find_what_is_wrong_and_missing() -> None:
    truth = going_together(1200, 12, strength=2.0)
    tags = inject_tags(truth, omit=0.2, add=0.1, seed=0)
    points = np.random.default_rng(0).normal(size=(len(tags), 16)).astype(np.float32)
    engine = Engine(accelerator=Accelerator(cpu=True))
    pairs = TagInputs.of_features(points, tags, class_names=[f"class {each}" for each in range(12)], engine=engine)
    found = TagJoint().score(pairs)
    metrics: Any = evaluate_pairs(truth=truth, tags=tags, quality=found.quality, flagged=found.issue)
    assert min(metrics["wrong_auroc"], metrics["missing_auroc"]) > 0.75
    assert roc_auc_score(truth[tags], logits_of(tags)[tags]) > 0.75
