"""A person's marks on the verdicts: the CSV that the report gives."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.labels import normalise
from labelsieve.errors import DataError, did_you_mean
from labelsieve.verdicts import Verdicts

MARKS = ("right", "wrong", "unsure")


def marks_of_rows(verdicts: Verdicts, marks: Mapping[str, str]) -> NDArray[np.str_]:
    """Returns the mark of each of N images, "" where there is none."""
    if not marks:
        return np.full(len(verdicts), "", dtype="<U6")
    return np.array([marks.get(name, "") for name in verdicts.table["id"].to_pylist()], dtype="<U6")


def issues_after_marks(verdicts: Verdicts, marks: Mapping[str, str]) -> NDArray[np.bool_]:
    """Returns for each of N images whether its label is wrong: by its mark, else by the verdict."""
    said = marks_of_rows(verdicts, marks)
    issues: NDArray[np.bool_] = (said == "wrong") | (verdicts.is_issue & (said != "right"))
    return issues


def read_marks(path: Path, verdicts: Verdicts) -> dict[str, str]:
    """Reads the CSV that the report gives: the columns `id` and `mark`, and `given_label` to tell that it fits.

    Returns:
        Image id to `right`, `wrong` or `unsure`.

    Raises:
        DataError: The file cannot be read, or is not made of marks of this run.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = list(reader.fieldnames or ())
            lines = [{key: value or "" for key, value in line.items() if key} for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV of marks: {error}; download it from the report") from None
    for column in ("id", "mark"):
        if column not in columns:
            found = ", ".join(columns) or "none"
            raise DataError(f'expected a column "{column}" in {path}, found {found}; download the marks of the report')
    given = dict(zip(verdicts.table["id"].to_pylist(), verdicts.table["given_label"].to_pylist(), strict=True))
    marks: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        _check_mark(line, number, given, marks, path)
        marks[line["id"]] = line["mark"]
    return marks


def _check_mark(
    line: Mapping[str, str], number: int, given: Mapping[str, str], seen: Mapping[str, str], path: Path
) -> None:
    name, mark, where = line["id"], line["mark"], f"line {number} of {path}"
    if mark not in MARKS:
        raise DataError(
            f'expected a mark out of {", ".join(MARKS)} in {where}, found "{mark}"{did_you_mean(mark, MARKS)}'
        )
    if name not in given or normalise(line.get("given_label", given[name])) != normalise(given[name]):
        raise DataError(
            f'"{name}" in {where} is no image of this run with that label; take the marks of its own report'
        )
    if seen.get(name, mark) != mark:
        raise DataError(f'"{name}" is marked {seen[name]} and {mark} in {path}; leave one of both')
