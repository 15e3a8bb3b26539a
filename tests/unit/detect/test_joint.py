"""One probability from several kinds of evidence: against brute force, and on data whose noise is known."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import OAS
from torch import Tensor

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.data.features import LabelledFeatures, load_features
from labelsieve.detect.evidence import discriminants
from labelsieve.detect.evidence import fit as joint_fit
from labelsieve.detect.evidence.discriminants import fit_discriminants
from labelsieve.detect.evidence.fit import Fit, _assumed_noise, _likeliest, _match, _Sample, fit_joint
from labelsieve.detect.evidence.noise_model import (
    SMALL,
    AssumedNoise,
    ClassNoise,
    InstanceNoise,
    Joined,
    JointModel,
    SymmetricNoise,
    TransitionNoise,
    clean_share,
    even_confusion,
    prior_confusion,
)
from labelsieve.detect.evidence.noise_rate import (
    CURVE_FACTOR,
    FLOOR,
    INSTANCE_RISE,
    RISE,
    _among_surest,
    _where_flat,
    classes_differ,
    noise_rate,
    reliability_rate,
    strikes_all_alike,
    surest_images,
)
from labelsieve.detect.evidence.posterior import _estimate
from labelsieve.detect.inputs import detector_inputs
from labelsieve.detect.scores import Estimate
from labelsieve.detect.zero_shot import fitting_factor
from labelsieve.flagging import MAX_THRESHOLD, best_threshold
from labelsieve.metrics import Interval
from slow_cases import mostly_slow

CLASSES = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def class_noise(model: JointModel) -> TransitionNoise:
    assert isinstance(model.noise, TransitionNoise)
    return model.noise


def transition(noise: TransitionNoise) -> Tensor:
    """T as the formula has it, cell by cell."""
    classes = len(noise.rates)
    result = torch.zeros(classes, classes)
    for true in range(classes):
        for label in range(classes):
            share = float(noise.confusion[true, label]) if isinstance(noise, ClassNoise) else 1 / (classes - 1)
            result[true, label] = 1 - noise.rates[true] if true == label else noise.rates[true] * share
    return result


def random_model(seed: int, *, confused: bool = True) -> JointModel:
    rng = np.random.default_rng(seed)
    confusion = torch.from_numpy(rng.random((CLASSES, CLASSES), dtype=np.float32)).fill_diagonal_(0)
    confusion /= confusion.sum(dim=1, keepdim=True)
    rates = torch.from_numpy(rng.uniform(0, 1, CLASSES).astype(np.float32))
    return JointModel(
        weights=torch.tensor([1.0, 0.3]),
        bias=torch.from_numpy(rng.normal(size=CLASSES).astype(np.float32)),
        noise=ClassNoise(0.5, rates, confusion, even_confusion(CLASSES)) if confused else SymmetricNoise(0.5, rates),
    )


@pytest.mark.parametrize("confused", [True, False])
def test_the_parts_add_up_to_the_noisy_label(confused: bool) -> None:
    noise = class_noise(random_model(3, confused=confused))
    probability = torch.randn(20, CLASSES, generator=generator()).softmax(dim=1)
    expected = probability @ transition(noise)
    for label in range(CLASSES):
        mine, others = noise.explain(probability, torch.full((20,), label))
        torch.testing.assert_close(mine + others.sum(dim=1), expected[:, label])
        torch.testing.assert_close(mine, probability[:, label] * (1 - noise.rates[label]))
        assert not others[:, label].any()


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=30)
def test_posterior_is_that_of_bayes(seed: int, confused: bool) -> None:
    model = random_model(seed, confused=confused)
    parts = 3 * torch.randn(2, 30, CLASSES, generator=generator(seed))
    labels = torch.randint(0, CLASSES, (30,), generator=generator(seed + 1))
    found, chances = model.posterior(parts, labels), transition(class_noise(model))
    probability = (parts[0] + 0.3 * parts[1] + model.bias).softmax(dim=1)
    for row, label in enumerate(labels.tolist()):
        p = probability[row]
        weight = [float(p[k] * chances[k, label]) for k in range(CLASSES)]
        assert float(found.clean[row]) == pytest.approx(weight[label] / sum(weight), rel=1e-4, abs=1e-6)
        rest = [0.0 if k == label else value for k, value in enumerate(weight)]
        assert rest[int(found.instead[row])] == pytest.approx(max(rest), rel=1e-4)
        assert int(found.instead[row]) != label
        assert float(p[int(found.likeliest[row])]) == pytest.approx(float(p.max()))
        assert float(found.likeliest_confidence[row]) == pytest.approx(float(p.max()))
        assert float(found.instead_confidence[row]) == pytest.approx(max(rest) / sum(weight), rel=1e-3, abs=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60))
def test_no_other_threshold_promises_a_better_f1(values: list[float]) -> None:
    clean = np.array(values, dtype=np.float32)
    suspicion = 1 - clean.astype(np.float64)

    def expected_f1(flagged: NDArray[np.bool_]) -> float:
        hits = suspicion[flagged].sum()
        whole = flagged.sum() + suspicion.sum()
        return float(2 * hits / whole) if whole else 0.0

    threshold = best_threshold(clean)
    assert 0.5 <= threshold <= MAX_THRESHOLD
    best = max(expected_f1(suspicion >= value) for value in suspicion)
    if threshold == MAX_THRESHOLD:  # next to nothing is wrong: there is no F1 to be had
        assert best / 2 <= 1 - MAX_THRESHOLD + 1e-9
        return
    assert expected_f1(suspicion >= 1 - threshold - 1e-12) == pytest.approx(best, abs=1e-9)


# ---------------------------------------------------------------- data whose noise is known


@dataclasses.dataclass(frozen=True)
class Known:
    """Images of five classes, a calibrated model that is sure of many of them, and noisy labels."""

    logits: Tensor
    truth: NDArray[np.int64]
    labels: NDArray[np.int64]

    def evidence(self, rows: NDArray[np.int64]) -> Tensor:
        return self.logits[None, rows]

    def fit(self, **more: Any) -> JointModel:
        rows = np.arange(len(self.labels))
        options: dict[str, Any] = {
            "rows": rows,
            "classes": CLASSES,
            "calibrated": False,
            "generator": generator(),
            **more,
        }
        return fit_joint(self.evidence, self.labels, **options).model


@cache
def known(kind: str, rate: float, *, sharpness: float = 4.0, count: int = 4000) -> Known:
    rng = np.random.default_rng(0)
    logits = sharpness * rng.normal(size=(count, CLASSES)).astype(np.float32)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (probability.cumsum(axis=1) < rng.random(count)[:, None]).sum(axis=1).clip(0, CLASSES - 1)
    shift = rng.integers(1, CLASSES, count) if kind == "symmetric" else 1
    labels = np.where(rng.random(count) < rate, (truth + shift) % CLASSES, truth)
    return Known(torch.from_numpy(logits), truth, labels)


@cache
def fitted(kind: str, rate: float) -> JointModel:
    return known(kind, rate).fit()


@pytest.mark.parametrize(("kind", "rate"), [("symmetric", 0.0), ("symmetric", 0.4), ("pair", 0.3)])
def test_noise_is_recovered(kind: str, rate: float) -> None:
    noise = class_noise(fitted(kind, rate))
    assert noise.rate == pytest.approx(rate, abs=0.04)
    assert float((noise.rates - rate).abs().max()) < 0.08
    if kind == "pair":
        assert isinstance(noise, ClassNoise)
        assert float(noise.confusion.diagonal(1).min()) > 0.7, "the next class is where the wrong labels are"
    else:
        assert isinstance(noise, SymmetricNoise), "a confusion of its own tells nothing that is not chance"


def joined_of(data: Known) -> Joined:
    return Joined(data.logits, torch.from_numpy(data.labels))


@cache
def mistaken(by: str, *, partner: float = 0.3) -> Known:
    """Wrong labels above all where the model is unsure: some class above others, or what the image looks like.

    Of mistakes by class the share `partner` goes to one class each, the rest to any other.
    """
    rng = np.random.default_rng(1)
    apart = rng.normal(size=(3000, CLASSES)).astype(np.float32)
    logits = torch.from_numpy(4 * (apart + 0.8 * np.roll(apart, 1, axis=1)) / 1.3)
    chances = logits.softmax(dim=1)
    truth = chances.multinomial(1, generator=generator())[:, 0].numpy()
    probability = chances.numpy()
    other = np.where(np.eye(CLASSES, dtype=bool)[truth], 0, probability).argmax(axis=1)
    if by == "class":
        other = (truth + np.where(rng.random(len(other)) < partner, 2, rng.integers(1, CLASSES, len(other)))) % CLASSES
    unsure = 1 - probability.max(axis=1).argsort().argsort() / len(other)
    wrong = rng.random(len(other)) < 0.2 + 0.3 * unsure
    return Known(logits, truth, np.where(wrong, other, truth))


def rate_of(joined: Joined, kind: AssumedNoise, *, like_pair: float = 0.0, reliable: float | None = None) -> Interval:
    surest = surest_images(joined, by_class=False)
    assert surest is not None
    return noise_rate(joined, surest, kind, like_pair=like_pair, reliable=reliable)


def assumed_noise_of(joined: Joined) -> tuple[AssumedNoise, float]:
    surest = surest_images(joined, by_class=False)
    return _assumed_noise(joined, surest, generator(), lambda _count: None)


def kind_of(joined: Joined) -> AssumedNoise:
    return assumed_noise_of(joined)[0]


def disagreeing(joined: Joined) -> float:
    return float((joined.logits.argmax(dim=1) != joined.labels).float().mean())


@pytest.mark.parametrize(
    ("by", "rise"), mostly_slow([("class", RISE), ("image", INSTANCE_RISE)], quick=[("class", RISE)])
)
def test_mistakes_are_more_frequent_than_the_surest_images_show(by: str, rise: float) -> None:
    data = mistaken(by)
    true = float((data.labels != data.truth).mean())
    joined = Joined(data.logits, torch.from_numpy(data.labels))
    kind = kind_of(joined)
    assert kind is (AssumedNoise.CLASS_DEPENDENT if by == "class" else AssumedNoise.INSTANCE_DEPENDENT)
    shown = AssumedNoise.SYMMETRIC if by == "class" else AssumedNoise.PAIR
    surest, rate = rate_of(joined, shown), rate_of(joined, kind)
    assert surest.value < true - 0.04
    assert rate.value == pytest.approx(min(rise * surest.value + FLOOR, disagreeing(joined)))
    assert rate.low < rate.value <= rate.high
    if by == "image":
        model = data.fit()
        assert isinstance(model.noise, InstanceNoise)
        assert abs(model.noise.rate - true) < abs(surest.value - true)


def test_classes_without_wrong_labels_do_not_hide_those_with_many() -> None:
    """Two of six classes have four in ten labels of the next class, and what learns from them is less sure of both."""
    rng, truth = np.random.default_rng(0), np.arange(1800) % 6
    means = 4 * np.eye(6, 16)
    means[1::2] = means[::2] + 5 * np.eye(6, 16)[1::2]
    points = (means[truth] + rng.normal(size=(1800, 16))).astype(np.float32)
    wrong = (truth % 2 == 0) & (truth < 4) & (rng.random(1800) < 0.4)
    flagged = ls.scan(load_features(points, labels=truth + wrong), detector=ls.Joint()).is_issue
    assert 2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum()) > 0.9


def test_classes_that_the_evidence_knows_little_do_not_differ() -> None:
    """Their right labels disagree as often as it doubts them."""
    logits = torch.randn(4000, CLASSES, generator=generator(4))
    logits[torch.arange(4000), torch.arange(4000) % CLASSES] += torch.tensor([2.0, 2.0, 9.0, 9.0, 9.0]).repeat(800)
    joined = Joined(logits, logits.softmax(dim=1).multinomial(1, generator=generator(3))[:, 0])
    of_all, of_each = (surest_images(joined, by_class=by_class) for by_class in (False, True))
    assert of_all and of_each and of_each.shares.low > of_all.shares.high
    assert not classes_differ(joined)


@pytest.mark.parametrize(("rate", "differ"), [(0.1, False), (0.3, True)])
def test_classes_differ_by_more_than_three_points(rate: float, differ: bool) -> None:
    """One class of five, of which the evidence is less sure, has wrong labels: 2 and 6 points more among the surest."""
    count, truth = 20_000, torch.arange(20_000) % CLASSES
    logits = torch.zeros(count, CLASSES)
    logits[torch.arange(count), truth] = torch.where(truth == 0, 8.0, 12.0) + torch.rand(count, generator=generator(2))
    wrong = (truth == 0) & (torch.rand(count, generator=generator(1)) < rate)
    joined = Joined(logits, torch.where(wrong, 1, truth))
    of_all, of_each = (surest_images(joined, by_class=by_class) for by_class in (False, True))
    assert of_all and of_each and of_each.shares.low > of_all.shares.high, "by more than chance"
    assert classes_differ(joined) == differ


def test_no_more_labels_are_wrong_than_disagree() -> None:
    data = known("symmetric", 0.3, sharpness=12.0)
    joined = Joined(data.logits, torch.from_numpy(data.labels))
    disagree, rate = disagreeing(joined), rate_of(joined, AssumedNoise.INSTANCE_DEPENDENT)
    assert rate.value == pytest.approx(disagree) and rate.high == pytest.approx(disagree + FLOOR, abs=0.03)


@pytest.mark.parametrize(("kind", "rate"), [("symmetric", 0.0), ("symmetric", 0.4), ("pair", 0.3)])
def test_the_reliability_curve_of_a_calibrated_model_holds_the_noise(kind: str, rate: float) -> None:
    data = known(kind, rate)
    labels = torch.from_numpy(data.labels)
    assert reliability_rate(data.logits, labels) == pytest.approx(rate, abs=0.04)
    assert reliability_rate(data.logits / 20, labels, factor=20.0) == pytest.approx(rate, abs=0.04), "far off"
    near = reliability_rate(data.logits, labels, factor=1.9)
    assert near == reliability_rate(data.logits, labels), "a factor that is not far off is the data's own"


def test_mistakes_rise_the_less_the_closer_they_come_to_an_exchange() -> None:
    joined = joined_of(mistaken("class"))
    surest = rate_of(joined, AssumedNoise.SYMMETRIC).value
    rates = [rate_of(joined, AssumedNoise.CLASS_DEPENDENT, like_pair=each).value for each in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([(1 + each) * surest + FLOOR for each in (RISE - 1, (RISE - 1) / 2, 0.0)])
    some, more = (assumed_noise_of(joined_of(mistaken("class", partner=each))) for each in (0.2, 0.3))
    assert some[0] is more[0] is AssumedNoise.CLASS_DEPENDENT and 0 < some[1] < more[1] < 1
    assert assumed_noise_of(joined_of(known("symmetric", 0.3))) == (AssumedNoise.SYMMETRIC, 0.0)


def test_the_zero_shot_model_tells_how_often_classes_are_mistaken() -> None:
    joined = joined_of(mistaken("class"))
    alone = rate_of(joined, AssumedNoise.CLASS_DEPENDENT, like_pair=0.8)
    shown = rate_of(joined, AssumedNoise.PAIR).value
    readings = (0.0, 0.1, shown, shown + 0.05, 1.0)
    none, low, same, more, most = (
        rate_of(joined, AssumedNoise.CLASS_DEPENDENT, like_pair=0.8, reliable=each) for each in readings
    )
    assert most.value == pytest.approx(min(RISE * shown + FLOOR, disagreeing(joined))), "within what is assumed"
    assert same.value == pytest.approx(shown)
    assert more.value == pytest.approx(shown + CURVE_FACTOR * 0.05) and more.value < most.value
    assert low.value == pytest.approx(RISE * 0.1 + FLOOR) and low.value < alone.value, "it reads less than they show"
    surest = surest_images(joined, by_class=False)
    assert surest is not None
    fewest, bound = surest.shares.low, RISE * surest.shares.low + FLOOR
    at, near, half = (
        rate_of(joined, AssumedNoise.CLASS_DEPENDENT, like_pair=0.8, reliable=each).value
        for each in (fewest, shown - 1e-6, (fewest + shown) / 2)
    )
    assert at == pytest.approx(min(alone.value, bound)) and near == pytest.approx(shown, abs=1e-4), "no jump"
    assert at > shown + 0.005
    assert half == pytest.approx((min(alone.value, RISE * (fewest + shown) / 2 + FLOOR) + shown) / 2)
    assert none.low <= none.value == pytest.approx(FLOOR) and none.high == alone.high
    for kind in (AssumedNoise.PAIR, AssumedNoise.INSTANCE_DEPENDENT):
        for each in (0.0, 1.0):
            assert rate_of(joined, kind, reliable=each) == rate_of(joined, kind), "it is not asked about others"
    even = rate_of(joined, AssumedNoise.SYMMETRIC)
    of_right = rate_of(joined, AssumedNoise.SYMMETRIC, reliable=even.value + RISE * FLOOR)
    assert of_right.value == even.value and of_right.high == max(even.high, even.value + RISE * FLOOR), (
        "as of right labels"
    )
    bounded = rate_of(joined, AssumedNoise.SYMMETRIC, reliable=0.1)
    assert bounded.value == pytest.approx(RISE * 0.1 + FLOOR) and bounded.low <= bounded.value < even.value


def test_few_images_a_class_do_not_show_that_noise_is_symmetric() -> None:
    joined = joined_of(mistaken("class"))
    for images in (400, 1000, 2000, 4000):
        part = Joined(joined.logits[:images], joined.labels[:images])
        even = rate_of(part, AssumedNoise.SYMMETRIC)
        share = min(1.0, 200 * CLASSES / len(part.labels))
        read = even.value + 0.01
        more = rate_of(part, AssumedNoise.SYMMETRIC, reliable=read + RISE * FLOOR)
        assert more.value == pytest.approx(even.value + share * 0.01) and more.low == even.low
        most = rate_of(part, AssumedNoise.SYMMETRIC, reliable=0.9)
        raised = min(RISE * even.value + FLOOR, disagreeing(part))
        assert most.value == pytest.approx(even.value + share * (raised - even.value)) and most.high == 0.9


@pytest.mark.parametrize("kind", [AssumedNoise.SYMMETRIC, AssumedNoise.CLASS_DEPENDENT])
def test_what_weak_evidence_errs_on_among_the_surest_is_no_noise(kind: AssumedNoise) -> None:
    """Two in ten labels are wrong. Of the surest images more disagree, as weak evidence errs on some of them."""
    data = known("symmetric", 0.2, sharpness=1.5)
    joined = Joined(3 * data.logits, torch.from_numpy(data.labels))
    errs = rate_of(joined, AssumedNoise.PAIR).value
    rate = rate_of(joined, kind, like_pair=1.0).value - (FLOOR if kind is AssumedNoise.CLASS_DEPENDENT else 0.0)
    assert 0.2 < rate < errs - 0.04, "some of it: the evidence gets the most credit that it may have"


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
def test_even_noise_and_exchanged_classes_are_told_from_mistakes(kind: str) -> None:
    data = known(kind, 0.3)
    joined = Joined(data.logits, torch.from_numpy(data.labels))
    mistakes = kind_of(joined)
    assert mistakes is (AssumedNoise.SYMMETRIC if kind == "symmetric" else AssumedNoise.PAIR)
    rate = rate_of(joined, mistakes)
    assert rate.low < 0.3 < rate.high, "four thousand images, of which the surest tell"


def in_pairs(share: float, *, unsure_more: float = 0.0) -> Joined:
    """Three pairs of similar classes; wrong labels are the other class, more often the less sure the model is."""
    rng, count = np.random.default_rng(0), 4000
    pair, apart = rng.integers(0, 3, count), 12 * rng.normal(size=count)
    logits = np.full((count, 6), -6, dtype=np.float32)
    logits[np.arange(count), 2 * pair], logits[np.arange(count), 2 * pair + 1] = apart, 0
    truth = 2 * pair + (rng.random(count) > 1 / (1 + np.exp(-apart)))
    unsure = 1 - np.abs(apart).argsort().argsort() / count
    wrong = rng.random(count) < share + unsure_more * unsure
    return Joined(torch.from_numpy(logits), torch.from_numpy(np.where(wrong, truth ^ 1, truth)))


def test_an_exchange_strikes_all_images_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A confusion of classes explains either labels: each class is mistaken for one other."""
    exchanged, mistaken = in_pairs(0.2), in_pairs(0.02, unsure_more=0.5)
    for joined, expected in ((exchanged, True), (mistaken, False), (joined_of(known("pair", 0.3)), True)):
        surest = surest_images(joined, by_class=False)
        assert surest is not None and strikes_all_alike(joined, surest) == expected
        assert (kind_of(joined) is AssumedNoise.PAIR) == expected
    monkeypatch.setattr(joint_fit, "strikes_all_alike", lambda *_: True)
    assert kind_of(mistaken) is AssumedNoise.PAIR
    few = Joined(*(part[:200] for part in mistaken))
    surest = surest_images(few, by_class=False)
    assert surest is not None and strikes_all_alike(few, surest), "the surest are the surer half already"


