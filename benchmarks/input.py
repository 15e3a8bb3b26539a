"""Measures how fast training gets its pictures: kept decoded, against decoding in each epoch with Pillow in the loop.

2,000 JPEG photos of about 500 x 375 are made on the spot. Plainly means what the published code does: open, crop,
resize, flip and convert with Pillow, in the same worker processes. The step is nothing, so that what is
measured is the input alone, and then a training step of a vision transformer with random weights, whose time without
any input stands beside it.

Example::

    python benchmarks/input.py
"""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from transformers import CLIPVisionConfig, CLIPVisionModel

from labelsieve.core.engine import make_engine
from labelsieve.data.input.batches import Augment, batches, crop_area, default_workers
from labelsieve.data.input.image_cache import cached_images
from labelsieve.data.loading import load_images

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """What to measure.

    Attributes:
        count: Photos.
        batch: B.
        size: Side of a crop in pixels.
        patch: Side of a patch of the image encoder that the real step trains, of ViT-B's other sizes.
        steps: Real steps to measure.
    """

    count: int = 2000
    batch: int = 64
    size: int = 224
    patch: int = 32
    steps: int = 8


class Plain(Dataset[torch.Tensor]):
    """Photos as the published code reads them."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, (0.5, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.48, 0.46, 0.41), (0.27, 0.26, 0.28)),
            ]
        )

    def __getitem__(self, row: int) -> torch.Tensor:
        with Image.open(self.files[row]) as picture:
            return self.transform(picture.convert("RGB"))  # type: ignore[no-any-return]


def write_photos(folder: Path, count: int) -> list[Path]:
    """Writes photos of two classes: smooth shapes under fine grain, at the quality of a camera."""
    rng, files = np.random.default_rng(0), []
    for row in range(count):
        height, width = (int(side) for side in rng.integers((355, 480), (396, 521)))
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), 3)
        grain = rng.normal(0, 12, (height, width, 1))
        data = io.BytesIO()
        picture = Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))
        picture.save(data, "JPEG", quality=90)
        files.append(folder / "ab"[row % 2] / f"{row}.jpg")
        files[-1].parent.mkdir(exist_ok=True)
        files[-1].write_bytes(data.getvalue())
    return files


def drain(batches_of: Iterable[Any]) -> float:
    """Returns the seconds that going through all batches takes."""
    started = time.perf_counter()
    for _ in batches_of:
        pass
    return time.perf_counter() - started


def run(settings: Input) -> None:
    """Prints a Markdown table and the times of real steps."""
    workers = default_workers()
    order = np.random.default_rng(1).permutation(settings.count)
    rows = [order[at : at + settings.batch] for at in range(0, settings.count, settings.batch)]
    with tempfile.TemporaryDirectory() as made:
        files = write_photos(Path(made), settings.count)
        mean = np.mean([path.stat().st_size for path in files]) / 1e3
        os.environ["LABELSIEVE_CACHE"] = str(Path(made) / ".cache")
        images = load_images(made)
        files = [Path(made) / name for name in images.ids]
        pictures = cached_images(images, area=crop_area(settings.size), accelerator=Accelerator(cpu=True))

        def ours(number: int) -> Any:
            return batches(pictures, rows, transform=Augment(settings.size, seed=0, epoch=number), device=CPU)

        plain = DataLoader(
            Plain(files, settings.size), batch_sampler=[part.tolist() for part in rows], num_workers=workers
        )
        print(f"{settings.count} photos, {mean:.0f} kB each on average, {workers} worker(s)\n")
        print("| epoch | plain, s | ours, s | ratio |\n|---:|---:|---:|---:|")
        for number in (1, 2, 3):
            before, now = drain(plain), drain(ours(number))
            print(f"| {number} | {before:.2f} | {now:.2f} | {before / now:.1f} |", flush=True)
        _real_steps(settings, ours(4), len(rows))


def _real_steps(settings: Input, loader: Any, batches_in_all: int) -> None:
    """Measures training steps with pictures as they come, and with one that is there already."""
    engine = make_engine(device="cpu")
    config = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=settings.size,
        patch_size=settings.patch,
    )
    encoder = CLIPVisionModel(config).train()

    def step(inputs: torch.Tensor) -> None:
        with engine.autocast():
            pooled = encoder(pixel_values=inputs.float() / 255).pooler_output
        pooled.float().square().sum().backward()

    steps, waited, busy = min(settings.steps, batches_in_all - 1), 0.0, 0.0
    found = iter(loader)
    step(next(found).inputs)  # the first one sets up what the others have
    for _ in range(steps):
        started = time.perf_counter()
        inputs = next(found).inputs
        waited += time.perf_counter() - started
        started = time.perf_counter()
        step(inputs)
        busy += time.perf_counter() - started
    print(f"\n{steps} real steps ({engine.precision}): {busy / steps:.2f} s each")
    print(f"waiting for the input of each: {waited / steps:.3f} s")


if __name__ == "__main__":
    run(tyro.cli(Input, description=__doc__))
