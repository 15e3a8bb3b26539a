"""Comparison of one method with the best of all others: number of wins, and the worst difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import NamedTuple

from labelsieve.bench.config import Against
from labelsieve.bench.experiment import Experiment
from labelsieve.bench.table_values import Column, Records, columns, values
from labelsieve.metrics import METRICS

# Differences are rounded, so that one of exactly the margin counts.
_DIGITS = 9


class Difference(NamedTuple):
    """Difference to the best rival in one cell, and the name of the rival."""

    difference: float
    data: str
    noise: str
    rival: str


class MetricComparison(NamedTuple):
    """Results for one metric: number of cells in which the method wins or is close enough, of all, and the worst."""

    wins: int
    cells: int
    worst: Difference | None


class Summary(NamedTuple):
    """Results for one text regime, or for all.

    Attributes:
        text: Its name.
        cells: Number of cells with wrong labels that all methods were measured on.
        all_cells: Number of all such cells; those that are not measured yet may have no wrong labels.
        comparisons: For each metric, in the order of the experiment.
        close_rates: Number of cells whose estimated noise rate is close enough to the true one.
        estimated_rates: Number of cells with an estimate.
        flagged: Share of flagged labels in each cell without wrong ones.
    """

    text: str
    cells: int
    all_cells: int
    comparisons: tuple[MetricComparison, ...]
    close_rates: int
    estimated_rates: int
    flagged: tuple[float, ...]


def summary(experiment: Experiment, records: Records, against: Against) -> list[Summary]:
    """Compares a method with its rivals: all other methods that are not given the noise rate.

    A cell is a column of the tables, and its values are means over the seeds that all methods were measured with.

    Args:
        experiment: The experiment.
        records: The records of measured cells, by :meth:`Experiment.key`.
        against: The method, and which differences to its best rival count as a tie.

    Returns:
        One row for each text regime and, if there are several, one for all.
    """
    rows = [(text or "all", columns(experiment, text)) for text in experiment.texts]
    if len(rows) > 1:
        rows.append(("all", [column for _, text_columns in rows for column in text_columns]))
    return [_row(experiment, records, against, text_columns, text) for text, text_columns in rows]


def _row(
    experiment: Experiment, records: Records, against: Against, text_columns: Sequence[Column], text: str
) -> Summary:
    cells = [_ColumnComparison(experiment, records, against.method, column) for column in text_columns]
    clean_cells = [cell for cell in cells if cell.mean("noise_rate") == 0]
    noisy_cells = [cell for cell in cells if cell.seeds and cell not in clean_cells]
    errors = [error for cell in noisy_cells if (error := cell.mean("noise_rate_error")) is not None]
    return Summary(
        text=text,
        cells=len(noisy_cells),
        all_cells=len(cells) - len(clean_cells),
        comparisons=tuple(_compare_metric(noisy_cells, metric, margin) for metric, margin in against.within.items()),
        close_rates=sum(round(error, _DIGITS) <= against.rate_within for error in errors),
        estimated_rates=len(errors),
        flagged=tuple(share for cell in clean_cells if (share := cell.mean("flagged_rate")) is not None),
    )


def _compare_metric(cells: Sequence[_ColumnComparison], metric: str, margin: float) -> MetricComparison:
    differences = [each for cell in cells if (each := cell.difference(metric)) is not None]
    wins = sum(round(each.difference, _DIGITS) >= -margin for each in differences)
    return MetricComparison(wins, len(differences), min(differences, key=lambda each: each.difference, default=None))


@dataclass(frozen=True)
class _ColumnComparison:
    """One column of the tables, with all methods that work in its text regime."""

    experiment: Experiment
    records: Records
    method: str
    column: Column

    @cached_property
    def methods(self) -> list[str]:
        return self.experiment.methods(self.column.text)

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that all methods, including the compared one, were measured with."""
        if self.method not in self.methods:
            return []
        return [seed for seed in self.experiment.seeds if all(self._has(name, seed) for name in self.methods)]

    def _has(self, method: str, seed: int) -> bool:
        return self.experiment.key(self.column.cell(method, seed)) in self.records

    def mean(self, metric: str, method: str | None = None) -> float | None:
        """Returns the mean over the seeds, of the compared method if no other is given."""
        values_of_seeds = values(self.experiment, self.records, self.column, method or self.method, metric, self.seeds)
        return mean(values_of_seeds) if values_of_seeds else None

    def difference(self, metric: str) -> Difference | None:
        """Returns the difference to the best rival; None if either lacks the metric."""
        given_rate = {name for name, method in self.experiment.method.items() if method.gets_noise_rate}
        names = [name for name in self.methods if name != self.method and name not in given_rate]
        rivals = {name: rival for name in names if (rival := self.mean(metric, name)) is not None}
        value = self.mean(metric)
        if value is None or not rivals:
            return None
        merit = METRICS[metric].merit
        best = max(rivals, key=lambda name: merit(rivals[name]))
        return Difference(merit(value) - merit(rivals[best]), self.column.data, self.column.noise, best)