def of_similar_classes(by: str) -> Joined:
    """Twenty classes of 25 images, four to a kind: wrong labels are the nearest class, or follow the image."""
    rng, classes = np.random.default_rng(2), np.arange(20)
    means = rng.normal(size=(5, 16))[classes // 4] + 0.8 * rng.normal(size=(20, 16))
    truth = classes.repeat(25)
    images = means[truth] + rng.normal(size=(len(truth), 16))
    logits = torch.from_numpy((images @ means.T - 0.5 * np.square(means).sum(axis=1)).astype(np.float32))
    if by == "class":
        distance = np.square(means[:, None] - means).sum(axis=2) + 1e9 * np.eye(20)
        other, chance = distance.argmin(axis=1)[truth], np.full(len(truth), 0.3)
    else:
        others = np.where(np.eye(20, dtype=bool)[truth], 0.0, logits.softmax(dim=1).numpy())
        other, chance = others.argmax(axis=1), 0.8 * others.max(axis=1).argsort().argsort() / len(truth)
    labels, order = np.where(rng.random(len(truth)) < chance, other, truth), rng.permutation(len(truth))
    return Joined(logits[order], torch.from_numpy(labels[order]))


def test_ambiguous_images_of_similar_classes_are_no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few images a class both look like an exchange of classes, and strike all images alike."""
    assert kind_of(of_similar_classes("class")) is AssumedNoise.PAIR
    assert kind_of(of_similar_classes("image")) is AssumedNoise.INSTANCE_DEPENDENT
    monkeypatch.setattr(joint_fit, "_images_tell_more", lambda *_: False)
    assert kind_of(of_similar_classes("image")) is AssumedNoise.PAIR


def similar_pairs(*, of_each: int) -> tuple[LabelledFeatures, NDArray[np.bool_]]:
    """Twenty pairs of similar classes; three in ten labels are the other class of the pair."""
    rng, truth = np.random.default_rng(0), np.arange(40 * of_each) % 40
    means = np.repeat(5 * rng.normal(size=(20, 48)), 2, axis=0) + 2 * rng.normal(size=(40, 48))
    points = (means[truth] + 1.2 * rng.normal(size=(len(truth), 48))).astype(np.float32)
    wrong = rng.random(len(truth)) < 0.3
    return load_features(points, labels=np.where(wrong, truth ^ 1, truth)), wrong


def test_an_exchange_of_many_small_classes_is_no_mistake_by_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, wrong = similar_pairs(of_each=12)

    def estimated() -> float:
        verdicts = ls.scan(data, detector=ls.Joint())
        return float(verdicts.record["estimate"]["wrong_labels"]["value"]) / len(data)

    assert abs(estimated() - wrong.mean()) < 0.06
    for module in ("fit", "noise_model"):
        monkeypatch.setattr(
            f"labelsieve.detect.evidence.{module}.prior_confusion",
            lambda joined: even_confusion(joined.logits.shape[1]),
        )
    assert abs(estimated() - wrong.mean()) > 0.1


def test_very_few_images_of_a_class_show_instance_dependent_noise_without_a_confusion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classes, rng = 100, np.random.default_rng(0)
    truth = np.arange(5 * classes) % classes
    similar = np.eye(classes)[truth] + 0.7 * np.eye(classes)[rng.integers(0, classes, len(truth))]
    logits = torch.from_numpy(8 * similar + 1.2 * rng.normal(size=(len(truth), classes))).float()
    other = logits.scatter(1, torch.from_numpy(truth)[:, None], -np.inf).argmax(dim=1)
    unsure = 1 - logits.softmax(dim=1).amax(dim=1).argsort().argsort() / len(truth)
    wrong = torch.from_numpy(rng.random(len(truth))) < 0.15 + 0.5 * unsure
    any_class = torch.from_numpy(rng.integers(0, classes, len(truth)))
    noisy = Joined(logits, torch.where(wrong, other, torch.from_numpy(truth)))
    symmetric = Joined(logits, torch.where(wrong, any_class, torch.from_numpy(truth)))
    found = [kind_of(each) for each in (noisy, symmetric, Joined(logits, torch.from_numpy(truth)))]
    assert found == [AssumedNoise.INSTANCE_DEPENDENT, AssumedNoise.SYMMETRIC, AssumedNoise.SYMMETRIC]
    monkeypatch.setattr(joint_fit, "INSTANCE_GAIN_OVER_SYMMETRIC", np.inf)
    assert kind_of(noisy) is AssumedNoise.SYMMETRIC, "five images of a class show no confusion"


def test_a_scan_after_a_review_does_not_take_the_rest_for_right() -> None:
    data, wrong = similar_pairs(of_each=60)
    inputs, detector = detector_inputs(data, None, engine=make_engine(device="cpu")), ls.Joint()
    reviewed = detector.score(inputs).label_quality.argsort()[: int(0.5 * wrong.sum())]
    labels, is_open = data.labels.copy(), ~np.isin(np.arange(len(data)), reviewed)
    labels[reviewed] = np.where(wrong, data.labels ^ 1, data.labels)[reviewed]

    def estimated(seen: NDArray[np.int64] | None) -> float:
        scores = detector.score(dataclasses.replace(inputs, labels=labels, unreviewed_labels=seen))
        return float((1 - scores.label_quality[is_open]).sum()) / int(wrong[is_open].sum())

    assert estimated(data.labels) == pytest.approx(1, abs=0.3)
    assert estimated(None) < 0.4, "the surest mistakes were mended, so the rest looks right"


def test_what_is_likely_to_be_confused_looks_alike() -> None:
    joined = joined_of(mistaken("image"))
    likely, chances = prior_confusion(joined), joined.logits.softmax(dim=1).double().numpy()
    expected = np.array(
        [[chances[:, j] @ chances[:, k] if j != k else 0 for k in range(CLASSES)] for j in range(CLASSES)]
    )
    expected = expected / expected.sum(axis=1, keepdims=True) / 2 + (1 - np.eye(CLASSES)) / (CLASSES - 1) / 2
    np.testing.assert_allclose(likely.numpy(), expected, rtol=1e-4)
    certain = prior_confusion(Joined(200 * torch.eye(3), torch.arange(3)))
    torch.testing.assert_close(certain, even_confusion(3), msg="no two classes were likely at once")


@pytest.mark.parametrize("kind", list(AssumedNoise))
def test_a_ranking_is_left_where_no_label_seems_to_be_wrong(kind: AssumedNoise) -> None:
    logits = known("symmetric", 0.0).logits
    joined = Joined(logits, logits.argmax(dim=1))
    noise = _match(joined, kind.noise(joined, 0.0), 0.0, lambda _count: None)[1]
    assert 0 < noise.rate < 0.01
    probability = logits.softmax(dim=1)
    clean = clean_share(*noise.explain(probability, joined.labels))
    sure, unsure = (probability.amax(dim=1).topk(500, largest=largest).indices for largest in (True, False))
    assert float(clean[unsure].max()) < float(clean[sure].min()) <= 1


def test_few_mistakes_of_classes_are_told_from_even_noise() -> None:
    """131 mistakes among three thousand images: half of them would tell too little of the confusion."""
    seed, count = 3, 3000
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(6 * rng.normal(size=(count, 10)).astype(np.float32))
    truth = logits.softmax(dim=1).multinomial(1, generator=generator(seed))[:, 0]
    unsure = 1 - logits.softmax(dim=1).amax(dim=1).numpy().argsort().argsort() / count
    wrong = torch.from_numpy(rng.random(count) < 0.08 * unsure)
    shift = torch.from_numpy(np.where(rng.random(count) < 0.5, 1, rng.integers(1, 10, count)))
    labels = torch.where(wrong, (truth + shift) % 10, truth)
    assert kind_of(Joined(logits, labels)) in (AssumedNoise.CLASS_DEPENDENT, AssumedNoise.PAIR)
    even = torch.where(wrong, (truth + torch.from_numpy(rng.integers(1, 10, count))) % 10, truth)
    assert kind_of(Joined(logits, even)) is AssumedNoise.SYMMETRIC


@pytest.mark.parametrize("exchanged", [True, False])
def test_an_exchange_of_many_small_classes_is_told_from_mistakes(exchanged: bool) -> None:
    """Forty classes of fifty images: a confusion is known so badly that it tells little of either."""
    rng, classes, count = np.random.default_rng(0), 40, 2000
    logits = torch.from_numpy(7 * rng.normal(size=(count, classes)).astype(np.float32))
    probability = logits.softmax(dim=1)
    truth = probability.multinomial(1, generator=generator())[:, 0]
    wrong = torch.from_numpy(rng.random(count) < 0.3)
    likeliest = probability.scatter(1, truth[:, None], 0.0).argmax(dim=1)
    labels = torch.where(wrong, (truth + 1) % classes if exchanged else likeliest, truth)
    assert (kind_of(Joined(logits, labels)) is AssumedNoise.PAIR) == exchanged


def look_alike() -> InstanceNoise:
    return InstanceNoise(0.3, torch.tensor([0.6, 0.4, 0.1]), torch.tensor([0.5, 0.8]), 0.7)


def by_hand(noise: InstanceNoise, p: Tensor, label: int) -> list[float]:
    """The part of each true class as the formula has it, for one image."""
    values = p.double().numpy()
    rate = float(noise.rates[sum(values.max() > float(edge) for edge in noise.edges)])
    parts = []
    for true in range(CLASSES):
        others = sum(values[k] for k in range(CLASSES) if k != true)
        like = (values[label] + SMALL) / (others + (CLASSES - 1) * SMALL)
        instead = noise.alike * like + (1 - noise.alike) / (CLASSES - 1)
        parts.append(values[true] * ((1 - rate) if true == label else rate * instead))
    return parts


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_what_looks_alike_is_explained_as_the_formula_has_it(seed: int) -> None:
    noise = look_alike()
    probability = (3 * torch.randn(8, CLASSES, generator=generator(seed))).softmax(dim=1)
    whole = torch.zeros(8)
    for label in range(CLASSES):
        mine, others = noise.explain(probability, torch.full((8,), label))
        whole += mine + others.sum(dim=1)
        for row in range(8):
            expected = by_hand(noise, probability[row], label)
            assert float(mine[row]) == pytest.approx(expected[label], rel=1e-4, abs=1e-6)
            rest = [0.0 if k == label else value for k, value in enumerate(expected)]
            np.testing.assert_allclose(others[row].numpy(), rest, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(whole, torch.ones(8), rtol=0, atol=1e-4)


def drawn(noise: InstanceNoise, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities of images, and labels that a noise gives them."""
    probability = (2 * torch.randn(count, CLASSES, generator=generator(seed))).softmax(dim=1)
    whole = [
        mine + others.sum(dim=1)
        for mine, others in (noise.explain(probability, torch.full((count,), k)) for k in range(CLASSES))
    ]
    return probability, torch.stack(whole, dim=1).multinomial(1, generator=generator(seed + 1))[:, 0]


def test_the_noise_of_look_alikes_is_learned_again() -> None:
    true = look_alike()
    probability, labels = drawn(true, 20_000)
    found = InstanceNoise.flat(0.2)
    for _ in range(100):
        found = found.learned([(probability[:15_000], labels[:15_000]), (probability[15_000:], labels[15_000:])])
    most = probability.amax(dim=1)
    for image in ([0.45], [0.6], [0.95]):
        at = torch.tensor(image)
        expected, got = (float(each.rates[torch.bucketize(at, each.edges)]) for each in (true, found))
        assert got == pytest.approx(expected, abs=0.1)
    assert bool((found.rates.diff() <= 0).all()), "the surer the fewer"
    assert len(found.rates) == len(found.edges) + 1 == 10
    assert float(found.edges[4]) == pytest.approx(float(most.median()), abs=0.01)
    mine, others = true.explain(probability, labels)
    wrong = float((others.sum(dim=1) / (mine + others.sum(dim=1))).mean())
    assert found.rate == pytest.approx(wrong, abs=0.03) and found.alike == pytest.approx(true.alike, abs=0.15)


def test_more_rounds_make_the_labels_likelier() -> None:
    probability, labels = drawn(look_alike(), 3000)
    noise, before = InstanceNoise.flat(0.2), -float("inf")
    for _ in range(12):
        mine, others = noise.explain(probability, labels)
        now = float((mine + others.sum(dim=1)).log().sum())
        assert now > before - 0.5, "but for what the priors hold back"
        noise, before = noise.learned([(probability, labels)]), now


def test_a_label_that_is_next_to_impossible_is_wrong_not_nothing() -> None:
    """Where a model is as sure as a number can say, a share is still a share."""
    probability = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1e-30, 0.0]])
    noise = InstanceNoise.flat(0.3)
    mine, others = noise.explain(probability, torch.tensor([1, 1]))
    assert not mine[0] and bool((others[:, 0] > 0.05).all()) and bool(torch.isfinite(others).all())


