"""What holds for every family of models: features are the library's own, prompts and modules work, bad folders do not.

Every entry of `FAMILIES` is tested by existing: `TINY_FAMILIES` has to have a tiny model of each.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import labelsieve as ls
from labelsieve.core.errors import ModelError, SettingsError
from labelsieve.data.images import LabelledImages
from labelsieve.vlm.families.albef import configuration as albef_configuration
from labelsieve.vlm.families.registry import FAMILIES
from labelsieve.vlm.loading import load_vlm
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.registry import PEFT
from labelsieve.vlm.peft.target_layers import ModuleSpec
from slow_cases import mostly_slow
from small_families import TINY_FAMILIES, Family, Reference, cosine, edit_family_weights
from small_models import edit_json

NAMES = ["Cat", "sail_boat", "a cup of tea"]
PLAIN = ["cat", "sail boat", "a cup of tea"]
TEXTS = ["a photo of a cat.", "tree", "an image of a cup and two boats."]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that makes the folder of a family once. Copy it to change it."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        for module in TINY_FAMILIES[name].needs:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")
        if name not in made:
            made[name] = tmp_path_factory.mktemp("family") / name.replace(" ", "_")
            made[name].mkdir()
            TINY_FAMILIES[name].make(made[name])
        return made[name]

    return folder


# One family of each kind of model, for what its loader decides and no encoder in it does.
OF_A_KIND = sorted({family.kind: name for name, family in reversed(TINY_FAMILIES.items())}.values())

OFTEN = {"clip", "siglip", "blip", "open_clip", "dual encoder"}


@pytest.fixture(scope="module", params=mostly_slow(TINY_FAMILIES, quick=OFTEN))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family(name: str) -> Family:
    return TINY_FAMILIES[name]


@pytest.fixture(scope="module")
def folder(name: str, folders: Callable[[str], Path]) -> Path:
    return folders(name)


@pytest.fixture(scope="module")
def vlm(folder: Path) -> Any:
    return load_vlm(folder)


@pytest.fixture(scope="module")
def reference(family: Family, folder: Path) -> Reference:
    return family.reference(folder)


@pytest.fixture(scope="module")
def pixels(vlm: Any) -> Tensor:
    return torch.randn(3, 3, vlm.image_size, vlm.image_size, generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    error = float((ours - theirs).detach().abs().max())
    assert error < tolerance, f"max abs error {error:.2e}"


def differ(features: Tensor) -> None:
    """Makes sure that a comparison with these features means something."""
    assert float((features[0] - features[1]).detach().abs().max()) > 1e-2


def test_every_family_has_a_tiny_model() -> None:
    assert {family.kind for family in TINY_FAMILIES.values()} == set(FAMILIES)


# ------------------------------------------------------------------------------------------------------------- features


def test_what_a_model_says_of_itself(vlm: Any, family: Family, folder: Path, reference: Reference) -> None:
    assert type(vlm) is FAMILIES[family.kind]
    assert vlm.name == str(folder)
    assert vlm.logit_scale == pytest.approx(reference.scale, rel=1e-5)
    assert not vlm.model.training and not any(value.requires_grad for value in vlm.model.parameters())
    assert bool(len(vlm.vision_layers)) == family.transformer == bool(vlm.patch_size)
    assert vlm.to(torch.device("cpu")) is vlm and vlm.device.type == "cpu"
    assert vlm.embed_words("a photo").shape[1] == vlm.text_width


def test_image_features_are_those_of_the_library(vlm: Any, reference: Reference, pixels: Tensor) -> None:
    pooled = vlm.pool(pixels)
    assert pooled.shape == (3, vlm.vision_width)
    close(vlm.project(pooled), reference.images(pixels))
    differ(vlm.project(pooled))


def test_text_features_are_those_of_the_library(vlm: Any, reference: Reference) -> None:
    ours = vlm.encode_text(TEXTS)
    close(ours, reference.texts(TEXTS))
    differ(ours)
    assert ours.shape[1] == vlm.project(torch.zeros(1, vlm.vision_width)).shape[1], "they meet in one space"


def test_normalise_does_to_a_crop_what_the_processor_does(vlm: Any) -> None:
    side = vlm.image_size
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    raw = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
    close(vlm.normalise(raw), vlm.pixels([picture]), 1e-5)
    assert vlm.pixels([picture, picture.resize((7, 50))]).shape == (2, 3, side, side)


def test_a_long_neighbour_changes_nothing(vlm: Any) -> None:
    """Padding has no influence, or always the same."""
    texts = ["cat", "a photo of a cup of tea, of a tree and of the sail boat"]
    close(vlm.encode_text(texts)[:1], vlm.encode_text(texts[:1]), 1e-5)
    context = torch.randn(3, vlm.text_width, generator=torch.Generator().manual_seed(0))
    ids, _ = vlm.tokenize_names(texts, context_tokens=3)
    alone, _ = vlm.tokenize_names(texts[:1], context_tokens=3)
    close(vlm.encode_prompts(context, ids)[:1], vlm.encode_prompts(context, alone), 1e-5)


def test_a_text_that_is_too_long_is_cut(vlm: Any) -> None:
    assert torch.isfinite(vlm.encode_text(["a cat " * 60])).all()


# -------------------------------------------------------------------------------------------------------------- prompts


def test_prompts_of_plain_words_are_the_plain_text(vlm: Any, reference: Reference) -> None:
    context = vlm.embed_words("a photo of a")
    ids, shortened = vlm.tokenize_names(NAMES, context_tokens=len(context))
    assert not shortened
    plain = reference.texts([f"a photo of a {name}." for name in PLAIN])
    close(vlm.encode_prompts(context, ids), plain)
    differ(plain)
    assert float((vlm.encode_prompts(context * 0, ids) - plain).detach().abs().max()) > 1e-2, "no influence"


def test_gradients_reach_every_context_vector_and_nothing_stays_behind(vlm: Any) -> None:
    before = vlm.encode_text(["a cat."])
    context = torch.randn(4, vlm.text_width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids, _ = vlm.tokenize_names(NAMES, context_tokens=4)
    vlm.encode_prompts(context, ids).square().sum().backward()
    assert context.grad is not None and bool((context.grad.abs().amax(dim=1) > 0).all())
    assert not vlm.token_embeddings._forward_hooks and vlm.token_embeddings.weight.grad is None
    assert torch.equal(vlm.encode_text(["a cat."]), before)


def test_long_names_are_shortened_and_told(vlm: Any) -> None:
    long = "cat " * vlm.context_length
    ids, shortened = vlm.tokenize_names(["cup", long], context_tokens=4)
    assert shortened == [long] and ids.shape == (2, vlm.context_length)
    start, end = vlm.special_tokens()
    assert end and ids[1, : len(start)].tolist() == start and ids[1, -len(end) :].tolist() == end
    assert torch.isfinite(vlm.encode_prompts(torch.randn(4, vlm.text_width), ids)).all()
    with pytest.raises(ModelError, match=rf"takes {vlm.context_length} tokens: no room for a class name"):
        vlm.tokenize_names(["cat"], context_tokens=vlm.context_length)


# ---------------------------------------------------------------- modules on the image encoder


def test_visual_prompts(vlm: Any, family: Family, pixels: Tensor, subtests: pytest.Subtests) -> None:
    def build(kind: str, tokens: int) -> Any:
        return build_peft(ModuleSpec(kind, tokens, 8, torch.Generator().manual_seed(0)), vlm)

    for kind in ("vpt-deep", "vpt-shallow"):
        with subtests.test(kind):
            if not family.transformer:
                refused = f"peft {kind} needs a vision transformer.*; use peft none, bitfit"
                with pytest.raises(SettingsError, match=refused):
                    build(kind, 5)
                continue
            before = vlm.pool(pixels)
            assert build(kind, 0) is None, "without tokens nothing is attached"
            module = build(kind, 5)
            handles = module.attach(vlm)
            inside = vlm.pool(pixels)
            alone = vlm.pool(pixels[1:2])
            vlm.project(inside).square().sum().backward()
            for handle in handles:
                handle.remove()
            assert inside.shape == before.shape
            assert float((inside - before).detach().abs().max()) > 1e-3
            close(inside[1:2], alone, 1e-5)
            assert bool((module.prompts.grad.abs().amax(dim=-1) > 0).all()), "a prompt idles"
            assert torch.equal(vlm.pool(pixels), before), "detached, the image encoder is as it was"
            assert all(value.grad is None for value in vlm.model.parameters())


# ----------------------------------------------------------------------------------------------------------------- scan


# As docs/peft.md says: LoRA wants query and value as layers of their own, SSF wants to see those of the attention, and
# what has no blocks at all has a place for biases and the whole image encoder only.
REFUSED = {
    "blip": {"lora"},
    "open_clip": {"lora", "ssf"},
    "open_clip of SigLIP": {"lora"},
    "open_clip ResNet": {*PEFT} - {"none", "bitfit", "full"},
    "dual encoder of timm": {*PEFT} - {"none", "bitfit", "full"},
}


def test_every_module_goes_with_a_model_or_is_refused(
    vlm: Any, name: str, pixels: Tensor, subtests: pytest.Subtests
) -> None:
    def build(kind: str) -> Any:
        return build_peft(ModuleSpec(kind, 3, 2, torch.Generator().manual_seed(0)), vlm)

    for kind in (kind for kind in PEFT if kind != "none"):
        with subtests.test(kind):
            with torch.no_grad():
                before = vlm.pool(pixels)
            if kind in REFUSED.get(name, ()):
                with pytest.raises(SettingsError, match=f"peft {kind} .*use peft") as caught:
                    build(kind)
                assert vlm.name in str(caught.value)
                continue
            module = build(kind)
            handles = module.attach(vlm)
            attached = vlm.pool(pixels)
            attached.square().sum().backward()
            for handle in handles:
                handle.remove()
            touched = [part for part, value in module.named_parameters() if value.grad is not None and value.grad.any()]
            assert touched and all(value.grad is None for value in vlm.image_encoder.parameters())
            assert torch.isfinite(attached).all() and attached.shape == before.shape
            with torch.no_grad():
                assert torch.equal(vlm.pool(pixels), before), "detached, the image encoder is what it was"


def test_the_vision_encoder_is_what_pools(vlm: Any, pixels: Tensor) -> None:
    """Its parameters and no others: full fine-tuning trains these."""
    vlm.model.requires_grad_(True)
    try:
        vlm.pool(pixels).square().sum().backward()
        used = {name for name, value in vlm.model.named_parameters() if value.grad is not None}
    finally:
        vlm.model.requires_grad_(False).zero_grad(set_to_none=True)
    own = {id(value) for value in vlm.image_encoder.parameters()}
    assert used == {name for name, value in vlm.model.named_parameters() if id(value) in own}
    assert {id(value) for layer in vlm.vision_layers for value in layer.parameters()} < own


@pytest.fixture(scope="module")
def images(drawn_folder: Path) -> LabelledImages:
    return ls.load_images(drawn_folder)


def scan(vlm: Any, images: LabelledImages, peft: Any, **more: Any) -> None:
    detector = ls.DeFT(epochs=1, min_steps=0, warmup_epochs=0, peft=peft, visual_prompts=2, batch_size=16, **more)
    verdicts = ls.scan(images, vlm, detector=detector, device="cpu", precision="fp32")
    quality = verdicts.table["label_quality"].to_numpy()
    assert len(quality) == 32 and np.isfinite(quality).all() and len(np.unique(quality)) > 1
    assert verdicts.record["model"]["fingerprint"] == vlm.fingerprint


def test_scan(vlm: Any, images: LabelledImages) -> None:
    scan(vlm, images, "none", evidence="threshold")


@pytest.mark.slow
def test_scan_with_visual_prompts(folders: Callable[[str], Path], images: LabelledImages) -> None:
    """One of each kind of encoder: `test_visual_prompts` has those of every family."""
    scan(load_vlm(folders("siglip2")), images, "vpt-deep", evidence="threshold")
    scan(load_vlm(folders("open_clip")), images, "vpt-deep", evidence="threshold")
    with pytest.raises(SettingsError, match="use peft none"):
        scan(load_vlm(folders("open_clip ResNet")), images, "vpt-deep")


# ---------------------------------------------------------------------------------------------------------- bad folders


def _remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def _weights(family: Family, change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    return lambda folder: edit_family_weights(folder, family, change)


def _lose(family: Family) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        for key in family.lost:
            del weights[key]

    return change


def _spoil(family: Family) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        weights[family.lost[0]].view(-1)[3] = float("nan")

    return change


def _move(family: Family) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        weights[family.lost[0]].view(-1)[3] += 1

    return change


def _reshape(family: Family) -> Callable[[dict[str, Tensor]], None]:
    def change(weights: dict[str, Tensor]) -> None:
        weights[family.lost[1]] = weights[family.lost[1]][:, :5].clone()

    return change


def _truncate(family: Family) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / family.weights
        path.write_bytes(path.read_bytes()[:-1000])

    return change


def _break_configuration(folder: Path) -> None:
    for name in ("config.json", "open_clip_config.json"):
        if (folder / name).exists():
            (folder / name).write_text("{")


def _foreign_words(folder: Path) -> None:
    """Puts in a tokenizer whose words the text encoder has no embeddings for."""
    if (folder / "vocab.txt").exists():
        lines = (folder / "vocab.txt").read_text().splitlines()
        (folder / "vocab.txt").write_text("\n".join([*lines[:5], *(f"other{n}" for n in range(500)), *lines[5:]]))
        return
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    model = tokenizer["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {word: n + (60_000 if n > 4 else 0) for word, n in model["vocab"].items()}
    else:
        model["vocab"][4:4] = [[f"other{n}", -20.0] for n in range(500)]
    edit_json(folder / "tokenizer.json", model=model)


def cases(family: Family) -> dict[str, tuple[Callable[[Path], None], str]]:
    """Returns what may be wrong with a folder of a family, and what is said then."""
    found: dict[str, tuple[Callable[[Path], None], str]] = {
        "broken configuration": (_break_configuration, r"no usable configuration \((open_clip_)?config.json\)"),
        "no weights": (_remove(family.weights), "weights"),
        "truncated weights": (_truncate(family), "weights of .* cannot be loaded: .*get them again"),
        "lost weights": (_weights(family, _lose(family)), "incomplete, 2 missing such as .*; get them again"),
        "not a number": (_weights(family, _spoil(family)), "not finite; get them again"),
        "other shapes": (_weights(family, _reshape(family)), "1 weights of .* have another shape .*get both again"),
    }
    if family.tokenizer:
        found["no tokenizer"] = (_remove(*family.tokenizer), "no usable tokenizer|usable tokenizer")
        found["foreign tokenizer"] = (_foreign_words, "the tokenizer of .* belongs to another model; copy")
    if family.processor:
        found["no processor"] = (_remove("preprocessor_config.json"), r"no usable image processor \(preprocessor_")
    if family.kind not in ("siglip2", "albef", "open_clip", "vision-text-dual-encoder"):  # one follows from the other
        size = {"height": 48, "width": 48}
        found["processor of another model"] = (
            lambda folder: edit_json(folder / "preprocessor_config.json", size=size, crop_size=size),
            r"to give pixels of shape \(1, 3, \d+, \d+\), got \(1, 3, 48, 48\); copy",
        )
    return found


OF_THE_KIND = {"broken configuration", "no weights", "truncated weights", "lost weights"}
OF_A_LOADER = {"not a number", "other shapes"}
LOADERS = ("clip", "albef", "open_clip", "dual encoder")  # a family with each: what is read is checked in one place


def cases_of(name: str) -> dict[str, tuple[Callable[[Path], None], str]]:
    """Returns those of a family, but what its kind or its loader decides with one family alone."""
    return {
        what: case
        for what, case in cases(TINY_FAMILIES[name]).items()
        if name in (LOADERS if what in OF_A_LOADER else OF_A_KIND if what in OF_THE_KIND else TINY_FAMILIES)
    }


@pytest.mark.parametrize("name", mostly_slow(filter(cases_of, TINY_FAMILIES), quick=OFTEN - {"dual encoder"}))
def test_bad_folders_give_one_clear_line(
    name: str, folders: Callable[[str], Path], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    good = folders(name)
    for number, (what, (change, message)) in enumerate(cases_of(name).items()):
        with subtests.test(what):
            bad = shutil.copytree(good, tmp_path / str(number))
            change(bad)
            with pytest.raises(ModelError, match=message) as caught:
                load_vlm(bad)
            text = str(caught.value)
            assert "\n" not in text and str(bad) in text
            assert len(text.replace(str(bad), "")) < 300, text


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_never_runs(folders: Callable[[str], Path], tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name in OF_A_KIND:
        with subtests.test(name):
            family, mark = TINY_FAMILIES[name], tmp_path / f"mark of {name}"
            bad = shutil.copytree(folders(name), tmp_path / name)
            (bad / family.weights).unlink()
            torch.save({family.lost[0]: Malice(f"touch '{mark}'")}, bad / family.pickle)
            with pytest.raises(ModelError, match=r"pickle that holds more than tensors.*get a model with safetensors"):
                load_vlm(bad)
            assert not mark.exists()
            torch.load(bad / family.pickle, weights_only=False)
            assert mark.exists(), "the pickle is harmless and the test worth nothing"


def test_a_pickle_of_tensors_alone_is_loaded(
    folders: Callable[[str], Path], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name in OF_A_KIND:
        with subtests.test(name):
            family, path = TINY_FAMILIES[name], shutil.copytree(folders(name), tmp_path / name)
            torch.save(load_file(path / family.weights), path / family.pickle)
            (path / family.weights).unlink()
            assert load_vlm(path).fingerprint == load_vlm(folders(name)).fingerprint


def test_code_in_a_folder_never_runs_and_nobody_is_asked(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """Without a word of ours the loaders ask on the terminal, and run the code on a yes."""
    monkeypatch.setattr("builtins.input", lambda *_prompt: "y")
    own: dict[str, dict[str, Any]] = {
        "config.json": {"auto_map": {"AutoConfig": "code.Own", "AutoModel": "code.Own", "AutoTokenizer": "code.Own"}},
        "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", "code.Own"]}},
        "preprocessor_config.json": {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "code.Own"}},
    }
    code = "open({!r}, 'w').close()\nfrom transformers import CLIPConfig as Own\n"
    for name in OF_A_KIND:
        with subtests.test(name):
            folder, mark = folders(name), tmp_path / f"mark of {name}"
            for file in [file for file in own if (folder / file).exists()] or ["open_clip_config.json"]:
                bad = shutil.copytree(folder, tmp_path / name / file)
                (bad / "code.py").write_text(code.format(str(mark)))
                for kind in ({}, {"model_type": "own"}) if file == "config.json" else ({},):
                    edit_json(bad / file, **own.get(file, {}), **kind)
                    if (bad / "open_clip_config.json").exists():  # that library hands these on to the tokenizer loader
                        settings = json.loads((bad / "open_clip_config.json").read_text())["model_cfg"]
                        settings["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
                        edit_json(bad / "open_clip_config.json", model_cfg=settings)
                    with suppress(ModelError):
                        load_vlm(bad)
                    assert not mark.exists(), file


def test_fingerprint_follows_the_weights(
    folders: Callable[[str], Path], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """And not the folder: `test_a_pickle_of_tensors_alone_is_loaded` has the same weights in another."""
    for name in OF_A_KIND:
        with subtests.test(name):
            family, other = TINY_FAMILIES[name], shutil.copytree(folders(name), tmp_path / name)
            edit_family_weights(other, family, _move(family))
            assert load_vlm(other).fingerprint != load_vlm(folders(name)).fingerprint


# ------------------------------------------------------------------------------------------ what is special of a family


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_sigmoid_models_give_their_own_probability(name: str, folders: Callable[[str], Path]) -> None:
    vlm: Any = load_vlm(folders(name))
    pixels = vlm.pixels([Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")])
    logits = vlm.logit_scale * cosine(vlm.pool(pixels), vlm.encode_text(TEXTS)) + vlm.logit_bias
    assert vlm.logit_bias == -3.0
    ids, size = vlm.tokenize(TEXTS), vlm.image_size // vlm.patch_size
    more = {"spatial_shapes": torch.tensor([[size, size]] * 2), "pixel_attention_mask": torch.ones(2, size**2).long()}
    if name == "siglip2":
        square = [Image.new("RGB", (vlm.image_size,) * 2, colour) for colour in ("red", "blue")]
        pixels = vlm.processor(images=square, return_tensors="pt")["pixel_values"]
    theirs = vlm.model(input_ids=ids, pixel_values=pixels, **(more if name == "siglip2" else {})).logits_per_image
    close(logits, theirs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side(side: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    """Tokenizers of the kind that SigLIP 2 uses fill up on the left unless their settings say otherwise."""
    path = shutil.copytree(folders("siglip2"), tmp_path / "model")
    edit_json(path / "tokenizer_config.json", padding_side=side)
    vlm: Any = load_vlm(path)
    context = vlm.embed_words("a photo of a")
    ids, _ = vlm.tokenize_names(NAMES, context_tokens=len(context))
    texts = [f"a photo of a {name}." for name in PLAIN]
    assert torch.equal(ids[:, 0] == vlm.pad, torch.full((3,), side == "left"))
    close(vlm.encode_prompts(context, ids), TINY_FAMILIES["siglip2"].reference(path).texts(texts))


def test_siglip_without_its_pooling_head(folders: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(folders("siglip"), tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    edit_json(path / "config.json", vision_config={**config["vision_config"], "vision_use_head": False})
    with pytest.raises(ModelError, match=r"has no pooling head \(vision_use_head\); choose another model"):
        load_vlm(path)


def test_blip_score_is_the_cosine(folders: Callable[[str], Path]) -> None:
    vlm: Any = load_vlm(folders("blip"))
    pixels, ids = vlm.pixels([Image.new("RGB", (40, 30), "red")] * 3), vlm.tokenize(TEXTS)
    theirs = vlm.model(use_itm_head=False, pixel_values=pixels, **vlm.inputs(ids)).itm_score
    close(cosine(vlm.project(vlm.pool(pixels)), vlm.encode_text(TEXTS)), theirs)


def test_blip_for_captions_is_refused(folders: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(folders("blip"), tmp_path / "model")
    edit_json(path / "config.json", architectures=["BlipForConditionalGeneration"])
    with pytest.raises(ModelError, match=r"contrastive heads .* is a BlipForConditionalGeneration; choose another"):
        load_vlm(path)


# ---------------------------------------------------------------------------------------------------------------- ALBEF


@pytest.fixture
def albef(folders: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders("albef"), tmp_path / "model"))


@pytest.mark.parametrize("nested", [True, False])
def test_albef_as_it_is_published(nested: bool, albef: Path, folders: Callable[[str], Path]) -> None:
    """With what else training saved, or as the bare weights; fine-tuned ones have no `bert.` in their names."""
    state = load_file(albef / "albef.safetensors")
    (albef / "albef.safetensors").unlink()
    if not nested:
        state = {key.replace("text_encoder.bert.", "text_encoder."): value for key, value in state.items()}
    saved = {"model": state, "epoch": 29, "config": {"queue_size": 8}, "optimizer": {"state": {}}}
    torch.save(saved if nested else state, albef / "checkpoint_29.pth")
    assert load_vlm(albef).fingerprint == load_vlm(folders("albef")).fingerprint


def test_albef_needs_no_more_than_its_kind_in_the_configuration() -> None:
    config = albef_configuration({"model_type": "albef"})
    vision, text = config.vision_config, config.text_config
    assert (vision.image_size, vision.patch_size, vision.hidden_size, vision.num_hidden_layers) == (256, 16, 768, 12)
    assert (text.num_hidden_layers, text.hidden_size, text.vocab_size, config.projection_dim) == (6, 768, 30522, 256)
    assert vision.layer_norm_eps == 1e-6 and text.layer_norm_eps == 1e-12
    assert albef_configuration({"image_size": 384}).vision_config.image_size == 384


def test_albef_of_another_image_size(albef: Path) -> None:
    edit_json(albef / "config.json", image_size=64)
    with pytest.raises(ModelError, match=r"another shape than its config.json says, such as .*position_embeddings"):
        load_vlm(albef)


def test_albef_with_two_files_of_weights_or_none_inside(albef: Path) -> None:
    torch.save({"model": {"epoch": 3}}, albef / "other.pth")
    with pytest.raises(ModelError, match=r"expected one file of weights .* found albef.safetensors, other.pth"):
        load_vlm(albef)
    (albef / "albef.safetensors").unlink()
    with pytest.raises(ModelError, match="to hold weights by name, or such under 'model'; get it again"):
        load_vlm(albef)


# ------------------------------------------------------------------------------------------------------------ open_clip


def test_open_clip_from_a_file_and_by_prefix(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folders("open_clip")
    assert load_vlm(f"open_clip:{folder}").fingerprint == load_vlm(folder).fingerprint
    open_clip = pytest.importorskip("open_clip")
    settings = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-of-a-test.json").write_text(json.dumps(settings))
    open_clip.add_model_config(tmp_path)
    vlm: Any = load_vlm(f"open_clip:tiny-of-a-test/{folder}/open_clip_model.safetensors")
    own: Any = load_vlm(folder)
    assert torch.equal(vlm.encode_text(TEXTS), own.encode_text(TEXTS))
    assert vlm.model.visual.preprocess_cfg["mean"] != own.model.visual.preprocess_cfg["mean"], "a file has no settings"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-32/openia", r'file or one of openai, .* after "open_clip:ViT-B-32/".*did you mean "openai"'),
        ("open_clip:ViT-B-32", 'got ""'),
        ("open_clip:./nowhere", "expected a model folder or a Hub id"),
        (
            "open_clip:someone/some-model",
            "the Hub cannot be reached, and this machine has no files .* of someone/some-model",
        ),
        ("open_clip:roberta-ViT-B-32/FILE", "text encoder of its own, that of .* is roberta-base; choose another"),
        ("open_clip:coca_ViT-B-32/FILE", "text encoder of its own, that of .* is one that generates; choose another"),
    ],
)
def test_names_of_open_clip(name: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ModelError, match=message) as caught:
        load_vlm(name.replace("FILE", str(tmp_path / "weights.pt")))
    assert "\n" not in str(caught.value)


def test_open_clip_of_pictures_that_are_not_square(folders: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(folders("open_clip"), tmp_path / "model")
    settings = json.loads((path / "open_clip_config.json").read_text())["model_cfg"]
    settings["vision_cfg"]["image_size"] = [32, 48]
    edit_json(path / "open_clip_config.json", model_cfg=settings)

    def longer(weights: dict[str, Tensor]) -> None:
        weights["visual.positional_embedding"] = torch.zeros(1 + 2 * 3, weights["visual.positional_embedding"].shape[1])

    edit_family_weights(path, TINY_FAMILIES["open_clip"], longer)
    with pytest.raises(ModelError, match=r"expected a model of square images, .* takes .*32, 48.*another model"):
        load_vlm(path)


def test_open_clip_with_a_configuration_of_its_future(folders: Callable[[str], Path], tmp_path: Path) -> None:
    path = shutil.copytree(folders("open_clip"), tmp_path / "model")
    settings = json.loads((path / "open_clip_config.json").read_text())["model_cfg"]
    edit_json(path / "open_clip_config.json", model_cfg={**settings, "new_setting": 1})
    with pytest.raises(ModelError, match=r"no usable configuration \(open_clip_config.json\): .*new_setting"):
        load_vlm(path)


def test_open_clip_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for name in ("open_clip:laion/some-model", str(tmp_path)):
        with pytest.raises(ModelError, match=r"needs the open_clip library; pip install 'labelsieve\[open-clip\]'"):
            load_vlm(name)


def test_a_folder_of_both_kinds_is_loaded_by_transformers(folders: Callable[[str], Path], tmp_path: Path) -> None:
    both = shutil.copytree(folders("clip"), tmp_path / "model")
    (both / "open_clip_config.json").write_text("{}")
    assert type(load_vlm(both)) is FAMILIES["clip"]
