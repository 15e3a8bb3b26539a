"""Label noise: exact rates, marginals, reproducibility, parity with the reference, and the file it is written to."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelsieve.bench.config import Noise as NoiseOfExperiment
from labelsieve.commands.noise import Noise as NoiseCommand
from labelsieve.core.errors import DataError, RunError, SettingsError
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.noise import (
    class_weights,
    flip_rates,
    inject,
    paired,
    symmetric,
    transition_probabilities,
)
from labelsieve.data.noise_files import apply_noise, read_noise, write_noise
from labelsieve.data.noise_kinds import NOISE, kinds_for

PARITY = Path(__file__).parents[2] / "data" / "parity" / "idn.npz"


def some_labels(classes: int, count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(0, classes, count)


def some_images(count: int = 60, classes: int = 3) -> LabelledImages:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    names = [f"kind {index}" for index in range(classes)]
    return load_images(pixels, labels=np.arange(count) % classes, class_names=names)


cases = {
    "classes": st.integers(2, 12),
    "count": st.integers(0, 200),
    "rate": st.floats(0, 0.999),
    "seed": st.integers(0, 2**32),
}


@given(**cases)
def test_symmetric_changes_exactly_the_rate_and_never_to_the_same_class(
    classes: int, count: int, rate: float, seed: int
) -> None:
    labels = some_labels(classes, count)
    noisy = symmetric(labels, classes=classes, rate=rate, seed=seed)
    assert (noisy != labels).sum() == round(rate * count)
    assert ((noisy >= 0) & (noisy < classes)).all()
    assert np.array_equal(noisy, symmetric(labels, classes=classes, rate=rate, seed=seed))
    assert np.array_equal(labels, some_labels(classes, count)), "the labels of before were written to"


@given(**cases)
def test_pair_goes_to_the_next_class_only(classes: int, count: int, rate: float, seed: int) -> None:
    labels, target = some_labels(classes, count), (np.arange(classes) + 1) % classes
    noisy = paired(labels, target=target, rate=rate, seed=seed)
    changed = noisy != labels
    assert changed.sum() == round(rate * count)
    assert np.array_equal(noisy[changed], (labels[changed] + 1) % classes)


def test_symmetric_marginals_are_uniform_over_the_others() -> None:
    labels = np.zeros(60_000, dtype=np.int64)
    counts = np.bincount(symmetric(labels, classes=5, rate=0.6, seed=3), minlength=5)
    assert counts[0] == 24_000
    assert np.abs(counts[1:] - 9_000).max() < 5 * np.sqrt(9_000)


def test_the_way_of_the_paper_draws_from_all_classes() -> None:
    labels = some_labels(4, 60_000)
    share = (symmetric(labels, classes=4, rate=0.4, seed=3, exact=False) != labels).mean()
    assert share == pytest.approx(0.4 * 3 / 4, abs=0.01)


def test_other_seeds_give_other_noise() -> None:
    labels = some_labels(5, 500)
    assert not np.array_equal(
        symmetric(labels, classes=5, rate=0.5, seed=1), symmetric(labels, classes=5, rate=0.5, seed=2)
    )


def test_transition_probabilities_match_the_reference() -> None:
    with np.load(PARITY, allow_pickle=False) as reference:
        images, labels = reference["images"].reshape(200, -1), reference["labels"]
        for label in np.unique(labels).tolist():
            rows, weights = labels == label, reference["W"][label]
            rates = reference["flip_rate"][rows]
            chances = transition_probabilities(images[rows], label, flip_rates=rates, weights=weights)
            assert np.abs(chances - reference["P"][rows]).max() < 1e-5
        assert len(np.unique(reference["P"].round(3))) > 50, "the reference is one-hot everywhere and tests little"


@settings(max_examples=30)
@given(classes=st.integers(2, 6), count=st.integers(1, 30), scale=st.floats(0, 255))
def test_transition_probabilities_are_distributions(classes: int, count: int, scale: float) -> None:
    features, rates = np.random.default_rng(0).random((count, 7)) * scale, flip_rates(count, rate=0.3)
    label = classes - 1
    weights = class_weights(label, features=7, classes=classes)
    chances = transition_probabilities(features, label, flip_rates=rates, weights=weights)
    assert chances.min() >= 0
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_allclose(chances[:, label], 1 - rates)


def test_flip_rates_follow_the_truncated_normal() -> None:
    drawn = flip_rates(50_000, rate=0.1, seed=4)
    assert drawn.min() >= 0 and drawn.max() <= 1
    # mean 0.1 and deviation 0.1, cut off at 0: mean m + s r and variance s^2 (1 - r - r^2), r = phi(1) / Phi(1)
    ratio = 0.2419707 / 0.8413447
    assert drawn.mean() == pytest.approx(0.1 + 0.1 * ratio, abs=2e-3)
    assert drawn.std() == pytest.approx(0.1 * (1 - ratio - ratio**2) ** 0.5, abs=2e-3)
    assert not flip_rates(10, rate=0).any()
    for rate, mean in ((0.05, 0.10), (0.1, 0.13), (0.2, 0.2), (0.8, 0.8), (0.9, 0.87)):  # as the docstring has it
        assert flip_rates(50_000, rate=rate).mean() == pytest.approx(mean, abs=7e-3)


def test_instance_noise_depends_on_the_image_and_keeps_about_the_rate() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 4, 6, 3), dtype=np.uint8)
    pixels[1::2] = pixels[::2]  # pairs of equal images with equal labels
    images = load_images(pixels, labels=np.repeat(np.arange(150) % 3, 2), class_names=["a", "b", "c"])
    noisy = inject(images, kind="instance", rate=0.4, seed=5)
    changed = noisy.labels != images.labels
    assert changed.mean() == pytest.approx(0.4, abs=0.1)
    both = changed[::2] & changed[1::2]
    same = noisy.labels[::2][both] == noisy.labels[1::2][both]
    assert both.sum() > 10 and same.mean() > 0.95, "equal images should be mistaken for the same class"
    assert np.array_equal(noisy.labels, inject(images, kind="instance", rate=0.4, seed=5).labels)


@pytest.mark.parametrize("kind", NOISE)
def test_what_a_kind_takes_can_be_asked_for(kind: str) -> None:
    takes = NOISE.entries[kind].takes
    assert {*takes} <= {*inspect.signature(NOISE[kind]).parameters}
    shares = {*NOISE.entries[kind].shares}
    assert shares and (NOISE.entries[kind].for_tags or shares <= {*inspect.signature(inject).parameters})
    for settings_class in (NoiseCommand, NoiseOfExperiment):
        assert shares <= {field.name for field in dataclasses.fields(settings_class)}


def test_inject_refuses_kinds_for_tags() -> None:
    for kind in kinds_for(tags=True):
        with pytest.raises(
            SettingsError, match=f"expected kind of noise to be one of {', '.join(kinds_for(tags=False))}, got"
        ):
            inject(some_images(), kind=kind, rate=0.3)


@pytest.mark.parametrize("kind", kinds_for(tags=False))
def test_inject_keeps_the_clean_labels_as_truth(kind: Any) -> None:
    images = some_images()
    noisy = inject(images, kind=kind, rate=0.3, seed=1)
    assert noisy.truth is not None and np.array_equal(noisy.truth, images.labels)
    assert noisy.ids == images.ids and noisy.class_names == images.class_names
    assert noisy.fingerprint != images.fingerprint and noisy.pixels_fingerprint == images.pixels_fingerprint
    assert not noisy.origin
    assert f"{kind} noise at rate 0.3 with seed 1" in noisy.notes[-1]


@pytest.mark.parametrize("kind", kinds_for(tags=False))
@pytest.mark.parametrize("exact", [True, False])
def test_rate_zero_changes_nothing(kind: Any, exact: bool) -> None:
    images = some_images()
    assert np.array_equal(inject(images, kind=kind, rate=0, exact=exact).labels, images.labels)


def test_pair_noise_goes_to_the_next_class_and_from_the_last_to_the_first() -> None:
    images = some_images()
    noisy = inject(images, kind="pair", rate=0.5, seed=1)
    changed = noisy.labels != images.labels
    assert changed.sum() == 30 and set(images.labels[changed]) == {0, 1, 2}
    assert np.array_equal(noisy.labels[changed], (images.labels[changed] + 1) % 3)


def test_labels_that_are_drawn_one_by_one_keep_the_rate_on_average() -> None:
    labels, target = some_labels(3, 6000), np.array([1, 1, 0])
    changed = paired(labels, target=target, rate=0.3, exact=False) != labels
    assert not changed[labels == 1].any(), "a class that stays clean"
    assert changed[labels != 1].mean() == pytest.approx(0.3, abs=0.03)
    images = some_images()
    drawn = [inject(images, kind="pair", rate=0.3, seed=seed, exact=False).labels for seed in range(8)]
    assert len({int((each != images.labels).sum()) for each in drawn}) > 1, "the number of them is not exact"


def test_pairs_by_name() -> None:
    images = some_images()
    noisy = inject(images, kind="pair", rate=0.2, pairs={"kind 2": "kind 0"})
    changed = noisy.labels != images.labels
    assert changed.sum() == 12
    assert (images.labels[changed] == 2).all() and (noisy.labels[changed] == 0).all()


def test_wrong_settings(subtests: pytest.Subtests) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"kind": "symmetric", "rate": 1.0}, "from 0 to below 1"),
        ({"kind": "symmetric", "rate": -0.1}, "from 0 to below 1"),
        ({"kind": "symmetric", "rate": float("nan")}, "from 0 to below 1"),
        ({"kind": "symetric", "rate": 0.1}, 'did you mean "symmetric"'),
        ({"kind": "symmetric", "rate": 0.1, "seed": -1}, "seed"),
        ({"kind": "symmetric", "rate": 0.1, "pairs": {"kind 0": "kind 1"}}, "leave them out"),
        ({"kind": "pair", "rate": 0.5, "pairs": {"kind 0": "kind 1"}}, "at most 0.3333"),
        ({"kind": "pair", "rate": 0.1, "pairs": {"kind 0": "kinds 1"}}, 'did you mean "kind 1"'),
        ({"kind": "pair", "rate": 0.1, "pairs": {"kind 0": "kind 0"}}, "change nothing"),
    )
    for arguments, message in cases:
        with subtests.test(arguments=arguments), pytest.raises(SettingsError, match=message):
            inject(some_images(), **arguments)


def test_unreadable_images_keep_their_label_under_instance_noise(photo_folder: Callable[..., Path]) -> None:
    folder = photo_folder({"cat": 4, "dog": 4})
    (folder / "cat" / "0.png").write_bytes(b"")
    images = load_images(folder)
    noisy = inject(images, kind="instance", rate=0.95, seed=2)
    assert noisy.labels[0] == images.labels[0]
    assert (noisy.labels != images.labels).sum() >= 4
    assert any("1 image could not be read" in note and "cat/0.png" in note for note in noisy.notes)


def test_written_file_loads_as_the_same(photo_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = photo_folder({"cat": 4, "dog": 4, "hen": 1})
    (folder / "cat" / "0.png").write_bytes(b"")
    noisy = inject(load_images(folder), kind="symmetric", rate=0.5, seed=1)
    again = load_images(write_noise(noisy, tmp_path / "made" / "noisy.parquet"), truth_column="clean_label")
    assert again.ids == noisy.ids and again.class_names == noisy.class_names
    assert np.array_equal(again.labels, noisy.labels)
    assert noisy.truth is not None and again.truth is not None and np.array_equal(again.truth, noisy.truth)
    assert np.array_equal(again.contents, noisy.contents), "small files hash alike as files and as bytes"
    assert np.array_equal(np.asarray(again.open(5)), np.asarray(noisy.open(5)))
    assert again.dataset[5]["image"]["path"] == "1.png", "the file names a path of the machine it was made on"
    with pytest.raises(DataError, match="empty"):
        again.open(0)


def test_write_in_several_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelsieve.data.noise_files._GROUP_ROWS", 7)
    noisy = inject(some_images(), kind="pair", rate=0.1)
    again = load_images(write_noise(noisy, tmp_path / "noisy.parquet"), truth_column="clean_label")
    assert np.array_equal(again.contents, noisy.contents) and np.array_equal(again.labels, noisy.labels)


def test_writing_needs_a_truth_and_a_writable_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="inject noise first"):
        write_noise(some_images(), tmp_path / "noisy.parquet")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="could not write"):
        write_noise(inject(some_images(), kind="pair", rate=0.1), tmp_path / "file" / "noisy.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ------------------------------------------------------------------------------------------------ labels for others


MADE = {"kind": "pair", "rate": 0.5, "seed": 3, "exact": True}


def labels_only(folder: Path, images: LabelledImages) -> Path:
    noisy = inject(images, kind="pair", rate=0.5, seed=3)
    return write_noise(noisy, folder / "noise.parquet", parameters=MADE, with_images=False)


def test_labels_alone_give_the_same_images_as_the_noise_itself(
    photo_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source = photo_folder({"cat": 4, "dog": 4, "hen": 2})
    images, noisy = load_images(source), inject(load_images(source), kind="pair", rate=0.5, seed=3)
    path = labels_only(tmp_path, images)
    again = load_images(source, noise=path)
    assert again.fingerprint == noisy.fingerprint and again.truth is not None and noisy.truth is not None
    assert np.array_equal(again.truth, noisy.truth)
    assert "pair noise at rate 0.5 with seed 3" in again.notes[-1]
    assert load_images(**again.origin).fingerprint == noisy.fingerprint, "a report loads the same again"
    few = load_images(source, noise=path, limit=6, seed=1)
    where = [images.ids.index(name) for name in few.ids]
    assert np.array_equal(few.labels, noisy.labels[where]), "a subset gets the labels of its own images"
    import pyarrow.parquet as pq

    assert pq.read_schema(path).names == ["id", "label", "clean_label"]
    whole = write_noise(noisy, tmp_path / "whole.parquet", parameters=MADE)
    assert np.array_equal(load_images(source, noise=whole).labels, noisy.labels), "one with pictures does too"


def test_a_file_says_what_noise_it_is_and_of_what(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    images = some_images(count=60, classes=3)
    path = labels_only(tmp_path, images)
    about = json.loads(pq.read_schema(path).metadata[b"labelsieve"])
    assert about == read_noise(path).about and about["noise"] == MADE
    assert (about["images"], about["changed"]) == (60, 30)
    assert about["data_fingerprint"] == images.fingerprint
    assert about["pixels_fingerprint"] == images.pixels_fingerprint
    assert len(about) == 5, "metadata that grow with the classes cannot be read again where there are thousands"


def test_noise_of_other_images_is_refused(tmp_path: Path) -> None:
    images = some_images(count=12, classes=3)
    path = labels_only(tmp_path, images)
    with pytest.raises(DataError, match=r"expected 3 classes, kind 0 to kind 2, got 4 classes, kind 0 to kind 3"):
        apply_noise(some_images(count=12, classes=4), path)
    with pytest.raises(DataError, match=r'it has no image "0000012"; take the data set and split'):
        apply_noise(some_images(count=15, classes=3), path)
    others = images.with_labels(np.roll(images.labels, 1))
    with pytest.raises(DataError, match=r'expected the label kind 0 for "0000000", got kind 2 \(12 differ\)'):
        apply_noise(others, path)
    smaller = dataclasses.replace(images, contents=images.contents + 1)
    assert any("byte for byte" in note for note in apply_noise(smaller, path).notes)
    assert not any("byte for byte" in note for note in apply_noise(images, path).notes)


def test_a_file_of_noise_is_closed_once_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    path = labels_only(tmp_path, some_images(count=12, classes=3))
    opened: list[Any] = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            opened.append(self)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    read_noise(path)
    with pytest.raises(DataError, match="is no file of noise of tags"):
        read_noise(path, tags=True)
    assert len(opened) == 2 and all(file.reader.closed for file in opened), "Windows keeps an open file from removal"


def test_what_is_no_file_of_noise_is_told(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "text.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"id": ["a"], "label": [0], "clean_label": [1]}), tmp_path / "plain.parquet")
    for name in ("text.parquet", "plain.parquet"):
        with pytest.raises(DataError, match=rf"{name} is no file of noise; make one with: labelsieve noise"):
            read_noise(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        read_noise(tmp_path / "nowhere.parquet")
    with pytest.raises(SettingsError, match="leave out the truth column"):
        load_images(tmp_path / "plain.parquet", noise=tmp_path / "text.parquet", truth_column="clean_label")


def test_scan_with_labels_of_others(
    run: Callable[..., tuple[int, str, str]], drawn_folder: Path, tmp_path: Path
) -> None:
    from labelsieve.demo import MINI_CLIP

    noise, out = tmp_path / "noise.parquet", tmp_path / "run"
    words = ("noise", drawn_folder, "--kind", "symmetric", "--rate", 0.25, "--out", noise, "--labels-only")
    code, said, _ = run(*words)
    assert code == 0 and f"scan SOURCE --noise {noise}" in said
    scanning = ("scan", drawn_folder, "--noise", noise, "--model", MINI_CLIP, "--detector", "label-match")
    assert run(*scanning, "--out", out)[0] == 0
    assert json.loads((out / "metrics.json").read_text())["noise_rate"] == 0.25
    assert run("report", out, "--out", tmp_path / "again.html")[0] == 0, "the report loads the same images again"
    code, _, error = run(*scanning, "--truth-column", "x", "--out", tmp_path / "other")
    assert code == 1 and "leave out the truth column" in error
