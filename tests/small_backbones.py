"""Tiny image models of transformers with random weights, saved on the spot; no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

SIZE = 32
VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": SIZE,
    "patch_size": 16,
}
_WORDS: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


_BERT: dict[str, Any] = {**_WORDS, "encoder_hidden_size": 16, "projection_dim": 8, "pad_token_id": 0, "sep_token_id": 2}
_STAGES: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 7}
_SWIN: dict[str, Any] = {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
_DECODER: dict[str, Any] = {
    "decoder_hidden_size": 8,
    "decoder_intermediate_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}


def _made(architecture: str, config: str, **values: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, architecture)(getattr(transformers, config)(**values))


# Bare encoders, whole dual-encoder models, and classifiers of other classes: however weights are saved.
BACKBONES: dict[str, Callable[[], Any]] = {
    "vit": _made("ViTModel", "ViTConfig", **VIT),
    "vit-classifier": _made("ViTForImageClassification", "ViTConfig", **VIT, num_labels=3),
    "mae": _made("ViTMAEForPreTraining", "ViTMAEConfig", **VIT, **_DECODER),
    "resnet": _made("ResNetForImageClassification", "ResNetConfig", **_STAGES, embedding_size=8),
    "convnext": _made("ConvNextForImageClassification", "ConvNextConfig", **_STAGES, num_stages=2),
    "dinov2": _made("Dinov2Model", "Dinov2Config", **VIT),
    "swin": _made("SwinForImageClassification", "SwinConfig", **_SWIN, image_size=SIZE, num_labels=7),
    "siglip-encoder": _made("SiglipVisionModel", "SiglipVisionConfig", **VIT),
    "blip": _made(
        "BlipForImageTextRetrieval", "BlipConfig", vision_config=VIT | {"hidden_act": "gelu"}, text_config=_BERT
    ),
    "siglip": _made("SiglipModel", "SiglipConfig", vision_config=VIT, text_config=_WORDS),
    "clip": _made("CLIPModel", "CLIPConfig", vision_config=VIT, text_config=_WORDS),
    "clip-encoder": _made("CLIPVisionModel", "CLIPVisionConfig", **VIT),
    "altclip": _made("AltCLIPModel", "AltCLIPConfig", vision_config=VIT, text_config=_WORDS),
    "chinese-clip": _made("ChineseCLIPModel", "ChineseCLIPConfig", vision_config=VIT, text_config=_WORDS),
}


def backbone_folder(folder: Path, kind: str, *, size: int = SIZE, processor: bool = True) -> Path:
    """Saves a model with the settings of an image processor that makes square pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BACKBONES[kind]()
        if kind == "blip":  # its first class tokens hardly see the picture
            for name, value in model.named_parameters():
                if "norm" not in name:
                    torch.nn.init.normal_(value, std=0.2)
        model.save_pretrained(folder)
    if processor:
        content = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": size, "width": size},
            "resample": 3,
            "do_rescale": True,
            "do_normalize": True,
            "image_mean": [0.5, 0.4, 0.3],
            "image_std": [0.2, 0.25, 0.3],
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder
