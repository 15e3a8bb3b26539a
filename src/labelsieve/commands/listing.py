"""`labelsieve list`: what there is to choose from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelsieve.commands.base import Command, OptionalText


@dataclass(frozen=True, kw_only=True)
class Listing(Command):
    """Lists detectors, recipes, ways to adapt the vision tower, models, data sets, what adapt offers, and experiments.

    Attributes:
        model: Hub id or folder of a model whose vision tower the trainable shares are counted on; by default ViT-B/16.
    """

    model: OptionalText = None

    def run(self, console: Console) -> None:
        """Prints one table."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for title in ("option", "name", "what it is"):
            table.add_column(title, overflow="fold")
        shown = ""
        for option, name, about in entries(self.model):
            table.add_row("" if option == shown else option, name, Text(about))  # which may name a folder of the user
            shown = option
        console.print(table)


def entries(model: str | None) -> Iterator[tuple[str, str, str]]:
    """Yields the option, a name that it takes, and what that is.

    Args:
        model: See :class:`Listing`.
    """
    from labelsieve.bench.experiment import read_experiment, shipped
    from labelsieve.data.published.base import PUBLISHED
    from labelsieve.detect.base import DETECTORS, detector_class
    from labelsieve.detect.deft import RECIPES
    from labelsieve.vlm.huggingface import ADAPTERS

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
    for name, adapter in ADAPTERS.items():
        yield "--model", name, first_line(adapter)
    for name, known in PUBLISHED.items():
        yield "SOURCE", f"{name}:PATH", f"{known.title} as published; splits {', '.join(known.splits)}"
    yield from _entries_of_adapt()
    for name in shipped():
        yield "bench", name, read_experiment(name).title


def _entries_of_adapt() -> Iterator[tuple[str, str, str]]:
    from labelsieve.adapt.losses import LOSSES
    from labelsieve.adapt.settings import RECIPES
    from labelsieve.adapt.tuning import TUNE

    for name in LOSSES:
        yield "adapt --loss", name, _ADAPT_NOTES.get(name, "")
    for name in TUNE:
        yield "adapt --tune", name, _ADAPT_NOTES.get(name, "")
    for name, recipe in RECIPES.items():
        about = f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}"
        yield "adapt --recipe", name, about


def _peft(model: str | None) -> Iterator[tuple[str, str]]:
    from labelsieve.detect.settings import Training
    from labelsieve.vlm.huggingface import load_vlm
    from labelsieve.vlm.peft.base import PEFT
    from labelsieve.vlm.peft.share import trainable, vit_b16

    tower = vit_b16() if model is None else load_vlm(model)
    yield "auto", "vpt-deep on an accelerator if the image encoder takes visual prompts, else none; none on a CPU"
    sizes = {"tokens": Training.visual_prompts, "bottleneck": Training.bottleneck}
    for name, kind in PEFT.items():
        found = trainable(name, tower, **sizes)
        if found is None:
            yield name, f"{kind.about} (not for {tower.name})"
        elif found[0]:
            yield name, f"{kind.about} ({found[0]:,} values, {found[1]:.2%} of {tower.name})"
        else:
            yield name, kind.about


_ADAPT_NOTES = {
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
    "vpt-deep": "learned tokens beside the patches, anew in each block; cannot be saved",
    "vpt-shallow": "learned tokens beside the patches, in the first block; cannot be saved",
    "adapter": "a small bottleneck behind the MLP of each block; cannot be saved",
}


def first_line(thing: type) -> str:
    """Returns the first sentence of a docstring as plain text."""
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
    return text.split(". ")[0].rstrip(".") if text else ""
