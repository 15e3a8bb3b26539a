"""What there is to choose from, by name: one line a choice, with what it is and where it is loaded from."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from labelsieve.core.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One choice.

    Attributes:
        name: What a user types.
        place: `module:attribute`, imported when it is first used, so that a list of choices costs no import.
        about: What it is, in one line; empty where the first sentence of its docstring says so.
    """

    name: str
    place: str
    about: str = ""


EntryT = TypeVar("EntryT", bound=Entry)


class Registry(Mapping[str, T], Generic[T, EntryT]):
    """A table of choices: flags, help, `labelsieve list`, messages and tests derive from it.

    As a mapping it holds names and the objects themselves, each loaded when it is asked for.

    Args:
        option: What a user chooses with, such as `--peft`.
        *entries: The choices, in the order in which they are listed.

    Raises:
        SettingsError: Two of them have one name.

    Example:
        >>> codecs = Registry("--codec", Entry("json", "json:dumps", "text"), Entry("hex", "binascii:hexlify"))
        >>> list(codecs), codecs["json"]([1]), codecs.about("json")
        (['json', 'hex'], '[1]', 'text')
    """

    def __init__(self, option: str, *entries: EntryT) -> None:
        self.option, self.entries = option, dict[str, EntryT]()
        for entry in entries:
            if entry.name in self.entries:
                raise SettingsError(f"{option} {entry.name} is registered twice; choose another name")
            self.entries[entry.name] = entry

    def __getitem__(self, name: str) -> T:
        return loaded(self.entries[name].place)  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:
        return name in self.entries  # without loading it

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def about(self, name: str) -> str:
        """Returns what a choice is, in one line."""
        return self.entries[name].about or first_sentence(self[name])

    def name_of(self, thing: Any) -> str | None:
        """Returns the name under which a class or function is registered, None if it is not."""
        place = f"{thing.__module__}:{thing.__qualname__}"
        return next((name for name, entry in self.entries.items() if entry.place == place), None)


def loaded(place: str) -> Any:
    """Loads what a place names, as `module:attribute`.

    Example:
        >>> loaded("json:dumps")([1])
        '[1]'
    """
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def first_sentence(thing: Any) -> str:
    """Returns the first sentence of a docstring without marks of code.

    Example:
        >>> first_sentence(first_sentence)
        'Returns the first sentence of a docstring without marks of code'
    """
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
    return text.split(". ")[0].rstrip(".") if text else ""
