"""Experiments: all combinations of data sets, noises, models, methods and seeds, each of which is a cell.

An experiment is a TOML file; docs/bench.md explains its tables. Everything is checked when the file is read, before
anything is measured.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from labelsieve.bench import toml_files
from labelsieve.bench.config import BUNDLED, FEATURES, Against, Data, Method, Noise
from labelsieve.bench.published import PaperNumbers, read_published_methods, read_values
from labelsieve.bench.synthetic import SYNTHETIC_SOURCES, TEST_SEED
from labelsieve.bench.tasks import TASKS
from labelsieve.core.errors import LabelsieveError, SettingsError, listed, look_up, shown
from labelsieve.core.files import expand_home
from labelsieve.core.provenance import fingerprint
from labelsieve.core.validation import Seed, check_keys, check_value, field_names
from labelsieve.data.noise_kinds import kinds_for
from labelsieve.detect.registry import feature_detectors
from labelsieve.metrics import METRICS

_TableT = TypeVar("_TableT")


class Cell(NamedTuple):
    """One combination: the names of its parts, the seed, and the text regime if the experiment has several."""

    model: str
    data: str
    noise: str
    method: str
    seed: int
    text: str = ""

    @property
    def parts(self) -> dict[str, Any]:
        """Its entries in a record; the text regime only if there is one."""
        return {name: value for name, value in self._asdict().items() if name != "text" or value}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment.

    Attributes:
        name: Name of the file without suffix; of a shipped experiment, with its folder: `paper/table1`.
        title: One line on its purpose.
        task: The task of each cell: `detect` scans, `adapt` trains and evaluates a classifier, `tags` scans tags.
        seeds: Seeds of subset, noise and training.
        tables: The metrics of each table; those of one table are shown in the same cell.
        text: Text regimes, for detectors on features: names of arrays of class text features, or `none`. For images:
            `text`, from the text encoder, and `text_of_images`, the class means of the test images. Empty: the text of
            the source or the model.
        model: Name to Hub id or folder, or `bundled`; only `features` if all data are files of features.
        data: Name to data set.
        noise: Name to noise.
        method: Name to method.
        published: Numbers of a paper to compare with.
        against: Comparison of one method with all others.
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
    text: tuple[str, ...] = ()
    published: PaperNumbers | None = None
    against: Against | None = None

    def __post_init__(self) -> None:
        for name, data in self.data.items():
            if data.test in SYNTHETIC_SOURCES and TEST_SEED in self.seeds:  # training images would be the test images
                raise SettingsError(
                    f"expected seeds other than {TEST_SEED}, that of the test images of [data.{name}], got "
                    f"{listed(self.seeds)}; choose another"
                )

    @property
    def texts(self) -> tuple[str, ...]:
        """The text regimes, or one empty name."""
        return self.text or ("",)

    @property
    def has_tags(self) -> bool:
        """Whether images have several labels each."""
        return TASKS[self.task]().has_tags

    def has(self, *, data: str, noise: str) -> bool:
        """Returns whether a data set has a noise."""
        only = self.noise[noise].data
        return only is None or data in only

    def methods(self, text: str) -> list[str]:
        """Returns the names of the methods that work in a text regime."""
        return [name for name, method in self.method.items() if method.supports_text(text)]

    def cells(self) -> Iterator[Cell]:
        """Yields all cells, grouped by their images."""
        methods = {text: self.methods(text) for text in self.texts}
        for model, data, noise, seed in product(self.model, self.data, self.noise, self.seeds):
            if self.has(data=data, noise=noise):
                for text in self.texts:
                    yield from (Cell(model, data, noise, method, seed, text) for method in methods[text])

    def group(self, cell: Cell) -> str:
        """Returns a fingerprint of the inputs of the methods of a cell, without locations of data and model."""
        data = {**vars(self.data[cell.data]), "source": cell.data, "test": None}
        noise = {name: value for name, value in vars(self.noise[cell.noise]).items() if name not in ("file", "data")}
        return fingerprint(cell.model, data, noise, cell.seed, *([cell.text] if cell.text else []))

    def key(self, cell: Cell) -> str:
        """Returns a fingerprint of all settings of a cell, which does not depend on names of methods."""
        if cell not in self._keys:
            self._keys[cell] = fingerprint(self.task, self.group(cell), vars(self.method[cell.method]))
        return self._keys[cell]

    @cached_property
    def _keys(self) -> dict[Cell, str]:
        """Cached keys, since the tables, which are written after each cell, need all of them."""
        return {}

    def with_locations(
        self,
        *,
        sources: Mapping[str, str],
        tests: Mapping[str, str],
        models: Mapping[str, str],
        noises: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> Experiment:
        """Returns the experiment with other locations of data, test data, models and files of noise, by name.

        Args:
            sources: Locations of data sets.
            tests: Locations of their test images.
            models: Locations of models.
            noises: Locations of files of noise.
            folder: Folder of data sets whose source is a file name without a folder.

        Raises:
            SettingsError: A name or the folder does not exist, or no data set has a source without a folder.
        """
        for what, locations, known in (
            ("--source", sources, self.data),
            ("--test", tests, self.data),
            ("--model", models, self.model),
            ("--noise", noises or {}, {name: each for name, each in self.noise.items() if each.kind == "file"}),
        ):
            if locations and not known:  # only possible for noises
                raise SettingsError(f"{what} goes with noises of kind file, {self.name} has none; leave it out")
            for name in locations:
                look_up(known, name, what=f"NAME in {what} NAME=PLACE")
        sources = {**self._in_folder(folder), **sources}
        data = {
            name: replace(each, source=sources.get(name, each.source), test=tests.get(name, each.test))
            for name, each in self.data.items()
        }
        noise = {**self.noise, **{name: replace(self.noise[name], file=file) for name, file in (noises or {}).items()}}
        return replace(self, data=data, noise=noise, model={**self.model, **models})

    def _in_folder(self, folder: str | None) -> dict[str, str]:
        if folder is None:
            return {}
        if not expand_home(folder).is_dir():
            raise SettingsError(f"expected --source NAME=PLACE or a folder, got {shown(folder)}, which is no folder")
        names = {name: each.source for name, each in self.data.items() if _is_file_name(each.source)}
        if not names:
            raise SettingsError(f"no data of {self.name} are named by a file alone; give --source NAME=PLACE")
        return {name: str(Path(folder) / file) for name, file in names.items()}


def _is_file_name(source: str) -> bool:
    path = Path(source)
    return path.name == source and bool(path.suffix) and ":" not in source


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
        path = look_up(toml_files.shipped(), name, what="FILE.toml, which does not exist, or NAME")
    table = toml_files.read_toml(path)
    try:
        return _experiment(name, toml_files.extended(table))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


_PARTS: dict[str, Any] = {"data": Data, "noise": Noise, "method": Method}


def _experiment(name: str, table: Mapping[str, Any]) -> Experiment:
    check_keys(table, [*(key for key in field_names(Experiment) if key != "name"), "defaults"], what="an experiment")
    for key in ("title", "task", *_PARTS):
        if not table.get(key):
            raise SettingsError(f"expected {key}, found none")
    task = look_up(TASKS, table["task"], what="task")()
    if not isinstance(table["title"], str):
        raise SettingsError(f"expected title to be a text, got {shown(table['title'])}")
    parts = _parts(table)
    for each, method in parts["method"].items():
        with error_context(f"method.{each}"):
            task.check(method)
    experiment = Experiment(
        name=name,
        title=table["title"],
        task=table["task"],
        seeds=_seeds(table.get("seeds", [0, 1, 2])),
        tables=_metrics(table.get("tables", task.tables), task.metrics),
        text=_texts(table.get("text", []), table["task"], parts["method"]),
        model=_models(table),
        **parts,
    )
    _check_tags(experiment)
    optional: dict[str, Any] = {}
    if "published" in table:
        optional["published"] = _published(table["published"], experiment)
    if "against" in table:
        optional["against"] = _from_table(Against, table["against"], "against")
        look_up(parts["method"], optional["against"].method, what="[against]: method")
    return replace(experiment, **optional)


def _parts(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns data, noise and methods by name, each with the defaults of its kind."""
    defaults = _tables(table.get("defaults", {}), "defaults")
    check_keys(defaults, list(_PARTS), what="defaults")
    for key, value in defaults.items():
        if not isinstance(value, dict):
            raise SettingsError(f"expected a table [defaults.{key}], got {shown(value)}")
    parts: dict[str, Any] = {
        key: {
            each: _from_table(kind, _merged(defaults.get(key, {}), value), f"{key}.{each}")
            for each, value in _tables(table[key], key).items()
        }
        for key, kind in _PARTS.items()
    }
    for each, noise in parts["noise"].items():
        if noise.injects_noise and "rate" not in _merged(defaults.get("noise", {}), table["noise"][each]):
            raise SettingsError(f"[noise.{each}]: expected rate, found none")  # the default 0 would mean clean labels
        for data in noise.data or []:
            look_up(parts["data"], data, what=f"[noise.{each}]: a name in data")
    return parts


