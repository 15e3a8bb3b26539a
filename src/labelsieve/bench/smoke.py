"""Smoke tests: runs experiments end to end within minutes and without network.

A few sketches replace the images, random numbers the features, and the bundled model all models and backbones. Every
method is measured on the first data set with the first noise, for one seed and very few epochs; methods of several
experiments run only in the first of them. Other kinds of noise and other stand-ins run with the first method only. The
numbers have no meaning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from labelsieve.bench.config import BUNDLED, FEATURES, NO_TEXT, Data, Method, Noise
from labelsieve.bench.experiment import Experiment
from labelsieve.bench.published import PaperNumbers
from labelsieve.bench.synthetic import SCENE_TAGS, SYNTHETIC_SOURCES
from labelsieve.bench.tasks import TASKS
from labelsieve.core.errors import RunError
from labelsieve.core.files import write_atomically
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.data.noise import symmetric
from labelsieve.data.published.base import named_source
from labelsieve.data.published.registry import PUBLISHED
from labelsieve.data.sources.splits import choose_split
from labelsieve.demo.sketches import CLASS_NAMES
from labelsieve.detect.training.settings import Training

IMAGES, TEST_IMAGES = 72, 24
_WIDTH = 16
"""Width of the features."""
_FOLDER = "stand-ins"
"""Name of the folder of their files, next to those of the results."""
_EPOCHS = 2
_PartT = TypeVar("_PartT")


def smoke(experiments: Sequence[Experiment], out: Path, *, progress: Progress | None = None) -> None:
    """Runs the miniatures of each experiment.

    Args:
        experiments: The experiments.
        out: Folder for the results, with a folder for each experiment and further stand-in, and for files of features.
        progress: Where to show progress.

    Raises:
        RunError: One or more failed; the others were still run.
    """
    progress, failed, tried = progress or Progress(), dict[str, str](), set[str]()
    for number, experiment in enumerate(experiments, 1):
        sets = "1 data set" if len(experiment.data) == 1 else f"{len(experiment.data)} data sets"
        progress.say(f"{number} of {len(experiments)}: {experiment.name}, {len(experiment.method)} methods, {sets}")
        for why in _failures(experiment, out, tried):
            failed.setdefault(experiment.name, why)
    if failed:
        name, why = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(experiments)} experiments failed: {', '.join(failed)}; {name}: {why}")


def _failures(experiment: Experiment, out: Path, tried: set[str]) -> Iterator[str]:
    """Runs the miniatures of an experiment, and yields their errors; adds its methods to the tried ones."""
    from labelsieve.bench.run import run_experiment

    seen = set[Data]()
    for name, data in experiment.data.items():
        try:
            stand_in = _stand_in(experiment, data, out / _FOLDER)
            if stand_in in seen:  # most images have the same stand-in
                continue
            all_methods = not seen
            seen.add(stand_in)
            for folder, each in miniatures(experiment, {name: stand_in}, all_methods=all_methods, tried=tried).items():
                run_experiment(each, out / folder)
                tried |= {_method_key(experiment, experiment.method[method]) for method in each.method}
        except Exception as error:  # any error: the others still have to run
            yield f"{type(error).__name__}: {error} (data {name})"


def _stand_in(experiment: Experiment, data: Data, folder: Path) -> Data:
    """Returns the stand-in of a data set: scenes with tags, random features, or sketches, whatever their format.

    Args:
        experiment: Its experiment.
        data: The data set.
        folder: Where to write features.

    Raises:
        DataError: A published data set has no such split.
    """
    if experiment.has_tags:
        return Data(source=SCENE_TAGS, limit=IMAGES)
    if data.is_features:
        return replace(data, source=str(_features(experiment, data, folder)), limit=None, class_names=None)
    source, limit = _sketches(data.source, data.split, IMAGES)
    if data.test_source is None:
        return Data(source=source, limit=limit)
    test, test_limit = _sketches(data.test_source, data.test_split, TEST_IMAGES)
    return Data(source=source, limit=limit, test=test, test_limit=test_limit)


def _sketches(source: str, split: str | None, images: int) -> tuple[str, int]:
    """Returns the synthetic source in the place of another one, and how many of it hold a number of images."""
    if (named := named_source(source)) is not None:
        data_set = PUBLISHED.entries[named.name]
        choose_split(data_set.splits, split, where=data_set.about)
    name = source if source in SYNTHETIC_SOURCES else "drawings"
    return name, SYNTHETIC_SOURCES[name].count_for(images)


def _features(experiment: Experiment, data: Data, folder: Path) -> Path:
    """Writes features around the centre of each class, which is also its text feature; 30 % of the labels are wrong."""
    texts = sorted({*experiment.text, "text"} - {NO_TEXT})
    truth_column, label_columns = data.truth_column or "truth", [*_columns(experiment), data.label_column or "label"]
    path = folder / f"{fingerprint(truth_column, label_columns, texts)}.npz"
    rng, count = np.random.default_rng(0), len(CLASS_NAMES)
    centres, truth = rng.normal(size=(count, _WIDTH)), rng.permutation(np.arange(IMAGES) % count)
    arrays: dict[str, Any] = dict.fromkeys(label_columns, symmetric(truth, classes=count, rate=0.3, seed=0))
    arrays |= {truth_column: truth} | dict.fromkeys(texts, centres)
    features = (centres[truth] + rng.normal(size=(IMAGES, _WIDTH))).astype(np.float32)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, class_names=np.array(CLASS_NAMES), logit_scale=np.float32(10), **arrays)
    return path


def miniatures(
    experiment: Experiment, data: Mapping[str, Data], *, all_methods: bool = True, tried: Collection[str] = ()
) -> dict[str, Experiment]:
    """Returns the miniatures of an experiment, by the names of their folders.

    Args:
        experiment: The experiment.
        data: The stand-in of one of its data sets, by name.
        all_methods: Whether to run all methods and, with the first of them, one noise of each kind; else one cell.
        tried: Methods that have already run and are skipped; if all have, the first is run.
    """
    first, *other_noises = _one_noise_per_kind(experiment, data).items()
    # one table, since plots would take most of the time of such a small run
    single = replace(experiment, method=_first(experiment.method), tables=experiment.tables[:1], against=None)
    if not all_methods:
        return {f"{experiment.name}-{next(iter(data))}": _miniature(single, data, dict([first]))}
    methods = {name: each for name, each in experiment.method.items() if _method_key(experiment, each) not in tried}
    against = experiment.against if experiment.against and experiment.against.method in methods else None
    new = replace(experiment, method=methods, against=against) if methods else single
    experiments = {experiment.name: _miniature(new, data, dict([first]))}
    if other_noises:
        experiments[f"{experiment.name}-noises"] = _miniature(single, data, dict(other_noises))
    return experiments


def _miniature(experiment: Experiment, data: Mapping[str, Data], noises: Mapping[str, Noise]) -> Experiment:
    """Returns a tiny experiment with the methods and some noises of another one."""
    return replace(
        experiment,
        name=f"smoke-{experiment.name}",  # so that it cannot write to a folder of real results
        title=f"{experiment.title}: a smoke test on tiny data, so that the numbers have no meaning",
        seeds=experiment.seeds[:1],
        model={name: each if each == FEATURES else BUNDLED for name, each in _first(experiment.model).items()},
        data=data,
        noise={name: replace(noise, data=None) for name, noise in noises.items()},
        method={each: _shortened(method, task=experiment.task) for each, method in experiment.method.items()},
        published=_published_subset(experiment.published, data, experiment.method, noises),
    )


def _method_key(experiment: Experiment, method: Method) -> str:
    """Returns a fingerprint of all settings that change a run of the method here."""
    on_features = bool(experiment.text) or any(data.is_features for data in experiment.data.values())
    return fingerprint(experiment.task, on_features, vars(_shortened(method, task=experiment.task)))


def _columns(experiment: Experiment) -> list[str]:
    """Returns the label columns of the noises for the first seed."""
    columns = (noise.column_of(experiment.seeds[0]) for noise in experiment.noise.values())
    return sorted({column for column in columns if column is not None})


def _first(parts: Mapping[str, _PartT]) -> dict[str, _PartT]:
    return dict([next(iter(parts.items()))])


def _published_subset(
    published: PaperNumbers | None, data: Collection[str], methods: Collection[str], noises: Collection[str]
) -> PaperNumbers | None:
    """Returns the published numbers of some data, methods and noises."""
    if published is None:
        return None
    values = {
        name: {
            method: {noise: row[noise] for noise in noises if noise in row}
            for method, row in published.values.get(name, {}).items()
            if method in methods or method in published.only_published
        }
        for name in data
    }
    return replace(published, values=values)


def _one_noise_per_kind(experiment: Experiment, data: Collection[str]) -> dict[str, Noise]:
    """Returns one noise of each kind; given labels instead of a file, which is for other images."""
    noises: dict[str, tuple[str, Noise]] = {}

    def has_all_data(name: str) -> bool:
        return all(experiment.has(data=each, noise=name) for each in data)

    for name, noise in experiment.noise.items():
        if has_all_data(name) and (noise.rate or not noise.injects_noise):
            noises.setdefault(noise.kind, (name, Noise(kind="given") if noise.kind == "file" else noise))
    return dict(noises.values()) or _first(
        {name: each for name, each in experiment.noise.items() if has_all_data(name)}
    )


def _shortened(method: Method, *, task: str) -> Method:
    """Returns a method with very few epochs, all of them warm-up if they were before."""
    changes: dict[str, Any] = {"backbone": None}
    if task == "adapt" or method.detector is None:
        changes["adapt"] = {**method.adapt, "epochs": 1, "min_steps": 0, "warmup_epochs": 0}
    if method.detector is None:
        return replace(method, **changes)
    detector = method.make_tag_detector() if TASKS[task]().has_tags else method.make_detector(noise_rate=0.5)
    settings = {**method.settings}
    if getattr(detector, "epochs", 0):
        settings |= {"epochs": min(_EPOCHS, detector.epochs), "min_steps": 0}
    if isinstance(detector, Training) and detector.epochs:
        warmup = _EPOCHS if detector.warmup_epochs >= detector.epochs else min(1, detector.warmup_epochs)
        settings |= {"warmup_epochs": warmup}
    return replace(method, **changes, settings=settings)
