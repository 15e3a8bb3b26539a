"""About how long cells take, and how much memory: a few steps of each method, carried on to all images and steps.

Each method runs three times on a few of the images: seconds are taken to be `a + b * steps + c * images`. What grows
faster than the images, such as comparing each with each, takes longer than that says.
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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.bench.cell_inputs import Given, one_label, scan_once, true_labels
from labelsieve.bench.config import BUNDLED, Data, Method
from labelsieve.bench.experiment import Cell, Experiment
from labelsieve.bench.features import load_rows, of_file, of_images
from labelsieve.bench.peak_memory import PeakMemory
from labelsieve.bench.run import RowsT, check_models, check_test, load_data, load_test, with_noise
from labelsieve.bench.synthetic import DRAWN, Drawn
from labelsieve.bench.tasks import TASKS, adaptation
from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import DataError, LabelsieveError, ModelError
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

_FEW = 64  # images of a trial, and a batch of the paper
# A trial that took fewer seconds is made with so many more epochs the next time.
_QUICK, _MORE_STEPS = 2.0, 20


class Cost(NamedTuple):
    """Of one cell: seconds, and gigabytes of the machine and, where there is one, of the GPU."""

    seconds: float
    memory: float
    on_device: float | None


class Parts(NamedTuple):
    """Seconds of `a + b * steps + c * images`."""

    a: float
    b: float
    c: float

    def at(self, *, steps: int, images: int) -> float:
        """Returns the seconds of so many steps and images."""
        return self.a + self.b * steps + self.c * images


def estimate(experiment: Experiment, cells: Iterable[Cell], *, progress: Progress) -> dict[Cell, Cost | None]:
    """Estimates some cells of an experiment on this machine. Nothing is downloaded and nothing kept.

    Args:
        experiment: The experiment.
        cells: Those of its cells to estimate.
        progress: Where to show how far it is.

    Returns:
        For each cell its cost; None where the method does not run on so few images.

    Raises:
        LabelsieveError: Data or models are not on this machine, or cannot be read.
    """
    cells = list(cells)
    _check_at_hand(experiment, cells)
    check_models(experiment, cells)
    check_test(experiment, cells)
    kinds = {_kind(experiment, cell): cell for cell in reversed(cells)}
    found: dict[tuple[str, str, str, str], Cost | None] = {}
    with (
        tempfile.TemporaryDirectory(prefix="labelsieve-estimate-") as folder,
        progress.task("trying each method for a moment", total=len(kinds), unit="methods") as advance,
    ):
        for _, group in groupby(sorted(kinds), key=lambda kind: kind[:3]):
            alike = list(group)
            trial = _Trial(experiment, kinds[alike[0]], Path(folder) / f"{len(found)}")
            trial.open()
            for kind in alike:
                found[kind] = trial.cost(experiment.method[kinds[kind].method])
                advance(1)
    return {cell: found[_kind(experiment, cell)] for cell in cells}


def _kind(experiment: Experiment, cell: Cell) -> tuple[str, str, str, str]:
    """Returns what the cost of a cell depends on: not on the text regime where the detector uses no text."""
    return cell.model, cell.data, cell.text if experiment.method[cell.method].uses_text else "", cell.method


@dataclass(frozen=True)
class _Trial:
    """The images of one data set, one model and one text regime, for the methods to be tried on.

    Attributes:
        experiment: The experiment.
        cell: Any cell of these.
        folder: For what is written in between.
    """

    experiment: Experiment
    cell: Cell
    folder: Path

    @property
    def data(self) -> Data:
        return self.experiment.data[self.cell.data]

    def open(self) -> None:
        """Opens model and images: an error in them is reported, and not taken for a failure of a method."""
        _ = self.vlm, self.whole, self.test

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
    def whole(self) -> LabelledImages | LabelledFeatures | TaggedImages:
        """All images, or of sketches, which are made quickly when they are needed, a few; or features with noise."""
        if self.data.is_features:
            noise, seed, texts = self.experiment.noise[self.cell.noise], self.cell.seed, self.experiment.text
            rows = of_file(load_rows(self.data, noise, seed=seed, texts=texts), self.data, texts)[self.cell.text]
            return with_noise(rows, noise, seed=seed)
        if self.drawn is not None:
            count = min(self.data.limit or self.drawn.count, self.drawn.count_for(2 * _FEW))
            return self.drawn.draw(_made(self.folder), count, 0)
        return load_data(self.data, seed=self.cell.seed, has_tags=self.experiment.has_tags)

    @property
    def drawn(self) -> Drawn | None:
        """How the images are drawn; None where they are read."""
        return DRAWN.get(self.data.source)

    @property
    def images(self) -> int:
        """How many images a cell has, of scenes about so many."""
        if self.drawn is None:
            return len(self.whole)
        return round((self.data.limit or self.drawn.count) * self.drawn.images)

    @cached_property
    def test(self) -> LabelledImages | None:
        """As many of the test images for the images of a trial as there are of all."""
        source, most = self.data.test_source, min(_FEW, self.images)
        if source in DRAWN:
            kind = DRAWN[source]
            share = (self.data.test_limit or kind.test_count) / self.images
            drawn = one_label(kind.draw(_made(self.folder), max(8, round(share * most)), 1))
            return drawn.with_labels(true_labels(drawn))
        if source is None:
            return None
        whole = load_test(self.data, source)
        return _spread(whole, max(1, round(len(whole) / self.images * most)))

    def some(self, count: int) -> LabelledImages | LabelledFeatures | TaggedImages:
        """Returns some images with noise, their features computed; or some features with noise."""
        if self.vlm is None or isinstance(self.whole, LabelledFeatures):
            return self.whole.take(_spread_rows(len(self.whole), count))
        noisy = with_noise(_spread(self.whole, count), self.experiment.noise[self.cell.noise], seed=0)
        image_features(noisy, self.vlm.to(self.engine.device), engine=self.engine)
        if not self.cell.text:
            return noisy
        return of_images(one_label(noisy), self.vlm, [self.cell.text], test=self.test, engine=self.engine)[
            self.cell.text
        ]

    def cost(self, method: Method) -> Cost | None:
        """Returns what a cell with this method costs; None if it fails on few images."""
        try:
            with PeakMemory() as peak:
                seconds = self._seconds(method)
        except (LabelsieveError, ValueError, ArithmeticError, RuntimeError):
            return None
        return Cost(seconds, peak.gigabytes, peak.on_device)

    def _seconds(self, method: Method) -> float:
        if self.experiment.has_tags:
            return self._parts(method, trained=False).at(steps=0, images=self.images)
        seconds = 0.0
        if method.detector is not None:
            detector = method.make_detector(noise_rate=0.5)
            steps, trained = 0, isinstance(detector, Training) and detector.epochs > 0
            if trained and self.vlm is not None:
                ready = resolve(detector, self.vlm, readable=self.images, engine=self.engine)
                steps = make_schedule(ready, images=self.images).steps
            seconds += self._parts(method, trained=trained).at(steps=steps, images=self.images)
        if method.detector is None or (self.experiment.task == "adapt" and method.train_on != "nothing"):
            settings = adaptation(method)
            all_images = replace(method, detector=None, recipe="default", settings={}, train_on="all")
            parts = self._parts(all_images, trained=settings.epochs > 0)
            seconds += parts.at(steps=steps_of(settings, images=self.images), images=self.images)
        return seconds

    def _parts(self, method: Method, *, trained: bool) -> Parts:
        """Tries a method with few images and twice as many and, if it is trained, for one epoch and some more."""
        few = min(_FEW, max(1, self.images // 2))
        one, two = self.some(few), self.some(2 * few)
        self._run(method, one, 1, name="warm")  # the first time takes longer
        base, more = self._run(method, one, 1, name="base"), self._run(method, two, 1, name="more")
        if not trained:
            c = max(0.0, more - base) / few
            return Parts(max(0.0, base - c * few), 0.0, c)
        steps = math.ceil(few / _FEW)
        extra = _MORE_STEPS if base < _QUICK else 1  # a step of milliseconds is lost between one run and the next
        longer = self._run(method, one, 1 + extra, name="longer")
        b = max(0.0, longer - base) / (extra * steps)
        c = max(0.0, more - base - b * (math.ceil(2 * few / _FEW) - steps)) / few
        return Parts(max(0.0, base - b * steps - c * few), b, c)

    def _run(
        self, method: Method, images: LabelledImages | LabelledFeatures | TaggedImages, epochs: int, *, name: str
    ) -> float:
        """Returns the seconds of one trial: of a scan or, of a method without detector, of training a classifier."""
        given = Given(
            method=method if self.experiment.has_tags else _for(method, epochs),
            images=images,
            vlm=None if isinstance(images, LabelledFeatures) else self.vlm,
            seed=0,
            test=None if isinstance(images, LabelledFeatures) else self.test,
            runs=Path(tempfile.mkdtemp(prefix=name, dir=_made(self.folder))),
            progress=Progress(),
        )
        started = time.perf_counter()
        if method.detector is None or self.experiment.has_tags:
            TASKS[self.experiment.task]().measure(given)
        else:
            scan_once(given, tests=self.experiment.task == "detect" or method.train_on == "nothing")
        return time.perf_counter() - started


def _for(method: Method, epochs: int) -> Method:
    """Returns a method that trains for so many epochs, if it trains at all."""
    if method.detector is None:
        trains = adaptation(method).epochs > 0
        return replace(method, adapt={**method.adapt, "min_steps": 0} | ({"epochs": epochs} if trains else {}))
    detector = method.make_detector(noise_rate=0.5)
    if not isinstance(detector, Training) or not detector.epochs:
        return method
    batch = _FEW if detector.batch_size == "auto" else detector.batch_size
    return replace(method, settings={**method.settings, "epochs": epochs, "min_steps": 0, "batch_size": batch})


def _spread(images: RowsT, count: int) -> RowsT:
    """Returns so many images from all over the data, which may be sorted by class."""
    return images.take(_spread_rows(len(images), count))


def _spread_rows(rows: int, count: int) -> NDArray[np.int64]:
    return np.linspace(0, rows - 1, min(count, rows)).astype(np.int64)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_at_hand(experiment: Experiment, cells: Iterable[Cell]) -> None:
    """Checks that data and models are on this machine, which is quicker than to look for them on the Hub.

    Raises:
        LabelsieveError: Names the first that is not.
    """
    for cell in cells:
        data, noise = experiment.data[cell.data], experiment.noise[cell.noise]
        places = (
            ("--source", cell.data, data.source),
            ("--test", cell.data, data.test),
            ("--noise", cell.noise, noise.file),
        )
        for flag, name, place in places:
            if place is not None and place not in DRAWN and not _is_there(place):
                raise DataError(f"{place} is not on this machine; say where it lies with {flag} {name}=PLACE")
        if not data.is_features and not _has_model(experiment.model[cell.model]):
            place = experiment.model[cell.model]
            raise ModelError(f"{place} is not on this machine; say where it lies with --model {cell.model}=PLACE")
        backbone = experiment.method[cell.method].backbone
        if backbone is not None and not _has_model(backbone):
            raise ModelError(f"{backbone}, a backbone, is not on this machine")


def _is_there(place: str) -> bool:
    named = named_source(place)
    return (named.path if named else Path(place).expanduser()).exists()


def _has_model(name: str) -> bool:
    """Returns whether a model is bundled, a folder, or in the cache of the Hub."""
    from huggingface_hub import try_to_load_from_cache

    if name == BUNDLED or Path(name).expanduser().is_dir():
        return True
    try:
        return name.count("/") == 1 and isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # no id of the Hub: a path that does not exist, or a name with a prefix
        return False
