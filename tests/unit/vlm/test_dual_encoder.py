"""Dual encoders of `transformers`: encoders of many kinds, the modules they take, classifiers of them, bad folders."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import ModelError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.training.autoconfig import resolve
from labelsieve.finetune.backbones import load_backbone
from labelsieve.pipeline import scan
from labelsieve.vlm.families.registry import DUAL_ENCODER
from labelsieve.vlm.loading import load_vlm
from labelsieve.vlm.peft.base import build_peft, is_compatible
from labelsieve.vlm.peft.registry import PEFT
from labelsieve.vlm.peft.target_layers import ModuleSpec
from slow_cases import mostly_slow
from small_families import DIM, SIDE, TEXT_ENCODERS, dual_reference, make_dual_encoder
from small_models import edit_json, edit_weights

TEXTS = ["a photo of a cat.", "tree", "an image of a cup and two boats."]
CLASSES = ("red", "green", "blue")
WITHOUT_BLOCKS = {"none", "bitfit", "full"}
EVERY = set(PEFT)
# What goes with each image encoder: LoRA wants query and value as layers of their own; positions that are counted from
# one length, or windows of another number of tokens in each stage, have no room for visual prompts.
TAKES = {
    "vit": EVERY,
    "clip": EVERY,
    "dinov2": EVERY,
    "beit": EVERY - {"vpt-deep", "vpt-shallow"},
    "dinov3": EVERY - {"vpt-deep", "vpt-shallow", "full-paper"},
    "swin": WITHOUT_BLOCKS | {"lora", "adapter", "ssf"},
    "convnext": WITHOUT_BLOCKS,
    "resnet": WITHOUT_BLOCKS,
    "timm": WITHOUT_BLOCKS,
    "timm vit": EVERY - {"lora"},
}

Folders = Callable[..., Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Returns a function that makes the folder of a model once. Copy it to change it."""
    made: dict[tuple[str, str], Path] = {}

    def folder(image: str = "vit", text: str = "bert") -> Path:
        if (image, text) not in made:
            made[image, text] = tmp_path_factory.mktemp("model")
            make_dual_encoder(made[image, text], image=image, text=text)
        return made[image, text]

    return folder


@pytest.fixture(scope="module")
def loaded(folders: Folders) -> Callable[[str], Any]:
    """Returns a function that loads the model with an image encoder once; nothing may stay attached to it."""
    return cache(lambda image: load_vlm(folders(image)))


@pytest.fixture
def copy(folders: Folders, tmp_path: Path) -> Folders:
    return lambda *kinds: Path(shutil.copytree(folders(*kinds), tmp_path / "model"))


def pixels(count: int = 2) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.detach().abs().max()))
    assert (theirs[0] - theirs[1]).abs().max() > 1e-2, "they differ"


def edit_part(folder: Path, part: str, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", **{part: {**config[part], **changes}})


# ------------------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize(
    "text", mostly_slow([kind for kind in TEXT_ENCODERS if kind != "distilbert"], quick={"bert", "roberta"})
)
def test_every_text_encoder_gives_the_features_of_the_library(text: str, folders: Folders) -> None:
    folder = folders("vit", text)
    vlm: Any = load_vlm(folder)
    theirs = dual_reference(folder).texts
    equal(vlm.encode_text(TEXTS), theirs(TEXTS))
    context = vlm.embed_words("a photo of a")
    assert context.shape == (len(context), vlm.text_width)
    ids, _ = vlm.tokenize_names(["cat", "sail_boat"], context_tokens=len(context))
    equal(vlm.encode_prompts(context, ids), theirs(["a photo of a cat.", "a photo of a sail boat."]))
    positions = 38 if text in ("roberta", "mpnet") else 40
    assert vlm.context_length == positions, "RoBERTa and MPNet have two positions less than their table"
    assert torch.isfinite(vlm.encode_text(["cat " * 60])).all()


@pytest.mark.parametrize("image", mostly_slow(TAKES, quick={"clip", "timm vit"}))
def test_every_image_encoder(image: str, folders: Folders, loaded: Callable[[str], Any]) -> None:
    """Its features are the library's, and it is known beforehand which modules it takes."""
    vlm = loaded(image)
    whole: Any = transformers.VisionTextDualEncoderModel.from_pretrained(folders(image)).eval()
    pooled = whole.vision_model(pixel_values=pixels()).pooler_output.flatten(1)  # the library forgets that of ResNets
    equal(vlm.project(vlm.pool(pixels())), whole.visual_projection(pooled))
    assert {kind for kind in PEFT if is_compatible(kind, vlm)} == TAKES[image]
    assert bool(vlm.patch_size) == bool(len(vlm.vision_layers))
    for kind in EVERY - TAKES[image]:
        with pytest.raises(SettingsError, match=f"^peft {kind} .*; use peft none, ") as caught:
            build_peft(ModuleSpec(kind), vlm)
        assert str(caught.value).split("; use peft ")[1].split(", ") == [one for one in PEFT if one in TAKES[image]]


