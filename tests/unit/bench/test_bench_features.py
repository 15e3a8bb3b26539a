"""Experiments on features: files with named label columns, text regimes, and the summary against the best rival."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import labelsieve as ls
from labelsieve.bench import estimate as estimating
from labelsieve.bench.comparison import summary
from labelsieve.bench.config import Data, Noise
from labelsieve.bench.experiment import Cell, Experiment, read_experiment
from labelsieve.bench.features import features_of_images, load_rows
from labelsieve.bench.run import run_experiment, with_noise
from labelsieve.bench.store import CELLS
from labelsieve.bench.tables import write_tables
from labelsieve.cli import main
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import DataError, LabelsieveError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.detect.registry import DETECTORS, detector_class
from slow_cases import mostly_slow

CLASSES, ROWS, WIDTH = ("cat", "dog", "owl"), 60, 8
JOINT = 'joint = { detector = "joint", settings = { folds = 2 } }\n'
TINY = """
title = "Tiny"
task = "detect"
seeds = [0, 1]
text = ["text_of_images", "none"]
tables = [["issue_f1"], ["auroc"], ["flagged_rate"], ["estimated_noise_rate", "noise_rate"], ["noise_rate_error"]]

[against]
method = "joint"

[data]
one = { source = "one.npz" }
two = { source = "two.npz" }

[noise]
sym = { kind = "column", column = "label_sym_{seed}", data = ["one"] }
people = { kind = "column", column = "label_people", data = ["one"] }
right = { kind = "none" }

