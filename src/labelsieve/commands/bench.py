"""`labelsieve bench`: run an experiment and write its tables."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from labelsieve.commands.base import Command, Flag
from labelsieve.core.errors import LabelsieveError, SettingsError, UsageError, listed, shown
from labelsieve.core.files import expand_home
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import about, gigabytes

if TYPE_CHECKING:
    from labelsieve.bench.estimate import Cost
    from labelsieve.bench.experiment import Cell, Experiment

Locations = Annotated[tuple[str, ...], arg(metavar="NAME=PLACE ...")]
Sources = Annotated[tuple[str, ...], arg(metavar="FOLDER|NAME=PLACE ...")]


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measures an experiment: every method on every data set with every noise, for some seeds.

    Writes results.csv and results.md while it runs, and plots at the end. Results that exist are not computed again:
    the same command resumes after an interruption, and with more seeds or methods in the file only those are computed.

    With --smoke, a few sketches replace the data, the bundled model replaces the models, and training takes a few steps
    only: within minutes and without network it checks that every method of every shipped experiment, or of FILE, still
    runs. It reads none of the data.

    Attributes:
        file: TOML file, or the name of a shipped experiment (see: labelsieve list). Only --smoke goes without.
        out: Folder of the results. Only --smoke and --dry-run may omit it; they then write and read no results.
        source: Locations of data sets, by their names in the file; or one folder for all that the file names by a
            bare file name.
        test: Locations of their test images.
        model: Locations of models, by their names in the file.
        noise: Locations of files of noise, by the names of the noises.
        dry_run: List the cells and which are missing, with an estimate of their time and memory from a short trial of
            each method on this machine; compare our numbers with those of a paper if the file has some; measure
            nothing.
        smoke: Only check that everything runs.
    """

    resume_flags = ()  # finished cells are stored
    settings_are_options = False

    file: Annotated[Positional[str | None], arg(metavar="FILE.toml|NAME", help_behavior_hint="")] = None
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    source: Sources = ()
    test: Locations = ()
    model: Locations = ()
    noise: Locations = ()
    dry_run: Flag = False
    smoke: Flag = False

    def run(self, console: Console) -> None:
        """Reads the experiment, measures it, and prints the tables."""
        from labelsieve.bench.experiment import read_experiment

        if self.smoke:
            _smoke(self.file, self.out, console)
            return
        if self.file is None or (self.out is None and not self.dry_run):
            raise UsageError(
                "expected FILE.toml or NAME, and --out DIR; --smoke goes without them, --dry-run without --out"
            )
        sources_folder, sources = _folder(self.source)
        experiment = read_experiment(self.file).with_locations(
            folder=sources_folder,
            sources=_locations(sources, "--source"),
            tests=_locations(self.test, "--test"),
            models=_locations(self.model, "--model"),
            noises=_locations(self.noise, "--noise"),
        )
        if self.out is None or self.dry_run:
            _list_cells(experiment, self.out, console)
            return
        from labelsieve.bench.plots import can_plot
        from labelsieve.bench.run import run_experiment
        from labelsieve.bench.tables import RESULTS_MD

        progress = Progress(console)
        folder = run_experiment(experiment, self.out, progress=progress)
        console.print((folder / RESULTS_MD).read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
        if not can_plot():
            progress.say('no plots: they need matplotlib; pip install "labelsieve[bench]"')
        progress.say(f"results: {folder / RESULTS_MD}")


def _smoke(file: str | None, out: Path | None, console: Console) -> None:
    from labelsieve.bench.experiment import read_experiment
    from labelsieve.bench.smoke import smoke
    from labelsieve.bench.toml_files import shipped

    experiments = [read_experiment(name) for name in (shipped() if file is None else [file])]
    progress = Progress(console)
    if out is not None:
        smoke(experiments, out, progress=progress)
    else:
        with tempfile.TemporaryDirectory(prefix="labelsieve-smoke-") as folder:
            smoke(experiments, Path(folder), progress=progress)
    progress.say(f"{len(experiments)} experiments run")


def _list_cells(experiment: Experiment, out: Path | None, console: Console) -> None:
    from labelsieve.bench.changed_defaults import without_changed_defaults
    from labelsieve.bench.store import Store
    from labelsieve.bench.tables import published_table

    progress = Progress(console)
    measured = {} if out is None else Store.open(out, name=experiment.name).read()
    records = without_changed_defaults(experiment, measured, progress=progress)
    is_measured = {cell: experiment.key(cell) in records for cell in experiment.cells()}
    missing = [cell for cell, is_done in is_measured.items() if not is_done]
    costs = _costs(experiment, missing, progress)
    for cell, is_done in is_measured.items():
        words = "  ".join(map(str, cell))
        progress.say(f"done     {words}" if is_done else f"missing  {words}{_cost_text([costs.get(cell)])}")
    if experiment.published is not None:
        progress.say(f"beside {experiment.published.source}, in %:")
        for line in published_table(experiment, experiment.published, records):
            progress.say(line)
    progress.say(
        f"{len(missing)} of {len(is_measured)} cells are missing{_cost_text([costs.get(cell) for cell in missing])}"
    )


def _costs(experiment: Experiment, cells: Sequence[Cell], progress: Progress) -> Mapping[Cell, Cost | None]:
    """Estimates costs from a short trial of each method; if that fails, prints the reason and returns nothing."""
    if not cells:
        return {}
    from labelsieve.bench.estimate import estimate

    try:
        return estimate(experiment, cells, progress=progress)
    except LabelsieveError as error:
        progress.say(f"no estimate of time and memory: {error}")
        return {}


def _cost_text(costs: Sequence[Cost | None]) -> str:
    """Returns a text on the cost of some cells one after another; empty without estimates."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return ""
    on_device = [cost.on_device for cost in known if cost.on_device is not None]
    parts = [about(sum(cost.seconds for cost in known)), gigabytes(max(cost.memory for cost in known))]
    parts += [f"{gigabytes(max(on_device))} of the GPU"] if on_device else []
    parts += [f"and {len(costs) - len(known)} that could not be tried"] if len(known) < len(costs) else []
    return f": {', '.join(parts)}"


def _folder(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Separates the folder of the data, which is no NAME=PLACE, from the locations of single data sets."""
    folders = [word for word in words if "=" not in word or expand_home(word).is_dir()]
    if len(folders) > 1:
        raise SettingsError(f"expected one folder in --source, got {listed(folders)}; give NAME=PLACE for the others")
    return folders[0] if folders else None, [word for word in words if word not in folders]


def _locations(words: Sequence[str], flag: str) -> dict[str, str]:
    locations: dict[str, str] = {}
    for word in words:
        name, equals, location = word.partition("=")
        if not (name and equals and location):
            raise SettingsError(f"expected {flag} NAME=PLACE, got {shown(word)}")
        if name in locations:
            raise SettingsError(
                f"expected one place for {shown(name)} in {flag}, got {shown(locations[name])} and {shown(location)}"
            )
        locations[name] = location
    return locations
