"""Loads vision-language models by name; :mod:`labelsieve.vlm.families.registry` has the table of families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelsieve.core.errors import ModelError, shown
from labelsieve.core.files import check_reachable
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.families.open_clip import OpenCLIP
from labelsieve.vlm.families.registry import FAMILIES
from labelsieve.vlm.pretrained import CONFIGURATION, loader_options, raw_configuration, read_part


def load_vlm(name: str | Path) -> VisionLanguageModel:
    """Loads a vision-language model with its own tokenizer and image processor, frozen and in float32.

    Weights are read from safetensors or, where a model has no other, by PyTorch's safe loader; code that a model
    folder may carry is never run. Where the Hub cannot be reached, a model that was downloaded before still loads.

    Args:
        name: Hub id such as `openai/clip-vit-base-patch16`, or a local folder. For open_clip, a folder with
            open_clip_config.json, `open_clip:ORGANISATION/NAME` for the Hub, `open_clip:ARCHITECTURE/FILE` for weights
            in a file, or `open_clip:ARCHITECTURE/TAG`; see docs/models.md.

    Raises:
        ModelError: There is no such folder or id, the Hub cannot be reached, the model is not a supported dual-encoder
            model, lacks a tokenizer or image processor or has those of another model, or its weights are missing,
            broken or not finite.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> vlm = ls.load_vlm(MINI_CLIP)  # or "openai/clip-vit-base-patch16", from the Hub
        >>> vlm.encode_text(["a drawing of a cat", "a drawing of a dog"]).shape
        torch.Size([2, 128])
    """
    name = str(name)
    check_reachable(name, ModelError)
    if OpenCLIP.is_open_clip_name(name):
        return OpenCLIP.load(name, {})
    options = loader_options(name)
    kind = read_part(CONFIGURATION, name, _model_type, options)
    if kind not in FAMILIES:
        raise ModelError(
            f"expected a dual-encoder vision-language model of kind {', '.join(FAMILIES)}, "
            f"{name} is of kind {shown(kind)}; choose another model"
        )
    return FAMILIES[kind].load(name, options)


def _model_type(name: str, **options: Any) -> str:
    raw = raw_configuration(name, **options)
    if "model_type" not in raw:
        raise OSError("there is none, or it does not say which kind of model it is (model_type)")
    return str(raw["model_type"])