@pytest.mark.parametrize("kind", list(AssumedNoise))
def test_the_sharpness_makes_as_many_wrong_as_asked(kind: AssumedNoise) -> None:
    data = mistaken("image")
    joined = Joined(data.logits / 2, torch.from_numpy(data.labels))
    for rate in (0.2, 0.25):
        assert _match(joined, kind.noise(joined, rate), rate, lambda _count: None)[1].rate == pytest.approx(
            rate, abs=0.01
        )


@pytest.mark.slow
def test_the_rate_is_told_by_as_many_images_as_agree() -> None:
    """Where the evidence never errs by all of them; where it does, by those before it begins to."""
    rng = np.random.default_rng(0)
    few, many, cut = [], [], []
    for _ in range(200):
        wrong = torch.from_numpy(rng.random(2000) < 0.3)
        few.append(float(wrong[:300].float().mean()))
        many.append(_among_surest(wrong)[0].value)
        errs = torch.from_numpy(rng.random(2000) < np.linspace(-0.5, 1.0, 2000))
        cut.append(_among_surest(wrong | errs)[0].value)
    assert np.std(many) < 0.75 * np.std(few) and abs(np.mean(many) - 0.3) < 0.005
    assert abs(np.mean(cut) - 0.3) < 0.03, "of all two thousand 47 % disagree"


