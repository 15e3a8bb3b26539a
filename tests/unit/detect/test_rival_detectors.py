"""CLIPCleaner, SimiFeat and FINE: against straightforward implementations, and what must change nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.progress import Progress
from labelsieve.data.features import LabelledFeatures, load_features
from labelsieve.detect import chunks, softmax_regression, transition
from labelsieve.detect import neighbours as blocks
from labelsieve.detect.clip_cleaner import CLIPCleaner
from labelsieve.detect.fine import FINE
from labelsieve.detect.inputs import detector_inputs
from labelsieve.detect.scores import Scores
from labelsieve.detect.simifeat import SimiFeat, lowest_of_each_class
from labelsieve.detect.softmax_regression import fit_balanced
from labelsieve.detect.transition import fit_transition, one_against_rest, share_right
from labelsieve.verdicts import decide
from tensor_sizes import LargestTensor

WIDTH, SCALE = 6, 10.0
Floats = NDArray[np.float64]
every_rival = pytest.mark.parametrize(
    "detector", [CLIPCleaner(), SimiFeat(), SimiFeat(rule="vote"), FINE()], ids=["clip-cleaner", "rank", "vote", "fine"]
)


def engine() -> Engine:
    return make_engine(device="cpu", precision="fp32", seed=0)


def noisy(count: int = 120, *, classes: int = 4, rate: float = 0.25, noise: float = 0.6) -> LabelledFeatures:
    """Returns features about the text feature of their true class, whose given labels are wrong at a rate."""
    rng = np.random.default_rng(3)
    truth, text = rng.integers(0, classes, count), rng.normal(size=(classes, WIDTH))
    values = text[truth] + noise * rng.normal(size=(count, WIDTH))
    labels = np.where(rng.random(count) < rate, (truth + rng.integers(1, classes, count)) % classes, truth)
    names = [f"class {index}" for index in range(classes)]
    found = load_features(values, labels=[names[k] for k in labels], class_names=names, text=text, logit_scale=SCALE)
    return found.with_labels(labels, truth=truth)


def score(detector: Any, features: LabelledFeatures) -> Scores:
    found: Scores = detector.score(detector_inputs(features, None, engine=engine()))
    return found


def issues(detector: Any, features: LabelledFeatures) -> NDArray[np.bool_]:
    return decide(features, score(detector, features)).is_issue


def unit(values: Any) -> Floats:
    doubles = np.asarray(values, dtype=np.float64)
    return np.asarray(doubles / np.linalg.norm(doubles, axis=1, keepdims=True))


def upper(values: Floats) -> Floats:
    """Posterior of the upper one of two Gaussians."""
    scaled = ((values - values.min()) / np.ptp(values))[:, None]
    mixture = GaussianMixture(2, reg_covar=1e-6, random_state=0).fit(np.sort(scaled, axis=0))
    return np.asarray(mixture.predict_proba(scaled)[:, mixture.means_.argmax()])


def upper_by_class(values: Floats, labels: NDArray[np.int64]) -> Floats:
    result = np.ones(len(values))
    for label in np.unique(labels):
        result[labels == label] = upper(values[labels == label])
    return result


# ---------------------------------------------------------------- CLIPCleaner


def estimates(features: LabelledFeatures, temperature: float) -> dict[str, Floats]:
    assert features.text is not None
    x, text = unit(features.features), unit(features.text)
    logits = x @ text.T / temperature
    fitted = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=10_000).fit(x, features.labels)
    probability = np.zeros((len(features), len(text)))
    probability[:, fitted.classes_] = fitted.predict_proba(x)
    return {
        "zero-shot": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        "classifier": probability,
    }


@pytest.mark.parametrize("estimate", ["both", "zero-shot", "classifier"])
@pytest.mark.parametrize("temperature", [0.07, "model"])
def test_clip_cleaner_selects_by_loss_and_by_consistency(estimate: Any, temperature: Any) -> None:
    features = noisy()
    labels, rows = features.labels, np.arange(len(features))
    both = estimates(features, 1 / SCALE if temperature == "model" else temperature)
    used = [each for name, each in both.items() if estimate in ("both", name)]
    clean = np.ones(len(features), dtype=bool)
    for probability in used:
        own = probability[rows, labels]
        clean &= (upper_by_class(np.log(own), labels) >= 0.5) & (own / probability.max(axis=1) >= 0.8)
    detector = CLIPCleaner(estimate=estimate, temperature=temperature)
    scores, mean = score(detector, features), np.mean(used, axis=0)
    assert np.array_equal(decide(features, scores).is_issue, ~clean) and clean.any() and not clean.all()
    np.testing.assert_allclose(scores.label_quality, mean[rows, labels], atol=1e-4)
    assert np.array_equal(scores.predicted, mean.argmax(axis=1))
    np.testing.assert_allclose(scores.confidence, mean.max(axis=1), atol=1e-4)


def test_clip_cleaner_selects_all_where_nothing_is_asked_for() -> None:
    features = noisy()
    assert not issues(CLIPCleaner(minimum_posterior=0, minimum_consistency=0), features).any()
    by_loss, by_consistency, by_both = (
        issues(CLIPCleaner(minimum_posterior=posterior, minimum_consistency=consistency), features)
        for posterior, consistency in ((0.5, 0), (0, 0.8), (0.5, 0.8))
    )
    assert np.array_equal(by_both, by_loss | by_consistency) and by_loss.any() and by_consistency.any()


@pytest.mark.parametrize("chunk", [4096, 17])
def test_the_classifier_is_that_of_scikit_learn(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax_regression, "CHUNK", chunk)
    features = noisy(90, classes=5)
    labels = np.where(features.labels == 2, 0, features.labels)  # a class without images
    x = torch.from_numpy(unit(features.features))
    fitted = fit_balanced(x, torch.from_numpy(labels), classes=5, progress=Progress())
    expected = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=10_000).fit(x.numpy(), labels)
    found = fitted.log_probability(x).exp().numpy()
    np.testing.assert_allclose(found[:, [0, 1, 3, 4]], expected.predict_proba(x.numpy()), atol=1e-4)
    assert (found[:, 2] == 0).all()


# ---------------------------------------------------------------- SimiFeat


def soft_labels_by_hand(features: LabelledFeatures, k: int) -> Floats:
    x, classes = unit(features.features), len(features.class_names)
    soft = np.zeros((len(x), classes))
    for row in range(len(x)):
        cosines = x @ x[row]
        cosines[row] = -2
        near = np.argsort(-cosines)[: k - 1]
        soft[row, features.labels[row]] += 2 * cosines[near[0]] - cosines[near[1]] if k > 2 else cosines[near[0]]
        for other in near:
            soft[row, features.labels[other]] += cosines[other]
    return soft


@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("queries", [1024, 7])
def test_soft_labels_are_added_up(k: int, queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "QUERIES", queries)
    features = noisy()
    soft = soft_labels_by_hand(features, k)
    agreement = soft[np.arange(len(soft)), features.labels] / np.linalg.norm(soft, axis=1)
    scores = score(SimiFeat(neighbours=k, rule="vote"), features)
    np.testing.assert_allclose(scores.label_quality, agreement, atol=1e-5)
    np.testing.assert_allclose(scores.confidence, soft.max(axis=1) / soft.sum(axis=1), atol=1e-5)
    soft[np.arange(len(soft)), features.labels] += 1e-6  # the given label wins among equals
    assert np.array_equal(scores.predicted, soft.argmax(axis=1))
    assert np.array_equal(decide(features, scores).is_issue, soft.argmax(axis=1) != features.labels)


def test_as_many_of_a_class_are_flagged_as_the_noise_says(monkeypatch: pytest.MonkeyPatch) -> None:
    features = noisy()
    right = np.array([0.5, 1.0, 0.9, 0.0])
    monkeypatch.setattr(transition, "share_right", lambda *_, **__: right)
    scores = score(SimiFeat(), features)
    flagged = decide(features, scores).is_issue
    for label, share in enumerate(right):
        quality = scores.label_quality[features.labels == label]
        mine = flagged[features.labels == label]
        assert mine.sum() == round((1 - share) * len(mine))
        assert mine.all() or not mine.any() or quality[mine].max() < quality[~mine].min()


def test_of_equals_none_is_flagged_that_is_beyond_the_rate() -> None:
    given, wrong = np.zeros(5, dtype=np.int64), np.array([0.4, 0.0])
    assert lowest_of_each_class(np.array([3.0, 1, 1, 2, 4]), given, wrong=wrong).tolist() == [0, 1, 1, 0, 0]
    assert lowest_of_each_class(np.array([3.0, 1, 1, 1, 4]), given, wrong=wrong).tolist() == [0] * 5
    assert lowest_of_each_class(np.ones(5), given, wrong=np.array([1.0, 0.0])).all()


def dense_distance(transition: torch.Tensor, prior: torch.Tensor, triples: torch.Tensor) -> torch.Tensor:
    """The distance of all K, K x K and K x K x K frequencies."""
    classes = len(prior)
    first, second, third = (torch.zeros([classes] * order, dtype=torch.float64) for order in (1, 2, 3))
    for a, b, c in triples.tolist():
        first[a] += 1 / len(triples)
        second[a, b] += 1 / len(triples)
        third[a, b, c] += 1 / len(triples)
    rows = [transition] * 3
    parts = (
        prior @ transition - first,
        torch.einsum("k,ka,kb->ab", prior, *rows[:2]) - second,
        torch.einsum("k,ka,kb,kc->abc", prior, *rows) - third,
    )
    return torch.stack([part.norm() for part in parts]).sum()


@pytest.mark.parametrize("block", [2**16, 40])
def test_the_distance_of_the_triples_and_its_slope_are_those_of_all_frequencies(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transition, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    triples = torch.randint(0, 5, (150, 3), generator=generator)
    rows = torch.rand(5, 5, dtype=torch.float64, generator=generator).softmax(dim=1).requires_grad_()
    prior = torch.rand(5, dtype=torch.float64, generator=generator).softmax(dim=0).requires_grad_()
    found = transition._distance(rows, prior, transition._count(triples, 5))
    expected = dense_distance(rows, prior, triples)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for mine, other in zip(
        torch.autograd.grad(found, (rows, prior)), torch.autograd.grad(expected, (rows, prior)), strict=True
    ):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), atol=1e-12)


def draw_triples(matrix: Floats, prior: Floats, count: int = 6000) -> tuple[torch.Tensor, Floats]:
    """Returns triples of labels of one true class each, and the share of each label's images that it is right for."""
    rng = np.random.default_rng(0)
    truth = rng.choice(len(prior), count, p=prior)
    labels = np.stack([[rng.choice(len(prior), p=matrix[k]) for k in truth] for _ in range(3)], axis=1)
    share = np.array([(truth[labels[:, 0] == k] == k).mean() for k in range(len(prior))])
    return torch.from_numpy(labels), share


