"""Settings that the trained detectors share. Each is a flag, a TOML key and an entry of `run.json` at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from labelsieve.errors import SettingsError, did_you_mean, look_up


def check_fields(settings: Any) -> None:
    """Checks that each field of a dataclass of settings has its type, or is one of its choices.

    Raises:
        SettingsError: Names the first that is not.
    """
    kinds = get_type_hints(type(settings))
    for name in field_names(type(settings)):
        kind, value = kinds[name], getattr(settings, name)
        if get_origin(kind) is Literal:
            look_up(dict.fromkeys(get_args(kind)), value, what=name)
        elif not _fits(value, kind):
            raise SettingsError(f"expected {name} to be of type {_spoken(kind)}, got {value!r}")


def _alternatives(kind: Any) -> tuple[list[Any], list[Any]]:
    """Returns the types and the words of an annotation such as `int | Literal["auto"]`."""
    kinds = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    words = [word for each in kinds if get_origin(each) is Literal for word in get_args(each)]
    return [each for each in kinds if get_origin(each) is not Literal], words


def _fits(value: Any, kind: Any) -> bool:
    kinds, words = _alternatives(kind)
    if isinstance(value, bool):  # which Python counts among the whole numbers
        return bool in kinds
    types = tuple(_NUMBERS.get(each, get_origin(each) or each) for each in kinds)
    return isinstance(value, types) or (isinstance(value, str) and value in words)


def _spoken(kind: Any) -> str:
    kinds, words = _alternatives(kind)
    types = [(get_origin(each) or each).__name__ for each in kinds if each is not NoneType]
    return " or ".join([*types, *map(repr, words)])


def field_names(kind: type) -> list[str]:
    """Returns the names of the fields of a dataclass of settings."""
    return [field.name for field in dataclasses.fields(kind)]


def check_keys(given: Iterable[str], known: Sequence[str], *, what: str) -> None:
    """Checks that all names are known.

    Raises:
        SettingsError: Names the first that is not, and the nearest that is.
    """
    for name in given:
        if name not in known:
            there = f"known: {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"{what} has no setting {name}{did_you_mean(name, known)}; {there}")


def check_least(settings: Any, **least: float) -> None:
    """Checks that fields are finite and not below their least values.

    Raises:
        SettingsError: Names the first that is.
    """
    for name, value in least.items():
        given = getattr(settings, name)
        if not isinstance(given, str) and not value <= given < float("inf"):  # a word has been looked up before
            raise SettingsError(f"expected {name} of at least {value}, got {given}")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How prompts and parameter-efficient modules are trained.

    Attributes:
        epochs: Passes over the data, at least 0; 0 leaves the model as it is.
        min_steps: Small data get more epochs until there are at least this many steps.
        warmup_epochs: Epochs that learn from all labels before the selection begins. They are stretched with
            `min_steps` in proportion.
        batch_size: B, over all processes together. `auto` is 64; where the tower is frozen and its features are kept,
            it grows with the data to 2048 at most, as far as there are still 300 steps, or `min_steps` if that is
            more. A batch that does not fit into memory passes the tower in parts.
        learning_rate: Of SGD, with cosine decay by epoch. The default suits prompts and small modules; full fine-tuning
            (`--peft full`) wants far less, such as the 5e-4 that the paper fine-tunes a classifier with.
        momentum: Of SGD, between 0 and 1.
        weight_decay: Of SGD, on everything that is trained.
        peft: How the vision tower is adapted: `none` keeps it frozen and trains on cached features, mostly within
            seconds; `labelsieve list` says what the others are and how much each trains. `auto` is `vpt-deep` on an
            accelerator and `none` on a CPU.
        compile: Whether an adapted tower goes through `torch.compile`, which takes seconds to minutes and rounds in
            another way; `auto` is `on` on CUDA where 200,000 images or more pass it in all epochs, else `off`.
        visual_prompts: L, tokens beside the patches for `vpt-deep` and `vpt-shallow`.
        bottleneck: Rank of `lora` and width of `adapter`.
        context_tokens: M, learned context vectors before the class name.
        context_init: Text whose token embeddings the contexts start from, or `random` for N(0, 0.02²).
        context_learns: False keeps the context of the positive prompts as it began: a fixed text beside visual prompts
            or another change of the tower.
        predicts_test: What was trained can classify test images, too.
    """

    predicts_test: ClassVar[bool] = True

    epochs: int = 10
    min_steps: int = 300
    warmup_epochs: int = 1
    batch_size: int | Literal["auto"] = "auto"
    learning_rate: float = 3e-2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    peft: Literal[
        "auto", "none", "vpt-deep", "vpt-shallow", "lora", "adapter", "ssf", "bitfit", "full", "full-paper"
    ] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    visual_prompts: int = 20
    bottleneck: int = 8
    context_tokens: int = 4
    context_init: str = "a photo of a"
    context_learns: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_least(self, **_LEAST)
        if not 0 < self.learning_rate < float("inf"):
            raise SettingsError(f"expected a learning_rate above 0, got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise SettingsError(f"expected momentum from 0 to below 1, got {self.momentum}")
        if self.epochs and not self.trains_something(peft=self.peft):
            without = " without visual_prompts" if self.peft.startswith("vpt") else ""
            raise SettingsError(
                f"nothing is left to train: context_learns false keeps the text and peft {self.peft}{without} the "
                "tower as they are; change one of the two, or use epochs 0"
            )

    @property
    def looks_before_epochs(self) -> bool:
        """Whether all plain images are looked at before each epoch after warm-up, to learn from some of them."""
        return False

    def trains_something(self, *, peft: str) -> bool:
        """Tells whether anything learns if the tower is adapted in a given way."""
        adapts = peft != "none" and (self.visual_prompts > 0 or not peft.startswith("vpt"))
        return self.context_learns or adapts


def frozen_if_auto(detector: Any) -> Any:
    """Returns a detector with `peft` of `none` in the place of `auto`, for what must not depend on the device.

    Args:
        detector: Any detector; one that trains nothing is returned as it is.
    """
    if isinstance(detector, Training) and detector.peft == "auto":
        return dataclasses.replace(detector, peft="none")
    return detector


_NUMBERS: dict[Any, Any] = {int: Integral, float: Real}  # those of numpy too
_LEAST: dict[str, float] = {
    "epochs": 0,
    "min_steps": 0,
    "warmup_epochs": 0,
    "batch_size": 1,
    "weight_decay": 0,
    "visual_prompts": 0,
    "bottleneck": 1,
    "context_tokens": 1,
}