def _models(table: Mapping[str, Any]) -> Mapping[str, Any]:
    models = _tables(table.get("model") or {FEATURES: FEATURES}, "model")
    for each, model in models.items():
        if not isinstance(model, str) or not model:
            raise SettingsError(
                f"expected model.{each} to be a Hub id, a folder or {BUNDLED}, got {shown(repr(model))}"
            )
    return models


def _check_tags(experiment: Experiment) -> None:
    """Checks that data, noise and task all have single labels, or all have tags."""
    task, has_tags = experiment.task, experiment.has_tags
    kinds = ("given", "none", *kinds_for(tags=True))
    for name, noise in experiment.noise.items():
        if has_tags and noise.kind not in kinds:
            raise SettingsError(f"[noise.{name}]: task {task} takes noise of kind {', '.join(kinds)}, got {noise.kind}")
        if noise.for_tags and not has_tags:
            raise SettingsError(f"[noise.{name}]: kind {noise.kind} goes with task tags only, got task {task}")
    for name, data in experiment.data.items():
        if has_tags and data.test_source is not None:
            raise SettingsError(f"[data.{name}]: task {task} tests nothing; leave the test images out")
        for source in (data.source, data.test):
            if source in SYNTHETIC_SOURCES and SYNTHETIC_SOURCES[source].has_tags != has_tags:
                alternatives = [str(each) for each, drawn in SYNTHETIC_SOURCES.items() if drawn.has_tags == has_tags]
                raise SettingsError(
                    f"[data.{name}]: {source} does not go with task {task}; use {', '.join(alternatives)}"
                )


