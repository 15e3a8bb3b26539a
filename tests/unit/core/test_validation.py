"""Every number of every settings dataclass and every verb states a range, and nothing outside of it gets further."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pytest

from labelsieve.bench import config
from labelsieve.cli import VERBS, main
from labelsieve.core.cache import LIMIT, cache_limit
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import LabelsieveError, SettingsError, UsageError
from labelsieve.core.validation import Range, Seed, check_environment, check_value, field_kinds, range_of
from labelsieve.data.features import load_features
from labelsieve.data.loading import load_images
from labelsieve.data.noise import inject
from labelsieve.detect.registry import DETECTORS, detector_class
from labelsieve.finetune.settings import RECIPES, Adaptation
from labelsieve.report.label_report import write_report

SETTINGS: dict[type[Any], dict[str, Any]] = {
    **{detector_class(name): {} for name in DETECTORS},
    Adaptation: {},
    config.Data: {"source": "photos"},
    config.Noise: {"kind": "symmetric", "rate": 0.1},
}
HOSTILE: tuple[Any, ...] = (-1, 0, 1e308, math.inf, -math.inf, math.nan, 2**63, -(2**63), 10**30, 10**5000)
# The least that a verb needs beside the option that is tried.
WORDS = {
    "scan": ["photos", "--out", "run"],
    "scan-tags": ["photos", "--out", "run"],
    "adapt": ["run", "--out", "model"],
    "report": ["run"],
    "review": ["run"],
    "audit": ["run"],
    "export": ["run", "--format", "imagefolder", "--out", "clean"],
    "noise": ["photos", "--kind", "pair", "--out", "x.parquet"],
    "demo": [],
    "compare": ["run", "other"],
    "apply": ["run", "--out", "corrected"],
    "status": ["run"],
}


def is_number(kind: Any) -> bool:
    return kind in (int, float) or any(is_number(each) for each in get_args(kind))


def numbers_of(kind: type[Any]) -> list[str]:
    return [name for name, each in field_kinds(kind).items() if is_number(each)]


def options_of(kind: type[Any]) -> Iterator[tuple[type[Any], str]]:
    """Yields the numeric options of a verb, with the dataclass that has them; those of a detector are settings."""
    for name, each in field_kinds(kind).items():
        dataclasses_in = [
            part for part in (each, *get_args(each)) if isinstance(part, type) and dataclasses.is_dataclass(part)
        ]
        for inner in dataclasses_in:
            yield from options_of(inner) if inner not in SETTINGS else ()
        if not dataclasses_in and is_number(each):
            yield kind, name


FIELDS = [(kind, name) for kind in SETTINGS for name in numbers_of(kind)]
OPTIONS = [(verb, kind, name) for verb in VERBS for kind, name in options_of(VERBS[verb])]


def edges(limits: Range) -> list[Any]:
    step = 1 if isinstance(limits.minimum, int) and isinstance(limits.maximum, int) else 0.5
    return [limits.minimum, limits.maximum, limits.minimum - step, limits.maximum + step]


def complaint(make: Callable[[], Any]) -> str | None:
    """Returns what a refusal says, None where there is none; any other error is a failure."""
    try:
        make()
    except (LabelsieveError, UsageError) as error:
        return str(error)
    return None


def check_refusal(make: Callable[[], Any], value: Any, limits: Range) -> None:
    """Checks that a value either is in the range, or is refused in one short line."""
    said = complaint(make)
    if said is None:
        assert value in limits and math.isfinite(value)
    else:
        assert len(said) < 300 and "\n" not in said
        assert value not in limits or str(limits) not in said, "a value in the range was called out of it"


def test_each_number_of_the_settings_is_checked(subtests: pytest.Subtests) -> None:
    for kind, name in FIELDS:
        with subtests.test(kind=kind.__name__, name=name):
            limits = range_of(field_kinds(kind)[name])
            assert limits is not None, "a number without a range"
            make: Callable[..., Any] = kind
            for value in (*HOSTILE, *edges(limits)):
                check_refusal(partial(make, **{**SETTINGS[kind], name: value}), value, limits)


@pytest.mark.parametrize(("verb", "kind", "name"), OPTIONS, ids=lambda each: getattr(each, "__name__", each))
def test_each_number_of_a_verb_is_checked(verb: str, kind: type[Any], name: str) -> None:
    limits = range_of(field_kinds(kind)[name])
    assert limits is not None, "a number without a range"
    command, given = VERBS[verb], [*WORDS[verb], *(["--rate", "0.1"] if verb == "noise" and name != "rate" else [])]
    for value in (-1, 1e308, math.nan, math.inf, 2**63, 10**30, "9" * 5000, *edges(limits)):
        words = [*given, f"--{name.replace('_', '-')}={value}"]
        number = float(value) if len(str(value)) < 400 else math.inf
        check_refusal(lambda words=words: command.parse(words, prog=f"labelsieve {verb}"), number, limits)  # type: ignore[misc]


def test_there_is_something_to_check() -> None:
    assert len(FIELDS) > 60 and {name for _, _, name in OPTIONS} >= {
        "limit",
        "seed",
        "rate",
        "images",
        "max_images",
        "thumbnail_px",
        "logit_scale",
    }
    assert all(range_of(field_kinds(Adaptation)[name]) for name in numbers_of(Adaptation))
    assert RECIPES, "the recipes are in their own ranges, or this module would not load"


def test_functions_check_as_the_command_line_does(subtests: pytest.Subtests) -> None:
    features = np.eye(4, dtype=np.float32)
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    given: dict[str, Any] = {"labels": ["cat", "cat", "cup", "cup"]}
    images = load_images(pixels, **given)
    text: dict[str, Any] = {"text": np.eye(2, 4), "class_names": ["cat", "cup"]}
    for value in HOSTILE:
        with subtests.test(value=value):
            calls: list[Callable[[], Any]] = [
                partial(load_images, pixels, limit=value, **given),
                partial(load_images, pixels, limit=2, seed=value, **given),
                partial(load_features, features, limit=value, **given),
                partial(load_features, features, logit_scale=value, **text, **given),
                partial(inject, images, kind="pair", rate=value),
                partial(inject, images, kind="pair", rate=0.5, seed=value),
                partial(make_engine, seed=value),
            ]
            for call in calls:
                said = complaint(call)
                assert value == 0 if said is None else len(said) < 300 and "\n" not in said


def test_report_has_the_ranges_of_its_options(tmp_path: Path) -> None:
    """The report checks its two numbers itself, for they are arguments of a function."""
    kinds = field_kinds(VERBS["report"])
    for name in ("max_images", "thumbnail_px"):
        limits = range_of(kinds[name])
        assert limits is not None
        with pytest.raises(SettingsError, match=f"expected {name} {limits}, got"):
            write_report(None, None, tmp_path / "x.html", **{name: int(limits.maximum) + 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("said", ["-1", "nan", "inf", "1e308", "much", "1" * 5000], ids=lambda said: said[:5])
def test_the_limit_of_the_cache(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, said)
    with pytest.raises(SettingsError, match=f"expected {LIMIT} .*from 0 to 1,000,000, got .*; a number of GiB"):
        cache_limit()
    monkeypatch.setenv(LIMIT, "0.5")
    assert cache_limit() == 2**29


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_numbers_of_a_launcher(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(name, "zero")
    with pytest.raises(SettingsError, match=f'expected {name} to be an integer .*, got "zero"'):
        check_environment()
    assert main(["list"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"expected {name}" in said


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Range(0, 10, above=True), "above 0 and at most 10"),
        (Range(0, 1, below=True), "from 0 to below 1"),
        (Range(0.5, 1), "from 0.5 to 1"),
        (Range(0, 10_000), "from 0 to 10,000"),
        (Range(0, 2**63, below=True), "from 0 to below 2^63"),
    ],
)
def test_a_range_in_words(limits: Range, said: str) -> None:
    assert str(limits) == said
    with pytest.raises(SettingsError) as caught:
        check_value("x", -1, Annotated[int, limits])
    assert str(caught.value) == f"expected x {said}, got -1"


def test_values_that_fit() -> None:
    batch = Annotated[int, Range(1, 8)] | Literal["auto"]
    for held in ("auto", 1, np.int64(8)):
        check_value("batch_size", held, batch)
    for wrong in ("aut", 1.5, True, None, 9):
        with pytest.raises(SettingsError):
            check_value("batch_size", wrong, batch)
    check_value("rate", 0, Annotated[float, Range(0, 1)])
    check_value("limit", None, Annotated[int | None, Range(1, 8)])
    with pytest.raises(SettingsError, match=r"got a number of 5,00\d digits"):
        check_value("seed", 10**5000, Seed)
