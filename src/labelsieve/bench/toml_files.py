"""The TOML files of experiments: paths of the shipped ones, and files that extend them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from labelsieve.core.errors import SettingsError, first_line, look_up


def shipped() -> dict[str, Path]:
    """Returns the paths of the shipped experiments, by name."""
    folder = Path(str(resources.files("labelsieve.bench"))) / "experiments"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def title_of(path: Path) -> str:
    """Returns the title of a shipped experiment, without checking the rest.

    Raises:
        SettingsError: The file is not TOML.
    """
    return str(extended(read_toml(path)).get("title", ""))


def read_toml(path: Path) -> dict[str, Any]:
    """Reads the tables of a file.

    Raises:
        SettingsError: It is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not TOML: it is not in UTF-8; save it in that encoding") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {first_line(error)}") from None
    except (ValueError, RecursionError):  # too long numbers, or too deep nesting
        raise SettingsError(f"{path} is not TOML: a number is too long, or lists are nested too deeply") from None


def extended(table: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the entries of the shipped experiment that a file extends, except published numbers.

    Raises:
        SettingsError: There is no such experiment, or it extends another one.
    """
    entries = dict(table)
    if (name := entries.pop("extends", None)) is None:
        return entries
    base = read_toml(look_up(shipped(), name, what="extends"))
    if "extends" in base:
        raise SettingsError(f"{name} extends {base['extends']}; extend that one")
    base.pop("published", None)
    return {**base, **entries}