[method]
joint = { detector = "joint", settings = { folds = 2 } }
label-match = { detector = "label-match" }
knn = { detector = "knn" }
"""


def arrays(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Returns what a file of features holds: three classes, a fifth of the labels wrong in each `label_sym_SEED`."""
    rng = np.random.default_rng(seed)
    truth, centres = np.arange(ROWS) % len(CLASSES), 2 * rng.normal(size=(len(CLASSES), WIDTH))
    found: dict[str, Any] = {
        "features": (centres[truth] + rng.normal(size=(ROWS, WIDTH))).astype(np.float16),
        "truth": truth,
        "class_names": np.array(CLASSES),
        "text": (centres + rng.normal(size=centres.shape)).astype(np.float16),
        "text_of_images": centres.astype(np.float16),
        "logit_scale": np.float32(5),
        "label_people": np.where(np.arange(ROWS) < 15, (truth + 1) % 3, truth),
        "label_right": truth,
    }
    for each in range(3):
        wrong = rng.permutation(ROWS) < 12
        found[f"label_sym_{each}"] = np.where(wrong, (truth + rng.integers(1, 3, ROWS)) % 3, truth)
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def write(folder: Path, experiment: str = TINY, /, **changes: Any) -> Path:
    """Writes an experiment and its two files of features, the first with some arrays changed."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "one.npz", **arrays(0, **changes))
    np.savez_compressed(folder / "two.npz", **arrays(1, label_people=None))
    (folder / "tiny.toml").write_text(experiment)
    return folder / "tiny.toml"


def lines_of(folder: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (folder / CELLS).read_text().splitlines()]


def record_of(folder: Path, *cell: Any) -> Mapping[str, Any]:
    names = ("data", "noise", "method", "seed", "text")
    (found,) = [each for each in lines_of(folder) if tuple(each[name] for name in names) == cell]
    return found


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Iterator[None]:
    """Leaves out what nobody looks at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labelsieve.bench.plots.find_spec", lambda _name: None)
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the results, beside the experiment and its data."""
    folder = tmp_path_factory.mktemp("features")
    file = write(folder)
    assert main(["bench", str(file), "--out", str(folder / "out"), "--source", str(folder)]) == 0
    return folder / "out"


# ------------------------------------------------------------------------------------------------ what is measured


@pytest.mark.slow
def test_cells_are_those_that_data_noise_and_text_allow(measured: Path) -> None:
    found = {(each["data"], each["noise"], each["text"], each["method"]) for each in lines_of(measured)}
    every = {
        (data, noise, text, method)
        for data, noises in (("one", ("sym", "people", "right")), ("two", ("right",)))
        for noise in noises
        for text in ("text_of_images", "none")
        for method in ("joint", "label-match", "knn")
        if (method, text) != ("label-match", "none")
    }
    assert found == every and len(lines_of(measured)) == 2 * len(every), "two seeds"
    assert {each["model"] for each in lines_of(measured)} == {"features"}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "detector"), [("text_of_images", "label-match"), ("none", "joint")])
def test_a_cell_is_what_a_scan_of_the_same_column_gives(text: str, detector: str, measured: Path) -> None:
    rows = ls.load_features(measured.parent / "one.npz", label_column="label_sym_1", truth_column="truth")
    rows = rows.with_text(arrays()[text] if text != "none" else None, logit_scale=5.0 if text != "none" else None)
    settings = {"folds": 2} if detector == "joint" else {}
    verdicts = ls.scan(rows, detector=detector_class(detector)(**settings), seed=1)
    record = record_of(measured, "one", "sym", detector, 1, text)
    assert verdicts.metrics is not None and record["noise_rate"] == pytest.approx(12 / 60)
    for name in ("issue_f1", "auroc", "flagged_rate", "noise_rate"):
        assert record[name] == verdicts.metrics[name]
    estimate = verdicts.record["estimate"]
    if detector == "label-match":
        assert estimate is None and record["estimated_noise_rate"] is None and record["noise_rate_error"] is None
    else:
        wrong = estimate["wrong_labels"]["value"]
        assert record["estimated_noise_rate"] == pytest.approx(wrong / 60)
        assert record["noise_rate_error"] == pytest.approx(abs(wrong / 60 - 0.2))


@pytest.mark.slow
def test_columns_with_a_seed_differ_and_those_without_do_not(measured: Path) -> None:
    given = {(each["data"], each["noise"], each["seed"]): each["data_fingerprint"] for each in lines_of(measured)}
    assert given["one", "sym", 0] != given["one", "sym", 1]
    assert given["one", "people", 0] == given["one", "people", 1] != given["one", "right", 0]
    assert record_of(measured, "one", "people", "knn", 1, "none")["noise_rate"] == pytest.approx(15 / 60)


@pytest.mark.slow
def test_of_right_labels_only_the_share_flagged_is_told(measured: Path) -> None:
    for each in (each for each in lines_of(measured) if each["noise"] == "right"):
        assert each["noise_rate"] == 0 and 0 <= each["flagged_rate"] < 0.5 and each["clean_recall"] > 0.5
        assert all(each[name] is None for name in ("issue_f1", "issue_precision", "issue_recall", "auroc"))
        if each["method"] == "joint":
            assert each["noise_rate_error"] == each["estimated_noise_rate"]
    text = (measured / "results.md").read_text()
    header = "| method | one, sym | one, people | one, right | two, right |"
    assert f"## issue F1, text: text_of_images\n\n{header}\n" in text
    with (measured / "results.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["noise"] == "right")
    assert row["issue_f1"] == "" and row["text"] == "text_of_images"


@pytest.mark.slow
def test_a_detector_without_text_is_run_once_for_all_text_regimes(measured: Path) -> None:
    # of each data, noise and seed: joint with text and without, label-match with text, knn once
    assert len(list((measured / "runs").iterdir())) == 4 * 2 * 4
    found = {(each["text"], each["memory"] is None) for each in lines_of(measured) if each["method"] == "knn"}
    assert found == {("text_of_images", False), ("none", True)}


@pytest.mark.slow
def test_nothing_is_measured_twice(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelsieve.bench.tasks import Detect

    monkeypatch.setattr(Detect, "measure", lambda *_: pytest.fail("measured again"))
    file = measured.parent / "tiny.toml"
    assert main(["bench", str(file), "--out", str(measured), "--source", str(measured.parent)]) == 0


def test_tables_are_written_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelsieve.bench import run as module

    cells, written = list[str](), list[int]()
    experiment = read_experiment(write(tmp_path)).with_locations(
        folder=str(tmp_path), sources={}, tests={}, models={}, noises={}
    )

    def measure(_shared: Any, _cell: Any, key: str, _records: Any) -> dict[str, Any]:
        cells.append(key)
        return {"key": key}

    # eleven seconds a cell
    clock = SimpleNamespace(monotonic=lambda: 11.0 * len(cells))
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_measure", measure)
    monkeypatch.setattr(module, "write_tables", lambda *_: written.append(len(cells)))
    module.run_experiment(replace(experiment, seeds=(0,)), tmp_path / "out")
    assert written == [*range(3, len(cells) + 1, 3), len(cells)] and len(cells) > 9


@pytest.mark.slow
def test_dry_run_of_features(measured: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = write(tmp_path, TINY.replace("seeds = [0, 1]", "seeds = [0]").replace(JOINT, ""))
    file.write_text(file.read_text().replace('method = "joint"', 'method = "knn"'))
    code, out, _ = run("bench", file, "--out", tmp_path / "out", "--source", tmp_path, "--dry-run")
    assert code == 0 and re.search(r"^12 of 12 cells are missing: about \d+ s, \d\.\d GB$", out, re.MULTILINE)
    code, out, _ = run("bench", file, "--out", tmp_path / "out", "--dry-run")
    assert code == 0 and "one.npz is not on this machine; say where it lies with --source one=PLACE" in out


def test_a_dry_run_tries_what_uses_no_text_once_for_all_regimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(estimating._Trial, "cost", lambda trial, method: tried.append(str(method.detector)))
    places: dict[str, Any] = {"sources": {}, "tests": {}, "models": {}, "folder": str(tmp_path)}
    experiment = read_experiment(write(tmp_path, TINY)).with_locations(**places)
    costs = estimating.estimate(experiment, experiment.cells(), progress=Progress())
    assert set(costs) == set(experiment.cells())
    # two data sets; joint in two regimes, label-match in that with text, knn in whichever
    assert {name: tried.count(name) for name in tried} == {"joint": 4, "label-match": 2, "knn": 2}


@pytest.mark.slow
def test_other_labels_under_the_same_name_are_refused(tmp_path: Path) -> None:
    text = TINY.replace("seeds = [0, 1]", "seeds = [0]").replace(JOINT, "")
    file = write(tmp_path, text.replace('[against]\nmethod = "joint"', ""))
    experiment = read_experiment(file).with_locations(sources={}, tests={}, models={}, folder=str(tmp_path))
    run_experiment(experiment, tmp_path / "out")
    write(tmp_path, text, label_sym_0=arrays()["label_sym_1"])
    (tmp_path / "out" / CELLS).write_text("\n".join((tmp_path / "out" / CELLS).read_text().splitlines()[:1]) + "\n")
    with pytest.raises(LabelsieveError, match="measured with other images"):
        run_experiment(experiment, tmp_path / "out")


@pytest.mark.slow
def test_a_column_without_wrong_labels_is_a_cell_of_right_labels(tmp_path: Path) -> None:
    text = TINY.replace("label_people", "label_right").replace("seeds = [0, 1]", "seeds = [0]")
    file = write(tmp_path, text.replace('"text_of_images", "none"', '"text"').replace("two = {", "# {"))
    out = tmp_path / "out"
    assert main(["bench", str(file), "--out", str(out), "--source", f"one={tmp_path / 'one.npz'}"]) == 0
    for method in ("joint", "label-match", "knn"):
        given, right = (record_of(out, "one", noise, method, 0, "text") for noise in ("people", "right"))
        assert given["issue_f1"] is None and given["flagged_rate"] == right["flagged_rate"]
    assert "| text | 1 of 1 | " in (out / "results.md").read_text()


def test_where_all_labels_are_wrong_the_right_ones_have_no_score(tmp_path: Path) -> None:
    wrong = (arrays()["truth"] + 1) % 3
    text = TINY.replace(JOINT, "").replace('[against]\nmethod = "joint"', "")
    text = text.replace("two = {", "# {").replace("seeds = [0, 1]", "seeds = [0]")
    file = write(tmp_path, text, label_people=wrong)
    experiment = read_experiment(file).with_locations(sources={}, tests={}, models={}, folder=str(tmp_path))
    record = record_of(run_experiment(experiment, tmp_path / "out"), "one", "people", "knn", 0, "none")
    assert record["noise_rate"] == 1 and record["clean_f1"] is None and record["issue_f1"] is not None


@pytest.mark.slow
def test_a_table_of_features_and_no_choice_of_text(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    found = arrays()
    names = np.array(CLASSES)
    columns = {"features": list(found["features"].astype(np.float32)), "truth": names[found["truth"]]}
    columns |= {f"label_sym_{seed}": names[found[f"label_sym_{seed}"]] for seed in (0, 1)}
    pq.write_table(pa.table({name: pa.array(list(value)) for name, value in columns.items()}), tmp_path / "one.parquet")
    text = TINY.replace('text = ["text_of_images", "none"]', "").replace("one.npz", "one.parquet")
    text = re.sub(r"(?m)^(two|people|label-match) .*$", "", text).replace("seeds = [0, 1]", "seeds = [1]")
    (tmp_path / "tiny.toml").write_text(text)
    code, out, _ = run("bench", tmp_path / "tiny.toml", "--out", tmp_path / "out", "--source", tmp_path)
    assert code == 0 and "4 of 4 cells" in out and "## issue F1\n" in out and "| all | 1 of 1 |" in out
    none = dict.fromkeys(("text", "text_of_images", "logit_scale"))
    same = write(tmp_path / "npz", text.replace("one.parquet", "one.npz"), **none)
    assert run("bench", same, "--out", tmp_path / "same", "--source", tmp_path / "npz")[0] == 0
    kept = ("noise", "method", "seed", "issue_f1", "auroc", "flagged_rate", "noise_rate", "estimated_noise_rate")
    ours, theirs = ([{name: each[name] for name in kept} for each in lines_of(tmp_path / d)] for d in ("out", "same"))
    assert ours == theirs
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert "text" not in next(csv.reader(file))


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
def test_noise_of_our_own_on_features(kind: str, tmp_path: Path) -> None:
    write(tmp_path)
    data, noise = Data(source=str(tmp_path / "one.npz")), Noise(kind=kind, rate=0.3)
    rows = with_noise(load_rows(data, noise, seed=4, texts=["none"]), noise, seed=4)
    truth = arrays()["truth"]
    assert rows.truth is not None and rows.truth.tolist() == truth.tolist() and (rows.labels != truth).sum() == 18
    if kind == "pair":
        assert (rows.labels == (truth + 1) % 3).sum() == 18
    again = ls.inject(ls.load_features(data.source, label_column="truth"), kind=kind, rate=0.3, seed=4)
    assert again.labels.tolist() == rows.labels.tolist()


def test_a_subset_of_features_is_another_one_for_each_seed(tmp_path: Path) -> None:
    write(tmp_path)
    data, noise = Data(source=str(tmp_path / "one.npz"), limit=20), Noise(kind="column", column="label_people")
    first, second = (load_rows(data, noise, seed=seed, texts=["text"]) for seed in (0, 1))
    assert len(first) == 20 and first.ids != second.ids
    rows = [int(each) for each in first.ids]
    assert first.labels.tolist() == arrays()["label_people"][rows].tolist()


OF_FEATURES = [name for name in DETECTORS if "images" not in detector_class(name).requires]


@pytest.mark.parametrize("name", mostly_slow(OF_FEATURES, quick={*OF_FEATURES} - {"aum", "simifeat"}))
def test_scores_depend_on_text_where_a_detector_says_so(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    rows = ls.load_features(tmp_path / "one.npz", label_column="label_sym_0")
    detector = detector_class(name)()
    other = rows.with_text(arrays()["text_of_images"], logit_scale=3.0)
    found = [ls.scan(each, detector=detector).label_quality for each in (rows, other)]
    assert np.array_equal(found[0], found[1]) == (not detector.uses_text)


# ------------------------------------------------------------------------------------------------ images and a model


@pytest.mark.slow
def test_text_regimes_that_a_model_makes_of_images(tmp_path: Path, mini_clip: Any) -> None:
    from labelsieve.demo.run import write_sketches
    from labelsieve.detect.inputs import detector_inputs

    engine = make_engine()
    images, test = (write_sketches(tmp_path / f"{seed}.parquet", count=48, seed=seed) for seed in (0, 1))
    assert test.truth is not None
    test = test.with_labels(test.truth)
    found = features_of_images(images, mini_clip, ["text", "text_of_images", "none"], test=test, engine=engine)
    view, other = detector_inputs(images, mini_clip, engine=engine), detector_inputs(test, mini_clip, engine=engine)
    assert view.text is not None
    for rows in found.values():
        assert np.allclose(rows.features, view.all_joint().numpy()) and rows.labels.tolist() == images.labels.tolist()
        assert rows.truth is not None and images.truth is not None and rows.truth.tolist() == images.truth.tolist()
    assert found["none"].text is None and found["none"].logit_scale is None
    assert (
        np.allclose(np.asarray(found["text"].text), view.text.numpy())
        and found["text"].logit_scale == mini_clip.logit_scale
    )
    means = np.stack([other.all_joint().numpy()[test.labels == label].mean(axis=0) for label in range(16)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.allclose(np.asarray(found["text_of_images"].text), means, atol=1e-6)
    rows_of_one = test.take(np.flatnonzero(test.labels == 3))
    with pytest.raises(DataError, match=r'class means of test images, and ".*" has none'):
        features_of_images(images, mini_clip, ["text_of_images"], test=rows_of_one, engine=engine)


@pytest.mark.slow
def test_an_experiment_on_features_of_drawings(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    file = tmp_path / "sketches.toml"
    file.write_text("""
