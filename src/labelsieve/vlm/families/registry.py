"""The table of families: `load_vlm` and `labelsieve list` derive from it. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelsieve.core.registry import Entry, Registry

if TYPE_CHECKING:
    from labelsieve.vlm.base import VisionLanguageModel

DUAL_ENCODER = "vision-text-dual-encoder"

_PACKAGE = "labelsieve.vlm.families."
FAMILIES: Registry[type[VisionLanguageModel], Entry] = Registry(
    "--model",
    Entry("clip", _PACKAGE + "clip:HuggingFaceCLIP", "CLIP: CLIPModel of transformers"),
    Entry(
        "siglip", _PACKAGE + "siglip:SigLIP", "SigLIP, and SigLIP 2 of fixed resolution: SiglipModel of transformers"
    ),
    Entry(
        "siglip2",
        _PACKAGE + "siglip2:SigLIP2",
        "SigLIP 2 of flexible resolution (NaFlex): Siglip2Model of transformers",
    ),
    Entry("blip", _PACKAGE + "blip:BLIP", "BLIP: the contrastive heads of BlipForImageTextRetrieval of transformers"),
    Entry(
        "albef",
        _PACKAGE + "albef:ALBEF",
        "ALBEF: contrastive heads of the authors' checkpoints, as ViTModel and BertModel",
    ),
    Entry("altclip", _PACKAGE + "altclip:AltCLIP", "AltCLIP: AltCLIPModel of transformers"),
    Entry("chinese_clip", _PACKAGE + "chinese_clip:ChineseCLIP", "Chinese CLIP: ChineseCLIPModel of transformers"),
    Entry(
        DUAL_ENCODER,
        _PACKAGE + "dual_encoder:DualEncoder",
        "LiT and others: VisionTextDualEncoderModel of transformers, which joins any two encoders",
    ),
    Entry(
        "open_clip",
        _PACKAGE + "open_clip:OpenCLIP",
        "open_clip: models of that library with its own text encoders; needs the extra open-clip",
    ),
)
"""By `model_type` of config.json; `open_clip` by its prefix or by open_clip_config.json."""
