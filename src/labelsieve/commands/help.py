"""The help of the verbs. Of verbs with many options, the short help has the most used ones, with one line each.

`--help` shows these, `--help-all` shows all. Both accept the same options.
"""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, NoReturn, TextIO, get_args, get_origin, get_type_hints

import tyro
from docstring_parser import Docstring, DocstringStyle, parse
from tyro.conf import OmitArgPrefixes, Positional, arg

from labelsieve.core.quantities import bind_units, plain
from labelsieve.core.validation import range_of

HELP, HELP_ALL = ("-h", "--help"), "--help-all"

# By verb: the title of each group and its fields. An empty title is the first group, which has --help. A verb that is
# missing here shows all its options. Fields that the chosen detector lacks are left out.
SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "scan": {
        "": ("out", "resume", "overwrite", "device", "precision", "seed"),
        "data": ("image_column", "image_folder", "label_column", "truth_column", "class_names", "split", "limit"),
        "method": ("model", "detector", "recipe", "test", "reviewed"),
        "detector": (
            *("epochs", "batch_size", "learning_rate", "peft", "evidence", "noise_rate", "learns_from"),
            *("average_of", "percentile"),
        ),
    },
    "adapt": {
        "": ("out", "resume", "overwrite", "device", "precision", "seed"),
        "data": ("source", "marks", "labels", "drop_at", "weighting", "class_weights", "validation", "test"),
        "training": ("backbone", "recipe", "loss", "tune", "epochs", "batch_size", "learning_rate"),
    },
}
# The group of a detector shows all settings if there are at most this many.
_MAX_SETTINGS = 6
# The period after "Eq" does not end a sentence.
_END = re.compile(r"(?<!\bEq)\.\s|\.$|;\s")
# Maximum length of a help text in characters, about one and a half lines beside the names of the options.
_MAX_LENGTH = 80


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option, or the positional argument, of a verb.

    Attributes:
        name: The field.
        group: The field that holds its dataclass; empty for one of the verb itself.
        kind: Its annotation.
        value: Its default, or `tyro.MISSING` if it is required.
        about: Its help.
    """

    name: str
    group: str
    kind: Any
    value: Any
    about: str

    @property
    def is_positional(self) -> bool:
        """Returns whether it is a positional argument."""
        return _POSITIONAL in get_args(self.kind)

    @property
    def flag(self) -> str:
        """Returns how it is written: `--drop-at`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def takes_several(self) -> bool:
        """Returns whether several words may follow it."""
        return get_origin(_without_extras(self.kind)) is tuple

    def field(self, *, brief: bool) -> tuple[str, Any, Any]:
        """Returns a field of a dataclass for the help, with its whole text or, if brief, one line of it."""
        text = _first_clause(self.about) if brief and not self.is_positional else self.about
        inner, *extras = get_args(self.kind) if get_origin(self.kind) is Annotated else (self.kind,)
        # a metavar or hint of the field itself comes later and counts
        shown = Annotated[(inner, self._usual(), *extras, arg(help=bind_units(text)))]  # type: ignore[valid-type]
        start = {} if self.value is tyro.MISSING else {"default": self.value}
        return self.name, shown, dataclasses.field(**start)

    def _usual(self) -> Any:
        """Returns what the help says of the value and its default: shares are percentages."""
        limits = range_of(self.kind)
        is_share = limits is not None and limits.is_share
        default = f"(default: {100 * self.value:.12g}%)" if is_share and isinstance(self.value, int | float) else None
        return arg(
            metavar="SHARE" if is_share else None,
            help_behavior_hint="(optional)" if self.value in (None, ()) else default,
        )


_POSITIONAL = get_args(Positional[str])[1]


def wants_help(args: Sequence[str]) -> str | None:
    """Returns the requested help, `--help` or `--help-all`; None without any."""
    words = list(args)
    options = words[: words.index("--")] if "--" in words else words
    if HELP_ALL in options:
        return HELP_ALL
    return HELP[1] if set(HELP) & set(options) else None


