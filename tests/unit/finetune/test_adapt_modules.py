"""Visual prompts, adapters and SSF in phase 2: on which blocks they sit, what they train, and what can be saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import labelsieve as ls
from interrupting import break_off
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import LabelsieveError, SettingsError
from labelsieve.core.seeds import Purpose
from labelsieve.data.images import LabelledImages
from labelsieve.finetune import job, peft_modules, tuning
from labelsieve.finetune import loop as training
from labelsieve.finetune.backbones import Backbone, load_backbone
from labelsieve.finetune.run import _job
from labelsieve.finetune.selection import choose
from labelsieve.finetune.settings import Adaptation
from labelsieve.verdicts import Verdicts
from labelsieve.vlm.loading import load_vlm
from labelsieve.vlm.peft.vpt import VisualPrompts
from slow_cases import mostly_slow
from small_adaptations import CLASSES, QUICK, adapted, differs, mislabelled, verdicts_on, weights
from small_backbones import SIZE, VIT
from small_models import model_folder

PROMPTS = ["vpt-deep", "vpt-shallow"]
KINDS = [*PROMPTS, "adapter", "ssf"]
STAY = [*PROMPTS, "adapter"]
# Every module, on a ViT or on the image encoder of CLIP: what it does to the logits is tested on every architecture.
SPREAD = [("vpt-deep", "clip"), ("vpt-shallow", "vit"), ("adapter", "clip"), ("ssf", "vit")]
VITS = ["vit", "mae", "dinov2", "clip", "siglip", "blip"]
SWIN: dict[str, Any] = {"patch_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2], "window_size": 4}
Model = Callable[[str], Path]


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return mislabelled()


@pytest.fixture(scope="module")
def verdicts(images: LabelledImages) -> Verdicts:
    return verdicts_on(images)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def backbone_of(folder: Path) -> Backbone:
    """Loads a backbone with a head that says something."""
    backbone = load_backbone(str(folder), CLASSES)
    torch.nn.init.normal_(backbone.head.weight, generator=torch.Generator().manual_seed(2))
    return backbone


def prepared(backbone: Backbone, tune: Any, *, seed: int = 0, **sizes: Any) -> Any:
    """Prepares a backbone for training and returns its module."""
    settings = Adaptation(**{"tune": tune, "visual_prompts": 5, **sizes})
    tuning.prepare(backbone, settings, generator=torch.Generator().manual_seed(seed))
    return backbone.model.get_submodule(peft_modules.SUBMODULE).module


def shake(module: torch.nn.Module) -> None:
    """Moves all parameters, as training would."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.1)


