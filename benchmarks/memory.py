"""Measures how much memory a scan takes while the number of images and of classes grows.

Each cell is a process of its own that scans N small drawings whose labels are spread over K classes, with features that
are cached already, and tells the largest resident size (`ru_maxrss`) above that of a process which has only loaded the
libraries, the model and the data. N x K float32 numbers, the array that is never held, stand beside it.

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
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.drawings import CLASS_NAMES, drawings
from labelsieve.detect.base import DETECTORS
from labelsieve.engine import make_engine
from labelsieve.vlm.features import image_features


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

    images: tuple[int, ...] = (4_000, 16_000)
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
    image_features(images, vlm, engine=make_engine())
    before = megabytes()
    detector = ls.DeFT(epochs=1, min_steps=0) if options.detector == "deft" else ls.LabelMatch()
    ls.scan(images, vlm, detector=detector)
    print(f"{megabytes() - before:.0f}")


def main(options: Memory) -> None:
    """Measures all cells."""
    if options.cell is not None:
        measure(options)
        return
    print("| images | classes | growth in MB | N x K float32 in MB |\n|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for count in options.images:
            pictures, labels = drawings(count, seed=0)
            from labelsieve.data.noise import write_noisy

            clean = ls.load_images(pictures, labels=labels, class_names=CLASS_NAMES)
            write_noisy(clean.with_labels(clean.labels, truth=clean.labels), Path(folder) / f"{count}.parquet")
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
