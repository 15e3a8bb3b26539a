"""`labelsieve list`: the available choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from labelsieve.commands.base import Command, OptionalText
from labelsieve.core.registry import Registry
from labelsieve.report.printing import Unbroken, new_table


@dataclass(frozen=True, kw_only=True)
class Listing(Command):
    """Lists detectors, recipes, modules of the image encoder, models, data sets, losses, noise, formats, experiments.

    Attributes:
        model: Hub id or folder of a model whose image encoder the trainable shares are counted on; by default ViT-B/16.
    """

    model: OptionalText = None

    def run(self, console: Console) -> None:
        """Prints one table."""
        table = new_table("option", texts=["name", "what it is"])
        previous = ""
        for option, name, about in entries(self.model):
            about_text = Unbroken(about)  # which may name a folder of the user
            table.add_row("" if option == previous else option, name, about_text)
            previous = option
        console.print(table)


def entries(model: str | None) -> Iterator[tuple[str, str, str]]:
    """Yields an option, a name that it accepts, and its description; loads torch only if a model is named.

    Args:
        model: See :class:`Listing`.
    """
    from labelsieve.bench.tasks import TASKS
    from labelsieve.bench.toml_files import shipped, title_of
    from labelsieve.data.noise_kinds import NOISE
    from labelsieve.data.published.registry import PUBLISHED
    from labelsieve.detect.deft.detector import RECIPES
    from labelsieve.detect.deft.registry import WARMUP_LOSSES
    from labelsieve.detect.registry import DETECTORS
    from labelsieve.detect.tags.registry import TAG_DETECTORS
    from labelsieve.report.exports.registry import FORMATS
    from labelsieve.vlm.families.registry import FAMILIES

    yield from _choices(DETECTORS)
    yield from _choices(TAG_DETECTORS, verb="scan-tags ")
    for name, recipe in RECIPES.items():
        changed = (
            f"{key.replace('_', '-')} {value}"
            for key, value in vars(recipe).items()
            if value != getattr(RECIPES["default"], key)
        )
        yield "--recipe", name, ", ".join(changed) or "the defaults of deft"
    for name, about in _peft(model):
        yield "--peft", name, about
    yield from _choices(WARMUP_LOSSES)
    yield from _choices(FAMILIES)
    for name, data_set in PUBLISHED.entries.items():
        yield "SOURCE", f"{name}:PATH", f"{data_set.about} as published; splits {', '.join(data_set.splits)}"
    yield from _entries_of_adapt()
    yield from _choices(FORMATS, verb="export ")
    yield from _choices(NOISE, verb="noise ")
    for name, path in shipped().items():
        yield "bench", name, title_of(path)
    yield from _choices(TASKS, verb="bench ")


def _choices(registry: Registry[Any, Any], *, verb: str = "") -> Iterator[tuple[str, str, str]]:
    for name in registry:
        yield verb + registry.title, name, registry.about(name)


def _entries_of_adapt() -> Iterator[tuple[str, str, str]]:
    from labelsieve.finetune.registry import LOSSES, TUNE
    from labelsieve.finetune.settings import RECIPES

    for registry in (LOSSES, TUNE):
        yield from _choices(registry, verb="adapt ")
    for name, recipe in RECIPES.items():
        about = f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}"
        yield "adapt --recipe", name, about


def _peft(model: str | None) -> Iterator[tuple[str, str]]:
    from labelsieve.vlm.peft.registry import PEFT

    yield "auto", "vpt-deep on an accelerator, or bitfit if the image encoder takes no visual prompts; none on a CPU"

    if model is None:
        total = PEFT.entries["full"].parameters
        for name, module in PEFT.entries.items():
            yield name, module.about + _share(module.parameters, module.parameters / total, "CLIP ViT-B/16")
    else:
        yield from _peft_of(model)


def _peft_of(model: str) -> Iterator[tuple[str, str]]:
    """Yields each kind with the share of a model that it trains; loads the model."""
    from labelsieve.detect.training.settings import Training
    from labelsieve.vlm.loading import load_vlm
    from labelsieve.vlm.peft.parameter_count import count_trainable
    from labelsieve.vlm.peft.registry import PEFT

    vlm = load_vlm(model)
    for name in PEFT:
        counts = count_trainable(name, vlm, tokens=Training.visual_prompts, bottleneck=Training.bottleneck)
        yield name, PEFT.about(name) + (f" (not for {vlm.name})" if counts is None else _share(*counts, vlm.name))


def _share(count: int, share: float, name: str) -> str:
    return f" ({count:,} parameters, {share:.2%} of {name})" if count else ""
