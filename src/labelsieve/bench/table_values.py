"""Values of the tables: each metric of each method in every column, as mean and deviation over the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress, product
from statistics import mean, stdev
from typing import Any, NamedTuple

from labelsieve.bench.experiment import Cell, Experiment

Records = Mapping[str, Mapping[str, Any]]


class Column(NamedTuple):
    """One column of the tables of a text regime."""

    model: str
    data: str
    noise: str
    text: str = ""

    def cell(self, method: str, seed: int) -> Cell:
        """Returns the cell of a method and a seed."""
        return Cell(self.model, self.data, self.noise, method, seed, self.text)


class Spread(NamedTuple):
    """Mean and sample standard deviation of some seeds; the latter is None for one seed."""

    mean: float
    deviation: float | None


def columns(experiment: Experiment, text: str = "") -> list[Column]:
    """Returns the columns of a text regime in the order of the file."""
    parts = product(experiment.model, experiment.data, experiment.noise)
    return [Column(*each, text) for each in parts if experiment.has(data=each[1], noise=each[2])]


def column_names(experiment: Experiment) -> list[str]:
    """Returns the names of the columns, without the parts that are the same in all."""
    several = [len(part) > 1 for part in (experiment.model, experiment.data, experiment.noise)]
    return [", ".join(compress(column, several)) or column.noise for column in columns(experiment)]


def series(experiment: Experiment, records: Records, method: str, metric: str, text: str = "") -> list[Spread | None]:
    """Returns one metric of one method in every column; None if no seed has been measured.

    Args:
        experiment: The experiment.
        records: The records of measured cells, by :meth:`Experiment.key`.
        method: Name of the method in the experiment.
        metric: A key of `METRICS`.
        text: The text regime of the columns; empty if the experiment has none.
    """
    every = experiment.seeds
    return [spread(values(experiment, records, each, method, metric, every)) for each in columns(experiment, text)]


def values(
    experiment: Experiment, records: Records, column: Column, method: str, metric: str, seeds: Iterable[int]
) -> list[float]:
    """Returns one metric of one method in a column, for those seeds that have it.

    Args:
        experiment: See :func:`series`.
        records: See :func:`series`.
        column: The column, which includes the text regime.
        method: See :func:`series`.
        metric: See :func:`series`.
        seeds: The seeds, whose order the values have.
    """
    keys = (experiment.key(column.cell(method, seed)) for seed in seeds)
    results = [records[key].get(metric) for key in keys if key in records]
    return [float(value) for value in results if value is not None]


def spread(numbers: list[float]) -> Spread | None:
    """Returns mean and spread of some values; None if there are none."""
    return Spread(mean(numbers), stdev(numbers) if len(numbers) > 1 else None) if numbers else None
