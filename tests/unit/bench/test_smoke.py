"""Smoke runs of experiments: a few sketches, scenes or features in the place of the data that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from labelsieve.bench import run as running
from labelsieve.bench.config import Data, Noise
from labelsieve.bench.experiment import Experiment, read_experiment
from labelsieve.bench.features import features_of_file, load_rows
from labelsieve.bench.smoke import IMAGES, TEST_IMAGES, _stand_in, miniatures, smoke
from labelsieve.bench.synthetic import SYNTHETIC_SOURCES
from labelsieve.bench.tables import write_tables
from labelsieve.bench.toml_files import shipped
from labelsieve.core.errors import DataError, RunError
from labelsieve.vlm import loading
from slow_cases import mostly_slow

THREE = """
title = "Three data sets"
task = "detect"
seeds = [0]
tables = [["issue_f1"]]
model = { clip = "openai/clip-vit-base-patch16" }

[data]
cifar-100 = { source = "cifar100:DATA/cifar-100", test_split = "test" }
tiny-imagenet = { source = "tiny-imagenet:DATA/tiny-imagenet-200", test_split = "val" }
mine = { source = "mine.parquet", label_column = "seen", truth_column = "right" }

[noise]
as-given = { kind = "given" }
sym-20 = { kind = "symmetric", rate = 0.2 }

[method]
label-match = { detector = "label-match" }
clip-margin = { detector = "clip-margin" }
"""


@pytest.fixture(scope="module", autouse=True)
def loaded_once() -> Iterator[None]:
    """Loads the same model once for all experiments of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labelsieve.bench.run.load_vlm", cache(loading.load_vlm))
        yield


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("labelsieve.bench.plots.find_spec", lambda _name: None)  # nobody looks at the plots
    file = tmp_path / "three.toml"
    file.write_text(THREE)
    return file


def stand_in(experiment: Experiment, name: str, folder: Path) -> Data:
    """Returns the stand-in of a data set of an experiment."""
    return _stand_in(experiment, experiment.data[name], folder)


@pytest.mark.parametrize("name", mostly_slow(shipped(), quick={"phase1", "human", "strong-sketches", "modules"}))
def test_a_miniature_has_every_method_and_needs_nothing_from_elsewhere(name: str, tmp_path: Path) -> None:
    experiment = read_experiment(name)
    for each, data in experiment.data.items():
        parts = miniatures(experiment, {each: stand_in(experiment, each, tmp_path)})
        assert list(parts[name].method) == list(experiment.method)
        kinds = [noise.kind for small in parts.values() for noise in small.noise.values()]
        assert len(set(kinds)) == len(kinds) and set(kinds) == {noise.kind for noise in experiment.noise.values()}
        for small in parts.values():
            assert small.name != name and small.seeds == experiment.seeds[:1]
            assert {*small.model.values()} == {"features" if data.is_features else "bundled"}
            assert all(method.backbone is None for method in small.method.values())
            places = [place for place in (small.data[each].source, small.data[each].test_source) if place is not None]
            assert all(place in SYNTHETIC_SOURCES or place.startswith(str(tmp_path)) for place in places)
            assert len(places) == 1 + (data.test_source is not None)
            write_tables(small, {}, tmp_path)  # beside published numbers, too
            assert small.title in (tmp_path / "results.md").read_text()


def test_synthetic_data_stay_and_others_are_sketches(tmp_path: Path) -> None:
    experiment = read_experiment("paper/table1")

    def of(data: Data) -> Data:
        return _stand_in(experiment, data, tmp_path)

    sketches = Data(source="drawings", limit=IMAGES, test="drawings", test_limit=TEST_IMAGES)
    named = Data(source="mine.parquet", label_column="seen", truth_column="right", class_names="a", test="b.parquet")
    published = Data(source="cifar10n:DATA", test="cifar10:DATA", test_split="test", test_limit=500)
    assert of(named) == of(published) == of(Data(source="somebody/photos", test_split="validation")) == sketches
    assert of(Data(source="photos")) == Data(source="drawings", limit=IMAGES)
    scenes = of(Data(source="scenes", limit=900, test="scene-shapes"))
    assert (scenes.source, scenes.limit, scenes.test, scenes.test_limit) == ("scenes", 14, "scene-shapes", 5)
    assert not list(tmp_path.iterdir())


