"""Values that are not 0 to 255, transparency, odd files: what is decoded, and what a saved model makes of them."""

from __future__ import annotations

import dataclasses
import os
import signal
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

import labelsieve as ls
from labelsieve.core.errors import RunError
from labelsieve.data.images import LabelledImages, decode
from labelsieve.data.input import batches
from labelsieve.data.input.preprocessed import shortened
from labelsieve.data.input.rgb import is_flat, source_code
from labelsieve.data.loading import load_images
from labelsieve.detect.knn import KNN
from labelsieve.finetune.rgb_conversion import converted_rows
from small_adaptations import verdicts_on
from small_backbones import backbone_folder
from small_pictures import encoded

CPU = torch.device("cpu")


def greys(seed: int) -> NDArray[Any]:
    """Eight by eight squares of 0 to 255, the two ends among them."""
    values = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.float64)
    values[0, :2] = 0, 255
    return np.kron(values, np.ones((4, 4)))


def folder_of(folder: Path, make: Callable[[NDArray[Any]], Any], suffix: str, *, images: int = 8) -> Path:
    """Saves images of two classes whose values are made of greys of 0 to 255."""
    for seed in range(images):
        path = folder / "ab"[seed % 2] / f"{seed}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make(greys(seed))).save(path)
    return folder


@pytest.mark.parametrize(
    ("make", "suffix", "ends"),
    [
        (lambda grey: (grey / 255).astype(np.float32), "tif", (0, 1)),
        (lambda grey: grey.astype(np.float32), "tif", (0, 255)),
        (lambda grey: (grey / 255 * 4095 - 1024).astype(np.float32), "tif", (-1024, 3071)),
        (lambda grey: np.rint(grey / 255 * 4095).astype(np.uint16), "png", (0, 4095)),
        (lambda grey: np.rint(grey / 255 * 4095).astype(np.uint16), "tif", (0, 4095)),
        (lambda grey: (grey * 257).astype(np.uint16), "png", (0, 65535)),
        (lambda grey: (29000 + grey * 8).astype(np.uint16), "png", (29000, 31040)),
        (lambda grey: (grey * 1000).astype(np.int32), "tif", (0, 255000)),
    ],
)
def test_values_of_any_range_become_0_to_255(
    tmp_path: Path, make: Callable[[Any], Any], suffix: str, ends: tuple[float, float]
) -> None:
    images = load_images(folder_of(tmp_path, make, suffix))
    (found,) = images.ranges.values()
    assert found == ends
    assert images.notes[-1].endswith(f"{ends[0]:g} becomes black and {ends[1]:g} white")
    for row, name in enumerate(images.ids):
        grey = np.asarray(images.open(row), dtype=np.float64)[..., 0]
        assert np.abs(grey - greys(int(Path(name).stem))).max() <= 1


def test_one_range_keeps_images_comparable(tmp_path: Path) -> None:
    for seed in range(8):
        scale = 16 if seed % 2 else 4
        path = tmp_path / "ab"[seed % 2] / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((greys(seed) * scale).astype(np.uint16)).save(path)
    images = load_images(tmp_path)
    brightest = [np.asarray(images.open(row)).max() for row in range(8)]
    assert brightest == [64] * 4 + [254] * 4
    assert images.take(np.array([0])).ranges == images.ranges
    other = dataclasses.replace(images, ranges={"16-bit": (0.0, 65535.0)})
    assert other.pixels_fingerprint != images.pixels_fingerprint


def test_values_that_are_no_number_do_not_count() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.0, 0.5, 1.0]], dtype=np.float32)
    grey = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 0]
    assert grey.tolist() == [0, 255, 0, 0, 128, 255]
    nothing = np.full((2, 2), np.nan, dtype=np.float32)
    assert np.asarray(decode(encoded(Image.fromarray(nothing), "TIFF"))).max() == 0