def test_what_weak_evidence_errs_on_is_not_taken_for_wrong() -> None:
    """It errs on more than a fifth of the surest 15 %, and on next to none of the very surest."""
    rng, rank = np.random.default_rng(0), np.arange(5000) / 5000
    for rate, most in ((0.0, 0.12), (0.05, 0.17)):
        told, shown = [], []
        for _ in range(50):
            disagrees = torch.from_numpy((rng.random(5000) < rate) | (rng.random(5000) < 3 * rank))
            told.append(_among_surest(disagrees)[0].value)
            shown.append(float(disagrees[:750].float().mean()))
        assert rate <= np.mean(told) < most < np.mean(shown) - 0.08
    flat = torch.from_numpy(rng.random(5000) < 0.2)
    assert _where_flat(flat.cumsum(0)) == 750, "wrong labels strike the very surest as often"


def test_the_interval_of_the_rate_is_that_of_the_surest_alone() -> None:
    share, _, fewest = _among_surest(torch.arange(2000) % 10 < 3)
    assert fewest == 300 and share.value == pytest.approx(0.3, abs=2e-3)
    assert (share.low, share.high) == pytest.approx((0.249, 0.355), abs=2e-3), "Clopper and Pearson of 90 of 300"
    none, _, _ = _among_surest(torch.zeros(4, dtype=torch.bool))
    assert (none.value, none.low) == (0.0, 0.0) and none.high == pytest.approx(0.842, abs=1e-3), "0 of 2"


