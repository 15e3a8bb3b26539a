"""What messages quote."""

from __future__ import annotations

import pytest

from labelsieve.core.errors import DataError, did_you_mean, first_line, listed, look_up, shown


@pytest.mark.parametrize("value", ["x" * 500, "x" * 81, list(range(10_000)), "tab\there\nline\x1b[2J" * 40])
def test_a_long_value_is_cut_to_one_printable_line(value: object) -> None:
    text = shown(value)
    assert len(text) == 80 and text.isprintable() and text[40:43] == "..."


def test_a_short_value_stays_as_it_is() -> None:
    assert shown("x" * 80) == "x" * 80 and shown(3) == "3"


def test_a_path_keeps_its_last_part() -> None:
    assert shown("/somewhere" * 20 + "/cat.jpg").endswith("/cat.jpg")


def test_a_list_names_ten_and_counts_the_rest() -> None:
    assert listed(f"c{number}" for number in range(10)) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9"
    assert listed(range(1000)).endswith("9 and 990 more")
    assert listed(["a", "b" * 200], quoted=True) == f'"a", "{"b" * 40}...{"b" * 37}"'


def test_no_hint_that_reads_the_same() -> None:
    assert did_you_mean("label", ["label"]) == ""
    assert did_you_mean("lable", ["label", "image"]) == ' (did you mean "label"?)'


def test_messages_of_other_libraries_are_cut() -> None:
    assert len(first_line(ValueError("y" * 500 + "\nsecond"))) == 80
    assert first_line(ValueError()) == "ValueError"


def test_a_look_up_quotes_no_more_than_a_line() -> None:
    with pytest.raises(DataError) as caught:
        look_up({"one": 1}, "x" * 5000, what="--thing", error=DataError)
    assert len(str(caught.value)) < 160
