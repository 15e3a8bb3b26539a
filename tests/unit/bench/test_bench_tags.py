"""Experiments on several labels per image: measured, kept apart from those of one, and tried on next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from labelsieve.bench.config import Noise
from labelsieve.bench.experiment import Experiment, read_experiment
from labelsieve.bench.run import load_data, run_experiment, with_noise
from labelsieve.bench.smoke import miniatures
from labelsieve.bench.store import Store
from labelsieve.bench.synthetic import SCENE_TAGS, SYNTHETIC_SOURCES
from labelsieve.bench.tables import RESULTS_MD
from labelsieve.cli import main
from labelsieve.core.errors import LabelsieveError, SettingsError
from labelsieve.metrics import TAG_DETECTION

TINY = """
title = "Tiny"
task = "tags"
seeds = [0]
tables = [["wrong_auroc"], ["missing_precision", "missing_recall"], ["omission", "estimated_omission"]]

[model]
mini = "bundled"

[data.scenes]
source = "scene-tags"
limit = 24

[noise.some]
kind = "tags"
omit = 0.25
add = 0.1

[noise.right]
kind = "none"

[method.joint]
detector = "joint"
settings = { folds = 2, neighbours = 5 }

[method.knn]
detector = "knn"
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("tags")
    (folder / "tiny.toml").write_text(TINY)
    experiment = read_experiment(folder / "tiny.toml")
    return experiment, run_experiment(experiment, folder / "out")


def records(experiment: Experiment, folder: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    found = Store(folder).read()
    return {(cell.noise, cell.method): found[experiment.key(cell)] for cell in experiment.cells()}


@pytest.mark.slow
def test_every_tag_detector_is_measured_on_tags(measured: tuple[Experiment, Path]) -> None:
    for (noise, _), record in records(*measured).items():
        assert {*TAG_DETECTION, "wrong_flagged", "commission", "seconds"} <= record.keys()
        assert record["omission"] == pytest.approx(0.25 if noise == "some" else 0, abs=0.01)
        assert record["commission"] == pytest.approx(0.1 if noise == "some" else 0, abs=0.03)
        assert record["images"] == 24 and 0 <= record["missing_flagged"] <= 1
        assert (record["missing_recall"] is None) == (noise == "right"), "there is nothing to find"
    assert "| joint |" in (measured[1] / RESULTS_MD).read_text()


@pytest.mark.slow
def test_a_second_run_measures_nothing_and_scans_are_loaded(
    measured: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, folder = measured
    before = records(experiment, folder)
    monkeypatch.setattr("labelsieve.tags.scan.scan_tags", lambda *_, **__: pytest.fail("scanned again"))
    run_experiment(experiment, folder)
    assert records(experiment, folder) == before
    (folder / "cells.jsonl").unlink()
    run_experiment(experiment, folder)
    measures = [{name: record[name] for name in ("map", "wrong_flagged", "seconds")} for record in before.values()]
    again = records(experiment, folder).values()
    assert [{name: record[name] for name in ("map", "wrong_flagged", "seconds")} for record in again] == measures


@pytest.mark.slow
def test_the_shipped_one_is_estimated_and_tried(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    assert main(["bench", str(tmp_path / "tiny.toml"), "--dry-run"]) == 0
    assert "4 of 4 cells are missing: about" in capsys.readouterr().out
    experiment = read_experiment("tags")
    small = miniatures(experiment, {"scenes": experiment.data["scenes"]})
    assert {name: list(each.method) for name, each in small.items()} == {
        "tags": list(experiment.method),
        "tags-noises": [next(iter(experiment.method))],
    }


def test_data_are_read_with_tags_and_noise(tmp_path: Path) -> None:
    drawn = SYNTHETIC_SOURCES[SCENE_TAGS].draw(tmp_path, 12, 0)
    data = read_experiment("tags").with_locations(
        sources={"scenes": str(next(tmp_path.iterdir()))}, tests={}, models={}
    )
    images = load_data(data.data["scenes"], seed=0, has_tags=True)
    assert sorted(images.ids) == sorted(drawn.ids)
    noisy = with_noise(images, Noise(kind="tags", omit=0.5), seed=1)
    assert noisy.tags.sum() == noisy.truth.sum() - round(noisy.truth.sum() / 2)  # type: ignore[union-attr]
    right = with_noise(noisy, Noise(kind="none"), seed=0)
    assert (right.tags == noisy.truth).all() and (right.truth == right.tags).all()  # type: ignore[union-attr]
    assert with_noise(noisy, Noise(kind="given"), seed=0).fingerprint == noisy.fingerprint


def test_what_does_not_go_with_tags_is_named(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for changed, said in (
        (('kind = "tags"\nomit = 0.25\nadd = 0.1', 'kind = "pair"\nrate = 0.2'), r"\[noise.some\]: task tags takes"),
        (("omit = 0.25\nadd = 0.1", ""), r"expected omit or add above 0 with kind tags, found none"),
        (('"none"', '"none"\nadd = 0.1'), r"kind none takes no add; leave it out"),
        (("limit = 24", 'test = "scene-tags"'), r"\[data.scenes\]: task tags tests nothing"),
        (('"scene-tags"', '"drawings"'), r"\[data.scenes\]: drawings does not go with task tags; use scene-tags"),
        (('detector = "knn"', 'detector = "fine"'), r"\[method.knn\]: detector fine reads one label per image"),
        (('detector = "knn"', 'train_on = "all"'), r"\[method.knn\]: expected a detector, found none"),
        (('detector = "knn"', 'detector = "knn"\nbackbone = "x"'), r"a detector and its settings only"),
        (("neighbours = 5", "neighbors = 5"), r"\[method.joint\]: .*neighbors"),
    ):
        with subtests.test(said):
            assert changed[0] in TINY
            (tmp_path / "tiny.toml").write_text(TINY.replace(*changed))
            with pytest.raises(SettingsError, match=said):
                read_experiment(tmp_path / "tiny.toml")


def test_tags_do_not_go_with_one_label_an_image(tmp_path: Path) -> None:
    text = TINY.replace('"tags"\nseeds', '"detect"\nseeds').replace(
        TINY[TINY.index("tables") : TINY.index("[model]")], ""
    )
    text = text.replace("settings = { folds = 2, neighbours = 5 }", "")
    (tmp_path / "tiny.toml").write_text(text)
    with pytest.raises(LabelsieveError, match=r"\[noise.some\]: kind tags goes with task tags only, got task detect"):
        read_experiment(tmp_path / "tiny.toml")
    (tmp_path / "tiny.toml").write_text(text.replace('kind = "tags"\nomit = 0.25\nadd = 0.1', 'kind = "given"'))
    with pytest.raises(SettingsError, match=r"\[data.scenes\]: scene-tags does not go with task detect; use drawings"):
        read_experiment(tmp_path / "tiny.toml")
