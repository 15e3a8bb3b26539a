"""Losses of phase 2 against the reference's tensors, plain arithmetic in double precision, and what must hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from labelsieve.detect.losses import symmetric_cross_entropy
from labelsieve.finetune.losses import EarlyLearning, generalised_cross_entropy, make_loss
from labelsieve.finetune.registry import LOSSES
from small_models import parity

CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return parity("baseline_losses")


@st.composite
def batch(draw: Any) -> tuple[Tensor, Tensor]:
    images, classes, seed = draw(st.integers(1, 9)), draw(st.integers(2, 7)), draw(st.integers(0, 2**32 - 1))
    rng, spread = np.random.default_rng(seed), draw(st.sampled_from([0.01, 1.0, 5.0, 40.0]))
    logits = torch.from_numpy(rng.normal(0, spread, (images, classes)).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(0, classes, images))


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss.mean(), logits)[0]


def probabilities(row: list[float]) -> list[float]:
    top = max(row)
    parts = [math.exp(value - top) for value in row]
    return [value / sum(parts) for value in parts]


# ---------------------------------------------------------------- tensors of the reference


def test_symmetric_cross_entropy_is_the_reference(reference: dict[str, Tensor]) -> None:
    logits, labels = reference["logits"].requires_grad_(), reference["labels"]
    loss = make_loss("sce", images=20, classes=7)(logits, labels, torch.arange(10))
    torch.testing.assert_close(loss, reference["sce_none"], **CLOSE)
    torch.testing.assert_close(loss.mean(), reference["sce_mean"][0], **CLOSE)
    torch.testing.assert_close(gradient(loss, logits), reference["sce_mean_grad"], **CLOSE)
    torch.testing.assert_close(
        symmetric_cross_entropy(logits, labels, alpha=0.5, beta=2.0), reference["sce_a05_b2_none"], **CLOSE
    )


def test_early_learning_is_the_reference_over_two_steps(reference: dict[str, Tensor]) -> None:
    loss = make_loss("elr", images=20, classes=7)
    for step, suffix in ((1, ""), (2, "_2")):
        logits = reference[f"{'elr_' if suffix else ''}logits{suffix}"].detach().requires_grad_()
        labels = reference[f"{'elr_' if suffix else ''}labels{suffix}"]
        found = loss(logits, labels, reference[f"elr_index_{step}"])
        torch.testing.assert_close(found, reference[f"elr_loss_{step}"], **CLOSE)
        torch.testing.assert_close(gradient(found, logits), reference[f"elr_grad_{step}"], **CLOSE)
        torch.testing.assert_close(loss.memory["target"], reference[f"elr_target_{step}"], **CLOSE)


def test_mixture_is_the_reference(reference: dict[str, Tensor]) -> None:
    loss, labels = make_loss("gmm", images=80, classes=7), reference["gmm_labels"]
    rows = torch.arange(80)
    assert loss.selects(rows).all(), "all images in warm-up"
    own = rows[10:70]
    losses = torch.nn.functional.cross_entropy(reference["gmm_logits"], labels, reduction="none")
    loss.on_epoch_start(lambda: (own, losses))
    assert torch.equal(loss.selects(own), reference["gmm_fp32_select"].bool())
    found = loss(reference["gmm_logits"], labels, own)
    torch.testing.assert_close(found, losses, **CLOSE)
    loss.on_epoch_start(lambda: (own, losses.flip(0)))
    assert torch.equal(loss.selects(own), reference["gmm_fp32_select"].bool().flip(0)), "fitted anew"


# ---------------------------------------------------------------- independent implementations


@given(batch(), st.sampled_from([0.1, 0.7, 1.0]))
def test_generalised_cross_entropy_is_its_formula(drawn: tuple[Tensor, Tensor], q: float) -> None:
    logits, labels = drawn[0].clone().requires_grad_(), drawn[1]
    found = generalised_cross_entropy(logits, labels, q=q)
    expected, slopes = [], []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        own = probabilities(row)
        expected.append((1 - own[label] ** q) / q)
        # d/dz_k (1 - p_y^q)/q = -p_y^q (1[k = y] - p_k)
        slopes.append([-(own[label] ** q) * ((k == label) - value) / len(labels) for k, value in enumerate(own)])
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradient(found, logits).numpy(), slopes, rtol=0, atol=1e-5)


@given(batch())
def test_generalised_cross_entropy_lies_between_its_limits(drawn: tuple[Tensor, Tensor]) -> None:
    logits, labels = drawn
    loss = generalised_cross_entropy(logits, labels)
    assert ((loss >= 0) & (loss <= 1 / 0.7 + 1e-6)).all(), "a wrong label cannot make it large"
    own = logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0]
    mean_absolute_error = generalised_cross_entropy(logits.double(), labels, q=1.0)
    torch.testing.assert_close(mean_absolute_error, 1 - own, rtol=0, atol=1e-9)
    cross_entropy = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    near = generalised_cross_entropy(logits.double(), labels, q=1e-6)
    torch.testing.assert_close(near, cross_entropy, rtol=1e-3, atol=1e-5)


@given(batch())
def test_early_learning_is_its_formula(drawn: tuple[Tensor, Tensor]) -> None:
    logits, labels = drawn[0].clone().requires_grad_(), drawn[1]
    loss = EarlyLearning(len(labels), logits.shape[1])
    loss(torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)), labels, torch.arange(len(labels)))
    before = loss.memory["target"].tolist()
    found = loss(logits, labels, torch.arange(len(labels)))
    for row, label, old, value in zip(logits.tolist(), labels.tolist(), before, found.tolist(), strict=True):
        exact = probabilities(row)
        clamped = [min(max(p, 1e-4), 1 - 1e-4) for p in exact]
        target = [0.3 * t + 0.7 * p / sum(clamped) for t, p in zip(old, clamped, strict=True)]
        agreement = sum(t * p for t, p in zip(target, clamped, strict=True))
        top = max(row)
        cross_entropy = top + math.log(sum(math.exp(z - top) for z in row)) - row[label]
        # float32 rounds the agreement by about 1e-7, which the logarithm of 1 - agreement divides by that
        rounding = 5 * 1e-6 / (1 - agreement)
        assert value == pytest.approx(cross_entropy + 5 * math.log(1 - agreement), rel=1e-5, abs=1e-5 + rounding)


def test_early_learning_without_strength_is_cross_entropy() -> None:
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    rows = torch.arange(5)
    torch.testing.assert_close(
        EarlyLearning(5, 3, strength=0.0)(logits, labels, rows),
        make_loss("ce", images=5, classes=3)(logits, labels, rows),
    )


def test_early_learning_remembers_each_row_on_its_own() -> None:
    loss, logits = EarlyLearning(6, 3), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    loss(logits, torch.tensor([0, 1]), torch.tensor([4, 1]))
    touched = loss.memory["target"].sum(dim=1)
    assert touched[[0, 2, 3, 5]].eq(0).all()
    torch.testing.assert_close(touched[[1, 4]], torch.full((2,), 0.7))


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("name", LOSSES)
@given(drawn=batch())
def test_every_loss_is_finite_and_falls_with_the_label(name: str, drawn: tuple[Tensor, Tensor]) -> None:
    logits, labels = drawn[0].clone().requires_grad_(), drawn[1]
    rows = torch.arange(len(labels))
    loss = make_loss(name, images=len(labels), classes=logits.shape[1])
    found = loss(logits, labels, rows)
    assert found.shape == labels.shape and torch.isfinite(found).all()
    slope = gradient(found, logits)
    assert torch.isfinite(slope).all()
    if not loss.memory:  # a memory may hold against the label
        assert (slope.gather(1, labels[:, None]) <= 1e-7).all()
        assert (found >= 0).all()
