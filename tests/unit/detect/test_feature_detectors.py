"""The detectors on features: against independent implementations, at the ends of what data can be, and invariances."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from sklearn.neighbors import NearestNeighbors

from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import SettingsError, TrainingError
from labelsieve.core.seeds import Purpose
from labelsieve.data.features import LabelledFeatures, load_features
from labelsieve.detect import neighbours as blocks
from labelsieve.detect import transition
from labelsieve.detect.aum import AUM
from labelsieve.detect.clip_margin import ClipMargin
from labelsieve.detect.confident_learning import ConfidentLearning
from labelsieve.detect.folds import stratified_folds
from labelsieve.detect.inputs import detector_inputs
from labelsieve.detect.joint import Joint
from labelsieve.detect.knn import KNN
from labelsieve.detect.label_match import LabelMatch
from labelsieve.detect.lemon import Lemon, multimodal_score
from labelsieve.detect.mixture import upper_posterior
from labelsieve.detect.neighbours import nearest, vote
from labelsieve.detect.probe import out_of_fold_probabilities
from labelsieve.detect.prototype_gmm import PrototypeGMM
from labelsieve.detect.prototypes import prototype_margins
from labelsieve.detect.registry import detector_class, feature_detectors
from labelsieve.detect.scores import Scores
from labelsieve.detect.zero_shot import ZeroShot
from labelsieve.metrics import evaluate
from labelsieve.verdicts import decide
from slow_cases import mostly_slow
from tensor_sizes import LargestTensor

WIDTH = 6
RIVALS = ("clip-cleaner", "simifeat", "fine")
EVERY_DETECTOR = feature_detectors(text=True)


@pytest.fixture(autouse=True, scope="module")
def few_steps() -> Iterator[None]:
    """Fits the noise of SimiFeat in fewer steps, which these small data do not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transition, "STEPS", 60)
        yield


def engine(seed: int = 0) -> Engine:
    return make_engine(device="cpu", precision="fp32", seed=seed)


def data(
    labels: list[int] | NDArray[np.int64], features: Any = None, *, classes: int = 4, seed: int = 0, noise: float = 0.4
) -> LabelledFeatures:
    """Returns features about the text feature of each label's class, unless others are given."""
    rng, given = np.random.default_rng(seed), np.asarray(labels, dtype=np.int64)
    text = rng.normal(size=(classes, WIDTH))
    values = text[given] + noise * rng.normal(size=(len(given), WIDTH)) if features is None else features
    names = [f"class {index}" for index in range(classes)]
    loaded = load_features(values, labels=[names[k] for k in given], class_names=names, text=text, logit_scale=10.0)
    return loaded