def show_help(kind: Any, *, prog: str, requested: str, default: Any) -> NoReturn:
    """Prints the help of a verb.

    Args:
        kind: Its dataclass, or a generic one with the settings of a detector.
        prog: Name of the command, such as `labelsieve scan`.
        requested: `--help` or `--help-all`.
        default: The default passed to `tyro.cli`.

    Raises:
        SystemExit: Always, with code 0.
    """
    options = list(options_of(get_origin(kind) or kind, default))
    groups = SHOWN.get(prog.rpartition(" ")[2]) if requested != HELP_ALL else None
    shown = _by_dataclass(options) if groups is None else _grouped(options, groups)
    with suppress(SystemExit), redirect_stdout(_PlainSpaces(sys.stdout)):
        tyro.cli(_outline(kind, options, shown, brief=groups is not None), args=["--help"], prog=prog)
    if groups is not None:
        hidden = sum(not each.is_positional for each in options) - sum(map(len, shown.values()))
        print(f"{prog} {HELP_ALL} shows the other {hidden} options, and all in full.")
    raise SystemExit(0)


class _PlainSpaces(io.TextIOBase):
    """Writes to another stream with usual spaces: non-breaking ones keep a number and its unit on one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the frame of the help depends on it
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        self._stream.write(plain(text))
        return len(text)


def options_of(kind: Any, default: Any = None, *, group: str = "") -> Iterator[Option]:
    """Yields the options of a dataclass and of its nested dataclasses.

    Args:
        kind: The dataclass.
        default: An instance whose fields replace the defaults of the class.
        group: The field that holds the dataclass.
    """
    hints, about = get_type_hints(kind, include_extras=True), _about(kind)
    for each in dataclasses.fields(kind):
        value = _start(each) if default is None else getattr(default, each.name)
        inner = type(value) if dataclasses.is_dataclass(value) else _without_extras(hints[each.name])
        if dataclasses.is_dataclass(inner):
            nested = value if dataclasses.is_dataclass(value) else None
            yield from options_of(inner, nested, group=each.name)
        else:
            yield Option(
                name=each.name, group=group, kind=hints[each.name], value=value, about=about.get(each.name, "")
            )


def _start(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


def _without_extras(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _about(kind: type) -> dict[str, str]:
    """Returns the help of each field, from the docstrings of a class and its base classes."""
    attributes = (each for kind in reversed(kind.__mro__) for each in _docstring(kind).params)
    return {each.arg_name: " ".join((each.description or "").split()) for each in attributes}


def _docstring(kind: type) -> Docstring:
    return parse(kind.__doc__ or "", DocstringStyle.GOOGLE)


def _first_clause(text: str) -> str:
    """Returns the first sentence up to its semicolon or, if that is long, up to its colon."""
    clause = _END.split(text, maxsplit=1)[0]
    return clause if len(clause) <= _MAX_LENGTH else clause.partition(": ")[0]


def _grouped(options: Sequence[Option], groups: Mapping[str, Sequence[str]]) -> dict[str, list[Option]]:
    """Returns the options of each group, in the order of `SHOWN`."""
    named = {each.name: each for each in options if not each.is_positional}
    settings = [each for each in options if each.group == "settings"]
    grouped = {title: [named[name] for name in names if name in named] for title, names in groups.items()}
    if len(settings) <= _MAX_SETTINGS and "detector" in grouped:
        grouped["detector"] = settings
    return {title: chosen for title, chosen in grouped.items() if chosen}


def _by_dataclass(options: Sequence[Option]) -> dict[str, list[Option]]:
    """Returns the options of each dataclass: those of the verb, and those of its nested dataclasses by their field."""
    grouped: dict[str, list[Option]] = {"": []}
    for each in options:
        if not each.is_positional:
            grouped.setdefault(each.group, []).append(each)
    return grouped


def _outline(kind: Any, options: Sequence[Option], shown: Mapping[str, Sequence[Option]], *, brief: bool) -> Any:
    """Returns a dataclass whose help is that of a verb: the first group, and a nested dataclass per other group."""
    source = get_origin(kind) or kind
    about = {} if brief else _about(source)  # of each nested dataclass
    first = [*(each for each in options if each.is_positional), *shown.get("", ())]
    others = [
        (
            title,
            Annotated[OmitArgPrefixes[_outline_class(title, chosen, brief=brief)], arg(help=about.get(title, ""))],  # type: ignore[misc]
            dataclasses.field(),
        )
        for title, chosen in shown.items()
        if title
    ]
    description = bind_units(_docstring(source).description or "")
    return _outline_class("verb", first, others, about=description, brief=brief)


def _outline_class(
    name: str, options: Sequence[Option], others: Sequence[tuple[str, Any, Any]] = (), *, brief: bool, about: str = ""
) -> Any:
    fields = [*(each.field(brief=brief) for each in options), *others]
    return make_dataclass(name, fields, kw_only=True, namespace={"__doc__": about})
