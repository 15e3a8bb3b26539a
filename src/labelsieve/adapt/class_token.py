"""The vision tower of CLIP as a classifier that reads the class token.

`CLIPForImageClassification` averages the patch tokens, which CLIP was never trained to say anything with, and leaves
out the last layer norm. The feature that CLIP compares with texts, and that the paper puts a linear head on, is the
class token after that norm. `timm` has this tower as an image classifier, and `transformers` loads `timm` models by
`AutoModelForImageClassification` like its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from labelsieve.errors import ModelError
from labelsieve.vlm.reading import quiet_loading, read_weights

TOWERS = {
    "clip": "CLIPModel",
    "clip_vision_model": "CLIPVisionModel",
    "altclip": "AltCLIPModel",
    "chinese_clip": "ChineseCLIPModel",
}
"""Model types whose vision towers are CLIP's, and the classes that read them."""

# The `timm` models with CLIP's layer norms, by the activation; all sizes are given.
_ARCHITECTURES = {"quick_gelu": "vit_base_patch16_clip_quickgelu_224", "gelu": "vit_base_patch16_clip_224"}
_EPSILON = 1e-5
_TOLERANCE = 1e-3
_PARTS = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "norm_pre": "pre_layrnorm",
    "norm": "post_layernorm",
}
_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def read_class_token_tower(name: str, config: Any, class_names: Mapping[int, str], options: dict[str, Any]) -> Any:
    """Reads the vision tower of a CLIP and returns it as a classifier with a head of zeros.

    Args:
        name: Hub id or local folder.
        config: Its configuration, of a type in `TOWERS`.
        class_names: Index to name.
        options: From :func:`labelsieve.vlm.reading.loader_options`.

    Raises:
        ModelError: The weights are missing, broken or not finite, or the tower is not one that `timm` has.
    """
    import transformers

    vision = getattr(config, "vision_config", config)
    if vision.hidden_act not in _ARCHITECTURES or vision.layer_norm_eps != _EPSILON:
        raise ModelError(
            f"the vision tower of {name} differs from CLIP's (activation {vision.hidden_act}, epsilon "
            f"{vision.layer_norm_eps:g}) and cannot be made a classifier; choose another --backbone"
        )
    source = read_weights(name, getattr(transformers, TOWERS[config.model_type]), config, options).eval()
    tower = getattr(source, "vision_model", source)
    settings = transformers.TimmWrapperConfig(
        architecture=_ARCHITECTURES[vision.hidden_act],
        model_args={
            "img_size": vision.image_size,
            "patch_size": vision.patch_size,
            "embed_dim": vision.hidden_size,
            "depth": vision.num_hidden_layers,
            "num_heads": vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        id2label=dict(class_names),
        label2id={label: index for index, label in class_names.items()},
    )
    with quiet_loading(), torch.random.fork_rng(devices=[]):  # whatever it is filled with at first
        model = transformers.TimmWrapperForImageClassification(settings).eval()
    with torch.no_grad():
        renamed = dict(_renamed(tower.state_dict(), vision.num_hidden_layers))
        model.timm_model.load_state_dict(renamed, strict=False)  # only the head is not among them
        model.timm_model.head.weight.zero_()
        model.timm_model.head.bias.zero_()
    _check_same(tower, model, vision.image_size, name)
    return model


def _renamed(weights: Mapping[str, Tensor], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of a CLIP tower under the names of `timm`."""
    for new, old in _PARTS.items():
        if old in weights:
            value = weights[old]
            yield new, {"cls_token": value.view(1, 1, -1), "pos_embed": value[None]}.get(new, value)
        else:
            yield from ((f"{new}.{part}", weights[f"{old}.{part}"]) for part in ("weight", "bias"))
    for index in range(depth):
        new_block, old_block = f"blocks.{index}", f"encoder.layers.{index}"
        for part in ("weight", "bias"):
            fused = [weights[f"{old_block}.self_attn.{one}_proj.{part}"] for one in "qkv"]
            yield f"{new_block}.attn.qkv.{part}", torch.cat(fused)
            for new, old in _BLOCK.items():
                yield f"{new_block}.{new}.{part}", weights[f"{old_block}.{old}.{part}"]


def _check_same(tower: Any, model: Any, size: int, name: str) -> None:
    """Makes sure that the classifier reads the very feature that the tower gives."""
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = tower(pixel_values=picture).pooler_output
        found = model.timm_model.forward_head(model.timm_model.forward_features(picture), pre_logits=True)
    off = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not off < _TOLERANCE:
        raise ModelError(
            f"the vision tower of {name} computes something else than CLIP's (off by {off:.1g}) and cannot be made a "
            "classifier; choose another --backbone"
        )