def noisy(count: int = 80, *, classes: int = 4, rate: float = 0.2, seed: int = 0) -> LabelledFeatures:
    """Returns features whose given labels are wrong at a rate, with the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    labels = np.where(rng.random(count) < rate, (truth + rng.integers(1, classes, count)) % classes, truth)
    return data(truth, classes=classes, seed=seed).with_labels(labels, truth=truth)


def score(detector: Any, features: LabelledFeatures, *, seed: int = 0) -> Scores:
    found: Scores = detector.score(detector_inputs(features, None, engine=engine(seed)))
    return found


def quick(name: str) -> Any:
    """Returns a detector that trains little, if at all."""
    return detector_class(name)(**({"epochs": 2, "min_steps": 0} if name == "aum" else {}))


def unit(values: NDArray[Any]) -> NDArray[np.float64]:
    doubles: NDArray[np.float64] = values.astype(np.float64)
    return np.asarray(doubles / np.linalg.norm(doubles, axis=1, keepdims=True))


def check(scores: Scores, features: LabelledFeatures) -> None:
    for values in (scores.label_quality, scores.confidence):
        assert values.shape == (len(features),) and values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()
    assert ((scores.predicted >= 0) & (scores.predicted < len(features.class_names))).all()
    assert scores.errors == {}
    decide(features, scores)


# ---------------------------------------------------------------- the ends of what data can be


@pytest.mark.parametrize("name", mostly_slow(EVERY_DETECTOR, quick={"joint", "label-match", "knn", "fine"}))
@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 1], 4),
        ([0, 0], 4),
        ([0, 0], 9),
        ([0, 1, 2], 9),
        ([0, 0, 1, 1, 2], 4),
        ([0] * 9, 9),
        ([0] * 9 + [1], 4),
        ([0] * 7 + [1] * 2 + [3], 9),
        ([2, 1, 0, 1] * 6, 9),
    ],
    ids=str,
)
def test_few_images_and_uneven_classes(name: str, labels: list[int], classes: int) -> None:
    features = data(labels, classes=classes)
    check(score(quick(name), features), features)


def test_one_row(subtests: pytest.Subtests) -> None:
    for name in EVERY_DETECTOR:
        with subtests.test(name=name):
            features = data([1])
            check(score(quick(name), features), features)


def test_two_classes(subtests: pytest.Subtests) -> None:
    for name, labels in product(EVERY_DETECTOR, ([0, 1], [0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0])):
        with subtests.test(name=name, labels=labels):
            features = data(labels, classes=2)
            check(score(quick(name), features), features)


def test_features_that_are_all_the_same(subtests: pytest.Subtests) -> None:
    for name, value in product(EVERY_DETECTOR, (0.0, 1.0)):
        with subtests.test(name=name, value=value):
            features = data([0, 1, 2, 3] * 6, np.full((24, WIDTH), value))
            check(score(quick(name), features), features)


def test_duplicates_are_borne(subtests: pytest.Subtests) -> None:
    for name in EVERY_DETECTOR:
        with subtests.test(name=name):
            once = noisy(20)
            features = once.take(np.repeat(np.arange(20), 3))
            features = dataclasses.replace(features, ids=tuple(map(str, range(60))))
            check(score(quick(name), features), features)


def test_the_same_seed_gives_the_same_scores(subtests: pytest.Subtests) -> None:
    for name in EVERY_DETECTOR:
        with subtests.test(name=name):
            features = noisy(40)
            first, again = (score(quick(name), features, seed=3) for _ in range(2))
            assert np.array_equal(first.label_quality, again.label_quality)
            assert np.array_equal(first.predicted, again.predicted)


@pytest.mark.parametrize("name", ["label-match", "clip-margin", "knn", "lemon", "prototype-gmm", *RIVALS])
def test_the_order_of_the_rows_changes_nothing(name: str) -> None:
    features, detector = noisy(40), detector_class(name)()
    before = score(detector, features)
    for rows in (np.arange(40)[::-1].copy(), *(np.random.default_rng(seed).permutation(40) for seed in range(3))):
        after = score(detector, features.take(rows))
        np.testing.assert_allclose(after.label_quality, before.label_quality[rows], atol=2e-5)
        assert np.array_equal(after.predicted, before.predicted[rows])


@pytest.mark.parametrize("name", ["label-match", "clip-margin", "knn", "lemon", "prototype-gmm", *RIVALS])
def test_only_directions_count(name: str) -> None:
    features = noisy(40)
    lengths = np.random.default_rng(1).uniform(0.1, 9, (40, 1)).astype(np.float32)
    longer = dataclasses.replace(features, features=features.features * lengths)
    before, after = (score(detector_class(name)(), each) for each in (features, longer))
    np.testing.assert_allclose(after.label_quality, before.label_quality, atol=1e-5)


@pytest.mark.parametrize("name", ["knn", "aum", "prototype-gmm", "confident-learning", "simifeat", "fine"])
def test_texts_are_not_read_by_those_that_need_none(name: str) -> None:
    features = noisy()
    without = dataclasses.replace(features, text=None, logit_scale=None)
    first, second = (score(quick(name), each) for each in (features, without))
    assert np.array_equal(first.label_quality, second.label_quality)
    assert first.zero_shot_agreement is not None and second.zero_shot_agreement is None


def test_clear_mistakes_are_found(subtests: pytest.Subtests) -> None:
    for name in EVERY_DETECTOR:
        with subtests.test(name=name):
            features = noisy(200, rate=0.15)
            scores = score(detector_class(name)(), features)
            truth = features.truth
            assert truth is not None
            wrong = truth != features.labels
            figures = evaluate(wrong=wrong, flagged=decide(features, scores).is_issue, quality=scores.label_quality)
            assert figures["auroc"] is not None and figures["auroc"] > 0.9
            assert (scores.predicted[wrong] == truth[wrong]).mean() > 0.7
            assert figures["issue_recall"] is not None and figures["issue_recall"] > 0.8


# ---------------------------------------------------------------- neighbours


def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(60, WIDTH)))
    for k, (queries, others) in product((1, 5, 40), ((1024, 16_384), (7, 10), (64, 5))):
        with subtests.test(k=k, queries=queries, others=others):
            monkeypatch.setattr(blocks, "QUERIES", queries)
            monkeypatch.setattr(blocks, "OTHERS", others)
            found = nearest(torch.from_numpy(vectors), k=k)
            brute = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(vectors)
            distances, rows = brute.kneighbors()
            assert np.array_equal(found.rows.numpy(), rows)
            np.testing.assert_allclose(1 - found.similarity.numpy(), distances, atol=1e-12)
            some = nearest(torch.from_numpy(vectors), k=k, queries=torch.tensor([5, 50, 7]))
            assert torch.equal(some.rows, found.rows[[5, 50, 7]])


def test_no_row_is_its_own_neighbour_even_among_copies() -> None:
    found = nearest(torch.ones(9, 3), k=20)
    assert found.rows.shape == (9, 8)
    assert all(sorted(row) == sorted(set(range(9)) - {own}) for own, row in enumerate(found.rows.tolist()))


@given(st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=30)
def test_votes_are_counted(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, rows = rng.integers(0, 3, 12), rng.integers(0, 12, (12, k))
    found = vote(torch.from_numpy(rows), torch.from_numpy(labels), torch.from_numpy(labels))
    for row, own in enumerate(labels):
        counts = np.bincount(labels[rows[row]], minlength=3)
        assert found.agreement[row] == pytest.approx(counts[own] / k)
        assert found.share[row] == pytest.approx(counts.max() / k)
        tied = np.flatnonzero(counts == counts.max())
        first = next(label for label in labels[rows[row]] if label in tied)
        assert found.predicted[row] == (own if own in tied else first)


def test_many_neighbours_take_no_memory_by_their_square() -> None:
    rows, k = 64, 20_000  # 25 GB by the square of k
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 50, (k,), generator=generator)
    votes = vote(torch.arange(k).expand(rows, -1), labels, labels[:rows])
    counts = labels.bincount()
    np.testing.assert_allclose(votes.agreement, (counts[labels[:rows]] / k).numpy())
    np.testing.assert_allclose(votes.share, float(counts.max()) / k, rtol=1e-6)


def test_knn_is_the_vote() -> None:
    features = noisy()
    rows = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(features.features).kneighbors()[1]
    scores = score(KNN(neighbours=7), features)
    share = (features.labels[rows] == features.labels[:, None]).mean(axis=1)
    np.testing.assert_allclose(scores.label_quality, share, atol=1e-6)
    counts = np.stack([np.bincount(features.labels[row], minlength=4) for row in rows])
    assert np.array_equal(decide(features, scores).is_issue, counts.max(axis=1) > np.round(7 * share))


# ---------------------------------------------------------------- zero-shot


def test_margins_of_the_zero_shot_logits() -> None:
    features = noisy()
    assert features.text is not None
    logits = 10 * unit(features.features) @ unit(features.text).T
    own = logits[np.arange(80), features.labels]
    others = np.array([np.delete(row, label).max() for row, label in zip(logits, features.labels, strict=True)])
    scores = score(ClipMargin(), features)
    np.testing.assert_allclose(scores.label_quality, 1 / (1 + np.exp(others - own)), atol=1e-5)
    issue = decide(features, scores).is_issue
    assert np.array_equal(issue, own <= others)
    assert np.array_equal(issue, decide(features, score(LabelMatch(), features)).is_issue)


# ---------------------------------------------------------------- confident learning


def test_confident_learning_is_cleanlab_on_the_probe() -> None:
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = noisy()
    folds = stratified_folds(features.labels, folds=5, generator=engine().generator(Purpose.PROBE_FOLDS))
    probability = np.zeros((80, 4))
    for fold in range(5):
        here = folds == fold
        scaler = StandardScaler().fit(features.features[~here])
        probe = LogisticRegression(max_iter=200).fit(scaler.transform(features.features[~here]), features.labels[~here])
        probability[here] = probe.predict_proba(scaler.transform(features.features[here]))
    for rule in ("prune_by_noise_rate", "confident_learning", "predicted_neq_given"):
        scores = score(ConfidentLearning(filter_by=rule), features)
        np.testing.assert_allclose(scores.label_quality, probability[np.arange(80), features.labels], atol=1e-5)
        expected = find_label_issues(features.labels, probability, filter_by=rule, n_jobs=1)
        assert np.array_equal(decide(features, scores).is_issue, expected) and expected.any()
        assert np.array_equal(scores.predicted, probability.argmax(axis=1))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(2, 6))
def test_folds_are_stratified(labels: list[int], folds: int) -> None:
    given_labels = np.array(labels)
    deal = stratified_folds(given_labels, folds=folds, generator=torch.Generator().manual_seed(0))
    assert ((deal >= 0) & (deal < folds)).all()
    for label in set(labels):
        sizes = np.bincount(deal[given_labels == label], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_no_row_has_a_say_in_its_own_probability() -> None:
    features = noisy()
    view = detector_inputs(features, None, engine=engine())
    before = out_of_fold_probabilities(view, folds=5, strength=1.0)
    dealt = stratified_folds(features.labels, folds=5, generator=engine().generator(Purpose.PROBE_FOLDS))
    row = int(np.flatnonzero(dealt == 0)[0])
    changed = features.features.copy()
    changed[row] = 1e3
    view = detector_inputs(dataclasses.replace(features, features=changed), None, engine=engine())
    after = out_of_fold_probabilities(view, folds=5, strength=1.0)
    same = dealt == 0
    same[row] = False
    np.testing.assert_allclose(before[same], after[same])
    assert not np.allclose(before[~same], after[~same])


# ---------------------------------------------------------------- AUM


def aum_by_hand(features: LabelledFeatures, settings: AUM) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """AUM less its threshold, with a plain loop and gradients worked out on paper."""
    values = features.features.astype(np.float64)
    values = (values - values.mean(axis=0)) / values.std(axis=0) / np.sqrt(WIDTH)
    count, classes = len(values), len(features.class_names)
    order = torch.randperm(count, generator=engine().generator(Purpose.AUM_THRESHOLD_SAMPLES)).numpy()
    share = count // (len(np.unique(features.labels)) + 1)
    fakes = order[:share], order[share : 2 * share]
    excess = np.zeros(count)
    for run, fake in enumerate(fakes):
        labels = features.labels.copy()
        labels[fake] = classes
        weight, speed = np.zeros((classes + 1, WIDTH + 1)), np.zeros((classes + 1, WIDTH + 1))
        margins: list[list[float]] = [[] for _ in range(count)]
        mean = np.zeros((count, classes + 1))
        for epoch in range(1, settings.epochs + 1):
            shuffled = torch.randperm(count, generator=engine().generator(Purpose.AUM_ORDER, run, epoch)).numpy()
            for start in range(0, count, settings.batch_size):
                gradient = settings.weight_decay * weight
                part = shuffled[start : start + settings.batch_size]
                for row in part:
                    x = np.append(values[row], 1.0)
                    z = weight @ x
                    margins[row].append(z[labels[row]] - np.delete(z, labels[row]).max())
                    p = np.exp(z) / np.exp(z).sum()
                    p[labels[row]] -= 1
                    gradient = gradient + np.outer(p, x) / len(part)
                speed = settings.momentum * speed + gradient
                weight = weight - settings.learning_rate * speed
            powers = np.exp(np.column_stack([values, np.ones(count)]) @ weight.T)
            mean += powers / powers.sum(axis=1, keepdims=True) / settings.epochs
        area = np.array([np.mean(each) for each in margins])
        if settings.average_of == "probabilities":
            area = np.array([np.log(p[k] / np.delete(p, k).max()) for p, k in zip(mean, labels, strict=True)])
        threshold = np.percentile(area[fake], settings.percentile)
        mine = np.setdiff1d(np.arange(count), fakes[0]) if run == 0 else fakes[0]
        excess[mine] = area[mine] - threshold
    return excess, excess <= 0


@pytest.mark.parametrize("average_of", ["margins", "probabilities"])
def test_aum_is_that_of_a_simple_loop(average_of: Any) -> None:
    features = noisy(60)
    detector = AUM(average_of=average_of, epochs=5, min_steps=0, batch_size=16)
    excess, issue = aum_by_hand(features, detector)
    scores = score(detector, features)
    np.testing.assert_allclose(scores.label_quality, 1 / (1 + np.exp(-excess / excess.std())), atol=1e-4)
    assert np.array_equal(decide(features, scores).is_issue, issue) and issue.any() and not issue.all()


def test_aum_flags_less_at_a_lower_percentile() -> None:
    features = noisy(120)
    strict, mild = (
        decide(features, score(AUM(percentile=p, epochs=5, min_steps=0, batch_size=16), features)).is_issue
        for p in (99.0, 30.0)
    )
    assert mild.sum() < strict.sum() and (strict | ~mild).all()


@pytest.mark.usefixtures("any_number")
def test_a_probe_that_breaks_says_so() -> None:
    with pytest.raises(TrainingError, match=r"no longer a finite number .* lower learning_rate"):
        score(AUM(learning_rate=1e38), noisy())


# ---------------------------------------------------------------- LEMoN


def lemon_by_hand(features: LabelledFeatures, settings: Lemon) -> NDArray[np.float64]:
    """The formula, term by term; among equally near texts every one has the same chance to be a neighbour."""
    assert features.text is not None
    x, y, labels = unit(features.features), unit(features.text), features.labels
    n = len(x)
    k = min(settings.neighbours, n - 1)
    mm = [1 - x[i] @ y[labels[i]] for i in range(n)]
    result = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        s_n = s_m = 0.0
        for j in sorted(others, key=lambda j: 1 - x[i] @ x[j])[:k]:
            apart = 1 - y[labels[i]] @ y[labels[j]]
            if settings.text_distance == "discrete":
                apart = float(labels[i] != labels[j])
            far = 1 - x[i] @ x[j]
            s_n += apart * np.exp(-settings.distance_decay * far) * np.exp(-settings.pair_decay * mm[j]) / k
        near = {j: 0.0 if labels[i] == labels[j] else 1 - y[labels[i]] @ y[labels[j]] for j in others}
        left = k
        for distance in sorted(set(near.values())):
            tied = [j for j in others if near[j] == distance]
            taken = min(left, len(tied))
            for j in tied:
                far = (1 - x[i] @ x[j]) * np.exp(-settings.distance_decay * distance)
                s_m += taken / len(tied) * far * np.exp(-settings.pair_decay * mm[j]) / k
            left -= taken
        result[i] = mm[i] + settings.beta * s_n + settings.gamma * s_m
    return result


@pytest.mark.parametrize("text_distance", ["discrete", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 30, 500])
def test_lemon_is_its_formula(k: int, text_distance: Any) -> None:
    features = noisy(50)
    features = features.with_labels(np.where(np.arange(50) < 45, features.labels, 3))
    detector = Lemon(neighbours=k, beta=3.0, gamma=2.0, distance_decay=0.7, pair_decay=2.0, text_distance=text_distance)
    found = multimodal_score(detector, detector_inputs(features, None, engine=engine()))
    np.testing.assert_allclose(found, lemon_by_hand(features, detector), atol=1e-5)
    quality = score(detector, features).label_quality
    np.testing.assert_allclose(quality, upper_posterior(-found), atol=1e-4)


def test_lemon_without_neighbours_is_the_distance_to_the_text() -> None:
    features = noisy(50)
    assert features.text is not None
    found = multimodal_score(Lemon(beta=0, gamma=0), detector_inputs(features, None, engine=engine()))
    expected = 1 - (unit(features.features) * unit(features.text)[features.labels]).sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_lemon_has_the_fixed_settings_of_the_paper() -> None:
    detector = Lemon()
    assert (detector.neighbours, detector.beta, detector.gamma) == (30, 5.0, 5.0)
    assert (detector.distance_decay, detector.pair_decay) == (0.1, 5.0)


# ---------------------------------------------------------------- prototypes and mixtures


@given(st.lists(st.integers(0, 3), min_size=1, max_size=25), st.integers(0, 2**32))
@settings(max_examples=30)
def test_margins_to_prototypes_leave_the_row_out(labels: list[int], seed: int) -> None:
    vectors = unit(np.random.default_rng(seed).normal(size=(len(labels), WIDTH))).astype(np.float32)
    margin, predicted = prototype_margins(torch.from_numpy(vectors), torch.tensor(labels), classes=4)
    for row, own in enumerate(labels):
        cosines = np.full(4, -2.0)
        for label in {*labels}:
            others = [j for j, other in enumerate(labels) if other == label and j != row]
            mean = vectors[others].astype(np.float64).mean(axis=0) if others else np.zeros(WIDTH)
            length = np.linalg.norm(mean)
            cosines[label] = vectors[row] @ mean / length if length else 0.0
        assert margin[row] == pytest.approx(cosines[own] - np.delete(cosines, own).max(), abs=1e-5)
        assert cosines[predicted[row]] == pytest.approx(cosines.max(), abs=1e-6)


def test_the_unsure_are_decided_by_their_neighbours() -> None:
    features = noisy(150, rate=0.3)
    detector = PrototypeGMM(sure=0.95, neighbours=5)
    given_labels = torch.from_numpy(features.labels)
    vectors = torch.from_numpy(unit(features.features).astype(np.float32))
    margin, _ = prototype_margins(vectors, given_labels, classes=4)
    first = upper_posterior(margin)
    unsure = (first > 0.05) & (first < 0.95)
    assert 5 < unsure.sum() < 145
    rows = NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute").fit(features.features).kneighbors()[1]
    agreement = (features.labels[rows] == features.labels[:, None]).mean(axis=1)
    expected = first.copy()
    expected[unsure] = 0.05 + 0.9 * upper_posterior(agreement[unsure])
    scores = score(detector, features)
    np.testing.assert_allclose(scores.label_quality, expected, atol=1e-4)
    alone = score(PrototypeGMM(sure=0.5), features)
    np.testing.assert_allclose(alone.label_quality, first, atol=1e-4)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=50), st.floats(0.01, 100), st.floats(-9, 9))
@settings(max_examples=50)
def test_a_posterior_keeps_the_order_and_knows_no_unit(values: list[float], scale: float, shift: float) -> None:
    raw = np.array(values)
    found = upper_posterior(raw)
    order = np.argsort(raw)
    assert (np.diff(found[order]) >= -1e-9).all() and ((found >= 0) & (found <= 1)).all()
    if np.ptp(raw) > 1e-3:
        np.testing.assert_allclose(upper_posterior(scale * raw + shift), found, atol=0.02)


def test_a_posterior_parts_two_groups() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(-2, 0.3, 100), rng.normal(1, 0.3, 300)
    found = upper_posterior(np.concatenate([low, high]))
    assert (found[:100] < 0.01).all() and (found[100:] > 0.99).all()
    assert upper_posterior([]).tolist() == [] and upper_posterior([3.0]).tolist() == [1.0]
    assert upper_posterior([0.1 + 0.2, 0.3]).tolist() == [1.0, 1.0]


# ---------------------------------------------------------------- joint evidence


def test_joint_weighs_text_and_features() -> None:
    features = noisy(300, rate=0.2)
    (note,) = score(Joint(), features).notes
    assert "zero-shot" in note and "image features" in note
    without = dataclasses.replace(features, text=None, logit_scale=None)
    (alone,) = score(Joint(), without).notes
    assert "smoothed features" in alone and "image features" in alone and "zero-shot" not in alone


def weight(scores: Scores, kind: str) -> float:
    (note,) = scores.notes
    return float(re.findall(rf"{kind} ([\d.]+)", note)[0])


def test_joint_does_without_names_that_the_model_does_not_know() -> None:
    features = noisy(300, rate=0.2)
    assert features.text is not None
    turned = score(Joint(), dataclasses.replace(features, text=np.roll(features.text, 1, axis=0)))
    assert weight(turned, "zero-shot") < 0.02
    alone = score(Joint(), dataclasses.replace(features, text=None, logit_scale=None))
    np.testing.assert_allclose(turned.label_quality, alone.label_quality, atol=0.05)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_joint_does_with_a_logit_scale_that_is_far_off(scale: float) -> None:
    features = noisy(300, rate=0.2)
    assert features.truth is not None
    wrong = features.labels != features.truth
    found = score(Joint(), dataclasses.replace(features, logit_scale=scale))
    usual = score(Joint(), features)
    flagged = (
        each.rule.flags(each.label_quality, predicted=each.predicted, given=features.labels) for each in (found, usual)
    )
    first, second = (f1_score(wrong, each) for each in flagged)
    assert first > second - 0.05


@pytest.mark.parametrize(
    ("per_class", "knows"),
    [
        ([0.25, 0.25, 0.25, 0.25], False),
        ([0.0, 1.0, 0.0, 0.0], False),  # always the same answer
        ([0.0, 1.0, 0.0, 0.0, np.nan, np.nan], False),
        ([0.3, 0.3, 0.25, 0.25], False),
        ([0.3, 0.3, 0.3, 0.3], True),
        ([0.0, 0.6, np.nan], False),
        ([0.5, 0.6, np.nan], True),
        ([0.0], True),
    ],
)
def test_a_model_knows_names_where_it_does_better_than_guessing(per_class: list[float], knows: bool) -> None:
    nothing = np.zeros(0, dtype=np.float32)
    first = ZeroShot(nothing, nothing.astype(np.int64), nothing, 0.9, np.array(per_class))
    assert first.knows_names is knows


# ---------------------------------------------------------------- settings


WRONG_SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("joint", {"folds": 1}),
    ("knn", {"neighbours": 0}),
    ("knn", {"neighbours": 2.5}),
    ("lemon", {"beta": -1.0}),
    ("lemon", {"pair_decay": float("nan")}),
    ("lemon", {"text_distance": "cosin"}),
    ("confident-learning", {"folds": 1}),
    ("confident-learning", {"strength": 0.0}),
    ("confident-learning", {"filter_by": "prune"}),
    ("aum", {"epochs": 0}),
    ("aum", {"learning_rate": 0.0}),
    ("aum", {"momentum": 1.0}),
    ("aum", {"percentile": 101.0}),
    ("prototype-gmm", {"sure": 0.4}),
    ("prototype-gmm", {"sure": 1.1}),
    ("aum", {"average_of": "logits"}),
    ("clip-cleaner", {"minimum_consistency": 1.1}),
    ("clip-cleaner", {"temperature": 0.0}),
    ("simifeat", {"neighbours": 1}),
    ("fine", {"minimum_posterior": -0.1}),
)


def test_settings_out_of_range(subtests: pytest.Subtests) -> None:
    for name, wrong in WRONG_SETTINGS:
        with subtests.test(name=name, wrong=wrong):
            with pytest.raises(SettingsError, match=rf"expected {next(iter(wrong))}\b") as caught:
                detector_class(name)(**wrong)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["knn", "lemon", *RIVALS])
def test_memory_does_not_grow_with_the_square(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of more than a block of similarities is made."""
    monkeypatch.setattr(blocks, "QUERIES", 64)
    monkeypatch.setattr(blocks, "OTHERS", 128)
    features = noisy(800)
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        score(detector_class(name)(), features)
    assert largest.size < 800 * 800 / 8, "an array of N times N was held"
