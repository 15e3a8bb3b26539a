"""Types, choices and ranges of settings: each number states its range beside its type, and one function checks all.

A field such as `epochs: Annotated[int, Range(0, 1_000)] = 10` is checked alike whether it comes from the command line,
a TOML file or Python. Upper bounds lie beyond any sensible use; they keep a slip of the finger from taking all memory,
running for ever or overflowing in a library.
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

from labelsieve.core.errors import SettingsError, did_you_mean, look_up, shown


@dataclass(frozen=True)
class Range:
    """Which numbers a setting may have. Neither NaN nor infinity ever is in it.

    Attributes:
        minimum: The smallest number.
        maximum: The largest number.
        above: Whether the minimum itself is out.
        below: Whether the maximum itself is out.
        hint: What to do with a number that is out, appended to the message.

    Example:
        >>> 1e308 in Range(0, 10, above=True), str(Range(0, 10, above=True))
        (False, 'above 0 and at most 10')
    """

    minimum: float
    maximum: float
    above: bool = False
    below: bool = False
    hint: str = ""

    def __contains__(self, value: Any) -> bool:
        """Returns whether a number is in the range."""
        return bool(
            (self.minimum < value if self.above else self.minimum <= value)
            and (value < self.maximum if self.below else value <= self.maximum)
        )

    def __str__(self) -> str:
        """Returns what a message says of it."""
        low, high = _number(self.minimum), _number(self.maximum)
        if self.above:
            return f"above {low} and {'below' if self.below else 'at most'} {high}"
        return f"from {low} to {'below ' if self.below else ''}{high}"


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 2**32:
        return f"2^{value.bit_length() - 1}" if value.bit_count() == 1 else f"{value:.0e}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


# Settings that several places have.
Seed = Annotated[int, Range(0, 2**63, below=True)]
Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, below=True, hint="a share, not a percentage")]
Limit = Annotated[int | None, Range(1, 1_000_000_000, hint="leave it out to take all images")]
# They are made in memory, one after the other. The demonstration wants some of each class and kind of noise.
FewDrawings = Annotated[int, Range(1, 20_000)]
Scenes = Annotated[int, Range(1, 5_000)]
Drawings = Annotated[int, Range(48, 20_000)]
Epochs = Annotated[int, Range(0, 1_000)]
# Of small data each step may be an epoch of its own, with a checkpoint.
Steps = Annotated[int, Range(0, 10_000)]
BatchSize = Annotated[int, Range(1, 2**20)]
# The default of every optimiser here is 1 at most; steps of more than this are sure to diverge.
LearningRate = Annotated[float, Range(0, 10, above=True)]
Momentum = Annotated[float, Range(0, 1, below=True)]
WeightDecay = Annotated[float, Range(0, 10)]
# Attention grows with the square of the tokens; the literature takes 200 at most.
Tokens = Annotated[int, Range(0, 500)]
# A rank beyond the width of an image encoder adds nothing, and each block has several matrices of this size.
Bottleneck = Annotated[int, Range(1, 1_024)]
Neighbours = Annotated[int, Range(1, 10_000)]
# Each fold holds second moments of the features.
Folds = Annotated[int, Range(2, 100)]
# Grids of up to so many windows a side, each of which is encoded.
Windows = Annotated[int, Range(1, 10)]
Weight = Annotated[float, Range(0, 1_000)]
# CLIP ends at 100, SigLIP near 120; beyond, float32 rounds all but one class away.
LogitScale = Annotated[float, Range(0, 10_000, above=True)]


def check_fields(settings: object) -> None:
    """Checks that each field of a dataclass of settings has its type, is one of its choices, and is in its range.

    Raises:
        SettingsError: Names the first that is not.
    """
    for name, kind in field_kinds(type(settings)).items():
        check_value(name, getattr(settings, name), kind)


def check_ranges(options: object) -> None:
    """Checks those fields of a dataclass that state a range; the others may hold anything.

    Raises:
        SettingsError: Names the first that is out of its range.
    """
    for name, kind in field_kinds(type(options)).items():
        if range_of(kind) is not None:
            check_value(name, getattr(options, name), kind)


def check_value(name: str, value: Any, kind: Any) -> None:
    """Checks one value against its type.

    Args:
        name: What messages call it.
        value: The value.
        kind: An annotation such as `Seed`, `int | None` or `Literal["auto", "none"]`.

    Raises:
        SettingsError: It has another type, is none of the choices, or is out of the range.
    """
    kinds, words, limits = _read(kind)
    if words and not kinds:
        look_up(dict.fromkeys(words), value, what=name)
        return
    if isinstance(value, str) and value in words:
        return
    if not _fits(value, kinds):
        raise SettingsError(f"expected {name} to be of type {_spoken(kinds, words)}, got {shown(_quoted(value))}")
    if limits is not None and value is not None and value not in limits:
        hint = f"; {limits.hint}" if limits.hint else ""
        raise SettingsError(f"expected {name} {limits}, got {shown(value)}{hint}")


def check_keys(given: Iterable[str], known: Sequence[str], *, what: str) -> None:
    """Checks that all names are known.

    Raises:
        SettingsError: Names the first that is not, and the nearest that is.
    """
    for name in given:
        if name not in known:
            there = f"known: {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"{what} has no setting {shown(name)}{did_you_mean(name, known)}; {there}")


def check_environment() -> None:
    """Checks the numbers by which a launcher of several processes tells each of them who it is.

    Raises:
        SettingsError: One of the variables is no integer from 0.
    """
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        number_from_environment(name, _Process, default=0)


def number_from_environment(name: str, kind: Any, *, default: Any) -> Any:
    """Returns the number that an environment variable holds; the default where it is unset or empty.

    Args:
        name: Of the variable.
        kind: Type and range, such as `Seed`.
        default: Returned as it is.

    Raises:
        SettingsError: It holds no number, or one that is out of the range.
    """
    said = os.environ.get(name, "").strip()
    if not said:
        return default
    kinds, _, limits = _read(kind)
    try:
        value = int(said) if int in kinds else float(said)
    except ValueError:
        words = "an integer" if int in kinds else "a number"
        hint = f"; {limits.hint}" if limits is not None and limits.hint else ""
        raise SettingsError(f'expected {name} to be {words} {limits}, got "{shown(said)}"{hint}') from None
    check_value(name, value, kind)
    return value


_Process = Annotated[int, Range(0, 2**20)]


def field_names(kind: type) -> list[str]:
    """Returns the names of the fields of a dataclass of settings."""
    return [field.name for field in dataclasses.fields(kind)]


def field_kinds(kind: type) -> Mapping[str, Any]:
    """Returns the type of each field of a dataclass, with the range that it states."""
    return _field_kinds(cast(Hashable, kind))


@cache  # all settings that are made ask, and it takes a millisecond to read the annotations
def _field_kinds(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in field_names(kind)}


def range_of(kind: Any) -> Range | None:
    """Returns the range that a type states, such as that of `Seed`; None where it states none."""
    return _read(kind).limits


class _Kind(NamedTuple):
    """The types and the words that an annotation such as `int | Literal["auto"]` allows, and the range of a number."""

    types: tuple[Any, ...]
    words: tuple[str, ...]
    limits: Range | None


def _read(kind: Any) -> _Kind:
    if get_origin(kind) is Annotated:
        inner, *extras = get_args(kind)
        types, words, limits = _read(inner)
        return _Kind(types, words, next((each for each in extras if isinstance(each, Range)), limits))
    if get_origin(kind) is Literal:
        return _Kind((), get_args(kind), None)
    if get_origin(kind) not in (UnionType, Union):
        return _Kind((kind,), (), None)
    parts = [_read(each) for each in get_args(kind)]
    return _Kind(
        tuple(each for part in parts for each in part.types),
        tuple(word for part in parts for word in part.words),
        next((part.limits for part in parts if part.limits is not None), None),
    )


def _fits(value: Any, kinds: Sequence[Any]) -> bool:
    if isinstance(value, bool):  # which Python counts among the integers
        return bool in kinds
    return isinstance(value, tuple(_NUMBERS.get(each, get_origin(each) or each) for each in kinds))


def _spoken(kinds: Sequence[Any], words: Sequence[str]) -> str:
    types = [(get_origin(each) or each).__name__ for each in kinds if each is not NoneType]
    return " or ".join([*types, *map(repr, words)])


def _quoted(value: Any) -> Any:
    return repr(value) if isinstance(value, str) else value


_NUMBERS: dict[Any, Any] = {int: Integral, float: Real}  # those of numpy too
