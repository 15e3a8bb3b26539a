"""Types, choices and ranges of settings: each number has its range in its annotation, and one function checks all.

A field such as `epochs: Annotated[int, Range(0, 1_000)] = 10` is checked in the same way whether its value comes from
the command line, a TOML file or Python. Upper bounds are beyond any sensible use; they prevent that a typing error uses
all memory, runs for ever or overflows in a library.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from labelsieve.core.errors import SettingsError, did_you_mean, look_up, setting, shown


@dataclass(frozen=True)
class Range:
    """The allowed numbers of a setting. NaN and infinity are never in it.

    Attributes:
        minimum: The smallest number.
        maximum: The largest number.
        above: Whether the minimum itself is excluded.
        below: Whether the maximum itself is excluded.
        hint: Advice for a number out of range, appended to the message.
        is_share: Whether it is a share, which the command line also accepts as a percentage.

    Example:
        >>> 1e308 in Range(0, 10, above=True), str(Range(0, 10, above=True))
        (False, 'above 0 and at most 10')
    """

    minimum: float
    maximum: float
    above: bool = False
    below: bool = False
    hint: str = ""
    is_share: bool = False

    def __contains__(self, value: Any) -> bool:
        """Returns whether a number is in the range."""
        return bool(
            (self.minimum < value if self.above else self.minimum <= value)
            and (value < self.maximum if self.below else value <= self.maximum)
        )

    def __str__(self) -> str:
        """Returns the range as messages show it."""
        low, high = _number(self.minimum), _number(self.maximum)
        if self.above:
            return f"above {low} and {'below' if self.below else 'at most'} {high}"
        return f"from {low} to {'below ' if self.below else ''}{high}"


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 2**32:
        return f"2^{value.bit_length() - 1}" if value.bit_count() == 1 else f"{value:.0e}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


# Types of settings that several modules use.
Seed = Annotated[int, Range(0, 2**63, below=True)]
_SHARE = "a share, such as 0.1 for 10 %"
_NONE_WRONG = "that no label is wrong is known only once all of them are looked at"
Share = Annotated[float, Range(0, 1, hint=_SHARE, is_share=True)]
Rate = Annotated[float, Range(0, 1, below=True, hint=_SHARE, is_share=True)]
FalseFlags = Annotated[float, Range(0, 1, above=True, below=True, hint=_SHARE, is_share=True)]
AtMost = Annotated[float, Range(0, 1, above=True, hint=f"{_SHARE}; {_NONE_WRONG}", is_share=True)]
Confidence = Annotated[float, Range(0.5, 1, below=True, hint="a share, such as 0.95 for 95 %", is_share=True)]
Limit = Annotated[int | None, Range(1, 1_000_000_000, hint="leave it out to take all images")]
# Sketches are drawn in memory. The demonstration needs some images of each class and each kind of noise.
SketchCount = Annotated[int, Range(1, 20_000)]
SceneCount = Annotated[int, Range(1, 5_000)]
DemoSize = Annotated[int, Range(48, 20_000)]
Epochs = Annotated[int, Range(0, 1_000)]
# On small data each step may be an epoch with a checkpoint.
Steps = Annotated[int, Range(0, 10_000)]
BatchSize = Annotated[int, Range(1, 2**20)]
# The default learning rate of every optimiser is at most 1; values above 10 diverge.
LearningRate = Annotated[float, Range(0, 10, above=True)]
Momentum = Annotated[float, Range(0, 1, below=True)]
WeightDecay = Annotated[float, Range(0, 10)]
# The cost of attention grows with the square of the number of tokens; the literature uses at most 200.
Tokens = Annotated[int, Range(0, 500)]
# A rank above the width of the image encoder adds nothing, and each block has several matrices of this size.
Bottleneck = Annotated[int, Range(1, 1_024)]
NeighbourCount = Annotated[int, Range(1, 10_000)]
# Each fold stores second moments of the features.
Folds = Annotated[int, Range(2, 100)]
# Side of the largest grid of windows, each of which is encoded.
Windows = Annotated[int, Range(1, 10)]
Weight = Annotated[float, Range(0, 1_000)]
# CLIP limits it to 100, SigLIP learns about 120; far above, the softmax in float32 is 1 for one class and 0 for others.
LogitScale = Annotated[float, Range(0, 10_000, above=True)]


def check_fields(settings: object) -> None:
    """Checks types, choices and ranges of all fields of a dataclass of settings.

    Raises:
        SettingsError: A field is invalid; the message names the first one.
    """
    for name, kind in field_kinds(type(settings)).items():
        check_value(name, getattr(settings, name), kind)


def check_ranges(options: object) -> None:
    """Checks only those fields of a dataclass whose annotation has a range.

    Raises:
        SettingsError: A field is out of range; the message names the first one.
    """
    for name, kind in field_kinds(type(options)).items():
        if range_of(kind) is not None:
            check_value(name, getattr(options, name), kind)


def check_value(name: str, value: Any, kind: Any) -> None:
    """Checks one value against its type.

    Args:
        name: Name of the setting.
        value: The value.
        kind: An annotation such as `Seed`, `int | None` or `Literal["auto", "none"]`.

    Raises:
        SettingsError: The value has another type, is not one of the choices, or is out of range.
    """
    _check(setting(name), value, kind)


def _check(name: str, value: Any, kind: Any) -> None:
    types, choices, limits = allowed_values(kind)
    if choices and not types:
        look_up(dict.fromkeys(choices), value, what=name)
        return
    if isinstance(value, str) and value in choices:
        return
    if not _fits(value, types):
        raise SettingsError(f"expected {name} to be of type {_type_names(types, choices)}, got {shown(_quoted(value))}")
    if limits is not None and value is not None and value not in limits:
        hint = f"; {limits.hint}" if limits.hint else ""
        raise SettingsError(f"expected {name} {limits}, got {shown(value)}{hint}")


def check_keys(names: Iterable[str], known: Sequence[str], *, what: str) -> None:
    """Checks that all names are known.

    Args:
        names: Names of settings.
        known: All valid names, or none.
        what: The object with the settings, as the first words of the message.

    Raises:
        SettingsError: A name is unknown; the message suggests the nearest known one.
    """
    for name in names:
        if name not in known:
            hint = f"known: {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"{what} has no setting {shown(name)}{did_you_mean(name, known)}; {hint}")


def check_environment() -> None:
    """Checks the environment variables in which a launcher numbers its processes.

    Raises:
        SettingsError: One of them is not an integer of at least 0.
    """
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        number_from_environment(name, _Process, default=0)


def number_from_environment(name: str, kind: Any, *, default: Any) -> Any:
    """Returns the number in an environment variable, or the default if the variable is unset or empty.

    Args:
        name: Name of the variable.
        kind: Type and range, such as `Seed`.
        default: Default, which is not checked.

    Raises:
        SettingsError: The value is not a number, or is out of range.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    types, _, limits = allowed_values(kind)
    try:
        value = int(text) if int in types else float(text)
    except ValueError:
        expected = "an integer" if int in types else "a number"
        hint = f"; {limits.hint}" if limits is not None and limits.hint else ""
        raise SettingsError(f'expected {name} to be {expected} {limits}, got "{shown(text)}"{hint}') from None
    _check(name, value, kind)
    return value


