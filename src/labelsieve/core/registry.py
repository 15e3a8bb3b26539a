"""Registries: tables of choices by name, each with a description and an import path."""

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
    """One entry of a registry.

    Attributes:
        name: Name on the command line.
        place: `module:attribute`, imported on first use, so that listing the choices imports nothing.
        about: Description in one line; by default the first sentence of the docstring.
    """

    name: str
    place: str
    about: str = ""


EntryT = TypeVar("EntryT", bound=Entry)


class Registry(Mapping[str, T], Generic[T, EntryT]):
    """A mapping from names to objects, which are imported on access.

    Flags, help, `labelsieve list`, messages and tests derive from it.

    Args:
        title: What is chosen, for messages: a command-line option such as `--peft`, or a word.
        *entries: The choices, in the order in which they are listed.

    Raises:
        SettingsError: Two entries have the same name.

    Example:
        >>> codecs = Registry("--codec", Entry("json", "json:dumps", "text"), Entry("hex", "binascii:hexlify"))
        >>> list(codecs), codecs["json"]([1]), codecs.about("json")
        (['json', 'hex'], '[1]', 'text')
    """

    def __init__(self, title: str, *entries: EntryT) -> None:
        self.title, self.entries = title, dict[str, EntryT]()
        for entry in entries:
            if entry.name in self.entries:
                raise SettingsError(f"{title} {entry.name} is registered twice; choose another name")
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
        """Returns the description of an entry, in one line."""
        return self.entries[name].about or first_sentence(self[name])

    def name_of(self, thing: Any) -> str | None:
        """Returns the name under which a class or function is registered; None if it is not."""
        place = f"{thing.__module__}:{thing.__qualname__}"
        return next((name for name, entry in self.entries.items() if entry.place == place), None)

    def label_of(self, instance: object) -> str:
        """Returns the name under which the class of an object is registered, or the name of the class."""
        return self.name_of(type(instance)) or type(instance).__qualname__


def loaded(place: str) -> Any:
    """Imports an object given as `module:attribute`.

    Example:
        >>> loaded("json:dumps")([1])
        '[1]'
    """
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def first_sentence(thing: Any) -> str:
    """Returns the first sentence of a docstring without backticks.

    Example:
        >>> first_sentence(first_sentence)
        'Returns the first sentence of a docstring without backticks'
    """
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
    return text.split(". ")[0].rstrip(".") if text else ""