def test_what_weak_evidence_doubts_is_no_noise() -> None:
    """Right labels of 100 classes with five images each: the evidence errs on its surest images, and knows it."""
    logits = 4 * torch.randn(500, 100, generator=generator(4))
    labels = logits.softmax(dim=1).multinomial(1, generator=generator(3))[:, 0]
    joined = Joined(logits, labels)
    surest = surest_images(joined, by_class=False)
    assert surest is not None and surest.shares.low > 0.05
    right = rate_of(joined, AssumedNoise.SYMMETRIC)
    assert right.value < 0.7 * surest.shares.value and right.low < 0.5 * surest.shares.low
    wrong = torch.rand(500, generator=generator(5)) < 0.3
    noisy = Joined(
        logits, torch.where(wrong, (labels + torch.randint(1, 100, (500,), generator=generator(6))) % 100, labels)
    )
    rate = rate_of(noisy, AssumedNoise.SYMMETRIC)
    assert rate.low < 0.3 < rate.high and rate.value == pytest.approx(0.3, abs=0.12)


def test_few_images_of_a_class_are_split_evenly() -> None:
    labels, rows = np.repeat(np.arange(20), 6), np.flatnonzero(np.arange(120) % 6 > 0)
    points = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    fitted, _ = fit_discriminants(points, labels, rows=rows, classes=20, folds=5, generator=generator())
    assert all(sorted(fitted.folds[labels == each]) == [-1, 0, 1, 2, 3, 4] for each in range(20))


