"""`labelsieve bench`: measure the tables of an experiment."""

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
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import about, gigabytes

if TYPE_CHECKING:
    from labelsieve.bench.estimate import Cost
    from labelsieve.bench.experiment import Cell, Experiment

Places = Annotated[tuple[str, ...], arg(metavar="NAME=PLACE ...", help_behavior_hint="(optional)")]
Sources = Annotated[tuple[str, ...], arg(metavar="FOLDER|NAME=PLACE ...", help_behavior_hint="(optional)")]


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measures an experiment: every method on every data set with every noise, for some seeds.

    Writes results.csv and results.md as it goes, and plots at the end. What is measured already is not measured again:
    the same command goes on after an interruption, and with more seeds or methods in the file only those are new.

    With --smoke the data become tiny look-alikes in the same layout, the models the bundled one, and training takes
    hardly any steps: it shows within minutes and without network that every method of every shipped experiment, or of
    FILE, still runs, and that all its data are read.

    Attributes:
        file: TOML file, or the name of a shipped experiment (see: labelsieve list). Only --smoke goes without.
        out: Folder of the results. Only --smoke and --dry-run go without; then they keep none, and know of none.
        source: Where data sets lie, by their names in the file; or the folder of all that the file names by a bare
            file name.
        test: Where their test images lie.
        model: Where models lie, by their names in the file.
        noise: Where files of noise lie, by the names of the noises.
        dry_run: List the cells and say which are missing, and about how long they take and how much memory, from a
            short trial of each method on this machine; set ours beside the numbers of a paper where the file has some;
            measure nothing.
        smoke: Only try whether everything runs.
    """

    to_go_on = ()  # every cell is kept

    file: Annotated[Positional[str | None], arg(metavar="FILE.toml|NAME", help_behavior_hint="")] = None
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    source: Sources = ()
    test: Places = ()
    model: Places = ()
    noise: Places = ()
    dry_run: Flag = False
    smoke: Flag = False

    def run(self, console: Console) -> None:
        """Reads, measures, prints the tables."""
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
            sources=_places(sources, "--source"),
            tests=_places(self.test, "--test"),
            models=_places(self.model, "--model"),
            noises=_places(self.noise, "--noise"),
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
    every = {cell: experiment.key(cell) in records for cell in experiment.cells()}
    missing = [cell for cell, done in every.items() if not done]
    costs = _costs(experiment, missing, progress)
    for cell, done in every.items():
        words = "  ".join(map(str, cell))
        progress.say(f"done     {words}" if done else f"missing  {words}{_spoken([costs.get(cell)])}")
    if experiment.published is not None:
        progress.say(f"beside {experiment.published.source}, in %:")
        for line in published_table(experiment, experiment.published, records):
            progress.say(line)
    progress.say(f"{len(missing)} of {len(every)} cells are missing{_spoken([costs.get(cell) for cell in missing])}")


def _costs(experiment: Experiment, cells: Sequence[Cell], progress: Progress) -> Mapping[Cell, Cost | None]:
    """Tries each method for a moment; where that cannot be, says why and returns nothing."""
    if not cells:
        return {}
    from labelsieve.bench.estimate import estimate

    try:
        return estimate(experiment, cells, progress=progress)
    except LabelsieveError as error:
        progress.say(f"no estimate of time and memory: {error}")
        return {}


def _spoken(costs: Sequence[Cost | None]) -> str:
    """Says what some cells cost one after another, empty where nothing is known."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return ""
    on_device = [cost.on_device for cost in known if cost.on_device is not None]
    parts = [about(sum(cost.seconds for cost in known)), gigabytes(max(cost.memory for cost in known))]
    parts += [f"{gigabytes(max(on_device))} of the GPU"] if on_device else []
    parts += [f"and {len(costs) - len(known)} that could not be tried"] if len(known) < len(costs) else []
    return f": {', '.join(parts)}"


def _folder(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Parts the folder of the data, which is no NAME=PLACE, from the places of single data sets."""
    folders = [word for word in words if "=" not in word or Path(word).expanduser().is_dir()]
    if len(folders) > 1:
        raise SettingsError(f"expected one folder in --source, got {listed(folders)}; give NAME=PLACE for the others")
    return folders[0] if folders else None, [word for word in words if word not in folders]


def _places(words: Sequence[str], flag: str) -> dict[str, str]:
    places: dict[str, str] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not (name and equals and place):
            raise SettingsError(f"expected {flag} NAME=PLACE, got {shown(word)}")
        if name in places:
            raise SettingsError(
                f"expected one place for {shown(name)} in {flag}, got {shown(places[name])} and {shown(place)}"
            )
        places[name] = place
    return places
