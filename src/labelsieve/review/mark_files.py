"""CSV files of marks, downloaded from a report: one reader for all kinds, and marks of labels as answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from labelsieve.core.errors import DataError, did_you_mean, listed, shown
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.core.spreadsheets import read_csv
from labelsieve.data.labels import normalise
from labelsieve.review.answers import Answer, key_of, now
from labelsieve.review.changes import check_classes
from labelsieve.verdicts import Verdicts

MARKS = ("right", "wrong", "unsure")
"""The marks of a given label."""

# The reviewer of all CSV files of marks: one person, whose later answers override earlier ones.
_REVIEWER = "report"

Key = TypeVar("Key", bound=Hashable)
Mark = TypeVar("Mark")


def read_marks(
    paths: Sequence[Path],
    parse: Callable[[Mapping[str, str], str], tuple[Key, Mark]],
    *,
    marked: Sequence[str],
    marks: Sequence[str],
    what: str,
    advice: str,
) -> tuple[list[dict[Key, Mark]], list[Key]]:
    """Reads CSV files of marks.

    Args:
        paths: The files.
        parse: Returns the marked item and its mark, from the cells of a line and its location for messages.
        marked: The columns that identify the marked item.
        marks: The values of the column `mark`.
        what: Name of the lines, for messages.
        advice: How to get such a file, for messages.

    Returns:
        The marks of each file, and the items on which the files differ.

    Raises:
        DataError: A file cannot be read, or has an unknown mark, or two different marks of one item.
    """
    files: list[dict[Key, Mark]] = []
    joined, differing = dict[Key, Mark](), list[Key]()
    for path in paths:
        in_file, texts = dict[Key, Mark](), dict[Key, str]()
        for number, line in enumerate(read_csv(path, needed=(*marked, "mark"), what=what, advice=advice), start=2):
            where, mark = f"line {number} of {path}", line["mark"]
            if mark not in marks:
                expected = f"expected a mark out of {', '.join(marks)} in {where}"
                raise DataError(f'{expected}, found "{shown(mark)}"{did_you_mean(mark, marks)}')
            key, value = parse(line, where)
            in_file[key], text = value, f"{mark} {line.get('new_label', '')}".strip()
            if texts.setdefault(key, text) != text:
                name = " of ".join(f'"{shown(line[column])}"' for column in reversed(marked))
                raise DataError(f"{name} is marked {texts[key]} and {text} in {path}; leave one of both")
        differing += [key for key, value in in_file.items() if joined.get(key, value) != value]
        joined |= in_file
        files.append(in_file)
    return files, list(dict.fromkeys(differing))


def answers_of_marks(
    paths: Sequence[Path], verdicts: Verdicts, contents: Mapping[str, int], progress: Progress | None
) -> list[Answer]:
    """Reads the CSV files of the report on labels as answers.

    Args:
        paths: The files.
        verdicts: The verdicts of the report.
        contents: Image id to the hash of its content, if known.
        progress: Receives the number of marks.

    Raises:
        DataError: A file cannot be read, or belongs to another run.
    """
    if not paths:
        return []
    row_of = {name: row for row, name in enumerate(verdicts.table["id"].to_pylist())}
    classes = {normalise(name): name for name in verdicts.class_names}

    def parse(line: Mapping[str, str], where: str) -> tuple[str, tuple[str, ...]]:
        given_label = verdicts.given_label(_checked_row(line, where, verdicts, row_of))
        return line["id"], _answer_kind(line["mark"], line.get("new_label", ""), given_label, classes)

    files, differing = read_marks(
        paths, parse, marked=("id",), marks=MARKS, what="marks", advice="download the marks of the report"
    )
    if progress is not None and len(paths) > 1:
        images = len({name for in_file in files for name in in_file})
        note = f"note: {len(paths)} files of marks, {images:,} images marked"
        if differing:
            note += f"; the files differ on {len(differing):,}, where the last one counts: {listed(differing)}"
        progress.say(note)
    return [
        Answer(
            token=f"{number} {fingerprint(name)}",
            key=key_of(contents[name]) if name in contents else fingerprint(name),
            id=name,
            given_label=verdicts.given_label(row_of[name]),
            kind=kind,
            labels=tuple(labels),
            reviewer=_REVIEWER,
            time=now(),
            mode="review",
        )
        for number, in_file in enumerate(files)
        for name, (kind, *labels) in in_file.items()
    ]


def _checked_row(line: Mapping[str, str], where: str, verdicts: Verdicts, row_of: Mapping[str, int]) -> int:
    """Returns the row of the image of a line, after checking that its labels fit the mark."""
    name, mark, new = line["id"], line["mark"], line.get("new_label", "")
    row = row_of.get(name)
    if row is None or not _same_label(line.get("given_label") or verdicts.given_label(row), verdicts, row):
        raise DataError(
            f'"{shown(name)}" in {where} is no image of this run with that label; take the marks of its own report'
        )
    if new:
        check_classes({new}, verdicts.class_names, where=f"the column new_label in {where}")
        if (mark == "wrong") == _same_label(new, verdicts, row):
            raise DataError(
                f'expected the mark wrong beside another new label in {where}, found {mark}, "{shown(new)}"'
            )
    return row


def _same_label(label: str, verdicts: Verdicts, row: int) -> bool:
    return normalise(label) == normalise(verdicts.given_label(row))


def _answer_kind(mark: str, new_label: str, given_label: str, classes: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the kind of answer and the labels of a mark."""
    if new_label and mark == "wrong":
        return ("label", classes[normalise(new_label)])
    return {"right": ("label", given_label), "wrong": ("wrong",), "unsure": ("unsure",)}[mark]