def test_stored_in_half_precision_it_computes_in_single(copy: Folders) -> None:
    folder = copy("timm")
    model: Any = transformers.VisionTextDualEncoderModel.from_pretrained(folder, dtype=torch.float16)
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    vlm: Any = load_vlm(folder)
    values = [*vlm.model.parameters(), *vlm.model.buffers()]
    assert {value.dtype for value in values if value.is_floating_point()} == {torch.float32}
    equal(vlm.pool(pixels()), model.float().eval().vision_model(pixel_values=pixels()).pooler_output)
    backbone = load_backbone(str(folder), CLASSES)
    assert {value.dtype for value in backbone.model.parameters()} == {torch.float32}


# ------------------------------------------------------------------------------------------------------ what auto means


def engine_on(device: str, out: io.StringIO) -> Engine:
    """An engine of which the choices need the kind of its device only."""
    engine = make_engine(device="cpu", precision="fp32", progress=Progress(Console(file=out, width=500)))
    return replace(engine, accelerator=SimpleNamespace(device=torch.device(device)))


FROZEN = DeFT(context_learns=False, negative_prompts=False, evidence="threshold")


@pytest.mark.parametrize(
    ("image", "detector", "chosen", "line"),
    [
        ("vit", DeFT(), "vpt-deep", "visual prompts, since there is an accelerator"),
        ("timm", DeFT(), "bitfit", "all biases .*, as .* takes no visual prompts, since there is an accelerator"),
        ("beit", DeFT(), "bitfit", "all biases .*, as .* takes no visual prompts, since there is an accelerator"),
        ("timm", FROZEN, "bitfit", "all biases .*, as .* takes no visual prompts; nothing else is left to train"),
    ],
)
def test_auto_chooses_what_works(
    image: str, detector: DeFT, chosen: str, line: str, loaded: Callable[[str], Any]
) -> None:
    out, vlm = io.StringIO(), loaded(image)
    assert resolve(detector, vlm, readable=30, engine=engine_on("cuda", out)).peft == chosen
    assert re.search(f"peft auto: {line}", out.getvalue())


