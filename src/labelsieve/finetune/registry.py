"""The registries of losses and of `--tune` choices. Nothing here imports torch.

A new loss is one function of a batch, or a class if it has state or selects images, and one line in `LOSSES`. A new
`--tune` choice is one function and one line in `TUNE`; modules of :mod:`labelsieve.vlm.peft` are added from their
registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry
from labelsieve.vlm.peft.registry import PEFT

_FINETUNE = "labelsieve.finetune."
LOSSES: Registry[Callable[..., Any], Entry] = Registry(
    "--loss",
    Entry("ce", "labelsieve.detect.losses:cross_entropy", "cross-entropy"),
    Entry(
        "gce",
        _FINETUNE + "losses:generalised_cross_entropy",
        "generalised cross-entropy: labels that the model contradicts have smaller gradients",
    ),
    Entry(
        "sce",
        "labelsieve.detect.losses:symmetric_cross_entropy",
        "symmetric cross-entropy: a second term that a wrong label cannot make large",
    ),
    Entry(
        "elr",
        _FINETUNE + "losses:EarlyLearning",
        "early-learning regularisation: keeps predictions close to earlier ones",
    ),
    Entry(
        "gmm",
        _FINETUNE + "losses:Mixture",
        "cross-entropy on the images that a mixture of two Gaussians, fitted to the losses before each epoch, selects",
    ),
)
TUNE: Registry[Callable[..., None], Entry] = Registry(
    "--tune",
    Entry("full", _FINETUNE + "tuning:train_all", "everything"),
    Entry("linear", _FINETUNE + "tuning:train_head", "the head alone, on cached features: fast on a CPU"),
    Entry("paper", _FINETUNE + "tuning:train_blocks", "the blocks; embeddings and outer layer norms stay"),
    Entry(
        "lora",
        _FINETUNE + "tuning:train_low_rank",
        "low-rank matrices beside the layers of the blocks, merged at the end",
    ),
    Entry("bitfit", _FINETUNE + "tuning:train_biases", "all biases"),
    *(
        Entry(
            module.name,
            _FINETUNE + "peft_modules:attach",
            module.about + (", merged at the end" if module.phase_2 == "merged" else "; cannot be saved"),
        )
        for module in PEFT.entries.values()
        if module.phase_2 != "unused"
    ),
)

if TYPE_CHECKING:
    LossKind = str
    TuneKind = str
else:
    LossKind = Literal[tuple(LOSSES)]
    TuneKind = Literal[tuple(TUNE)]
