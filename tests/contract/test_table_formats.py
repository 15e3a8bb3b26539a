"""Tables: each format that is read can be applied, and only the labels that are corrected change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from labelsieve.core.registry import loaded
from labelsieve.data.loading import load_images
from labelsieve.data.sources.arrow_files import read_schema
from labelsieve.data.sources.file_kinds import other_kind
from labelsieve.data.sources.table_formats import TABLE_FORMATS, TABLES
from labelsieve.review.apply import apply
from labelsieve.review.changes import LEFT_OUT
from labelsieve.review.writers.base import Applied
from small_answers import labels_of
from small_tables import write_table

LABELS = ["cat", "dog", "cat", "dog", "owl"]
PATHS = [f"x/{row}.png" for row in range(5)]
# Another column, which is read as one of labels in its turn.
BREEDS = ["a", "b, c", "a", '"d"', "b, c"]
TABLE = pa.table({"path": PATHS, "label": LABELS, "breed": BREEDS})


@pytest.fixture
def folder(photo_folder: Callable[..., Path]) -> Path:
    return photo_folder({"x": 5})


def corrected(path: Path, labels: dict[int, str | None], *, out: Path | None, **options: Any) -> Applied:
    """Applies new labels of some rows; None leaves the row out."""
    images = load_images(path, **options)
    new = images.labels.copy()
    for row, label in labels.items():
        new[row] = LEFT_OUT if label is None else images.class_names.index(label)
    return apply(images, new, options=images.origin, out=out)


def labels_in(path: Path, column: str = "label", **options: Any) -> dict[str, str]:
    """Returns what a column says of each path."""
    return labels_of(path, image_column="path", label_column=column, **options)


@pytest.mark.parametrize("suffix", TABLES)
def test_one_label_changes_and_all_else_stays(folder: Path, suffix: str) -> None:
    path, out = write_table(TABLE, folder / f"all{suffix}"), folder / f"new{suffix}"
    before = path.read_bytes()
    assert corrected(path, {1: "owl"}, out=out).path == out
    assert path.read_bytes() == before
    assert labels_in(out) == {**dict(zip(PATHS, LABELS, strict=True)), "x/1.png": "owl"}
    assert [*labels_in(out, "breed").items()] == [*zip(PATHS, BREEDS, strict=True)]
    corrected(out, {1: "dog"}, out=folder / f"back{suffix}")
    assert labels_in(folder / f"back{suffix}") == labels_in(path)


@pytest.mark.parametrize("suffix", TABLES)
def test_of_several_files_those_that_change_are_written_in_place(folder: Path, suffix: str) -> None:
    table = folder.with_name("table")
    table.mkdir()
    first, last = (write_table(TABLE.slice(3 * part, 3), table / f"train-{part}{suffix}") for part in range(2))
    before = first.read_bytes(), last.read_bytes()
    applied = corrected(table, {3: None, 4: "cat"}, out=None, image_folder=folder)
    assert [backup.read_bytes() for backup in applied.backups] == [before[1]] and first.read_bytes() == before[0]
    kept = [0, 1, 2, 4]
    assert labels_in(table, image_folder=folder) == dict(
        zip([PATHS[row] for row in kept], [*LABELS[:3], "cat"], strict=True)
    )
    assert [*labels_in(table, "breed", image_folder=folder).values()] == [BREEDS[row] for row in kept]


@pytest.mark.parametrize("name", TABLE_FORMATS)
def test_a_format_says_how_rows_are_counted_and_what_its_files_are(folder: Path, name: str) -> None:
    format = TABLE_FORMATS.entries[name]
    for suffix in format.suffixes:
        path = write_table(TABLE, folder / f"all{suffix}")
        assert loaded(format.count)(path) == len(TABLE)
        assert name in (other_kind(path) or name).lower()
        if format.typed:
            assert read_schema(path).names == TABLE.column_names