extends = "strong-sketches"
seeds = [3]
data = { sketches = { source = "drawings", limit = 48, test = "drawings", test_limit = 48 } }
noise = { ins = { kind = "instance", rate = 0.4 }, right = { kind = "none" } }
against = { method = "lemon" }
method = { lemon = { detector = "lemon" }, knn = { detector = "knn" }, label-match = { detector = "label-match" } }
""")
    code, out, _ = run("bench", file, "--out", tmp_path / "out")
    assert code == 0 and "14 of 14 cells measured" in out
    records = lines_of(tmp_path / "out")
    knn = [each for each in records if (each["method"], each["noise"]) == ("knn", "ins")]
    assert len({each["auroc"] for each in knn}) == 1 and len({each["model_fingerprint"] for each in knn}) == 3
    assert {each["text"] for each in records if each["method"] == "label-match"} == {"text", "text_of_images"}
    assert {each["test_fingerprint"] for each in records} == {None}


# ------------------------------------------------------------------------------------------------ the summary


def made_up(experiment: Experiment, values: Mapping[tuple[str, str, str, str, int], Any]) -> dict[str, Any]:
    """Returns records by text, data, noise, method and seed, of five metrics."""
    records = {}
    names = ("issue_f1", "auroc", "noise_rate_error", "noise_rate", "flagged_rate")
    for (text, data, noise, method, seed), numbers in values.items():
        cell = Cell("features", data, noise, method, seed, text)
        about = {"hardware": "2 cores", "versions": {"torch": "2.9"}, "created": "2026-11-27T10:00:00"}
        records[experiment.key(cell)] = {**cell.parts, **about, **dict(zip(names, numbers, strict=True))}
    return records


def test_the_summary_against_numbers_by_hand(tmp_path: Path) -> None:
    text = TINY.replace('"text_of_images", "none"', '"text", "none"').replace(', data = ["one"] }\np', " }\np")
    experiment = read_experiment(write(tmp_path, text))
    values: dict[tuple[str, str, str, str, int], Any] = {}

    def add(where: tuple[str, str, str], **methods: Any) -> None:
        for method, (first, second) in methods.items():
            values[*where, method.replace("_", "-"), 0], values[*where, method.replace("_", "-"), 1] = first, second

    # with text: level to the margin (0.80 against 0.805); behind by 0.03 where the error is too large; right labels
    add(
        ("text", "one", "sym"),
        joint=[(0.79, 0.90, 0.05, 0.2, 0.2), (0.81, 0.92, 0.07, 0.2, 0.2)],
        label_match=[(0.80, 0.913, None, 0.2, 0.2), (0.81, 0.911, None, 0.2, 0.2)],
        knn=[(0.90, 0.5, None, 0.2, 0.2), (0.10, 0.5, None, 0.2, 0.2)],
    )
    add(
        ("text", "one", "people"),
        joint=[(0.70, 0.95, 0.06, 0.25, 0.2), (0.70, 0.95, 0.08, 0.25, 0.2)],
        label_match=[(0.73, 0.9, None, 0.25, 0.2), (0.73, 0.9, None, 0.25, 0.2)],
        knn=[(0.6, 0.9, None, 0.25, 0.2), (0.6, 0.9, None, 0.25, 0.2)],
    )
    for data, flagged in (("one", 0.01), ("two", 0.04)):
        add(
            ("text", data, "right"),
            joint=[(None, None, 0.01, 0.0, flagged), (None, None, 0.01, 0.0, flagged)],
            label_match=[(None, None, None, 0.0, 0.5), (None, None, None, 0.0, 0.5)],
            knn=[(None, None, None, 0.0, 0.5), (None, None, None, 0.0, 0.5)],
        )
    # one seed only, of which one method is missing: not compared
    values["text", "two", "sym", "joint", 0] = (0.1, 0.1, 0.5, 0.2, 0.2)
    # without: ahead of the one rival, at the one seed that both have
    values["none", "two", "sym", "joint", 1] = (0.9, 0.8, 0.02, 0.2, 0.2)
    values["none", "two", "sym", "knn", 1] = (0.8, 0.8021, None, 0.2, 0.2)
    values["none", "two", "sym", "knn", 0] = (0.99, 0.99, None, 0.2, 0.2)
    assert experiment.against is not None
    records = made_up(experiment, values)
    text_row, none_row, all_row = summary(experiment, records, experiment.against)
    f1, auroc = text_row.comparisons
    assert (text_row.text, text_row.cells, text_row.all_cells) == ("text", 2, 3)
    assert (f1.wins, f1.cells) == (1, 2) and f1.worst is not None
    assert tuple(f1.worst) == (pytest.approx(-0.03), "one", "people", "label-match")
    assert (auroc.wins, auroc.cells) == (2, 2), "level to the margin, and ahead"
    assert auroc.worst is not None
    assert tuple(auroc.worst) == (pytest.approx(-0.002), "one", "sym", "label-match")
    assert (text_row.close_rates, text_row.estimated_rates) == (1, 2)
    assert text_row.flagged == pytest.approx((0.01, 0.04))
    assert (none_row.cells, none_row.all_cells, none_row.close_rates, none_row.flagged) == (1, 5, 1, ())
    assert [each.wins for each in none_row.comparisons] == [1, 0]
    assert (all_row.text, all_row.cells, all_row.all_cells) == ("all", 3, 8)
    assert [(each.wins, each.cells) for each in all_row.comparisons] == [(2, 3), (2, 3)]
    assert (all_row.close_rates, all_row.estimated_rates, all_row.flagged) == (2, 3, text_row.flagged)
    write_tables(experiment, records, tmp_path)
    shown = (tmp_path / "results.md").read_text().splitlines()
    at = shown.index("## joint against the best rival")
    assert shown[at + 4 :] == [
        "| text | cells | issue F1: ahead or within 0.5 | worst | AUROC: ahead or within 0.2 | worst "
        "| noise rate within 6 | flagged of right labels |",
        "|---|---:|---:|---|---:|---|---:|---:|",
        "| text | 2 of 3 | 1 of 2 | -3.00 (one, people: label-match) | 2 of 2 | -0.20 (one, sym: label-match) "
        "| 1 of 2 | 2.5 / 4.0 |",
        "| none | 1 of 5 | 1 of 1 | +10.00 (two, sym: knn) | 0 of 1 | -0.21 (two, sym: knn) | 1 of 1 | \N{EN DASH} |",
        "| all | 3 of 8 | 2 of 3 | -3.00 (one, people: label-match) | 2 of 3 | -0.21 (two, sym: knn) "
        "| 2 of 3 | 2.5 / 4.0 |",
    ]


def test_a_method_that_is_told_the_rate_is_no_rival(tmp_path: Path) -> None:
    text = TINY.replace('text = ["text_of_images", "none"]', "").replace(JOINT, f"{JOINT}told = TOLD\n")
    told = '{ detector = "small-loss", settings = { noise_rate = "true" } }'
    experiment = read_experiment(write(tmp_path, text.replace("TOLD", told)))
    numbers = {"joint": 0.7, "told": 0.9, "label-match": 0.6, "knn": 0.5}
    values = {("", "one", "sym", name, 0): (value, value, 0.0, 0.2, 0.2) for name, value in numbers.items()}
    assert experiment.against is not None
    (row,) = summary(experiment, made_up(experiment, values), experiment.against)
    found = row.comparisons[0]
    assert found.worst is not None and found.wins == 1
    assert tuple(found.worst) == (pytest.approx(0.1), "one", "sym", "label-match")


# ------------------------------------------------------------------------------------------------ bad input

REGIMES = '["text_of_images", "none"]'


WRONG_FEATURES: list[tuple[dict[str, Any], str, str, str]] = [
    (
        {"label_sym_1": None},
        "",
        "",
        '[data.one]: expected a column "label_sym_1" in WHERE/one.npz, found "features", "truth", "class_names", '
        '"text", "text_of_images", "logit_scale", "label_people", "label_right", "label_sym_0", "label_sym_2" (did '
        'you mean "label_sym_2"?); name another, or say which data sets have this noise: data = ["..."]',
    ),
    ({}, ', data = ["one"] }\nright', " }\nright", '[data.two]: expected a column "label_people" in WHERE/two.npz'),
    (
        {"label_sym_1": np.zeros(59, int)},
        "",
        "",
        '[data.one]: expected one value of "label_sym_1" for each of 60 rows of features in the file WHERE/one.npz',
    ),
    ({"label_sym_1": np.full(60, 3)}, "", "", "[data.one]: 60 of 60 labels in "),
    (
        {},
        REGIMES,
        '["text_of_image"]',
        '[data.one]: expected an array "text_of_image" of class text features in WHERE/one.npz, found "features", ',
    ),
    ({}, REGIMES, '["text_of_image"]', '(did you mean "text_of_images"?); name another in text, or "none"'),
    (
        {"text": np.zeros((3, 9))},
        REGIMES,
        '["text_of_images", "text"]',
        '[data.one]: "text" of WHERE/one.npz: expected text features as numbers of shape (3, 8), one for each '
        "class and as wide as the features, got float64 of shape (3, 9)",
    ),
    ({"text_of_images": np.zeros((2, 8))}, "", "", "[data.one]: expected text features as numbers of shape (3, 8)"),
    ({"logit_scale": None}, "", "", "[data.one]: text features need the model's logit_scale"),
    ({"truth": None}, "", "", "[data.one]: expected the true labels in WHERE/one.npz, to measure against, found "),
    ({}, '"one.npz"', '"one.npz", truth_column = "right"', '[data.one]: expected a column "right"'),
    ({}, '"one.npz"', '"none.npz"', "none.npz does not exist; check the path"),
    ({}, '"one.npz"', '"one.npz", split = "train"', "[data.one]: split goes with images, and WHERE/one.npz holds"),
    ({}, '"one.npz"', '"one.npz", test = "drawings"', "[data.one]: test goes with images, and WHERE/one.npz holds"),
    ({}, 'kind = "none"', 'kind = "instance", rate = 0.2', "[data.one]: noise of kind instance goes with images"),
    ({}, "[data]", '[model]\nmini = "bundled"\n[data]', "holds features, which need no model; leave [model] out"),
    ({}, '"two.npz"', '"drawings"', "[data.two]: images need a model to look at them; name one under [model]"),
    (
        {"text": None, "logit_scale": None},
        f"text = {REGIMES}",
        "",
        "[method.label-match]: detector label-match needs text features of the classes",
    ),
    (
        {},
        f"text = {REGIMES}\n",
        "",
        "[method.deft]: detector deft needs the images and a model; with features alone use one of joint",
    ),
]


def test_wrong_features(subtests: pytest.Subtests, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (changes, old, new, said) in enumerate(WRONG_FEATURES):
        with subtests.test(said):
            text = TINY
            if "deft" in said:
                text = text.replace('knn = { detector = "knn" }', 'deft = { detector = "deft" }')
            assert old in text
            folder = tmp_path / str(number)
            file = write(folder, text.replace(old, new, 1), **changes)
            code = main(["bench", str(file), "--out", str(folder / "out"), "--source", str(folder)])
            lines = capsys.readouterr().err.strip().splitlines()
            assert code == 1 and len(lines) == 1 and said.replace("WHERE", str(folder)) in lines[0]
            assert not (folder / "out").exists()


WRONG_EXPERIMENTS = (
    ('column = "label_people"', "rate = 0.0", 'expected column = "..." with kind column and with no other'),
    ('kind = "none"', 'kind = "none", column = "x"', 'expected column = "..." with kind column'),
    ('kind = "none"', 'kind = "none", rate = 0.1', "[noise.right]: kind none takes no rate"),
    ('data = ["one"]', 'data = ["on"]', "[noise.sym]: a name in data to be one of one, two, got on (did you mean"),
    ('data = ["one"]', 'data = "one"', "[noise.sym]: expected data to be of type list, got 'one'"),
    (REGIMES, '["none", "none"]', "expected different names in text, got none, none"),
    (REGIMES, "[1]", "expected text to be a list of names of class text features, got [1]"),
    (REGIMES, '"none"', "expected text to be a list of names of class text features, got none"),
    (
        'detector = "knn"',
        'detector = "gmm"',
        "[method.knn]: detector gmm needs the images and a model; with text, which is for features alone, use one",
    ),
    ('method = "joint"', 'method = "join"', "[against]: method to be one of joint, label-match, knn, got join (did"),
    ('method = "joint"', "", "[against]: expected method, found none"),
    ('method = "joint"', 'method = "joint"\nwithin = { issue_f2 = 1 }', 'got issue_f2 (did you mean "issue_f1"?)'),
    ('method = "joint"', 'method = "joint"\nwithin = { auroc = 2 }', "expected within.auroc from 0 to 1, got 2"),
    ('method = "joint"', 'method = "joint"\nrate_within = 6', "expected rate_within from 0 to 1, got 6"),
    ('method = "joint"', 'method = "joint"\nwithing = 6', '(did you mean "within"?)'),
)


def test_wrong_experiments(subtests: pytest.Subtests, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (old, new, said) in enumerate(WRONG_EXPERIMENTS):
        with subtests.test(said):
            assert old in TINY
            folder = tmp_path / str(number)
            file = write(folder, TINY.replace(old, new, 1))
            code = main(["bench", str(file), "--out", str(folder / "out"), "--source", str(folder)])
            lines = capsys.readouterr().err.strip().splitlines()
            assert code == 1 and len(lines) == 1 and said in lines[0] and str(file) in lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "expected --source NAME=PLACE or a folder, got nowhere, which is no folder"),
        (["WHERE", "WHERE"], "expected one folder in --source, got WHERE, WHERE; give NAME=PLACE for the others"),
        (["WHERE", "on=x"], 'expected NAME in --source NAME=PLACE to be one of one, two, got on (did you mean "one"?)'),
    ],
)
def test_wrong_places(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [word.replace("WHERE", str(tmp_path)) for word in words]
    assert main(["bench", str(write(tmp_path)), "--out", str(tmp_path / "out"), "--source", *places]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said.replace("WHERE", str(tmp_path)) in line


def test_a_folder_holds_what_is_named_by_a_file_alone(tmp_path: Path) -> None:
    sources = {"cifar100": "other.npz"}
    experiment = read_experiment("strong").with_locations(sources=sources, tests={}, models={}, folder=str(tmp_path))
    files = {name: str(tmp_path / f"{name}.npz") for name in ("cifar10n", "clothing", "tiny-imagenet")}
    assert {name: data.source for name, data in experiment.data.items()} == files | sources
    with pytest.raises(SettingsError, match="no data of phase1 are named by a file alone; give --source NAME=PLACE"):
        read_experiment("phase1").with_locations(sources={}, tests={}, models={}, folder=str(tmp_path))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ('text = ["words"]', r"\[data.sketches\]: expected text of images to be one of text, text_of_images, none"),
        ('text = ["text_of_images"]', r"\[data.sketches\]: text_of_images are class means of test images, found none"),
        (
            'text = ["text"]\nnoise = { x = { kind = "column", column = "y" } }',
            r"\[noise.x\]: kind column goes with files of features",
        ),
    ],
)
def test_what_only_features_or_test_images_have(head: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'extends = "strong-sketches"\n{head}\ndata = {{ sketches = {{ source = "drawings" }} }}\n')
    with pytest.raises(SettingsError, match=said):
        run_experiment(read_experiment(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_features_train_no_classifier(tmp_path: Path) -> None:
    text = re.sub(r'(?m)^(text|tables) = .*$|^\[against\]\nmethod = "joint"$', "", TINY)
    (tmp_path / "with-text.toml").write_text(TINY.replace('"detect"', '"adapt"').replace("tables", "# "))
    with pytest.raises(SettingsError, match="text goes with task detect only; leave it out"):
        read_experiment(tmp_path / "with-text.toml")
    experiment = read_experiment(write(tmp_path, text.replace('"detect"', '"adapt"')))
    with pytest.raises(SettingsError, match="a classifier is trained on images, which features come without"):
        run_experiment(experiment, tmp_path / "out")
