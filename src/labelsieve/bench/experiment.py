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

Everything is checked when the file is read, before anything is measured.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from labelsieve.bench.tasks import TASKS
from labelsieve.detect.base import detector_class
from labelsieve.errors import SettingsError, did_you_mean
from labelsieve.provenance import fingerprint

DRAWINGS, BUNDLED = "drawings", "bundled"
TRUE_RATE = "true"
"""Stands for the true noise rate in the settings of a detector that has to be told it."""

_TableT = TypeVar("_TableT")


@dataclass(frozen=True, kw_only=True)
class Data:
    """One data set.

    Attributes:
        source: What :func:`labelsieve.load_images` takes, or `drawings` for those of the demonstration.
        limit: Random subset of so many images, another one for each seed; the number of drawings.
        image_column: Column of the pictures.
        label_column: Column of the given labels.
        truth_column: Column of the true labels.
        class_names: File of the class names.
        split: Split of a Hub data set.
        test: Source of clean images to measure a classifier on; `drawings` draws others.
        test_label_column: Its column of labels.
        test_limit: Random subset of so many test images; the number of drawings.
    """

    source: str
    limit: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    truth_column: str | None = None
    class_names: str | None = None
    split: str | None = None
    test: str | None = None
    test_label_column: str | None = None
    test_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is done to the labels.

    Attributes:
        kind: `given` leaves them as they come. The others put wrong labels into the true ones, or into the given ones
            where the truth is not known: see :func:`labelsieve.inject`.
        rate: Share of wrong labels, from 0 to below 1.
        exact: False draws each image on its own, as the usual benchmarks do.
    """

    kind: Literal["given", "symmetric", "pair", "instance"]
    rate: float = 0.0
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the tables.

    Attributes:
        detector: Name of a detector, see `labelsieve list`.
        recipe: Settings of deft to start from.
        settings: Settings of the detector. `noise_rate = "true"` tells the true rate.
        train_on: For task `adapt`: `all` images, those that the detector `selected`, or those whose label is the
            `truth`.
        adapt: For task `adapt`: settings of :class:`labelsieve.Adaptation`, and `recipe` to start from.
        backbone: For task `adapt`: Hub id or folder of what is trained; by default the model of the scan.
    """

    detector: str | None = None
    recipe: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    train_on: Literal["all", "selected", "truth"] = "selected"
    adapt: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None

    def make_detector(self, *, noise_rate: float) -> Any:
        """Returns the detector; `noise_rate`, the true one, is told where the settings ask for it."""
        told: dict[str, Any] = {
            key: noise_rate if value == TRUE_RATE else value for key, value in self.settings.items()
        }
        kind = detector_class(self.detector or "")
        unknown = next((key for key in told if key not in {each.name for each in fields(kind)}), None)
        if unknown is not None:
            known = [each.name for each in fields(kind)]
            raise SettingsError(f"{self.detector} has no setting {unknown}{did_you_mean(unknown, known)}")
        if self.detector != "deft":
            return kind(**told)
        from labelsieve.detect.deft import RECIPES

        if self.recipe not in RECIPES:
            raise SettingsError(
                f"expected a recipe out of {', '.join(RECIPES)}, got {self.recipe}{did_you_mean(self.recipe, RECIPES)}"
            )
        return replace(RECIPES[self.recipe], **told)


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
        name: Of the file, without its ending.
        title: One line on what it shows.
        task: What is measured in each cell: `detect` scans, `adapt` trains a classifier and tests it.
        seeds: Each draws subset, noise and training.
        tables: The metrics of each table; those of one table stand side by side in its cells.
        model: Name to Hub id or folder, or `bundled`.
        data: Name to data set.
        noise: Name to noise.
        method: Name to method.
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

    def cells(self) -> Iterator[Cell]:
        """Yields every cell, those that share images one after another."""
        for model in self.model:
            for data in self.data:
                for noise in self.noise:
                    for seed in self.seeds:
                        for method in self.method:
                            yield Cell(model, data, noise, method, seed)

    def group(self, cell: Cell) -> str:
        """Returns a fingerprint of what the methods of a cell share; where data and model lie is not part of it."""
        data = {**vars(self.data[cell.data]), "source": cell.data, "test": None}
        return fingerprint(cell.model, data, vars(self.noise[cell.noise]), cell.seed)

    def key(self, cell: Cell) -> str:
        """Returns a fingerprint of all settings of a cell. Names of methods may change."""
        return fingerprint(self.task, self.group(cell), vars(self.method[cell.method]))

    def place(self, *, sources: Mapping[str, str], tests: Mapping[str, str], models: Mapping[str, str]) -> Experiment:
        """Returns the experiment with other places for data, test data and models, by name.

        Raises:
            SettingsError: There is no such name.
        """
        for what, given, known in (
            ("--source", sources, self.data),
            ("--test", tests, self.data),
            ("--model", models, self.model),
        ):
            for name in given:
                if name not in known:
                    raise SettingsError(
                        f"expected {what} NAME=PLACE with a name out of {', '.join(known)}, got {name}"
                        f"{did_you_mean(name, known)}"
                    )
        data = {
            name: replace(each, source=sources.get(name, each.source), test=tests.get(name, each.test))
            for name, each in self.data.items()
        }
        return replace(self, data=data, model={**self.model, **models})


