"""Measures what is missing of an experiment, cell by cell, and writes its tables."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from labelsieve.bench.cell_inputs import NO_IMAGES, Given, one_label, true_labels
from labelsieve.bench.config import BUNDLED, FEATURES, Data, Noise
from labelsieve.bench.experiment import Cell, Experiment, within
from labelsieve.bench.features import check_texts, load_rows, of_file, of_images
from labelsieve.bench.outdated import up_to_date
from labelsieve.bench.store import RUNS, Store
from labelsieve.bench.synthetic import DRAWN
from labelsieve.bench.tables import write_plots, write_tables
from labelsieve.bench.tasks import NO_TEST, TASKS
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import LabelsieveError, RunError, SettingsError
from labelsieve.core.output_folders import exclusive_folder
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import to_json, versions
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.noise import inject, with_tag_noise
from labelsieve.data.noise_files import apply_noise, read_noise
from labelsieve.data.tags.loading import load_tags
from labelsieve.data.tags.records import TaggedImages
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.registry import check_input
from labelsieve.finetune.backbones import load_backbone
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.features import image_features
from labelsieve.vlm.loading import load_vlm
from labelsieve.vlm.names import without_folders

# Test sketches are of seeds that no training sketches have.
TEST_SEED = 1_000_000
# So many times the seconds that the tables took have to pass before they are written again.
_PAUSES = 20
AnyImages = LabelledImages | TaggedImages
RowsT = TypeVar("RowsT", LabelledImages, LabelledFeatures, TaggedImages, LabelledImages | TaggedImages)


def run_experiment(experiment: Experiment, out: str | Path, *, progress: Progress | None = None) -> Path:
    """Measures every cell that is missing, and writes `results.csv`, `results.md` and the plots.

    Args:
        experiment: From :func:`labelsieve.bench.experiment.read_experiment`.
        out: Folder of the experiment, a new one or one that was begun before.
        progress: Where to show how far it is.

    Returns:
        The folder.

    Raises:
        RunError: The folder holds something else, or its cells were measured on other data or another model.
        LabelsieveError: A cell cannot be measured; those before it are kept.
    """
    store, progress = Store.open(Path(out), name=experiment.name), progress or Progress()
    records = up_to_date(experiment, store.read(), progress=progress)
    _open_once(experiment, [cell for cell in experiment.cells() if experiment.key(cell) not in records])
    with exclusive_folder(store.folder):
        return _measure_missing(experiment, store, progress)


def _measure_missing(experiment: Experiment, store: Store, progress: Progress) -> Path:
    store.begin(_without_folders(experiment))
    records = up_to_date(experiment, store.read())  # again: another process may have been at it until a moment ago
    groups = groupby(experiment.cells(), key=lambda cell: (cell.model, cell.data, cell.noise, cell.seed))
    total, done, drawn = len(list(experiment.cells())), 0, dict[tuple[str, int, int], AnyImages]()
    tables = _Tables(experiment, records, store.folder)
    try:
        for _, cells in groups:
            shared = None
            for cell in cells:
                done += 1
                key = experiment.key(cell)
                if key in records:
                    continue
                shared = shared or Shared(experiment, cell, store, progress, drawn)
                progress.say(f"cell {done} of {total}: {_spoken(cell)}")
                records[key] = store.add(_measure(shared, cell, key, records))
                tables.keep_up()
    finally:
        tables.write()
    write_plots(experiment, records, store.folder)
    return store.folder


class _Tables:
    """The tables of a run, written after each cell unless that would take more than a small part of the time.

    Of a thousand cells and more they take longer than a fast detector.
    """

    def __init__(self, experiment: Experiment, records: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        self.experiment, self.records, self.folder = experiment, records, folder
        self.seconds, self.ended = 0.0, time.perf_counter()

    def keep_up(self) -> None:
        if time.perf_counter() - self.ended >= _PAUSES * self.seconds:
            self.write()

    def write(self) -> None:
        started = time.perf_counter()
        write_tables(self.experiment, self.records, self.folder)
        self.ended = time.perf_counter()
        self.seconds = self.ended - started


def _open_once(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Opens what some cells need, so that a wrong place is reported before hours are spent on others."""
    check_models(experiment, cells)
    check_test(experiment, cells)
    _open_features(experiment, cells)
    noises = [experiment.noise[name] for name in dict.fromkeys(cell.noise for cell in cells)]
    files = [noise for noise in noises if noise.file is not None]
    for noise in files:
        read_noise(str(noise.file))
    for data in (experiment.data[name] for name in dict.fromkeys(cell.data for cell in cells)):
        if data.source not in DRAWN and not data.is_features:
            images = load_data(data, seed=0, has_tags=experiment.has_tags)
            for noise in files:  # which may be of other images
                with_noise(images, noise, seed=0)
        if data.test_source is not None and data.test not in DRAWN:
            load_test(data, data.test_source)
    for model in dict.fromkeys(experiment.model[cell.model] for cell in cells):
        if model not in (BUNDLED, FEATURES):
            load_vlm(model)
    for backbone in dict.fromkeys(experiment.method[cell.method].backbone for cell in cells):
        if backbone is not None:
            load_backbone(backbone, ("one", "other"))  # its head is new, whatever the classes


