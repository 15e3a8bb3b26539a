"""Settings that the trained detectors share. Each is a flag, a TOML key and an entry of `run.json` at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_type_hints

from labelsieve.errors import SettingsError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Training:
    """How prompts and parameter-efficient modules are trained.

    Attributes:
        epochs: Passes over the data, at least 0; 0 leaves the model as it is.
        min_steps: Small data get more epochs until there are at least this many steps.
        warmup_epochs: Epochs that learn from all labels before the selection begins. They are stretched with
            `min_steps` in proportion.
        batch_size: B, over all processes together.
        learning_rate: Of SGD, with cosine decay by epoch.
        momentum: Of SGD, between 0 and 1.
        weight_decay: Of SGD, on everything that is trained.
        peft: How the vision tower is adapted: `none` keeps it frozen and trains on cached features.
        visual_prompts: L, tokens beside the patches for `vpt-deep` and `vpt-shallow`.
        context_tokens: M, learned context vectors before the class name.
        context_init: Text whose token embeddings the contexts start from, or `random` for N(0, 0.02²).
    """

    epochs: int = 10
    min_steps: int = 300
    warmup_epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 3e-2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    peft: Literal["none", "vpt-deep", "vpt-shallow"] = "none"
    visual_prompts: int = 20
    context_tokens: int = 4
    context_init: str = "a photo of a"

    def __post_init__(self) -> None:
        check_fields(self, _LEAST)
        if not 0 < self.learning_rate < float("inf"):
            raise SettingsError(f"expected a learning_rate above 0, got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise SettingsError(f"expected momentum from 0 to below 1, got {self.momentum}")


_NUMBERS = {int: Integral, float: Real}  # those of numpy too
_LEAST = {
    "epochs": 0,
    "min_steps": 0,
    "warmup_epochs": 0,
    "batch_size": 1,
    "weight_decay": 0,
    "visual_prompts": 0,
    "context_tokens": 1,
}


def check_fields(settings: Any, least: Mapping[str, float]) -> None:
    """Checks the kinds and choices of the fields of a dataclass, and numbers that have to be at least something.

    Raises:
        SettingsError: Names the field, what was expected and what came.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value, choices = getattr(settings, name), get_args(kind)
        if not choices and not isinstance(value, _NUMBERS.get(kind, kind)):
            raise SettingsError(f"expected {name} to be of type {kind.__name__}, got {value!r}")
        if choices and value not in choices:
            known = ", ".join(map(str, choices))
            raise SettingsError(f"expected {name} to be one of {known}, got {value}{did_you_mean(str(value), choices)}")
    for name, smallest in least.items():
        if not getattr(settings, name) >= smallest:
            raise SettingsError(f"expected {name} of at least {smallest}, got {getattr(settings, name)}")