@pytest.mark.slow
def test_the_rate_does_not_depend_on_how_sharp_the_evidence_is() -> None:
    """Evidence of a temperature that is far off changes nothing."""
    data = known("pair", 0.3)
    rates = [dataclasses.replace(data, logits=data.logits * scale).fit().noise.rate for scale in (0.1, 10.0)]
    np.testing.assert_allclose(rates, fitted("pair", 0.3).noise.rate, atol=0.02)


def test_evidence_that_knows_nothing_flags_nothing_for_its_own_sake() -> None:
    data = known("symmetric", 0.2)
    blind = dataclasses.replace(data, logits=torch.randn(data.logits.shape, generator=generator()))
    joined = Joined(blind.logits, torch.from_numpy(blind.labels))
    assert surest_images(joined, by_class=False) is None, "that the surest disagree with chance is no noise"
    found = blind.fit()
    assert found.noise.rate < 0.9 and float(found.weights[0]) < 0.1


def test_the_posterior_of_a_calibrated_model_is_calibrated() -> None:
    data = known("pair", 0.3)
    posterior = fitted("pair", 0.3).posterior(data.evidence(np.arange(len(data.labels))), torch.from_numpy(data.labels))
    clean = posterior.clean.numpy()
    right = data.labels == data.truth
    assert float(clean.mean()) == pytest.approx(float(right.mean()), abs=0.04)
    assert right[clean > 0.9].mean() > 0.93
    assert right[clean < 0.1].mean() < 0.1


def test_nearly_nothing_is_flagged_where_nothing_is_wrong() -> None:
    data = known("symmetric", 0.0, sharpness=8.0)
    clean = (
        data.fit().posterior(data.evidence(np.arange(len(data.labels))), torch.from_numpy(data.labels)).clean.numpy()
    )
    assert (clean <= best_threshold(clean)).mean() < 0.05


