"""Deprecated names: they work until a given release, with a warning that names the replacement.

A warning is a `FutureWarning`, which Python shows to users by default.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from labelsieve.core.errors import SettingsError

_P = ParamSpec("_P")
_ResultT = TypeVar("_ResultT")


def deprecated(*, instead: str, removed_in: str) -> Callable[[Callable[_P, _ResultT]], Callable[_P, _ResultT]]:
    """Makes a function warn when it is called.

    Args:
        instead: The replacement, as code.
        removed_in: The version that removes the function.

    Example:
        >>> @deprecated(instead="load_images()", removed_in="0.3")
        ... def read_images(): ...
    """

    def decorate(function: Callable[_P, _ResultT]) -> Callable[_P, _ResultT]:
        @functools.wraps(function)
        def warned(*args: _P.args, **named: _P.kwargs) -> _ResultT:
            _warn(f"{function.__name__}()", instead=instead, removed_in=removed_in)
            return function(*args, **named)

        return warned

    return decorate


def renamed_arguments(
    *, removed_in: str, **new_names: str
) -> Callable[[Callable[..., _ResultT]], Callable[..., _ResultT]]:
    """Makes a function accept the old names of keyword arguments, with a warning.

    Args:
        removed_in: The version that removes the old names.
        new_names: The new name for each old name.

    Raises:
        SettingsError: A call passes an argument by both names.

    Example:
        >>> @renamed_arguments(lora_rank="bottleneck", removed_in="0.3")
        ... def adapt(*, bottleneck=8): ...
    """

    def decorate(function: Callable[..., _ResultT]) -> Callable[..., _ResultT]:
        @functools.wraps(function)
        def renaming(*args: Any, **named: Any) -> _ResultT:
            for old in new_names.keys() & named.keys():
                new, where = new_names[old], function.__name__
                if new in named:
                    raise SettingsError(
                        f"expected one of {new} and its old name {old} in {where}(), got both; use {new}"
                    )
                _warn(f"{old} of {where}()", instead=new, removed_in=removed_in)
                named[new] = named.pop(old)
            return function(*args, **named)

        return renaming

    return decorate


def _warn(what: str, *, instead: str, removed_in: str) -> None:
    # level 3 is the caller of the deprecated function
    warnings.warn(f"{what} goes with labelsieve {removed_in}; use {instead}", FutureWarning, stacklevel=3)
