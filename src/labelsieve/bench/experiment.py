"""What an experiment is: the data, noises, models and methods whose every combination is one cell, for some seeds.

An experiment is a TOML file::

    title = "Phase 1 alone"
    task = "detect"
    seeds = [0, 1, 2]
    tables = [["clean_precision", "clean_recall"], ["issue_f1"]]

    [model]
    mini-clip = "bundled"

    [data.drawings]
    source = "drawings"
    limit = 2000

    [noise.sym-20]
    kind = "symmetric"
    rate = 0.2

    [method.deft]
    detector = "deft"
    settings = { epochs = 10 }

What several tables of one kind have in common may stand once, under `[defaults.data]`, `[defaults.noise]` or
`[defaults.method]`. With `extends = "paper/table8"` a file takes from a shipped experiment whatever it does not say
itself. Everything is checked when the file is read, before anything is measured.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from labelsieve.bench.parts import BUNDLED, Data, Method, Noise
from labelsieve.bench.published import Published, read_values
from labelsieve.bench.tasks import COST, TASKS
from labelsieve.errors import SettingsError, first_line, listed, look_up, shown
from labelsieve.provenance import fingerprint
from labelsieve.validation import Seed, check_keys, check_value, field_names

_TableT = TypeVar("_TableT")


class Cell(NamedTuple):
    """One combination: the names of its parts, and the seed."""

    model: str
    data: str
    noise: str
    method: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything of one experiment.

    Attributes:
        name: Of the file, without its ending; of one that comes with the package, with its folder: `paper/table1`.
        title: One line on what it shows.
        task: What is measured in each cell: `detect` scans, `adapt` trains a classifier and tests it.
        seeds: Each draws subset, noise and training.
        tables: The metrics of each table; those of one table stand side by side in its cells.
        model: Name to Hub id or folder, or `bundled`.
        data: Name to data set.
        noise: Name to noise.
        method: Name to method.
        published: Numbers of a paper to set beside the measured ones.
    """

    name: str
    title: str
    task: str
    seeds: tuple[int, ...]
    tables: tuple[tuple[str, ...], ...]
    model: Mapping[str, str]
    data: Mapping[str, Data]
    noise: Mapping[str, Noise]
    method: Mapping[str, Method]
    published: Published | None = None

    def cells(self) -> Iterator[Cell]:
        """Yields every cell, those that share images one after another."""
        for model, data, noise, seed, method in product(self.model, self.data, self.noise, self.seeds, self.method):
            yield Cell(model, data, noise, method, seed)

    def group(self, cell: Cell) -> str:
        """Returns a fingerprint of what the methods of a cell share; where data and model lie is not part of it."""
        data = {**vars(self.data[cell.data]), "source": cell.data, "test": None}
        if data["test_split"] is None:  # came later, and keys of before have to hold
            del data["test_split"]
        noise = {name: value for name, value in vars(self.noise[cell.noise]).items() if name != "file"}
        return fingerprint(cell.model, data, noise, cell.seed)

    def key(self, cell: Cell) -> str:
        """Returns a fingerprint of all settings of a cell. Names of methods may change."""
        return fingerprint(self.task, self.group(cell), vars(self.method[cell.method]))

    def place(
        self,
        *,
        sources: Mapping[str, str],
        tests: Mapping[str, str],
        models: Mapping[str, str],
        noises: Mapping[str, str] | None = None,
    ) -> Experiment:
        """Returns the experiment with other places for data, test data, models and files of noise, by name.

        Raises:
            SettingsError: There is no such name.
        """
        for what, given, known in (
            ("--source", sources, self.data),
            ("--test", tests, self.data),
            ("--model", models, self.model),
            ("--noise", noises or {}, {name: each for name, each in self.noise.items() if each.kind == "file"}),
        ):
            if given and not known:  # of noises alone
                raise SettingsError(f"{what} goes with noises of kind file, {self.name} has none; leave it out")
            for name in given:
                look_up(known, name, what=f"NAME in {what} NAME=PLACE")
        data = {
            name: replace(each, source=sources.get(name, each.source), test=tests.get(name, each.test))
            for name, each in self.data.items()
        }
        noise = {**self.noise, **{name: replace(self.noise[name], file=file) for name, file in (noises or {}).items()}}
        return replace(self, data=data, noise=noise, model={**self.model, **models})


def shipped() -> dict[str, Path]:
    """Returns the experiments that come with the package, by name."""
    folder = Path(str(resources.files("labelsieve.bench"))) / "experiments"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def read_experiment(file: str | Path) -> Experiment:
    """Reads and checks an experiment.

    Args:
        file: A TOML file, or the name of a shipped experiment.

    Raises:
        SettingsError: There is no such file, it is not TOML, or something in it is unknown, missing or out of range.
    """
    path, name = Path(file), Path(file).stem
    if not path.is_file():
        name = str(file)
        path = look_up(shipped(), name, what="FILE.toml, which does not exist, or NAME")
    table = _read_toml(path)
    try:
        return _experiment(name, _extended(table))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not TOML: it is not in UTF-8; save it in that encoding") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {first_line(error)}") from None
    except (ValueError, RecursionError):  # of numbers with thousands of digits, and of tables in tables without end
        raise SettingsError(f"{path} is not TOML: a number is too long, or lists are too deep in one another") from None


