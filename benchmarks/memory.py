"""Measures how much memory a scan takes while the number of images and of classes grows.

Each cell is a process of its own that scans N small pictures of noise, whose labels are spread over K classes and whose
features are cached already. It tells by how much its largest resident size (`ru_maxrss`) exceeds that before the scan,
when libraries, model and data were loaded. The size of N x K float32 numbers stands beside it; the fit of the joint
evidence keeps four such numbers for up to 20,000 images, 256 MB at most.

Example::

    python benchmarks/memory.py
"""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tyro

import labelsieve as ls
from labelsieve.data.noise import write_noisy
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.drawings import CLASS_NAMES
from labelsieve.detect.base import DETECTORS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Which sizes to measure.

    Attributes:
        images: N.
        classes: K.
        detector: Name of a detector with its defaults, but for one epoch.
        cell: Measure only N K in this process: used by the script itself.
        folder: Where the pictures of all cells lie.
    """

    images: tuple[int, ...] = (5_000, 20_000)
    classes: tuple[int, ...] = (16, 256)
    detector: str = "deft"
    cell: tuple[int, int] | None = None
    folder: Path | None = None


def megabytes() -> float:
    """Returns the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(options: Memory) -> None:
    """Prints the growth of one cell in MB."""
    assert options.cell is not None and options.folder is not None and options.detector in DETECTORS
    count, classes = options.cell
    images = ls.load_images(options.folder / f"{count}.parquet")
    names = [f"{name} {number}" for number in range(-(-classes // 16)) for name in CLASS_NAMES][:classes]
    labels = np.random.default_rng(0).integers(0, classes, count)
    images = dataclasses.replace(images, labels=labels, class_names=tuple(names))
    vlm = ls.load_vlm(MINI_CLIP)
    before = megabytes()
    detector = ls.DeFT(epochs=1, min_steps=0) if options.detector == "deft" else ls.LabelMatch()
    ls.scan(images, vlm, detector=detector)
    print(f"{megabytes() - before:.0f}")


def cell(count: int, classes: int, folder: str, detector: str) -> str:
    """Measures one cell in a new process."""
    words = [sys.executable, __file__, "--cell", str(count), str(classes), "--folder", folder, "--detector", detector]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1]


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
            write_noisy(images.with_labels(images.labels, truth=images.labels), Path(folder) / f"{count}.parquet")
            for classes in options.classes:
                words = [sys.executable, __file__, "--cell", str(count), str(classes), "--folder", folder]
                done = subprocess.run(
                    [*words, "--detector", options.detector], capture_output=True, text=True, check=True
                )
                print(
                    f"| {count:,} | {classes} | {done.stdout.split()[-1]} | {count * classes * 4 / 2**20:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Memory))
