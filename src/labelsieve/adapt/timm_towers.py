"""Vision towers of vision-language models as classifiers that read the very feature that is compared with texts.

`CLIPForImageClassification` and `SiglipForImageClassification` average the patch tokens, which the models were never
trained to say anything with; for BLIP there is no such class. The paper puts its linear head on CLIP's own feature: the
class token after the last layer norm. `timm` has these towers as image classifiers, and `transformers` loads `timm`
models by `AutoModelForImageClassification` like its own.

A new kind of tower is one line in `TOWERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from labelsieve.errors import ModelError
from labelsieve.vlm.reading import quiet_loading, read_weights

Weights = Mapping[str, Tensor]
Renamed = Iterator[tuple[str, Tensor]]

_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class TowerKind:
    """How a vision tower of `transformers` becomes one of `timm`.

    Attributes:
        reader: The class of `transformers` that reads the whole model.
        architectures: Activation and epsilon of the layer norms to the `timm` model that has them; all sizes are given.
        rename: Yields the weights of the tower under the names of `timm`, given its number of blocks.
        options: What else the `timm` model is told.
        feature: Picks the feature out of what the tower returns.
    """

    reader: str
    architectures: Mapping[tuple[str, float], str]
    rename: Callable[[Weights, int], Renamed]
    options: Mapping[str, Any] = field(default_factory=dict)
    feature: Callable[[Any], Tensor] = lambda output: output.pooler_output


def _pair(new: str, old: str, weights: Weights) -> Renamed:
    for part in ("weight", "bias"):
        yield f"{new}.{part}", weights[f"{old}.{part}"]


def _patches(weights: Weights) -> Renamed:
    """Yields the patch embedding, whose bias not every tower has, and the positions."""
    for part in ("weight", "bias"):
        if f"embeddings.patch_embedding.{part}" in weights:
            yield f"patch_embed.proj.{part}", weights[f"embeddings.patch_embedding.{part}"]
    (name,) = (name for name in weights if name.startswith("embeddings.position_embedding"))
    yield "pos_embed", weights[name].reshape(1, *weights[name].shape[-2:])


def _blocks(weights: Weights, depth: int, *, out: str) -> Renamed:
    for index in range(depth):
        new, old = f"blocks.{index}", f"encoder.layers.{index}"
        if f"{old}.self_attn.qkv.weight" in weights:
            yield from _pair(f"{new}.attn.qkv", f"{old}.self_attn.qkv", weights)
        else:
            for part in ("weight", "bias"):
                fused = [weights[f"{old}.self_attn.{one}_proj.{part}"] for one in "qkv"]
                yield f"{new}.attn.qkv.{part}", torch.cat(fused)
        yield from _pair(f"{new}.attn.proj", f"{old}.self_attn.{out}", weights)
        for name, own in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("mlp.fc1",) * 2, ("mlp.fc2",) * 2):
            yield from _pair(f"{new}.{name}", f"{old}.{own}", weights)


def _of_clip(weights: Weights, depth: int) -> Renamed:
    yield "cls_token", weights["embeddings.class_embedding"].view(1, 1, -1)
    yield from _patches(weights)
    yield from _pair("norm_pre", "pre_layrnorm", weights)
    yield from _blocks(weights, depth, out="out_proj")
    yield from _pair("norm", "post_layernorm", weights)


def _of_blip(weights: Weights, depth: int) -> Renamed:
    yield "cls_token", weights["embeddings.class_embedding"]
    yield from _patches(weights)
    yield from _blocks(weights, depth, out="projection")
    yield from _pair("norm", "post_layernorm", weights)


def _of_siglip(weights: Weights, depth: int) -> Renamed:
    yield from _patches(weights)
    yield from _blocks(weights, depth, out="out_proj")
    yield from _pair("norm", "post_layernorm", weights)
    yield "attn_pool.latent", weights["head.probe"]
    for part in ("weight", "bias"):
        query, key_and_value = weights[f"head.attention.in_proj_{part}"].tensor_split([weights["head.probe"].shape[-1]])
        yield f"attn_pool.q.{part}", query
        yield f"attn_pool.kv.{part}", key_and_value
    for new, old in (("proj", "attention.out_proj"), ("norm", "layernorm"), ("mlp.fc1",) * 2, ("mlp.fc2",) * 2):
        yield from _pair(f"attn_pool.{new}", f"head.{old}", weights)


_CLIP = {
    ("quick_gelu", 1e-5): "vit_base_patch16_clip_quickgelu_224",
    ("gelu", 1e-5): "vit_base_patch16_clip_224",
}
_SIGLIP = {("gelu_pytorch_tanh", 1e-6): "vit_base_patch16_siglip_224"}

TOWERS = {
    "clip": TowerKind(reader="CLIPModel", architectures=_CLIP, rename=_of_clip),
    "clip_vision_model": TowerKind(reader="CLIPVisionModel", architectures=_CLIP, rename=_of_clip),
    "altclip": TowerKind(reader="AltCLIPModel", architectures=_CLIP, rename=_of_clip),
    "chinese_clip": TowerKind(reader="ChineseCLIPModel", architectures=_CLIP, rename=_of_clip),
    "siglip": TowerKind(
        reader="SiglipModel", architectures=_SIGLIP, rename=_of_siglip, options={"act_layer": "gelu_tanh"}
    ),
    "siglip_vision_model": TowerKind(
        reader="SiglipVisionModel", architectures=_SIGLIP, rename=_of_siglip, options={"act_layer": "gelu_tanh"}
    ),
    "blip": TowerKind(
        reader="BlipForImageTextRetrieval",
        architectures=_CLIP,
        rename=_of_blip,
        options={"pre_norm": False},
        feature=lambda output: output.last_hidden_state[:, 0],
    ),
}
"""By the model type of the configuration."""


def read_tower(name: str, config: Any, class_names: Mapping[int, str], options: dict[str, Any]) -> Any:
    """Reads a vision tower and returns it as a classifier with a head of zeros.

    Args:
        name: Hub id or local folder.
        config: Its configuration, of a type in `TOWERS`.
        class_names: Index to name.
        options: From :func:`labelsieve.vlm.reading.loader_options`.

    Raises:
        ModelError: The weights are missing, broken or not finite, or the tower is not one that `timm` has.
    """
    import transformers

    kind, vision = TOWERS[config.model_type], getattr(config, "vision_config", config)
    traits = (vision.hidden_act, vision.layer_norm_eps)
    if traits not in kind.architectures:
        raise ModelError(
            f"the vision tower of {name} is not quite a {config.model_type} (activation {traits[0]}, epsilon "
            f"{traits[1]:g}) and cannot be made a classifier; choose another --backbone"
        )
    source = read_weights(name, getattr(transformers, kind.reader), config, options).eval()
    tower = getattr(source, "vision_model", source)
    settings = transformers.TimmWrapperConfig(
        architecture=kind.architectures[traits],
        model_args={
            "img_size": vision.image_size,
            "patch_size": vision.patch_size,
            "embed_dim": vision.hidden_size,
            "depth": vision.num_hidden_layers,
            "num_heads": vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            **kind.options,
        },
        id2label=dict(class_names),
        label2id={label: index for index, label in class_names.items()},
    )
    with quiet_loading(), torch.random.fork_rng(devices=[]):  # whatever it is filled with at first
        model = transformers.TimmWrapperForImageClassification(settings).eval()
    with torch.no_grad():
        renamed = dict(kind.rename(tower.state_dict(), vision.num_hidden_layers))
        model.timm_model.load_state_dict(renamed, strict=False)  # only the head is not among them
        model.timm_model.head.weight.zero_()
        model.timm_model.head.bias.zero_()
    _check_same(kind, tower, model, vision.image_size, name)
    return model


def _check_same(kind: TowerKind, tower: Any, model: Any, size: int, name: str) -> None:
    """Makes sure that the classifier reads the very feature that the tower gives."""
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = kind.feature(tower(pixel_values=picture))
        found = model.timm_model.forward_head(model.timm_model.forward_features(picture), pre_logits=True)
    off = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not off < _TOLERANCE:
        raise ModelError(
            f"the vision tower of {name} computes something else than a {tower.config.model_type} (off by {off:.1g}) "
            "and cannot be made a classifier; choose another --backbone"
        )
