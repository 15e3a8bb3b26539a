"""Vision encoders of ALBEF, open_clip, NaFlex SigLIP 2 and dual encoders as backbones: same pictures, same feature."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import labelsieve as ls
from labelsieve.core.errors import ModelError
from labelsieve.data.loading import load_images
from labelsieve.detect.scores import Scores
from labelsieve.finetune.backbones import Backbone, load_backbone
from labelsieve.finetune.result import model_card
from labelsieve.finetune.settings import Adaptation
from labelsieve.finetune.timm_encoders import IMAGE_ENCODERS
from labelsieve.verdicts import decide
from labelsieve.vlm.families.registry import DUAL_ENCODER, FAMILIES
from labelsieve.vlm.loading import load_vlm
from slow_cases import mostly_slow
from small_families import (
    OPEN_CLIP,
    SIDE,
    TEXT,
    make_albef,
    make_dual_encoder,
    make_open_clip,
    make_open_clip_resnet,
    make_open_clip_siglip,
    make_siglip2,
    save_processor,
)
from small_models import edit_json

CLASSES = ("red", "green", "blue")
Folders = Callable[[str], Path]


def of_open_clip(**vision: Any) -> Callable[[Path], None]:
    """An open_clip ViT with other entries of vision_cfg."""
    return lambda folder: make_open_clip(folder, vision_cfg={**OPEN_CLIP["vision_cfg"], **vision})


def of_timm(model: str, width: int, **vision: Any) -> Callable[[Path], None]:
    """An open_clip model whose image encoder is of timm."""
    settings = {"timm_model_name": model, **vision}
    text = {**OPEN_CLIP["text_cfg"], "width": width}
    return lambda folder: make_open_clip(folder, embed_dim=width, vision_cfg=settings, text_cfg=text)


def make_resnet(folder: Path) -> None:
    """An open_clip ResNet-50 of an eighth of the width, with statistics and weights under which every block counts."""
    import open_clip

    vision = {"image_size": 64, "layers": [3, 4, 6, 3], "width": 8, "head_width": 64}
    make_open_clip(folder, vision_cfg=vision)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            drawn: Any = ((module.weight.data, 1.5), (module.running_mean, -0.5), (module.running_var, 0.5))
            for value, least in drawn:
                value.uniform_(least, least + 1, generator=generator)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


MODELS: dict[str, Callable[[Path], None]] = {
    "albef": make_albef,
    "siglip2": make_siglip2,
    "open_clip": make_open_clip,
    "quickgelu": lambda folder: make_open_clip(folder, quick_gelu=True),
    "clipa": of_open_clip(no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
    "average": of_open_clip(pool_type="avg"),
    "layer scale": of_open_clip(ls_init_value=0.1),
    "timm": make_open_clip_siglip,
    "timm, map": of_timm("test_vit3", 96, image_size=160, timm_pool="map", timm_proj="none"),
    "timm, own head": of_timm("test_convnext", 32, image_size=SIDE, timm_pool="avg", timm_proj=None),
    "resnet": make_resnet,
    "dual encoder": lambda folder: make_dual_encoder(folder, image="timm"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Returns a function that gives the folder of a tiny model, made once. Copy it to change it."""
    pytest.importorskip("open_clip")
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("model")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(made[kind])
                MODELS[kind](made[kind])
        return made[kind]

    return folder


def photos(*, sizes: Any = ((40, 30), (500, 373), (300, 200), (SIDE, SIDE))) -> list[Image.Image]:
    """Smooth pictures with some noise, of several shapes."""
    rng = np.random.default_rng(0)
    found = []
    for size in sizes:
        smooth = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth).astype(int) + rng.integers(-20, 20, (size[1], size[0], 3))
        found.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return found


def unprojected(vlm: Any, kind: str, pooled: Tensor) -> tuple[Tensor, Tensor]:
    """Brings a feature to where a model gives its own, which two of them project before they hand it out."""
    pixels = vlm.pixels(photos())
    if kind == "resnet":
        return vlm.model.visual.attnpool.c_proj(pooled), vlm.pool(pixels)
    if kind == "timm, own head":
        return vlm.model.visual.trunk.get_classifier()(pooled), vlm.pool(pixels)
    return pooled, vlm.pool(pixels)


@pytest.fixture(scope="module", params=mostly_slow(MODELS, quick={"open_clip", "timm", "dual encoder"}))
def both(request: pytest.FixtureRequest, folders: Folders) -> tuple[str, Any, Backbone]:
    """Every kind with its model and its backbone."""
    folder = folders(request.param)
    return request.param, load_vlm(folder), load_backbone(str(folder), CLASSES)


def test_the_feature_is_that_of_the_model(both: tuple[str, Any, Backbone]) -> None:
    kind, vlm, backbone = both
    assert backbone.image_size == vlm.image_size
    with torch.inference_mode():
        pixels = vlm.pixels(photos())
        found, expected = unprojected(vlm, kind, backbone.pool(pixels))
        assert (expected - expected.mean(dim=0)).abs().max() > 1e-3, "pictures differ"
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        assert backbone.pool(pixels).shape == (len(pixels), backbone.vision_width)
        assert not backbone.logits(pixels).any(), "the head is new"