def test_a_module_without_a_place_is_refused_before_images_are_read(
    loaded: Callable[[str], Any], images: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelsieve.pipeline.detector_inputs", lambda *_, **__: pytest.fail("read all images"))
    with pytest.raises(SettingsError, match=r"^peft lora does not know the blocks .*; use peft none, bitfit"):
        scan(images, loaded("timm"), detector=DeFT(peft="lora"))


@pytest.fixture
def images(drawn_folder: Path) -> LabelledImages:
    return load_images(drawn_folder)


# ------------------------------------------------------------------------------------------------------------ backbones


@pytest.mark.parametrize(
    "image", mostly_slow(["timm", "timm vit", "clip", "beit", "swin", "convnext", "resnet"], quick={"timm vit", "clip"})
)
def test_a_classifier_reads_the_feature_that_meets_texts(
    image: str, folders: Folders, loaded: Callable[[str], Any]
) -> None:
    vlm = loaded(image)
    backbone = load_backbone(str(folders(image)), CLASSES)
    with torch.inference_mode():
        equal(backbone.pool(pixels()), vlm.pool(pixels()))
    assert (backbone.image_size, backbone.vision_width) == (SIDE, vlm.vision_width)


@pytest.mark.parametrize("image", ["vit", "dinov2"])
def test_a_classifier_of_the_library_stands_for_an_encoder_with_a_pooler_of_its_own(
    image: str, folders: Folders
) -> None:
    whole: Any = transformers.VisionTextDualEncoderModel.from_pretrained(folders(image)).eval()
    backbone = load_backbone(str(folders(image)), CLASSES)
    with torch.inference_mode():
        hidden = whole.vision_model(pixel_values=pixels()).last_hidden_state
        found = backbone.pool(pixels())
    equal(found[:, : hidden.shape[2]], hidden[:, 0])


@pytest.mark.parametrize("image", ["vit", "convnext", "timm"])
def test_a_saved_classifier_is_a_standard_one(image: str, folders: Folders, tmp_path: Path) -> None:
    backbone = load_backbone(str(folders(image)), CLASSES)
    torch.nn.init.normal_(backbone.head.weight)
    backbone.model.save_pretrained(tmp_path / "m")
    model: Any = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    assert model.config.id2label == dict(enumerate(CLASSES))
    with torch.inference_mode():
        equal(model(pixel_values=pixels()).logits, backbone.logits(pixels()))


# ---------------------------------------------------------------------------------------------------------- bad folders


def _without(*ends: str) -> Callable[[Path], None]:
    def change(weights: dict[str, Tensor]) -> None:
        for key in [key for key in weights if key.endswith(ends)]:
            del weights[key]

    return lambda folder: edit_weights(folder, change)


def _pool_not(folder: Path) -> None:
    edit_part(folder, "vision_config", do_pooling=False)


def _projection_of(width: int) -> Callable[[Path], None]:
    """Weights and configuration agree on a width that the encoder does not have."""

    def change(folder: Path) -> None:
        edit_part(folder, "vision_config", hidden_size=width)
        weights = load_file(folder / "model.safetensors")
        weights["visual_projection.weight"] = torch.ones(DIM, width)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def _narrow_text(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({"text_projection.weight": torch.ones(8, 32)}))


def _lose_entry(part: str, key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config[part][key]
        edit_json(folder / "config.json", **config)

    return change


BAD: dict[str, tuple[tuple[str, str], Callable[[Path], None], str]] = {
    "no pooler": (("vit", "distilbert"), lambda _: None, r"text encoder of .* \(distilbert\) has no pooled output"),
    "no pooling": (("timm", "bert"), _pool_not, r"image encoder of .* \(timm_wrapper\) has no pooled output"),
    "pooler lost": (
        ("vit", "bert"),
        _without("text_model.pooler.dense.weight", "text_model.pooler.dense.bias"),
        r"incomplete, 2 missing such as text_model\.pooler\.dense\.bias; get them again",
    ),
    "projection lost": (
        ("vit", "bert"),
        _without("visual_projection.weight", "logit_scale"),
        "incomplete, 2 missing such as logit_scale; get them again",
    ),
    "projections of two widths": (
        ("vit", "bert"),
        lambda folder: edit_weights(
            folder, lambda weights: weights.update({"text_projection.weight": torch.ones(8, 32)})
        ),
        "1 weights of .* have another shape than its config.json says, such as text_projection.weight",
    ),
    "another projection_dim": (
        ("vit", "bert"),
        lambda folder: edit_json(folder / "config.json", projection_dim=8),
        "2 weights of .* have another shape than its config.json says, such as text_projection.weight",
    ),
    "another width": (("timm", "bert"), _projection_of(100), r"to give features of width 100, .* got shape \(1, 256\)"),
    "no width": (
        ("timm", "bert"),
        _lose_entry("vision_config", "hidden_size"),
        r"does not say the hidden_size of its image encoder \(timm_wrapper\) in vision_config",
    ),
    "no such kind": (
        ("vit", "bert"),
        lambda folder: edit_part(folder, "vision_config", model_type="nonsense"),
        r"no usable configuration \(config.json\): Unrecognized model type for subconfig: nonsense",
    ),
    "a text encoder for the images": (
        ("vit", "bert"),
        lambda folder: edit_part(folder, "text_config", model_type="siglip_text_model"),
        "text encoder of .* is of kind siglip_text_model, which cannot stand in a VisionTextDualEncoderModel",
    ),
    "another processor": (
        ("vit", "bert"),
        lambda folder: edit_json(folder / "preprocessor_config.json", size={"height": 48, "width": 48}),
        r"\(vit\) does not take the 48 x 48 images that its image processor makes: .*copy the preprocessor_config.json",
    ),
    "no such timm model": (
        ("timm", "bert"),
        lambda folder: edit_part(folder, "vision_config", architecture="hf-hub:no/such-net"),
        "^timm .* has no hf-hub:no/such-net, which the image encoder of .* is; update timm, or choose another model",
    ),
}


def test_bad_folders_give_one_clear_line(folders: Folders, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for number, (what, (kinds, change, message)) in enumerate(BAD.items()):
        with subtests.test(what):
            bad = shutil.copytree(folders(*kinds), tmp_path / str(number))
            change(bad)
            with pytest.raises(ModelError, match=message) as caught:
                load_vlm(bad)
            text = str(caught.value)
            assert "\n" not in text and len(text.replace(str(bad), "")) < 300, text


@pytest.mark.parametrize("what", ["projection lost", "no pooling", "no width", "another width", "another processor"])
def test_bad_folders_are_no_backbones(what: str, copy: Folders) -> None:
    kinds, change, message = BAD[what]
    bad = copy(*kinds)
    change(bad)
    with pytest.raises(ModelError, match=message):
        load_backbone(str(bad), CLASSES)


def test_an_encoder_without_a_classifier_is_told(copy: Folders) -> None:
    folder = copy("dinov3")
    with pytest.raises(ModelError, match="is of kind dinov3_vit, which transformers has no image classifier for"):
        load_backbone(str(folder), CLASSES)


def test_code_of_an_encoder_never_runs_and_nobody_is_asked(copy: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy()
    mark = folder / "mark"
    monkeypatch.setattr("builtins.input", lambda *_prompt: "y")
    (folder / "code.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom transformers import ViTModel as Own\n")
    own = {"AutoModel": "code.Own", "AutoConfig": "code.Own"}
    edit_part(folder, "vision_config", auto_map=own)
    assert load_vlm(folder).vision_width == 32
    edit_part(folder, "vision_config", auto_map=own, model_type="siglip_text_model")
    with pytest.raises(ModelError, match=r"image encoder of .* is of kind siglip_text_model"):
        load_vlm(folder)
    assert not mark.exists()


def test_another_kind_of_model_is_told_of_this_one(copy: Folders) -> None:
    folder = copy()
    edit_json(folder / "config.json", model_type="bert")
    with pytest.raises(ModelError, match=f"model of kind clip, .*{DUAL_ENCODER}, .* is of kind bert"):
        load_vlm(folder)
