"""Decoding of odd and broken pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelsieve.core.errors import DataError
from labelsieve.data.images import MAX_PIXELS, UnreadableImageError, decode
from labelsieve.data.loading import load_images
from small_pictures import encoded, png_of


def pattern(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_lossless_picture_keeps_its_pixels() -> None:
    assert np.array_equal(np.asarray(decode(encoded(pattern()))), np.asarray(pattern()))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is text, not a picture", "not an image"),
        (encoded(pattern(), "JPEG")[:-400], "truncated"),
        (encoded(pattern())[:-400], "broken"),
        (encoded(pattern(), "JPEG")[:20], "not an image"),
        (png_of(0, 5), "image"),
    ],
)
def test_broken_bytes_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode(data)


@pytest.mark.parametrize("side", [13_400, 20_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    assert side * side > MAX_PIXELS
    with pytest.raises(DataError, match=r"178,956,970 allowed"):
        decode(png_of(side, side))


def test_corrupted_files_never_raise_anything_but_our_error(subtests: pytest.Subtests) -> None:
    """One broken image must not end a run, whatever its decoder thinks of it."""
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO"):
        with subtests.test(kind=kind):
            rng, whole = np.random.default_rng(7), np.frombuffer(encoded(pattern(16), kind), dtype=np.uint8)
            for _ in range(60):
                data = whole.copy()
                where = rng.integers(0, min(len(data), 200), size=rng.integers(1, 12))
                data[where] = rng.integers(0, 256, size=len(where), dtype=np.uint8)
                problem = ""
                try:
                    assert decode(data[: rng.integers(1, len(data) + 1)].tobytes()).mode == "RGB"
                except DataError as error:
                    problem = str(error)
                assert "\n" not in problem


def test_cmyk_is_converted() -> None:
    red = decode(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100)).getpixel((1, 1))
    assert isinstance(red, tuple) and red[0] > 240 and max(red[1:]) < 15


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    grey = np.asarray(decode(encoded(Image.fromarray(values))))[0, :, 0]
    assert grey[0] == 0 and abs(int(grey[1]) - 127) <= 1 and grey[2] == 255


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    picture = Image.new("L", (3, 2), 255).convert(mode)
    found = decode(encoded(picture, "TIFF" if mode in "IF" else "PNG"))
    assert (found.mode, found.size) == ("RGB", (3, 2))
    assert np.asarray(found).min() == 255


def test_palette_gives_its_colours() -> None:
    picture = Image.new("RGB", (2, 1), (10, 200, 30)).quantize()
    assert decode(encoded(picture)).getpixel((0, 0)) == (10, 200, 30)


@pytest.mark.parametrize("transparency", [0, b"\x00"])
def test_transparent_palette_is_laid_on_white(transparency: int | bytes) -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putpixel((1, 0), 1)
    found = decode(encoded(picture, transparency=transparency))
    assert [found.getpixel((0, 0)), found.getpixel((1, 0))] == [(255, 255, 255), (0, 0, 200)]


def test_half_transparent_is_mixed_with_white() -> None:
    red = decode(encoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))).getpixel((0, 0))
    assert isinstance(red, tuple) and red[0] == 255 and abs(red[1] - 127) <= 1


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("blue", "red", "lime")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((0, 0)) == (0, 0, 255)


def test_one_pixel() -> None:
    assert decode(encoded(Image.new("RGB", (1, 1), "red"))).size == (1, 1)


def test_exif_orientation_turns_the_picture_upright() -> None:
    picture = Image.new("RGB", (6, 2), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    found = decode(encoded(picture, exif=exif))
    assert found.size == (2, 6)
    assert found.getpixel((1, 0)) == (255, 0, 0)


def test_broken_files_stay_as_rows_with_a_reason(photo_folder: Callable[..., Path]) -> None:
    folder = photo_folder({"cat": 2, "dog": 2})
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "cat" / "text.jpg").write_text("hello")
    (folder / "dog" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    images = load_images(folder)
    assert len(images) == 7
    for name in ("cat/empty.jpg", "cat/text.jpg", "dog/gone.jpg"):
        with pytest.raises(UnreadableImageError, match=f"^{name}: "):
            images.open(images.ids.index(name))
    assert images.open(0).size == (8, 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(photo_folder: Callable[..., Path]) -> None:
    folder = photo_folder({"cat": 2, "dog": 2})
    os.mkfifo(folder / "cat" / "pipe.jpg")
    (folder / "dog" / "zero.jpg").symlink_to("/dev/zero")
    images = load_images(folder)
    assert len(images) == 6 and "2 of 6 images are missing (first: cat/pipe.jpg)" in images.notes
    for name in ("cat/pipe.jpg", "dog/zero.jpg"):
        with pytest.raises(UnreadableImageError, match=f"^{name}: not an ordinary file$"):
            images.open(images.ids.index(name))
