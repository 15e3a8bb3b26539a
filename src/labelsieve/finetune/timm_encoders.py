"""Image encoders of vision-language models as classifiers on the feature that is compared with texts.

`CLIPForImageClassification` and `SiglipForImageClassification` average the patch tokens, which the pre-training does
not use; for BLIP there is no such class. The paper puts its linear head on the image feature of CLIP: the class token
after the last layer norm. `timm` has these encoders as image classifiers, and `transformers` loads models of `timm` by
`AutoModelForImageClassification`.

A new kind of image encoder is one line in `IMAGE_ENCODERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from labelsieve.finetune.open_clip_encoders import read_open_clip
from labelsieve.finetune.timm_classifier import (
    RenamedWeights,
    TimmEncoder,
    Weights,
    rename_layer,
    unsupported_encoder,
)
from labelsieve.vlm.families import albef
from labelsieve.vlm.families.dual_encoder import pooled_images
from labelsieve.vlm.families.siglip2 import pool_square, square_side
from labelsieve.vlm.pretrained import CONFIGURATION, PROCESSOR, read_part, read_weights

Feature = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class EncoderKind:
    """Conversion of an image encoder of `transformers` to `timm`.

    Attributes:
        reader: The class of `transformers` that loads the whole model.
        architectures: Activation and epsilon of the layer norms to the name of the `timm` model; sizes are arguments.
        rename: Yields the weights of the image encoder with the names of `timm`, given its number of blocks.
        options: Other arguments of the `timm` model.
        feature: Computes the feature of pixels with the original encoder.
        size: Returns the side of the images, given the configuration.
        processor: Returns the processor, given the original one and the side of the images.
    """

    reader: str
    architectures: Mapping[tuple[str, float], str]
    rename: Callable[[Weights, int], RenamedWeights]
    options: Mapping[str, Any] = field(default_factory=dict)
    feature: Callable[[Any, Tensor], Tensor] = lambda encoder, pixels: encoder(pixel_values=pixels).pooler_output
    size: Callable[[Any], int] = lambda vision: vision.image_size
    processor: Callable[[Any, int], Any] = lambda original, _size: original

    def __call__(self, name: str, options: dict[str, Any]) -> TimmEncoder:
        """Reads the image encoder from a Hub id or local folder."""
        import transformers

        config = read_part(CONFIGURATION, name, transformers.AutoConfig.from_pretrained, options)
        processor = read_part(PROCESSOR, name, transformers.AutoImageProcessor.from_pretrained, options)
        vision = getattr(config, "vision_config", config)
        _architecture(self.architectures, vision, name)  # before all weights are read
        source = read_weights(name, getattr(transformers, self.reader), config, options).eval()
        encoder = getattr(source, "vision_model", source)
        return self.convert(encoder, vision, processor, lambda pixels: self.feature(encoder, pixels), name)

    def convert(self, encoder: Any, vision: Any, processor: Any, feature: Feature, name: str) -> TimmEncoder:
        """Converts a loaded image encoder.

        Args:
            encoder: The module with embeddings and blocks.
            vision: Its configuration.
            processor: Its image processor.
            feature: Computes its feature of pixels.
            name: Name of the model, for the errors.
        """
        architecture, size = _architecture(self.architectures, vision, name), self.size(vision)
        try:
            weights = dict(self.rename(encoder.state_dict(), vision.num_hidden_layers))
        except KeyError as error:
            raise unsupported_encoder(name, f"has no {error.args[0]}") from error
        return TimmEncoder(
            architecture=architecture,
            options={**_sizes(vision, size), **self.options},
            weights=weights,
            feature=feature,
            size=size,
            processor=self.processor(processor, size),
        )


def _architecture(architectures: Mapping[tuple[str, float], str], vision: Any, name: str) -> str:
    traits = (vision.hidden_act, vision.layer_norm_eps)
    if traits not in architectures:
        raise unsupported_encoder(name, f"is none of timm's (activation {traits[0]}, epsilon {traits[1]:g})")
    return architectures[traits]


def _sizes(vision: Any, size: int) -> dict[str, Any]:
    return {
        "img_size": size,
        "patch_size": vision.patch_size,
        "embed_dim": vision.hidden_size,
        "depth": vision.num_hidden_layers,
        "num_heads": vision.num_attention_heads,
        "mlp_ratio": vision.intermediate_size / vision.hidden_size,
    }


def _patches(weights: Weights) -> RenamedWeights:
    """Yields the patch embedding, with its bias if it has one, and the position embedding."""
    for part in ("weight", "bias"):
        if f"embeddings.patch_embedding.{part}" in weights:
            yield f"patch_embed.proj.{part}", weights[f"embeddings.patch_embedding.{part}"]
    (name,) = (name for name in weights if name.startswith("embeddings.position_embedding"))
    yield "pos_embed", weights[name].reshape(1, *weights[name].shape[-2:])


def _blocks(weights: Weights, depth: int, *, out: str) -> RenamedWeights:
    for index in range(depth):
        new, old = f"blocks.{index}", f"encoder.layers.{index}"
        if f"{old}.self_attn.qkv.weight" in weights:
            yield from rename_layer(f"{new}.attn.qkv", f"{old}.self_attn.qkv", weights)
        else:
            for part in ("weight", "bias"):
                fused = [weights[f"{old}.self_attn.{projection}_proj.{part}"] for projection in "qkv"]
                yield f"{new}.attn.qkv.{part}", torch.cat(fused)
        yield from rename_layer(f"{new}.attn.proj", f"{old}.self_attn.{out}", weights)
        for name, old_name in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("mlp.fc1",) * 2, ("mlp.fc2",) * 2):
            yield from rename_layer(f"{new}.{name}", f"{old}.{old_name}", weights)


def _of_clip(weights: Weights, depth: int) -> RenamedWeights:
    yield "cls_token", weights["embeddings.class_embedding"].view(1, 1, -1)
    yield from _patches(weights)
    yield from rename_layer("norm_pre", "pre_layrnorm", weights)
    yield from _blocks(weights, depth, out="out_proj")
    yield from rename_layer("norm", "post_layernorm", weights)


def _of_blip(weights: Weights, depth: int) -> RenamedWeights:
    yield "cls_token", weights["embeddings.class_embedding"]
    yield from _patches(weights)
    yield from _blocks(weights, depth, out="projection")
    yield from rename_layer("norm", "post_layernorm", weights)


def _of_siglip(weights: Weights, depth: int) -> RenamedWeights:
    yield from _patches(weights)
    yield from _blocks(weights, depth, out="out_proj")
    yield from rename_layer("norm", "post_layernorm", weights)
    yield "attn_pool.latent", weights["head.probe"]
    for part in ("weight", "bias"):
        query, key_and_value = weights[f"head.attention.in_proj_{part}"].tensor_split([weights["head.probe"].shape[-1]])
        yield f"attn_pool.q.{part}", query
        yield f"attn_pool.kv.{part}", key_and_value
    for new, old in (("proj", "attention.out_proj"), ("norm", "layernorm"), ("mlp.fc1",) * 2, ("mlp.fc2",) * 2):
        yield from rename_layer(f"attn_pool.{new}", f"head.{old}", weights)


def _of_siglip2(weights: Weights, depth: int) -> RenamedWeights:
    """Converts the linear patch embedding of a NaFlex model, (row, column, colour), to a convolution."""
    linear = weights["embeddings.patch_embedding.weight"]
    patch = math.isqrt(linear.shape[1] // 3)
    kernel = linear.view(-1, patch, patch, 3).permute(0, 3, 1, 2)
    yield from _of_siglip({**weights, "embeddings.patch_embedding.weight": kernel}, depth)


def _square_processor(processor: Any, size: int) -> Any:
    """Returns a processor that resizes images to a square, with the normalisation of a NaFlex processor."""
    import transformers

    entries = ("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    return transformers.SiglipImageProcessor(
        size={"height": size, "width": size}, do_convert_rgb=True, **{key: getattr(processor, key) for key in entries}
    )


def _albef(name: str, options: dict[str, Any]) -> TimmEncoder:
    """Reads a checkpoint of the authors, which has the names of `timm`."""
    config = albef.read_configuration(name, options)
    vision = config.vision_config
    architecture = _architecture(_VIT, vision, name)
    state = albef.read_checkpoint(name)
    encoder = albef.read_vision(name, config, options, state).eval()
    return TimmEncoder(
        architecture=architecture,
        options=_sizes(vision, vision.image_size),
        weights=albef.below("visual_encoder.", state),
        feature=lambda pixels: encoder(pixel_values=pixels).last_hidden_state[:, 0],
        size=vision.image_size,
        processor=albef.image_processor(config),
    )


_VIT = {("gelu", 1e-6): "vit_base_patch16_224"}
_CLIP = {
    ("quick_gelu", 1e-5): "vit_base_patch16_clip_quickgelu_224",
    ("gelu", 1e-5): "vit_base_patch16_clip_224",
}
_SIGLIP = {("gelu_pytorch_tanh", 1e-6): "vit_base_patch16_siglip_224"}

IMAGE_ENCODERS: dict[str, Callable[[str, dict[str, Any]], TimmEncoder]] = {
    "clip": EncoderKind(reader="CLIPModel", architectures=_CLIP, rename=_of_clip),
    "clip_vision_model": EncoderKind(reader="CLIPVisionModel", architectures=_CLIP, rename=_of_clip),
    "altclip": EncoderKind(reader="AltCLIPModel", architectures=_CLIP, rename=_of_clip),
    "chinese_clip": EncoderKind(reader="ChineseCLIPModel", architectures=_CLIP, rename=_of_clip),
    "siglip": EncoderKind(
        reader="SiglipModel", architectures=_SIGLIP, rename=_of_siglip, options={"act_layer": "gelu_tanh"}
    ),
    "siglip_vision_model": EncoderKind(
        reader="SiglipVisionModel", architectures=_SIGLIP, rename=_of_siglip, options={"act_layer": "gelu_tanh"}
    ),
    "siglip2": EncoderKind(
        reader="Siglip2Model",
        architectures=_SIGLIP,
        rename=_of_siglip2,
        options={"act_layer": "gelu_tanh"},
        feature=pool_square,
        size=square_side,
        processor=_square_processor,
    ),
    "blip": EncoderKind(
        reader="BlipForImageTextRetrieval",
        architectures=_CLIP,
        rename=_of_blip,
        options={"pre_norm": False},
        feature=lambda encoder, pixels: encoder(pixel_values=pixels).last_hidden_state[:, 0],
    ),
    "albef": _albef,
    "open_clip": read_open_clip,
}
"""By the model type of the configuration; `open_clip` by the name, as `load_vlm` has it."""


def convert_dual_encoder(encoder: Any, vision: Any, processor: Any, size: int, name: str) -> TimmEncoder | None:
    """Converts the image encoder of a dual encoder to `timm`.

    Args:
        encoder: A model of `transformers`.
        vision: Its configuration.
        processor: Its image processor.
        size: Side of its output images.
        name: Name of the dual encoder, for the errors.

    Returns:
        The image encoder; None if `transformers` has a classifier for it.

    Raises:
        ModelError: `timm` does not have exactly this encoder.
    """
    kind = IMAGE_ENCODERS.get(vision.model_type)
    feature: Feature = lambda pixels: pooled_images(encoder, pixels)  # noqa: E731
    if isinstance(kind, EncoderKind):
        return kind.convert(getattr(encoder, "vision_model", encoder), vision, processor, feature, name)
    if vision.model_type != "timm_wrapper":
        return None
    return TimmEncoder(
        architecture=vision.architecture,
        options=vision.model_args or {},
        weights=encoder.timm_model.state_dict(),
        feature=feature,
        size=size,
        processor=processor,
    )
