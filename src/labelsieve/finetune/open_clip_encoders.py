"""Image encoders of the `open_clip` library as models of `timm`.

The ViT and ResNet of open_clip exist in `timm` with other names of weights; ConvNeXt, SigLIP and others are from
`timm`.

A new kind of image encoder is one function and one line in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.finetune.timm_classifier import (
    RenamedWeights,
    TimmEncoder,
    Weights,
    pooled,
    rename_layer,
    unsupported_encoder,
)
from labelsieve.vlm.families.open_clip import read_vision, side

# Epsilon of the layer norms in all models of open_clip.
_EPSILON = 1e-5
_VITS = {"GELU": "vit_base_patch16_clip_224", "QuickGELU": "vit_base_patch16_clip_quickgelu_224"}
# By the number of blocks in each of the four stages; the width is passed.
_RESNETS = {
    (3, 4, 6, 3): "resnet50_clip",
    (3, 4, 23, 3): "resnet101_clip",
    (4, 6, 10, 6): "resnet50x4_clip",
    (6, 8, 18, 8): "resnet50x16_clip",
    (3, 15, 36, 10): "resnet50x64_clip",
}

TimmParts = tuple[str, dict[str, Any], Weights, Callable[[Tensor], Tensor]]
"""Architecture, options, weights and feature of a :class:`TimmEncoder`."""


def read_open_clip(name: str, options: dict[str, Any]) -> TimmEncoder:
    """Reads the image encoder of a folder or of a name with the prefix `open_clip:`."""
    del options  # they are for the loaders of transformers
    visual, settings = read_vision(name)
    kind = type(visual).__name__
    if kind not in _KINDS:
        raise unsupported_encoder(name, f"({kind}) is none of timm")
    size = side(visual, name)
    architecture, model_options, weights, feature = _KINDS[kind](visual, settings, name)
    return TimmEncoder(
        architecture=architecture,
        options=model_options,
        weights=weights,
        feature=feature,
        size=size,
        processor=_processor(visual.preprocess_cfg, size, name),
    )


def _of_timm(visual: Any, settings: dict[str, Any], name: str) -> TimmParts:
    """An encoder from `timm`; its head, if it has one, and the layers after it are the projection."""
    if hasattr(visual.head, "pool"):
        raise unsupported_encoder(name, f"pools its features as timm does not (timm_pool {settings['timm_pool']})")
    trunk, pool = visual.trunk, settings.get("timm_pool", "avg")
    options = {"global_pool": pool} if pool else {}
    return trunk.pretrained_cfg["architecture"], options, trunk.state_dict(), lambda pixels: pooled(trunk, pixels)


def _vit(visual: Any, settings: dict[str, Any], name: str) -> TimmParts:
    blocks = visual.transformer.resblocks
    first = blocks[0]
    activation = type(first.mlp.gelu).__name__
    supported = {
        "attentional_pool": visual.attn_pool is None,
        "pool_type": visual.pool_type in ("tok", "avg"),
        "block_type": type(first).__name__ == "ResidualAttentionBlock",
        "act_kwargs": activation in _VITS and not settings.get("act_kwargs"),
        "norm_kwargs": visual.ln_post.eps == _EPSILON,
    }
    for setting, is_supported in supported.items():
        if not is_supported:
            raise unsupported_encoder(name, f"is none of timm's (see {setting} in its vision_cfg)")
    width, average = visual.transformer.width, visual.pool_type == "avg"
    norm_last = average and visual.final_ln_after_pool
    options = {
        "img_size": visual.image_size[0],
        "patch_size": visual.patch_size[0],
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": first.attn.num_heads,
        "mlp_ratio": first.mlp.c_fc.out_features / width,
        "pre_norm": not isinstance(visual.ln_pre, nn.Identity),
        "global_pool": "avg" if average else "token",
        "fc_norm": norm_last,
        "init_values": settings.get("ls_init_value"),
    }
    visual.proj, visual.output_tokens = None, False
    weights = dict(_of_vit(visual.state_dict(), len(blocks), norm="fc_norm" if norm_last else "norm"))
    return _VITS[activation], options, weights, visual


def _of_vit(weights: Weights, depth: int, *, norm: str) -> RenamedWeights:
    yield "cls_token", weights["class_embedding"].view(1, 1, -1)
    yield "pos_embed", weights["positional_embedding"][None]
    yield "patch_embed.proj.weight", weights["conv1.weight"]
    if "ln_pre.weight" in weights:
        yield from rename_layer("norm_pre", "ln_pre", weights)
    else:  # only then has the patch embedding of timm a bias
        yield "patch_embed.proj.bias", torch.zeros_like(weights["class_embedding"])
    for index in range(depth):
        new, old = f"blocks.{index}", f"transformer.resblocks.{index}"
        for part in ("weight", "bias"):
            yield f"{new}.attn.qkv.{part}", weights[f"{old}.attn.in_proj_{part}"]
        for name, old_name in (
            ("norm1", "ln_1"),
            ("norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            yield from rename_layer(f"{new}.{name}", f"{old}.{old_name}", weights)
        yield from rename_layer(f"{new}.attn.proj", f"{old}.attn.out_proj", weights)
        for number in (1, 2):
            if f"{old}.ls_{number}.gamma" in weights:
                yield f"{new}.ls{number}.gamma", weights[f"{old}.ls_{number}.gamma"]
    yield from rename_layer(norm, "ln_post", weights)


def _resnet(visual: Any, settings: dict[str, Any], name: str) -> TimmParts:
    """A ResNet of CLIP. The last layer of its attention pooling is the projection."""
    import timm
    from timm.models.byobnet import checkpoint_filter_fn

    del settings
    blocks = tuple(len(getattr(visual, f"layer{stage}")) for stage in (1, 2, 3, 4))
    if blocks not in _RESNETS:
        raise unsupported_encoder(name, f"is a ResNet of {blocks} blocks, none of those that timm has,")
    last = visual.attnpool.c_proj
    unprojected = nn.Linear(last.in_features, last.in_features)
    with torch.no_grad():
        nn.init.eye_(unprojected.weight), nn.init.zeros_(unprojected.bias)
    visual.attnpool.c_proj = unprojected
    options = {"img_size": visual.image_size, "width_factor": visual.conv3.out_channels / 64}
    with torch.device("meta"):  # timm asks the model which layers it has
        model: Any = timm.create_model(_RESNETS[blocks], **options)
    weights = {f"visual.{key}": value for key, value in visual.state_dict().items()}
    return _RESNETS[blocks], options, checkpoint_filter_fn(weights, model), visual


_KINDS: dict[str, Callable[[Any, dict[str, Any], str], TimmParts]] = {
    "TimmModel": _of_timm,
    "VisionTransformer": _vit,
    "ModifiedResNet": _resnet,
}
"""By the class of open_clip."""


def _processor(settings: dict[str, Any], size: int, name: str) -> Any:
    """Returns a processor of `transformers` that is equivalent to that of open_clip."""
    import transformers

    squash, square = settings["resize_mode"] == "squash", {"height": size, "width": size}
    if settings["resize_mode"] == "longest":
        raise unsupported_encoder(name, "takes images with borders around them (resize_mode longest)")
    mean, std = (
        [float(value) for value in (values if isinstance(values, list | tuple) else [values] * 3)]
        for values in (settings["mean"], settings["std"])
    )
    return transformers.CLIPImageProcessor(
        size=square if squash else {"shortest_edge": size},
        resample=2 if settings["interpolation"] == "bilinear" else 3,
        do_center_crop=not squash,
        crop_size=square,
        image_mean=mean,
        image_std=std,
    )
