"""What a person says of pairs of image and class in the place of verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labelsieve as ls
from labelsieve.core.errors import DataError
from labelsieve.core.progress import Progress
from labelsieve.detect.tags.scores import TagScores
from labelsieve.tags.marks import TAG_MARKS, with_marks
from labelsieve.tags.verdicts import TagVerdicts, decide_tags

NAMES, COUNT = ("cat", "dog", "fox"), 6


@pytest.fixture(scope="module")
def verdicts() -> TagVerdicts:
    """Verdicts on 18 pairs, of which a third is an issue."""
    rng = np.random.default_rng(0)
    tags, quality = rng.random((COUNT, 3)) < 0.5, rng.random((COUNT, 3)).astype(np.float32)
    drawn = [np.full((8, 8, 3), 10 * each, dtype=np.uint8) for each in range(COUNT)]
    images = ls.load_tags(drawn, tags=tags, class_names=NAMES)
    scores = TagScores(
        tags=images.tags,
        present=np.where(tags, quality, 1 - quality),
        thresholds=(0.3, 0.3),
        issue=quality <= 0.3,
        omission=np.full(3, np.nan),
        commission=np.full(3, np.nan),
    )
    return decide_tags(images, scores)


def file_of(path: Path, marks: Any, *, header: str = "id,class_name,mark") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in marks)]) + "\n", encoding="utf-8")
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.dictionaries(st.tuples(st.integers(0, COUNT - 1), st.integers(0, 2)), st.sampled_from(TAG_MARKS)))
def test_a_mark_counts_more_than_a_verdict(said: dict[tuple[int, int], str], verdicts: Any, tmp_path: Path) -> None:
    ids = verdicts.images["id"].to_pylist()
    rows = [(ids[row], NAMES[column], mark) for (row, column), mark in said.items()]
    found = with_marks(verdicts, file_of(tmp_path / "marks.csv", rows))
    expected = verdicts.corrected()
    for pair, mark in said.items():
        expected[pair] = {"present": True, "absent": False, "unsure": expected[pair]}[mark]
    np.testing.assert_array_equal(found.corrected(), expected)
    np.testing.assert_array_equal(found.given, verdicts.given)
    assert found.table["rank"].to_pylist() == [*range(1, found.table.num_rows + 1)]
    quality = found.table["label_quality"].to_pylist()
    assert quality == sorted(quality)
    kinds = zip(found.table["kind"].to_pylist(), found.rows, found.table["class_name"].to_pylist(), strict=True)
    assert all((kind == "wrong") == found.given[row, NAMES.index(name)] for kind, row, name in kinds)
    assert with_marks(found, tmp_path / "marks.csv").table.equals(found.table)
    assert len({*zip(found.rows, found.table["class_name"].to_pylist(), strict=True)}) == found.table.num_rows


def test_the_later_file_counts_and_how_many_marks_there_are_is_said(verdicts: TagVerdicts, tmp_path: Path) -> None:
    first, second = verdicts.images["id"].to_pylist()[:2]
    before = file_of(tmp_path / "a.csv", [(first, "cat", "present"), (second, "dog", "absent")])
    after = file_of(
        tmp_path / "b.csv", [(first, "cat", "absent"), (second, "dog", "absent"), (second, "dog", "absent")]
    )
    lines: list[str] = []

    class Said(Progress):
        def say(self, text: str) -> None:
            lines.append(text)

    found = with_marks(verdicts, [before, after], progress=Said())
    assert not found.corrected()[0, 0] and not found.corrected()[1, 1]
    assert len(lines) == 1 and "2 marks" in lines[0] and "differ on 1, where the last one counts" in lines[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("nobody", "cat", "present"), '"nobody" in line 2 of .* is no image of this run'),
        (("0000000", "cow", "present"), '"cow" in line 2 of .* is no class of this run'),
        (("0000000", "cat", "right"), 'expected a mark out of present, absent, unsure in line 2 of .*, found "right"'),
        (("0000000", "cat", "uncsure"), 'did you mean "unsure"'),
    ],
)
def test_a_bad_mark_gets_one_line(row: Any, message: str, verdicts: TagVerdicts, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        with_marks(verdicts, file_of(tmp_path / "marks.csv", [row]))
    assert "\n" not in str(caught.value)


def test_a_bad_file_gets_one_line(verdicts: TagVerdicts, tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    with pytest.raises(DataError, match="it does not exist; take the marks of the report"):
        with_marks(verdicts, path)
    file_of(path, [("0000000", "cat", "wrong")], header="id,given_label,mark")  # of one label per image
    with pytest.raises(DataError, match='expected a column "class_name"'):
        with_marks(verdicts, path)
    file_of(path, [("0000000", "cat", "present"), ("0000000", "cat", "absent")])
    with pytest.raises(DataError, match=r'"cat" of "0000000" is marked present and absent in .*; leave one of both'):
        with_marks(verdicts, path)
