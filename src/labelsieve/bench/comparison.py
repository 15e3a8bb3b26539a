"""One method against the best of all others: in how many cells it is ahead, and how far behind at worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import NamedTuple

from labelsieve.bench.config import Against
from labelsieve.bench.experiment import Cell, Experiment
from labelsieve.bench.series import Column, Records, columns, values
from labelsieve.metrics import METRICS

# A difference of just the margin counts, however its mean was rounded.
_DIGITS = 9


class Difference(NamedTuple):
    """How far the method is ahead of its best rival in one cell, and who that is."""

    difference: float
    data: str
    noise: str
    rival: str


class Ahead(NamedTuple):
    """Of one metric: where the method is ahead or near enough, of how many cells, and where it is worst."""

    reached: int
    of: int
    worst: Difference | None


class Flagged(NamedTuple):
    """Share of right labels that are flagged, over the cells without wrong ones: mean and most."""

    mean: float
    most: float


class Summary(NamedTuple):
    """One text regime, or all of them.

    Attributes:
        text: Its name.
        cells: How many cells with wrong labels all methods were measured on.
        all_cells: How many such cells there are; those that are not measured yet may have right labels alone.
        ahead: For each metric, in the order of the experiment.
        near: In how many cells the estimated noise rate is near enough to the true one.
        estimated: In how many it is estimated.
        flagged: None without a cell of right labels.
    """

    text: str
    cells: int
    all_cells: int
    ahead: tuple[Ahead, ...]
    near: int
    estimated: int
    flagged: Flagged | None


def summary(experiment: Experiment, records: Records, against: Against) -> list[Summary]:
    """Sums up a method against its rivals: all other methods that are not given the noise rate.

    A cell is a column of the tables, and its values are means over those seeds that all methods were measured for. In
    a text regime that the method is not measured in, there are none.

    Returns:
        One row for each text regime and, of several, one for all.
    """
    every = {text: columns(experiment, text) for text in experiment.texts}
    rows = [_row(experiment, records, against, found, text or "all") for text, found in every.items()]
    if len(rows) > 1:
        rows.append(_row(experiment, records, against, [each for found in every.values() for each in found], "all"))
    return rows


def _row(experiment: Experiment, records: Records, against: Against, found: Sequence[Column], text: str) -> Summary:
    cells = [_Compared(experiment, records, against.method, column) for column in found]
    right = [cell for cell in cells if cell.mean("noise_rate") == 0]
    wrong = [cell for cell in cells if cell.seeds and cell not in right]
    errors = [error for cell in wrong if (error := cell.mean("noise_rate_error")) is not None]
    flagged = [share for cell in right if (share := cell.mean("flagged_rate")) is not None]
    return Summary(
        text=text,
        cells=len(wrong),
        all_cells=len(cells) - len(right),
        ahead=tuple(_ahead(wrong, metric, margin) for metric, margin in against.within.items()),
        near=sum(round(error, _DIGITS) <= against.rate_within for error in errors),
        estimated=len(errors),
        flagged=Flagged(mean(flagged), max(flagged)) if flagged else None,
    )


def _ahead(cells: Sequence[_Compared], metric: str, margin: float) -> Ahead:
    found = [each for cell in cells if (each := cell.difference(metric)) is not None]
    reached = sum(round(each.difference, _DIGITS) >= -margin for each in found)
    return Ahead(reached, len(found), min(found, key=lambda each: each.difference, default=None))


@dataclass(frozen=True)
class _Compared:
    """One column of the tables, with all methods that have what they need in its text regime."""

    experiment: Experiment
    records: Records
    method: str
    column: Column

    @cached_property
    def methods(self) -> list[str]:
        return self.experiment.methods(self.column.text)

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds for which all methods were measured, and the one in question is among them."""
        if self.method not in self.methods:
            return []
        return [seed for seed in self.experiment.seeds if all(self._has(name, seed) for name in self.methods)]

    def _has(self, method: str, seed: int) -> bool:
        cell = Cell(self.column.model, self.column.data, self.column.noise, method, seed, self.column.text)
        return self.experiment.key(cell) in self.records

    def mean(self, metric: str, method: str | None = None) -> float | None:
        """Returns the mean over the seeds, of the method in question if no other is named."""
        found = values(self.experiment, self.records, self.column, method or self.method, metric, self.seeds)
        return mean(found) if found else None

    def difference(self, metric: str) -> Difference | None:
        """Returns how far the method is ahead of its best rival; None where either has no such metric."""
        told = {name for name, method in self.experiment.method.items() if method.knows_rate}
        names = [name for name in self.methods if name != self.method and name not in told]
        rivals = {name: value for name in names if (value := self.mean(metric, name)) is not None}
        ours = self.mean(metric)
        if ours is None or not rivals:
            return None
        merit = METRICS[metric].merit
        best = max(rivals, key=lambda name: merit(rivals[name]))
        return Difference(merit(ours) - merit(rivals[best]), self.column.data, self.column.noise, best)
