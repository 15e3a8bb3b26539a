"""Experiments end to end within minutes and without network: does each of them still run?

Tiny look-alikes of the data, in the same layout, stand in their place, and the bundled model in that of all models and
backbones. Every method is measured on the first data set with the first noise, for one seed and hardly any epochs; one
that several experiments have is tried with the first of them. Other kinds of noise and other data sets, which no method
knows of, are tried with the first method alone. The numbers mean nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from labelsieve.bench.config import BUNDLED, FEATURES, Data, Method, Noise
from labelsieve.bench.experiment import Experiment
from labelsieve.bench.lookalikes.stand_ins import IMAGES, StandIns
from labelsieve.bench.published import Published
from labelsieve.bench.synthetic import SCENE_TAGS
from labelsieve.bench.tasks import TASKS
from labelsieve.core.errors import RunError
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.detect.training.settings import Training

LOOKALIKES = "look-alikes"
"""Folder of the data, among those of the results."""

_EPOCHS = 2
_PartT = TypeVar("_PartT")


def smoke(experiments: Sequence[Experiment], out: Path, *, progress: Progress | None = None) -> None:
    """Runs the miniatures of each experiment.

    Args:
        experiments: What to run.
        out: Folder for the look-alikes of the data and for the results, a folder of each experiment and one of each
            further data set.
        progress: Where to show how far it is.

    Raises:
        RunError: One or more failed; the others were run all the same.
    """
    progress, failed, tried = progress or Progress(), dict[str, str](), set[str]()
    stand_ins = StandIns(out / LOOKALIKES)
    for number, experiment in enumerate(experiments, 1):
        sets = "1 data set" if len(experiment.data) == 1 else f"{len(experiment.data)} data sets"
        progress.say(f"{number} of {len(experiments)}: {experiment.name}, {len(experiment.method)} methods, {sets}")
        for why in _failures(experiment, out, stand_ins, tried):
            failed.setdefault(experiment.name, why)
    if failed:
        name, why = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(experiments)} experiments failed: {', '.join(failed)}; {name}: {why}")


def _failures(experiment: Experiment, out: Path, stand_ins: StandIns, tried: set[str]) -> Iterator[str]:
    """Runs the miniatures of an experiment, and yields why some fail; adds its methods to those that were tried."""
    from labelsieve.bench.run import run_experiment

    done = set[Data]()
    for name, data in experiment.data.items():
        try:
            small = _stand_in(experiment, data, stand_ins)
            if small in done:  # several sizes of the same data are one here
                continue
            whole = not done
            done.add(small)
            for place, each in miniatures(experiment, {name: small}, whole=whole, tried=tried).items():
                run_experiment(each, out / place)
                tried |= {_kind(experiment, experiment.method[method]) for method in each.method}
        except Exception as error:  # whatever it is, the others are to be run, too
            yield f"{type(error).__name__}: {error} (data {name})"


def _stand_in(experiment: Experiment, data: Data, stand_ins: StandIns) -> Data:
    """Returns what stands in the place of a data set; for tags that are scenes, whatever they are read from."""
    if experiment.has_tags:
        return Data(source=SCENE_TAGS, limit=IMAGES)
    return stand_ins.of(data, columns=_columns(experiment), texts=experiment.text)


def miniatures(
    experiment: Experiment, data: Mapping[str, Data], *, whole: bool = True, tried: Collection[str] = ()
) -> dict[str, Experiment]:
    """Returns what is tried of an experiment, by the names of the folders.

    Args:
        experiment: The experiment.
        data: What stands in the place of one of its data sets, by the name of that one.
        whole: Whether to try all methods and, with the first of them, one noise of each kind; else there is one cell.
        tried: Methods that were tried before, and need not be again; of none but those the first is.
    """
    first, *others = _one_of_each_kind(experiment, data).items()
    # one table, since most of the time of so small a run would go into drawing the others
    single = replace(experiment, method=_first(experiment.method), tables=experiment.tables[:1], against=None)
    if not whole:
        return {f"{experiment.name}-{next(iter(data))}": _miniature(single, data, dict([first]))}
    methods = {name: each for name, each in experiment.method.items() if _kind(experiment, each) not in tried}
    against = experiment.against if experiment.against and experiment.against.method in methods else None
    new = replace(experiment, method=methods, against=against) if methods else single
    found = {experiment.name: _miniature(new, data, dict([first]))}
    if others:
        found[f"{experiment.name}-noises"] = _miniature(single, data, dict(others))
    return found


def _miniature(experiment: Experiment, data: Mapping[str, Data], noises: Mapping[str, Noise]) -> Experiment:
    """Returns an experiment on next to nothing, with the methods of another one and some of its noises."""
    return replace(
        experiment,
        name=f"smoke-{experiment.name}",  # so that no folder of results is taken for its own
        title=f"{experiment.title}: tried on next to nothing, so that the numbers mean nothing",
        seeds=experiment.seeds[:1],
        model={name: each if each == FEATURES else BUNDLED for name, each in _first(experiment.model).items()},
        data=data,
        noise={name: replace(noise, data=None) for name, noise in noises.items()},
        method={each: _brief(method, task=experiment.task) for each, method in experiment.method.items()},
        published=_only(experiment.published, data, experiment.method, noises),
    )


def _kind(experiment: Experiment, method: Method) -> str:
    """Returns a fingerprint of all that makes a run of the method differ from another one here."""
    on_features = bool(experiment.text) or any(data.is_features for data in experiment.data.values())
    return fingerprint(experiment.task, on_features, vars(_brief(method, task=experiment.task)))


def _columns(experiment: Experiment) -> list[str]:
    """Returns the label columns that the noises ask for with the one seed of a miniature."""
    found = (noise.column_of(experiment.seeds[0]) for noise in experiment.noise.values())
    return sorted({column for column in found if column is not None})


def _first(parts: Mapping[str, _PartT]) -> dict[str, _PartT]:
    return dict([next(iter(parts.items()))])


def _only(
    published: Published | None, data: Collection[str], methods: Collection[str], noises: Collection[str]
) -> Published | None:
    """Returns the published numbers of some data, methods and noises."""
    if published is None:
        return None
    kept = {
        name: {
            method: {noise: row[noise] for noise in noises if noise in row}
            for method, row in published.values.get(name, {}).items()
            if method in methods or method in published.only_published
        }
        for name in data
    }
    return replace(published, values=kept)


def _one_of_each_kind(experiment: Experiment, data: Collection[str]) -> dict[str, Noise]:
    """Returns noises of some data, one of each kind; for a file, which is of other images, the labels as drawn."""
    found: dict[str, tuple[str, Noise]] = {}

    def every(name: str) -> bool:
        return all(experiment.has(data=each, noise=name) for each in data)

    for name, noise in experiment.noise.items():
        if every(name) and (noise.rate or not noise.puts_in):
            found.setdefault(noise.kind, (name, Noise(kind="given") if noise.kind == "file" else noise))
    return dict(found.values()) or _first({name: each for name, each in experiment.noise.items() if every(name)})


def _brief(method: Method, *, task: str) -> Method:
    """Returns a method with hardly any epochs, of which those that were warm-up altogether stay so."""
    changes: dict[str, Any] = {"backbone": None}
    if task == "adapt" or method.detector is None:
        changes["adapt"] = {**method.adapt, "epochs": 1, "min_steps": 0, "warmup_epochs": 0}
    if method.detector is None:
        return replace(method, **changes)
    detector = method.make_pair_detector() if TASKS[task]().has_tags else method.make_detector(noise_rate=0.5)
    settings = {**method.settings}
    if getattr(detector, "epochs", 0):
        settings |= {"epochs": min(_EPOCHS, detector.epochs), "min_steps": 0}
    if isinstance(detector, Training) and detector.epochs:
        warmup = _EPOCHS if detector.warmup_epochs >= detector.epochs else min(1, detector.warmup_epochs)
        settings |= {"warmup_epochs": warmup}
    return replace(method, **changes, settings=settings)
