"""`labelsieve bench`: measure the tables of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from labelsieve.commands.base import Command, Flag
from labelsieve.errors import SettingsError
from labelsieve.progress import Progress

if TYPE_CHECKING:
    from labelsieve.bench.experiment import Experiment

Places = Annotated[tuple[str, ...], arg(metavar="NAME=PLACE ...", help_behavior_hint="(optional)")]


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measures an experiment: every method on every data set with every noise, for some seeds.

    Writes results.csv, results.md and plots after each cell. What is measured already is not measured again: the same
    command goes on after an interruption, and with more seeds or methods in the file only those are new.

    Attributes:
        file: TOML file, or the name of a shipped experiment (see: labelsieve list).
        out: Folder of the results.
        source: Where data sets lie, by their names in the file.
        test: Where their test images lie.
        model: Where models lie, by their names in the file.
        noise: Where files of noise lie, by the names of the noises.
        dry_run: List the cells and say which are missing; measure nothing.
    """

    file: Annotated[Positional[str], arg(metavar="FILE.toml|NAME")]
    out: Path
    source: Places = ()
    test: Places = ()
    model: Places = ()
    noise: Places = ()
    dry_run: Flag = False

    def run(self, console: Console) -> None:
        """Reads, measures, prints the tables."""
        from labelsieve.bench.experiment import read_experiment

        experiment = read_experiment(self.file).place(
            sources=_places(self.source, "--source"),
            tests=_places(self.test, "--test"),
            models=_places(self.model, "--model"),
            noises=_places(self.noise, "--noise"),
        )
        if self.dry_run:
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


def _list_cells(experiment: Experiment, out: Path, console: Console) -> None:
    from labelsieve.bench.store import Store

    records = Store.open(out, name=experiment.name).read()
    cells = [(cell, experiment.key(cell) in records) for cell in experiment.cells()]
    for cell, done in cells:
        console.print(f"{'done   ' if done else 'missing'}  {'  '.join(map(str, cell))}", highlight=False)
    console.print(f"{sum(not done for _, done in cells)} of {len(cells)} cells are missing", highlight=False)


def _places(words: Sequence[str], flag: str) -> dict[str, str]:
    places = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not (name and equals and place):
            raise SettingsError(f"expected {flag} NAME=PLACE, got {word}")
        places[name] = place
    return places
