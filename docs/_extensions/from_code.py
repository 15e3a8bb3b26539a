"""What the reference takes from the code: options from the parsers of the commands, tables from the registries.

A page has a comment such as `<!-- from code: command line -->` where such a part goes. Beside that, a docstring may
name a class by the module that holds it: the link leads to the page of its public name.
"""

from __future__ import annotations

import argparse
import inspect
import re
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest import mock

import tyro
from docutils.nodes import Element, reference
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from labelsieve.cli import VERBS
from labelsieve.commands.listing import entries
from labelsieve.detect.registry import DETECTORS

_OF_A_DETECTOR = "settings options"
_PLACE = re.compile(r"<!-- from code: (.+) -->")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects this extension."""
    app.connect("source-read", fill)
    app.connect("missing-reference", by_public_name)
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-skip-member", is_tuple_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Puts text made of the code in the place of the comments that ask for it."""
    source[0] = _PLACE.sub(lambda found: _PARTS[found[1]]() if found[1] in _PARTS else choices(found[1]), source[0])


def command_line() -> str:
    """Returns a section for each verb with all its options, but those of detectors other than the default."""
    return "\n".join(f"## `labelsieve {verb}`\n\n{_sections(_parser(verb))}" for verb in VERBS)


def detector_options() -> str:
    """Returns a section for each detector with the options that it adds to `labelsieve scan`."""
    return "\n".join(f"### `--detector {name}`\n\n{_options_of(name)}" for name in DETECTORS)


def choices(option: str) -> str:
    """Returns a table of what an option can be, as `labelsieve list` has it."""
    rows = [(name, about) for each, name, about in _entries() if each == option]
    if not rows:
        raise ValueError(f"there is no list of {option}")
    lines = [f"| {_name(option, name)} | {_plain(about)} |" for name, about in rows]
    return "\n".join(["| name | what it is |", "|---|---|", *lines])


@cache
def _entries() -> list[tuple[str, str, str]]:
    return list(entries(None))


def _name(option: str, name: str) -> str:
    return f"[`{name}`](../detectors/{name}.md)" if option == "--detector" else f"`{name}`"


def _options_of(detector: str) -> str:
    parser = _parser("scan", "--detector", detector)
    options = [_option(each) for title, _, actions in _groups(parser) if title == _OF_A_DETECTOR for each in actions]
    return f"{_program(parser, '--detector', detector)}\n" + ("".join(options) or "None.\n")


def _sections(parser: argparse.ArgumentParser) -> str:
    text = [_program(parser), f"{_plain(parser.description)}\n"]
    for title, about, actions in _groups(parser):
        if title not in ("positional arguments", "options"):
            text.append(f"### {title.capitalize()}\n\n{_plain(about)}\n")
        text.extend(map(_option, actions))
    return "\n".join(text)


def _program(parser: argparse.ArgumentParser, *words: str) -> str:
    return f"```{{program}} {' '.join([parser.prog, *words])}\n```\n"


class _Made(Exception):  # noqa: N818  # it is no error
    """Carries a parser out of the command that makes it."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser


def _parser(verb: str, *args: str) -> Any:
    """Returns the parser that a verb makes of the first words after it."""

    def make(kind: Any, *, prog: str, default: Any, **_others: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what takes its place is not said
            raise _Made(tyro.extras.get_parser(kind, prog=prog, default=default))

    with mock.patch("tyro.cli", make):
        try:
            VERBS[verb].parse(args, prog=f"labelsieve {verb}")
        except _Made as made:
            return made.parser
    raise RuntimeError(f"labelsieve {verb} makes no parser")


def _groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str | None, list[argparse.Action]]]:
    """Yields title, description and options of each group of a parser that has options."""
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.dest != "help"]
        if actions:
            yield str(group.title), group.description, actions


def _option(action: argparse.Action) -> str:
    names = action.option_strings or [str(action.metavar)]
    value = f" {action.metavar}" if action.option_strings and action.metavar else ""
    return f"````{{option}} {', '.join(name + value for name in names)}\n{_plain(action.help)}\n````\n"


def _plain(text: str | None) -> str:
    """Returns text in which nothing but code is marked up."""
    parts = (text or "").split("`")
    parts[::2] = [re.sub(r"([\\*_\[\]<>|{}$])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


_PARTS = {"command line": command_line, "options of detectors": detector_options}


def by_public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> reference | None:
    """Links what is named by its module or by its last name to the page that has it, if there is just one."""
    if node.get("refdomain") != "py":
        return None
    last = "." + node["reftarget"].rpartition(".")[2]
    objects = env.domains.python_domain.objects
    pages = [name for name in objects if name.endswith(last)]
    if len(pages) != 1:
        return None
    domain, page = env.domains.python_domain, node.get("refdoc", "")
    return domain.resolve_xref(env, page, app.builder, "obj", pages[0], node, content)


class _Written(str):
    """An annotation that is shown as it stands in the code."""

    def __repr__(self) -> str:
        return str(self)


def as_written(
    _app: Sphinx, what: str, _name: str, thing: Any, _options: Any, _signature: str, _returns: str
) -> tuple[str, str | None] | None:
    """Shows the settings of a class as they are written: `Epochs`, not the range that this name stands for."""
    if what != "class" or not hasattr(thing, "__dataclass_fields__"):
        return None
    signature = inspect.signature(thing)
    parameters = [each.replace(annotation=_Written(each.annotation)) for each in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)), None


def is_tuple_field(_app: Sphinx, _what: str, _name: str, thing: Any, _skip: bool, _options: Any) -> bool | None:
    """Skips the fields of a named tuple, which its docstring describes."""
    return True if type(thing).__name__ == "_tuplegetter" else None
