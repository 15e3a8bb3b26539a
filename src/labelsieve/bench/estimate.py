"""Estimates time and memory of cells by extrapolating short trials of each method.

Each method runs three times on a few images to fit `seconds = a + b * steps + c * images`. Costs that grow faster, such
as those of pairwise comparisons, are underestimated.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from labelsieve.bench.cell_inputs import CellInputs, scan_once
from labelsieve.bench.config import BUNDLED, Data, Method
from labelsieve.bench.experiment import Cell, Experiment
from labelsieve.bench.features import features_of_file, features_of_images, load_rows
from labelsieve.bench.peak_memory import PeakMemory
from labelsieve.bench.run import RowsT, check_models, check_test, load_data, load_test, with_noise
from labelsieve.bench.synthetic import SYNTHETIC_SOURCES, SyntheticSource
from labelsieve.bench.tasks import TASKS, adaptation
from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import DataError, LabelsieveError, ModelError
from labelsieve.core.files import expand_home
from labelsieve.core.progress import Progress
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.data.published.base import named_source
from labelsieve.data.tags.records import TaggedImages
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.training.autoconfig import resolve
from labelsieve.detect.training.loop import make_schedule
from labelsieve.detect.training.settings import Training
from labelsieve.finetune.loop import steps_of
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.features import image_features
from labelsieve.vlm.loading import load_vlm

_TRIAL_IMAGES = 64  # the batch size of the paper
# A trial that took fewer seconds is repeated with this number of additional epochs.
_MIN_SECONDS, _EXTRA_EPOCHS = 2.0, 20


class Cost(NamedTuple):
    """Cost of one cell: seconds, and gigabytes of memory of the machine and, if there is one, of the GPU."""

    seconds: float
    memory: float
    on_device: float | None


class TimeModel(NamedTuple):
    """The model `seconds = a + b * steps + c * images`."""

    a: float
    b: float
    c: float

    def predict(self, *, steps: int, images: int) -> float:
        """Returns the predicted seconds."""
        return self.a + self.b * steps + self.c * images


def estimate(experiment: Experiment, cells: Iterable[Cell], *, progress: Progress) -> dict[Cell, Cost | None]:
    """Estimates the cost of cells on this machine, without downloading or saving anything.

    Args:
        experiment: The experiment.
        cells: The cells to estimate.
        progress: Where to show progress.

    Returns:
        The cost of each cell; None if the method fails on few images.

    Raises:
        LabelsieveError: Data or models are not on this machine, or cannot be read.
    """
    cells = list(cells)
    _check_local(experiment, cells)
    check_models(experiment, cells)
    check_test(experiment, cells)
    cell_of_key = {_cost_key(experiment, cell): cell for cell in reversed(cells)}
    costs: dict[tuple[str, str, str, str], Cost | None] = {}
    with (
        tempfile.TemporaryDirectory(prefix="labelsieve-estimate-") as folder,
        progress.task("running a short trial of each method", total=len(cell_of_key), unit="methods") as advance,
    ):
        for _, group in groupby(sorted(cell_of_key), key=lambda key: key[:3]):
            same_inputs = list(group)
            trial = _Trial(experiment, cell_of_key[same_inputs[0]], Path(folder) / f"{len(costs)}")
            trial.open()
            for key in same_inputs:
                costs[key] = trial.cost(experiment.method[cell_of_key[key].method])
                advance(1)
    return {cell: costs[_cost_key(experiment, cell)] for cell in cells}


def _cost_key(experiment: Experiment, cell: Cell) -> tuple[str, str, str, str]:
    """Returns the properties that the cost of a cell depends on; the text regime only if the detector uses text."""
    return cell.model, cell.data, cell.text if experiment.method[cell.method].uses_text else "", cell.method


@dataclass(frozen=True)
class _Trial:
    """Trials of methods with one data set, one model and one text regime.

    Attributes:
        experiment: The experiment.
        cell: Any of its cells with these properties.
        folder: Folder for temporary files.
    """

    experiment: Experiment
    cell: Cell
    folder: Path

    @property
    def data(self) -> Data:
        return self.experiment.data[self.cell.data]

    def open(self) -> None:
        """Opens model and images, so that their errors are reported and not attributed to a method."""
        _ = self.vlm, self.data_set, self.test

    @cached_property
    def engine(self) -> Engine:
        return make_engine()

    @cached_property
    def vlm(self) -> VisionLanguageModel | None:
        """The model; None with a file of features."""
        if self.data.is_features:
            return None
        name = self.experiment.model[self.cell.model]
        return load_vlm(MINI_CLIP if name == BUNDLED else name)

    @cached_property
    def data_set(self) -> LabelledImages | LabelledFeatures | TaggedImages:
        """All images, or only a few if they are synthetic; or features with noise."""
        if self.data.is_features:
            noise, seed, texts = self.experiment.noise[self.cell.noise], self.cell.seed, self.experiment.text
            regimes = features_of_file(load_rows(self.data, noise, seed=seed, texts=texts), self.data, texts)
            rows = regimes[self.cell.text]
            return with_noise(rows, noise, seed=seed)
        if self.drawn is not None:
            count = min(self.data.limit or self.drawn.count, self.drawn.count_for(2 * _TRIAL_IMAGES))
            return self.drawn.draw(_make_folder(self.folder), count, 0)
        return load_data(self.data, seed=self.cell.seed, has_tags=self.experiment.has_tags)

    @property
    def drawn(self) -> SyntheticSource | None:
        """The synthetic source of the images; None for other sources."""
        return SYNTHETIC_SOURCES.get(self.data.source)

    @property
    def images(self) -> int:
        """Number of images of a cell, approximate for scenes."""
        if self.drawn is None:
            return len(self.data_set)
        return round((self.data.limit or self.drawn.count) * self.drawn.images)

    @cached_property
    def test(self) -> LabelledImages | None:
        """A subset of the test images, with the same ratio to the images of a trial as in a cell."""
        source, maximum = self.data.test_source, min(_TRIAL_IMAGES, self.images)
        if source in SYNTHETIC_SOURCES:
            kind = SYNTHETIC_SOURCES[source]
            ratio = (self.data.test_limit or kind.test_count) / self.images
            drawn = kind.draw(_make_folder(self.folder), max(8, round(ratio * maximum)), 1)
            images = cast(LabelledImages, drawn)
            return images.with_labels(images.true_labels)
        if source is None:
            return None
        images = load_test(self.data, source)
        return _evenly_spaced(images, max(1, round(len(images) / self.images * maximum)))

    def subset(self, count: int) -> LabelledImages | LabelledFeatures | TaggedImages:
        """Returns a subset of the images with noise and cached features; or of the features with noise."""
        if self.vlm is None or isinstance(self.data_set, LabelledFeatures):
            return self.data_set.take(_evenly_spaced_rows(len(self.data_set), count))
        noisy = with_noise(_evenly_spaced(self.data_set, count), self.experiment.noise[self.cell.noise], seed=0)
        image_features(noisy, self.vlm.to(self.engine.device), engine=self.engine)
        if not self.cell.text:
            return noisy
        images, text = cast(LabelledImages, noisy), self.cell.text
        return features_of_images(images, self.vlm, [text], test=self.test, engine=self.engine)[text]

    def cost(self, method: Method) -> Cost | None:
        """Returns the cost of a cell with this method; None if it fails on few images."""
        try:
            with PeakMemory() as peak:
                seconds = self._seconds(method)
        except (LabelsieveError, ValueError, ArithmeticError, RuntimeError):
            return None
        return Cost(seconds, peak.gigabytes, peak.on_device)

    def _seconds(self, method: Method) -> float:
        if self.experiment.has_tags:
            return self._fit_time_model(method, trained=False).predict(steps=0, images=self.images)
        seconds = 0.0
        if method.detector is not None:
            detector = method.make_detector(noise_rate=0.5)
            steps, trained = 0, isinstance(detector, Training) and detector.epochs > 0
            if trained and self.vlm is not None:
                resolved = resolve(detector, self.vlm, readable=self.images, engine=self.engine)
                steps = make_schedule(resolved, images=self.images).steps
            seconds += self._fit_time_model(method, trained=trained).predict(steps=steps, images=self.images)
        if method.detector is None or (self.experiment.task == "adapt" and method.train_on != "nothing"):
            settings = adaptation(method)
            all_images = replace(method, detector=None, recipe="default", settings={}, train_on="all")
            time_model = self._fit_time_model(all_images, trained=settings.epochs > 0)
            seconds += time_model.predict(steps=steps_of(settings, images=self.images), images=self.images)
        return seconds

    def _fit_time_model(self, method: Method, *, trained: bool) -> TimeModel:
        """Runs a method on few images and on twice as many and, if it is trained, with additional epochs."""
        count = min(_TRIAL_IMAGES, max(1, self.images // 2))
        batch, double_batch = self.subset(count), self.subset(2 * count)
        self._run(method, batch, 1, name="warm")  # the first run takes longer
        base, double = self._run(method, batch, 1, name="base"), self._run(method, double_batch, 1, name="more")
        if not trained:
            c = max(0.0, double - base) / count
            return TimeModel(max(0.0, base - c * count), 0.0, c)
        size = _batch_size(method)
        steps = math.ceil(count / size)
        # the time of a few short steps would be below the noise between runs
        extra = _EXTRA_EPOCHS if base < _MIN_SECONDS else 1
        long = self._run(method, batch, 1 + extra, name="longer")
        b = max(0.0, long - base) / (extra * steps)
        c = max(0.0, double - base - b * (math.ceil(2 * count / size) - steps)) / count
        return TimeModel(max(0.0, base - b * steps - c * count), b, c)

    def _run(
        self, method: Method, images: LabelledImages | LabelledFeatures | TaggedImages, epochs: int, *, name: str
    ) -> float:
        """Returns the seconds of one trial: of a scan or, without a detector, of training a classifier."""
        inputs = CellInputs(
            method=method if self.experiment.has_tags else _with_epochs(method, epochs),
            images=images,
            vlm=None if isinstance(images, LabelledFeatures) else self.vlm,
            seed=0,
            test=None if isinstance(images, LabelledFeatures) else self.test,
            runs=Path(tempfile.mkdtemp(prefix=name, dir=_make_folder(self.folder))),
            progress=Progress(),
        )
        started = time.perf_counter()
        if method.detector is None or self.experiment.has_tags:
            TASKS[self.experiment.task]().measure(inputs)
        else:
            scan_once(inputs, tests=self.experiment.task == "detect" or method.train_on == "nothing")
        return time.perf_counter() - started


def _with_epochs(method: Method, epochs: int) -> Method:
    """Returns a method with another number of epochs, if it trains."""
    if method.detector is None:
        trains = adaptation(method).epochs > 0
        return replace(method, adapt={**method.adapt, "min_steps": 0} | ({"epochs": epochs} if trains else {}))
    detector = method.make_detector(noise_rate=0.5)
    if not isinstance(detector, Training) or not detector.epochs:
        return method
    trial_settings = {"epochs": epochs, "min_steps": 0, "batch_size": _batch_size(method)}
    return replace(method, settings={**method.settings, **trial_settings})


def _batch_size(method: Method) -> int:
    """Returns how many images a step of a trial has, of a method that trains."""
    if method.detector is None:
        return adaptation(method).batch_size
    size = method.make_detector(noise_rate=0.5).batch_size
    return _TRIAL_IMAGES if size == "auto" else int(size)


def _evenly_spaced(images: RowsT, count: int) -> RowsT:
    """Returns evenly spaced images of the data, which may be sorted by class."""
    return images.take(_evenly_spaced_rows(len(images), count))


def _evenly_spaced_rows(rows: int, count: int) -> NDArray[np.int64]:
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_local(experiment: Experiment, cells: Iterable[Cell]) -> None:
    """Checks that data and models are on this machine, which is faster than a request to the Hub.

    Raises:
        LabelsieveError: Names the first missing one.
    """
    for cell in cells:
        data, noise = experiment.data[cell.data], experiment.noise[cell.noise]
        locations = (
            ("--source", cell.data, data.source),
            ("--test", cell.data, data.test),
            ("--noise", cell.noise, noise.file),
        )
        for flag, name, location in locations:
            if location is not None and location not in SYNTHETIC_SOURCES and not _exists(location):
                raise DataError(f"{location} is not on this machine; say where it lies with {flag} {name}=PLACE")
        if not data.is_features and not _has_model(experiment.model[cell.model]):
            location = experiment.model[cell.model]
            raise ModelError(f"{location} is not on this machine; say where it lies with --model {cell.model}=PLACE")
        backbone = experiment.method[cell.method].backbone
        if backbone is not None and not _has_model(backbone):
            raise ModelError(f"{backbone}, a backbone, is not on this machine")


def _exists(location: str) -> bool:
    named = named_source(location)
    return (named.path if named else expand_home(location)).exists()


def _has_model(name: str) -> bool:
    """Returns whether a model is bundled, a folder, or in the cache of the Hub."""
    from huggingface_hub import try_to_load_from_cache

    if name == BUNDLED or expand_home(name).is_dir():
        return True
    try:
        return name.count("/") == 1 and isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # not a Hub id: a missing path, or a name with a prefix
        return False
