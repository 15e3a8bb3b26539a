"""`labelsieve list`: what there is to choose from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from rich.console import Console
from rich.table import Table

from labelsieve.commands.base import Command, OptionalText
from labelsieve.core.validation import field_kinds
from labelsieve.report.wrapping import Unbroken


@dataclass(frozen=True, kw_only=True)
class Listing(Command):
    """Lists detectors, recipes, ways to adapt the image encoder, models, data sets, what adapt offers, and experiments.

    Attributes:
        model: Hub id or folder of a model whose image encoder the trainable shares are counted on; by default ViT-B/16.
    """

    model: OptionalText = None

    def run(self, console: Console) -> None:
        """Prints one table."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for title in ("option", "name", "what it is"):
            table.add_column(title, overflow="fold")
        shown = ""
        for option, name, about in entries(self.model):
            about_text = Unbroken(about)  # which may name a folder of the user
            table.add_row("" if option == shown else option, name, about_text)
            shown = option
        console.print(table)


def entries(model: str | None) -> Iterator[tuple[str, str, str]]:
    """Yields the option, a name that it takes, and what that is; nothing here loads torch unless a model is named.

    Args:
        model: See :class:`Listing`.
    """
    from labelsieve.bench.toml_files import shipped, title_of
    from labelsieve.data.published.base import PUBLISHED
    from labelsieve.detect.deft.detector import RECIPES
    from labelsieve.detect.registry import DETECTORS, detector_class

    for name in DETECTORS:
        yield "--detector", name, first_line(detector_class(name))
    for name, recipe in RECIPES.items():
        changed = (
            f"{key.replace('_', '-')} {value}"
            for key, value in vars(recipe).items()
            if value != getattr(RECIPES["default"], key)
        )
        yield "--recipe", name, ", ".join(changed) or "the defaults of deft"
    for name, about in _peft(model):
        yield "--peft", name, about
    for name, about in MODELS.items():
        yield "--model", name, about
    for name, known in PUBLISHED.items():
        yield "SOURCE", f"{name}:PATH", f"{known.title} as published; splits {', '.join(known.splits)}"
    yield from _entries_of_adapt()
    for name, path in shipped().items():
        yield "bench", name, title_of(path)


def _entries_of_adapt() -> Iterator[tuple[str, str, str]]:
    from labelsieve.finetune.settings import RECIPES, Adaptation

    kinds = field_kinds(Adaptation)
    for option in ("loss", "tune"):
        for name in get_args(kinds[option]):
            yield f"adapt --{option}", name, ADAPT[name]
    for name, recipe in RECIPES.items():
        about = f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}"
        yield "adapt --recipe", name, about


def _peft(model: str | None) -> Iterator[tuple[str, str]]:
    yield "auto", "vpt-deep on an accelerator if the image encoder takes visual prompts, else none; none on a CPU"
    if model is None:
        whole = PEFT["full"][1]
        for name, (about, count) in PEFT.items():
            yield name, about + _share(count, count / whole, "CLIP ViT-B/16")
    else:
        yield from _peft_of(model)


def _peft_of(model: str) -> Iterator[tuple[str, str]]:
    """Yields each kind with what it trains of a model, which is loaded for that."""
    from labelsieve.detect.training.settings import Training
    from labelsieve.vlm.huggingface import load_vlm
    from labelsieve.vlm.peft.share import trainable

    vlm = load_vlm(model)
    for name, (about, _) in PEFT.items():
        found = trainable(name, vlm, tokens=Training.visual_prompts, bottleneck=Training.bottleneck)
        yield name, about + (f" (not for {vlm.name})" if found is None else _share(*found, vlm.name))


def _share(count: int, share: float, name: str) -> str:
    return f" ({count:,} values, {share:.2%} of {name})" if count else ""


# Remarks on what lies in modules that load torch. Tests hold that each table names what there is, and the counts.

PEFT = {
    "none": ("the image encoder stays frozen: prompts are trained on cached features, fast on a CPU", 0),
    "vpt-deep": ("learned tokens beside the patches, new ones in each block: the paper's choice", 184_320),
    "vpt-shallow": ("learned tokens beside the patches, in the first block only", 15_360),
    "lora": ("a low-rank change of the query and value projections", 294_912),
    "adapter": ("a small bottleneck behind the MLP of each block", 175_200),
    "ssf": ("a scale and a shift behind each linear layer of the blocks", 165_888),
    "bitfit": ("all biases of the image encoder", 102_912),
    "full": ("the whole image encoder, at a low --learning-rate", 85_799_424),
    "full-paper": (
        "the transformer blocks alone, without embeddings and outer layer norms, as in the paper's code",
        85_054_464,
    ),
}
"""What each kind of `--peft` is, and how many values of CLIP ViT-B/16 it trains by default."""

MODELS = {
    "clip": "CLIP: CLIPModel of transformers",
    "siglip": "SigLIP, and SigLIP 2 of fixed resolution: SiglipModel of transformers",
    "siglip2": "SigLIP 2 of flexible resolution (NaFlex): Siglip2Model of transformers",
    "blip": "BLIP: the contrastive heads of BlipForImageTextRetrieval of transformers",
    "albef": "ALBEF: contrastive heads of the authors' checkpoints, as ViTModel and BertModel",
    "altclip": "AltCLIP: AltCLIPModel of transformers",
    "chinese_clip": "Chinese CLIP: ChineseCLIPModel of transformers",
    "vision-text-dual-encoder": (
        "LiT and others: VisionTextDualEncoderModel of transformers, which joins any two encoders"
    ),
    "open_clip": "open_clip: models of that library with its own text encoders; needs the extra open-clip",
}
"""What each family of models is."""

ADAPT = {
    "ce": "cross-entropy",
    "gce": "generalised cross-entropy: images that the model does not believe pull less",
    "sce": "symmetric cross-entropy: a second term that a wrong label cannot make large",
    "elr": "early-learning regularisation: holds to what the model said of an image before",
    "gmm": "cross-entropy on what a mixture of two Gaussians on the losses takes for clean, fitted before each epoch",
    "full": "everything",
    "linear": "the head alone, on cached features: fast on a CPU",
    "paper": "the blocks; embeddings and outer layer norms stay",
    "lora": "low-rank matrices beside the layers of the blocks, merged at the end",
    "bitfit": "all biases",
    "ssf": "a scale and a shift behind each linear layer of the blocks, merged at the end",
    "vpt-deep": "learned tokens beside the patches, new ones in each block; cannot be saved",
    "vpt-shallow": "learned tokens beside the patches, in the first block; cannot be saved",
    "adapter": "a small bottleneck behind the MLP of each block; cannot be saved",
}
"""What each `--loss` and each `--tune` of `labelsieve adapt` is."""


def first_line(thing: type) -> str:
    """Returns the first sentence of a docstring as plain text."""
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
    return text.split(". ")[0].rstrip(".") if text else ""
