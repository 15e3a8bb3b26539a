"""CSV files with other labels: what was asked for is changed, and not one byte more."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from labelsieve.core.errors import DataError
from labelsieve.data.sources.csv_edits import edited
from labelsieve.data.sources.csv_files import read_texts
from labelsieve.data.sources.edits import TextEdits, VerdictText

CHANGES: list[tuple[str, dict[int, str | None], str]] = [
    ("path,label\na,cat\nb,dog\n", {1: "cat"}, "path,label\na,cat\nb,cat\n"),
    ('path,label\r\n"a","cat"\r\nb,dog', {0: "dog", 1: "cat"}, 'path,label\r\n"a","dog"\r\nb,cat'),
    ("\ufefflabel;x\rcat;1\rdog;2\r", {0: "dog"}, "\ufefflabel;x\rdog;1\rdog;2\r"),
    ("x|label\n1| cat \n2|dog\n", {0: "dog"}, "x|label\n1| dog \n2|dog\n"),
    ('x\tlabel\n"two\nlines"\tcat\n2\tdog\n', {0: "dog"}, 'x\tlabel\n"two\nlines"\tdog\n2\tdog\n'),
    ("x,label\n1,\tcat \n2,\xa0dog\n", {0: "a, b", 1: "cat"}, 'x,label\n1,"\ta, b" \n2,\xa0cat\n'),
    ('x,label\n"a, ""b""",cat\n2,dog\n', {0: 'big, "red"'}, 'x,label\n"a, ""b""","big, ""red"""\n2,dog\n'),
    ("\n\nsep=;\nx;label\n\n1;cat\n;\n2;dog\n", {1: "cat"}, "\n\nsep=;\nx;label\n\n1;cat\n;\n2;cat\n"),
    ('"x" ,"label" \n"1" , "cat" \n', {0: "dog"}, '"x" ,"label" \n"1" , "dog" \n'),
    ("x,label\n1,cat\n2,dog\n3,cat\n", {0: None, 2: None}, "x,label\n2,dog\n"),
    ("x,label\n1,cat\r\n2,dog", {1: None}, "x,label\n1,cat"),
    ("x,label,\n1,cat,\n2,dog,,,\n", {1: "cat"}, "x,label,\n1,cat,\n2,cat,,,\n"),
]


def test_one_column_changes(subtests: pytest.Subtests) -> None:
    encodings = (("utf-8", b""), ("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE))
    for before, values, after in CHANGES:
        for encoding, mark in encodings:
            if mark and before.startswith("\ufeff"):
                continue
            with subtests.test(before=before, values=values, encoding=encoding):
                result = edited(mark + before.encode(encoding), TextEdits(column="label", labels=values))
                assert result == mark + after.encode(encoding)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
CLASSES = ("cat", "a dog", 'the "fox"', "owl, grey; old|x\ty", "Ärger")


def cell(value: str, separator: str, *, quoted: bool) -> str:
    needs = any(mark in value for mark in (separator, '"', "\r", "\n"))
    return '"' + value.replace('"', '""') + '"' if quoted or needs else value


@st.composite
def files(draw: st.DrawFn) -> tuple[list[list[str]], str, str, str, bool, list[bool]]:
    """Draws rows (text, label, text), separator, line end, encoding, whether the last line ends, and quotes."""
    rows = draw(st.lists(st.tuples(WORDS, st.sampled_from(CLASSES), WORDS), min_size=1, max_size=6))
    quotes = draw(st.lists(st.booleans(), min_size=3 * len(rows), max_size=3 * len(rows)))
    return (
        [list(row) for row in rows],
        draw(st.sampled_from(",;\t|")),
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
        draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        draw(st.booleans()),
        quotes,
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files(), st.data())
def test_a_round_trip_gives_the_same_bytes(
    tmp_path: Path, file: tuple[list[list[str]], str, str, str, bool, list[bool]], data: st.DataObject
) -> None:
    rows, separator, end, encoding, has_end, quotes = file

    def written(rows: list[list[str]], kept: list[int]) -> bytes:
        lines = [separator.join(("first", "label", "more"))]
        for row in kept:
            cells = (cell(value, separator, quoted=quotes[3 * row + at]) for at, value in enumerate(rows[row]))
            lines.append(separator.join(cells))
        return (end.join(lines) + (end if has_end else "")).encode(encoding)

    before = written(rows, [*range(len(rows))])
    path = tmp_path / "a.csv"
    path.write_bytes(before)
    try:
        table = read_texts(path).table
    except DataError:  # a value that looks as if it had swallowed other rows
        reject()
    assert table["label"].to_pylist() == [row[1] for row in rows]
    new = [data.draw(st.sampled_from([*CLASSES, None])) for _ in rows]
    assert edited(before, TextEdits(column="label", labels={})) == before
    result = edited(before, TextEdits(column="label", labels=dict(enumerate(new))))
    changed = [[row[0], label or "", row[2]] for row, label in zip(rows, new, strict=True)]
    kept = [row for row, label in enumerate(new) if label is not None]
    quoted_as_before = written(changed, kept)
    # a value that needed its quotes keeps them when the new one does not
    path.write_bytes(result)
    other = tmp_path / "b.csv"
    other.write_bytes(quoted_as_before)
    if kept:
        try:
            expected = read_texts(other).table.to_pylist()
        except DataError:
            reject()
        assert read_texts(path).table.to_pylist() == expected
    values = {row: rows[row][1] for row, label in enumerate(new) if label is not None}
    back = edited(result, TextEdits(column="label", labels=dict(enumerate(values.values()))))
    if len(kept) == len(rows) and all(quotes[1::3]):
        assert back == before


def test_a_file_of_a_table_without_a_verdict_gets_the_columns_of_the_others() -> None:
    verdicts = {1: VerdictText("0.25", "a, b", "true")}
    before = b'\xef\xbb\xbfx;label\r\n1;"cat"\r\n2;dog'
    columns = b"label_quality;predicted_label;is_label_issue"
    for edits, ends in (
        (TextEdits(column="label"), (b"", b"", b"")),
        (TextEdits(column="label", verdicts={}), (b";" + columns, b";;;", b";;;")),
        (TextEdits(column="label", verdicts=verdicts), (b";" + columns, b";;;", b";0.25;a, b;true")),
    ):
        after = [line + end for line, end in zip(before.split(b"\r\n"), ends, strict=True)]
        assert edited(before, edits) == b"\r\n".join(after)
    with pytest.raises(DataError, match='a column "predicted_label" already'):
        edited(b"label,predicted_label\ncat,dog\n", TextEdits(column="label", verdicts={}))