def _texts(value: Any, task: str, methods: Mapping[str, Method]) -> tuple[str, ...]:
    """Checks the text regimes, which need detectors that work on features."""
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise SettingsError(f"expected text to be a list of names of class text features, got {shown(value)}")
    if len(set(value)) != len(value):
        raise SettingsError(f"expected different names in text, got {listed(value)}")
    if value and task != "detect":
        raise SettingsError("text goes with task detect only; leave it out")
    known = feature_detectors(text=True) if value else []
    for name, method in methods.items():
        if value and method.detector not in known:
            who = "a classifier" if method.detector is None else f"detector {method.detector}"
            raise SettingsError(
                f"[method.{name}]: {who} needs the images and a model; with text, which is for features alone, use one "
                f"of {', '.join(known)}"
            )
    return tuple(value)


def _published(table: Any, experiment: Experiment) -> PaperNumbers:
    with error_context("published"):
        if len(experiment.model) > 1:
            raise SettingsError(f"expected one model beside published numbers, got {len(experiment.model)}")
        if len(experiment.text) > 1:
            raise SettingsError(f"expected one text regime beside published numbers, got {listed(experiment.text)}")
        if not isinstance(table, dict):
            raise SettingsError(f"expected a table, got {shown(table)}")
        rivals = read_published_methods(table.get("only_published", []), experiment.method)
        values = read_values(table.get("values", {}), experiment.data, [*experiment.method, *rivals], experiment.noise)
    published = _from_table(PaperNumbers, {**table, "only_published": rivals, "values": values}, "published")
    with error_context("published"):
        # not seconds and gigabytes
        shares = [name for name in TASKS[experiment.task]().metrics if METRICS[name].is_share]
        for name in published.metrics:
            look_up(dict.fromkeys(shares), name, what="a metric")
    return replace(published, metrics=tuple(published.metrics))


@contextmanager
def error_context(where: str) -> Iterator[None]:
    """Prefixes errors with the table of the file."""
    try:
        yield
    except LabelsieveError as error:
        raise type(error)(f"[{where}]: {error}") from error


def _merged(default: Any, table: Any) -> Any:
    """Merges a table with its defaults; tables in both, such as settings, are merged recursively."""
    if not (isinstance(default, dict) and isinstance(table, dict)):
        return table
    return {**default, **{key: _merged(default.get(key), value) for key, value in table.items()}}


def _tables(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"expected [{where}.NAME] tables, got {where} = {shown(value)}")
    return value


def _from_table(kind: type[_TableT], table: Any, where: str) -> _TableT:
    """Creates a dataclass from a TOML table, which checks the values."""
    with error_context(where):
        if not isinstance(table, dict):
            raise SettingsError(f"expected a table, got {shown(table)}")
        check_keys(table, field_names(kind), what="it")
        parameters = inspect.signature(kind).parameters.values()
        missing_keys = [each.name for each in parameters if each.default is each.empty and each.name not in table]
        if missing_keys:
            raise SettingsError(f"expected {missing_keys[0]}, found none")
        return kind(**table)


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise SettingsError(f"expected seeds to be a list of integers, got {shown(value)}")
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
