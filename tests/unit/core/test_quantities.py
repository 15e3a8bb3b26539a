"""Numbers with units."""

from __future__ import annotations

import pytest

from labelsieve.core.quantities import bind_units, gigabytes, megabytes, plain, points, unbroken_parts


@pytest.mark.parametrize(
    ("text", "together"),
    [
        ("12 % of 3,000 images", "12_% of 3,000_images"),
        ("59.6 s, 2.5 GB", "59.6_s, 2.5_GB"),
        ("1 min 15 s", "1_min 15_s"),
        ("20 \u00b0C or 3 \u00b5s", "20_\u00b0C or 3_\u00b5s"),
        ("<\u00a00.1\u00a0%", "<_0.1_%"),
        ("--epochs 3 --peft none", "--epochs 3 --peft none"),
        ("3 4 5", "3 4 5"),
        ("no number", "no number"),
    ],
)
def test_glued(text: str, together: str) -> None:
    assert bind_units(text, "_") == together
    assert len(bind_units(text)) == len(text) and plain(bind_units(text)) == plain(text)


def test_parts() -> None:
    text = "about 7\u00a0% (3 to 9) of 1,234 images <\u00a00.1\u00a0% & <b>2 min</b>, --learning-rate; a--b ---c"
    found = unbroken_parts(text)
    assert "".join(part for part, _ in found) == text
    assert [part for part, whole in found if whole] == [
        "7\u00a0%",
        "3 to",
        "1,234 images",
        "<\u00a00.1\u00a0%",
        "2 min",
        "--learning-rate",
    ]
    assert unbroken_parts("") == []


def test_units_come_with_a_space_that_does_not_break() -> None:
    assert (points(0.8125), points(None)) == ("81.2\u00a0%", "\u2013")
    assert (megabytes(2_340_000), gigabytes(2.54)) == ("2.3\u00a0MB", "2.5\u00a0GB")