def sixteen_bit_colour(values: NDArray[np.uint16]) -> bytes:
    """Returns a PNG of 16 bits a colour, which Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_colours_of_12_bits_in_16_are_not_black() -> None:
    values = np.zeros((4, 4, 3), dtype=np.uint16)
    values[0, 0], values[0, 1] = (4095, 0, 0), (4095, 4095, 4095)
    found = decode(sixteen_bit_colour(values))
    assert [found.getpixel((x, 0)) for x in range(3)] == [(240, 0, 0), (240, 240, 240), (0, 0, 0)]
    assert decode(sixteen_bit_colour(values * 16)).getpixel((1, 0)) == (255, 255, 255)


@pytest.mark.parametrize("ink", [0, 40, 200, 255])
def test_shapes_on_transparency_are_seen(ink: int) -> None:
    layer = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    layer.paste((ink, ink, ink, 255), (2, 2, 6, 6))
    found = np.asarray(decode(encoded(layer)))[..., 0].astype(int)
    ground = 0 if ink == 255 else 255
    assert (found[0, 0], found[4, 4]) == (ground, ink)


def test_an_image_that_shows_nothing_is_flat() -> None:
    assert is_flat(decode(encoded(Image.new("RGBA", (90, 90), (0, 0, 0, 0)))))
    assert is_flat(Image.new("RGB", (90, 90), (7, 80, 200)))
    small = Image.new("RGB", (90, 90))
    small.putpixel((1, 3), (9, 0, 0))
    assert not is_flat(small)


def test_flat_images_are_named(tmp_path: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "cache"))
    folder = folder_of(tmp_path / "data", lambda grey: grey.astype(np.uint8), "png")
    Image.new("RGB", (8, 8), "white").save(folder / "a" / "blank.png")
    for _ in range(2):  # the second time out of the cache
        verdicts = ls.scan(load_images(folder), tiny_clip, detector=KNN(), device="cpu")
        (finding,) = [each for each in verdicts.record["findings"] if each["code"] == "no-contrast"]
        assert finding["figure"] == "1 image shows nothing: all pixels are alike, in a/blank.png"


@pytest.mark.parametrize("kind", ["one long text", "many texts"])
def test_long_texts_of_a_png_are_passed_over(kind: str) -> None:
    info = PngImagePlugin.PngInfo()
    if kind == "one long text":
        info.add_text("a", "x" * 2_000_000, zip=True)
    else:
        for number in range(66):
            info.add_text(f"a{number}", "x" * 1_020_000, zip=False)
    assert decode(encoded(Image.new("RGB", (6, 2), "red"), pnginfo=info)).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("damage", [b"\x7f\xff\xff\xff", b"\x00\x00\x00\x09"])
def test_a_broken_exif_block_is_passed_over(damage: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (6, 2), "red"), "JPEG", exif=exif)
    at = data.index(b"Exif\0\0") + 10
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert sorted(decode(data[:at] + damage + data[at + 4 :]).size) == [2, 6]
    assert not told


@pytest.mark.slow
def test_no_warning_of_pillow_is_told_and_the_filters_are_as_before() -> None:
    bomb = Image.new("1", (10_000, 10_000))
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        decode(encoded(bomb))
    assert not told and warnings.filters == before


def test_pil_images_in_memory_are_read_like_files() -> None:
    values = np.array([[0, 2000, 4000]], dtype=np.uint16)
    icon = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    held = [Image.fromarray(values), Image.fromarray(values.astype(np.float32) / 4000), icon]
    images = load_images(held, labels=["a", "b", "b"])
    assert images.ranges == {"16-bit": (0.0, 4095.0), "float": (0.0, 1.0)}
    assert np.asarray(images.open(1))[0, :, 0].tolist() == [0, 128, 255]
    assert images.seen_by_pipeline().open(2).getpixel((0, 0)) == (0, 0, 0), "transparency is stored, too"


def numbers(folder: Path) -> LabelledImages:
    return load_images(folder_of(folder, lambda grey: grey.astype(np.uint8), "png", images=12))


ROWS = [np.array(part) for part in np.arange(12).reshape(6, 2)]


def as_tensor(picture: Image.Image, _row: int) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy())


@pytest.mark.parametrize("room", [0.0, 2.0**20, 2.0**40])
def test_batches_are_the_same_however_much_shared_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    images = numbers(tmp_path)
    monkeypatch.setattr(batches, "_free_shared_memory", lambda: room)
    monkeypatch.setattr(batches, "_QUEUED_BATCHES", 2**10)
    found = list(batches.batches(images, ROWS, transform=as_tensor, device=CPU, workers=2))
    for rows, batch in zip(ROWS, found, strict=True):
        assert batch.rows.tolist() == rows.tolist() and not batch.errors
        assert np.array_equal(batch.inputs, [np.asarray(images.open(row)) for row in rows])


def test_shared_memory_that_fills_up_later_loses_no_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_tensor: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm)")

    monkeypatch.setattr(Tensor, "share_memory_", full)
    found = list(batches.batches(numbers(tmp_path), ROWS, transform=as_tensor, device=CPU, workers=2))
    assert torch.cat([batch.rows for batch in found]).tolist() == list(range(12))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system does not stop processes")
@pytest.mark.slow
@pytest.mark.parametrize("asked", ["before", "after"])
def test_a_process_that_never_answers_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    # Batches are asked for before, or after, a worker that has sent one already stands still.
    def stuck(picture: Image.Image, row: int) -> Tensor:
        if row == 7:
            time.sleep(0.1)
            (tmp_path / "stopped").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return as_tensor(picture, row)

    monkeypatch.setattr(batches, "WAIT", 1)
    source = batches.batches(numbers(tmp_path / "images"), ROWS, transform=stuck, device=CPU, workers=2)
    while asked == "after" and not (tmp_path / "stopped").exists():
        time.sleep(0.01)
    with pytest.raises(RunError, match=r"no image could be read for 1 seconds; check the disk or network drive"):
        list(source)


def test_no_room_and_no_folder_are_no_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(batches, "SHARED", tmp_path / "absent")
    assert batches._free_shared_memory() == 0
    monkeypatch.setattr(batches, "SHARED", tmp_path)
    assert batches._free_shared_memory() > 0


class Cropping:
    """A model that resizes the short side and takes the middle, as CLIP does."""

    def __init__(self, **settings: Any) -> None:
        self.processor = transformers.CLIPImageProcessor(**settings)

    def pixels(self, images: Any) -> Tensor:
        return self.processor(images=list(images), return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_a_very_long_image_is_cut_to_what_the_model_crops(turned: bool) -> None:
    size = {"shortest_edge": 16}
    model: Any = Cropping(size=size, crop_size={"height": 16, "width": 16})
    values = np.random.default_rng(0).integers(0, 256, (8, 8 * 50, 3), dtype=np.uint8)
    long = Image.fromarray(values.transpose(1, 0, 2) if turned else values)
    short = shortened(long, model)
    assert sorted(short.size) == [8, 8 * 32]
    assert torch.equal(model.pixels([short]), model.pixels([long]))
    assert sorted(shortened(Image.new("1", (20, 4_000_000)), model).size) == [20, 640]
    squeezing: Any = Cropping(size={"height": 16, "width": 16}, do_center_crop=False)
    assert shortened(long, squeezing) is long, "there the whole image matters"


ODD: dict[str, Callable[[], Any]] = {
    "rgb.png": lambda: Image.new("RGB", (4, 4), "red"),
    "grey.png": lambda: Image.new("L", (4, 4), 9),
    "bits.png": lambda: Image.new("1", (4, 4), 1),
    "opaque.png": lambda: Image.new("RGBA", (4, 4), (9, 8, 7, 255)),
    "photo.jpg": lambda: Image.new("RGB", (4, 4), "red"),
    "cmyk.jpg": lambda: Image.new("CMYK", (4, 4), (0, 255, 255, 0)),
    "alpha.png": lambda: Image.new("RGBA", (4, 4), (9, 8, 7, 0)),
    "grey_alpha.png": lambda: Image.new("LA", (4, 4), (9, 0)),
    "deep.png": lambda: Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000),
    "float.tif": lambda: Image.fromarray(np.arange(16, dtype=np.float32).reshape(4, 4) / 16),
}


def save_odd(folder: Path) -> None:
    for number, (name, make) in enumerate(ODD.items()):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        make().save(folder / "ab"[number % 2] / name)


def test_images_that_pipeline_sees_otherwise_are_found(tmp_path: Path) -> None:
    save_odd(tmp_path)
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    images = load_images(tmp_path)
    found = converted_rows(images, np.arange(len(images)))
    names = {Path(images.ids[row]).name for row in found}
    assert names == {"alpha.png", "grey_alpha.png", "deep.png", "float.tif"}


def test_the_lines_of_the_model_card_convert_as_training_does(tmp_path: Path) -> None:
    save_odd(tmp_path)
    images, there = load_images(tmp_path), dict[str, Any]()
    exec(source_code(images.ranges), there)
    for row, name in enumerate(images.ids):
        assert there["as_trained"](tmp_path / name).tobytes() == images.open(row).tobytes()


def test_the_lines_of_the_model_card_pass_over_a_broken_exif_block(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    broken = PngImagePlugin.PngInfo()
    broken.add_text("Raw profile type exif", "\nexif\n 4\nno numbers")
    Image.new("RGB", (9, 5), "red").save(tmp_path / "a" / "1.png", pnginfo=broken)
    images, there = load_images(tmp_path, one_class=True), dict[str, Any]()
    exec(source_code(images.ranges), there)
    assert there["as_trained"](tmp_path / images.ids[0]).tobytes() == images.open(0).tobytes()


def test_the_accuracy_is_that_of_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dark shapes on transparency: black in black for the pipeline, which drops it."""
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "cache"))
    for number in range(16):
        layer = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        layer.paste((0, 0, 0, 255), (0, 0, 32, 8 + number // 2) if number % 2 else (0, 0, 8 + number // 2, 32))
        path = tmp_path / "data" / ("lying" if number % 2 else "upright") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        layer.save(path)
    images, backbone = load_images(tmp_path / "data"), backbone_folder(tmp_path / "vit", "vit")
    verdicts = verdicts_on(images, flagged=())
    settings = ls.Adaptation(tune="linear", labels="all", epochs=0)
    result = ls.adapt(
        images, verdicts, backbone=backbone, settings=settings, test=images, out=tmp_path / "m", device="cpu"
    )
    classify = transformers.pipeline("image-classification", str(tmp_path / "m"), device="cpu")
    files = [tmp_path / "data" / name for name in images.ids]
    there = dict[str, Any]()
    card = (tmp_path / "m" / "README.md").read_text()
    exec(next(part for part in card.split("```python\n") if "def as_trained" in part).split("```")[0], there)
    right = [classify(str(file))[0]["label"] == file.parent.name for file in files]
    converted = [classify(there["as_trained"](file))[0]["label"] == file.parent.name for file in files]
    assert result.metrics["test"]["accuracy"] == np.mean(right) == 0.5, "all images are black"
    assert result.metrics["test_accuracy_converted"] == np.mean(converted) > 0.9
    assert result.metrics["test_converted"] == result.record["converted"]["images"] == 16
