"""Prepared pictures on disk: what the processor of each kind of model makes, and no photo is decoded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from labelsieve.data.images import LabelledImages
from labelsieve.data.input import batches
from labelsieve.data.input.batches import unit
from labelsieve.data.input.preprocessed import Preprocessed, preprocessed_images
from labelsieve.data.loading import load_images
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.label_match import LabelMatch
from labelsieve.finetune.backbones import load_backbone
from labelsieve.finetune.run import adapt
from labelsieve.finetune.settings import Adaptation
from labelsieve.pipeline import scan
from labelsieve.vlm.loading import load_vlm
from slow_cases import mostly_slow
from small_backbones import BACKBONES, backbone_folder
from small_families import TINY_FAMILIES


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(batches, "default_workers", lambda: 0)  # so that decoding can be counted in this process
    return tmp_path / "cache" / "pixels"


def photos(count: int = 12, *, seed: int = 0) -> LabelledImages:
    rng, pictures = np.random.default_rng(seed), []
    for row in range(count):
        shape = [(40, 70), (90, 60), (33, 33)][row % 3]
        pictures.append(Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)))
    return load_images(pictures, labels=np.arange(count) % 2, class_names=("cat", "dog"))


def check(model: Any) -> None:
    images = photos()
    crop = Preprocessed(model)
    for row in range(3):
        picture = images.open(row)
        values = crop(picture)
        assert crop.is_exact(picture) and values.dtype == np.uint8
        expected = model.pixels([picture])
        found = model.normalise(unit(torch.from_numpy(values).permute(2, 0, 1)[None]))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", mostly_slow(TINY_FAMILIES, quick={"clip", "siglip"}))
def test_bytes_hold_all_that_a_model_prepares(name: str, tmp_path: Path) -> None:
    for needed in TINY_FAMILIES[name].needs:
        pytest.importorskip(needed)
    TINY_FAMILIES[name].make(tmp_path)
    check(load_vlm(str(tmp_path)))


@pytest.mark.parametrize("kind", mostly_slow(BACKBONES, quick={"vit", "resnet"}))
def test_bytes_hold_all_that_a_backbone_prepares(kind: str, tmp_path: Path) -> None:
    check(load_backbone(str(backbone_folder(tmp_path / "model", kind)), ["a", "b"]))


class Decoded:
    """Counts how often pictures are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, whole = 0, LabelledImages.open

        def open_(images: LabelledImages, index: int) -> Image.Image:
            self.count += 1
            return whole(images, index)

        monkeypatch.setattr(LabelledImages, "open", open_)

    def since(self) -> int:
        before, self.count = self.count, 0
        return before


SAMPLES = 8  # at most, to see how large pictures are and what becomes of them


def test_no_photo_is_decoded_after_the_first_epoch_of_a_scan(
    cache: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, decoded = photos(), Decoded(monkeypatch)
    options: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
    detector = DeFT(peft="vpt-deep", visual_prompts=2, epochs=2, min_steps=0, evidence="threshold")
    first = scan(images, tiny_clip, detector=detector, **options)
    assert 24 <= decoded.since() <= 24 + 12 + SAMPLES  # features, first epoch; `_estimate` looks at all 12, too
    again = scan(images, tiny_clip, detector=detector, **options)
    assert decoded.since() <= SAMPLES
    assert again.table.equals(first.table)
    monkeypatch.setenv("LABELSIEVE_CACHE_LIMIT", "0")
    assert scan(images, tiny_clip, detector=detector, **options).table.equals(first.table), "kept or not, all the same"


def test_no_test_photo_is_decoded_twice(cache: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, test, decoded = photos(), photos(30, seed=1), Decoded(monkeypatch)
    verdicts = scan(images, tiny_clip, detector=LabelMatch(), device="cpu", precision="fp32")
    counts = []
    for epochs in (1, 2):
        decoded.since()
        settings = Adaptation(labels="all", epochs=epochs, min_steps=0, batch_size=8)
        adapt(images, verdicts, backbone=tiny_clip.name, settings=settings, test=test, device="cpu", precision="fp32")
        counts.append(decoded.since())
    assert 30 + 12 <= counts[0] <= 30 + 24 + 30 + SAMPLES and counts[1] <= SAMPLES


def test_a_model_that_prepares_no_bytes_prepares_each_time(cache: Path, tiny_clip: Any) -> None:
    class Blurred:
        image_size, fingerprint = tiny_clip.image_size, "blurred"
        normalise = staticmethod(tiny_clip.normalise)

        def pixels(self, images: Any) -> Tensor:
            found: Tensor = tiny_clip.pixels(images)
            return (found + found.roll(1, -1)) / 2

    assert preprocessed_images(photos(), Blurred(), accelerator=Accelerator(cpu=True)) is None
    assert not cache.exists()


def test_unreadable_photos_are_told_from_the_cache_too(cache: Path, tiny_clip: Any, photo_folder: Any) -> None:
    folder = photo_folder({"cat": 4, "dog": 4})
    (folder / "cat" / "1.png").write_bytes(b"no picture")
    detector = DeFT(peft="vpt-deep", visual_prompts=2, epochs=1, min_steps=0, evidence="threshold")
    for _ in range(2):
        found = scan(load_images(folder), tiny_clip, detector=detector, device="cpu", precision="fp32")
        assert [error is not None for error in found.table.column("error").to_pylist()].count(True) == 1
