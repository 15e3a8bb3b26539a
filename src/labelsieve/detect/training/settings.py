"""Settings that the trained detectors share. Each is a flag, a TOML key and an entry of `run.json` at once."""

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
        min_steps: Small data get more epochs until there are at least this many steps.
        warmup_epochs: Epochs that learn from all labels before the selection begins. They are stretched with
            `min_steps` in proportion.
        batch_size: Images a step, over all processes together. `auto` is 64; where the encoder is frozen and features
            are cached, it grows with the data to 2048 at most, as far as there are still 300 steps, or `min_steps` if
            that is more. A batch that does not fit into memory passes the image encoder in parts.
        learning_rate: Of SGD, with cosine decay by epoch. The default suits prompts and small modules; full fine-tuning
            (`--peft full`) wants far less, such as the 5e-4 that the paper fine-tunes a classifier with.
        momentum: Of SGD, between 0 and 1.
        weight_decay: Of SGD, on everything that is trained.
        context_tokens: M, learned context vectors before the class name.
        context_init: Text whose token embeddings the contexts start from, or `random` for N(0, 0.02²).
        context_learns: False keeps the context of the positive prompts as it began: a fixed text beside visual prompts
            or another change of the image encoder.
    """

    epochs: Epochs = 10
    min_steps: Steps = 300
    warmup_epochs: Epochs = 1
    batch_size: BatchSize | Literal["auto"] = "auto"
    learning_rate: LearningRate = 3e-2
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 5e-4
    # the text encoder says how many of them it has room for
    context_tokens: Annotated[int, Range(1, 1_024)] = 4
    context_init: str = "a photo of a"
    context_learns: bool = True


@dataclass(frozen=True, kw_only=True)
class Training(PromptTraining, Detector):
    """How prompts and parameter-efficient modules are trained; see :class:`PromptTraining` for the prompts.

    Attributes:
        peft: How the image encoder is adapted: `none` keeps it frozen and trains on cached features, mostly within
            seconds; `labelsieve list` says what the others are and how much each trains. `auto` is `vpt-deep` on an
            accelerator, or `bitfit` where the image encoder takes no visual prompts, and `none` on a CPU.
        compile: Whether an adapted encoder goes through `torch.compile`, which takes seconds to minutes and rounds in
            another way; `auto` is `on` on CUDA where 200000 images or more pass it in all epochs, else `off`.
        visual_prompts: L, tokens beside the patches for `vpt-deep` and `vpt-shallow`.
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
        """Refuses a model that the module does not go with; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.vlm.peft.base import build_peft
        from labelsieve.vlm.peft.target_layers import ModuleSpec

        if self.peft != "auto":
            build_peft(ModuleSpec(self.peft), vlm)

    @property
    def evaluates_before_epochs(self) -> bool:
        """Whether all un-augmented images are evaluated before each epoch after warm-up, to learn from some of them."""
        return False

    def trains_something(self, *, peft: str) -> bool:
        """Returns whether anything learns if the image encoder is adapted in a given way."""
        adapts = peft != "none" and (self.visual_prompts > 0 or not _takes_prompts(peft))
        return self.context_learns or adapts


def _takes_prompts(peft: str) -> bool:
    """Returns whether a module trains nothing without visual prompts, as that of `auto`."""
    return peft == "auto" or PEFT.entries[peft].is_prompted


def frozen_if_auto(detector: Any) -> Any:
    """Returns a detector with `peft` of `none` in the place of `auto`, for what must not depend on the device.

    Args:
        detector: Any detector; one that trains nothing is returned as it is.
    """
    if isinstance(detector, Training) and detector.peft == "auto":
        return dataclasses.replace(detector, peft="none")
    return detector
