"""Modules on the image encoder: attached, gone without a trace, and the only thing that is trained.

The tests run over the table; what only one kind promises comes after.
"""

from __future__ import annotations

import copy
import io
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console
from torch import Tensor, nn

from interrupting import break_off
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import SettingsError, TrainingError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.detect.training.learner import BatchSource, Learner, adapted_features
from labelsieve.detect.training.settings import Training
from labelsieve.pipeline import scan
from labelsieve.vlm.families.clip import HuggingFaceCLIP
from labelsieve.vlm.feature_cache import ImageFeatures
from labelsieve.vlm.peft.adapter import Adapter
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.parameter_count import count_trainable
from labelsieve.vlm.peft.registry import PEFT
from labelsieve.vlm.peft.target_layers import BareEncoder, ModuleSpec
from labelsieve.vlm.peft.vpt import VisualPrompts
from slow_cases import mostly_slow
from small_models import StubProcessor, random_clip

MODULES = [kind for kind in PEFT if kind != "none"]
PROMPTS = ["vpt-deep", "vpt-shallow"]
IDENTITIES = [kind for kind in MODULES if kind not in PROMPTS]
PRECISIONS: tuple[Any, ...] = ("fp32", "bf16")


def make_vlm(attention: str = "sdpa") -> HuggingFaceCLIP:
    return HuggingFaceCLIP(random_clip(attention=attention), None, StubProcessor(), name="random")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def vlm(request: pytest.FixtureRequest) -> HuggingFaceCLIP:
    return make_vlm(request.param)


