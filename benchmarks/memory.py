"""Measures how much memory a scan takes while the number of images and of classes grows.

Each cell is a process of its own that scans N small pictures of noise, whose labels are spread over K classes and whose
features are cached already. It tells by how much its largest resident size during the scan exceeds that before it, with
libraries, model and data loaded (`VmHWM` and `VmRSS` of Linux). The size of N x K float32 numbers stands beside it.

Example::

    python benchmarks/memory.py
    python benchmarks/memory.py --cold
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.data.noise_files import write_noise
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.sketches import CLASS_NAMES
from labelsieve.vlm.features import image_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Which sizes to measure.

    Attributes:
        images: N.
        classes: K.
        detector: Name of a detector with its defaults, but for one epoch.
        cold: Leave the features to the scan, so that reading the pictures is measured with it.
        cell: Measure only N K in this process: used by the script itself.
        folder: Where the pictures of all cells lie.
    """

    images: tuple[int, ...] = (5_000, 20_000)
    classes: tuple[int, ...] = (16, 256)
    detector: Literal["deft", "label-match"] = "deft"
    cold: bool = False
    cell: tuple[int, int] | None = None
    folder: Path | None = None


def megabytes(field: str) -> float:
    """Returns a size of this process: `VmRSS`, resident now, or `VmHWM`, the largest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def measure(options: Memory) -> None:
    """Prints the growth of one cell in MB."""
    assert options.cell is not None and options.folder is not None
    count, classes = options.cell
    images = ls.load_images(options.folder / f"{count}.parquet")
    names = [f"{name} {number}" for number in range(-(-classes // 16)) for name in CLASS_NAMES][:classes]
    labels = np.random.default_rng(0).integers(0, classes, count)
    images = dataclasses.replace(images, labels=labels, class_names=tuple(names))
    vlm = ls.load_vlm(MINI_CLIP)
    before = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest size starts anew; loading had a peak of its own
    detector = ls.DeFT(epochs=1, min_steps=0, peft="none") if options.detector == "deft" else ls.LabelMatch()
    ls.scan(images, vlm, detector=detector)
    print(f"{megabytes('VmHWM') - before:.0f}")


def main(options: Memory) -> None:
    """Measures all cells."""
    if options.cell is not None:
        measure(options)
        return
    print("| images | classes | growth in MB | N x K float32 in MB |\n|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for count in options.images:
            pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
            images = ls.load_images(list(pixels), labels=np.arange(count) % 16, class_names=CLASS_NAMES)
            write_noise(images.with_labels(images.labels, truth=images.labels), Path(folder) / f"{count}.parquet")
            warm = Path(folder) / "cache"
            if not options.cold:  # in a process that is not measured
                os.environ["LABELSIEVE_CACHE"] = str(warm)
                image_features(
                    ls.load_images(Path(folder) / f"{count}.parquet"), ls.load_vlm(MINI_CLIP), engine=make_engine()
                )
            for classes in options.classes:
                words = [sys.executable, __file__, "--cell", str(count), str(classes), "--folder", folder]
                words += ["--detector", options.detector, *(["--cold"] if options.cold else [])]
                cache = Path(folder) / f"cache-{count}-{classes}" if options.cold else warm
                environment = os.environ | {"LABELSIEVE_CACHE": str(cache)}
                done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
                print(
                    f"| {count:,} | {classes} | {done.stdout.split()[-1]} | {count * classes * 4 / 2**20:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Memory))
