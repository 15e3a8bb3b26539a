"""Look-alikes of the data that experiments name: read back as they were drawn, through the readers of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from labelsieve.bench import run as running
from labelsieve.bench.config import Data
from labelsieve.bench.experiment import Experiment, read_experiment
from labelsieve.bench.lookalikes.layouts import LOOKALIKES, NAMES, Split, half_size
from labelsieve.bench.lookalikes.stand_ins import IMAGES, TEST_IMAGES, StandIns
from labelsieve.bench.run import load_data, load_test
from labelsieve.bench.smoke import miniatures, smoke
from labelsieve.bench.synthetic import SYNTHETIC_SOURCES
from labelsieve.bench.toml_files import shipped
from labelsieve.core.errors import DataError, RunError
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.published.layout import PublishedSplit
from labelsieve.data.published.registry import PUBLISHED
from labelsieve.vlm import loading
from slow_cases import mostly_slow

SPLITS = [(name, split) for name in LOOKALIKES for split in PUBLISHED.entries[name].splits]
TESTED = {"test", "val", "imagenet-val"}
# The splits whose given labels are those of people or of the web, and of these the ones with the truth beside them.
NOISY = {
    *(("cifar10n", "train"), ("cifar100n", "train"), ("webvision", "train")),
    *(("clothing1m", split) for split in ("train", "sample-64000", "both")),
    *(("food-101n", split) for split in PUBLISHED.entries["food-101n"].splits),
}
TRUE = {("cifar10n", "train"), ("cifar100n", "train"), ("clothing1m", "both")}
THREE = """
title = "Three data sets"
task = "detect"
seeds = [0]
tables = [["issue_f1"]]
model = { clip = "openai/clip-vit-base-patch16" }

[data]
cifar-100 = { source = "cifar100:DATA/cifar-100", test_split = "test" }
tiny-imagenet = { source = "tiny-imagenet:DATA/tiny-imagenet-200", test_split = "val" }
mine = { source = "mine.parquet", label_column = "seen", truth_column = "right", test = "mine_test.parquet" }

[noise]
as-given = { kind = "given" }
sym-20 = { kind = "symmetric", rate = 0.2 }