@pytest.fixture(scope="module")
def plain() -> HuggingFaceCLIP:
    """Returns a model for what does not hang on the kind of attention."""
    return make_vlm()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def make(kind: str, vlm: Any, *, tokens: int = 5, bottleneck: int = 8, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return build_peft(ModuleSpec(kind, tokens, bottleneck, generator), vlm)


def shake(module: nn.Module, *, by: float = 0.1) -> None:
    """Moves all parameters, as training would: most modules change nothing at first."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=generator), alpha=by)


def shaken(kind: str, vlm: Any) -> Any:
    module = make(kind, vlm)
    shake(module)
    return module


@contextmanager
def attached(module: Any, vlm: Any) -> Iterator[None]:
    handles = module.attach(vlm)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hooks(model: nn.Module) -> int:
    """Counts the hooks of every kind on a model and its parts."""
    return sum(
        len(value)
        for module in model.modules()
        for name, value in vars(module).items()
        if "hooks" in name and isinstance(value, (OrderedDict, dict))
    )


class Untouched:
    """Remembers a model: which objects it is made of, and all values."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parts = self.objects()
        self.values = {name: value.clone() for name, value in model.state_dict().items()}

    def objects(self) -> dict[str, int]:
        named = [*self.model.named_modules(), *self.model.named_parameters()]
        return {name: id(thing) for name, thing in named}

    def check(self) -> None:
        assert hooks(self.model) == 0
        assert self.objects() == self.parts
        assert all(value.grad is None and not value.requires_grad for value in self.model.parameters())
        assert list(self.model.state_dict()) == list(self.values)
        assert all(torch.equal(value, self.values[name]) for name, value in self.model.state_dict().items())


def largest(difference: Tensor) -> float:
    return float(difference.detach().abs().max())


# ------------------------------------------------------------------------------------------------- over the whole table


def test_the_attention_of_the_fixture_is_what_runs(vlm: HuggingFaceCLIP, request: pytest.FixtureRequest) -> None:
    assert vlm.model.vision_model.config._attn_implementation in request.node.name


def test_attached_changes_the_features_and_detached_leaves_no_trace(
    vlm: HuggingFaceCLIP, pixels: Tensor, subtests: pytest.Subtests
) -> None:
    for kind in MODULES:
        with subtests.test(kind):
            before, untouched = vlm.pool(pixels), Untouched(vlm.model)
            module = shaken(kind, vlm)
            untouched.check()
            with attached(module, vlm):
                inside = vlm.pool(pixels)
            assert inside.shape == before.shape
            assert largest(inside - before) > 1e-3
            assert torch.equal(vlm.pool(pixels), before)
            untouched.check()
            with attached(module, vlm):
                assert torch.equal(vlm.pool(pixels), inside), "it may be attached again"
            untouched.check()


@pytest.mark.parametrize("kind", MODULES)
def test_a_handle_that_is_removed_twice_does_no_harm(plain: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    untouched, first, second = Untouched(plain.model), shaken(kind, plain), shaken(kind, plain)
    handles = first.attach(plain)
    expected = plain.pool(pixels)
    for handle in handles:
        handle.remove()
    with attached(second, plain):
        for handle in handles:
            handle.remove()
        assert torch.equal(plain.pool(pixels), expected)
    untouched.check()


def test_a_fresh_module_leaves_the_features_as_they_are(
    vlm: HuggingFaceCLIP, pixels: Tensor, subtests: pytest.Subtests
) -> None:
    for precision in PRECISIONS:
        engine = make_engine(device="cpu", precision=precision)
        for kind in IDENTITIES:
            with subtests.test(kind, precision=precision), engine.autocast():
                before = vlm.pool(pixels)
                with attached(make(kind, vlm), vlm):
                    assert torch.equal(vlm.pool(pixels), before)


def test_an_exception_leaves_no_trace_either(plain: HuggingFaceCLIP, pixels: Tensor, subtests: pytest.Subtests) -> None:
    def run(where: str) -> None:
        if where == "before":
            raise RuntimeError("stop")
        plain.pool(
            pixels[:, :, :, :-1] if where == "inside" else pixels
        )  # a wrong size makes the image encoder itself raise
        raise RuntimeError("stop")

    for where, kind in product(("before", "inside", "after"), MODULES):
        with subtests.test(kind, where=where):
            before, untouched = plain.pool(pixels), Untouched(plain.model)
            learner = make_learner(plain, kind)
            own = "size" if where == "inside" else "stop"
            with pytest.raises((RuntimeError, ValueError), match=own), learner.attached():
                run(where)
            untouched.check()
            assert torch.equal(plain.pool(pixels), before)


def test_a_training_step_changes_the_module_alone(
    plain: HuggingFaceCLIP, pixels: Tensor, subtests: pytest.Subtests
) -> None:
    for precision, kind in product(PRECISIONS, MODULES):
        with subtests.test(kind, precision=precision):
            before, untouched = plain.pool(pixels), Untouched(plain.model)
            learner = make_learner(plain, kind, precision=precision)
            module: Any = learner.peft
            towards = torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
            optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
            with pytest.raises(KeyboardInterrupt), learner.attached():  # noqa: PT012  # the steps are interrupted
                for _ in range(2):
                    with learner.engine.autocast():
                        pooled = plain.pool(pixels).float()
                    optimizer.zero_grad()
                    (pooled * towards).sum().backward()
                    optimizer.step()
                raise KeyboardInterrupt
            untouched.check()
            assert torch.equal(plain.pool(pixels), before)
            assert all(value.dtype == torch.float32 and bool(value.isfinite().all()) for value in module.parameters())
            with learner.attached():
                assert largest(plain.pool(pixels) - before) > 1e-4
            untouched.check()


@pytest.mark.parametrize("kind", MODULES)
def test_no_global_generator_is_touched(plain: HuggingFaceCLIP, kind: str) -> None:
    before = torch.get_rng_state()
    first, again = make(kind, plain, seed=3), make(kind, plain, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first.parameters(), again.parameters()))


@pytest.mark.parametrize("kind", ["lora", "adapter", *PROMPTS])
def test_initial_values_come_from_the_generator(plain: HuggingFaceCLIP, kind: str) -> None:
    one, two = make(kind, plain, seed=3), make(kind, plain, seed=4)
    assert not all(map(torch.equal, one.parameters(), two.parameters()))


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


def make_learner(vlm: HuggingFaceCLIP, kind: Any, *, tokens: int = 5, precision: Any = "fp32") -> Learner:
    vlm.tokenizer = Names()
    settings = DeFT(peft=kind, visual_prompts=tokens, context_init="random")
    return Learner(vlm, ("a", "b"), settings=settings, engine=make_engine(device="cpu", precision=precision))


@pytest.mark.parametrize("kind", ["none", *PROMPTS])
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


def test_gradients_reach_the_module_and_nothing_else(
    vlm: HuggingFaceCLIP, pixels: Tensor, subtests: pytest.Subtests
) -> None:
    for kind in MODULES:
        with subtests.test(kind):
            untouched, learner = Untouched(vlm.model), make_learner(vlm, kind)
            module: Any = learner.peft
            shake(module)  # half of a fresh LoRA or adapter waits for the other half
            if kind == "adapter":
                with torch.no_grad():
                    for block in module.blocks:
                        block["down"].bias += 5  # no ReLU is shut
            with learner.attached():
                vlm.project(vlm.pool(pixels)).square().sum().backward()
                wanted = {id(value) for value in vlm.model.parameters() if value.requires_grad}
                assert wanted <= {id(value) for value in module.parameters()}
            own = dict(module.named_parameters())
            assert own
            for name, parameter in own.items():
                assert parameter.grad is not None, name
                if not moves_all_keys(kind, name):
                    assert bool((parameter.grad.abs().amax(dim=-1) > 0).all()), f"a part of {name} idles"
            assert learner.prompts.positive.grad is None
            untouched.check()


def moves_all_keys(kind: str, name: str) -> bool:
    """Tells what has no gradient by nature: the same vector on all keys changes no attention."""
    return name.endswith("k_proj/bias") or (kind == "ssf" and name in ("shifts.1", "shifts.7"))


@pytest.mark.parametrize("kind", MODULES)
def test_only_the_trained_is_in_the_state(plain: HuggingFaceCLIP, kind: str) -> None:
    learner = make_learner(plain, kind)
    module: Any = learner.peft
    names = {f"peft.{name}" for name, _ in module.named_parameters()}
    assert set(learner.state_dict()) == {"prompts.positive", "prompts.negative"} | names
    assert {name for name, _ in learner.named_parameters()} == set(learner.state_dict())
    assert all(value.requires_grad for value in module.parameters())
    theirs = {value.data_ptr() for value in plain.model.parameters()}
    assert not theirs & {value.data_ptr() for value in module.parameters()}
    with learner.attached():
        assert {f"peft.{name}" for name, _ in module.named_parameters()} == names, "attaching adds nothing"


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


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts_stand_beside_the_patches_in_every_block(vlm: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    assert lengths(vlm, pixels, make_learner(vlm, kind, tokens=5)) == [22, 22, 17]


def test_deep_prompts_enter_each_block_anew_and_shallow_ones_stay(vlm: HuggingFaceCLIP, pixels: Tensor) -> None:
    deep, shallow = make("vpt-deep", vlm), make("vpt-shallow", vlm)
    with torch.no_grad():
        shallow.prompts.copy_(deep.prompts[:1])

    def pooled(module: Any) -> Tensor:
        with attached(module, vlm):
            return vlm.pool(pixels)

    first, stay = pooled(deep), pooled(shallow)
    assert float((first - stay).detach().abs().max()) > 1e-3
    # what deep prompts give in the last block hangs on that block's own; shallow ones have none there
    with torch.no_grad():
        deep.prompts[1].neg_()
    assert float((pooled(deep) - first).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("kind", PROMPTS)
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


def test_an_image_does_not_depend_on_its_batch(vlm: HuggingFaceCLIP, pixels: Tensor, subtests: pytest.Subtests) -> None:
    for kind in MODULES:
        with subtests.test(kind):
            with attached(shaken(kind, vlm), vlm):
                together, alone = vlm.pool(pixels), vlm.pool(pixels[1:2])
            assert float((together[1:2] - alone).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("kind", MODULES)
def test_both_kinds_of_attention_agree(pixels: Tensor, kind: str) -> None:
    found = []
    for attention in ("sdpa", "eager"):
        vlm = make_vlm(attention)
        with attached(shaken(kind, vlm), vlm):
            found.append(vlm.pool(pixels).detach())
    assert float((found[0] - found[1]).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("kind", "nearest"),
    [("vpt-dep", "vpt-deep"), ("vpt_shallow", "vpt-shallow"), ("non", "none"), ("bit-fit", "bitfit")],
)
def test_an_unknown_kind_names_the_nearest(vlm: HuggingFaceCLIP, kind: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match=f'did you mean "{nearest}"') as caught:
        make(kind, vlm)
    assert all(known in str(caught.value) for known in PEFT)
    assert "\n" not in str(caught.value)


def test_the_settings_name_the_whole_table() -> None:
    assert get_args(get_type_hints(Training)["peft"]) == ("auto", *PEFT)


def test_a_bottleneck_needs_a_width(plain: HuggingFaceCLIP) -> None:
    with pytest.raises(SettingsError, match="expected bottleneck from 1 to 1,024, got 0"):
        SmallLoss(peft="lora", bottleneck=0)
    with pytest.raises(SettingsError, match="expected a bottleneck of at least 1, got 0"):
        make("adapter", plain, bottleneck=0)


# ------------------------------------------------------------------------------- each kind against another way to do it


def changed_weights(
    vlm: HuggingFaceCLIP, pixels: Tensor, change: Callable[[str, nn.Linear, int], None], names: tuple[str, ...]
) -> Tensor:
    """Returns the features after a change of the weights of some layers of each block, in a copy of the model."""
    other = copy.deepcopy(vlm.model)
    with torch.no_grad():
        for number, block in enumerate(other.vision_model.encoder.layers):
            for name in names:
                change(name, block.get_submodule(name), number)
        return other.vision_model(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_lora_is_a_change_of_the_weights(plain: HuggingFaceCLIP, pixels: Tensor, rank: int) -> None:
    from peft.tuners.lora import LoraLayer

    module = make("lora", plain, bottleneck=rank)
    shake(module)
    with attached(module, plain):
        found = plain.pool(pixels)
        assert sum(isinstance(part, LoraLayer) for part in plain.model.modules()) == 4

    def merge(name: str, layer: nn.Linear, number: int) -> None:
        pair = module.blocks[number]["query" if name.endswith("q_proj") else "value"]
        assert pair["A"].weight.shape == (rank, 32) and pair["B"].weight.shape == (32, rank)
        layer.weight += pair["B"].weight @ pair["A"].weight / rank

    merged = changed_weights(plain, pixels, merge, ("self_attn.q_proj", "self_attn.v_proj"))
    assert largest(found - merged) < 1e-5


def test_lora_begins_as_its_source_does(plain: HuggingFaceCLIP) -> None:
    module = make("lora", plain, bottleneck=500)
    for block in module.blocks:
        for pair in block.values():
            assert not pair["B"].weight.any()
            assert largest(pair["A"].weight) <= 32**-0.5
            assert float(pair["A"].weight.detach().std()) == pytest.approx(32**-0.5 / 3**0.5, rel=0.02)


def test_ssf_is_a_change_of_the_weights(plain: HuggingFaceCLIP, pixels: Tensor) -> None:
    """As Lian et al. fold it in after training."""
    attention = (f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
    names = (*attention, "mlp.fc1", "mlp.fc2")
    module = shaken("ssf", plain)
    with attached(module, plain):
        found = plain.pool(pixels)

    def fold(name: str, layer: nn.Linear, number: int) -> None:
        index = number * len(names) + names.index(name)
        layer.weight *= module.scales[index][:, None]
        layer.bias.mul_(module.scales[index]).add_(module.shifts[index])

    assert len(module.scales) == len(module.shifts) == 12
    assert largest(found - changed_weights(plain, pixels, fold, names)) < 1e-5


def test_an_adapter_in_place_of_the_mlp_switches_it_off_at_first(plain: HuggingFaceCLIP, pixels: Tensor) -> None:
    """The form of the reference; without its skip the MLP's output is gone."""

    def silence(_name: str, layer: nn.Linear, _number: int) -> None:
        layer.weight.zero_()
        layer.bias.zero_()

    module = Adapter(plain, width=8, generator=torch.Generator(), skip=False)
    with attached(module, plain):
        found = plain.pool(pixels)
    assert largest(found - changed_weights(plain, pixels, silence, ("mlp.fc2",))) < 1e-6


def test_an_adapter_adds_to_the_mlp(plain: HuggingFaceCLIP, pixels: Tensor) -> None:
    module, seen = shaken("adapter", plain), []
    fc2 = plain.model.vision_model.encoder.layers[0].mlp.fc2
    with attached(module, plain):
        handle = fc2.register_forward_hook(lambda _module, args, output: seen.append((args[0], output)))
        plain.pool(pixels)
        handle.remove()
    ((inside, output),) = seen
    hidden = nn.functional.linear(inside, fc2.weight, fc2.bias)
    parts = module.blocks[0]
    assert parts["down"].weight.shape == (8, 32) and parts["up"].weight.shape == (32, 8)
    middle = nn.functional.layer_norm(hidden, (32,), parts["norm"].weight, parts["norm"].bias)
    middle = (middle @ parts["down"].weight.T + parts["down"].bias).clamp(min=0)
    assert largest(output - (hidden + middle @ parts["up"].weight.T + parts["up"].bias)) < 1e-5


@pytest.mark.parametrize("kind", ["bitfit", "full", "full-paper"])
def test_copies_do_what_training_the_model_itself_would_do(plain: HuggingFaceCLIP, pixels: Tensor, kind: str) -> None:
    module, other = shaken(kind, plain), copy.deepcopy(plain.model)
    with torch.no_grad():
        for name, value in module.values.items():
            other.vision_model.get_parameter(name.replace("/", ".")).copy_(value)
    with attached(module, plain):
        assert torch.equal(plain.pool(pixels), other.vision_model(pixel_values=pixels).pooler_output)


def test_which_parameters_are_copied(plain: HuggingFaceCLIP) -> None:
    def names(kind: str) -> set[str]:
        return {name.replace("/", ".") for name in make(kind, plain).values}

    encoder = {name for name, _ in plain.model.vision_model.named_parameters()}
    outer = {name for name in encoder if not name.startswith("encoder.layers.")}
    assert names("full") == encoder
    assert names("full-paper") == encoder - outer
    # the reference's list of what it leaves alone, without the projection
    assert outer == {
        "embeddings.class_embedding",
        "embeddings.patch_embedding.weight",
        "embeddings.position_embedding.weight",
        *(f"{norm}.{part}" for norm in ("pre_layrnorm", "post_layernorm") for part in ("weight", "bias")),
    }
    # the reference has 8 a block, query, key and value in one, and 2
    assert len(names("bitfit")) == 2 * 8 + 2
    assert names("bitfit") == {name for name in encoder if name.endswith(".bias")}


def test_an_encoder_without_biases_has_nothing_for_bitfit() -> None:
    encoder = bare(nn.Sequential(nn.Linear(4, 4, bias=False)))
    with pytest.raises(SettingsError, match="peft bitfit trains biases, and the image encoder of bare has none"):
        make("bitfit", encoder)


# ----------------------------------------------------------------------------------------------- other kinds of blocks


def bare(encoder: Any, *, layers: Any = (), width: int = 32) -> BareEncoder:
    return BareEncoder("bare", width, 16, encoder.eval().requires_grad_(False), layers)


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


def of_transformers(name: str, layers: str) -> BareEncoder:
    config = getattr(transformers, f"{name}Config")(**SMALL)
    model = getattr(transformers, f"{name}Model")(config)
    return bare(model, layers=model.get_submodule(layers))


def of_open_clip() -> BareEncoder:
    transformer = pytest.importorskip("open_clip.transformer")
    model = transformer.VisionTransformer(32, 16, 32, 2, 2, 2.0)
    return bare(model, layers=model.transformer.resblocks)


def of_timm() -> BareEncoder:
    timm = pytest.importorskip("timm")
    model = timm.models.vision_transformer.VisionTransformer(32, 16, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    return bare(model, layers=model.blocks)


# what does not go with the blocks, beside the model
IMAGE_ENCODERS: dict[str, tuple[Callable[[], BareEncoder], set[str]]] = {
    "siglip": (lambda: of_transformers("SiglipVision", "encoder.layers"), set()),
    "altclip": (lambda: of_transformers("AltCLIPVision", "encoder.layers"), set()),
    "chinese-clip": (lambda: of_transformers("ChineseCLIPVision", "encoder.layers"), set()),
    "blip": (lambda: of_transformers("BlipVision", "encoder.layers"), {"lora"}),
    "vit": (lambda: of_transformers("ViT", "layers"), set()),
    "open_clip": (of_open_clip, {"lora", "ssf"}),
    "timm": (of_timm, {"lora"}),
}


def read(encoder: BareEncoder, pixels: Tensor) -> Tensor:
    output = encoder.image_encoder(pixels)
    return output if isinstance(output, Tensor) else output.last_hidden_state


@pytest.mark.parametrize("name", mostly_slow(IMAGE_ENCODERS, quick=[*IMAGE_ENCODERS][:2]))
def test_blocks_of_other_models(name: str, pixels: Tensor, subtests: pytest.Subtests) -> None:
    factory, unfit = IMAGE_ENCODERS[name]
    small = pixels[:, :, :32, :32]
    for kind in IDENTITIES:
        with subtests.test(kind):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                encoder = factory()
            if kind in unfit:
                with pytest.raises(SettingsError, match=f"peft {kind} does not know the blocks of bare") as caught:
                    make(kind, encoder)
                assert "\n" not in str(caught.value) and "; use peft none, vpt-deep, " in str(caught.value)
                continue
            untouched = Untouched(encoder.image_encoder)
            module = make(kind, encoder)
            before = read(encoder, small)
            with attached(module, encoder), torch.no_grad():  # open_clip takes other kernels where there are gradients
                assert torch.equal(read(encoder, small), before)
            shake(module)
            with attached(module, encoder):
                inside = read(encoder, small)
            assert largest(inside - before) > 1e-3
            untouched.check()
            assert torch.equal(read(encoder, small), before)


class Data2VecBlock(nn.Module):
    """A block with the names of Data2Vec, where LoRA has to tell query from key by the order of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = nn.Module(), nn.Module(), nn.Module()
        self.attention.attention, self.attention.output = nn.Module(), nn.Module()
        for name in ("key", "query", "value"):
            setattr(self.attention.attention, name, nn.Linear(4, 4))
        self.attention.output.dense = nn.Linear(4, 4)
        self.intermediate.dense, self.output.dense = nn.Linear(4, 6), nn.Linear(6, 4)


def test_blocks_with_the_names_of_data2vec() -> None:
    block = Data2VecBlock()
    encoder, inner = bare(block, layers=[block]), block.attention.attention
    before = {name: getattr(inner, name) for name in ("query", "key", "value")}
    with attached(make("lora", encoder), encoder):
        assert {name for name, layer in before.items() if getattr(inner, name) is not layer} == {"query", "value"}
    assert [tuple(scale.shape) for scale in make("ssf", encoder).scales] == [(4,)] * 4 + [(6,), (4,)]


@pytest.mark.parametrize("kind", ["lora", "adapter", "ssf", "full-paper"])
def test_an_encoder_without_known_blocks_is_refused(kind: str) -> None:
    strange = nn.ModuleList([nn.Conv2d(3, 3, 1)])
    for layers in ((), strange):
        if kind == "full-paper" and layers:
            continue  # any block will do
        with pytest.raises(SettingsError, match=f"peft {kind} does not know the blocks of bare .*; use peft none, "):
            make(kind, bare(strange, layers=layers))


# ---------------------------------------------------------------------------------------------------- trainable shares


def vit_b16() -> BareEncoder:
    """Returns the image encoder of CLIP ViT-B/16, with shapes and no values."""
    width, patch = 768, 16
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 12, "patch_size": patch}
    with torch.device("meta"):
        model: nn.Module = transformers.CLIPModel(transformers.CLIPConfig(vision_config=sizes))
    encoder = model.get_submodule("vision_model")
    return BareEncoder("CLIP ViT-B/16", width, patch, encoder, list(encoder.get_submodule("encoder.layers").children()))


def test_shares_of_vit_b16() -> None:
    """By hand: width 768, 12 blocks, L = 20, rank and bottleneck 8."""
    expected = {
        "none": 0,
        "vpt-deep": 12 * 20 * 768,
        "vpt-shallow": 20 * 768,
        "lora": 12 * 2 * 2 * 768 * 8,
        "adapter": 12 * (2 * 768 + 2 * 768 * 8 + 8 + 768),
        "ssf": 12 * 2 * (3 * 768 + 768 + 3072 + 768),
        "bitfit": 12 * (4 * 768 + 3072 + 768 + 2 * 768) + 2 * 768,
        "full-paper": 12 * (4 * (768 + 1) * 768 + (768 + 1) * 3072 + (3072 + 1) * 768 + 4 * 768),
    }
    expected["full"] = expected["full-paper"] + 768 + 768 * 3 * 16**2 + 197 * 768 + 4 * 768
    encoder = vit_b16()
    assert all(value.is_meta for value in encoder.image_encoder.parameters())
    for kind in PEFT:
        found = count_trainable(kind, encoder, tokens=20, bottleneck=8)
        assert found is not None and found[0] == expected[kind] == PEFT.entries[kind].parameters
        assert found[1] == pytest.approx(expected[kind] / expected["full"])


def test_the_page_of_docs_tells_the_same_numbers() -> None:
    page = (Path(__file__).parents[3] / "docs" / "peft.md").read_text(encoding="utf-8")
    encoder = vit_b16()
    for kind in PEFT:
        found = count_trainable(kind, encoder, tokens=Training.visual_prompts, bottleneck=Training.bottleneck)
        row = re.search(rf"^\| `{kind}` \|.*$", page, re.MULTILINE)
        assert found is not None and row is not None, kind
        assert f"| {found[0]:,} | {found[1]:.2%} |".replace("%", " %") in row[0], kind


def test_what_does_not_go_with_a_model_has_no_share() -> None:
    encoder = IMAGE_ENCODERS["blip"][0]()
    assert count_trainable("lora", encoder, tokens=5, bottleneck=8) is None
    assert count_trainable("ssf", encoder, tokens=5, bottleneck=8) is not None


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def pictures(photo_folder: Callable[..., Path]) -> LabelledImages:
    return load_images(photo_folder({"cat": 4, "dog": 4}))


def deft(kind: Any, **changes: Any) -> DeFT:
    sizes: dict[str, Any] = {"epochs": 2, "min_steps": 0, "batch_size": 4, "visual_prompts": 2, "bottleneck": 3}
    return DeFT(**{**sizes, "peft": kind, "evidence": "threshold", "learning_rate": 1e-3, **changes})


OFTEN = {
    "none",
    "vpt-deep",
    "full",
    "ssf",
}  # nothing, what is beside the image encoder, the image encoder, and what is inside of it


@pytest.mark.parametrize("kind", mostly_slow(PEFT, quick=OFTEN))
def test_a_scan_learns_and_resumes(
    kind: str, pictures: LabelledImages, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched, options = Untouched(tiny_clip.model), {"device": "cpu", "precision": "fp32"}

    def run(**more: Any) -> Any:
        return scan(pictures, tiny_clip, detector=deft(kind), **{**options, **more})

    unbroken = run()
    assert len(unbroken.record["history"]) == 2
    with monkeypatch.context() as patch:
        break_off(patch, BatchSource, "epoch", epoch=2)
        with pytest.raises(KeyboardInterrupt):
            run(out=tmp_path / "run")
    untouched.check()
    resumed = run(out=tmp_path / "run", resume=True)
    assert resumed.table.equals(unbroken.table)
    losses = [[epoch["loss"] for epoch in found.record["history"]] for found in (unbroken, resumed)]
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]
    untouched.check()


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize("kind", ["full", "full-paper", "bitfit", "ssf"])
def test_an_encoder_that_was_torn_apart_is_told(
    kind: str, pictures: LabelledImages, tiny_clip: Any, tmp_path: Path
) -> None:
    untouched = Untouched(tiny_clip.model)
    with pytest.raises(TrainingError, match=r"no longer .* finite number.*; use a lower learning_rate") as caught:
        scan(pictures, tiny_clip, detector=deft(kind, learning_rate=1e30), device="cpu", precision="fp32")
    assert "\n" not in str(caught.value)
    untouched.check()


def test_an_encoder_that_its_last_step_tore_apart_is_told(pictures: LabelledImages, tiny_clip: Any) -> None:
    """No loss has seen what the last step made of the module."""
    untouched, engine = Untouched(tiny_clip.model), make_engine(device="cpu", precision="fp32")
    learner = Learner(tiny_clip, pictures.class_names, settings=deft("vpt-deep"), engine=engine)
    features = ImageFeatures(np.zeros((8, 32), np.float32), {})
    feed = BatchSource(pictures, features, learner, engine, 4, 4, compiles=False)
    assert np.isfinite(adapted_features(feed).pooled).all()
    with torch.no_grad():
        next(learner.peft.parameters()).fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match="the adapted image encoder no longer gives finite numbers; use a lower"):
        adapted_features(feed)
    untouched.check()


@pytest.mark.parametrize(
    ("kind", "rate", "warned"), [("full", 3e-2, True), ("full", 5e-4, False), ("ssf", 3e-2, False)]
)
def test_a_rate_that_tears_an_encoder_apart_is_told(
    kind: str, rate: float, warned: bool, pictures: LabelledImages, tiny_clip: Any
) -> None:
    console = Console(file=io.StringIO())
    detector = deft(kind, epochs=0, learning_rate=rate)
    scan(pictures, tiny_clip, detector=detector, device="cpu", precision="fp32", progress=Progress(console))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("note: a learning rate of 0.03 is made for small modules") == warned
