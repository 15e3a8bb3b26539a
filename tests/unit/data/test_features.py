"""Features of the frozen image encoder: computed once, kept whole on disk, made again where the disk lies."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from labelsieve.core.cache import cache_folder
from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import LabelsieveError
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.vlm.families.clip import HuggingFaceCLIP
from labelsieve.vlm.feature_cache import ImageFeatures, read_features
from labelsieve.vlm.features import extract, image_features
from slow_cases import mostly_slow
from small_models import StubProcessor, random_clip


class CountingCLIP(HuggingFaceCLIP):
    """Counts the pictures that it is given; they become pixels without any processing."""

    seen = 0

    def pixels(self, images: Any) -> Tensor:
        self.seen += len(images)
        resized = [np.asarray(image.resize((64, 64))) for image in images]
        return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255


def make_vlm(seed: int = 0) -> CountingCLIP:
    return CountingCLIP(random_clip(seed=seed), None, StubProcessor(), name="random")


@pytest.fixture
def vlm() -> CountingCLIP:
    return make_vlm()


@pytest.fixture
def engine() -> Engine:
    return make_engine(device="cpu", precision="fp32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def images(photo_folder: Callable[..., Path]) -> LabelledImages:
    """Seven pictures, the second of which cannot be read."""
    folder = photo_folder({"cat": 4, "dog": 3})
    (folder / "cat" / "1.png").write_bytes(b"no picture")
    return load_images(folder)


def expected(images: LabelledImages, vlm: HuggingFaceCLIP) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Computes the features one picture at a time."""
    rows = [np.zeros(32, np.float32)] * len(images)
    for row in set(range(len(images))) - {1}:
        with torch.inference_mode():
            rows[row] = vlm.pool(vlm.pixels([images.open(row)]))[0].numpy()
    return np.stack(rows)


def check(found: ImageFeatures, images: LabelledImages, vlm: HuggingFaceCLIP) -> None:
    assert found.pooled.shape == (7, 32) and found.pooled.dtype == np.float32
    assert np.abs(found.pooled - expected(images, vlm)).max() < 1e-5
    assert found.readable.tolist() == [0, 2, 3, 4, 5, 6]
    assert list(found.errors) == [1]
    assert found.errors[1] == "cat/1.png: not an image that can be decoded"


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_features_do_not_depend_on_the_batch(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, batch_size: int
) -> None:
    check(image_features(images, vlm, engine=engine, batch_size=batch_size), images, vlm)


def test_the_second_call_decodes_nothing(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path
) -> None:
    first = image_features(images, vlm, engine=engine)
    assert vlm.seen == 6
    again = image_features(images, vlm, engine=engine)
    assert vlm.seen == 6
    assert np.array_equal(first.pooled, again.pooled) and again.errors == first.errors
    assert isinstance(again.pooled, np.memmap) and not again.pooled.flags.writeable
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"], "something unfinished was left"


