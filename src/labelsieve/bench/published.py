"""Published numbers of a paper, in the file of the experiment that reproduces them.

They are given as in the paper, in percent; docs/bench.md has an example.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelsieve.core.errors import SettingsError, listed, look_up, shown

Values = Mapping[str, Mapping[str, Mapping[str, tuple[float, ...]]]]


@dataclass(frozen=True, kw_only=True)
class PaperNumbers:
    """The numbers of a paper for the cells of an experiment.

    Attributes:
        source: The paper and its table.
        metrics: The metrics of the numbers of each cell, in order.
        only_published: Names of methods that only the paper measures.
        values: Data to method to noise to the numbers, in percent.
    """

    source: str
    metrics: tuple[str, ...]
    only_published: tuple[str, ...] = ()
    values: Values = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source:
            raise SettingsError(f"expected source to name the paper and its table, got {shown(self.source)}")
        if not isinstance(self.metrics, list | tuple) or not self.metrics:
            raise SettingsError(f"expected metrics to be a list of metrics, got {shown(self.metrics)}")
        for where, numbers in self.cells():
            if len(numbers) != len(self.metrics):
                expected = f"{len(self.metrics)} numbers, one for each of {listed(self.metrics)}"
                raise SettingsError(f"expected {expected}, got {len(numbers)} for {', '.join(where)}")

    def cells(self) -> Iterable[tuple[tuple[str, str, str], tuple[float, ...]]]:
        """Yields data, noise and method of each cell with numbers, and the numbers."""
        for data, methods in self.values.items():
            for method, noises in methods.items():
                for noise, numbers in noises.items():
                    yield (data, noise, method), numbers


def read_published_methods(names: Any, methods: Iterable[str]) -> tuple[str, ...]:
    """Checks the names of the methods that only the paper measures.

    Raises:
        SettingsError: They are not names, or the experiment has a method with one of them.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) and each for each in names):
        raise SettingsError(f"expected only_published to be a list of names of methods, got {shown(names)}")
    if duplicates := [name for name in names if name in methods]:
        raise SettingsError(
            f"only_published names methods that are measured here, {listed(duplicates)}; leave them out"
        )
    return tuple(names)


def read_values(
    table: Any, data: Collection[str], methods: Collection[str], noises: Collection[str]
) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """Checks that the values are numbers for cells of the experiment.

    Args:
        table: Data to method to noise to a number or a list of numbers in percent, as read from the file.
        data: Names of the data sets of the experiment.
        methods: Names of its methods and of those that only the paper measures.
        noises: Names of its noises.

    Raises:
        SettingsError: Names the first invalid one.
    """
    values: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {}
    for data_name, rows in _entries(table, data, "published.values.DATA"):
        values[data_name] = {}
        for method, row in _entries(rows, methods, f"METHOD in published.values.{data_name}"):
            cells = _entries(row, noises, f"NOISE in published.values.{data_name}.{method}")
            values[data_name][method] = {
                noise: _numbers(value, f"{data_name}, {noise}, {method}") for noise, value in cells
            }
    return values


def _entries(table: Any, known: Collection[str], what: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(table, dict):
        raise SettingsError(f"expected a table of {what}, got {shown(table)}")
    for name, value in table.items():
        look_up(dict.fromkeys(known), name, what=what)
        yield name, value


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not all(type(each) in (int, float) and 0 <= each <= 100 for each in numbers):
        raise SettingsError(f"expected numbers in percent, from 0 to 100, for {where}, got {shown(value)}")
    return tuple(map(float, numbers))