[method]
label-match = { detector = "label-match" }
clip-margin = { detector = "clip-margin" }
"""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("look-alikes"))


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


def drawn(images: LabelledImages, part: Split) -> NDArray[np.int64]:
    """Returns which drawing each picture is, and checks that each is there once, unchanged by all but JPEG."""
    read = np.stack([np.asarray(images.open(row)) for row in range(len(images))]).astype(np.float32)
    known = half_size(part.images) if read.shape[1] == 32 else part.images
    apart = np.abs(read[:, None, ::2, ::2] - known[None, :, ::2, ::2]).mean(axis=(2, 3, 4))  # each second pixel
    rows: NDArray[np.int64] = apart.argmin(axis=1)
    assert sorted(rows.tolist()) == list(range(len(part)))
    assert apart.min(axis=1).max() <= (0 if read.shape[1] == 32 else 6), "lossless in CIFAR"
    return rows


# of each layout one, and a split that has labels of its own
OFTEN = {(name, "train") for name in ("cifar10n", "webvision")} | {("clothing1m", "both")}


@pytest.mark.parametrize(("name", "split"), mostly_slow(SPLITS, quick=OFTEN))
def test_what_is_drawn_is_read(name: str, split: str, stand_ins: StandIns) -> None:
    images = load_images(stand_ins.of(Data(source=f"{name}:DATA")).source, split=split)
    part = stand_ins.splits.test if split in TESTED else stand_ins.splits.train
    rows = drawn(images, part)
    given = part.noisy if (name, split) in NOISY else part.truth
    assert images.labels.tolist() == given[rows].tolist()
    assert (images.truth is not None) == ((name, split) in TRUE)
    if images.truth is not None:
        assert images.truth.tolist() == part.truth[rows].tolist()
    assert images.class_names == LOOKALIKES[name].names and images.class_names[: len(NAMES)] == NAMES


def test_there_is_something_to_find_and_enough_of_each_class_to_train_on(stand_ins: StandIns) -> None:
    train, test = stand_ins.splits.train, stand_ins.splits.test
    assert (len(train), len(test)) == (IMAGES, TEST_IMAGES)
    assert np.bincount(train.truth, minlength=len(NAMES)).min() >= 4 and np.bincount(train.noisy).min() >= 2
    assert 0.2 < (train.noisy != train.truth).mean() < 0.4 and (test.noisy == test.truth).all()


def shipped_data() -> Iterator[tuple[str, Data]]:
    """Yields all data that any experiment names, each once, with the first that names them."""
    known = set[str]()
    for name in shipped():
        for each, data in read_experiment(name).data.items():
            # features are read as those of any user: test_bench_features.py
            if not data.source.endswith(".npz") and repr(data) not in known:
                known.add(repr(data))
                yield f"{name}, {each}", data


def test_every_published_data_set_of_a_shipped_experiment_has_a_look_alike() -> None:
    places = {place for _, data in shipped_data() for place in (data.source, data.test_source) if place}
    named = {name for place in places if (name := place.partition(":")[0]) in PUBLISHED}
    assert len(named) >= 7 and named <= set(LOOKALIKES)
    assert set(LOOKALIKES) <= set(PUBLISHED)


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in shipped_data()])
def test_experiments_read_look_alikes_as_they_would_the_real_data(
    data: Data, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    if data.source in SYNTHETIC_SOURCES:
        assert stand_ins.of(data).source == data.source
        return
    asked: list[tuple[str, Mapping[str, Any]]] = []

    def load(source: str, **options: Any) -> LabelledImages:
        asked.append((source, options))
        return load_images(source, **options)

    monkeypatch.setattr(running, "load_images", load)
    stand_in = stand_ins.of(data)
    images, (source, options) = load_data(stand_in, seed=0), asked[0]
    name = data.source.partition(":")[0] if ":" in data.source else ""
    assert source == f"{name}:{stand_ins.folder / name}" if name else source.endswith(".parquet")
    same = ("image_column", "label_column", "truth_column", "split")
    assert {key: options[key] for key in same} == {key: getattr(data, key) for key in same}
    assert len(images) == IMAGES and (options["limit"] is None) == (data.limit is None)
    if data.test_source is None:
        assert stand_in.test_source is None
        return
    assert stand_in.test_source is not None
    test, (source, options) = load_test(stand_in, stand_in.test_source), asked[1]
    assert source.partition(":")[0] == name if name else source.endswith(".parquet")
    assert (options["split"], options["label_column"]) == (data.test_split, data.test_label_column)
    assert len(test) == TEST_IMAGES and test.class_names == images.class_names


def test_files_have_the_columns_that_are_named_and_no_other(stand_ins: StandIns) -> None:
    plain = stand_ins.of(Data(source="mine.parquet", limit=5000, class_names="names.txt"))
    named = Data(
        source="mine.parquet",
        image_column="photo",
        label_column="seen",
        truth_column="right",
        test="mine_test.parquet",
        test_label_column="checked",
    )
    own = stand_ins.of(named)
    assert own.test is not None and own.test != own.source != plain.source
    columns = [set(pq.read_schema(file).names) for file in (plain.source, own.source, own.test)]
    assert columns == [{"image", "label"}, {"photo", "seen", "right"}, {"image", "checked"}]
    images, train, right = load_data(own, seed=0), stand_ins.splits.train, load_data(plain, seed=0)
    assert isinstance(images, LabelledImages) and isinstance(right, LabelledImages)
    assert images.labels.tolist() == train.noisy.tolist() and images.truth is not None
    assert images.truth.tolist() == train.truth.tolist()
    assert all(np.array_equal(np.asarray(images.open(row)), train.images[row]) for row in range(len(images)))
    assert right.labels.tolist() == train.truth.tolist(), "right, where no truth is beside them"
    assert load_test(own, own.test).labels.tolist() == stand_ins.splits.test.truth.tolist()
    assert (plain.limit, plain.class_names, own.limit) == (IMAGES, None, None)


def test_test_images_of_other_kinds(stand_ins: StandIns) -> None:
    hub = stand_ins.of(Data(source="somebody/photos", split="train", test_split="validation"))
    assert (hub.split, hub.test_split) == (None, None) and hub.test is not None and hub.test != hub.source
    other = stand_ins.of(Data(source="cifar10n:DATA", test="cifar10:DATA/other", test_split="test", test_limit=500))
    assert (other.test, other.test_limit) == (f"cifar10:{stand_ins.folder / 'cifar10'}", TEST_IMAGES)
    web = stand_ins.of(Data(source="webvision:DATA", test="imagenet.parquet"))
    both = stand_ins.of(Data(source="drawings", test="drawings"))
    assert (both.source, both.test, both.limit, both.test_limit) == ("drawings", "drawings", IMAGES, TEST_IMAGES)
    for each in (hub, other, web):
        assert each.test_source is not None
        assert load_test(each, each.test_source).class_names == load_data(each, seed=0).class_names


def test_further_data_sets_keep_their_published_numbers_of_the_first_method_and_noise(stand_ins: StandIns) -> None:
    experiment = read_experiment("paper/table1")
    parts = miniatures(experiment, {"cifar-100": stand_ins.of(experiment.data["cifar-100"])})
    assert {
        name: [where[1:] for where, _ in part.published.cells()] for name, part in parts.items() if part.published
    } == {
        "paper/table1": [("sym-20", method) for method in ("label-match", "small-loss", "deft")],
        "paper/table1-noises": [("ins-20", "label-match")],
    }
    ((name, small),) = miniatures(
        experiment, {"stanford-cars": stand_ins.of(experiment.data["stanford-cars"])}, all_methods=False
    ).items()
    assert name == "paper/table1-stanford-cars" and len(list(small.cells())) == 1 and small.published is not None
    assert [where for where, _ in small.published.cells()] == [("stanford-cars", "sym-20", "label-match")]


def test_data_with_right_labels_alone_are_tried_with_one_noise(stand_ins: StandIns) -> None:
    experiment = read_experiment("paper/figure1")
    for name, noise in {"tiny-imagenet": "sym-20", "cifar-100": "clean"}.items():
        (small,) = miniatures(experiment, {name: stand_ins.of(experiment.data[name])}).values()
        assert list(small.noise) == [noise]


@pytest.mark.slow
def test_smoke_reads_every_data_set(three: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    three.write_text(THREE.replace("[method]", 'pair-30 = { kind = "pair", rate = 0.3 }\n\n[method]'))
    code, said, _ = run("bench", three, "--smoke", "--out", out)
    assert code == 0 and "1 of 1: three, 2 methods, 3 data sets" in said
    cells = {"three": 2, "three-noises": 2, "three-tiny-imagenet": 1, "three-mine": 1}
    assert {folder.name for folder in out.iterdir()} == {*cells, "look-alikes"}
    for name, count in cells.items():
        text = (out / name / "results.md").read_text()
        assert f"{count} of {count} cells measured" in text and ("clip-margin" in text) == (name == "three")
    assert "sym-20 | pair-30" in (out / "three-noises" / "results.md").read_text()
    assert run("bench", three, "--smoke", "--out", out)[0] == 0, "look-alikes are the same each time"


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
    assert all(methods == ["label-match"] for name, methods in measured.items() if "-" in name) and len(measured) == 13


@pytest.mark.slow
@pytest.mark.parametrize(("name", "other"), [("cifar100", "three-tiny-imagenet"), ("tiny-imagenet", "three")])
def test_smoke_fails_with_a_reader(
    name: str,
    other: str,
    three: Path,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def broken(path: Path, split: str) -> PublishedSplit:
        raise DataError(f"no {split} in {path.name} to-day")

    monkeypatch.setattr(PUBLISHED.entries[name].place.replace(":", "."), broken)
    code, _, error = run("bench", three, "--smoke", "--out", tmp_path / "out")
    assert code == 1 and len(error.strip().splitlines()) == 1
    assert f"three: DataError: no train in {name} to-day (data " in error
    assert (tmp_path / "out" / other / "results.md").is_file(), "the others are run all the same"


@pytest.mark.slow
def test_smoke_fails_with_a_split_to_test_on(
    three: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    three.write_text(THREE.replace('test_split = "val"', 'test_split = "test"'))
    code, _, error = run("bench", three, "--smoke", "--out", tmp_path / "out")
    assert code == 1 and 'expected a split "test"' in error and "(data tiny-imagenet)" in error