def test_the_processor_makes_the_pictures_of_the_model(both: tuple[str, Any, Backbone]) -> None:
    """To two grey levels: torchvision resizes as Pillow does, but rounds another way."""
    _, vlm, backbone = both
    level = backbone.colours.matrix.diagonal().view(3, 1, 1) / 255
    off = ((backbone.pixels(photos()) - vlm.pixels(photos())) / level).abs()
    assert off.max() < 2.01 and off.mean() < 0.1
    plain = torch.rand(1, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone.normalise(plain), vlm.normalise(plain), rtol=0, atol=1e-5)


def test_the_middle_may_lie_one_pixel_beside_that_of_open_clip(folders: Folders) -> None:
    vlm: Any = load_vlm(folders("open_clip"))
    backbone, shown = load_backbone(str(folders("open_clip")), CLASSES), photos(sizes=((57, 91),))
    level = backbone.colours.matrix.diagonal().view(3, 1, 1) / 255
    off = ((backbone.pixels(shown)[:, :, 1:] - vlm.pixels(shown)[:, :, :-1]) / level).abs()
    assert off.max() < 1.01, "19 rows too many: 9.5 above, which one library rounds down and the other up"


@pytest.mark.parametrize(
    ("mode", "said"), [("squash", ""), ("longest", r"borders around them \(resize_mode longest\)")]
)
def test_the_ways_of_open_clip_to_make_pictures_square(mode: str, said: str, folders: Folders, tmp_path: Path) -> None:
    folder = copied(folders("open_clip"), tmp_path)
    settings = json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"]
    changes = {"resize_mode": mode, "interpolation": "bilinear"}
    edit_json(folder / "open_clip_config.json", preprocess_cfg={**settings, **changes})
    if said:
        with pytest.raises(ModelError, match=said):
            load_backbone(str(folder), CLASSES)
        return
    vlm: Any = load_vlm(folder)
    backbone, shown = load_backbone(str(folder), CLASSES), photos(sizes=((57, 91), (40, 30)))
    level = backbone.colours.matrix.diagonal().view(3, 1, 1) / 255
    assert ((backbone.pixels(shown) - vlm.pixels(shown)) / level).abs().max() < 1.01


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / "copy")
    return to / "copy"


# ---------------------------------------------------------------- from the scan to the pipeline