def test_the_stand_in_of_a_file_of_features_has_what_is_asked_for(tmp_path: Path) -> None:
    noises = {"column": Noise(kind="column", column="label_x_{seed}"), "given": Noise(kind="given")}
    noises["none"] = Noise(kind="none")
    experiment = replace(
        read_experiment("strong-sketches"), noise=noises, seeds=(0,), text=("text", "text_of_images", "none")
    )
    own = Data(source="far/away.npz", label_column="given", truth_column="right")
    data = _stand_in(experiment, own, tmp_path)
    assert _stand_in(experiment, replace(own, source="another.npz", limit=9), tmp_path) == data
    for name, noise in noises.items():
        rows = load_rows(data, noise, seed=0, texts=["text_of_images"])
        found = features_of_file(rows, data, ["text", "text_of_images", "none"])
        assert len(rows) == IMAGES and rows.truth is not None and found["text"].text is not None
        assert (rows.labels != rows.truth).any() == (name != "none")


def test_further_data_sets_keep_their_published_numbers_of_the_first_method_and_noise(tmp_path: Path) -> None:
    experiment = read_experiment("paper/table1")
    parts = miniatures(experiment, {"cifar-100": stand_in(experiment, "cifar-100", tmp_path)})
    assert {
        name: [where[1:] for where, _ in part.published.cells()] for name, part in parts.items() if part.published
    } == {
        "paper/table1": [("sym-20", method) for method in ("label-match", "small-loss", "deft")],
        "paper/table1-noises": [("ins-20", "label-match")],
    }
    ((name, small),) = miniatures(
        experiment, {"stanford-cars": stand_in(experiment, "stanford-cars", tmp_path)}, all_methods=False
    ).items()
    assert name == "paper/table1-stanford-cars" and len(list(small.cells())) == 1 and small.published is not None
    assert [where for where, _ in small.published.cells()] == [("stanford-cars", "sym-20", "label-match")]


def test_data_with_right_labels_alone_are_tried_with_one_noise(tmp_path: Path) -> None:
    experiment = read_experiment("paper/figure1")
    for name, noise in {"tiny-imagenet": "sym-20", "cifar-100": "clean"}.items():
        (small,) = miniatures(experiment, {name: stand_in(experiment, name, tmp_path)}).values()
        assert list(small.noise) == [noise]


@pytest.mark.slow
def test_smoke_runs_each_stand_in(three: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    three.write_text(THREE.replace("[method]", 'pair-30 = { kind = "pair", rate = 0.3 }\n\n[method]'))
    code, said, _ = run("bench", three, "--smoke", "--out", out)
    assert code == 0 and "1 of 1: three, 2 methods, 3 data sets" in said
    cells = {"three": 2, "three-noises": 2, "three-mine": 1}
    assert {folder.name for folder in out.iterdir()} == {*cells}, "the first two data sets have the same stand-in"
    for name, count in cells.items():
        text = (out / name / "results.md").read_text()
        assert f"{count} of {count} cells measured" in text and ("clip-margin" in text) == (name == "three")
    assert "sym-20 | pair-30" in (out / "three-noises" / "results.md").read_text()
    assert run("bench", three, "--smoke", "--out", out)[0] == 0, "stand-ins are the same each time"


@pytest.mark.slow
def test_smoke_tries_a_method_of_several_experiments_once(
    three: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [three, three.with_name("other.toml"), three.with_name("renamed.toml")]
    files[1].write_text(THREE.replace('clip-margin = { detector = "clip-margin" }', 'knn = { detector = "knn" }'))
    files[2].write_text(THREE.replace("clip-margin =", "by-another-name ="))
    measured: dict[str, list[str]] = {}

    def measure(experiment: Experiment, out: Path) -> None:
        if not measured:
            measured["failed"] = list(experiment.method)
            raise DataError("no space")
        measured[out.name] = list(experiment.method)

    monkeypatch.setattr(running, "run_experiment", measure)
    with pytest.raises(RunError, match="1 of 4 experiments failed: three; three: DataError: no space"):
        smoke([read_experiment(file) for file in (files[0], *files)], tmp_path)
    assert {name: methods for name, methods in measured.items() if "-" not in name} == {
        "failed": ["label-match", "clip-margin"],
        "three": ["clip-margin"],  # the other one was tried with further data since
        "other": ["knn"],
        "renamed": ["label-match"],  # for the noise, since there is nothing new
    }
    assert all(methods == ["label-match"] for name, methods in measured.items() if "-" in name) and len(measured) == 10


@pytest.mark.parametrize("key", ["split", "test_split"])
def test_smoke_fails_with_a_split_that_a_published_data_set_lacks(
    key: str, three: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(running, "run_experiment", lambda _experiment, _out: None)
    three.write_text(THREE.replace('test_split = "val"', f'{key} = "valid"'))
    with pytest.raises(RunError, match=r'three: DataError: expected a split "valid" .*\(data tiny-imagenet\)'):
        smoke([read_experiment(three)], tmp_path)
