"""Measures the missing cells of an experiment, and writes its tables."""

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
from typing import Any, TypeVar, cast

from labelsieve.bench.cell_inputs import CellInputs
from labelsieve.bench.changed_defaults import without_changed_defaults
from labelsieve.bench.config import BUNDLED, FEATURES, Data, Noise
from labelsieve.bench.experiment import Cell, Experiment, error_context
from labelsieve.bench.features import check_texts, features_of_file, features_of_images, load_rows
from labelsieve.bench.store import RUNS, Store
from labelsieve.bench.synthetic import SYNTHETIC_SOURCES, TEST_SEED
from labelsieve.bench.tables import write_plots, write_tables
from labelsieve.bench.tasks import TASKS
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import LabelsieveError, RunError, SettingsError
from labelsieve.core.output_folders import exclusive_folder
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import to_json, versions
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.noise import inject
from labelsieve.data.noise_files import apply_noise, read_noise
from labelsieve.data.tags.loading import load_tags
from labelsieve.data.tags.noise import with_tag_noise
from labelsieve.data.tags.records import TaggedImages
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.compatibility import check_input
from labelsieve.finetune.backbones import load_backbone
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.features import image_features
from labelsieve.vlm.loading import load_vlm
from labelsieve.vlm.names import without_folders

# Seconds between writing the tables: with a thousand cells it takes longer than a fast detector.
_TABLES_EVERY = 30.0
AnyImages = LabelledImages | TaggedImages
_Drawn = dict[tuple[str, int, int], AnyImages]  # by source, count and seed
RowsT = TypeVar("RowsT", LabelledImages, LabelledFeatures, TaggedImages, LabelledImages | TaggedImages)


def run_experiment(experiment: Experiment, out: str | Path, *, progress: Progress | None = None) -> Path:
    """Measures all missing cells, and writes `results.csv`, `results.md` and the plots.

    Args:
        experiment: From :func:`labelsieve.bench.experiment.read_experiment`.
        out: Folder of the experiment, new or from an earlier run.
        progress: Where to show progress.

    Returns:
        The folder.

    Raises:
        RunError: The folder has other files, or its cells were measured on other data or another model.
        LabelsieveError: A cell cannot be measured; earlier cells are saved.
    """
    store, progress = Store.open(Path(out), name=experiment.name), progress or Progress()
    records = without_changed_defaults(experiment, store.read(), progress=progress)
    _check_inputs(experiment, [cell for cell in experiment.cells() if experiment.key(cell) not in records])
    with exclusive_folder(store.folder):
        return _measure_missing(experiment, store, progress)


def _measure_missing(experiment: Experiment, store: Store, progress: Progress) -> Path:
    store.begin(_without_folders(experiment))
    records = without_changed_defaults(experiment, store.read())  # again, since another process may have just finished
    groups = groupby(experiment.cells(), key=lambda cell: (cell.model, cell.data, cell.noise, cell.seed))
    total, number, synthetic_images = len(list(experiment.cells())), 0, _Drawn()
    written = time.monotonic()
    try:
        for _, cells in groups:
            shared = None
            for cell in cells:
                number += 1
                key = experiment.key(cell)
                if key in records:
                    continue
                shared = shared or SharedInputs(experiment, cell, store, progress, synthetic_images)
                progress.say(f"cell {number} of {total}: {_describe(cell)}")
                records[key] = store.add(_measure(shared, cell, key, records))
                if time.monotonic() - written >= _TABLES_EVERY:
                    write_tables(experiment, records, store.folder)
                    written = time.monotonic()
    finally:
        write_tables(experiment, records, store.folder)
    write_plots(experiment, records, store.folder)
    return store.folder