def check_models(experiment: Experiment, cells: Iterable[Cell]) -> None:
    """Checks that data of images have a model and noise for images, and data of features no model.

    Raises:
        SettingsError: Names the first that have not, or whose text regimes no model can make.
    """
    cells = list(cells)
    for name, noise in dict.fromkeys((cell.data, cell.noise) for cell in cells):
        if experiment.noise[noise].kind == "column" and not experiment.data[name].is_features:
            raise SettingsError(
                f"[noise.{noise}]: kind column goes with files of features, and [data.{name}] holds images; name the "
                "column there, label_column, with kind given"
            )
    for name, model in dict.fromkeys((cell.data, experiment.model[cell.model]) for cell in cells):
        data = experiment.data[name]
        if not data.is_features and model == FEATURES:
            raise SettingsError(f"[data.{name}]: images need a model to look at them; name one under [model]")
        if data.is_features and model != FEATURES:
            raise SettingsError(
                f"[data.{name}]: {data.source} holds features, which need no model; leave [model] out, or write "
                "model = {}"
            )
        if data.is_features and experiment.has_tags:
            raise SettingsError(f"[data.{name}]: task {experiment.task} needs images, {data.source} holds features")
        trains = experiment.task == "adapt" or any(each.detector is None for each in experiment.method.values())
        if data.is_features and trains:
            raise SettingsError(f"[data.{name}]: {NO_IMAGES}")
        if not data.is_features:
            with within(f"data.{name}"):
                check_texts(experiment.text, has_test=data.test_source is not None)


