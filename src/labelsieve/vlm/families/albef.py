"""ALBEF (Li et al., NeurIPS 2021), from the checkpoints that its authors published.

Its encoders are a ViT and the first half of a BERT, which `transformers` has; only names differ. A model folder holds

* the weights, `*.safetensors` or `*.pth`, under the published names (`visual_encoder.blocks.0.attn.qkv.weight` ...);
* the tokenizer of `bert-base-uncased`;
* `config.json`: `{"model_type": "albef"}` for the published ViT-B/16 of 256 pixels. `image_size` is the size of a
  checkpoint that was fine-tuned at another one. `vision_config` and `text_config` take what `ViTConfig` and
  `BertConfig` do, `fusion_layer` is the number of text layers in front of the first cross-attention, `embed_dim` the
  width of the joint space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from labelsieve.core.errors import ModelError, listed
from labelsieve.vlm.families.blip import BLIP
from labelsieve.vlm.pretrained import (
    CONFIGURATION,
    check_weights,
    concise_weight_errors,
    raw_configuration,
    read_part,
    read_weights,
)

# The normalisation of the authors, which is that of CLIP.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# Names of a ViT in timm and in `transformers`; qkv is one matrix in timm and three in `transformers`.
_VISION = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"^norm\.", "layernorm."),
)
_QKV = re.compile(r"^blocks\.(\d+)\.attn\.qkv\.(weight|bias)$")


class ALBEF(BLIP):
    """ALBEF: contrastive heads of the authors' checkpoints, as `ViTModel` and `BertModel`. See docs/models.md.

    The text encoder is the first half of BERT with a mask over the padding; both features are pooled at the class
    token.
    """

    architecture: ClassVar[str] = "ALBEF"

    @classmethod
    def load(cls, name: str, options: dict[str, Any]) -> Self:
        """Loads a local folder; the docstring of this module describes its files."""
        config = read_configuration(name, options)
        # the loader of tokenizers does not know this config.json
        tokenizer_options = {**options, "config": config.text_config}
        tokenizer = cls.read_tokenizer(name, tokenizer_options, config.text_config)
        vlm = cls(_read_model(name, config, options), tokenizer, image_processor(config), name=name)
        vlm.check_processor()
        return vlm

    def scale(self) -> float:
        """Returns 1/τ from the checkpoint."""
        return 1 / float(self.model.temp)

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the image encoder."""
        return self.model.vision_model.layers  # type: ignore[no-any-return]


class _ALBEFModel(nn.Module):
    """Both encoders, the projections to the joint space and the temperature."""

    def __init__(self, config: Any, vision: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.config, self.vision_model, self.text_encoder = config, vision, text
        self.vision_proj = nn.Linear(config.vision_config.hidden_size, config.projection_dim)
        self.text_proj = nn.Linear(config.text_config.hidden_size, config.projection_dim)
        self.temp = nn.Parameter(torch.tensor(1.0))


def configuration(raw: Mapping[str, Any]) -> Any:
    """Converts config.json to configurations of `transformers`; the defaults are those of the published model."""
    import transformers

    size = {"image_size": raw.get("image_size", 256)}
    vision = transformers.ViTConfig(**{"layer_norm_eps": 1e-6, **size, **raw.get("vision_config", {})})
    layers = {"num_hidden_layers": raw.get("fusion_layer", 6)}
    text = transformers.BertConfig(**{**raw.get("text_config", {}), **layers})
    return transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=raw.get("embed_dim", 256)
    )


def read_configuration(name: str, options: dict[str, Any]) -> Any:
    """Reads the configuration of a local folder; see :func:`configuration`."""
    if not Path(name).is_dir():
        raise ModelError(f"expected a local folder with an ALBEF checkpoint, got {name}; see docs/models.md")
    return read_part(CONFIGURATION, name, lambda name, **o: configuration(raw_configuration(name, **o)), options)


def image_processor(config: Any) -> Any:
    """Returns the image processor of the authors, with the image size of the configuration."""
    import transformers

    size = config.vision_config.image_size
    return transformers.ViTImageProcessor(
        size={"height": size, "width": size}, resample=3, image_mean=list(MEAN), image_std=list(STD)
    )


def _read_model(name: str, config: Any, options: dict[str, Any]) -> Any:
    import transformers

    state = read_checkpoint(name)
    vision = read_vision(name, config, options, state)
    text = read_weights(name, transformers.BertModel, config.text_config, options, state=text_state(state, config))
    model = _ALBEFModel(config, vision, text)
    head = {key: value for key, value in model.state_dict().items() if not key.startswith(("vision_model", "text_enc"))}
    loaded = {key: state[key].float() for key in head if key in state}
    mismatched = [key for key, value in loaded.items() if value.shape != head[key].shape]
    check_weights(name, model, head.keys() - loaded.keys(), mismatched)
    model.load_state_dict(loaded, strict=False)
    check_weights(name, model, (), ())
    return model


def read_vision(name: str, config: Any, options: dict[str, Any], state: Mapping[str, Tensor]) -> Any:
    """Returns the image encoder, a `ViTModel`.

    Args:
        name: The folder, for messages.
        config: From :func:`read_configuration`.
        options: From :func:`labelsieve.vlm.pretrained.loader_options`.
        state: From :func:`read_checkpoint`: the weights of all parts.
    """
    import transformers

    return read_weights(name, transformers.ViTModel, config.vision_config, options, state=vision_state(state))


def read_checkpoint(name: str) -> dict[str, Tensor]:
    """Reads the only file of weights in a folder: published names to tensors.

    Raises:
        ModelError: There is no file or more than one, or it is damaged or contains more than tensors.
    """
    files = sorted(path for suffix in ("safetensors", "pth", "pt") for path in Path(name).glob(f"*.{suffix}"))
    if len(files) != 1:
        names = listed(path.name for path in files) or "none"
        raise ModelError(f"expected one file of weights (*.safetensors or *.pth) in {name}, found {names}")
    with concise_weight_errors(name):
        if files[0].suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(files[0])
        loaded = torch.load(files[0], map_location="cpu", weights_only=True)
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"expected {files[0]} to hold weights by name, or such under 'model'; get it again")
    return dict(state)


def vision_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of `visual_encoder` under the names of `ViTModel`."""
    named: dict[str, Tensor] = {}
    for key, value in below("visual_encoder.", state).items():
        if match := _QKV.match(key):
            for part, matrix in zip(("query", "key", "value"), value.chunk(3), strict=False):
                named[f"encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = matrix.contiguous()
            continue
        for pattern, replacement in _VISION:
            key = re.sub(pattern, replacement, key)
        named[key] = value
    return named


def text_state(state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Returns the weights of the text encoder under the names of `BertModel`.

    Their prefix is `text_encoder.bert.` after pre-training and `text_encoder.` after fine-tuning for retrieval. The
    layers with cross-attention and the language-model head are left out.
    """
    weights = below("text_encoder.bert.", state) or below("text_encoder.", state)
    layers = tuple(f"encoder.layer.{index}." for index in range(config.text_config.num_hidden_layers))
    prefixes = ("embeddings.", *layers)
    return {
        key: value for key, value in weights.items() if key.startswith(prefixes) and not key.endswith("position_ids")
    }


def below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights whose names have a prefix, without the prefix."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
