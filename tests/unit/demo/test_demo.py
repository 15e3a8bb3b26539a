"""The demonstration: what it writes, how much it mislabels, and that a seed fixes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from labelsieve.cli import main
from labelsieve.core.errors import RunError, SettingsError
from labelsieve.data.loading import load_images
from labelsieve.demo.run import default_detectors, mislabel, run_demo
from labelsieve.demo.sketches import CLASS_NAMES, SIMILAR, sketches
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.label_match import LabelMatch
from labelsieve.detect.registry import DETECTORS
from labelsieve.verdicts import Verdicts
from slow_cases import mostly_slow

FEW = (DeFT(epochs=1, min_steps=0, evidence="threshold"), LabelMatch())
QUIET = Console(quiet=True)


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in result["detectors"]]
    return {**result, "detectors": rows}


@pytest.mark.slow
def test_what_it_writes_and_replaces_only_when_told(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", images=50, seed=1, console=QUIET, detectors=FEW)
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        *("drawings.parquet", "comparison.json", "comparison.md", "report.html"),
        *("run.json", "verdicts.csv", "verdicts.parquet", "findings.parquet", "metrics.json"),
    }
    kept = json.loads((tmp_path / "demo" / "comparison.json").read_text())
    assert (kept["images"], kept["classes"], kept["seed"]) == (50, 16, 1)
    assert [row["detector"] for row in kept["detectors"]] == ["deft", "label-match"]
    assert kept["noise_rate"] == result["noise_rate"] == pytest.approx(15 / 50)
    for row in kept["detectors"]:
        assert 0 <= row["metrics"]["issue_f1"] <= 1 and row["metrics"]["images"] == 50 and row["seconds"] >= 0
    text = (tmp_path / "demo" / "comparison.md").read_text()
    assert text.startswith("50 sketches of 16 classes, 30.0% wrong labels, seed 1.\n")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    verdicts = Verdicts.load(tmp_path / "demo")
    assert verdicts.record["detector"]["name"] == "deft", "the run is that of the first detector"
    assert verdicts.metrics == kept["detectors"][0]["metrics"]

    with pytest.raises(RunError, match="already holds a finished run"):
        run_demo(tmp_path / "demo", images=48, console=QUIET, detectors=FEW[1:])
    run_demo(tmp_path / "demo", images=49, console=QUIET, detectors=FEW[1:], overwrite=True)
    assert len(Verdicts.load(tmp_path / "demo")) == 49


@pytest.mark.parametrize("count", mostly_slow([48, 101, 200], quick={48}))
def test_mislabelling_is_exact(count: int) -> None:
    pictures, labels = sketches(count, seed=0)
    clean = load_images(pictures, labels=labels, class_names=CLASS_NAMES)
    noisy = mislabel(clean, seed=0)
    wrong = noisy.labels != clean.labels
    assert wrong.sum() == round(0.2 * count) + round(0.1 * count)
    assert noisy.truth is not None and np.array_equal(noisy.truth, clean.labels)
    similar = [
        CLASS_NAMES[given] == SIMILAR[CLASS_NAMES[true]] for given, true in zip(noisy.labels, labels, strict=True)
    ]
    assert sum(similar) >= round(0.1 * count)
    assert np.array_equal(mislabel(clean, seed=0).labels, noisy.labels)
    assert not np.array_equal(mislabel(clean, seed=1).labels, noisy.labels)


@pytest.mark.slow
def test_same_seed_same_result(tmp_path: Path) -> None:
    first, second, other = (
        run_demo(tmp_path / str(number), images=48, seed=seed, console=QUIET, detectors=FEW)
        for number, seed in enumerate((3, 3, 4))
    )
    assert without_times(first) == without_times(second)
    assert without_times({**other, "seed": 3}) != without_times(first)
    for name in ("drawings.parquet", "verdicts.parquet"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_it_compares_deft_with_the_detectors_of_the_paper() -> None:
    names = [DETECTORS.label_of(detector) for detector in default_detectors()]
    assert names == ["deft", "label-match", "small-loss", "gmm"] and {*names} <= {*DETECTORS}


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected images from 48 to 20,000, got 47"):
        run_demo(tmp_path / "demo", images=47, console=QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_below_zero(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"seed from 0 to below 2\^63, got -1"):
        run_demo(tmp_path / "demo", images=48, seed=-1, console=QUIET)
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("labelsieve.demo.run.default_detectors", lambda: FEW)
    assert main(["demo", "--images", "48", "--out", str(tmp_path / "demo")]) == 0
    said = capsys.readouterr()
    assert "mislabelling 30% of them" in said.out and "deft" in said.out and "label-match" in said.out
    assert str(tmp_path / "demo" / "report.html") in said.out.replace("\n", "")
    assert said.err == ""