@pytest.mark.parametrize(("classes", "texts"), [(2, True), (3, False), (10, True)])
def test_a_sure_model_flags_nothing_where_nothing_is_wrong(classes: int, texts: bool) -> None:
    labels = np.arange(200) % classes
    corners = np.eye(classes, 16, dtype=np.float32)
    features = corners[labels] + 0.01 * np.random.default_rng(0).normal(size=(200, 16))
    more: dict[str, Any] = {"text": corners, "logit_scale": 100.0} if texts else {}
    verdicts = ls.scan(ls.load_features(features, labels=labels, **more), detector=ls.Joint())
    assert not verdicts.is_issue.any(), "every label is right with a probability of 1"
    wrong = labels.copy()
    wrong[:10] = (wrong[:10] + 1) % classes
    verdicts = ls.scan(ls.load_features(features, labels=wrong, **more), detector=ls.Joint())
    assert np.array_equal(verdicts.is_issue, wrong != labels)


def test_it_does_not_matter_where_the_search_for_weights_begins() -> None:
    """A weight that was near 0 can grow again."""
    data = known("symmetric", 0.4)
    noise = torch.randn(data.logits.shape, generator=generator())
    sample = _Sample(
        lambda rows: torch.stack([data.logits[rows], noise[rows]]),
        data.labels,
        np.arange(len(data.labels)),
        lambda _count: None,
    )
    even, found = SymmetricNoise.of(CLASSES, 0.4), []
    for first in ([0.0, 0.0], [2.0, 2.0], [0.0, 2.0]):
        start = JointModel(torch.tensor(first), torch.zeros(CLASSES), even)
        found.append(_likeliest(sample, start, biased=True).weights.numpy())
    np.testing.assert_allclose(found, [found[0]] * 3, atol=0.03)
    assert found[0][0] > 0.5 and found[0][1] < 0.1


def test_a_fit_looks_at_a_chunk_at_a_time_and_at_no_more_rows_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = known("symmetric", 0.4), []

    def evidence(rows: NDArray[np.int64]) -> Tensor:
        asked.append(rows)
        return data.evidence(rows)

    def fit() -> JointModel:
        rows = np.arange(len(data.labels))
        return fit_joint(
            evidence, data.labels, rows=rows, classes=CLASSES, calibrated=False, generator=generator()
        ).model

    monkeypatch.setattr(joint_fit, "MAX_ROWS", 2000)
    whole = fit()
    assert [len(rows) for rows in asked] == [2000]
    assert whole.noise.rate == pytest.approx(0.4, abs=0.06)
    asked.clear()
    monkeypatch.setattr(joint_fit, "CHUNK", 700)
    parts = fit()
    assert [len(rows) for rows in asked] == [700, 700, 600], "few logits are held"
    assert len(np.unique(np.concatenate(asked))) == 2000
    asked.clear()
    monkeypatch.setattr(joint_fit, "MAX_HELD", 0)
    again = fit()
    assert len(asked) > 30 and {len(rows) for rows in asked} == {700, 600}, "many are not"
    for name in ("weights", "bias"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(getattr(again, name), getattr(parts, name), rtol=0, atol=0)
    torch.testing.assert_close(class_noise(again).rates, class_noise(parts).rates, rtol=0, atol=0)


def test_many_classes_get_by_with_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_fit, "CHUNK", 500)
    monkeypatch.setattr(joint_fit, "MAX_LOGITS", 1000 * CLASSES)
    data, asked = known("symmetric", 0.4), []

    def evidence(rows: NDArray[np.int64]) -> Tensor:
        asked.append(rows)
        return data.evidence(rows)

    rows = np.arange(len(data.labels))
    fit_joint(evidence, data.labels, rows=rows, classes=CLASSES, calibrated=False, generator=generator())
    assert [len(each) for each in asked] == [500, 500]


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_empty_classes_and_few_images(classes: int) -> None:
    logits = torch.randn(7, classes, generator=generator())
    labels = np.array([0, 1, 0, 1, 0, 0, 1])
    model = fit_joint(
        lambda rows: logits[None, rows],
        labels,
        rows=np.arange(7),
        classes=classes,
        calibrated=True,
        generator=generator(),
    ).model
    found = model.posterior(logits[None], torch.from_numpy(labels))
    assert all(bool(torch.isfinite(value).all()) for value in (model.weights, model.bias, found.clean))
    assert bool(((found.clean >= 0) & (found.clean <= 1)).all())
    most = 4 * joint_fit.MAX_SHARPNESS
    assert float(model.bias.abs().max()) < most, "a bias runs away where nothing but the prior holds it"


@pytest.mark.parametrize("count", [1, 2])
def test_next_to_no_images(count: int) -> None:
    logits, labels = torch.randn(count, 3, generator=generator()), np.arange(count)
    model = fit_joint(
        lambda rows: logits[None, rows],
        labels,
        rows=np.arange(count),
        classes=3,
        calibrated=True,
        generator=generator(),
    ).model
    assert bool(torch.isfinite(model.posterior(logits[None], torch.from_numpy(labels)).clean).all())


def test_rates_of_few_images_are_drawn_to_the_common_one() -> None:
    data = known("symmetric", 0.4)
    few = class_noise(data.fit(rows=np.arange(60)))
    assert float((few.rates - few.rate).abs().max()) < 0.25
    more = dataclasses.replace(data, logits=torch.cat([data.logits, torch.full((len(data.labels), 1), -60.0)], dim=1))
    noise = class_noise(more.fit(classes=CLASSES + 1))
    assert float(noise.rates[CLASSES]) == pytest.approx(noise.rate, abs=1e-3), "no image is of this class"


# ---------------------------------------------------------------- the discriminant


def blobs(count: int, *, width: int = 12) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, count)
    centres = rng.normal(size=(CLASSES, width))
    mixing = np.eye(width) + 0.2 * rng.normal(size=(width, width))
    return (centres[labels] + rng.normal(size=(count, width)) @ mixing).astype(np.float32), labels


