"""Experiments: read strictly, measured once, never mixed up, and shown as they were measured."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import labelsieve.bench
from forked import Command
from interrupting import break_off
from labelsieve.bench import estimate as estimating
from labelsieve.bench.changed_defaults import without_changed_defaults
from labelsieve.bench.config import Data, Method
from labelsieve.bench.experiment import Cell, Experiment, read_experiment
from labelsieve.bench.peak_memory import PeakMemory
from labelsieve.bench.run import load_data, load_test, run_experiment
from labelsieve.bench.smoke import _shortened
from labelsieve.bench.store import CELLS, EXPERIMENT, Store
from labelsieve.bench.table_values import column_names, series
from labelsieve.bench.tables import reliability, write_plots, write_tables
from labelsieve.bench.tasks import TASKS
from labelsieve.bench.toml_files import shipped, title_of
from labelsieve.cli import main
from labelsieve.core.errors import DataError, LabelsieveError, ModelError, RunError, SettingsError
from labelsieve.core.locks import locked
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import to_json
from labelsieve.demo import sketches
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.training.learner import BatchSource
from labelsieve.metrics import calibration
from labelsieve.vlm import loading
from small_published import FINE_TEST, REPLICAS, write_cifar100

TINY = """
title = "Tiny"
task = "detect"
seeds = [0, 1]
tables = [["clean_precision", "clean_recall"], ["issue_f1"]]

[model]
mini = "bundled"

[data.drawings]
source = "drawings"
limit = 48

[noise.sym-20]
kind = "symmetric"
rate = 0.25

[noise.as-drawn]
kind = "given"

[method.label-match]
detector = "label-match"

[method.untrained]
detector = "deft"
settings = { epochs = 0, evidence = "threshold" }
"""


# Stands in the place of the head of the next table.
PUBLISHED = """
[published]
source = "Somebody, 2024, Table 3"
metrics = ["clean_precision", "clean_recall"]

[published.values.drawings]
untrained = { sym-20 = [60.25, 97.5] }

[model]"""
AS_DRAWN = '[noise.as-drawn]\nkind = "given"\n'


@pytest.fixture(scope="module", autouse=True)
def made_once() -> Iterator[None]:
    """Loads the same model and draws the same images once for all experiments of this file."""
    with pytest.MonkeyPatch.context() as patch:
        load, draw = cache(loading.load_vlm), cache(sketches.sketches)
        for module in ("run", "estimate"):
            patch.setattr(f"labelsieve.bench.{module}.load_vlm", load)
        patch.setattr(sketches, "sketches", lambda count, *, seed: draw(count, seed=seed))
        yield


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what most runs are not looked at for."""
    monkeypatch.setattr("labelsieve.bench.plots.find_spec", lambda _name: None)


@pytest.fixture
def file(tmp_path: Path, no_plots: None) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "tiny.toml").write_text(TINY)
    experiment = read_experiment(folder / "tiny.toml")
    return experiment, run_experiment(experiment, folder / "results")


def changed(file: Path, old: str, new: str) -> Path:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return file


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def lines_of(folder: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (folder / CELLS).read_text().splitlines()]


# ------------------------------------------------------------------------------------------------ what is measured


def test_every_combination_is_measured_once(measured: tuple[Experiment, Path]) -> None:
    experiment, folder = measured
    rows = rows_of(folder)
    assert len(rows) == 8 == len(list(experiment.cells())) == len(lines_of(folder))
    assert {(row["noise"], row["method"], row["seed"]) for row in rows} == {
        (noise, method, seed)
        for noise in ("sym-20", "as-drawn")
        for method in ("label-match", "untrained")
        for seed in "01"
    }


def test_cells_know_where_they_came_from(measured: tuple[Experiment, Path]) -> None:
    for record in lines_of(measured[1]):
        assert record["versions"]["torch"] and record["hardware"] and record["created"]
        assert record["data_fingerprint"] and record["model_fingerprint"]
        settings = json.loads(record["settings"])
        assert settings[0]["kind"] in ("symmetric", "given") and settings[1]["detector"]


def test_noise_is_as_asked_and_drawn_anew_for_each_seed(measured: tuple[Experiment, Path]) -> None:
    records = lines_of(measured[1])
    assert {record["noise_rate"] for record in records if record["noise"] == "sym-20"} == {0.25}
    # 20 % of the sketches have any other label, and 10 % that of a similar class
    assert {record["noise_rate"] for record in records if record["noise"] == "as-drawn"} == {(10 + 5) / 48}
    drawn = {record["data_fingerprint"] for record in records}
    assert len(drawn) == 4, "two noises for two seeds; both methods of a group see the same images"


def test_a_cell_is_what_a_scan_gives(measured: tuple[Experiment, Path]) -> None:
    import labelsieve as ls
    from labelsieve.demo import MINI_CLIP

    _, folder = measured
    drawn = ls.load_images(folder / "runs" / "drawings-48-1.parquet", truth_column="clean_label")
    assert drawn.truth is not None
    noisy = ls.inject(drawn.with_labels(drawn.truth), kind="symmetric", rate=0.25, seed=1)
    verdicts = ls.scan(noisy, ls.load_vlm(MINI_CLIP), detector=ls.LabelMatch(), seed=1)
    assert verdicts.metrics is not None
    wanted = ("sym-20", "label-match", 1)
    record = next(each for each in lines_of(folder) if (each["noise"], each["method"], each["seed"]) == wanted)
    for name in ("clean_precision", "clean_recall", "issue_f1", "auroc", "flagged_rate"):
        assert record[name] == verdicts.metrics[name]
    assert record["predicted_accuracy"] == (verdicts.predicted == noisy.truth).mean()


def test_the_tables_show_mean_and_spread(measured: tuple[Experiment, Path]) -> None:
    experiment, folder = measured
    values = [float(r["issue_f1"]) for r in rows_of(folder) if (r["noise"], r["method"]) == ("sym-20", "untrained")]
    shown = (folder / "results.md").read_text()
    assert f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}" in shown
    records = Store.open(folder, name="tiny").read()
    found = series(experiment, records, "untrained", "issue_f1")[0]
    assert found is not None and found.mean == pytest.approx(mean(values))
    assert "## clean P / clean R" in shown and "8 of 8 cells" in shown and "seeds 0, 1" in shown


def test_plots_are_drawn_of_single_metrics(measured: tuple[Experiment, Path]) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    assert [path.name for path in measured[1].glob("*.svg")] == ["issue_f1.svg"]
    picture = (measured[1] / "issue_f1.svg").read_text()
    assert picture.lstrip().startswith("<?xml") and "</svg>" in picture


def made_up(experiment: Experiment, values: Mapping[tuple[str, str, int], float | None]) -> dict[str, dict[str, Any]]:
    """Returns records of cells, by noise, method and seed, whose metrics all have one value."""
    records = {}
    for (noise, method, seed), value in values.items():
        cell = Cell("mini", "drawings", noise, method, seed)
        metrics = dict.fromkeys(("clean_precision", "clean_recall", "issue_f1"), value)
        about = {"hardware": f"{seed} cores", "versions": {"torch": "2.9"}, "created": f"2026-11-2{seed}T10:00:00"}
        records[experiment.key(cell)] = {
            **cell._asdict(),
            "key": experiment.key(cell),
            "group": "g",
            **about,
            **metrics,
        }
    return records


def test_the_best_is_bold_one_seed_has_no_spread_and_what_is_missing_a_dash(file: Path, tmp_path: Path) -> None:
    experiment = read_experiment(file)
    values = {("sym-20", "label-match", 0): 0.5, ("sym-20", "label-match", 1): 0.7, ("sym-20", "untrained", 0): 0.625}
    write_tables(experiment, made_up(experiment, {**values, ("as-drawn", "untrained", 0): None}), tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "4 of 8 cells measured; seeds 0, 1." in text
    assert "Hardware: 0 cores; 1 cores. PyTorch 2.9. 2026-11-20 to 2026-11-21." in text
    pairs, single = text.split("## ")[1:]
    assert pairs.splitlines()[2:] == [
        "| method | sym-20 | as-drawn |",
        "|---|---:|---:|",
        "| label-match | 60.0 / 60.0 | \N{EN DASH} / \N{EN DASH} |",
        "| untrained | 62.5 / 62.5 | \N{EN DASH} / \N{EN DASH} |",
        "",
    ]
    assert single.splitlines()[4:] == [
        "| label-match | 60.0 ± 14.1 | \N{EN DASH} |",
        "| untrained | **62.5** | \N{EN DASH} |",
    ]


def test_where_all_are_equal_none_is_best(file: Path, tmp_path: Path) -> None:
    experiment = read_experiment(file)
    write_tables(
        experiment, made_up(experiment, {("sym-20", m, 0): 0.0 for m in ("label-match", "untrained")}), tmp_path
    )
    assert "| label-match | 0.0 |" in (tmp_path / "results.md").read_text()


def test_tables_hold_the_cells_of_the_file_alone(file: Path, tmp_path: Path) -> None:
    more = read_experiment(file)
    records = made_up(more, {("sym-20", m, s): 0.5 for m in ("label-match", "untrained") for s in (0, 1)})
    fewer = read_experiment(
        changed(changed(file, "seeds = [0, 1]", "seeds = [1]"), "[method.label-match]", "[method.l]")
    )
    write_tables(fewer, records, tmp_path)
    rows = rows_of(tmp_path)
    assert [(row["method"], row["seed"]) for row in rows] == [("l", "1"), ("untrained", "1")], "methods may be renamed"
    assert "key" not in rows[0] and "group" not in rows[0]
    assert "label-match" not in (tmp_path / "results.md").read_text()
    assert "Hardware: 1 cores. PyTorch 2.9. 2026-11-21." in (tmp_path / "results.md").read_text()


def test_a_bar_in_a_name_ends_no_cell(file: Path, tmp_path: Path) -> None:
    experiment = read_experiment(changed(file, "[method.label-match]", '[method."p | q"]'))
    write_tables(experiment, {}, tmp_path)
    lines = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("| p ")]
    assert lines and all(line.startswith("| p \\| q |") for line in lines)


