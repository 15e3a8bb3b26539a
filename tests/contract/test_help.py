"""The help of the verbs: what is set most in the short one, everything in the long one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from labelsieve.cli import VERBS
from labelsieve.commands import base
from labelsieve.commands.adapt import AdaptTestSet
from labelsieve.commands.help import SHOWN, wants_help
from labelsieve.commands.scan import Scan
from labelsieve.detect.deft.detector import RECIPES
from labelsieve.detect.registry import DETECTORS, detector_class
from labelsieve.detect.tags.registry import TAG_DETECTORS
from labelsieve.finetune.settings import Adaptation

Run = Callable[..., tuple[int, str, str]]

MAX_SHOWN = 25  # options in a short help
NESTED: dict[str, tuple[type, ...]] = {
    "scan": (base.Source, base.TestSet, base.OtherSplit),
    "scan-tags": (base.TagSource, TAG_DETECTORS["joint"]),
    "adapt": (AdaptTestSet, Adaptation),
    "noise": (base.Source,),
}
HELPS = [
    *((verb,) for verb in VERBS),
    *(("scan", "--detector", name) for name in DETECTORS),
    *(("scan", "--recipe", name) for name in RECIPES),
]


def options_in(text: str) -> set[str]:
    """Returns the names that begin a line in a box, whose sides depend on the encoding."""
    lines = re.findall(r"^.? ?(?:-h, )?--([a-z][a-z-]+)", text, re.MULTILINE)
    assert len(lines) == len(set(lines)), "no option twice"
    return set(lines)


def fields_of(words: tuple[str, ...]) -> set[str]:
    """Returns the options of a verb by the fields of its dataclasses."""
    verb, detector = words[0], words[-1] if "--detector" in words else "deft"
    settings = (detector_class(detector),) if verb == "scan" else ()
    fields = [field for kind in (VERBS[verb], *NESTED.get(verb, ()), *settings) for field in dataclasses.fields(kind)]
    not_named = {"data", "test_set", "other_split", "settings", "run_folder", "other_run", "file"} | (
        {"source"} if verb in ("scan", "scan-tags", "noise") else set()
    )
    return {field.name.replace("_", "-") for field in fields if field.name not in not_named} | {"help"}


@pytest.mark.parametrize(
    "words", [pytest.param(each, marks=() if len(each) == 1 else pytest.mark.slow, id=" ".join(each)) for each in HELPS]
)
def test_the_short_help_is_short_and_the_long_one_whole(words: tuple[str, ...], run: Run) -> None:
    code, short, err = run(*words, "--help")
    assert (code, err) == (0, "")
    code, whole, err = run(*words, "--help-all")
    assert (code, err) == (0, "")
    assert options_in(whole) == fields_of(words)
    # figures stand as they are typed, and tyro breaks a line after any comma
    assert re.findall(r"\d,\d{3}|\d,\W*\n\W*\d{3}\b", whole) == []
    hidden = options_in(whole) - options_in(short)
    assert len(options_in(short)) <= MAX_SHOWN and options_in(short) <= options_in(whole)
    if hidden:
        last = f"labelsieve {words[0]} --help-all shows the other {len(hidden)} options, and all in full."
        assert short.splitlines()[-1] == last and len(short.splitlines()) < 80
    else:
        assert short == whole and "--help-all" not in short


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_a_number_and_its_unit_stay_on_one_line(columns: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = "".join(run(verb, option)[1] for verb in VERBS for option in ("--help", "--help-all"))
    lines = [line.strip("│| ") for line in text.splitlines()]
    broken = [pair for pair in pairwise(lines) if re.search(r"\d$", pair[0]) and pair[1][:1].isalpha()]
    assert broken == []
    assert re.search(r"\d images", text) and "\u00a0" not in text, "spaces are usual ones"


def test_shares_are_percentages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for verb, option, default in [
        ("adapt", "--drop-at", "(default: 50%)"),
        ("audit", "--confidence", "(default: 95%)"),
        ("audit", "--at-most", "(optional)"),
        ("noise", "--rate", "(but for tags)"),
        ("scan", "--box-margin", "(default: 10%)"),
    ]:
        _, _, about = run(verb, "--help-all")[1].partition(f"{option} SHARE ")
        assert default in about.partition(" --")[0], (verb, option)


def test_only_verbs_with_many_options_hide_some() -> None:
    assert {verb for verb in VERBS if len(fields_of((verb,))) > MAX_SHOWN} == set(SHOWN)


@pytest.mark.parametrize("verb", SHOWN)
def test_what_is_shown_is_there(verb: str) -> None:
    words = [("scan", "--detector", name) for name in DETECTORS] if verb == "scan" else [(verb,)]
    known = {option for each in words for option in fields_of(each)}
    names = [name.replace("_", "-") for group in SHOWN[verb].values() for name in group]
    assert set(names) <= known and len(names) == len(set(names))


def test_every_setting_of_a_detector_is_still_an_option(subtests: pytest.Subtests) -> None:
    for name in DETECTORS:
        with subtests.test(name):
            settings, words = detector_class(name)(), []
            for field in dataclasses.fields(settings):
                option, value = field.name.replace("_", "-"), getattr(settings, field.name)
                is_switch = isinstance(value, bool)
                words += [f"--{option}" if value else f"--no-{option}"] if is_switch else [f"--{option}", str(value)]
            parsed: Any = Scan.parse(["x", "--out", "run", "--detector", name, *words], prog="labelsieve scan")
            assert parsed.settings == settings


def test_help_is_shown_whatever_else_is_said(run: Run) -> None:
    short = run("scan", "--help")
    assert run("scan", "photos", "--folds", "3", "--nope", "-h") == short
    assert run("scan", "photos", "--help", "--help-all") == run("scan", "--help-all") != short
    assert "Method that scores the labels (default: gmm)" in run("scan", "--detector", "gmm", "-h")[1]
    assert "(default: 0.0005)" in run("adapt", "--recipe", "paper", "--help")[1]
    assert run("--help-all") == run("--help")


def test_what_follows_two_dashes_is_no_option() -> None:
    assert wants_help(["--out", "x", "--", "--help"]) is None
    assert wants_help(["x", "-h"]) == "--help" and wants_help(["x", "--help-all"]) == "--help-all"
