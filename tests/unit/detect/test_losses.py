"""The losses of DeFT against plain arithmetic in double precision, and what must hold for any logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from labelsieve.core.engine import make_engine
from labelsieve.detect.deft import objective as dual
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.losses import (
    SMALLEST_PROBABILITY,
    clean_probability,
    dual_prompt_loss,
    select,
    similarity_loss,
    symmetric_cross_entropy,
)
from labelsieve.detect.training.learner import Learner
from labelsieve.detect.training.loop import Step


@st.composite
def batch(draw: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws s+, s-, labels and complementary labels; from nearly equal to saturated."""
    images, classes, seed = draw(st.integers(1, 9)), draw(st.integers(2, 7)), draw(st.integers(0, 2**32 - 1))
    rng, spread = np.random.default_rng(seed), draw(st.sampled_from([0.01, 1.0, 5.0, 40.0]))
    positive, negative = (torch.from_numpy(rng.normal(0, spread, (images, classes)).astype(np.float32)) for _ in "+-")
    labels = torch.from_numpy(rng.integers(0, classes, images))
    other = (labels + torch.from_numpy(rng.integers(1, classes, images))) % classes
    return positive, negative, labels, other


def log_clamped(value: float) -> float:
    return math.log(min(max(value, SMALLEST_PROBABILITY), 1.0))


def plain_sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def plain_dual(
    positive: Tensor, negative: Tensor, labels: Tensor, other: Tensor, weights: tuple[float, float]
) -> list[float]:
    """Eq. 7 image by image, in Python's floats."""
    found = []
    for s, t, y, z in zip(positive.tolist(), negative.tolist(), labels.tolist(), other.tolist(), strict=True):
        clean, wrong = plain_sigmoid(s[y] - t[y]), plain_sigmoid(t[z] - s[z])
        found.append(-weights[0] * log_clamped(clean) - weights[1] * log_clamped(wrong))
    return found


def cross_entropy_by_hand(logits: Tensor, labels: Tensor) -> list[float]:
    found = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        top = max(row)
        found.append(top + math.log(sum(math.exp(value - top) for value in row)) - row[label])
    return found


@given(batch(), st.sampled_from([(1.0, 1.0), (0.25, 1.0), (0.0, 1.0), (1.0, 0.0), (3.0, 0.5)]))
def test_dual_prompt_loss_is_equation_7(
    data: tuple[Tensor, Tensor, Tensor, Tensor], weights: tuple[float, float]
) -> None:
    positive, negative, labels, other = data
    options: dict[str, Any] = {"positive_weight": weights[0], "negative_weight": weights[1]}
    loss = dual_prompt_loss(positive, negative, labels=labels, complementary=other, **options)
    expected = plain_dual(positive, negative, labels, other, weights)
    assert float(loss) >= 0
    assert float(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5, abs=1e-6)