def test_columns_are_named_by_what_differs(file: Path) -> None:
    file.write_text(file.read_text() + '\n[data.photos]\nsource = "photos"\n')
    assert column_names(read_experiment(file)) == [
        "drawings, sym-20", "drawings, as-drawn", "photos, sym-20", "photos, as-drawn",
    ]  # fmt: skip
    changed(changed(file, AS_DRAWN, ""), '\n[data.photos]\nsource = "photos"', "")
    assert column_names(read_experiment(file)) == ["sym-20"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "out" / CELLS).mkdir(parents=True)  # what stands in the way refuses as a full disk does
    with pytest.raises(RunError, match=r"could not write .*cells.jsonl: Is a directory; free some space and run"):
        Store(tmp_path / "out").add({"key": "k"})


def test_a_cell_may_hold_any_letter(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin({"name": "tiny"})
    note = "lines \u2028 of \x85 other \x1c kinds \r\n"
    store.add({"key": "k", "note": note})
    assert Store.open(tmp_path, name="tiny").read() == {"k": {"key": "k", "note": note}}


def test_published_numbers_stand_beside_ours(file: Path, tmp_path: Path) -> None:
    experiment = read_experiment(changed(file, "[model]", PUBLISHED))
    write_tables(experiment, {}, tmp_path)
    before = (tmp_path / "results.md").read_text()
    assert (
        "| drawings | sym-20 | untrained | \N{EN DASH} | 60.25 | \N{EN DASH} | \N{EN DASH} | 97.50 | \N{EN DASH} |"
        in before
    )
    write_tables(experiment, made_up(experiment, {("sym-20", "untrained", s): 0.7 + 0.1 * s for s in (0, 1)}), tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "## Beside Somebody, 2024, Table 3" in text
    titles = ("clean P: ours | paper | difference", "clean R: ours | paper | difference")
    assert f"| data | noise | method | {' | '.join(titles)} |" in text
    assert "| drawings | sym-20 | untrained | 75.00 | 60.25 | +14.75 | 75.00 | 97.50 | -22.50 |" in text


RIVAL = PUBLISHED.replace("untrained =", "bystander = { sym-20 = [12.5, 50.0] }\nuntrained =").replace(
    "\n\n[published.values", '\nonly_published = ["bystander"]\n\n[published.values'
)


def test_numbers_of_a_method_that_is_not_measured_stand_alone(file: Path, tmp_path: Path) -> None:
    experiment = read_experiment(changed(file, "[model]", RIVAL))
    assert "bystander" not in experiment.method
    write_tables(experiment, made_up(experiment, {("sym-20", "untrained", s): 0.75 for s in (0, 1)}), tmp_path)
    rows = [line for line in (tmp_path / "results.md").read_text().splitlines() if "| sym-20 |" in line][-2:]
    assert rows == [
        "| drawings | sym-20 | bystander | \N{EN DASH} | 12.50 | \N{EN DASH} | \N{EN DASH} | 50.00 | \N{EN DASH} |",
        "| drawings | sym-20 | untrained | 75.00 | 60.25 | +14.75 | 75.00 | 97.50 | -22.50 |",
    ]
    assert not {cell.method for cell in experiment.cells()} - {"label-match", "untrained"}


def test_a_dry_run_sets_ours_beside_the_paper(
    file: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelsieve.bench.estimate.estimate", lambda *_args, **_options: {})
    experiment, out = read_experiment(changed(file, "[model]", PUBLISHED)), tmp_path / "out"
    code, said, _ = run("bench", file, "--dry-run")
    assert code == 0 and "beside Somebody, 2024, Table 3, in %:" in said and "8 of 8 cells are missing" in said
    assert "| data | noise | method | clean P: ours | paper | difference | clean R: ours | paper | difference |" in said
    assert "| untrained | \N{EN DASH} | 60.25 | \N{EN DASH} |" in said and not out.exists()
    store = Store.open(out, name="tiny")
    out.mkdir()
    store.begin(experiment)
    for record in made_up(experiment, {("sym-20", "untrained", 0): 0.5, ("sym-20", "untrained", 1): 0.7}).values():
        store.add(record)
    code, said, _ = run("bench", file, "--dry-run", "--out", out)
    assert code == 0 and "| untrained | 60.00 | 60.25 | -0.25 | 60.00 | 97.50 | -37.50 |" in said
    assert "6 of 8 cells are missing" in said.splitlines()[-1]


def test_defaults_hold_where_a_table_says_nothing(file: Path) -> None:
    defaults = """
[defaults.noise]
exact = false

[defaults.method]
detector = "deft"
settings = { epochs = 7, warmup_epochs = 2 }

[method.whole]
"""
    file.write_text(file.read_text().replace('detector = "deft"', 'recipe = "paper"') + defaults)
    experiment = read_experiment(changed(file, '[method.label-match]\ndetector = "label-match"', ""))
    assert not experiment.noise["sym-20"].exact
    methods = experiment.method
    assert methods["whole"].settings == {"epochs": 7, "warmup_epochs": 2} and methods["whole"].detector == "deft"
    assert methods["untrained"].settings == {"epochs": 0, "evidence": "threshold", "warmup_epochs": 2}
    assert methods["untrained"].recipe == "paper"


def test_calibration_of_probabilities() -> None:
    quality = np.array([0.05, 0.05, 0.95, 0.95, 1.0, 0.55], np.float32)
    right = np.array([False, True, True, True, True, False])
    found = calibration(quality, right)
    assert found["brier"] == pytest.approx((0.05**2 + 0.95**2 + 2 * 0.05**2 + 0.55**2) / 6)
    # by bins: two of 0.05 of which one is right; one of 0.55 that is wrong; three of 2.9 in all that are right
    assert found["ece"] == pytest.approx((0.9 + 0.55 + 0.1) / 6)
    rows = np.array(found["reliability"])
    assert rows.shape == (10, 3) and rows[9].tolist() == [3, pytest.approx(2.9), 3] and rows[0].tolist()[::2] == [2, 1]
    assert found["even_odds"] == pytest.approx(0.95), "of the three below one is right"
    assert calibration(right.astype(np.float32), right)["ece"] == 0
    assert calibration(quality[:0], right[:0])["brier"] is None


def test_odds_are_even_where_half_of_the_labels_are_right(subtests: pytest.Subtests) -> None:
    """Of labels that are right with probability quality ** power that is at 0.5 ** (1 / power)."""
    for power, seed in product((0.25, 0.5, 1.0, 2.0), range(3)):
        with subtests.test(power=power, seed=seed):
            rng = np.random.default_rng(seed)
            quality = rng.random(20_000).astype(np.float32)
            found = calibration(quality, rng.random(20_000) < quality**power)
            assert found["even_odds"] == pytest.approx(0.5 ** (1 / power), abs=0.06)
            assert calibration(quality, np.zeros(20_000, bool))["even_odds"] == 1.0
            assert calibration(quality, np.ones(20_000, bool))["even_odds"] == pytest.approx(quality.min())


def test_peak_memory_is_the_most_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resident, looks = [1e9], [0]

    def look(_process: psutil.Process) -> SimpleNamespace:
        looks[0] += 1
        return SimpleNamespace(rss=resident[0])

    monkeypatch.setattr(psutil.Process, "memory_info", look)
    with PeakMemory() as peak:
        assert peak.gigabytes == 1.0
        for level in (3e9, 2e9):  # in between somebody has to look
            resident[0] = level
            seen, deadline = looks[0], time.monotonic() + 10
            while looks[0] < seen + 2 and time.monotonic() < deadline:
                time.sleep(0.005)
    assert peak.gigabytes == 3.0


def test_peak_memory_is_that_of_this_process() -> None:
    with PeakMemory() as peak:
        held = np.ones(25_000_000)
        now = psutil.Process().memory_info().rss
        time.sleep(0.1)
        del held
    assert 0.2e9 < now <= peak.gigabytes * 1e9 + 1e7


def test_cells_hold_calibration_and_memory(measured: tuple[Experiment, Path]) -> None:
    for record in lines_of(measured[1]):
        assert 0 <= record["ece"] <= 1 and 0 <= record["brier"] <= 1 and 0.05 < record["memory"] < 50
        assert sum(row[0] for row in record["reliability"]) == 48
    assert "reliability" not in rows_of(measured[1])[0]


def test_the_lowest_error_is_the_best_and_reliability_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    experiment = read_experiment(changed(tmp_path / "tiny.toml", '["issue_f1"]', '["ece"], ["memory"]'))
    records = made_up(experiment, {("sym-20", "label-match", 0): 0.5, ("sym-20", "untrained", 0): 0.625})
    for record in records.values():
        record |= {"ece": record["issue_f1"], "memory": 1.234, "reliability": [[2.0, 0.5, 1.0], [1.0, 0.75, 1.0]]}
    write_tables(experiment, records, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| label-match | **50.0** |" in text and "| untrained | 62.5 |" in text and "| untrained | 1.23 |" in text
    pytest.importorskip("matplotlib", reason="plots are an extra")
    write_plots(experiment, records, tmp_path)
    assert {path.name for path in tmp_path.glob("*.svg")} == {"ece.svg", "memory.svg", "reliability.svg"}
    assert reliability(experiment, records)["untrained"] == [[2.0, 0.5, 1.0], [1.0, 0.75, 1.0]]


def test_noise_out_of_a_file(file: Path, tmp_path: Path) -> None:
    import labelsieve as ls
    from labelsieve.data.noise_files import write_noise
    from labelsieve.demo.run import write_sketches

    drawn = write_sketches(tmp_path / "drawings.parquet", count=48, seed=0)
    assert drawn.truth is not None
    noisy = ls.inject(drawn.with_labels(drawn.truth), kind="pair", rate=0.5, seed=9)
    write_noise(noisy, tmp_path / "noise.parquet", with_images=False)
    changed(changed(file, AS_DRAWN, ""), 'kind = "symmetric"\nrate = 0.25', 'kind = "file"\nfile = "nowhere.parquet"')
    changed(
        changed(file, "seeds = [0, 1]", "seeds = [0]"), 'source = "drawings"\nlimit = 48', 'source = "drawn.parquet"'
    )
    changed(file, "[data.drawings]", '[data.drawings]\ntruth_column = "clean_label"')
    places: dict[str, Any] = {"sources": {"drawings": str(tmp_path / "drawings.parquet")}, "tests": {}, "models": {}}
    with pytest.raises(DataError, match=r"nowhere\.parquet does not exist"):
        run_experiment(read_experiment(file).with_locations(**places), tmp_path / "out")
    placed = read_experiment(file).with_locations(**places, noises={"sym-20": str(tmp_path / "noise.parquet")})
    out = run_experiment(placed, tmp_path / "out")
    assert {record["noise_rate"] for record in lines_of(out)} == {0.5}
    assert {record["data_fingerprint"] for record in lines_of(out)} == {noisy.fingerprint}
    assert str(tmp_path) not in (out / EXPERIMENT).read_text()
    with pytest.raises(SettingsError, match="expected NAME in --noise NAME=PLACE to be one of sym-20, got other"):
        placed.with_locations(sources={}, tests={}, models={}, noises={"other": "x"})


# ------------------------------------------------------------------------------------------------ task adapt

TRAINED = """
title = "Tiny"
task = "adapt"
seeds = [0]
tables = [["test_accuracy"], ["used_rate", "used_clean"]]

[model]
mini = "bundled"

[data.drawings]
source = "drawings"
limit = 64
test = "drawings"
test_limit = 48

[noise.sym-40]
kind = "symmetric"
rate = 0.5

[method.no-phase-2]
detector = "label-match"
train_on = "nothing"

[method.all]
train_on = "all"
adapt = { tune = "linear", epochs = 0 }

[method.selected]
detector = "label-match"
adapt = { tune = "linear", epochs = 0 }

[method.relabelled]
detector = "label-match"
adapt = { tune = "linear", epochs = 0, labels = "relabel" }

[method.oracle]
train_on = "truth"
adapt = { tune = "linear", epochs = 0 }
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    file = tmp_path_factory.mktemp("adapt") / "tiny.toml"
    file.write_text(TRAINED)
    return file, run_experiment(read_experiment(file), file.parent / "results")


@pytest.mark.slow
def test_what_is_trained_on_is_what_the_method_says(trained: tuple[Path, Path]) -> None:
    found = {row["method"]: row for row in lines_of(trained[1])}
    assert (found["all"]["used_rate"], found["all"]["used_clean"]) == (1.0, 0.5)
    assert (found["oracle"]["used_rate"], found["oracle"]["used_clean"]) == (0.5, 1.0)
    assert 0.2 < found["selected"]["used_rate"] < 0.6 and found["selected"]["used_clean"] > 0.9
    assert found["oracle"]["test_accuracy"] > found["all"]["test_accuracy"] + 0.1


def test_a_classifier_is_what_adapt_gives(trained: tuple[Path, Path]) -> None:
    import labelsieve as ls
    from labelsieve.demo import MINI_CLIP

    folder = trained[1] / "runs"
    drawn = ls.load_images(folder / "drawings-64-0.parquet", label_column="clean_label")
    noisy = ls.inject(drawn, kind="symmetric", rate=0.5, seed=0)
    test = ls.load_images(folder / "drawings-48-1000000.parquet", label_column="clean_label")
    verdicts = ls.scan(noisy, ls.load_vlm(MINI_CLIP), detector=ls.LabelMatch(), seed=0)
    expected = ls.adapt(noisy, verdicts, settings=ls.Adaptation(tune="linear", epochs=0), test=test)
    rows = {row["method"]: row for row in lines_of(trained[1])}
    assert rows["selected"]["test_accuracy"] == expected.metrics["test"]["accuracy"]
    assert rows["selected"]["used_rate"] == pytest.approx(expected.record["selection"]["used"] / 64)
    # label-match flags where another class is predicted, so that all are trained with what is predicted
    assert rows["relabelled"]["used_rate"] == 1
    assert rows["relabelled"]["used_clean"] == pytest.approx((verdicts.predicted == noisy.truth).mean())


def test_without_phase_2_the_model_of_the_scan_is_tested(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import labelsieve as ls
    from labelsieve.demo import MINI_CLIP

    folder = trained[1] / "runs"
    noisy = ls.inject(
        ls.load_images(folder / "drawings-64-0.parquet", label_column="clean_label"),
        kind="symmetric",
        rate=0.5,
        seed=0,
    )
    test = ls.load_images(folder / "drawings-48-1000000.parquet", label_column="clean_label")
    found = ls.scan(noisy, ls.load_vlm(MINI_CLIP), detector=ls.LabelMatch(), test=test).record["test"]
    row = next(row for row in lines_of(trained[1]) if row["method"] == "no-phase-2")
    assert row["test_accuracy"] == found["accuracy"] and row["test_balanced_accuracy"] == found["balanced_accuracy"]
    assert row["used_rate"] is None and row["test_accuracy_start"] is None and row["seconds"] > 0
    assert row["test_fingerprint"] == test.fingerprint
    assert len(list(folder.glob("*/run.json"))) == 1, "the others with this detector go on from its scan"


@pytest.mark.slow
def test_a_probe_selects_what_it_has_small_losses_for(trained: tuple[Path, Path], tmp_path: Path) -> None:
    import labelsieve as ls
    from labelsieve.demo import MINI_CLIP

    settings = {"epochs": 2, "min_steps": 0, "head_init": "zeros", "head_learning_rate": 0.1}
    file = tmp_path / "tiny.toml"
    file.write_text(re.sub(r"\[method\.\S+\]\n(.+\n)+\n?", "", TRAINED).replace("rate = 0.5", "rate = 0.25"))
    told = ", ".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
    file.write_text(f'{file.read_text()}[method.turn]\ntrain_on = "probe"\nadapt = {{ tune = "bitfit", {told} }}\n')
    (row,) = lines_of(run_experiment(read_experiment(file), tmp_path / "out"))

    drawn = ls.load_images(trained[1] / "runs" / "drawings-64-0.parquet", label_column="clean_label")
    noisy = ls.inject(drawn, kind="symmetric", rate=0.25, seed=0)
    all_right = ls.scan(noisy.with_labels(noisy.labels, truth=None), ls.load_vlm(MINI_CLIP), detector=ls.LabelMatch())
    probe = ls.adapt(
        noisy,
        all_right,
        settings=ls.Adaptation(tune="linear", loss="gce", labels="all", **settings),  # type: ignore[arg-type]
    )
    with torch.no_grad():
        logits = probe.backbone.logits(probe.backbone.pixels([noisy.open(index) for index in range(64)]))
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(noisy.labels), reduction="none")
    kept = small_mean_posterior(losses.numpy()) > 0.5
    right = noisy.labels == noisy.truth
    assert row["used_rate"] == kept.mean() and row["used_clean"] == right[kept].mean()
    assert 0.3 < row["used_rate"] < 1 and row["used_clean"] > 0.85, "of 75 % right labels"
    assert row["test_accuracy"] > row["test_accuracy_start"] and row["test_accuracy_start"] < 0.2, "a head of its own"


@pytest.mark.slow
def test_a_classifier_is_trained_without_paying_for_a_test_of_the_scan(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(re.sub(r"\[method\.(all|oracle)\]\n(.+\n)+", "", TRAINED))  # those without a scan
    changed(file, 'train_on = "nothing"', 'adapt = { tune = "linear", epochs = 0, labels = "relabel" }\n')
    experiment = read_experiment(changed(file, "[method.relabelled]", "[method.again]"))
    out = run_experiment(experiment, tmp_path / "out")
    records = [json.loads(path.read_text()) for path in (out / "runs").glob("*/run.json")]
    assert [record["test"] for record in records] == [None]


TESTED = (
    TINY.replace("limit = 48", 'limit = 48\ntest = "drawings"\ntest_limit = 24')
    + """
[method.knn]
detector = "knn"
"""
)


@pytest.mark.slow
def test_a_scan_is_tested_where_there_are_test_images(
    measured: tuple[Experiment, Path], tmp_path: Path, file: Path
) -> None:
    import labelsieve as ls
    from labelsieve.demo import MINI_CLIP

    assert {row["test_accuracy"] for row in lines_of(measured[1])} == {None}
    scans = set((measured[1] / "runs").glob("*/run.json"))
    file.write_text(TESTED)
    changed(changed(file, "seeds = [0, 1]", "seeds = [0]"), AS_DRAWN, "")
    tested = run_experiment(
        read_experiment(changed(file, 'tables = [["clean_precision"', 'tables = [["test_accuracy", "clean_precision"')),
        tmp_path / "tested",
    )
    rows = {row["method"]: row for row in lines_of(tested)}
    drawn = ls.load_images(tested / "runs" / "drawings-48-0.parquet", label_column="clean_label")
    noisy = ls.inject(drawn, kind="symmetric", rate=0.25, seed=0)
    test = ls.load_images(tested / "runs" / "drawings-24-1000000.parquet", label_column="clean_label")
    for name, detector in (("label-match", ls.LabelMatch()), ("untrained", ls.DeFT(epochs=0))):
        verdicts = ls.scan(noisy, ls.load_vlm(MINI_CLIP), detector=detector, test=test)
        assert rows[name]["test_accuracy"] == verdicts.record["test"]["accuracy"]
        assert rows[name]["test_fingerprint"] == test.fingerprint
    assert rows["knn"]["test_accuracy"] is None, "which has no model to test"
    shown = (tested / "results.md").read_text()
    assert "## test accuracy / clean P / clean R" in shown and "| knn | \N{EN DASH} / " in shown
    names = {path.parent.name for path in scans}
    assert not names & {path.parent.name for path in (tested / "runs").glob("*/run.json")}, "which were not tested"


@pytest.mark.slow
def test_no_method_is_timed_with_reading_images(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, features = (importlib.import_module(f"labelsieve.{name}") for name in ("pipeline", "vlm.features"))
    scan, extract, scanning, read = scans.scan, features.extract, [False], list[bool]()

    def watched_scan(*given: Any, **more: Any) -> Any:
        scanning[0] = True
        try:
            return scan(*given, **more)
        finally:
            scanning[0] = False

    def watched_extract(*given: Any) -> None:
        read.append(scanning[0])
        extract(*given)

    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scans, "scan", watched_scan)
    monkeypatch.setattr(features, "extract", watched_extract)
    file.write_text(TESTED)
    changed(changed(file, "seeds = [0, 1]", "seeds = [0]"), AS_DRAWN, "")
    run_experiment(read_experiment(file), tmp_path / "out")
    assert read == [False, False], "once the images, and once those to test on"


@pytest.mark.slow
def test_a_scan_without_test_images_serves_methods_with_and_without(tmp_path: Path, mini_clip: Any) -> None:
    from labelsieve.bench.cell_inputs import CellInputs, scan_once
    from labelsieve.demo.run import write_sketches

    images = write_sketches(tmp_path / "d.parquet", count=16, seed=0)

    def given(**settings: Any) -> CellInputs:
        method = Method(detector="gmm", settings={"epochs": 1, "min_steps": 0, **settings})
        return CellInputs(
            method=method, images=images, vlm=mini_clip, seed=0, test=None, runs=tmp_path / "runs", progress=Progress()
        )

    assert scan_once(given(), tests=False)[1]
    assert not scan_once(given(), tests=True)[1], "without test images it is the same scan"
    assert scan_once(given(context_learns=False, peft="vpt-deep"), tests=False)[1]


def test_published_data_are_tested_on_their_own_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import labelsieve.bench.run as module

    write_cifar100(tmp_path / "cifar")
    file = tmp_path / "tiny.toml"
    file.write_text(
        TRAINED.replace(
            'source = "drawings"\nlimit = 64\ntest = "drawings"', 'source = "cifar100:A"\ntest_split = "test"'
        )
    )
    changed(file, "test_limit = 48", "")
    placed = read_experiment(file).with_locations(
        sources={"drawings": f"cifar100:{tmp_path / 'cifar'}"}, tests={}, models={}
    )
    seen: list[Any] = []

    def measure(shared: Any, *_: Any) -> dict[str, Any]:
        seen.extend([shared.images, shared.test])
        return {"key": "k"}

    monkeypatch.setattr(module, "_measure", measure)
    monkeypatch.setattr(module, "write_tables", lambda *_: None)
    run_experiment(placed, tmp_path / "out")
    assert [len(each) for each in seen[:2]] == [4, 2] and seen[1].labels.tolist() == FINE_TEST
    other = placed.with_locations(sources={}, tests={"drawings": f"cifar100:{tmp_path / 'elsewhere'}"}, models={})
    assert other.data["drawings"].test_source == f"cifar100:{tmp_path / 'elsewhere'}"
    cell = next(placed.cells())
    assert placed.key(cell) == other.key(cell) != read_experiment(changed(file, '"test"\n', '"train"\n')).key(cell)


def test_other_test_images_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from labelsieve.demo.run import write_sketches

    file = tmp_path / "tiny.toml"
    other = TRAINED.replace("[method.oracle]", "[method.other]").replace('"truth"', '"all"')
    file.write_text(f'{other.rstrip().removesuffix("}")}, class_weights = "balanced" }}\n')
    write_sketches(tmp_path / "other.parquet", count=48, seed=5)
    experiment = read_experiment(file).with_locations(
        sources={}, tests={"drawings": str(tmp_path / "other.parquet")}, models={}
    )
    with pytest.raises(RunError, match="measured with other test images; choose another --out"):
        run_experiment(experiment, trained[1])


WRONG_ADAPT_FILES = (
    ("epochs = 0 }\n\n[method.selected]", "epoch = 0 }\n\n[method.selected]", "adapt has no setting epoch"),
    ('tune = "linear"', 'tune = "liner"', 'got liner (did you mean "linear"?)'),
    ('tune = "linear"', 'recipe = "papr"', 'got papr (did you mean "paper"?)'),
    ('train_on = "truth"', 'train_on = "truth"\ndetector = "gmm"', "train_on truth takes no detector"),
    ('detector = "label-match"\nadapt', "adapt", 'expected a detector, or train_on = "all", "probe"'),
    ('detector = "label-match"\ntrain_on', "train_on", "expected a detector, found none"),
    ('"label-match"\ntrain_on', '"knn"\ntrain_on', "detector knn has no model that could be tested"),
    ('train_on = "nothing"', 'train_on = "nothing"\nbackbone = "x"', "train_on nothing trains no backbone"),
    ('test = "drawings"', "", "expected test images to measure a classifier on, found none"),
)


def test_wrong_adapt_files(subtests: pytest.Subtests, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.toml"
    for number, (old, new, message) in enumerate(WRONG_ADAPT_FILES):
        with subtests.test(message):
            file.write_text(TRAINED)
            changed(file, old, new)
            code = main(["bench", str(file), "--out", str(tmp_path / str(number))])
            lines = capsys.readouterr().err.strip().splitlines()
            assert code == 1 and len(lines) == 1 and message in lines[0]


# ------------------------------------------------------------------------------------------------ never twice


def test_nothing_is_measured_twice(measured: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import labelsieve.bench.run as module

    experiment, folder = measured
    before = (folder / CELLS).read_bytes(), (folder / "results.md").read_bytes()
    monkeypatch.setattr(module, "load_vlm", lambda *_: pytest.fail("a model was loaded"))
    run_experiment(experiment, folder)
    assert before == ((folder / CELLS).read_bytes(), (folder / "results.md").read_bytes())


def test_it_goes_on_where_it_stopped(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import labelsieve.bench.tasks as module

    experiment, out = read_experiment(changed(file, "seeds = [0, 1]", "seeds = [3]")), tmp_path / "out"
    real, calls = module.Detect.measure, []

    def measure(self: Any, given: Any) -> dict[str, Any]:
        calls.append(given.method.detector)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, given)

    monkeypatch.setattr(module.Detect, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, out)
    assert len(lines_of(out)) == 2 and "2 of 4 cells" in (out / "results.md").read_text()
    with (out / CELLS).open("a") as text:
        text.write('{"key": "cut o')  # the power went out here
    run_experiment(experiment, out)
    assert len(calls) == 5 and len(rows_of(out)) == 4
    assert len(Store.open(out, name="tiny").read()) == 4


def _die() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_an_epoch(real: Any = BatchSource.epoch) -> None:
    def epoch(feed: BatchSource, number: int) -> Iterator[Any]:
        yield from (_die() if number == 2 else each for each in real(feed, number))

    BatchSource.epoch = epoch  # type: ignore[assignment, method-assign]


def die_before_the_cell_is_kept(real: Any = Store.add) -> None:
    def add(store: Store, record: Mapping[str, Any]) -> Mapping[str, Any]:
        return _die() if record["method"] == "trained" else real(store, record)  # type: ignore[no-any-return]

    Store.add = add  # type: ignore[assignment, method-assign]


# What a clock or the memory tells may differ between two runs, and nothing else.
DIFFERS = {"seconds", "memory", "device_memory", "wall_seconds", "created"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows kills in another way")
def test_a_run_that_was_killed_ends_as_an_unbroken_one(file: Path, tmp_path: Path) -> None:
    text = changed(changed(file, "seeds = [0, 1]", "seeds = [3]"), AS_DRAWN, "").read_text().replace("48", "24")
    text = text[: text.index("[method.untrained]")]
    trained = 'detector = "deft"\nsettings = { peft = "vpt-deep", epochs = 2, min_steps = 0, batch_size = 12 }'
    file.write_text(f'{text}\n[method.trained]\n{trained}\n\n[method.knn]\ndetector = "knn"\n')
    experiment, broken, whole = read_experiment(file), tmp_path / "broken", tmp_path / "whole"
    for death in (die_in_an_epoch, die_before_the_cell_is_kept):
        with Command(["bench", file, "--out", broken], setup=f"{__name__}:{death.__name__}") as child:
            said = child.communicate()
        assert child.returncode == -signal.SIGKILL, said
        assert len(lines_of(broken)) == 1  # the cell before it
    for folder in (broken, whole):
        run_experiment(experiment, folder)
    for read in (rows_of, lines_of):
        found = [[{k: v for k, v in row.items() if k not in DIFFERS} for row in read(out)] for out in (broken, whole)]
        assert found[0] == found[1] and len(found[0]) == 3
    assert (broken / "results.md").read_text() == (whole / "results.md").read_text()


def test_a_last_line_without_an_end_is_kept_if_it_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.begin({"name": "tiny"})
    store.add({"key": "one"})
    cells = tmp_path / "out" / CELLS
    whole = cells.read_bytes()
    for more, kept in ((b'{"key": "two"}', b'{"key": "two"}\n'), (b'{"key": "tw', b"")):
        cells.write_bytes(whole + more)
        store.begin({"name": "tiny"})
        assert cells.read_bytes() == whole + kept


@pytest.mark.slow
def test_more_seeds_and_methods_only_add(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    untrained = file.read_text()[file.read_text().index("[method.untrained]") :]
    changed(changed(file, "seeds = [0, 1]", "seeds = [0]"), AS_DRAWN, "")
    run_experiment(read_experiment(changed(file, untrained, "")), out)
    before = lines_of(out)
    more = changed(file, "seeds = [0]", "seeds = [0, 2]")
    more.write_text(more.read_text() + untrained)
    run_experiment(read_experiment(more), out)
    after = lines_of(out)
    assert after[: len(before)] == before and (len(before), len(after)) == (1, 4)


def test_the_same_scan_is_made_once_and_a_damaged_one_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, runs = importlib.import_module("labelsieve.pipeline"), tmp_path / "out" / "runs"
    changed(changed(file, "seeds = [0, 1]", "seeds = [0]"), AS_DRAWN, "")
    changed(file, '[method.untrained]\ndetector = "deft"\nsettings = { epochs = 0, evidence = "threshold" }', "")
    real, scans = module.scan, list[Path]()

    def scan(*given: Any, **more: Any) -> Any:
        scans.append(more["out"])
        return real(*given, **more)

    monkeypatch.setattr(module, "scan", scan)
    run_experiment(read_experiment(file), tmp_path / "out")
    assert len(scans) == 1
    (tmp_path / "out" / CELLS).unlink()
    run_experiment(read_experiment(file), tmp_path / "out")
    assert len(scans) == 1, "the verdicts are kept"
    (tmp_path / "out" / CELLS).unlink()
    (scans[0] / "verdicts.parquet").write_bytes(b"cut o")
    run_experiment(read_experiment(file), tmp_path / "out")
    assert scans == [scans[0]] * 2 and [path for path in runs.iterdir() if path.is_dir()] == [scans[0]]


@pytest.mark.slow
def test_where_the_data_lie_does_not_matter_but_what_they_are(file: Path, tmp_path: Path) -> None:
    from labelsieve.demo.run import write_sketches

    text = file.read_text().replace('source = "drawings"', 'source = "photos.parquet"\ntruth_column = "clean_label"')
    file.write_text(text.replace("seeds = [0, 1]", "seeds = [0]").replace(AS_DRAWN, ""))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_sketches(tmp_path / f"{name}.parquet", count=48, seed=seed)

    def at(name: str) -> Experiment:
        return read_experiment(file).with_locations(
            sources={"drawings": str(tmp_path / f"{name}.parquet")}, tests={}, models={}
        )

    out = tmp_path / "out"
    run_experiment(at("a"), out)
    (out / CELLS).write_text("".join((out / CELLS).read_text().splitlines(keepends=True)[:1]))
    run_experiment(at("b"), out)
    assert len(lines_of(out)) == 2
    kept = (out / EXPERIMENT).read_text()
    assert json.loads(kept)["data"]["drawings"]["source"] == "b.parquet" and str(tmp_path) not in kept
    (out / CELLS).write_text("".join((out / CELLS).read_text().splitlines(keepends=True)[:1]))
    with pytest.raises(RunError, match="measured with other images; choose another --out"):
        run_experiment(at("c"), out)


def test_keys_tell_apart_what_gives_other_numbers(file: Path) -> None:
    experiment = read_experiment(file)
    cell = Cell("mini", "drawings", "sym-20", "untrained", 0)
    keys = {experiment.key(cell)}
    for old, new in (
        ("limit = 48", "limit = 50"),
        ("rate = 0.25", "rate = 0.3"),
        ("epochs = 0", "epochs = 1"),
        ('detector = "deft"', 'detector = "deft"\nrecipe = "paper"'),
    ):
        file.write_text(TINY)
        keys.add(read_experiment(changed(file, old, new)).key(cell))
    keys.add(experiment.key(cell._replace(seed=1)))
    assert len(keys) == 6


def with_other_defaults(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    from labelsieve.detect.deft.detector import RECIPES

    monkeypatch.setitem(RECIPES, "default", replace(RECIPES["default"], **changes))


@pytest.mark.slow
def test_cells_of_other_defaults_are_measured_again_and_told(
    measured: tuple[Experiment, Path],
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, str, str]],
) -> None:
    changed(changed(file, "seeds = [0, 1]", "seeds = [0]"), AS_DRAWN, "")
    out = Path(shutil.copytree(measured[1], tmp_path / "out"))
    (out / CELLS).write_text("".join((out / CELLS).read_text().splitlines(keepends=True)[:2]))
    assert run("bench", file, "--out", out)[0] == 0 and len(lines_of(out)) == 2
    before = lines_of(out)
    assert json.loads(before[1]["resolved"])["momentum"] == 0.9 and before[1]["method"] == "untrained"
    with_other_defaults(monkeypatch, momentum=0.5)
    said = (
        "1 of 2 cells were measured with other defaults and count as missing (untrained: momentum was 0.9 and is 0.5)"
    )
    code, shown, _ = run("bench", file, "--out", out, "--dry-run")
    assert code == 0 and said in shown and "done     mini  drawings  sym-20  label-match" in shown
    assert "1 of 2 cells are missing" in shown
    code, shown, _ = run("bench", file, "--out", out)
    assert code == 0 and sum(said in line for line in shown.splitlines()) == 1
    after = lines_of(out)
    assert after[:2] == before and [record["method"] for record in after[2:]] == ["untrained"], "nothing is lost"
    assert json.loads(after[2]["resolved"])["momentum"] == 0.5
    assert json.loads(rows_of(out)[1]["resolved"])["momentum"] == 0.5
    code, shown, _ = run("bench", file, "--out", out)
    assert code == 0 and "other defaults" not in shown and lines_of(out) == after


def test_cells_of_other_defaults_of_phase_2_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelsieve.finetune.settings import RECIPES

    (tmp_path / "tiny.toml").write_text(TRAINED)
    experiment = read_experiment(tmp_path / "tiny.toml")
    records = {
        experiment.key(cell): {"resolved": to_json(TASKS["adapt"]().resolved(experiment.method[cell.method]))}
        for cell in experiment.cells()
    }
    assert without_changed_defaults(experiment, records) == records
    monkeypatch.setitem(RECIPES, "default", replace(RECIPES["default"], drop_at=0.25))
    kept = without_changed_defaults(experiment, records)
    left = [cell.method for cell in experiment.cells() if experiment.key(cell) in kept]
    assert left == ["no-phase-2"], "on which phase 2 has no effect"


def test_what_a_cell_does_not_tell_is_no_change(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = read_experiment(changed(file, "{ epochs = 0,", "{ epochs = 0, momentum = 0.25,"))
    method, key = experiment.method["untrained"], experiment.key(Cell("mini", "drawings", "sym-20", "untrained", 0))
    told = TASKS["detect"]().resolved(method)
    without = {name: value for name, value in told.items() if name not in ("weight_decay", "negative_weight")}
    known = [
        {},  # of before cells told it
        {"resolved": "cut o"},
        {"resolved": "[]"},
        {"resolved": to_json(told)},
        {"resolved": to_json(without)},  # settings that came later
        {"resolved": to_json({**told, "gone": 1})},
    ]
    with_other_defaults(monkeypatch, momentum=0.5)
    assert [key in without_changed_defaults(experiment, {key: record}) for record in known] == [True] * len(known)
    assert without_changed_defaults(experiment, {key: {"resolved": to_json({**told, "bottleneck": 4})}}) == {}


def test_a_rate_that_is_told_is_the_same_setting_at_each_rate() -> None:
    method = Method(detector="small-loss", settings={"noise_rate": "true"})
    assert TASKS["detect"]().resolved(method)["noise_rate"] == "true"
    assert vars(method.make_detector(noise_rate=0.125))["noise_rate"] == 0.125


def test_two_processes_do_not_measure_into_one_folder(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    out = tmp_path / "out"
    changed(changed(file, "seeds = [0, 1]", "seeds = [0]"), AS_DRAWN, "")
    out.mkdir()
    with locked(out), pytest.raises(RunError, match=r"another process is writing to .* wait"):
        run_experiment(read_experiment(file), out)
    assert list(out.iterdir()) == []
    run_experiment(read_experiment(file), out)
    assert len(lines_of(out)) == 2


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_not_gone_on_from(file: Path, tmp_path: Path) -> None:
    from labelsieve.detect.training.learner import BatchSource

    changed(changed(file, "seeds = [0, 1]", "seeds = [0]"), AS_DRAWN, "")
    changed(file, "epochs = 0", "epochs = 3, min_steps = 0")
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, BatchSource, "epoch", epoch=2, batch=0)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(read_experiment(file), tmp_path / "out")
    (state,) = (tmp_path / "out" / "runs").glob("*/checkpoint/*")
    state.write_bytes(b"cut o")
    run_experiment(read_experiment(file), tmp_path / "out")
    assert [record["method"] for record in lines_of(tmp_path / "out")] == ["label-match", "untrained"]


# ------------------------------------------------------------------------------------------------ bad input


WRONG_FILES = (
    ("seeds = [0, 1]", "seads = [0, 1]", 'an experiment has no setting seads (did you mean "seeds"?)'),
    ("rate = 0.25", "rat = 0.25", '[noise.sym-20]: it has no setting rat (did you mean "rate"?)'),
    ("rate = 0.25", "rate = 25", "from 0 to below 1, got 25; a share, such as 0.1 for 10 %"),
    ("rate = 0.25", 'rate = "much"', "[noise.sym-20]: expected rate to be of type float, got 'much'"),
    ('kind = "given"', 'kind = "given"\nrate = 0.1', "[noise.as-drawn]: kind given takes no rate"),
    ('kind = "symmetric"', 'kind = "symetric"', 'got symetric (did you mean "symmetric"?)'),
    ("limit = 48", "limit = 4.5", "[data.drawings]: expected limit to be of type int, got 4.5"),
    ("limit = 48", "limit = true", "[data.drawings]: expected limit to be of type int, got True"),
    ('source = "drawings"', "", "[data.drawings]: expected source, found none"),
    ("epochs = 0", "epoch = 0", '[method.untrained]: detector deft has no setting epoch (did you mean "epochs"?)'),
    ("epochs = 0", "epochs = -1", "[method.untrained]: expected epochs from 0 to 1,000, got -1"),
    ('detector = "deft"', 'detector = "deaft"', 'got deaft (did you mean "deft"?)'),
    ('detector = "deft"', 'recipe = "default"', "[method.untrained]: expected a detector, found none"),
    ('detector = "deft"', 'detector = "deft"\nrecipe = "papr"', 'got papr (did you mean "paper"?)'),
    ('detector = "deft"', 'detector = "deft"\ntrain_on = "all"', "go with task adapt only"),
    ('task = "detect"', 'task = "detekt"', 'got detekt (did you mean "detect"?)'),
    ("rate = 0.25", 'rate = 0.25\nfile = "a.parquet"', "with kind file and with no other, got kind symmetric"),
    ('kind = "given"', 'kind = "file"', 'expected file = "..." with kind file and with no other, got kind file'),
    (
        "limit = 48",
        'limit = 48\ntest_split = "test"',
        "[data.drawings]: `drawings` have no splits; leave test_split out",
    ),
    ("[model]", "[defaults.metod]\nx = 1\n\n[model]", 'defaults has no setting metod (did you mean "method"?)'),
    ("[model]", "[defaults.noise]\nrat = 1\n\n[model]", '[noise.sym-20]: it has no setting rat (did you mean "rate"?)'),
    ("[model]", "[published]\nsource = 'A'\n\n[model]", "[published]: expected metrics, found none"),
    ("[model]", PUBLISHED.replace("untrained =", "untraind ="), 'got untraind (did you mean "untrained"?)'),
    ("[model]", PUBLISHED.replace("drawings]", "drawing]"), 'got drawing (did you mean "drawings"?)'),
    ("[model]", PUBLISHED.replace("sym-20 =", "sym ="), "got sym"),
    (
        "[model]",
        PUBLISHED.replace("97.5]", "975]"),
        "numbers in percent, from 0 to 100, for drawings, sym-20, untrained",
    ),
    (
        "[model]",
        PUBLISHED.replace(", 97.5]", "]"),
        "expected 2 numbers, one for each of clean_precision, clean_recall, got 1",
    ),
    ("[model]", PUBLISHED.replace('"clean_recall"', '"clean_recal"'), 'got clean_recal (did you mean "clean_recall"?)'),
    ("[model]", PUBLISHED + '\nother = "bundled"', "expected one model beside published numbers, got 2"),
    ("[model]", RIVAL.replace('["bystander"]', '["untrained"]'), "names methods that are measured here, untrained;"),
    ("[model]", RIVAL.replace('["bystander"]', '"bystander"'), "expected only_published to be a list of names of"),
    ("[model]", RIVAL.replace('["bystander"]', "[5]"), "expected only_published to be a list of names of methods"),
    ("[model]", RIVAL.replace('["bystander"]', '["bystandr"]'), 'got bystander (did you mean "bystandr"?)'),
    ('["issue_f1"]', '["issue_f2"]', 'got issue_f2 (did you mean "issue_f1"?)'),
    ("seeds = [0, 1]", "seeds = [0, 0]", "expected different seeds, got 0, 0"),
    (
        "seeds = [0, 1]",
        'seeds = [0, 1000000]\ndefaults = { data = { test = "drawings" } }',
        "expected seeds other than 1000000, that of the test images of [data.drawings], got 0, 1000000",
    ),
    ("seeds = [0, 1]", "seeds = []", "expected seeds to be a list of integers, got []"),
    ('title = "Tiny"', "", "expected title, found none"),
    ('title = "Tiny"', "title = 5", "expected title to be a text, got 5"),
    ("limit = 48", "limit = 0", "[data.drawings]: expected limit from 1 to 1,000,000,000, got 0"),
    ("limit = 48", "limit = 1000000", "[data.drawings]: expected limit from 1 to 20,000, got 1000000"),
    ("seeds = [0, 1]", "seeds = [0, 9223372036854775808]", "expected each of seeds from 0 to below 2^63, got 9"),
    ("limit = 48", "test_limit = -3", "[data.drawings]: expected test_limit from 1 to 1,000,000,000, got -3"),
    ('source = "drawings"', 'source = ""', '[data.drawings]: expected source to say where images lie, got ""'),
    ('mini = "bundled"', 'mini = ""', "expected model.mini to be a Hub id, a folder or bundled, got ''"),
    ("rate = 0.25", "", "[noise.sym-20]: expected rate, found none"),
    ('detector = "label-match"', 'detector = "label-match"\nrecipe = "paper"', "recipe goes with detector deft only"),
    (
        'detector = "label-match"',
        'detector = "label-match"\nsettings = { x = 1 }',
        "detector label-match has no setting x; it has none",
    ),
    ("epochs = 0", 'epochs = "true"', "[method.untrained]: expected epochs to be of type int, got 'true'"),
    ("[model]", "[defaults]\nmethod = 1\n\n[model]", "expected a table [defaults.method], got 1"),
    ("[model]", PUBLISHED.replace('"clean_recall"', '"seconds"'), "one of clean_precision,"),
    ('mini = "bundled"', "mini = 5", "expected model.mini to be a Hub id, a folder or bundled, got 5"),
    ("[model]", "[model", "is not TOML"),
)


def test_wrong_files(subtests: pytest.Subtests, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (old, new, message) in enumerate(WRONG_FILES):
        with subtests.test(message):
            file.write_text(TINY)
            changed(file, old, new)
            out = file.with_name(f"out-{number}")
            code = main(["bench", str(file), "--out", str(out)])
            lines = capsys.readouterr().err.strip().splitlines()
            assert code == 1 and len(lines) == 1 and message in lines[0] and str(file) in lines[0]
            assert not out.exists()


def test_no_such_experiment(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'got phase2 \(did you mean "phase1"\?\)'):
        read_experiment("phase2")


def test_the_folder_of_another_experiment(measured: tuple[Experiment, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(TINY)
    with pytest.raises(RunError, match=r"holds the results of tiny, not of other; choose another --out"):
        run_experiment(read_experiment(other), measured[1])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    with pytest.raises(RunError, match="holds other files"):
        run_experiment(read_experiment(other), tmp_path / "photos")
    with pytest.raises(RunError, match="is a file"):
        run_experiment(read_experiment(other), other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "drawing=a.parquet"], 'got drawing (did you mean "drawings"?)'),
        (["--model", "mini"], "expected --model NAME=PLACE, got mini"),
        (["--noise", "sym-20=a"], "--noise goes with noises of kind file, tiny has none; leave it out"),
        (["--model", "mini=a", "mini=b"], "expected one place for mini in --model, got a and b"),
        (["--test", "photos=b.parquet"], "expected NAME in --test NAME=PLACE to be one of drawings, got photos"),
    ],
)
def test_wrong_places(file: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(file), "--out", str(file.parent / "out"), *words]) == 1
    assert message in capsys.readouterr().err


def test_a_cell_that_fails_says_which_and_keeps_those_before_it(file: Path, tmp_path: Path) -> None:
    changed(changed(file, "{ epochs = 0,", "{ context_tokens = 200,"), "seeds = [0, 1]", "seeds = [4]")
    with pytest.raises(ModelError, match=r"^untrained on drawings, sym-20, mini, seed 4: .*no room for a class name"):
        run_experiment(read_experiment(file), tmp_path / "out")
    assert [record["method"] for record in lines_of(tmp_path / "out")] == ["label-match"]
    assert "1 of 4 cells" in (tmp_path / "out" / "results.md").read_text()


def test_data_that_are_not_there_are_told(file: Path, tmp_path: Path) -> None:
    changed(file, 'source = "drawings"', f'source = "{tmp_path / "nowhere.parquet"}"')
    with pytest.raises(DataError, match=r"nowhere\.parquet does not exist"):
        run_experiment(read_experiment(file), tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[data.photos]\nsource = "PLACE/nowhere.parquet"', "nowhere.parquet does not exist"),
        ('[data.photos]\nsource = "drawings"\ntest = "PLACE/nowhere.parquet"', "nowhere.parquet does not exist"),
    ],
)
def test_a_wrong_place_is_told_before_anything_is_measured(file: Path, tmp_path: Path, more: str, said: str) -> None:
    file.write_text(f"{file.read_text()}\n{more.replace('PLACE', str(tmp_path))}\n")
    with pytest.raises(LabelsieveError, match=re.escape(said)):
        run_experiment(read_experiment(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "[noise.sym-40]",
            '[data.more]\nsource = "drawings"\n\n[noise.sym-40]',
            "[data.more]: expected test images to measure a classifier on, found none; name them: test = ...",
        ),
        ('train_on = "truth"', 'train_on = "truth"\nbackbone = "PLACE"', "config.json"),
    ],
)
def test_what_a_classifier_lacks_is_told_before_anything_is_measured(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TRAINED)
    changed(file, old, new.replace("PLACE", str(tmp_path)))
    with pytest.raises(LabelsieveError, match=re.escape(said)):
        run_experiment(read_experiment(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_noise_of_other_images_is_told_before_anything_is_measured(file: Path, tmp_path: Path) -> None:
    from labelsieve.data.noise_files import write_noise
    from labelsieve.demo.run import write_sketches

    for name, seed in (("these", 0), ("others", 1)):
        write_sketches(tmp_path / f"{name}.parquet", count=48, seed=seed)
    write_noise(write_sketches(tmp_path / "d.parquet", count=48, seed=1), tmp_path / "noise.parquet", with_images=False)
    changed(file, AS_DRAWN, f'[noise.file]\nkind = "file"\nfile = "{tmp_path / "noise.parquet"}"\n')
    changed(file, 'source = "drawings"', f'source = "{tmp_path / "these.parquet"}"\ntruth_column = "clean_label"')
    with pytest.raises(DataError, match="belongs to other images"):
        run_experiment(read_experiment(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there_is_told_before_anything_is_measured(file: Path, tmp_path: Path) -> None:
    experiment = read_experiment(file).with_locations(sources={}, tests={}, models={"mini": str(tmp_path)})
    with pytest.raises(ModelError, match=r"config\.json"):
        run_experiment(experiment, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ command line


def test_control_c_says_how_to_go_on(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import labelsieve.bench.tasks as module

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Detect, "measure", stop)
    out = str(file.parent / "out")
    assert main(["bench", str(file), "--out", out]) == 1
    assert f"stopped; to go on: labelsieve bench {file} --out {out}" in capsys.readouterr().err


def test_dry_run_lists_cells(
    measured: tuple[Experiment, Path], file: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = run("bench", file, "--out", file.parent / "new", "--dry-run")
    lines = [line for line in out.splitlines() if line.startswith("missing  mini  drawings")]
    assert code == 0 and len(lines) == 8 and all(re.search(r": about \d+ s, \d\.\d GB$", line) for line in lines)
    assert re.search(r"^8 of 8 cells are missing: about \d+ s, \d\.\d GB$", out, re.MULTILINE)
    assert not (file.parent / "new").exists()
    code, out, _ = run("bench", file, "--out", measured[1], "--dry-run")
    assert code == 0 and out.count("done   ") == 8 and "0 of 8 cells are missing\n" in out and "about" not in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('source = "drawings"', 'source = "nowhere.parquet"', "say where it lies with --source drawings=PLACE"),
        ("limit = 48", 'test = "cifar10:nowhere"', "say where it lies with --test drawings=PLACE"),
        ('mini = "bundled"', 'mini = "openai/none-such"', "say where it lies with --model mini=PLACE"),
        ('mini = "bundled"', 'mini = "open_clip:a/b"', "say where it lies with --model mini=PLACE"),
        ('mini = "bundled"', 'mini = "/nowhere"', "say where it lies with --model mini=PLACE"),
        ('kind = "given"', 'kind = "file"\nfile = "none.parquet"', "say where it lies with --noise as-drawn=PLACE"),
    ],
)
def test_without_data_or_model_there_is_no_estimate_but_a_list(
    old: str, new: str, said: str, file: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = run("bench", changed(file, old, new), "--out", file.parent / "new", "--dry-run")
    assert code == 0 and "8 of 8 cells are missing\n" in out
    (line,) = [line for line in out.splitlines() if line.startswith("no estimate of time and memory: ")]
    assert "is not on this machine" in line and said in line


def test_images_that_cannot_be_read_are_no_failure_of_a_method(
    file: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    (file.parent / "empty").mkdir()
    changed(file, 'source = "drawings"', f'source = "{file.parent / "empty"}"')
    code, out, _ = run("bench", file, "--out", file.parent / "new", "--dry-run")
    assert code == 0 and "8 of 8 cells are missing\n" in out and "no estimate of time and memory: " in out


def trial_of(text: str, tmp_path: Path) -> tuple[estimating._Trial, Experiment]:
    (tmp_path / "tiny.toml").write_text(text)
    experiment = read_experiment(tmp_path / "tiny.toml")
    return estimating._Trial(experiment, next(experiment.cells()), tmp_path / "trial"), experiment


@pytest.mark.parametrize(("alone", "size"), [(2.0, 64), (0.1, 64), (2.0, 16)])
def test_time_is_carried_on_along_steps_and_images(
    alone: float, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(_self: Any, _method: Any, images: Any, epochs: int, *, name: str) -> float:
        return 100.0 if name == "warm" else alone + 0.5 * epochs * -(-len(images) // size) + 0.01 * len(images)

    monkeypatch.setattr(estimating._Trial, "_run", seconds)
    monkeypatch.setattr(estimating._Trial, "subset", lambda _self, count: range(count))
    text = TINY.replace("epochs = 0", f"epochs = 10, batch_size = {size}").replace("limit = 48", "limit = 900")
    trial, experiment = trial_of(text, tmp_path)
    parts = trial._fit_time_model(experiment.method["untrained"], trained=True)
    assert tuple(parts) == pytest.approx((alone, 0.5, 0.01))
    assert parts.predict(steps=150, images=900) == pytest.approx(alone + 75 + 9)
    at_once = trial._fit_time_model(experiment.method["label-match"], trained=False)
    assert at_once.b == 0 and at_once.predict(steps=0, images=64) == pytest.approx(alone + 32 / size + 0.64)


@pytest.mark.parametrize(
    ("text", "method", "expected"),
    [
        # ten epochs of 900 images in batches of 64, and 300 steps at least where nothing else is said
        (TINY.replace("epochs = 0", "min_steps = 0"), "untrained", 150),
        (TINY.replace("epochs = 0", "epochs = 10, batch_size = 64"), "untrained", 300),
        (TINY, "label-match", 0),
        (TRAINED.replace("limit = 64", "limit = 900"), "all", 0),
        (
            TRAINED.replace("limit = 64", "limit = 900").replace("epochs = 0", "epochs = 2, min_steps = 0"),
            "selected",
            30,
        ),
        (TRAINED.replace("limit = 64", "limit = 900").replace("epochs = 0", "epochs = 2"), "oracle", 300),
    ],
)
def test_steps_of_a_cell(
    text: str, method: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating._Trial, "_fit_time_model", lambda *_, **__: estimating.TimeModel(0, 1, 0))
    trial, experiment = trial_of(text.replace("limit = 48\n\n[n", "limit = 900\n\n[n"), tmp_path)
    cost = trial.cost(experiment.method[method])
    assert cost is not None and cost.seconds == expected


def test_a_method_that_cannot_be_tried_is_told(file: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    changed(file, "{ epochs = 0,", "{ context_tokens = 200,")
    code, out, _ = run("bench", file, "--out", file.parent / "new", "--dry-run")
    assert code == 0 and re.search(r"8 of 8 cells are missing: about .* and 4 that could not be tried", out)


@pytest.mark.slow
def test_estimate_of_a_cell_that_trains_a_classifier(trained: tuple[Path, Path]) -> None:
    experiment = read_experiment(trained[0])
    cells = [cell for cell in experiment.cells() if cell.method == "selected"]  # a scan, and a training after it
    costs = estimating.estimate(experiment, cells, progress=Progress())
    assert list(costs) == cells and len(cells) == 1
    for cost in costs.values():
        assert cost is not None and 0 < cost.seconds < 60 and 0.05 < cost.memory < 50


def test_the_command_prints_the_tables(
    measured: tuple[Experiment, Path], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(file), "--out", str(measured[1])]) == 0
    out = capsys.readouterr().out
    assert "| untrained |" in out and "results.md" in out


def test_without_matplotlib_there_are_no_plots(
    measured: tuple[Experiment, Path], file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("labelsieve.bench.plots.find_spec", lambda _name: None)
    (measured[1] / "issue_f1.svg").rename(file.parent / "issue_f1.svg")
    try:
        assert main(["bench", str(file), "--out", str(measured[1])]) == 0
        assert not list(measured[1].glob("*.svg"))
    finally:
        (file.parent / "issue_f1.svg").rename(measured[1] / "issue_f1.svg")
    assert 'no plots: they need matplotlib; pip install "labelsieve[bench]"' in capsys.readouterr().out


# Every experiment that comes with the package, and how many cells it has.
SHIPPED = {
    "ablation": 126,
    "boxes": 60,
    "calibration": 96,
    "cifar10n/ablation": 63,
    "cifar10n/calibration": 72,
    "cifar10n/table8": 15,
    "cifar10n/table9": 36,
    "cost": 99,
    "human": 108,
    "models": 168,
    "modules": 108,
    "paper/figure1": 72,
    "paper/figure3": 108,
    "paper/figure4": 60,
    "paper/table1": 216,
    "paper/table10": 360,
    "paper/table2": 360,
    "paper/table3": 54,
    "paper/table4": 60,
    "paper/table5": 216,
    "paper/table6": 72,
    "paper/table7": 216,
    "paper/table8": 15,
    "paper/table9": 36,
    "peft": 150,
    "phase1": 252,
    "photos": 600,
    "photos-full": 72,
    "prompts-cifar100": 48,
    "prompts-modules": 81,
    "prompts-modules-cifar100": 24,
    "prompts-strong": 72,
    "strong": 2001,
    "strong-few": 1080,
    "strong-sketches": 435,
    "tags": 45,
    "weak": 441,
    "whole": 135,
}


def test_all_shipped_experiments_are_counted() -> None:
    assert {name: len(list(read_experiment(name).cells())) for name in shipped()} == SHIPPED
    files = list(Path(labelsieve.bench.__file__).parent.rglob("*.toml"))
    assert len(files) == len(SHIPPED), "a file lies where no experiment is found"


def test_shipped_experiments_are_valid(subtests: pytest.Subtests) -> None:
    for name, file in shipped().items():
        with subtests.test(name):
            experiment = read_experiment(name)
            assert experiment.name == name and len(experiment.seeds) >= 3
            text = file.read_text()
            assert f"labelsieve bench {name} --out" in text, "the head of the file says how it is run"
            assert len({experiment.key(cell) for cell in experiment.cells()}) == len(list(experiment.cells()))


@pytest.mark.parametrize(
    ("told", "peft"),
    [({}, "none"), ({"settings": {"peft": "auto"}}, "auto"), ({"recipe": "paper"}, "vpt-deep")],
)
def test_what_a_method_is_does_not_depend_on_how_fast_the_machine_is(told: dict[str, Any], peft: str) -> None:
    assert Method(detector="deft", **told).make_detector(noise_rate=0.1).peft == peft


def test_a_file_takes_from_what_it_extends_all_that_it_does_not_say(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "paper/table8"\ntitle = "Mine"\n[data.mine]\nsource = "mine.parquet"\n')
    mine, base = read_experiment(file), read_experiment("paper/table8")
    assert (mine.name, mine.title, set(mine.data), mine.published) == ("mine", "Mine", {"mine"}, None)
    assert base.published is not None, "which are of other data"
    assert (mine.method, mine.model, mine.tables, mine.seeds) == (base.method, base.model, base.tables, base.seeds)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("paper/table88", r'got paper/table88 \(did you mean "paper/table8"\?\)'),
        ("cifar10n/table8", "cifar10n/table8 extends paper/table8; extend that one"),
    ],
)
def test_what_cannot_be_extended(name: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'extends = "{name}"\n')
    with pytest.raises(SettingsError, match=said) as caught:
        read_experiment(file)
    assert "\n" not in str(caught.value)


def published_sources() -> set[tuple[str, str | None, str | None]]:
    """Returns the published data sets of all shipped experiments, with their splits to train and to test on."""
    every = (data for name in shipped() for data in read_experiment(name).data.values())
    return {(data.source.partition(":")[0], data.split, data.test_split) for data in every if ":" in data.source}


def test_splits_of_shipped_experiments_are_there_and_have_the_same_classes(
    subtests: pytest.Subtests, tmp_path: Path
) -> None:
    for number, (source, split, test_split) in enumerate(sorted(published_sources(), key=str)):
        with subtests.test(source=source, split=split, test_split=test_split):
            folder = tmp_path / str(number)
            folder.mkdir()
            REPLICAS[source].write(folder)
            data = Data(source=f"{source}:{folder}", split=split, test_split=test_split)
            images = load_data(data, seed=0)
            if test_split is not None:
                assert data.test_source is not None
                assert load_test(data, data.test_source).class_names == images.class_names


def test_a_loss_that_selects_does_so_in_the_one_epoch_of_a_smoke_run() -> None:
    small = _shortened(read_experiment("paper/table3").method["gmm"], task="adapt")
    assert {**small.adapt} == {"recipe": "paper", "loss": "gmm", "epochs": 1, "min_steps": 0, "warmup_epochs": 0}


@pytest.mark.slow
def test_smoke_of_a_shipped_experiment(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    name = "paper/figure4"  # one that trains, and quick; `make smoke` runs all
    code, out, _ = run("bench", name, "--smoke", "--out", tmp_path)
    assert code == 0 and "1 experiments run" in out
    text = (tmp_path / name / "results.md").read_text()
    cells = len(read_experiment(name).method)
    assert f"{cells} of {cells} cells measured" in text and "the numbers have no meaning" in text.splitlines()[0]


@pytest.mark.slow
def test_smoke_tells_what_fails_and_runs_the_rest(
    file: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from labelsieve.bench import toml_files as module

    changed(file, "{ epochs = 0,", "{ context_tokens = 200,")
    good = file.with_name("good.toml")
    good.write_text(TINY.replace(AS_DRAWN, ""))
    monkeypatch.setattr(module, "shipped", lambda: {"bad": file, "good": good})
    code, out, error = run("bench", "--smoke", "--out", tmp_path / "out")
    assert code == 1 and "2 of 2: good" in out and (tmp_path / "out" / "good" / "results.md").is_file()
    lines = error.strip().splitlines()
    assert len(lines) == 1 and "1 of 2 experiments failed: bad; bad: ModelError: untrained on drawings" in lines[0]


def test_bench_without_a_file_or_folder(run: Callable[..., tuple[int, str, str]], file: Path) -> None:
    for words in (("bench",), ("bench", file), ("bench", "--out", "x"), ("bench", "--dry-run")):
        code, _, error = run(*words)
        assert code == 2 and "expected FILE.toml or NAME, and --out DIR" in error


_RECORDED = ["human", "peft", "phase1", "photos", "photos-full", "prompts-modules", "prompts-strong", "whole"]


@pytest.mark.parametrize("name", _RECORDED)
def test_recorded_cells_are_those_of_the_shipped_experiments(name: str) -> None:
    folder = Path(__file__).parents[3] / "docs" / "results" / name
    experiment = read_experiment(name)
    assert {record["key"] for record in lines_of(folder)} <= {experiment.key(cell) for cell in experiment.cells()}


def test_the_files_of_the_docs_are_valid(tmp_path: Path) -> None:
    blocks = (Path(__file__).parents[3] / "docs" / "bench.md").read_text().split("```toml\n")[1:]
    detect, classifier, adapt, defaults, extended, published, tags, features = (
        block.split("```")[0] for block in blocks
    )
    tasks = []
    texts = (detect, detect + classifier, adapt, adapt + defaults, extended, detect + published, tags, features)
    for number, text in enumerate(texts):
        file = tmp_path / f"block{number}.toml"
        file.write_text(text)
        tasks.append(read_experiment(file).task)
    assert tasks == ["detect", "detect", "adapt", "adapt", "detect", "detect", "tags", "detect"]


def test_there_are_shipped_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"phase1"} <= set(shipped())
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in shipped())
    assert all(title_of(path) == read_experiment(name).title for name, path in shipped().items())