@pytest.mark.parametrize(
    ("kind", "prefix", "tune"),
    [
        ("open_clip", "open_clip:", "linear"),
        ("siglip2", "", "paper"),
        pytest.param("albef", "", "lora", marks=pytest.mark.slow),
        pytest.param("resnet", "open_clip:", "lora", marks=pytest.mark.slow),
        pytest.param("timm, own head", "", "bitfit", marks=pytest.mark.slow),
        pytest.param("dual encoder", "", "linear", marks=pytest.mark.slow),
    ],
)
def test_the_model_of_the_scan_becomes_a_standard_classifier(
    kind: str, prefix: str, tune: Any, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = [
        Image.new("RGB", (SIDE, SIDE), tuple(200 if own == row % 3 else row for own in range(3))) for row in range(9)
    ]
    images = load_images(drawn, labels=np.arange(9) % 3, class_names=CLASSES)
    quality = np.ones(9, dtype=np.float32)
    name = f"{prefix}{folders(kind)}"
    record = {"data": {"fingerprint": images.fingerprint}, "model": {"name": name}}
    verdicts = decide(images, Scores(label_quality=quality, predicted=images.labels, confidence=quality), record=record)
    settings = Adaptation(tune=tune, epochs=1, min_steps=0, batch_size=8)
    result = ls.adapt(
        images, verdicts, settings=settings, device="cpu", precision="fp32", out=tmp_path / "m", test=images
    )
    assert result.metrics["test"]["accuracy"] > 0.9, "plain colours"
    assert result.record["backbone"]["name"] == name and result.backbone.kind == "timm_wrapper"
    card = model_card(result)
    assert str(folders(kind).parent) not in card and "base_model" not in card
    for library in ("open_clip", "labelsieve"):  # from here on there is none
        monkeypatch.setitem(sys.modules, library, None)
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "m")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "m")
    assert model.config.id2label == dict(enumerate(CLASSES))
    with torch.inference_mode():
        inputs = processor(images=drawn, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(inputs, result.backbone.pixels(drawn), rtol=0, atol=0)
        logits, here = model(pixel_values=inputs).logits, result.backbone.logits(inputs)
    # convolutions have another memory layout here
    torch.testing.assert_close(logits, here, rtol=2e-5, atol=1e-5)
    classify = transformers.pipeline("image-classification", str(tmp_path / "m"), device="cpu")
    assert [answer[0]["label"] for answer in classify(drawn)] == [CLASSES[row] for row in logits.argmax(dim=1)]


def test_a_file_of_weights_is_a_backbone(folders: Folders, tmp_path: Path) -> None:
    import open_clip

    settings = json.loads((folders("open_clip") / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-for-backbones.json").write_text(json.dumps(settings))
    open_clip.add_model_config(tmp_path)
    name = f"open_clip:tiny-for-backbones/{folders('open_clip') / 'open_clip_model.safetensors'}"
    backbone, vlm = load_backbone(name, CLASSES), load_vlm(name)
    pixels = backbone.pixels(photos())
    with torch.inference_mode():
        torch.testing.assert_close(backbone.pool(pixels), vlm.pool(pixels), rtol=0, atol=1e-4)


# ---------------------------------------------------------------- what is refused


def test_every_family_is_a_backbone() -> None:
    assert set(FAMILIES) <= {*IMAGE_ENCODERS, DUAL_ENCODER}


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "pooler": (of_open_clip(attentional_pool=True), r"none of timm's \(see attentional_pool in its vision_cfg\)"),
    "blocks": (of_open_clip(qk_norm=True), r"see block_type in"),
    "activation": (of_open_clip(act_kwargs={"approximate": "tanh"}), r"see act_kwargs in"),
    "epsilon": (of_open_clip(norm_kwargs={"eps": 1e-3}), r"see norm_kwargs in"),
    "resnet": (make_open_clip_resnet, r"is a ResNet of \(1, 1, 1, 1\) blocks, none of those that timm has"),
    "pooling": (
        of_timm("test_convnext", 32, image_size=SIDE, timm_pool="abs_attn", timm_proj=None),
        r"pools its features as timm does not \(timm_pool abs_attn\)",
    ),
    "oblong": (of_open_clip(image_size=[32, 48]), r"expected a model of square images"),
}


@pytest.mark.parametrize("how", ODD)
def test_an_encoder_that_timm_has_not_is_told_in_one_line(how: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    make, said = ODD[how]
    make(tmp_path)
    with pytest.raises(ModelError, match=said) as caught:
        load_backbone(str(tmp_path), CLASSES)
    assert "\n" not in str(caught.value) and "choose another " in str(caught.value)


def test_heads_of_another_width_are_told(folders: Folders, tmp_path: Path) -> None:
    """What no setting tells apart is found by the feature."""
    folder = copied(folders("resnet"), tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    vision = {**config["vision_cfg"], "head_width": 32}
    edit_json(folder / "open_clip_config.json", model_cfg={**config, "vision_cfg": vision})
    with pytest.raises(
        ModelError, match=r"computes something else than timm's resnet50_clip \(off by .*another backbone"
    ):
        load_backbone(str(folder), CLASSES)


@pytest.mark.parametrize(
    ("kind", "key"), [("albef", "visual_encoder.norm.weight"), ("open_clip", "visual.ln_post.weight")]
)
def test_broken_weights_are_told(kind: str, key: str, folders: Folders, tmp_path: Path) -> None:
    folder = copied(folders(kind), tmp_path)
    (path,) = folder.glob("*.safetensors")
    for said in ("incomplete, 1 missing", "not finite"):
        weights = load_file(folders(kind) / path.name)
        if said == "not finite":
            weights[key].fill_(torch.nan)
        else:
            del weights[key]
        save_file(weights, path)
        with pytest.raises(ModelError, match=said) as caught:
            load_backbone(str(folder), CLASSES)
        assert "\n" not in str(caught.value)


def test_albef_of_another_activation_is_told(folders: Folders, tmp_path: Path) -> None:
    folder = copied(folders("albef"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", vision_config={**config["vision_config"], "hidden_act": "relu"})
    with pytest.raises(ModelError, match=r"is none of timm's \(activation relu, .*; choose another backbone"):
        load_backbone(str(folder), CLASSES)


@pytest.mark.parametrize("model", ["SiglipModel", "Siglip2Model"])
def test_an_encoder_without_a_pooling_head_is_told(model: str, folders: Folders, tmp_path: Path) -> None:
    folder = copied(folders("siglip2"), tmp_path)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.vision_config.vision_use_head = False
    if model == "SiglipModel":
        vision = {**TEXT, "image_size": SIDE, "patch_size": 16, "vision_use_head": False}
        config = transformers.SiglipConfig(text_config=config.text_config.to_dict(), vision_config=vision)
        save_processor(folder, "SiglipImageProcessor")
    getattr(transformers, model)(config).save_pretrained(folder)
    with pytest.raises(
        ModelError, match=r"has no head\.probe and cannot be made a classifier; choose another backbone"
    ):
        load_backbone(str(folder), CLASSES)


def test_no_such_open_clip_model(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(ModelError) as caught:
        load_backbone(f"open_clip:{tmp_path}", CLASSES)
    assert "no usable configuration (open_clip_config.json)" in str(caught.value)