def fit(features: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Any:
    return fit_discriminants(features, labels, rows=rows, classes=CLASSES, folds=5, generator=generator())[0]


def test_discriminant_has_means_and_shrunk_covariance_of_the_other_folds() -> None:
    features, labels = blobs(4000)
    rows = np.arange(4000)
    found = fit(features, labels, rows)
    logits = found.logits(rows, torch.from_numpy(features)).numpy()
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    for fold in range(5):
        here = found.folds == fold
        means = np.stack([standard[~here & (labels == k)].mean(axis=0) for k in range(CLASSES)])
        residuals = standard[~here] - means[labels[~here]]
        covariance = OAS(assume_centered=True).fit(residuals).covariance_
        slopes = np.linalg.solve(covariance, means.T)
        expected = standard[here] @ slopes - 0.5 * (means.T * slopes).sum(axis=0)
        offset = expected - logits[here]
        np.testing.assert_allclose(offset - offset.mean(axis=1, keepdims=True), 0, atol=0.1)
        assert (expected.argmax(axis=1) == logits[here].argmax(axis=1)).mean() > 0.99


def far_apart(count: int, *, wrong: float, width: int = 200) -> tuple[NDArray[np.float32], Any, Any]:
    """Returns features in many dimensions, given labels of which a share is wrong, and the true ones."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, CLASSES, count)
    features = rng.normal(size=(CLASSES, width))[truth] * 0.5 + rng.normal(size=(count, width))
    labels = np.where(rng.random(count) < wrong, (truth + rng.integers(1, CLASSES, count)) % CLASSES, truth)
    return features.astype(np.float32), labels, truth


def test_many_wrong_labels_are_smoothed_more() -> None:
    features, labels, truth = far_apart(600, wrong=0.6)
    rows = np.arange(600)
    both = fit_discriminants(features, labels, rows=rows, classes=CLASSES, folds=5, generator=generator())
    plain, smoothed = (
        float((each.logits(rows, torch.from_numpy(features)).argmax(dim=1).numpy() == truth).mean()) for each in both
    )
    assert smoothed > plain + 0.02
    assert np.array_equal(both[0].folds, both[1].folds)


def test_right_labels_of_mixed_features_are_smoothed_no_more() -> None:
    features, labels = blobs(4000)
    plain, smoothed = fit_discriminants(
        features, labels, rows=np.arange(4000), classes=CLASSES, folds=5, generator=generator()
    )
    assert plain is smoothed


def test_no_image_vouches_for_its_own_label(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(300)
    rows = np.arange(300)
    before = fit(features, labels, rows)
    own = before.folds == 2
    changed = np.where(own, (labels + 1) % CLASSES, labels)
    monkeypatch.setattr(discriminants, "stratified_folds", lambda *_, **__: before.folds)
    after = fit(features, changed, rows)
    tensor = torch.from_numpy(features)
    assert torch.equal(before.logits(rows, tensor)[own], after.logits(rows, tensor)[own])
    assert not torch.allclose(before.logits(rows, tensor)[~own], after.logits(rows, tensor)[~own])


def test_rows_that_are_left_out_have_no_say() -> None:
    features, labels = blobs(300)
    rows = np.arange(0, 300, 2)
    before = fit(features, labels, rows)
    features[1::2], labels[1::2] = 1e6, 0
    after = fit(features, labels, rows)
    tensor = torch.from_numpy(features[rows])
    assert torch.equal(before.logits(rows, tensor), after.logits(rows, tensor))


def test_the_factor_that_fits_undoes_a_wrong_scale(subtests: pytest.Subtests) -> None:
    for kind, rate in (("symmetric", 0.0), ("symmetric", 0.4), ("pair", 0.3)):
        data = known(kind, rate)
        for scale in (0.01, 1.0, 30.0):
            with subtests.test(kind=kind, rate=rate, scale=scale):
                found = fitting_factor(data.logits * scale, torch.from_numpy(data.labels), noise_rate=rate)
                assert found * scale == pytest.approx(1.0, abs=0.15)


def unit_features(data: Known) -> tuple[LabelledFeatures, NDArray[np.float32], float]:
    """Features of unit length whose cosines with some texts, times the scale that comes with them, are the logits."""
    right = float(data.logits.norm(dim=1).max())
    near = data.logits / right
    rest = (1 - near.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
    names = [f"class {number}" for number in range(CLASSES)]
    rows = load_features(torch.cat([near, rest], dim=1).numpy(), labels=data.labels, class_names=names)
    return rows, np.eye(CLASSES, CLASSES + 1, dtype=np.float32), right


@pytest.mark.slow
def test_a_logit_scale_that_is_far_off_is_told_with_the_one_that_fits() -> None:
    rows, text, right = unit_features(known("symmetric", 0.3, count=2000))

    def notes(scale: float) -> list[str]:
        verdicts = ls.scan(rows.with_text(text, logit_scale=scale), detector=ls.Joint())
        return [note for note in verdicts.record["notes"] if "logit scale" in note]

    assert notes(right) == [] and notes(right * 2) == []
    (told,) = notes(right * 50)
    assert float(told.split("about ")[1].split(" ")[0]) == pytest.approx(right, rel=0.2), told


def test_one_class_with_nearly_all_images() -> None:
    """Wrong labels inside the large class are found, and the small classes are not flagged away."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [940, 30, 30])
    features = (np.eye(3, 16)[truth] * 8 + rng.normal(size=(1000, 16))).astype(np.float32)
    wrong = rng.random(1000) < 0.1
    labels = np.where(wrong, (truth + rng.integers(1, 3, 1000)) % 3, truth)
    rows = load_features(features, labels=labels, class_names=["most", "few", "rare"])
    verdicts = ls.scan(rows, detector=ls.Joint())
    assert verdicts.is_issue[wrong].mean() > 0.9
    assert verdicts.is_issue[~wrong & (truth == 0)].mean() < 0.02
    assert verdicts.is_issue[~wrong & (truth > 0)].mean() < 0.2


def estimate_of(clean: list[float], ends: tuple[list[float], list[float]], rates: tuple[float, float]) -> Estimate:
    model = JointModel(torch.ones(1), torch.zeros(2), SymmetricNoise.of(2, 0.5))
    low, high = map(torch.tensor, ends)
    fit = Fit(model, torch.tensor(clean), (low, high), rates, (model, model), None)
    found = _estimate(fit, np.array(clean, dtype=np.float32), 0.5)
    assert found is not None
    return found


def test_no_more_labels_are_missed_than_are_not_flagged() -> None:
    """Nine of ten labels are flagged: at one end of the estimate most are right, at the other all are wrong."""
    found = estimate_of([0.1] * 9 + [0.9], ([0.6] * 9 + [0.95], [0.0] * 9 + [0.1]), (0.365, 0.99))
    assert found.missed_labels.high == 1 and found.missed_labels.value == pytest.approx(0.1)


def test_the_ends_are_as_many_as_may_be_wrong_though_no_sharpness_makes_so_many() -> None:
    """The evidence disagrees with two labels of ten; up to three may be wrong, or none."""
    found = estimate_of([0.1] * 2 + [0.9] * 8, ([0.5] * 2 + [0.95] * 8, [0.0] * 2 + [0.95] * 8), (0.0, 0.3))
    assert (found.wrong_labels.low, found.wrong_labels.high) == pytest.approx((0.0, 3.0))
    assert found.right_flags is not None and found.right_flags.low == 0, "no more than are wrong"
    assert found.missed_labels.high == pytest.approx(3.0)