@pytest.mark.slow
def test_the_noise_is_found_where_neighbours_are_of_one_class() -> None:
    matrix = np.array([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.05, 0.05, 0.9]])
    prior = np.array([0.5, 0.3, 0.2])
    triples, share = draw_triples(matrix, prior)
    found, shares = fit_transition(triples, classes=3, progress=Progress())
    np.testing.assert_allclose(found.numpy(), matrix, atol=0.04)
    np.testing.assert_allclose(shares.numpy(), prior, atol=0.04)
    right = share_right(triples, classes=3, generator=torch.Generator(), progress=Progress())
    np.testing.assert_allclose(right, share, atol=0.04)


@pytest.mark.usefixtures("few_steps")
def test_many_classes_are_set_against_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    even = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
    triples, share = draw_triples(even, np.full(4, 0.25))
    np.testing.assert_allclose(one_against_rest(triples, classes=4), share, atol=0.05)
    features = noisy()
    assert score(SimiFeat(), features).notes == ()
    monkeypatch.setattr(transition, "MAX_CLASSES", 3)
    (note,) = score(SimiFeat(), features).notes
    assert "4 classes" in note and "against the rest" in note
    assert score(SimiFeat(rule="vote"), features).notes == ()


def test_more_classes_than_a_matrix_is_estimated_for() -> None:
    classes = transition.MAX_CLASSES + 50
    rng = np.random.default_rng(0)
    text, truth = rng.normal(size=(classes, 32)), np.arange(4 * classes) % classes
    features = load_features(
        text[truth] + 0.1 * rng.normal(size=(len(truth), 32)), labels=truth, text=text, logit_scale=SCALE
    )
    wrong = np.zeros(len(truth), dtype=bool)
    assert not issues(SimiFeat(neighbours=4), features).any()
    wrong[::40] = True
    changed = features.with_labels(np.where(wrong, (truth + 7) % classes, truth), truth=truth)
    flagged = issues(SimiFeat(neighbours=4), changed)
    assert wrong[flagged].mean() > 0.6 and flagged[wrong].mean() > 0.6


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    "triples",
    [[[0, 0, 0]] * 5, [[2, 2, 2]], [[0, 1, 2]], [[0, 1, 1], [1, 0, 0]]],
    ids=["one class", "one image", "all different", "never alike"],
)
def test_shares_where_little_can_be_told(triples: list[list[int]]) -> None:
    for found in (
        share_right(torch.tensor(triples), classes=4, generator=torch.Generator(), progress=Progress()),
        one_against_rest(torch.tensor(triples), classes=4),
    ):
        assert found.shape == (4,) and ((found >= 0) & (found <= 1)).all()
        assert found[3] == 1, "a class without images"


