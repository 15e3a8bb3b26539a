"""CSV files whose cells a spreadsheet takes for texts, and which come back as they were."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelsieve.core.spreadsheets import FORMULA, NUMBER, escaped, unescaped, write_csv
from labelsieve.report import label_report

CELLS = {
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\r=1": "'\r=1",
    "\uff1d1": "'\uff1d1",
    "'=1": "''=1",
    "-": "'-",
    "-5": "-5",
    "+1.5e-3": "+1.5e-3",
    "-.5": "-.5",
    "-5\n": "'-5\n",
    "'tis": "'tis",
    "cat": "cat",
    "a=b": "a=b",
    "": "",
}


def test_a_formula_gets_an_apostrophe(subtests: pytest.Subtests) -> None:
    for text, cell in CELLS.items():
        with subtests.test(text=text):
            assert escaped(text) == cell and unescaped(cell) == text


@given(st.text(alphabet="'=+-@\t\r\n5.ea\uff0b", max_size=5))
def test_every_text_comes_back(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert escaped(text)[:1] not in tuple("=+-@\t\r\n\uff0b") or re.fullmatch(NUMBER, text)


def test_a_table_has_no_formulas_and_keeps_its_numbers(tmp_path: Path) -> None:
    table = pa.table({"id": [*CELLS, None], "score": [-0.5] * (len(CELLS) + 1)})
    write_csv(tmp_path / "x.csv", table)
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "score"]
    assert [row[0] for row in rows[1:]] == [*CELLS.values(), ""]
    assert {row[1] for row in rows[1:]} == {"-0.5"}


def test_the_report_writes_marks_by_the_same_rule() -> None:
    script = Path(label_report.__file__).with_name("templates").joinpath("page.js").read_text("utf-8")
    rules = re.search(r"const safe = .*?/(\^.*?)/\.test\(value\)\s*&& !/\^(.*?)\$/", script, re.DOTALL)
    assert rules is not None
    formula, number = rules[1], rules[2].replace("\\d", "[0-9]")
    texts = [*CELLS, "1", "5.", "e", "-e5", "--5"]
    assert [bool(re.match(formula, text)) for text in texts] == [bool(re.match(FORMULA, text)) for text in texts]
    assert number == NUMBER
