"""Batches of pictures: the same whoever decodes them, with random crops that the seed alone decides on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from labelsieve.data.images import LabelledImages
from labelsieve.data.input.batches import Augment, batches
from labelsieve.data.loading import load_images


@pytest.fixture
def images(photo_folder: Callable[..., Path]) -> LabelledImages:
    """Twelve pictures, the fifth of which cannot be read."""
    folder = photo_folder({"cat": 6, "dog": 6})
    (folder / "cat" / "4.png").write_bytes(b"no picture")
    return load_images(folder)


def plain(picture: Image.Image, _row: int) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy())


def picture(seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return torch.from_numpy(values).permute(2, 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_without_the_unreadable(images: LabelledImages, workers: int) -> None:
    wanted = [[7, 0], [4], [3, 4, 5], [], [11], [1]]
    rows = [np.array(part, dtype=np.int64) for part in wanted]
    before = torch.get_rng_state()
    found: list[Any] = list(batches(images, rows, transform=plain, device=torch.device("cpu"), workers=workers))
    assert torch.equal(torch.get_rng_state(), before), "the generator of the user was drawn from"
    assert [batch.rows.tolist() for batch in found] == [[7, 0], [], [3, 5], [], [11], [1]]
    assert [sorted(batch.errors) for batch in found] == [[], [4], [4], [], [], []]
    assert found[1].errors[4] == "cat/4.png: not an image that can be decoded"
    for batch in found:
        for row, value in zip(batch.rows.tolist(), batch.inputs, strict=True):
            assert np.array_equal(value.numpy(), np.asarray(images.open(row)))


def test_crops_are_those_of_seed_epoch_and_row() -> None:
    first = Augment(16, seed=3, epoch=2)(picture(), 5)
    assert first.shape == (3, 16, 16) and first.dtype == torch.uint8
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(Augment(16, seed=3, epoch=2)(picture(), 5), first)
    assert torch.equal(torch.get_rng_state(), before), "the generator of the user was drawn from"
    for seed, epoch, row in ((4, 2, 5), (3, 3, 5), (3, 2, 6)):
        assert not torch.equal(Augment(16, seed=seed, epoch=epoch)(picture(), row), first)


def test_crops_keep_as_much_as_is_said_and_half_of_them_are_turned() -> None:
    """On a picture whose red is the column and whose green is the row, a crop says where it was taken."""
    ramp = np.zeros((200, 200, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200)[None, :], np.arange(200)[:, None]
    shares, turned = [], []
    for row in range(60):
        crop = Augment(64, seed=0, epoch=1)(torch.from_numpy(ramp).permute(2, 0, 1), row).int()
        across, down = (int(values.max() - values.min()) for values in (crop[0], crop[1]))
        shares.append(across * down / 200**2)
        turned.append(bool(crop[0, 0, 0] > crop[0, 0, -1]))
    assert min(shares) > 0.4 and max(shares) <= 1, "at least a half of the area, less the rim that is smoothed away"
    assert max(shares) - min(shares) > 0.2
    assert 15 < sum(turned) < 45


@pytest.mark.parametrize("layout", ["rows of colours", "planes"])
@pytest.mark.parametrize("side", [16, 64])
def test_crops_are_those_of_the_transforms_of_torchvision(layout: str, side: int) -> None:
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.5, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )
    pixels = picture() if layout == "rows of colours" else picture().contiguous()
    for row in range(12):
        ours = Augment(side, seed=3, epoch=2)(pixels, row)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([3, 2, row]).generate_state(1)[0]))
            assert torch.equal(ours, theirs(pixels))