def _extended(table: Mapping[str, Any]) -> dict[str, Any]:
    """Adds what the shipped experiment has that a file extends, but for published numbers, which are of other data."""
    own = dict(table)
    if (name := own.pop("extends", None)) is None:
        return own
    base = _read_toml(look_up(shipped(), name, what="extends"))
    if "extends" in base:
        raise SettingsError(f"{name} extends {base['extends']}; extend that one")
    base.pop("published", None)
    return {**base, **own}


def _experiment(name: str, table: Mapping[str, Any]) -> Experiment:
    check_keys(table, [*(key for key in field_names(Experiment) if key != "name"), "defaults"], what="an experiment")
    for key in ("title", "task", "model", "data", "noise", "method"):
        if not table.get(key):
            raise SettingsError(f"expected {key}, found none")
    task = look_up(TASKS, table["task"], what="task")
    kinds: dict[str, Any] = {"data": Data, "noise": Noise, "method": Method}
    if not isinstance(table["title"], str):
        raise SettingsError(f"expected title to be a text, got {shown(table['title'])}")
    defaults = _tables(table.get("defaults", {}), "defaults")
    check_keys(defaults, list(kinds), what="defaults")
    for key, value in defaults.items():
        if not isinstance(value, dict):
            raise SettingsError(f"expected a table [defaults.{key}], got {shown(value)}")
    parts: dict[str, Any] = {
        key: {
            each: _build(kind, _merged(defaults.get(key, {}), value), f"{key}.{each}")
            for each, value in _tables(table[key], key).items()
        }
        for key, kind in kinds.items()
    }
    for each, noise in parts["noise"].items():
        if noise.puts_in and "rate" not in _merged(defaults.get("noise", {}), table["noise"][each]):
            raise SettingsError(f"[noise.{each}]: expected rate, found none")  # 0 would be clean labels
    for each, method in parts["method"].items():
        with _within(f"method.{each}"):
            task.check(method)
    for each, model in _tables(table["model"], "model").items():
        if not isinstance(model, str) or not model:
            raise SettingsError(
                f"expected model.{each} to be a Hub id, a folder or {BUNDLED}, got {shown(repr(model))}"
            )
    experiment = Experiment(
        name=name,
        title=table["title"],
        task=table["task"],
        seeds=_seeds(table.get("seeds", [0, 1, 2])),
        tables=_metrics(table.get("tables", task.tables), task.metrics),
        model=table["model"],
        **parts,
    )
    return (
        replace(experiment, published=_published(table["published"], experiment))
        if "published" in table
        else experiment
    )


def _published(given: Any, experiment: Experiment) -> Published:
    with _within("published"):
        if len(experiment.model) > 1:
            raise SettingsError(f"expected one model beside published numbers, got {len(experiment.model)}")
        if not isinstance(given, dict):
            raise SettingsError(f"expected a table, got {shown(given)}")
        parts = (experiment.data, experiment.method, experiment.noise)
        values = read_values(given.get("values", {}), *parts)
    found = _build(Published, {**given, "values": values}, "published")
    with _within("published"):
        # seconds and gigabytes are no percentages
        shares = [name for name in TASKS[experiment.task].metrics if name not in COST]
        for name in found.metrics:
            look_up(dict.fromkeys(shares), name, what="a metric")
    return replace(found, metrics=tuple(found.metrics))


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Says of an error in which table of the file it is."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"[{where}]: {error}") from error


def _merged(default: Any, own: Any) -> Any:
    """Returns a table over its defaults; what is a table in both, such as settings, is merged in the same way."""
    if not (isinstance(default, dict) and isinstance(own, dict)):
        return own
    return {**default, **{key: _merged(default.get(key), value) for key, value in own.items()}}


def _tables(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"expected [{where}.NAME] tables, got {where} = {shown(value)}")
    return value


def _build(kind: type[_TableT], given: Any, where: str) -> _TableT:
    """Makes a dataclass of a TOML table, which checks the values."""
    with _within(where):
        if not isinstance(given, dict):
            raise SettingsError(f"expected a table, got {shown(given)}")
        check_keys(given, field_names(kind), what="it")
        parameters = inspect.signature(kind).parameters.values()
        missing = [each.name for each in parameters if each.default is each.empty and each.name not in given]
        if missing:
            raise SettingsError(f"expected {missing[0]}, found none")
        return kind(**given)


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise SettingsError(f"expected seeds to be a list of whole numbers, got {shown(value)}")
    for each in value:
        check_value("each of seeds", each, Seed)
    if len(set(value)) != len(value):
        raise SettingsError(f"expected different seeds, got {listed(value)}")
    return tuple(value)


def _metrics(value: Any, known: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    rows = [[each] if isinstance(each, str) else each for each in value] if isinstance(value, list | tuple) else None
    if not rows or not all(isinstance(row, list | tuple) and row for row in rows):
        raise SettingsError(f"expected tables to be a list of lists of metrics, got {shown(value)}")
    for name in (name for row in rows for name in row):
        look_up(dict.fromkeys(known), name, what="a metric in tables")
    return tuple(tuple(row) for row in rows)
