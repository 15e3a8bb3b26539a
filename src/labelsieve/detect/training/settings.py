"""Settings that the trained detectors share. Each is a command-line option, a TOML key and an entry of `run.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from labelsieve.core.errors import SettingsError, setting
from labelsieve.core.validation import (
    BatchSize,
    Bottleneck,
    Epochs,
    LearningRate,
    Momentum,
    Range,
    Steps,
    Tokens,
    WeightDecay,
)
from labelsieve.detect.base import Detector
from labelsieve.vlm.peft.registry import PEFT, PeftKind

if TYPE_CHECKING:
    from labelsieve.vlm.base import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class PromptTraining:
    """How prompts are trained.

    Attributes:
        epochs: Passes over the data, at least 0; 0 leaves the model as it is.
        min_steps: Minimum number of steps: small data get more epochs.
        warmup_epochs: Epochs that learn from all labels before the selection begins. If `min_steps` adds epochs, the
            warm-up grows in proportion.
        batch_size: Images per step, over all processes together. `auto` is 64; if the encoder is frozen and features
            are cached, it grows with the data up to 2048, as long as there are still 300 steps, or `min_steps` if that
            is more. A batch that does not fit into memory passes through the image encoder in parts.
        learning_rate: Of SGD, with cosine decay by epoch. The default suits prompts and small modules; full fine-tuning
            (`--peft full`) needs a far lower rate, such as the 5e-4 of the paper's fine-tuned classifier.
        momentum: Of SGD, between 0 and 1.
        weight_decay: Of SGD, applied to all trained parameters.
        context_tokens: M, number of learned context vectors before the class name.
        context_init: Text whose token embeddings initialise the contexts, or `random` for N(0, 0.02²).
        context_learns: Whether the context of the positive prompts is trained; if not, it stays as initialised.
    """

    epochs: Epochs = 10
    min_steps: Steps = 300
    warmup_epochs: Epochs = 1
    batch_size: BatchSize | Literal["auto"] = "auto"
    learning_rate: LearningRate = 3e-2
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 5e-4
    # the text encoder checks how many of them fit
    context_tokens: Annotated[int, Range(1, 1_024)] = 4
    context_init: str = "a photo of a"
    context_learns: bool = True


@dataclass(frozen=True, kw_only=True)
class Training(PromptTraining, Detector):
    """How prompts and parameter-efficient modules are trained; see :class:`PromptTraining` for the prompts.

    Attributes:
        peft: How the image encoder is adapted: `none` keeps it frozen and trains on cached features, mostly within
            seconds; `labelsieve list` describes the others and how much each trains. `auto` is `vpt-deep` on an
            accelerator, or `bitfit` if the image encoder takes no visual prompts, and `none` on a CPU.
        compile: Whether an adapted encoder is compiled with `torch.compile`, which takes seconds to minutes and changes
            rounding; `auto` is `on` on CUDA if 200000 images or more pass through it in all epochs, else `off`.
        visual_prompts: L, number of prompt tokens for `vpt-deep` and `vpt-shallow`.
        bottleneck: Rank of `lora` and width of `adapter`.
    """

    requires = frozenset({"images", "text"})
    predicts_test = True

    peft: PeftKind = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    visual_prompts: Tokens = 20
    bottleneck: Bottleneck = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs and not self.trains_something(peft=self.peft):
            without = f" without {setting('visual_prompts')}" if _takes_prompts(self.peft) else ""
            raise SettingsError(
                f"nothing is left to train: without {setting('context_learns')} the text stays as it is, and with "
                f"{setting('peft')} {self.peft}{without} the image encoder; change one of the two, or use "
                f"{setting('epochs')} 0"
            )

    def check_model(self, vlm: VisionLanguageModel) -> None:
        """Refuses a model that the module does not support; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.vlm.peft.base import build_peft
        from labelsieve.vlm.peft.target_layers import ModuleSpec

        if self.peft != "auto":
            build_peft(ModuleSpec(self.peft), vlm)

    @property
    def evaluates_before_epochs(self) -> bool:
        """Whether all un-augmented images are evaluated before each epoch after warm-up, to select some of them."""
        return False

    def trains_something(self, *, peft: str) -> bool:
        """Returns whether anything is trained with a given `peft`."""
        adapts = peft != "none" and (self.visual_prompts > 0 or not _takes_prompts(peft))
        return self.context_learns or adapts


def _takes_prompts(peft: str) -> bool:
    """Returns whether a module needs visual prompts to train anything; `auto` counts as such a module."""
    return peft == "auto" or PEFT.entries[peft].is_prompted


def frozen_if_auto(detector: Any) -> Any:
    """Returns a detector with `peft` set to `none` if it is `auto`, for results that must not depend on the device.

    Args:
        detector: Any detector; others than trained ones are returned unchanged.
    """
    if isinstance(detector, Training) and detector.peft == "auto":
        return dataclasses.replace(detector, peft="none")
    return detector