def _open_features(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Opens the files of features with the label columns of all seeds, and checks what detectors need."""
    asked = dict.fromkeys((cell.data, cell.noise, cell.seed) for cell in cells)
    for name, noise, seed in asked:
        data = experiment.data[name]
        if not data.is_features:
            continue
        with within(f"data.{name}"):
            rows = load_rows(data, experiment.noise[noise], seed=seed, texts=experiment.text)
            regimes = of_file(rows, data, experiment.text)
        for text, method in dict.fromkeys((cell.text, cell.method) for cell in cells if cell.data == name):
            with within(f"method.{method}"):
                check_input(experiment.method[method].make_detector(noise_rate=0.5), regimes[text], None)


def check_test(experiment: Experiment, cells: Iterable[Cell]) -> None:
    """Checks that the data of some cells have test images if nothing can be measured without.

    Raises:
        SettingsError: Names the first that have none.
    """
    for cell in cells:
        if TASKS[experiment.task]().needs_test and experiment.data[cell.data].test_source is None:
            raise SettingsError(f"[data.{cell.data}]: {NO_TEST}")


def _without_folders(experiment: Experiment) -> Experiment:
    """Returns the experiment as it may be published: without the folders in which data and models lie here."""
    data = {
        name: dataclasses.replace(
            each,
            source=without_folders(each.source),
            test=None if each.test is None else without_folders(each.test),
            class_names=None if each.class_names is None else without_folders(each.class_names),
        )
        for name, each in experiment.data.items()
    }
    noise = {
        name: dataclasses.replace(each, file=None if each.file is None else without_folders(each.file))
        for name, each in experiment.noise.items()
    }
    models = {name: without_folders(each) for name, each in experiment.model.items()}
    return dataclasses.replace(experiment, data=data, noise=noise, model=models)


def _spoken(cell: Cell) -> str:
    text = f"text: {cell.text}, " if cell.text else ""
    return f"{cell.method} on {cell.data}, {cell.noise}, {cell.model}, {text}seed {cell.seed}"


class Shared:
    """Images, model and device that the methods of one group of cells share, loaded when they are first needed."""

    def __init__(
        self,
        experiment: Experiment,
        cell: Cell,
        store: Store,
        progress: Progress,
        drawn: dict[tuple[str, int, int], AnyImages],
    ) -> None:
        self.experiment, self.cell, self.store, self.progress = experiment, cell, store, progress
        self.drawn = drawn  # of all groups, since drawing takes longer than most detectors
        self.data, self.noise = experiment.data[cell.data], experiment.noise[cell.noise]
        self.engine = make_engine(progress=progress)

    @cached_property
    def vlm(self) -> VisionLanguageModel:
        """The model."""
        name = self.experiment.model[self.cell.model]
        return load_vlm(MINI_CLIP if name == BUNDLED else name)

    @cached_property
    def images(self) -> AnyImages:
        """The images with noise, of which the model has made features, so that no method is timed with that."""
        data, seed = self.data, self.cell.seed
        kind = DRAWN.get(data.source)
        given = (
            self._draw(data.source, data.limit or kind.count, seed)
            if kind
            else load_data(data, seed=seed, has_tags=self.experiment.has_tags)
        )
        images = with_noise(given, self.noise, seed=seed, progress=self.progress)
        image_features(images, self.vlm.to(self.engine.device), engine=self.engine)
        return images

    @cached_property
    def regimes(self) -> Mapping[str, LabelledFeatures]:
        """The features with noise in each text regime; empty where detectors are shown images."""
        data, texts = self.data, self.experiment.text
        if data.is_features:
            rows = load_rows(data, self.noise, seed=self.cell.seed, texts=texts)
            return of_file(with_noise(rows, self.noise, seed=self.cell.seed), data, texts)
        return of_images(one_label(self.images), self.vlm, texts, test=self.test, engine=self.engine) if texts else {}

    @cached_property
    def test(self) -> LabelledImages | None:
        """The test images, None where the experiment names none."""
        data = self.data
        if data.test is not None and data.test in DRAWN:
            images = one_label(self._draw(data.test, data.test_limit or DRAWN[data.test].test_count, TEST_SEED))
            return images.with_labels(true_labels(images))
        return None if data.test_source is None else load_test(data, data.test_source)

    def _draw(self, source: str, count: int, seed: int) -> AnyImages:
        key = source, count, seed
        if key not in self.drawn:
            self.drawn[key] = DRAWN[source].draw(self.store.folder / RUNS, count, seed)
        return self.drawn[key]

    def given(self, cell: Cell) -> Given:
        """Returns what a cell of this group is measured on."""
        features = self.regimes.get(cell.text)
        return Given(
            method=self.experiment.method[cell.method],
            images=self.images if features is None else features,
            vlm=self.vlm if features is None else None,
            seed=cell.seed,
            test=self.test if features is None else None,
            runs=self.store.folder / RUNS,
            progress=self.progress,
        )


def load_data(data: Data, *, seed: int, has_tags: bool = False) -> AnyImages:
    """Loads the images of a data set, with one label each or with tags; the seed draws its subset."""
    names = ("image_column", "truth_column", "class_names", "split")
    told: dict[str, Any] = {"limit": data.limit, "seed": seed, **{name: getattr(data, name) for name in names}}
    if has_tags:
        return load_tags(data.source, tag_column=data.label_column, **told)
    return load_images(data.source, label_column=data.label_column, **told)


def load_test(data: Data, source: str) -> LabelledImages:
    """Loads test images from a source."""
    return load_images(
        source,
        limit=data.test_limit,
        label_column=data.test_label_column,
        class_names=data.class_names,
        split=data.test_split,
    )


def with_noise(images: RowsT, noise: Noise, *, seed: int, progress: Progress | None = None) -> RowsT:
    """Puts noise into the true labels or tags, or into the given ones where the truth is not known.

    Those that stay as they are given count as right where the truth is not known.
    """
    if isinstance(images, TaggedImages):
        return _with_tag_noise(images, noise, seed=seed)
    if noise.kind == "given" or noise.kind == "column":  # features were loaded with that column
        return images.with_labels(images.labels, truth=true_labels(images))
    clean = images.with_labels(true_labels(images))
    if noise.kind == "none":
        return clean.with_labels(clean.labels, truth=clean.labels)
    if noise.kind == "file":
        if not isinstance(clean, LabelledImages):
            raise SettingsError("noise of kind file goes with images; use kind column for features")
        return apply_noise(clean, str(noise.file))
    return inject(clean, kind=noise.kind, rate=noise.rate, seed=seed, exact=noise.exact, progress=progress)


def _with_tag_noise(images: TaggedImages, noise: Noise, *, seed: int) -> TaggedImages:
    true = images.tags if images.truth is None else images.truth
    if noise.kind == "given":
        return images.with_tags(images.tags, truth=true)
    return with_tag_noise(images.with_tags(true), omit=noise.omit, add=noise.add, seed=seed)


def _measure(shared: Shared, cell: Cell, key: str, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    experiment, given = shared.experiment, shared.given(cell)
    belongs = {
        "data_fingerprint": given.images.fingerprint,
        "model_fingerprint": given.model_fingerprint,
        "test_fingerprint": None if given.test is None else given.test.fingerprint,
    }
    group = experiment.group(cell)
    _check_same(group, belongs, records, shared.store.folder)
    started = time.perf_counter()
    try:
        found = TASKS[experiment.task]().measure(given)
    except LabelsieveError as error:
        raise type(error)(f"{_spoken(cell)}: {error}") from error
    return {
        "key": key,
        "group": group,
        **cell.parts,
        **{name: value.item() if hasattr(value, "item") else value for name, value in found.items()},
        "images": len(given.images),
        "settings": to_json([dataclasses.asdict(experiment.noise[cell.noise]), dataclasses.asdict(given.method)]),
        "resolved": to_json(TASKS[experiment.task]().resolved(given.method)),
        **belongs,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{os.cpu_count()} cores {platform.machine()}, {shared.engine.device.type}",
        "versions": versions(),
    }


def _check_same(
    group: str, belongs: Mapping[str, str | None], records: Mapping[str, Mapping[str, Any]], folder: Path
) -> None:
    """Checks that the cells of one group were measured on the same images and model.

    Raises:
        RunError: They were not: their numbers must not stand side by side.
    """
    for record in records.values():
        for name, value in belongs.items():
            if record["group"] == group and record.get(name) != value:
                raise RunError(
                    f"{folder} holds cells of {record['data']}, {record['noise']}, seed {record['seed']} that were "
                    f"measured with {_OTHER[name]}; choose another --out or bring back those of before"
                )


_OTHER = {
    "data_fingerprint": "other images",
    "model_fingerprint": "another model",
    "test_fingerprint": "other test images",
}
