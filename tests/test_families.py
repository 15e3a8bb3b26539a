"""What holds for every family of models: features are the library's own, prompts and modules work, bad folders do not.

Every entry of `ADAPTERS` is tested by existing: `FAMILIES` has to have a tiny model of each.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import labelsieve as ls
from labelsieve.data.images import LabelledImages
from labelsieve.errors import ModelError, SettingsError
from labelsieve.vlm.huggingface import ADAPTERS, load_vlm
from labelsieve.vlm.peft.base import build_peft
from small_families import FAMILIES, Family, Reference, edit_family_weights
from small_models import edit_json

NAMES = ["Cat", "sail_boat", "a cup of tea"]
PLAIN = ["cat", "sail boat", "a cup of tea"]
TEXTS = ["a photo of a cat.", "tree", "an image of a cup and two boats."]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that makes the folder of a family once. Copy it to change it."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        for module in FAMILIES[name].needs:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")
        if name not in made:
            made[name] = tmp_path_factory.mktemp("family") / name.replace(" ", "_")
            made[name].mkdir()
            FAMILIES[name].make(made[name])
        return made[name]

    return folder


@pytest.fixture(scope="module", params=list(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def family(name: str) -> Family:
    return FAMILIES[name]


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
    assert {family.kind for family in FAMILIES.values()} == set(ADAPTERS)


# ------------------------------------------------------------------------------------------------------------- features


def test_what_a_model_says_of_itself(vlm: Any, family: Family, folder: Path, reference: Reference) -> None:
    assert type(vlm) is ADAPTERS[family.kind]
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
    assert not vlm.words._forward_hooks and vlm.words.weight.grad is None
    assert torch.equal(vlm.encode_text(["a cat."]), before)


def test_long_names_are_shortened_and_told(vlm: Any) -> None:
    long = "cat " * vlm.context_length
    ids, shortened = vlm.tokenize_names(["cup", long], context_tokens=4)
    assert shortened == [long] and ids.shape == (2, vlm.context_length)
    start, end = vlm.frame()
    assert end and ids[1, : len(start)].tolist() == start and ids[1, -len(end) :].tolist() == end
    assert torch.isfinite(vlm.encode_prompts(torch.randn(4, vlm.text_width), ids)).all()
    with pytest.raises(ModelError, match=rf"bears {vlm.context_length} tokens: no room for a class name"):
        vlm.tokenize_names(["cat"], context_tokens=vlm.context_length)


# ------------------------------------------------------------------------------------------------- modules on the tower


@pytest.mark.parametrize("kind", ["vpt-deep", "vpt-shallow"])
def test_visual_prompts(vlm: Any, family: Family, pixels: Tensor, kind: str) -> None:
    def build(tokens: int) -> Any:
        return build_peft(kind, vlm, tokens=tokens, generator=torch.Generator().manual_seed(0))

    if not family.transformer:
        with pytest.raises(SettingsError, match=f"--peft {kind} needs a vision transformer.*use --peft none$"):
            build(5)
        return
    before = vlm.pool(pixels)
    assert build(0) is None, "without tokens nothing is attached"
    module = build(5)
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
    assert torch.equal(vlm.pool(pixels), before), "detached, the tower is as it was"
    assert all(value.grad is None for value in vlm.model.parameters())


# ----------------------------------------------------------------------------------------------------------------- scan


@pytest.fixture(scope="module")
def images(drawn_folder: Path) -> LabelledImages:
    return ls.load_images(drawn_folder)


@pytest.mark.parametrize("peft", ["none", "vpt-deep"])
def test_scan(vlm: Any, family: Family, images: LabelledImages, peft: Any) -> None:
    detector = ls.DeFT(epochs=1, min_steps=0, warmup_epochs=0, peft=peft, visual_prompts=2, batch_size=16)
    if peft != "none" and not family.transformer:
        with pytest.raises(SettingsError, match="use --peft none"):
            ls.scan(images, vlm, detector=detector, device="cpu", precision="fp32")
        return
    verdicts = ls.scan(images, vlm, detector=detector, device="cpu", precision="fp32")
    quality = verdicts.table["label_quality"].to_numpy()
    assert len(quality) == 32 and np.isfinite(quality).all() and len(np.unique(quality)) > 1
    assert verdicts.record["model"]["fingerprint"] == vlm.fingerprint


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
    """Puts in a tokenizer whose words the text tower has no embeddings for."""
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
    if family.kind not in ("siglip2", "albef", "open_clip"):  # theirs follow from the model
        size = {"height": 48, "width": 48}
        found["processor of another model"] = (
            lambda folder: edit_json(folder / "preprocessor_config.json", size=size, crop_size=size),
            r"to give pixels of shape \(1, 3, \d+, \d+\), got \(1, 3, 48, 48\); copy",
        )
    return found


@pytest.mark.parametrize(("name", "what"), [(name, what) for name in FAMILIES for what in cases(FAMILIES[name])])
def test_bad_folders_give_one_clear_line(
    name: str, what: str, folders: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, message = cases(FAMILIES[name])[what]
    bad = shutil.copytree(folders(name), tmp_path / "model")
    change(bad)
    with pytest.raises(ModelError, match=message) as caught:
        load_vlm(bad)
    text = str(caught.value)
    assert "\n" not in text and str(bad) in text
    assert len(text.replace(str(bad), "")) < 300, text
