"""Experiments end to end within minutes and without network: does each of them still run?

Small drawings stand in the place of the data, and the bundled model in that of all models and backbones. Every method
is measured, on the first data set, with the first noise of each kind, for one seed and hardly any epochs. The numbers
mean nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labelsieve.bench.experiment import BUNDLED, DRAWINGS, Data, Experiment, Method, Noise
from labelsieve.bench.published import Published
from labelsieve.detect.settings import Training
from labelsieve.errors import RunError
from labelsieve.progress import Progress

IMAGES, TEST_IMAGES = 72, 24
_EPOCHS = 2


def smoke(experiments: Sequence[Experiment], out: Path, *, progress: Progress | None = None) -> None:
    """Runs the miniature of each experiment.

    Args:
        experiments: What to run.
        out: Folder for the results, one of each experiment.
        progress: Where to show how far it is.

    Raises:
        RunError: One or more failed; the others were run all the same.
    """
    from labelsieve.bench.run import run_experiment

    progress, failed = progress or Progress(), dict[str, str]()
    for number, experiment in enumerate(experiments, 1):
        small = miniature(experiment)
        progress.say(f"{number} of {len(experiments)}: {experiment.name}, {len(list(small.cells()))} cells")
        try:
            run_experiment(small, out / experiment.name)
        except Exception as error:  # whatever it is, the others are to be run, too
            failed[experiment.name] = f"{type(error).__name__}: {error}"
    if failed:
        name, why = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(experiments)} experiments failed: {', '.join(failed)}; {name}: {why}")


def miniature(experiment: Experiment) -> Experiment:
    """Returns an experiment with all methods of another one, on next to nothing."""
    name, data = next(iter(experiment.data.items()))
    noises, adapts = _one_of_each_kind(experiment), experiment.task == "adapt"
    return dataclasses.replace(
        experiment,
        name=f"smoke-{experiment.name}",  # so that no folder of results is taken for its own
        title=f"{experiment.title}: tried on next to nothing, so that the numbers mean nothing",
        seeds=experiment.seeds[:1],
        model={next(iter(experiment.model)): BUNDLED},
        data={name: _drawings(data)},
        noise=noises,
        method={each: _brief(method, adapts=adapts) for each, method in experiment.method.items()},
        published=_only(experiment.published, name, noises),
    )


def _only(published: Published | None, data: str, noises: Iterable[str]) -> Published | None:
    """Returns the published numbers of one data set and some noises."""
    if published is None:
        return None
    rows = published.values.get(data, {})
    kept = {method: {noise: row[noise] for noise in noises if noise in row} for method, row in rows.items()}
    return dataclasses.replace(published, values={data: kept})


def _drawings(data: Data) -> Data:
    tested = data.test_source is not None
    return Data(
        source=DRAWINGS,
        limit=IMAGES,
        test=DRAWINGS if tested else None,
        test_limit=TEST_IMAGES if tested else None,
    )


def _one_of_each_kind(experiment: Experiment) -> dict[str, Noise]:
    """Returns the noises, one of each kind; in the place of a file, which is of other images, the labels as drawn."""
    found: dict[str, tuple[str, Noise]] = {}
    for name, noise in experiment.noise.items():
        if noise.rate or noise.kind in ("given", "file"):
            found.setdefault(noise.kind, (name, Noise(kind="given") if noise.kind == "file" else noise))
    return dict(found.values()) or dict(experiment.noise)


def _brief(method: Method, *, adapts: bool) -> Method:
    """Returns a method with hardly any epochs, of which those that were warm-up altogether stay so."""
    changes: dict[str, Any] = {"backbone": None}
    if adapts:
        changes["adapt"] = {**method.adapt, "epochs": 1, "min_steps": 0}
    if method.detector is None:
        return dataclasses.replace(method, **changes)
    detector = method.make_detector(noise_rate=0.5)
    settings = {**method.settings}
    if isinstance(detector, Training) and detector.epochs:
        warmup = _EPOCHS if detector.warmup_epochs >= detector.epochs else min(1, detector.warmup_epochs)
        settings |= {"epochs": min(_EPOCHS, detector.epochs), "warmup_epochs": warmup, "min_steps": 0}
    return dataclasses.replace(method, **changes, settings=settings)
