"""How many numbers of the paper stand in the files of its experiments, table by table: `python tools/paper_values.py`.

`tests/data/paper.csv` has them all, in percent, one a row. Exit code 1 if one is missing or another one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from labelsieve.bench.experiment import read_experiment
from labelsieve.bench.toml_files import shipped

CSV = Path(__file__).parents[1] / "tests" / "data" / "paper.csv"
FOLDER = "paper/"

Values = dict[tuple[str, str, str, str], float]


class Counted(NamedTuple):
    experiment: str
    values: int
    found: int
    missing: int
    different: int
    not_in_the_paper: int


def of_the_paper() -> dict[str, Values]:
    """Returns by experiment the numbers of the CSV file, by data, method, noise and metric."""
    found: dict[str, Values] = {}
    with CSV.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            where = (row["data"], row["method"], row["noise"], row["metric"])
            values = found.setdefault(row["experiment"], {})
            if where in values:
                raise ValueError(f"{row['experiment']} has {', '.join(where)} twice")
            values[where] = float(row["value"])
    return found


def of_the_files() -> dict[str, Values]:
    """Returns the same out of the files of the experiments."""
    found: dict[str, Values] = {}
    for name in (name for name in shipped() if name.startswith(FOLDER)):
        values = found.setdefault(name.removeprefix(FOLDER), {})
        if (published := read_experiment(name).published) is None:
            continue
        for (data, noise, method), numbers in published.cells():
            values |= {(data, method, noise, key): each for key, each in zip(published.metrics, numbers, strict=True)}
    return found


def counted() -> Iterator[Counted]:
    """Yields the counts of each experiment."""
    paper, files = of_the_paper(), of_the_files()
    for name in sorted({*paper, *files}, key=lambda name: (name.rstrip("0123456789"), len(name), name)):
        there, here = paper.get(name, {}), files.get(name, {})
        same = [where for where, value in there.items() if here.get(where) == value]
        yield Counted(
            name,
            values=len(there),
            found=len(same),
            missing=len(there.keys() - here.keys()),
            different=len(there.keys() & here.keys()) - len(same),
            not_in_the_paper=len(here.keys() - there.keys()),
        )


def main() -> int:
    print("  ".join(f"{name.replace('_', ' '):>10}" for name in Counted._fields))
    rows = list(counted())
    whole = Counted("all", *(sum(int(row[place]) for row in rows) for place in range(1, len(Counted._fields))))
    for row in (*rows, whole):
        print("  ".join(f"{cell!s:>10}" for cell in row))
    return int(whole.found != whole.values or whole.not_in_the_paper > 0)


if __name__ == "__main__":
    raise SystemExit(main())