def _check_inputs(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Opens data and models of cells, so that errors are reported before hours are spent on other cells."""
    check_models(experiment, cells)
    check_test(experiment, cells)
    _open_features(experiment, cells)
    noises = [experiment.noise[name] for name in dict.fromkeys(cell.noise for cell in cells)]
    files = [noise for noise in noises if noise.file is not None]
    for noise in files:
        read_noise(str(noise.file))
    for data in (experiment.data[name] for name in dict.fromkeys(cell.data for cell in cells)):
        if data.source not in SYNTHETIC_SOURCES and not data.is_features:
            images = load_data(data, seed=0, has_tags=experiment.has_tags)
            for noise in files:  # the file may be for other images
                with_noise(images, noise, seed=0)
        if data.test_source is not None and data.test not in SYNTHETIC_SOURCES:
            load_test(data, data.test_source)
    for model in dict.fromkeys(experiment.model[cell.model] for cell in cells):
        if model not in (BUNDLED, FEATURES):
            load_vlm(model)
    for backbone in dict.fromkeys(experiment.method[cell.method].backbone for cell in cells):
        if backbone is not None:
            load_backbone(backbone, ("one", "other"))  # any classes, since the head is new


def check_models(experiment: Experiment, cells: Iterable[Cell]) -> None:
    """Checks that images have a model and noise for images, and features have no model.

    Raises:
        SettingsError: Names the first invalid data set, noise or text regime.
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
            raise SettingsError(
                f"[data.{name}]: a classifier is trained on images, which features come without; use task detect with "
                "a detector"
            )
        if not data.is_features:
            with error_context(f"data.{name}"):
                check_texts(experiment.text, has_test=data.test_source is not None)


def _open_features(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Opens the files of features with the label columns of all seeds, and checks the detectors."""
    combinations = dict.fromkeys((cell.data, cell.noise, cell.seed) for cell in cells)
    for name, noise, seed in combinations:
        data = experiment.data[name]
        if not data.is_features:
            continue
        with error_context(f"data.{name}"):
            rows = load_rows(data, experiment.noise[noise], seed=seed, texts=experiment.text)
            regimes = features_of_file(rows, data, experiment.text)
        for text, method in dict.fromkeys((cell.text, cell.method) for cell in cells if cell.data == name):
            with error_context(f"method.{method}"):
                check_input(experiment.method[method].make_detector(noise_rate=0.5), regimes[text], None)


def check_test(experiment: Experiment, cells: Iterable[Cell]) -> None:
    """Raises a `SettingsError` with the first data set without test images, if the task of the cells needs them."""
    for cell in cells:
        if TASKS[experiment.task]().needs_test and experiment.data[cell.data].test_source is None:
            raise SettingsError(
                f"[data.{cell.data}]: expected test images to measure a classifier on, found none; name them: "
                "test = ..."
            )


def _without_folders(experiment: Experiment) -> Experiment:
    """Returns the experiment without local folders of data and models, which are private."""

    def stripped(part: Any, *names: str) -> Any:
        paths = {name: getattr(part, name) for name in names}
        return dataclasses.replace(
            part, **{name: without_folders(path) for name, path in paths.items() if path is not None}
        )

    return dataclasses.replace(
        experiment,
        data={name: stripped(each, "source", "test", "class_names") for name, each in experiment.data.items()},
        noise={name: stripped(each, "file") for name, each in experiment.noise.items()},
        model={name: without_folders(each) for name, each in experiment.model.items()},
    )


def _describe(cell: Cell) -> str:
    text = f"text: {cell.text}, " if cell.text else ""
    return f"{cell.method} on {cell.data}, {cell.noise}, {cell.model}, {text}seed {cell.seed}"


class SharedInputs:
    """Images, model and device that a group of cells shares, loaded on first use."""

    def __init__(self, experiment: Experiment, cell: Cell, store: Store, progress: Progress, drawn: _Drawn) -> None:
        self.experiment, self.cell, self.store, self.progress = experiment, cell, store, progress
        self.drawn = drawn  # for all groups, since drawing takes longer than most detectors
        self.data, self.noise = experiment.data[cell.data], experiment.noise[cell.noise]
        self.engine = make_engine(progress=progress)

    @cached_property
    def vlm(self) -> VisionLanguageModel:
        """The model."""
        name = self.experiment.model[self.cell.model]
        return load_vlm(MINI_CLIP if name == BUNDLED else name)

    @cached_property
    def images(self) -> AnyImages:
        """The images with noise and cached features, so that no method is timed with extracting them."""
        data, seed = self.data, self.cell.seed
        if (kind := SYNTHETIC_SOURCES.get(data.source)) is None:
            loaded = load_data(data, seed=seed, has_tags=self.experiment.has_tags)
        else:
            loaded = self._draw(data.source, data.limit or kind.count, seed)
        images = with_noise(loaded, self.noise, seed=seed, progress=self.progress)
        image_features(images, self.vlm.to(self.engine.device), engine=self.engine)
        return images

    @cached_property
    def regimes(self) -> Mapping[str, LabelledFeatures]:
        """The features with noise in each text regime; empty if detectors get images."""
        data, texts = self.data, self.experiment.text
        if data.is_features:
            rows = load_rows(data, self.noise, seed=self.cell.seed, texts=texts)
            return features_of_file(with_noise(rows, self.noise, seed=self.cell.seed), data, texts)
        if not texts:
            return {}
        return features_of_images(
            cast(LabelledImages, self.images), self.vlm, texts, test=self.test, engine=self.engine
        )

    @cached_property
    def test(self) -> LabelledImages | None:
        """The test images, None if the experiment has none."""
        data = self.data
        if data.test is not None and (kind := SYNTHETIC_SOURCES.get(data.test)) is not None:
            drawn = self._draw(data.test, data.test_limit or kind.test_count, TEST_SEED)
            images = cast(LabelledImages, drawn)  # those of tags have no test
            return images.with_labels(images.true_labels)
        return None if data.test_source is None else load_test(data, data.test_source)

    def _draw(self, source: str, count: int, seed: int) -> AnyImages:
        key = source, count, seed
        if key not in self.drawn:
            self.drawn[key] = SYNTHETIC_SOURCES[source].draw(self.store.folder / RUNS, count, seed)
        return self.drawn[key]

    def inputs(self, cell: Cell) -> CellInputs:
        """Returns the inputs of a cell of this group."""
        features = self.regimes.get(cell.text)
        return CellInputs(
            method=self.experiment.method[cell.method],
            images=self.images if features is None else features,
            vlm=self.vlm if features is None else None,
            seed=cell.seed,
            test=self.test if features is None else None,
            runs=self.store.folder / RUNS,
            progress=self.progress,
        )


def load_data(data: Data, *, seed: int, has_tags: bool = False) -> AnyImages:
    """Loads the images of a data set.

    Args:
        data: The data set, on the disk or the Hub.
        seed: Seed of its subset.
        has_tags: Whether its images have tags, instead of one label each.
    """
    names = ("image_column", "truth_column", "class_names", "split")
    options: dict[str, Any] = {"limit": data.limit, "seed": seed, **{name: getattr(data, name) for name in names}}
    if has_tags:
        return load_tags(data.source, tag_column=data.label_column, **options)
    return load_images(data.source, label_column=data.label_column, **options)


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
    """Injects noise into the true labels or tags.

    Args:
        images: Images or rows of features. If their truth is unknown, the given labels or tags count as right.
        noise: The kind and its parameters.
        seed: Seed of all draws.
        progress: Receives progress.
    """
    if isinstance(images, TaggedImages):
        return _with_tag_noise(images, noise, seed=seed)
    if noise.kind == "given" or noise.kind == "column":  # features were loaded with that column
        return images.with_labels(images.labels, truth=images.true_labels)
    clean = images.with_labels(images.true_labels)
    if noise.kind == "none":
        return clean.with_labels(clean.labels, truth=clean.labels)
    if noise.kind == "file":
        if isinstance(clean, LabelledFeatures):
            raise SettingsError("noise of kind file goes with images; use kind column for features")
        return apply_noise(clean, str(noise.file))
    return inject(clean, kind=noise.kind, seed=seed, exact=noise.exact, progress=progress, **noise.shares)


def _with_tag_noise(images: TaggedImages, noise: Noise, *, seed: int) -> TaggedImages:
    true = images.true_tags
    if noise.kind == "given":
        return images.with_tags(images.tags, truth=true)
    clean = images.with_tags(true)
    if noise.kind == "none":
        return clean.with_tags(true, truth=true)
    return with_tag_noise(clean, kind=noise.kind, seed=seed, **noise.shares)


def _measure(shared: SharedInputs, cell: Cell, key: str, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    experiment, inputs = shared.experiment, shared.inputs(cell)
    fingerprints = {
        "data_fingerprint": inputs.images.fingerprint,
        "model_fingerprint": inputs.model_fingerprint,
        "test_fingerprint": None if inputs.test is None else inputs.test.fingerprint,
    }
    group = experiment.group(cell)
    _check_same(group, fingerprints, records, shared.store.folder)
    started = time.perf_counter()
    try:
        metrics = TASKS[experiment.task]().measure(inputs)
    except LabelsieveError as error:
        raise type(error)(f"{_describe(cell)}: {error}") from error
    return {
        "key": key,
        "group": group,
        **cell.parts,
        **{name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()},
        "images": len(inputs.images),
        "settings": to_json([dataclasses.asdict(experiment.noise[cell.noise]), dataclasses.asdict(inputs.method)]),
        "resolved": to_json(TASKS[experiment.task]().resolved(inputs.method)),
        **fingerprints,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{os.cpu_count()} cores {platform.machine()}, {shared.engine.device.type}",
        "versions": versions(),
    }


def _check_same(
    group: str, fingerprints: Mapping[str, str | None], records: Mapping[str, Mapping[str, Any]], folder: Path
) -> None:
    """Raises a `RunError` if cells of one group were measured on other images or models: they cannot be compared."""
    for record in records.values():
        for name, value in fingerprints.items():
            if record["group"] == group and record.get(name) != value:
                raise RunError(
                    f"{folder} holds cells of {record['data']}, {record['noise']}, seed {record['seed']} that were "
                    f"measured with {_MISMATCHES[name]}; choose another --out or bring back those of before"
                )


_MISMATCHES = {
    "data_fingerprint": "other images",
    "model_fingerprint": "another model",
    "test_fingerprint": "other test images",
}