@pytest.mark.usefixtures("few_steps")
def test_of_many_triples_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transition, "MAX_TRIPLES", 3000)
    triples, share = draw_triples(np.full((3, 3), 0.1) + 0.7 * np.eye(3), np.full(3, 1 / 3))
    first, again = (
        share_right(triples, classes=3, generator=torch.Generator().manual_seed(1), progress=Progress()) for _ in "ab"
    )
    assert np.array_equal(first, again)
    np.testing.assert_allclose(first, share, atol=0.1)


# ---------------------------------------------------------------- FINE


@pytest.mark.parametrize("width", [WIDTH, 60])
def test_fine_is_the_alignment_with_the_first_singular_vector(width: int) -> None:
    features = noisy()
    turned = np.random.default_rng(1).normal(size=(WIDTH, width))
    features = dataclasses.replace(features, features=(features.features @ turned).astype(np.float32), text=None)
    features = dataclasses.replace(features, logit_scale=None)
    x, labels = unit(features.features), features.labels
    first = np.stack([np.linalg.svd(x[labels == k])[2][0] for k in range(4)])
    alignment = (x @ first.T) ** 2
    own = alignment[np.arange(len(x)), labels]
    scores, posterior = score(FINE(), features), upper_by_class(own, labels)
    np.testing.assert_allclose(scores.label_quality, own, atol=1e-5)
    assert np.array_equal(scores.predicted, alignment.argmax(axis=1))
    np.testing.assert_allclose(scores.confidence, alignment.max(axis=1), atol=1e-5)
    for least in (0.5, 0.9):
        flagged = issues(FINE(minimum_posterior=least), features)
        assert np.array_equal(flagged, posterior <= least) and flagged.any() and not flagged.all()


