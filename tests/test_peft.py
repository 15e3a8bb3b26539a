"""Modules on the vision tower: attached by hooks, gone without a trace, and the only thing that is trained."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labelsieve.detect.deft import DeFT
from labelsieve.detect.learner import Learner
from labelsieve.engine import make_engine
from labelsieve.errors import SettingsError
from labelsieve.vlm.huggingface import HuggingFaceCLIP
from labelsieve.vlm.peft.base import PEFT, build_peft
from labelsieve.vlm.peft.vpt import VisualPrompts
from small_models import StubProcessor, random_clip

MODULES = [kind for kind, factory in PEFT.items() if factory is not None]


def make_vlm(attention: str = "sdpa") -> HuggingFaceCLIP:
    return HuggingFaceCLIP(random_clip(attention=attention), None, StubProcessor(), name="random")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def vlm(request: pytest.FixtureRequest) -> HuggingFaceCLIP:
    return make_vlm(request.param)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def make(kind: str, vlm: HuggingFaceCLIP, *, tokens: int = 5, seed: int = 0) -> Any:
    return build_peft(kind, vlm, tokens=tokens, generator=torch.Generator().manual_seed(seed))


def hooks(model: nn.Module) -> int:
    """Counts the hooks of every kind on a model and its parts."""
    return sum(
        len(value)
        for module in model.modules()
        for name, value in vars(module).items()
        if "hooks" in name and isinstance(value, (OrderedDict, dict))
    )


def test_the_attention_of_the_fixture_is_what_runs(vlm: HuggingFaceCLIP, request: pytest.FixtureRequest) -> None:
    assert vlm.model.vision_model.config._attn_implementation in request.node.name


@pytest.mark.parametrize("kind", MODULES)
def test_attached_changes_the_features_and_detached_leaves_no_trace(
    vlm: HuggingFaceCLIP, pixels: Tensor, kind: str
) -> None:
    before, weights = vlm.pool(pixels), {name: value.clone() for name, value in vlm.model.state_dict().items()}
    handles = make(kind, vlm).attach(vlm)
    assert hooks(vlm.model) > 0
    inside = vlm.pool(pixels)
    for handle in handles:
        handle.remove()
    assert inside.shape == before.shape
    assert float((inside - before).detach().abs().max()) > 1e-3
    assert torch.equal(vlm.pool(pixels), before)
    assert hooks(vlm.model) == 0
    assert all(torch.equal(value, weights[name]) for name, value in vlm.model.state_dict().items())


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_an_exception_leaves_no_trace_either(vlm: HuggingFaceCLIP, pixels: Tensor, kind: str, where: str) -> None:
    before = vlm.pool(pixels)
    learner = make_learner(vlm, kind)

    def run() -> None:
        if where == "before":
            raise RuntimeError("stop")
        vlm.pool(pixels[:, :, :, :-1] if where == "inside" else pixels)  # a wrong size makes the tower itself raise
        raise RuntimeError("stop")

    with pytest.raises((RuntimeError, ValueError), match=r"stop|size"), learner.attached():
        run()
    assert hooks(vlm.model) == 0
    assert torch.equal(vlm.pool(pixels), before)


def test_an_exception_within_the_blocks_leaves_no_trace(vlm: HuggingFaceCLIP, pixels: Tensor) -> None:
    """Deep prompts carry the length of the sequence from block to block: a broken pass must not spoil the next."""
    learner = make_learner(vlm, "vpt-deep")
    with learner.attached():
        expected = vlm.pool(pixels)

        def stop(*_arguments: Any) -> None:
            raise RuntimeError("stop")

        handle = vlm.vision_layers[1].register_forward_pre_hook(stop)
        with pytest.raises(RuntimeError, match="stop"):
            vlm.pool(pixels)
        handle.remove()
        assert torch.equal(vlm.pool(pixels), expected)
    assert hooks(vlm.model) == 0


class Names:
    """Tokenises every name to one word."""

    bos_token_id, eos_token_id = 837, 838

    def __call__(self, _text: str, **_options: Any) -> dict[str, list[int]]:
        return {"input_ids": [320]}


def make_learner(vlm: HuggingFaceCLIP, kind: Any, *, tokens: int = 5) -> Learner:
    vlm.tokenizer = Names()
    settings = DeFT(peft=kind, visual_prompts=tokens, context_init="random")
    return Learner(vlm, ("a", "b"), settings=settings, engine=make_engine(device="cpu", precision="fp32"))


@pytest.mark.parametrize("kind", list(PEFT))
def test_without_tokens_the_model_is_the_frozen_one(vlm: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    before = vlm.pool(pixels)
    assert make(kind, vlm, tokens=0) is None
    learner = make_learner(vlm, kind, tokens=0)
    with learner.attached():
        assert hooks(vlm.model) == 0
        assert torch.equal(vlm.pool(pixels), before)
    assert {name for name, _ in learner.named_parameters()} == {"prompts.positive", "prompts.negative"}


@pytest.mark.parametrize("deep", [True, False])
def test_visual_prompts_without_tokens_attach_nothing(vlm: HuggingFaceCLIP, deep: bool) -> None:
    empty = VisualPrompts(vlm, tokens=0, deep=deep, generator=torch.Generator())
    assert empty.attach(vlm) == []
    assert hooks(vlm.model) == 0


@pytest.mark.parametrize("kind", MODULES)
def test_gradients_reach_the_module_and_nothing_else(vlm: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    learner = make_learner(vlm, kind)
    module: Any = learner.peft
    with learner.attached():
        vlm.project(vlm.pool(pixels)).square().sum().backward()
    own = dict(module.named_parameters())
    assert own
    for name, parameter in own.items():
        assert parameter.grad is not None, name
        assert bool((parameter.grad.flatten(start_dim=-1).abs().amax(dim=-1) > 0).all()), f"a part of {name} idles"
    assert learner.prompts.positive.grad is None
    assert all(value.grad is None and not value.requires_grad for value in vlm.model.parameters())


@pytest.mark.parametrize("kind", MODULES)
def test_only_the_trained_is_in_the_state(vlm: HuggingFaceCLIP, kind: str) -> None:
    names = set(make_learner(vlm, kind).state_dict())
    assert names == {"prompts.positive", "prompts.negative", "peft.prompts"}


def test_initial_values_are_those_of_the_reference(vlm: HuggingFaceCLIP) -> None:
    bound = (6 / (3 * vlm.patch_size**2 + vlm.vision_width)) ** 0.5
    deep, shallow = (make(kind, vlm, tokens=500).prompts.detach() for kind in ("vpt-deep", "vpt-shallow"))
    assert deep.shape == (2, 500, 32)
    assert shallow.shape == (1, 500, 32)
    for values in (deep, shallow):
        assert float(values.abs().max()) <= bound
        assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
        assert float(values.mean()) == pytest.approx(0, abs=bound / 50)
    assert torch.equal(make("vpt-deep", vlm, seed=3).prompts, make("vpt-deep", vlm, seed=3).prompts)
    assert not torch.equal(make("vpt-deep", vlm, seed=3).prompts, make("vpt-deep", vlm, seed=4).prompts)


def lengths(vlm: HuggingFaceCLIP, pixels: Tensor, learner: Learner) -> list[int]:
    """Returns the number of tokens that each block works on, and that leave the last one."""
    seen: list[int] = []
    with learner.attached():
        handles = [
            layer.self_attn.register_forward_pre_hook(  # type: ignore[union-attr]
                lambda _module, args, options: seen.append((args or tuple(options.values()))[0].shape[1]),
                with_kwargs=True,
            )
            for layer in vlm.vision_layers
        ]
        seen.append(vlm.model.vision_model(pixel_values=pixels).last_hidden_state.shape[1])
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("kind", MODULES)
def test_prompts_stand_beside_the_patches_in_every_block(vlm: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    assert lengths(vlm, pixels, make_learner(vlm, kind, tokens=5)) == [22, 22, 17]


def test_deep_prompts_enter_each_block_anew_and_shallow_ones_stay(vlm: HuggingFaceCLIP, pixels: Tensor) -> None:
    deep, shallow = make("vpt-deep", vlm), make("vpt-shallow", vlm)
    with torch.no_grad():
        shallow.prompts.copy_(deep.prompts[:1])

    def pooled(module: Any) -> Tensor:
        handles = module.attach(vlm)
        try:
            return vlm.pool(pixels)
        finally:
            for handle in handles:
                handle.remove()

    first, stay = pooled(deep), pooled(shallow)
    assert float((first - stay).detach().abs().max()) > 1e-3
    # what deep prompts give in the last block hangs on that block's own; shallow ones have none there
    with torch.no_grad():
        deep.prompts[1].neg_()
    assert float((pooled(deep) - first).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("kind", MODULES)
def test_the_order_of_the_prompts_does_not_matter(vlm: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    """They get no position embedding."""
    module = make(kind, vlm)
    handles = module.attach(vlm)
    before = vlm.pool(pixels)
    with torch.no_grad():
        module.prompts.copy_(module.prompts.flip(1))
    after = vlm.pool(pixels)
    for handle in handles:
        handle.remove()
    assert float((before - after).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("kind", MODULES)
def test_an_image_does_not_depend_on_its_batch(vlm: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    handles = make(kind, vlm).attach(vlm)
    together, alone = vlm.pool(pixels), vlm.pool(pixels[1:2])
    for handle in handles:
        handle.remove()
    assert float((together[1:2] - alone).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("kind", MODULES)
def test_both_kinds_of_attention_agree(pixels: Tensor, kind: str) -> None:
    found = []
    for attention in ("sdpa", "eager"):
        vlm = make_vlm(attention)
        handles = make(kind, vlm).attach(vlm)
        found.append(vlm.pool(pixels).detach())
        for handle in handles:
            handle.remove()
    assert float((found[0] - found[1]).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("kind", "nearest"), [("vpt-dep", "vpt-deep"), ("vpt_shallow", "vpt-shallow"), ("non", "none")]
)
def test_an_unknown_kind_names_the_nearest(vlm: HuggingFaceCLIP, kind: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match=f'did you mean "{nearest}"') as caught:
        make(kind, vlm)
    assert all(known in str(caught.value) for known in PEFT)
    assert "\n" not in str(caught.value)