def test_where_one_process_lacks_them_all_compute_them(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may finish the same features after one process has looked for them and before the other does."""
    image_features(images, vlm, engine=engine)
    monkeypatch.setattr(Engine, "total", lambda _engine, missing: missing + 1)
    found = image_features(images, vlm, engine=engine)
    assert vlm.seen == 12
    check(found, images, vlm)


def test_other_names_and_labels_share_the_features(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, photo_folder: Callable[..., Path]
) -> None:
    image_features(images, vlm, engine=engine)
    folder = photo_folder({"hen": 4, "owl": 3}, name="same pictures")
    (folder / "hen" / "1.png").write_bytes(b"no picture")
    same = load_images(folder)
    found = image_features(same.with_labels(1 - same.labels), vlm, engine=engine)
    assert vlm.seen == 6
    assert found.errors == {1: "hen/1.png: not an image that can be decoded"}


@pytest.mark.parametrize("what", ["model", "precision", "pixels", "order"])
def test_anything_else_gets_features_of_its_own(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path, what: str, tmp_path: Path
) -> None:
    first = np.array(image_features(images, vlm, engine=engine).pooled)
    other, other_vlm, other_engine = images, vlm, engine
    if what == "model":
        other_vlm = make_vlm(seed=1)
    elif what == "precision":
        other_engine = make_engine(device="cpu", precision="bf16")
    elif what == "pixels":
        Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / "dog" / "2.png")
        other = load_images(tmp_path / "photos")
    else:
        other = images.take(np.array([0, 1, 2, 3, 4, 6, 5]))
    before = other_vlm.seen
    second = image_features(other, other_vlm, engine=other_engine)
    assert other_vlm.seen == before + 6
    assert not np.array_equal(second.pooled, first)
    assert len(list(cache.glob("*.npy"))) == 2
    assert np.array_equal(image_features(images, vlm, engine=engine).pooled, first), "the first was lost"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _record(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _other_array(path: Path, array: Any) -> None:
    np.save(path, array)


DAMAGE: dict[str, Callable[[Path, Path], None]] = {
    "array lost": lambda array, _: array.unlink(),
    "record lost, as of an unfinished run": lambda _, record: record.unlink(),
    "array empty": lambda array, _: _done(array.write_bytes(b"")),
    "array cut": lambda array, _: _cut(array),
    "array of junk": lambda array, _: _done(array.write_bytes(b"\x93NUMPY junk" * 99)),
    "array is a zip": lambda array, _: _done(array.write_bytes(b"PK\x03\x04" + bytes(99))),
    "array of another type": lambda array, _: _other_array(array, np.zeros((7, 32))),
    "array of another width": lambda array, _: _other_array(array, np.zeros((7, 31), np.float32)),
    "array of another length": lambda array, _: _other_array(array, np.zeros((6, 32), np.float32)),
    "array without width": lambda array, _: _other_array(array, np.zeros(7, np.float32)),
    "record cut": lambda _, record: _cut(record),
    "record empty": lambda _, record: _done(record.write_bytes(b"")),
    "record of nothing": lambda _, record: _done(record.write_text("{}")),
    "record of odd errors": lambda _, record: _record(record, errors=["1"]),
    "record of rows that are not there": lambda _, record: _record(record, errors={"99": "gone"}),
}


def _done(_count: int) -> None: ...


@pytest.mark.parametrize("what", mostly_slow(DAMAGE, quick=[*DAMAGE][::4]))
def test_damaged_files_are_made_again(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path, what: str
) -> None:
    image_features(images, vlm, engine=engine)
    (array,), (record,) = cache.glob("*.npy"), cache.glob("*.json")
    DAMAGE[what](array, record)
    assert read_features(array.with_suffix(""), images) is None
    check(image_features(images, vlm, engine=engine), images, vlm)
    seen = vlm.seen
    check(image_features(images, vlm, engine=engine), images, make_vlm())
    assert vlm.seen == seen, "the mended files are not used"


def test_a_run_that_is_stopped_leaves_nothing(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_pixels: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vlm, "pool", stop)
        with pytest.raises(KeyboardInterrupt):
            image_features(images, vlm, engine=engine)
    assert list(cache.iterdir()) == []
    check(image_features(images, vlm, engine=engine), images, vlm)


def test_two_runs_at_once_do_not_get_in_each_others_way(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run that begins later and ends sooner must not empty the file that this one fills."""
    pool, nested = vlm.pool, make_vlm()
    found: list[ImageFeatures] = []

    def pool_late(pixels: Tensor) -> Tensor:
        if len(found) == 0:
            found.append(image_features(images, nested, engine=engine))
        return pool(pixels)

    monkeypatch.setattr(vlm, "pool", pool_late)
    ours = image_features(images, vlm, engine=engine, batch_size=2)
    monkeypatch.undo()
    check(ours, images, make_vlm())
    check(found[0], images, make_vlm())


def test_the_features_of_an_old_map_outlive_a_new_extraction(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, tmp_path: Path
) -> None:
    extract(images, vlm, tmp_path / "kept", engine, 4)
    old = read_features(tmp_path / "kept", images)
    assert old is not None
    extract(images, make_vlm(seed=1), tmp_path / "kept", engine, 4)
    check(old, images, vlm)


def test_all_pictures_unreadable(vlm: CountingCLIP, engine: Engine, photo_folder: Callable[..., Path]) -> None:
    folder = photo_folder({"cat": 2, "dog": 1})
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    found = image_features(load_images(folder), vlm, engine=engine)
    assert found.readable.tolist() == [] and len(found.errors) == 3 and not found.pooled.any()
    assert all("empty" in reason for reason in found.errors.values())


# ----------------------------------------------------------------------------------------------------------- the folder


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("LABELSIEVE_CACHE", "~/here")
    assert cache_folder() == Path.home() / "here"
    monkeypatch.setenv("LABELSIEVE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "labelsieve"
    monkeypatch.delenv("LABELSIEVE_CACHE")
    for empty in (True, False):  # by the XDG rules an empty one counts as none
        monkeypatch.setenv("XDG_CACHE_HOME", "") if empty else monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_folder() == Path.home() / ".cache" / "labelsieve"


def refuse(images: LabelledImages, vlm: CountingCLIP, engine: Engine) -> None:
    with pytest.raises(LabelsieveError, match=r"could not .*features.*set LABELSIEVE_CACHE to a") as found:
        image_features(images, vlm, engine=engine)
    assert "\n" not in str(found.value)
    assert vlm.seen == 0, "it noticed after the work was done"


def test_a_file_in_the_way(images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path) -> None:
    cache.parent.write_text("in the way")
    refuse(images, vlm, engine)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="may write everywhere")
def test_a_folder_that_is_not_writable(images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    try:
        refuse(images, vlm, engine)
    finally:
        cache.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room on the disk cannot be kept here")
def test_a_full_disk_is_told_before_the_work(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    refuse(images, vlm, engine)
    assert list(cache.iterdir()) == []


def test_a_file_system_that_cannot_keep_room_does(
    images: LabelledImages, vlm: CountingCLIP, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_arguments: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    check(image_features(images, vlm, engine=engine), images, vlm)