def test_features_that_are_all_alike_speak_against_no_label() -> None:
    features = noisy(40)
    alike = dataclasses.replace(features, features=np.ones((40, WIDTH), dtype=np.float32))
    assert not issues(FINE(), alike).any()
    assert not issues(CLIPCleaner(minimum_consistency=0), alike).any()


def test_the_only_image_of_a_class_is_of_the_upper_component() -> None:
    features = noisy(40, classes=5)
    labels = np.where(features.labels == 4, 0, features.labels)
    labels[7] = 4
    alone = features.with_labels(labels)
    assert not issues(FINE(), alone)[7]
    assert not issues(CLIPCleaner(minimum_consistency=0), alone)[7]


# ---------------------------------------------------------------- what must change nothing


@every_rival
@pytest.mark.usefixtures("few_steps")
def test_the_numbers_of_the_classes_change_nothing(detector: Any) -> None:
    features = noisy(60)
    order = np.array([2, 0, 3, 1])  # the new number of each class
    assert features.text is not None
    back = np.argsort(order)
    names = tuple(features.class_names[k] for k in back)
    other = dataclasses.replace(features, text=features.text[back], class_names=names).with_labels(
        order[features.labels]
    )
    before, after = score(detector, features), score(detector, other)
    np.testing.assert_allclose(after.label_quality, before.label_quality, atol=1e-5)
    assert np.array_equal(after.predicted, order[before.predicted])
    assert np.array_equal(decide(other, after).is_issue, decide(features, before).is_issue)


@every_rival
@pytest.mark.usefixtures("few_steps")
def test_a_class_without_images_changes_nothing(detector: Any) -> None:
    features = noisy(60)
    assert features.text is not None
    far = -features.text.sum(axis=0, keepdims=True) * 1e3
    more = dataclasses.replace(
        features, text=np.concatenate([features.text, far]), class_names=(*features.class_names, "none")
    )
    assert np.array_equal(issues(detector, more), issues(detector, features))


@every_rival
@pytest.mark.usefixtures("few_steps")
def test_no_array_of_images_times_classes_is_held(detector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (softmax_regression, chunks):
        monkeypatch.setattr(module, "CHUNK", 32)
    monkeypatch.setattr(blocks, "QUERIES", 16)
    monkeypatch.setattr(blocks, "OTHERS", 64)
    features = noisy(400, classes=40)
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        score(detector, features)
    assert 400 < largest.size <= 400 * 40 / 2
