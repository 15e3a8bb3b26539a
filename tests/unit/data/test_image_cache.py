"""Decoded pictures: the same from the disk and anew, decoded once, within bounds, and nothing without them is lost."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelsieve.core.cache import LIMIT
from labelsieve.core.engine import make_engine
from labelsieve.core.errors import SettingsError
from labelsieve.data.images import LabelledImages, UnreadableImageError
from labelsieve.data.input.batches import SCALE, Augment, batches, crop_area
from labelsieve.data.input.image_cache import CachedImages, _estimate, cached_images, shrink
from labelsieve.data.loading import load_images

AREA = 32 * 32


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(LIMIT, raising=False)
    return tmp_path / "cache" / "pixels"


def photos(seed: int = 0, *, count: int = 6) -> LabelledImages:
    """JPEG photos of several sizes, some smaller than AREA."""
    rng, rows = np.random.default_rng(seed), []
    for row in range(count):
        shape = [(20, 30), (90, 60), (40, 300), (33, 33)][row % 4]
        rows.append(Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)))
    return load_images(rows, labels=np.arange(count) % 2, class_names=("a", "b"))


def kept(images: LabelledImages, **more: Any) -> CachedImages:
    return cached_images(images, **{"area": AREA, "accelerator": Accelerator(cpu=True), **more})


def never(*_args: Any) -> Any:
    raise AssertionError("decoded again")


def test_kept_pictures_are_those_decoded_anew_and_decoded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos()
    anew, first = CachedImages(images, partial(shrink, area=AREA), AREA, None), kept(images)
    assert first.stem is not None and first.stem.parent == cache
    expected = [anew[row] for row in range(6)]
    for row, value in enumerate(expected):
        assert torch.equal(first[row], value) and value.dtype == torch.uint8
    monkeypatch.setattr(LabelledImages, "open", never)
    for reader in (first, kept(images), pickle.loads(pickle.dumps(kept(images)))):
        found = [reader[row] for row in range(6)]
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert [one.stride() for one in found] == [other.stride() for other in expected], "so that crops are the same"


def test_small_pictures_stay_as_they_are(cache: Path) -> None:
    images = photos()
    for row in (0, 4):
        assert np.array_equal(kept(images)[row].permute(1, 2, 0).numpy(), np.asarray(images.open(row)))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 4000))
def test_shrinking_keeps_the_shape(width: int, height: int, area: int) -> None:
    small_height, small_width, _ = shrink(Image.new("RGB", (width, height)), area).shape
    assert small_width * small_height <= max(area, 1) or min(small_width, small_height) == 1
    if width * height <= area:
        assert (small_width, small_height) == (width, height)
    elif min(small_width, small_height) >= 20:
        assert small_width / small_height == pytest.approx(width / height, rel=0.1)
        assert small_width * small_height > 0.85 * area


def test_the_smallest_crop_has_a_pixel_for_each_of_the_encoder() -> None:
    assert crop_area(224) * SCALE[0] >= 224**2 > (crop_area(224) - 2) * SCALE[0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_no_picture_is_decoded_after_the_first_epoch(
    workers: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, rows = photos(count=12), [np.arange(at, at + 2) for at in range(0, 12, 2)]

    def epoch(number: int, source: CachedImages) -> torch.Tensor:
        loader = batches(
            source, rows, transform=Augment(16, seed=0, epoch=number), device=torch.device("cpu"), workers=workers
        )
        return torch.cat([batch.inputs for batch in loader])

    source, anew = kept(images), CachedImages(images, partial(shrink, area=AREA), AREA, None)
    assert torch.equal(epoch(1, source), epoch(1, anew))
    second = epoch(2, anew)
    monkeypatch.setattr(LabelledImages, "open", never)
    assert torch.equal(epoch(2, source), second)


def test_an_unreadable_picture_is_told_each_time(photo_folder: Callable[..., Path], cache: Path) -> None:
    folder = photo_folder({"cat": 3, "dog": 3})
    (folder / "cat" / "1.png").write_bytes(b"no picture")
    source = kept(load_images(folder))
    for _ in range(2):
        with pytest.raises(UnreadableImageError, match="not an image"):
            source[1]
    assert source[0].shape[0] == 3


def test_a_full_disk_loses_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    images, source = photos(), kept(photos())
    monkeypatch.setattr(os, "pwrite", full)
    for row in range(6):
        assert torch.equal(source[row], CachedImages(images, partial(shrink, area=AREA), AREA, None)[row])
    monkeypatch.undo()
    assert torch.equal(source[1], CachedImages(images, partial(shrink, area=AREA), AREA, None)[1]), (
        "what was not written does not count"
    )


def test_where_the_system_cannot_write_at_a_place_nothing_is_made(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pwrite")  # as on Windows
    images, source = photos(), kept(photos())
    assert source.stem is None and not cache.exists(), "files of gigabytes that nobody reads"
    assert torch.equal(source[1], CachedImages(images, partial(shrink, area=AREA), AREA, None)[1])


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 0.4), (0.3, 0.7), (0.6, 1)])
def test_what_a_power_cut_has_lost_is_decoded_again(first: float, last: float, cache: Path) -> None:
    images, source = photos(), kept(photos())
    expected = source[1]
    assert source.stem is not None
    with (cache / f"{source.stem.name}.pixels").open("rb+") as file:
        file.seek(3 * AREA + round(first * 3 * AREA))
        file.write(bytes(round((last - first) * 3 * AREA)))
    assert torch.equal(kept(images)[1], expected)


def test_a_black_picture_is_decoded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images([np.zeros((9, 9), np.uint8)] * 2, labels=[0, 1], class_names=("a", "b"))
    kept(images)[0]
    monkeypatch.setattr(LabelledImages, "open", never)
    monkeypatch.setattr("labelsieve.data.input.image_cache._estimate", lambda *_: 0)
    assert not kept(images)[0].any()


@pytest.mark.parametrize("workers", [0, 2])
def test_another_run_may_take_the_room(workers: int, cache: Path) -> None:
    """It removes the files between two epochs, whose processes open them anew."""
    images, rows = photos(count=12), [np.arange(at, at + 2) for at in range(0, 12, 2)]
    source = kept(images)
    for number in (1, 2):
        options: dict[str, Any] = {"transform": Augment(16, seed=0, epoch=number), "device": torch.device("cpu")}
        again = pickle.loads(pickle.dumps(source))  # has no file open, as in a process that is not forked
        found = torch.cat([batch.inputs for batch in batches(again, rows, workers=workers, **options)])
        anew = batches(CachedImages(images, partial(shrink, area=AREA), AREA, None), rows, workers=0, **options)
        assert torch.equal(found, torch.cat([batch.inputs for batch in anew]))
        for path in cache.iterdir():
            path.unlink()


@pytest.mark.parametrize("damage", ["pixels", "shapes"])
def test_damaged_files_are_made_anew(damage: str, cache: Path) -> None:
    images, source = photos(), kept(photos())
    expected = source[1]
    assert source.stem is not None
    if damage == "pixels":
        (cache / f"{source.stem.name}.pixels").unlink()
    else:
        (cache / f"{source.stem.name}.shapes.npy").write_bytes(b"\x93NUMPY")
    again = kept(images)
    assert again.stem is not None and torch.equal(again[1], expected)


def test_the_limit_holds_and_the_oldest_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [photos(seed) for seed in range(3)]
    for number, images in enumerate(sets[:2]):
        source = kept(images)
        for row in range(6):
            source[row]
        assert source.stem is not None
        os.utime(f"{source.stem}.shapes.npy", (number, number))
    size = _estimate(sets[0], AREA)
    monkeypatch.setenv(LIMIT, str(2.2 * size / 2**30))
    assert kept(sets[2]).stem is not None
    left = {path.name.split("-")[0] for path in cache.iterdir()}
    assert left == {images.pixels_fingerprint for images in sets[1:]}


def test_what_is_not_yet_decoded_counts_for_the_limit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [photos(seed) for seed in range(3)]
    monkeypatch.setenv(LIMIT, str(2.2 * _estimate(sets[0], AREA) / 2**30))
    opened = [kept(images) for images in sets]
    assert [(cache / f"{source.stem.name}.pixels").exists() for source in opened if source.stem] == [False, True, True]
    for source in opened:
        for row in range(6):
            source[row]
    assert sum(path.stat().st_blocks * 512 for path in cache.iterdir()) <= 2.2 * _estimate(sets[0], AREA)


def test_a_lower_limit_removes_what_is_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(photos())
    monkeypatch.setenv(LIMIT, "1e-9")
    assert kept(photos()).stem is None and not list(cache.iterdir())


@pytest.mark.parametrize("side", [9, 31, 33, 90])
def test_the_estimate_is_no_less_than_what_is_taken(side: int, cache: Path) -> None:
    area = 64 * 64
    noise = np.random.default_rng(0).integers(1, 256, (64, side, side, 3), dtype=np.uint8)
    source = kept(load_images(noise, labels=np.arange(64) % 2, class_names=("a", "b")), area=area)
    for row in range(64):
        source[row]
    taken = (cache / f"{source.stem.name}.pixels").stat().st_blocks * 512  # type: ignore[union-attr]
    assert 0.4 * _estimate(source.images, area) < taken <= _estimate(source.images, area)


@pytest.mark.parametrize("limit", ["0", "1e-9"])
def test_without_room_pictures_are_decoded_each_time(limit: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, limit)
    images = photos()
    source = kept(images)
    assert source.stem is None and torch.equal(
        source[1], CachedImages(images, partial(shrink, area=AREA), AREA, None)[1]
    )
    assert not cache.exists() or not list(cache.iterdir())


def test_half_of_the_disk_is_left(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage)
    assert kept(photos()).stem is None


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_a_limit_that_is_none_is_told(limit: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, limit)
    for ask in (lambda: kept(photos()), make_engine):  # the engine says it before anything expensive starts
        with pytest.raises(SettingsError, match=f"expected {LIMIT} .*got .*{limit}.*a number of GiB"):
            ask()


def test_a_folder_that_cannot_be_written_to_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "file"))
    source = kept(photos())
    assert source.stem is None and source[0].shape == (3, 20, 30)


def test_pictures_of_another_data_set_are_others(cache: Path) -> None:
    first, second = kept(photos(0)), kept(photos(1))
    assert first.stem != second.stem and not torch.equal(first[0], second[0])
    assert kept(photos(0), area=64).stem != first.stem


def test_jpeg_is_kept_as_decoded(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(data, "JPEG")
    (tmp_path / "a" / "1.jpg").write_bytes(data.getvalue())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jpg").write_bytes(data.getvalue())
    images = load_images(tmp_path)
    kept(images)[0]
    assert np.array_equal(kept(images)[0].permute(1, 2, 0).numpy(), np.asarray(images.open(0)))