def shipped() -> dict[str, Path]:
    """Returns the experiments that come with the package, by name."""
    folder = Path(str(resources.files("labelsieve.bench"))) / "experiments"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_experiment(file: str | Path) -> Experiment:
    """Reads and checks an experiment.

    Args:
        file: A TOML file, or the name of a shipped experiment.

    Raises:
        SettingsError: There is no such file, it is not TOML, or something in it is unknown, missing or out of range.
    """
    path, known = Path(file), shipped()
    if not path.is_file():
        if str(file) not in known:
            raise SettingsError(
                f"expected a TOML file or one of {', '.join(known)}, found no {file}{did_you_mean(str(file), known)}"
            )
        path = known[str(file)]
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    try:
        return _experiment(path.stem, table)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _experiment(name: str, table: Mapping[str, Any]) -> Experiment:
    given = {key: value for key, value in table.items() if key not in ("model", "data", "noise", "method")}
    _check_keys(given, ("title", "task", "seeds", "tables", "model", "data", "noise", "method"), "the file")
    for key in ("title", "task", "model", "data", "noise", "method"):
        if not table.get(key):
            raise SettingsError(f"expected {key}, found none")
    task = table["task"]
    if task not in TASKS:
        raise SettingsError(
            f"expected task to be one of {', '.join(TASKS)}, got {task}{did_you_mean(str(task), TASKS)}"
        )
    parts: dict[str, dict[str, Any]] = {
        key: {each: _build(kind, value, f"{key}.{each}") for each, value in _tables(table[key], key).items()}
        for key, kind in (("data", Data), ("noise", Noise), ("method", Method))
    }
    for each, model in _tables(table["model"], "model").items():
        if not isinstance(model, str):
            raise SettingsError(f"expected model.{each} to be a Hub id, a folder or {BUNDLED}, got {model!r}")
    experiment = Experiment(
        name=name,
        title=table["title"],
        task=task,
        seeds=_seeds(table.get("seeds", [0, 1, 2])),
        tables=_metrics(table.get("tables", TASKS[task].tables), TASKS[task].metrics),
        model=table["model"],
        **parts,
    )
    _check_noise(experiment)
    _check_methods(experiment)
    return experiment


def _tables(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"expected [{where}.NAME] tables, got {where} = {value!r}")
    return value


def _check_keys(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise SettingsError(f"unknown key {key} in {where}{did_you_mean(key, known)}; known: {', '.join(known)}")


def _build(kind: type[_TableT], given: Any, where: str) -> _TableT:
    """Makes a dataclass of a TOML table, with every key and the kind of every value checked."""
    if not isinstance(given, dict):
        raise SettingsError(f"expected a table [{where}], got {given!r}")
    hints = get_type_hints(kind)
    _check_keys(given, list(hints), f"[{where}]")
    for key, value in given.items():
        _check_value(value, hints[key], f"{key} in [{where}]")
    parameters = inspect.signature(kind).parameters.values()
    missing = [each.name for each in parameters if each.default is each.empty and each.name not in given]
    if missing:
        raise SettingsError(f"expected {missing[0]} in [{where}], found none")
    return kind(**given)


def _check_value(value: Any, hint: Any, what: str) -> None:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            known = ", ".join(choices)
            raise SettingsError(f"expected {what} to be one of {known}, got {value}{did_you_mean(str(value), choices)}")
        return
    kind = _KINDS[hint]
    if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (kind is bool):
        raise SettingsError(f"expected {what} to be {_KIND_NAMES[kind]}, got {value!r}")


_KINDS: Mapping[Any, type] = {
    str: str,
    str | None: str,
    int | None: int,
    float: float,
    bool: bool,
    Mapping[str, Any]: dict,
}
_KIND_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(each) is int and each >= 0 for each in value):
        raise SettingsError(f"expected seeds to be a list of numbers from 0, got {value!r}")
    if len(set(value)) != len(value):
        raise SettingsError(f"expected different seeds, got {value}")
    return tuple(value)


def _metrics(value: Any, known: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    rows = [[each] if isinstance(each, str) else each for each in value] if isinstance(value, list | tuple) else None
    if not rows or not all(isinstance(row, list | tuple) and row for row in rows):
        raise SettingsError(f"expected tables to be a list of lists of metrics, got {value!r}")
    for name in (name for row in rows for name in row):
        if name not in known:
            raise SettingsError(
                f"expected metrics in tables out of {', '.join(known)}, got {name}{did_you_mean(str(name), known)}"
            )
    return tuple(tuple(row) for row in rows)


def _check_noise(experiment: Experiment) -> None:
    for name, noise in experiment.noise.items():
        if not 0 <= noise.rate < 1:
            raise SettingsError(
                f"expected rate in [noise.{name}] from 0 to below 1, got {noise.rate}; a share, not a percentage"
            )
        if noise.kind == "given" and noise.rate:
            raise SettingsError(f"[noise.{name}] is of kind given, which takes no rate; leave it out")


def _check_methods(experiment: Experiment) -> None:
    for name, method in experiment.method.items():
        try:
            TASKS[experiment.task].check(method)
        except SettingsError as error:
            raise SettingsError(f"[method.{name}]: {error}") from error
