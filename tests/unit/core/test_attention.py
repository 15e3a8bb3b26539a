"""Attention written out gives what PyTorch's own function gives, and steps in for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPVisionConfig, CLIPVisionModel

from labelsieve.core import attention
from labelsieve.core.attention import ExplicitAttention
from labelsieve.core.engine import make_engine


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes for which attention was written out."""
    shapes: list[torch.Size] = []
    original = attention._explicit_attention

    def noted(query: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        shapes.append(query.shape)
        return original(query, *args, **named)

    monkeypatch.setattr(attention, "_explicit_attention", noted)
    return shapes


def draw(
    length: int = 7, dtype: torch.dtype = torch.bfloat16, *, trained: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value, each (2, 3, length, 8)."""
    generator = torch.Generator().manual_seed(length)
    drawn = [torch.randn(2, 3, length, 8, generator=generator).to(dtype).requires_grad_(trained) for _ in range(3)]
    return drawn[0], drawn[1], drawn[2]


@pytest.mark.parametrize("scale", [None, 0.2])
@pytest.mark.parametrize(
    "mask",
    [None, torch.ones(7, 7, dtype=torch.bool).tril(), torch.ones(7, 7, dtype=torch.bool).tril(-2)],
    ids=["unmasked", "masked", "two-see-nothing"],
)
def test_values_and_gradients_are_those_of_the_exact_attention(
    scale: float | None, mask: torch.Tensor | None, taken: list[torch.Size]
) -> None:
    """Rounding to bf16 is all that differs: the fused kernel is as far from the exact values."""
    inputs, exact = draw(), [tensor.detach().double().requires_grad_() for tensor in draw()]
    with ExplicitAttention():
        found = scaled_dot_product_attention(*inputs, attn_mask=mask, scale=scale)
    expected = scaled_dot_product_attention(exact[0], exact[1], exact[2], attn_mask=mask, scale=scale)
    assert taken == [inputs[0].shape] and found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, right in zip(inputs, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), right.grad, rtol=5e-2, atol=5e-2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"dtype": torch.float32}, {}),
        ({"length": 257}, {}),
        ({}, {"is_causal": True}),
        ({}, {"attn_mask": torch.zeros(7, 7, dtype=torch.bfloat16)}),
        ({}, {"dropout_p": 0.5}),
    ],
    ids=["fp32", "long", "causal", "mask of numbers", "dropout"],
)
def test_all_else_goes_to_pytorch(inputs: dict[str, Any], named: dict[str, Any], taken: list[torch.Size]) -> None:
    drawn = draw(**inputs)
    torch.manual_seed(0)
    with ExplicitAttention():
        found = scaled_dot_product_attention(*drawn, **named)
    torch.manual_seed(0)
    assert torch.equal(found, scaled_dot_product_attention(*drawn, **named)) and not taken


def test_it_is_the_same_with_and_without_gradients(taken: list[torch.Size]) -> None:
    with ExplicitAttention():
        trained, frozen = (scaled_dot_product_attention(*draw(trained=trained)) for trained in (True, False))
        with torch.no_grad():
            unseen = scaled_dot_product_attention(*draw())
    assert torch.equal(trained, frozen) and torch.equal(trained, unseen) and len(taken) == 3


@pytest.mark.parametrize(("precision", "blocks"), [("bf16", 2), ("fp32", 0)])
def test_encoders_run_under_it_in_bf16(precision: Any, blocks: int, taken: list[torch.Size]) -> None:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    encoder = CLIPVisionModel(config).eval()
    with make_engine(device="cpu", precision=precision).autocast():
        encoder(pixel_values=torch.zeros(1, 3, 8, 8))
    assert taken == [(1, 2, 5, 8)] * blocks
