"""Prompts behind a common beginning are the prompts encoded one by one: features, gradients, any names, in parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import labelsieve as ls
from labelsieve.core import memory
from labelsieve.core.attention import ExplicitAttention
from labelsieve.core.engine import make_engine
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.detect.training.learner import Learner
from labelsieve.vlm import base, text_encoder
from small_families import make_open_clip, make_open_clip_siglip, make_siglip
from small_models import edit_json, model_folder, random_clip

NAMES = ["cat", "a cup of tea of a friend", "Sail_Boat", "tree", "of of of of of of of of of", "t"]
Encode = Callable[[Tensor, Tensor], Tensor]


OTHERS = {"open-clip": make_open_clip, "siglip": make_siglip, "open-clip-siglip": make_open_clip_siglip}


def load(kind: str, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    if kind in OTHERS:
        pytest.importorskip("open_clip")
        OTHERS[kind](folder)
    else:
        model_folder(folder)
    if kind == "legacy":
        config = loaded(folder).model.config.text_config
        edit_json(folder / "config.json", text_config={**config.to_dict(), "eos_token_id": 2})
    return loaded(folder)


def loaded(folder: Path) -> Any:
    return ls.load_vlm(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Returns a function that gives the model of a kind, made once."""
    return cache(lambda kind: load(kind, tmp_path_factory.mktemp(kind) / "model"))


@pytest.fixture(scope="module", params=["clip", "legacy", "open-clip"])
def vlm(request: pytest.FixtureRequest, models: Callable[[str], Any]) -> Any:
    return models(request.param)


def random_context(vlm: Any, tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(tokens, vlm.text_width, generator=torch.Generator().manual_seed(seed))


def with_gradient(encode: Encode, context: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Returns features, and the gradient of something that each of them has a different part in."""
    own = context.clone().requires_grad_()
    features = encode(own, ids)
    parts = torch.linspace(-1, 1, features.numel()).view_as(features)
    (features * parts).sum().backward()
    assert own.grad is not None
    return features.detach(), own.grad


def compare(vlm: Any, context: Tensor, names: list[str]) -> None:
    ids, _ = vlm.tokenize_names(names, context_tokens=len(context))
    found, slope = with_gradient(vlm.encode_prompts, context, ids)
    plain, expected = with_gradient(vlm._encode_unshared, context, ids)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_features_and_gradients_are_those_of_each_prompt_alone(vlm: Any, subtests: pytest.Subtests) -> None:
    assert vlm.causal_text is not None
    for tokens in (1, 4, 16):
        with subtests.test(tokens=tokens):
            compare(vlm, random_context(vlm, tokens), NAMES)


@given(data=st.data())
@settings(max_examples=12)
def test_however_many_names_there_are_and_however_long(vlm: Any, data: st.DataObject) -> None:
    words = st.lists(st.sampled_from(["cat", "of", "tea", "sail", "boat"]), min_size=1, max_size=8).map(" ".join)
    names = data.draw(st.lists(words, min_size=1, max_size=40))
    compare(vlm, random_context(vlm, data.draw(st.integers(1, 8)), seed=len(names)), names)


def test_a_row_holds_many_names(vlm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def visible(names: Tensor, length: int, original: Any = text_encoder._visible) -> Tensor:
        found: Tensor = original(names, length)
        seen.append(tuple(found.shape))
        return found

    monkeypatch.setattr(text_encoder, "_visible", visible)
    ids, _ = vlm.tokenize_names(["cat", "cup", "tree"] * 40, context_tokens=16)
    vlm.encode_prompts(random_context(vlm, 16), ids)
    ((rows, width, _),) = seen
    assert rows * width < 0.35 * ids.numel(), "each prompt alone takes three times as many tokens, however short"


def test_a_name_sees_the_beginning_and_itself() -> None:
    visible = text_encoder._visible(torch.tensor([[0, 0, 1, -1], [2, 3, 3, 3]]), 2)[0].int().tolist()
    assert visible == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("kind", ["clip", "open-clip", "siglip", "open-clip-siglip"])
@pytest.mark.parametrize("bf16", [False, True])
def test_parts_that_are_computed_again_are_the_whole(
    kind: str, bf16: bool, models: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = models(kind)
    assert (vlm.causal_text is None) == ("siglip" in kind), "there each token sees all of its prompt"
    ids, _ = vlm.tokenize_names(["cat", "cup of tea", "tree"] * 9, context_tokens=4)
    context, calls = random_context(vlm, 4), [0]

    def encode(context: Tensor, ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), ExplicitAttention():
            return vlm.encode_prompts(context, ids).float()  # type: ignore[no-any-return]

    whole, expected = with_gradient(encode, context, ids)
    longest = max(1, ids.shape[1]) * 4
    monkeypatch.setattr(text_encoder, "MAX_TOKENS", longest)
    monkeypatch.setattr(base, "MAX_TOKENS", longest)

    def counted(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        return checkpoint(*args, **options)

    monkeypatch.setattr(memory, "checkpoint", counted)
    parts, slope = with_gradient(encode, context, ids)
    assert calls[0] > 1

    def same(found: Tensor, right: Tensor) -> None:
        if bf16:  # another row, other roundings
            assert float(torch.cosine_similarity(found.flatten(), right.flatten(), dim=0)) > 0.99
        else:
            torch.testing.assert_close(found, right, rtol=0, atol=1e-5 * float(right.abs().max()))

    same(parts, whole)
    same(slope, expected)
    counts = calls[0]
    with torch.no_grad():
        same(encode(context, ids), whole)
    assert calls[0] == counts, "without gradients there is nothing to compute again"


def test_other_attention_is_encoded_prompt_by_prompt(tmp_path: Path) -> None:
    eager: Any = ls.load_vlm(model_folder(tmp_path / "m", model=random_clip(attention="eager")))
    eager.model.set_attn_implementation("eager")
    assert eager.causal_text is None
    ids, _ = eager.tokenize_names(NAMES, context_tokens=4)
    plain = eager.encode_prompts(random_context(eager, 4), ids)
    eager.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(eager.encode_prompts(random_context(eager, 4), ids), plain, rtol=0, atol=1e-5)


def test_prompts_that_are_filled_up_on_the_left_do_not_begin_alike(tmp_path: Path) -> None:
    left: Any = ls.load_vlm(model_folder(tmp_path / "m"))
    left.tokenizer.padding_side = "left"
    compare(left, random_context(left, 4), NAMES)


def test_a_learner_keeps_the_tokens_on_the_cpu(vlm: Any) -> None:
    learner = Learner(vlm, ("cat", "cup"), settings=SmallLoss(peft="none"), engine=make_engine(device="cpu"))
    assert learner.prompts.token_ids.device.type == "cpu" and "prompts.token_ids" not in learner.state_dict()
