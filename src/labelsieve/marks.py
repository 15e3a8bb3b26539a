"""A person's marks on the verdicts, and the clean part of the data that verdicts and marks leave."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, SettingsError, did_you_mean, listed, shown
from labelsieve.core.progress import Progress
from labelsieve.core.spreadsheets import unescaped
from labelsieve.data.labels import normalise
from labelsieve.flagging import FlagRule
from labelsieve.verdicts import Verdicts, ranks

MARKS = ("right", "wrong", "unsure")
FLAGGED_ARE_DROPPED = 1.0
"""The `drop_at` that drops every flagged image: no label is more than surely right."""

MarkFiles = str | Path | Sequence[str | Path]
"""One CSV of marks, or several."""


def marks_of_rows(verdicts: Verdicts, marks: Mapping[str, str]) -> NDArray[np.str_]:
    """Returns the mark of each of N images, "" where there is none."""
    if not marks:
        return np.full(len(verdicts), "", dtype="<U6")
    return np.array([marks.get(name, "") for name in verdicts.table["id"].to_pylist()], dtype="<U6")


def after_marks(verdicts: Verdicts, marks: Mapping[str, str] | None) -> Verdicts:
    """Returns the verdicts with a person's marks in the place of what the detector says.

    A label that is marked `right` is no issue and has label quality 1; one that is marked `wrong` is an issue and has
    label quality 0. The ranks follow. A mark `unsure` changes nothing, nor does a mark on an unreadable image; the
    suggested label and its confidence stay those of the model.

    Args:
        verdicts: Of N images.
        marks: Image id to mark, from :func:`read_marks`.
    """
    if not marks:
        return verdicts
    given = marks_of_rows(verdicts, marks)
    right, wrong = (verdicts.is_readable & (given == mark) for mark in ("right", "wrong"))
    issue = wrong | (verdicts.is_issue & ~right)
    quality = np.where(right, 1.0, np.where(wrong, 0.0, verdicts.label_quality)).astype(np.float32)
    changed = {"label_quality": quality, "is_label_issue": issue, "rank": ranks(quality, issue)}
    table = verdicts.table
    for name, values in changed.items():
        place, unreadable = table.schema.get_field_index(name), ~verdicts.is_readable
        table = table.set_column(place, table.schema.field(name), pa.array(values, mask=unreadable))
    return dataclasses.replace(verdicts, table=table)


def clean_part(verdicts: Verdicts, *, drop_at: float = FLAGGED_ARE_DROPPED) -> NDArray[np.bool_]:
    """Returns which of N images belong to the clean part: those that can be read and are not flagged.

    With a `drop_at` below 1 the flagged images whose label quality is above it are kept too, as long as they are
    flagged for their label quality alone.

    Args:
        verdicts: Of N images, after the marks.
        drop_at: From 0 to 1.

    Raises:
        SettingsError: `drop_at` is out of range.
    """
    if not 0 <= drop_at <= 1:
        raise SettingsError(f"expected drop_at from 0 to 1, got {drop_at}")
    return verdicts.is_readable & (~verdicts.is_issue | kept_although_flagged(verdicts, drop_at=drop_at))


def kept_although_flagged(verdicts: Verdicts, *, drop_at: float) -> NDArray[np.bool_]:
    """Returns which of N images the threshold alone has flagged although their label quality is above `drop_at`."""
    quality, rule = verdicts.label_quality, FlagRule.of_record(verdicts.record)
    alone = rule.for_quality_alone(quality, predicted=verdicts.predicted, given=verdicts.given)
    return verdicts.is_issue & alone & (quality > np.float32(drop_at))


def read_marks(files: MarkFiles, verdicts: Verdicts, *, progress: Progress | None = None) -> dict[str, str]:
    """Reads the CSVs that the report gives: the columns `id` and `mark`, and `given_label` to tell that they fit.

    Args:
        files: One file or several; where two of them differ on an image, the later one counts.
        verdicts: What the marks are on.
        progress: Where to say how many marks there are and where the files differ, if there are several files.

    Returns:
        Image id to `right`, `wrong` or `unsure`.

    Raises:
        DataError: A file cannot be read, or is not made of marks of this run.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    marks: dict[str, str] = {}
    differing: list[str] = []
    for path in paths:
        found = _read_file(path, verdicts)
        differing += [name for name, mark in found.items() if marks.get(name, mark) != mark]
        marks |= found
    if progress is not None and len(paths) > 1:
        progress.say(f"note: {len(paths)} files of marks, {len(marks):,} images marked{_that_differ(differing)}")
    return marks


def _that_differ(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return f"; the files differ on {len(names):,}, where the last one counts: {listed(names)}" if names else ""


def _read_file(path: Path, verdicts: Verdicts) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = list(reader.fieldnames or ())
            lines = [{key: value or "" for key, value in line.items() if key} for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV of marks: {error}; download it from the report") from None
    for column in ("id", "mark"):
        if column not in columns:
            found = listed(columns) or "none"
            raise DataError(f'expected a column "{column}" in {path}, found {found}; download the marks of the report')
    given = dict(zip(verdicts.table["id"].to_pylist(), verdicts.table["given_label"].to_pylist(), strict=True))
    marks: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        line |= {name: unescaped(line[name]) for name in ("id", "given_label") if name in line}
        _check_mark(line, number, given, marks, path)
        marks[line["id"]] = line["mark"]
    return marks


def _check_mark(
    line: Mapping[str, str], number: int, given: Mapping[str, str], seen: Mapping[str, str], path: Path
) -> None:
    name, mark, where = line["id"], line["mark"], f"line {number} of {path}"
    if mark not in MARKS:
        raise DataError(
            f'expected a mark out of {", ".join(MARKS)} in {where}, found "{shown(mark)}"{did_you_mean(mark, MARKS)}'
        )
    if name not in given or normalise(line.get("given_label", given[name])) != normalise(given[name]):
        raise DataError(
            f'"{shown(name)}" in {where} is no image of this run with that label; take the marks of its own report'
        )
    if seen.get(name, mark) != mark:
        raise DataError(f'"{shown(name)}" is marked {seen[name]} and {mark} in {path}; leave one of both')


def counts(marks: Mapping[str, str]) -> dict[str, int]:
    """Returns how many images have each mark."""
    found = Counter(marks.values())
    return {mark: found[mark] for mark in MARKS}