@given(batch())
def test_dual_prompt_loss_trains_the_negative_prompts_only(data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    positive, negative, labels, other = data
    positive.requires_grad_(), negative.requires_grad_()
    dual_prompt_loss(positive, negative, labels=labels, complementary=other).backward()
    assert positive.grad is None
    assert negative.grad is not None
    every = torch.arange(len(labels))
    probability = clean_probability(positive, negative).detach().double()
    # d/ds- of -log p_clean is p_no >= 0, and of -log(1 - p_clean) is -p_clean <= 0; nothing beyond the clamp
    no = clean_probability(negative, positive).detach().double()
    down = torch.where(probability > SMALLEST_PROBABILITY, no, 0.0)[every, labels] / len(labels)
    up = -torch.where(no > SMALLEST_PROBABILITY, probability, 0.0)[every, other] / len(labels)
    near = ((probability[every, labels] - SMALLEST_PROBABILITY).abs() < 1e-8) | (
        (no[every, other] - SMALLEST_PROBABILITY).abs() < 1e-8
    )
    expected = torch.zeros_like(probability)
    expected[every, labels], expected[every, other] = down, up
    assert torch.allclose(negative.grad[~near].double(), expected[~near], atol=1e-6)


def test_dual_prompt_loss_keeps_small_probabilities() -> None:
    """The difference of 1 and a rounded probability would be off in the third digit here."""
    positive, negative = torch.tensor([[0.0, 10.0]]), torch.tensor([[0.0, 0.0]])
    arguments: dict[str, Any] = {"labels": torch.tensor([0]), "complementary": torch.tensor([1])}
    loss = dual_prompt_loss(positive, negative, positive_weight=0, **arguments)
    assert float(loss) == pytest.approx(math.log1p(math.exp(10)), abs=2e-6)


@given(batch(), st.data())
def test_parts_of_a_batch_add_up(data: tuple[Tensor, Tensor, Tensor, Tensor], more: st.DataObject) -> None:
    """Processes that share a batch divide by the count of the whole; an empty share adds nothing."""
    positive, negative, labels, other = data
    cut, count = more.draw(st.integers(0, len(labels))), torch.tensor(len(labels))
    chosen = labels % 2 == 0
    left = chosen.sum()
    dual: Any = torch.zeros(())
    similar: Any = torch.zeros(())
    for part in (slice(None, cut), slice(cut, None)):
        dual = dual + dual_prompt_loss(
            positive[part], negative[part], labels=labels[part], complementary=other[part], count=count
        )
        similar = similar + similarity_loss(positive[part], labels=labels[part], selected=chosen[part], count=left)
    whole = dual_prompt_loss(positive, negative, labels=labels, complementary=other)
    assert float(dual) == pytest.approx(float(whole), rel=1e-5, abs=1e-6)
    whole = similarity_loss(positive, labels=labels, selected=chosen)
    assert float(similar) == pytest.approx(float(whole), rel=1e-5, abs=1e-6)


@given(batch(), st.data())
def test_similarity_loss_is_the_mean_over_the_selected(
    data: tuple[Tensor, Tensor, Tensor, Tensor], more: st.DataObject
) -> None:
    positive, _, labels, _ = data
    flags = more.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    expected = cross_entropy_by_hand(positive, labels)
    loss = similarity_loss(positive, labels=labels)
    assert float(loss) >= 0
    assert float(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5, abs=1e-5)
    kept = [value for value, flag in zip(expected, flags, strict=True) if flag]
    loss = similarity_loss(positive, labels=labels, selected=torch.tensor(flags))
    assert float(loss) == pytest.approx(sum(kept) / max(len(kept), 1), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("count", [None, 0, torch.tensor(0)])
def test_similarity_loss_is_zero_where_nothing_is_selected(count: Tensor | int | None) -> None:
    positive = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    nothing = torch.zeros(5, dtype=torch.bool)
    loss = similarity_loss(positive, labels=torch.zeros(5, dtype=torch.int64), selected=nothing, count=count)
    loss.backward()
    assert float(loss.detach()) == 0
    assert positive.grad is not None and not positive.grad.any()


@given(batch())
def test_images_that_are_not_selected_have_no_say(data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    positive, _, labels, _ = data
    chosen = torch.arange(len(labels)) % 2 == 0
    positive.requires_grad_()
    similarity_loss(positive, labels=labels, selected=chosen).backward()
    assert positive.grad is not None
    assert not positive.grad[~chosen].any()
    expected = positive.detach().double().softmax(dim=1) - torch.nn.functional.one_hot(labels, positive.shape[1])
    assert torch.allclose(positive.grad[chosen].double(), expected[chosen] / chosen.sum(), atol=1e-6)


@given(batch(), st.floats(0, 3), st.floats(0, 3))
def test_symmetric_cross_entropy_is_its_two_halves(
    data: tuple[Tensor, Tensor, Tensor, Tensor], alpha: float, beta: float
) -> None:
    logits, _, labels, _ = data
    found = symmetric_cross_entropy(logits, labels, alpha=alpha, beta=beta)
    forward = cross_entropy_by_hand(logits, labels)
    assert found.shape == labels.shape and float(found.min()) >= 0
    for row, (value, ce) in enumerate(zip(found.tolist(), forward, strict=True)):
        probability = [
            math.exp(-c)
            for c in cross_entropy_by_hand(logits[row].expand(logits.shape[1], -1), torch.arange(logits.shape[1]))
        ]
        # -sum of p log q, q one-hot with 0 taken as 1e-4: all but the label's own share counts
        reverse = -sum(max(p, 1e-7) * math.log(1e-4) for k, p in enumerate(probability) if k != labels[row])
        assert value == pytest.approx(alpha * ce + beta * reverse, rel=1e-4, abs=1e-4)


@given(batch())
def test_selection_is_equation_5_and_6(data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    positive, negative, labels, _ = data
    every = torch.arange(len(labels))
    difference = (positive - negative)[every, labels]
    chosen = select(positive, negative, labels=labels, demand_agreement=False)
    sure = difference.abs() > 1e-6  # nearer to a tie the probability rounds to one half
    assert torch.equal(chosen[sure], (difference > 0)[sure])
    probability = clean_probability(positive, negative)
    assert torch.equal(chosen, probability[every, labels] > 0.5)
    assert bool(((probability >= 0) & (probability <= 1)).all())
    strict = select(positive, negative, labels=labels, demand_agreement=True)
    assert not bool((strict & ~chosen).any()), "demanding more selected more"
    gap = (positive - negative).double()
    best = gap.argmax(dim=1)
    clear = gap.topk(2, dim=1).values
    clear = (clear[:, 0] - clear[:, 1] > 1e-3) & (clear[:, 1] < 8)  # where rounding makes no ties
    assert torch.equal(strict[clear], (chosen & (best == labels))[clear])


def test_a_tie_is_not_selected() -> None:
    tie, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([0])
    assert not select(tie, tie, labels=labels, demand_agreement=False).any()
    assert select(tie + 0.01, tie, labels=labels, demand_agreement=False).all()


def test_complementary_labels_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """New ones in every epoch, never the label, and the same however the images are dealt to batches."""
    seen: list[Tensor] = []

    def spy(*arguments: Any, **options: Any) -> Tensor:
        seen.append(options["complementary"])
        return dual_prompt_loss(*arguments, **options)

    monkeypatch.setattr(dual, "dual_prompt_loss", spy)
    labels = torch.arange(90) % 3
    logits = torch.zeros(90, 3, requires_grad=True)

    def make() -> dual.DualObjective:
        engine = make_engine(device="cpu", precision="fp32", seed=4)
        return dual.DualObjective(DeFT(), warmup=1, images=90, classes=3, engine=engine)

    def drawn(objective: dual.DualObjective, epoch: int, *parts: Tensor) -> Tensor:
        found = torch.full((90,), -1)
        for rows in parts:
            objective(Step(logits[rows], logits[rows], labels[rows], rows, epoch))
            found[rows] = seen[-1]
        return found

    every, one = torch.arange(90), make()
    whole = drawn(one, 1, every)
    assert not bool((whole == labels).any()) and bool(((whole >= 0) & (whole < 3)).all())
    assert not torch.equal(whole, drawn(one, 2, every))
    assert torch.equal(whole, drawn(make(), 1, every[30:].flip(0), every[:30]))
    assert 20 < int((whole == (labels + 1) % 3).sum()) < 70


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("changes", [{}, {"demand_agreement": False}, {"pseudo_labels_from": "second-epoch"}])
def test_only_the_negative_prompts_that_the_loss_reads_are_encoded(
    epoch: int, changes: dict[str, Any], mini_clip: Any
) -> None:
    """Loss and gradients are those of encoding all of them."""
    names, engine = tuple(f"kind {k}" for k in range(40)), make_engine(device="cpu", precision="fp32")
    settings = DeFT(context_init="random", peft="none", **changes)
    learner = Learner(mini_clip, names, settings=settings, engine=engine)
    objective = dual.DualObjective(settings, warmup=1, images=6, classes=40, engine=engine)
    pooled, rows = torch.randn(6, mini_clip.vision_width, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    labels = torch.tensor([3, 3, 7, 0, 39, 20])
    found = []
    for everything in (False, True):
        positive, negative = learner.similarities(pooled, learner.text())
        step = Step(positive, negative, labels, rows, epoch)
        reads = objective.required_negatives(step)
        assert reads is not None
        read, others = reads
        assert set(labels.tolist()) <= set(read.tolist()) and len(read) <= 18
        assert others == (settings.demand_agreement and epoch == 2)
        if not everything:
            step = replace(step, negative=learner.negative_similarities(pooled, read, others=others))
            seen = torch.arange(40) if others else read
            torch.testing.assert_close(step.negative[:, seen], negative[:, seen], rtol=0, atol=1e-4)
            unseen = step.negative.detach().abs().amax(dim=0).bool().logical_not().sum()
            assert int(unseen) == 40 - len(seen)
        learner.zero_grad()
        loss, parts = objective(step)
        loss.backward()
        gradients = [value.grad for value in learner.parameters()]
        assert learner.prompts.negative.grad is not None and learner.prompts.negative.grad.any()
        found.append((loss.detach(), parts, [value.clone() for value in gradients if value is not None]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
