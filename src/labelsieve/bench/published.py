"""The numbers of a paper, in the file of the experiment that measures them again.

They stand as the paper prints them, in percent::

    [published]
    source = "Wei et al., NeurIPS 2024, Table 1"
    metrics = ["clean_precision", "clean_recall"]

    [published.values.cifar-100]
    deft = { sym-20 = [99.51, 97.77] }

A method of the paper that the experiment does not measure is named in `only_published`; its numbers stand alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelsieve.core.errors import SettingsError, listed, look_up, shown

Values = Mapping[str, Mapping[str, Mapping[str, tuple[float, ...]]]]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper reports of the cells of an experiment.

    Attributes:
        source: The paper and its table.
        metrics: What the numbers of each cell are, in their order.
        only_published: Names of methods that the paper measures and the experiment does not.
        values: Name of the data to method to noise to the numbers, in percent.
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
        """Yields data, noise and method of each cell that has numbers, and these."""
        for data, methods in self.values.items():
            for method, noises in methods.items():
                for noise, numbers in noises.items():
                    yield (data, noise, method), numbers


def read_rivals(given: Any, methods: Iterable[str]) -> tuple[str, ...]:
    """Checks the names of the methods that only the paper measures.

    Raises:
        SettingsError: They are no names, or the experiment has a method of one of them.
    """
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) and each for each in given):
        raise SettingsError(f"expected only_published to be a list of names of methods, got {shown(given)}")
    if both := [name for name in given if name in methods]:
        raise SettingsError(f"only_published names methods that are measured here, {listed(both)}; leave them out")
    return tuple(given)


def read_values(
    given: Any, data: Iterable[str], methods: Iterable[str], noises: Iterable[str]
) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """Checks that the numbers are numbers, and belong to cells of the experiment.

    Raises:
        SettingsError: Names the first that does not.
    """
    found: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {}
    for one, rows in _entries(given, data, "published.values.DATA"):
        found[one] = {}
        for method, row in _entries(rows, methods, f"METHOD in published.values.{one}"):
            cells = _entries(row, noises, f"NOISE in published.values.{one}.{method}")
            found[one][method] = {noise: _numbers(value, f"{one}, {noise}, {method}") for noise, value in cells}
    return found


def _entries(given: Any, known: Iterable[str], what: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(given, dict):
        raise SettingsError(f"expected a table of {what}, got {shown(given)}")
    for name, value in given.items():
        look_up(dict.fromkeys(known), name, what=what)
        yield name, value


def _numbers(given: Any, where: str) -> tuple[float, ...]:
    numbers = given if isinstance(given, list) else [given]
    if not all(type(each) in (int, float) and 0 <= each <= 100 for each in numbers):
        raise SettingsError(f"expected numbers in percent, from 0 to 100, for {where}, got {shown(given)}")
    return tuple(map(float, numbers))