_Process = Annotated[int, Range(0, 2**20)]


def field_names(kind: type) -> list[str]:
    """Returns the names of the fields of a dataclass of settings."""
    return [field.name for field in dataclasses.fields(kind)]


def field_kinds(kind: type) -> Mapping[str, Any]:
    """Returns the annotation of each field of a dataclass, with its range."""
    return _field_kinds(cast(Hashable, kind))


@cache  # called for each instance of settings, and evaluating the annotations takes a millisecond
def _field_kinds(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in field_names(kind)}


def range_of(kind: Any) -> Range | None:
    """Returns the range in an annotation such as `Seed`; None if it has none."""
    return allowed_values(kind).limits


class AllowedValues(NamedTuple):
    """The types and choices that an annotation such as `int | Literal["auto"]` allows, and the range of a number."""

    types: tuple[Any, ...]
    choices: tuple[str, ...]
    limits: Range | None


def allowed_values(kind: Any) -> AllowedValues:
    """Returns what an annotation such as `BatchSize` or `int | None` allows."""
    if get_origin(kind) is Annotated:
        inner, *extras = get_args(kind)
        types, choices, limits = allowed_values(inner)
        return AllowedValues(types, choices, next((each for each in extras if isinstance(each, Range)), limits))
    if get_origin(kind) is Literal:
        return AllowedValues((), get_args(kind), None)
    if get_origin(kind) not in (UnionType, Union):
        return AllowedValues((kind,), (), None)
    members = [allowed_values(each) for each in get_args(kind)]
    return AllowedValues(
        tuple(each for member in members for each in member.types),
        tuple(choice for member in members for choice in member.choices),
        next((member.limits for member in members if member.limits is not None), None),
    )


def _fits(value: Any, types: Sequence[Any]) -> bool:
    if isinstance(value, bool):  # bool is a subclass of int
        return bool in types
    return isinstance(value, tuple(_NUMBERS.get(each, get_origin(each) or each) for each in types))


def _type_names(allowed: Sequence[Any], choices: Sequence[str]) -> str:
    types = [(get_origin(each) or each).__name__ for each in allowed if each is not NoneType]
    return " or ".join([*types, *map(repr, choices)])


def _quoted(value: Any) -> Any:
    return repr(value) if isinstance(value, str) else value


_NUMBERS: dict[Any, Any] = {int: Integral, float: Real}  # includes NumPy scalars