def logits(backbone: Backbone, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return backbone.logits(pixels).clone()


# ---------------------------------------------------------------- on every architecture


def test_a_fresh_module_leaves_the_logits_as_they_are(model: Model, pixels: Tensor, subtests: pytest.Subtests) -> None:
    every = [("adapter", kind) for kind in (*VITS, "swin")]
    for tune, kind in (*every, ("ssf", "vit"), ("ssf", "swin")):  # others: test_ssf_merges_into_a_standard_model
        with subtests.test(tune, kind=kind):
            backbone = backbone_of(model(kind))
            before = logits(backbone, pixels)
            module = prepared(backbone, tune)
            # not bit for bit: beside a module, torch 2.6 adds in another order; one not fresh changes ten times more
            torch.testing.assert_close(logits(backbone, pixels), before, rtol=0.0, atol=1e-5)
            shake(module)
            assert float((logits(backbone, pixels) - before).abs().max()) > 1e-4


@pytest.mark.parametrize(("tune", "kind"), [*(("vpt-deep", kind) for kind in VITS), ("vpt-shallow", "clip")])
def test_visual_prompts_stand_beside_the_patches(tune: str, kind: str, model: Model, pixels: Tensor) -> None:
    backbone = backbone_of(model(kind))
    before = logits(backbone, pixels)
    module = prepared(backbone, tune)
    assert module.prompts.shape == (2 if tune == "vpt-deep" else 1, 5, 16), "of the tokens, whatever the head reads"
    assert float((logits(backbone, pixels) - before).abs().max()) > 1e-4
    together, alone = logits(backbone, pixels), logits(backbone, pixels[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tune", PROMPTS)
def test_visual_prompts_do_what_they_do_in_phase_1(tune: str, tmp_path: Path) -> None:
    """There on CLIP as `transformers` has it, here on the same encoder as `timm` has it."""
    folder = model_folder(tmp_path / "clip")
    vlm, backbone = load_vlm(str(folder)), load_backbone(str(folder), CLASSES)
    here = prepared(backbone, tune, visual_prompts=4)
    there = VisualPrompts(vlm, tokens=4, deep=tune == "vpt-deep", generator=torch.Generator())
    bound = (6 / (3 * vlm.patch_size**2 + vlm.vision_width)) ** 0.5
    assert 0.9 * bound < float(here.prompts.detach().abs().max()) <= bound
    pictures = torch.randn(3, 3, vlm.image_size, vlm.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        there.prompts.copy_(here.prompts)
        handles = there.attach(vlm)
        torch.testing.assert_close(backbone.pool(pictures), vlm.pool(pictures), rtol=0, atol=1e-4)
        for handle in handles:
            handle.remove()
        assert float((backbone.pool(pictures) - vlm.pool(pictures)).abs().max()) > 1e-3


@pytest.mark.parametrize("tune", [*PROMPTS, "adapter"])
def test_initial_values_come_from_the_generator(tune: str, model: Model) -> None:
    backbones = [backbone_of(model("vit")) for _ in range(3)]
    state = torch.get_rng_state()
    one, same, other = (
        prepared(backbone, tune, seed=seed) for backbone, seed in zip(backbones, (3, 3, 4), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    assert not all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize(("name", "count"), [("Beit", 2), ("Dinov2WithRegisters", 2), ("DeiT", 2), ("Swinv2", 3)])
def test_blocks_of_other_classifiers(name: str, count: int, model: Model, pixels: Tensor, tmp_path: Path) -> None:
    sizes = {**SWIN, "image_size": SIZE} if name == "Swinv2" else VIT
    backbone = backbone_of(other_folder(tmp_path / "m", name, model, **sizes))
    before = logits(backbone, pixels)
    module = prepared(backbone, "adapter")
    assert len(module.blocks) == count and torch.equal(logits(backbone, pixels), before)
    shake(module)
    assert float((logits(backbone, pixels) - before).abs().max()) > 1e-4


def other_folder(folder: Path, name: str, model: Model, **sizes: Any) -> Path:
    """Saves a random classifier of `transformers`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**sizes)
        getattr(transformers, f"{name}ForImageClassification")(config).save_pretrained(folder)
    shutil.copy(model("vit") / "preprocessor_config.json", folder)
    return folder


# ---------------------------------------------------------------- what is trained


def test_biases_of_query_and_value_are_biases(model: Model, tmp_path: Path) -> None:
    """BEiT, EVA and Swin V2 of `timm` have them as parameters of the attention, not of a layer."""
    sizes = {"img_size": SIZE, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}
    folder = other_folder(tmp_path / "m", "TimmWrapper", model, architecture="beit_base_patch16_224", model_args=sizes)
    backbone = backbone_of(folder)
    tuning.prepare(backbone, Adaptation(tune="bitfit"), generator=torch.Generator())
    trained = {name for name, value in backbone.model.named_parameters() if value.requires_grad}
    biases = {name for name, _ in backbone.model.named_parameters() if name.endswith("bias")}
    assert any(name.endswith(".q_bias") for name in biases)
    assert trained - {"timm_model.head.weight"} == biases - backbone.unused


@pytest.mark.slow
@pytest.mark.parametrize(("tune", "kind"), SPREAD[:-1])
def test_the_module_and_the_head_are_trained_alone(
    tune: str, kind: str, images: LabelledImages, verdicts: Verdicts, model: Model
) -> None:
    start = adapted(images, verdicts, model(kind), epochs=0, head_init="zeros")
    fresh = prepared(load_backbone(str(model(kind)), CLASSES), tune, visual_prompts=20)
    settings: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-2, "head_init": "zeros", "test": images}
    result = adapted(images, verdicts, model(kind), tune=tune, **settings)
    heads = {"classifier.weight", "classifier.bias", "timm_model.head.weight", "timm_model.head.bias"}
    assert differs(start, result) == heads & set(weights(start)), "all else is bit for bit what it was"
    module = result.model.get_submodule(peft_modules.SUBMODULE)
    assert not all(map(torch.equal, fresh.parameters(), module.parameters()))
    sizes = sum(value.numel() for value in (*module.parameters(), *result.backbone.head.parameters()))
    told = result.record["backbone"]
    assert told["trained"] == sizes
    assert told["parameters"] == sum(value.numel() for value in weights(start).values()) + sizes - 51
    assert not any(value.requires_grad for value in result.model.parameters())
    shown = result.backbone.pixels([images.open(row) for row in range(len(images))])
    found = logits(result.backbone, shown).argmax(dim=1).numpy()
    assert np.mean(found == images.labels) == result.metrics["test"]["accuracy"], "it predicts with its module"


@pytest.mark.parametrize("tune", KINDS)
def test_both_rates_reach_what_they_are_for(tune: Any, model: Model) -> None:
    backbone = backbone_of(model("vit"))
    module = prepared(backbone, tune)
    groups = training._optimizer(backbone, Adaptation(learning_rate=0.5, head_learning_rate=0.25)).param_groups
    rates = {id(value): group["lr"] for group in groups for value in group["params"]}
    expected = {id(value): 0.5 for value in module.parameters()}
    assert rates == expected | {id(value): 0.25 for value in backbone.head.parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("tune", mostly_slow(KINDS, quick={"vpt-deep", "ssf"}))
def test_half_precision_trains_too(tune: Any, images: LabelledImages, verdicts: Verdicts, model: Model) -> None:
    how = Adaptation(**{**QUICK, "epochs": 1}, tune=tune, head_init="zeros", learning_rate=1e-3)
    full, half = (
        ls.adapt(images, verdicts, backbone=model("clip"), settings=how, device="cpu", precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert differs(full, half)
    losses = [[epoch["loss"] for epoch in result.history] for result in (half, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("tune", mostly_slow(KINDS, quick={"vpt-deep", "adapter"}))
def test_a_batch_may_pass_in_parts(
    tune: str, images: LabelledImages, verdicts: Verdicts, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"tune": tune, "epochs": 1, "learning_rate": 1e-2, "optimizer": "sgd"}
    settings["head_init"] = "zeros"
    whole = adapted(images, verdicts, model("vit"), **settings)
    monkeypatch.setattr(job, "max_chunk_size", lambda _work, _one, maximum, budget=None: 3)
    parts = adapted(images, verdicts, model("vit"), **settings)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("tune", "kind"), mostly_slow(SPREAD, quick=[("vpt-shallow", "vit")]))
def test_resuming_gives_the_module_of_an_unbroken_run(
    tune: Any, kind: str, images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path
) -> None:
    """By the training itself: what stays attached takes no folder, and so no checkpoint."""
    settings = Adaptation(**{**QUICK, "epochs": 2}, tune=tune, learning_rate=1e-2, visual_prompts=3)
    selection = choose(verdicts, settings)

    def run(folder: Path, *, resume: bool = False) -> dict[str, Tensor]:
        engine = make_engine(device="cpu", precision="fp32", checkpoint=folder, resume=resume)
        backbone = load_backbone(str(model(kind)), CLASSES)
        tuning.prepare(backbone, settings, generator=engine.generator(Purpose.INITIAL_MODULES))
        training.train(_job(backbone, images, selection, None, settings, engine))
        return {key: value.detach() for key, value in backbone.model.state_dict().items()}

    unbroken = run(tmp_path / "one")
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, training, "_batches", epoch=2)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "two")
    resumed = run(tmp_path / "two", resume=True)
    assert any(key.startswith(peft_modules.SUBMODULE) for key in resumed)
    torch.testing.assert_close(resumed, unbroken, rtol=0, atol=0)


@pytest.mark.parametrize(("tune", "kind"), mostly_slow(SPREAD[:-1], quick=[("vpt-shallow", "vit")]))
def test_the_module_of_the_best_epoch_is_kept(
    tune: Any,
    kind: str,
    images: LabelledImages,
    verdicts: Verdicts,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(*, epochs: int, scores: list[float]) -> Any:
        told = iter(scores)
        monkeypatch.setattr(training, "evaluate", lambda _job: {"validation_accuracy": next(told)})
        return adapted(images, verdicts, model(kind), tune=tune, validation=0.3, learning_rate=1e-2, epochs=epochs)

    fresh, kept, last = run(epochs=0, scores=[0.5]), run(epochs=2, scores=[0.9, 0.1, 0.2]), run(epochs=1, scores=[0, 1])
    assert (kept.metrics["saved_epoch"], last.metrics["saved_epoch"]) == (0, 1)
    assert not differs(fresh, kept)
    assert any(name.startswith(peft_modules.SUBMODULE) for name in differs(fresh, last))


# ---------------------------------------------------------------- what merges


class Doubling(nn.Module):
    """Merges, without scales and shifts."""

    def attach(self, _encoder: Any) -> list[Any]:
        return []

    def merge(self, encoder: Any) -> None:
        encoder.model.weight.data *= 2


@pytest.mark.parametrize("merges", [True, False])
def test_every_module_that_merges_is_merged(merges: bool) -> None:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    backbone: Any = SimpleNamespace(model=model)
    encoder: Any = SimpleNamespace(model=model)
    model.add_module(peft_modules.SUBMODULE, peft_modules.AttachedModule(Doubling(), encoder, merges=merges))
    peft_modules.merge(backbone)
    assert hasattr(model, peft_modules.SUBMODULE) != merges
    torch.testing.assert_close(model.weight, (2 if merges else 1) * before)


@pytest.mark.parametrize("kind", mostly_slow([*VITS, "swin"], quick={"vit", "clip", "swin"}))
def test_ssf_merges_into_a_standard_model(kind: str, model: Model, pixels: Tensor, tmp_path: Path) -> None:
    backbone = backbone_of(model(kind))
    names = [name for name, _ in backbone.model.named_parameters()]
    shake(prepared(backbone, "ssf"))
    expected = logits(backbone, pixels)
    tuning.merge(backbone)
    torch.testing.assert_close(logits(backbone, pixels), expected, rtol=1e-4, atol=1e-4)
    assert [name for name, _ in backbone.model.named_parameters()] == names, "nothing of its own is left"
    assert not any(part._forward_hooks for part in backbone.model.modules())
    backbone.model.save_pretrained(tmp_path / "m")
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(pixel_values=pixels).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("timm", [False, True])
def test_a_layer_without_bias_gets_one(timm: bool, model: Model, pixels: Tensor, tmp_path: Path) -> None:
    if timm:
        sizes = {"img_size": SIZE, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2, "qkv_bias": False}
        folder = other_folder(
            tmp_path / "m", "TimmWrapper", model, architecture="vit_tiny_patch16_224", model_args=sizes
        )
    else:
        folder = other_folder(tmp_path / "m", "ViT", model, **VIT, qkv_bias=False)
    backbone = backbone_of(folder)
    names = ("qkv.bias", "q_proj.bias")
    assert not [name for name, _ in backbone.model.named_parameters() if name.endswith(names)]
    shake(prepared(backbone, "ssf"))
    expected = logits(backbone, pixels)
    tuning.merge(backbone)
    backbone.model.save_pretrained(tmp_path / "merged")
    loaded, info = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.inference_mode():
        torch.testing.assert_close(loaded.eval()(pixel_values=pixels).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_cannot_have_a_bias_is_told(model: Model, tmp_path: Path) -> None:
    """The keys of BEiT have none, whatever its configuration says."""
    folder = other_folder(tmp_path / "beit", "Beit", model, **VIT)
    with pytest.raises(SettingsError, match=r"and some of .* cannot have one; use tune lora, bitfit or f") as caught:
        prepared(backbone_of(folder), "ssf")
    assert "\n" not in str(caught.value)


def test_ssf_from_a_run_to_a_model(
    images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path, pixels: Tensor
) -> None:
    start = adapted(images, verdicts, model("clip"), epochs=0)
    result = adapted(images, verdicts, model("clip"), tune="ssf", out=tmp_path / "m", learning_rate=1e-2)
    assert set(weights(result)) == set(weights(start)) and len(differs(start, result)) == 2 * 2 * 4 + 2
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    with torch.inference_mode():
        there = loaded(pixel_values=pixels).logits
    torch.testing.assert_close(there, logits(result.backbone, pixels), rtol=0, atol=1e-5)
    record = json.loads((tmp_path / "m" / "adapt.json").read_text())
    assert record["settings"]["tune"] == "ssf" and record["backbone"]["trained"] == 2 * 2 * (48 + 16 + 24 + 16) + 51


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("tune", STAY)
def test_what_a_standard_model_has_no_place_for_is_not_saved(
    tune: str, images: LabelledImages, verdicts: Verdicts, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = adapted(images, verdicts, model("vit"), tune=tune, epochs=1)
    said = rf"tune {tune} adds to the model what .* cannot be saved; use tune lora, ssf or bitfit"
    with pytest.raises(SettingsError, match=said) as caught:
        result.save(tmp_path / "m")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("labelsieve.finetune.target_kinds.TargetKind.check", None)  # nothing comes before
    with pytest.raises(SettingsError, match=said):
        adapted(images, verdicts, model("vit"), tune=tune, out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("tune", "kind"),
    [("vpt-deep", "resnet"), ("vpt-shallow", "convnext"), ("vpt-deep", "swin"), ("vpt-shallow", "swin")],
)
def test_visual_prompts_need_one_sequence(
    tune: str, kind: str, images: LabelledImages, verdicts: Verdicts, model: Model
) -> None:
    with pytest.raises(SettingsError, match=rf"tune {tune} needs a vision transformer .*; use tune lora") as caught:
        adapted(images, verdicts, model(kind), tune=tune)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "block"), [("resnet", "ResNetStage"), ("convnext", "ConvNextStage")])
@pytest.mark.parametrize("tune", ["adapter", "ssf"])
def test_blocks_of_an_unknown_kind_are_told(tune: str, kind: str, block: str, model: Model) -> None:
    said = rf"tune {tune} does not know the blocks of .* \({block}\); use tune lora, bitfit or full"
    with pytest.raises(SettingsError, match=said) as caught:
        prepared(backbone_of(model(kind)), tune)
    assert "\n" not in str(caught.value)


def test_attention_that_knows_one_length_is_told(model: Model, pixels: Tensor) -> None:
    """Such as that with relative positions; what was attached to find out is gone again."""
    backbone = backbone_of(model("vit"))
    before = logits(backbone, pixels)

    def picky(_module: torch.nn.Module, args: tuple[Any, ...], _options: Any) -> None:
        if (args or tuple(_options.values()))[0].shape[1] != 5:
            raise RuntimeError("expected 5 tokens")

    attention = backbone.model.get_submodule("vit.layers.0.attention")
    handle = attention.register_forward_pre_hook(picky, with_kwargs=True)
    with pytest.raises(LabelsieveError, match="tune vpt-deep needs a vision transformer"):
        prepared(backbone, "vpt-deep")
    handle.remove()
    assert torch.equal(logits(backbone, pixels), before)
    assert not any(name.startswith(peft_modules.SUBMODULE) for name in backbone.model.state_dict())
