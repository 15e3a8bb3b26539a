"""What the pages of labels and of tags share."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from labelsieve.report.pages import MAX_REASON, MAX_UNREADABLE, environment, unreadable_rows


def column(values: list[Any]) -> pa.ChunkedArray:
    return pa.chunked_array([values])


@pytest.mark.parametrize(("given", "shown"), [("cat", "cat"), (["cat", "dog"], "cat, dog"), ([], "")])
def test_a_row_of_an_unreadable_image_has_label_or_tags_and_a_short_reason(given: Any, shown: str) -> None:
    row, again = unreadable_rows(column(["a.png", "b.png"]), column([given] * 2), column(["a.png: cut", "x" * 999]))
    assert row == {"id": "a.png", "given": shown, "error": "cut"}
    assert len(again["error"]) == MAX_REASON


@pytest.mark.parametrize("count", [1, MAX_UNREADABLE, MAX_UNREADABLE + 1])
def test_a_page_says_where_it_lists_only_the_first_unreadable_images(count: int) -> None:
    rows = unreadable_rows(*(column([f"{each}" for each in range(count)]) for _ in range(3)))
    macros: Any = environment().get_template("macros.html.jinja").module
    page = macros.unreadable_images(rows, count, "Given tags", "images.parquet")
    assert page.count('<th scope="row"') == min(count, MAX_UNREADABLE)
    assert ("The first 200 are listed; all of them are in <code>images.parquet</code>" in page) == (count > 200)
