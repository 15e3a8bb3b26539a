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
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from labelsieve.bench.published import Published, read_values
from labelsieve.bench.tasks import COST, TASKS
from labelsieve.detect.base import detector_class
from labelsieve.detect.settings import check_fields, check_keys, field_names, frozen_if_auto
from labelsieve.errors import SettingsError, look_up
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
        test_split: Split of it; without `test` a split of the source itself, as published data sets have them.
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
    test_split: str | None = None
    test_label_column: str | None = None
    test_limit: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("source", "test"):
            if getattr(self, name) == "":  # which as a path would be the folder that the command runs in
                raise SettingsError(f'expected {name} to say where images lie, got ""')
        for name in ("limit", "test_limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SettingsError(f"expected {name} to be at least 1, got {value}; leave it out to take all images")
        if self.test_split is not None and self.test_source == DRAWINGS:
            raise SettingsError("drawings have no splits; leave test_split out")

    @property
    def test_source(self) -> str | None:
        """Where the test images lie; None where there are none."""
        return self.source if self.test is None and self.test_split is not None else self.test


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is done to the labels.

    Attributes:
        kind: `given` leaves them as they come. The others put wrong labels into the true ones, or into the given ones
            where the truth is not known: see :func:`labelsieve.inject`. `file` takes them from a file that `labelsieve
            noise` wrote, the same for all seeds.
        rate: Share of wrong labels, from 0 to below 1; of those kinds alone that put wrong labels in, and not left out.
        exact: False draws each image on its own, and symmetric noise from all K classes, as the usual benchmarks and
            the code of the paper do.
        file: For kind `file`: where it lies.
    """

    kind: Literal["given", "symmetric", "pair", "instance", "file"]
    rate: float | None = None
    exact: bool = True
    file: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rate is None:
            if self.kind not in ("given", "file"):
                raise SettingsError("expected rate, found none")
            object.__setattr__(self, "rate", 0.0)  # as a fingerprint has always had it
        if not 0 <= self.share < 1:
            raise SettingsError(f"expected rate from 0 to below 1, got {self.rate}; a share, not a percentage")
        if self.kind in ("given", "file") and self.rate:
            raise SettingsError(f"kind {self.kind} takes no rate; leave it out")
        if (self.kind == "file") != (self.file is not None):
            raise SettingsError(f'expected file = "..." with kind file and with no other, got kind {self.kind}')

    @property
    def share(self) -> float:
        """The rate, 0 where there is none."""
        return self.rate or 0.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the tables.

    Attributes:
        detector: Name of a detector, see `labelsieve list`.
        recipe: Settings of deft to start from.
        settings: Settings of the detector. `noise_rate = "true"` tells the true rate.
        train_on: For task `adapt`: `all` images, those that the detector `selected`, or those whose label is the
            `truth`. `nothing` leaves phase 2 out: what the detector itself has trained in phase 1 is tested.
        adapt: For task `adapt`: settings of :class:`labelsieve.Adaptation`, and `recipe` to start from. Without effect
            where `nothing` is trained on.
        backbone: For task `adapt`: Hub id or folder of what is trained; by default the model of the scan.
    """

    detector: str | None = None
    recipe: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    train_on: Literal["all", "selected", "truth", "nothing"] = "selected"
    adapt: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def make_detector(self, *, noise_rate: float) -> Any:
        """Returns the detector; `noise_rate`, the true one, is told where the settings ask for it.

        Where the settings do not say how the vision tower is adapted, it stays frozen: what `auto` chooses depends on
        how fast the machine is.
        """
        from labelsieve.detect.deft import RECIPES, DeFT

        kind = detector_class(self.detector or "")
        check_keys(self.settings, field_names(kind), what=f"detector {self.detector}")
        told = dict(self.settings)
        if told.get("noise_rate") == TRUE_RATE:
            told["noise_rate"] = noise_rate
        recipe = look_up(RECIPES, self.recipe, what="recipe")
        if kind is not DeFT and self.recipe != "default":
            raise SettingsError(f"recipe goes with detector deft only, got {self.detector}; leave it out")
        made = replace(recipe, **told) if kind is DeFT else kind(**told)
        return made if "peft" in told else frozen_if_auto(made)


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None


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
        raise SettingsError(f"expected title to be a text, got {table['title']!r}")
    defaults = _tables(table.get("defaults", {}), "defaults")
    check_keys(defaults, list(kinds), what="defaults")
    for key, value in defaults.items():
        if not isinstance(value, dict):
            raise SettingsError(f"expected a table [defaults.{key}], got {value!r}")
    parts: dict[str, Any] = {
        key: {
            each: _build(kind, _merged(defaults.get(key, {}), value), f"{key}.{each}")
            for each, value in _tables(table[key], key).items()
        }
        for key, kind in kinds.items()
    }
    for each, method in parts["method"].items():
        with _within(f"method.{each}"):
            task.check(method)
    for each, model in _tables(table["model"], "model").items():
        if not isinstance(model, str) or not model:
            raise SettingsError(f"expected model.{each} to be a Hub id, a folder or {BUNDLED}, got {model!r}")
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
            raise SettingsError(f"expected a table, got {given!r}")
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
        raise SettingsError(f"expected [{where}.NAME] tables, got {where} = {value!r}")
    return value


def _build(kind: type[_TableT], given: Any, where: str) -> _TableT:
    """Makes a dataclass of a TOML table, which checks the values."""
    with _within(where):
        if not isinstance(given, dict):
            raise SettingsError(f"expected a table, got {given!r}")
        check_keys(given, field_names(kind), what="it")
        parameters = inspect.signature(kind).parameters.values()
        missing = [each.name for each in parameters if each.default is each.empty and each.name not in given]
        if missing:
            raise SettingsError(f"expected {missing[0]}, found none")
        return kind(**given)


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
        look_up(dict.fromkeys(known), name, what="a metric in tables")
    return tuple(tuple(row) for row in rows)
