"""Measures time and memory from a COCO file of boxes to a corrected one: read, scored on stored features, written back.

The set is made on the spot, with tiny images. Each size is a process of its own, and each step tells its seconds and
the largest resident size of the process until then (`ru_maxrss` of Linux), libraries and all.

Example::

    OMP_NUM_THREADS=2 python benchmarks/boxes.py
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

import labelsieve as ls
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.review.apply import apply

WIDTH = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxesAtScale:
    """What to measure.

    Attributes:
        images: Numbers of images; COCO has 118,000.
        boxes_an_image: Boxes in each; COCO has 860,000 in all.
        classes: K.
        one: Measure the set of this folder, in this process: used by the script itself.
    """

    images: tuple[int, ...] = (59_000, 118_000)
    boxes_an_image: float = 7.29
    classes: int = 80
    one: Path | None = None


def make(folder: Path, options: BoxesAtScale, images: int) -> None:
    """Writes images of 16 x 16 pixels, `annotations.json` with polygons as COCO has them, and features."""
    rng = np.random.default_rng(0)
    boxes = round(options.boxes_an_image * images)
    (folder / "images").mkdir(parents=True)
    for number in range(images):
        shade = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        shade.save(folder / "images" / f"{number:012d}.png", compress_level=1)
    truth, labels = (rng.integers(0, options.classes, boxes) for _ in range(2))
    labels = np.where(rng.random(boxes) < 0.2, labels, truth)
    centres = rng.normal(size=(options.classes, WIDTH)).astype(np.float32)
    features = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float32, shape=(boxes, WIDTH))
    for start in range(0, boxes, 65_536):
        part = truth[start : start + 65_536]
        features[start : start + len(part)] = centres[part] + rng.normal(size=(len(part), WIDTH))
    features.flush()
    write(folder / "annotations.json", labels, rng.integers(0, images, boxes), rng, options)


def write(
    path: Path, labels: np.ndarray, image_of: np.ndarray, rng: np.random.Generator, options: BoxesAtScale
) -> None:
    """Writes a COCO file, annotation by annotation."""
    with path.open("w") as file:
        file.write('{"info": {"year": 2026}, "licenses": [], "images": [')
        count = len(list((path.parent / "images").iterdir()))
        names = ({"id": each, "file_name": f"{each:012d}.png", "width": 16, "height": 16} for each in range(count))
        file.write(", ".join(map(json.dumps, names)))
        file.write('], "annotations": [')
        for row, (label, image) in enumerate(zip(labels.tolist(), image_of.tolist(), strict=True)):
            left, top, width, height = (round(float(value), 2) for value in rng.uniform(2, 8, 4))
            around = [left, top, left + width, top, left + width, top + height, left, top + height]
            found = {
                "segmentation": [around * 2],
                "area": width * height,
                "iscrowd": 0,
                "image_id": image,
                "bbox": [left, top, width, height],
                "category_id": label + 1,
                "id": row + 1,
            }
            file.write((", " if row else "") + json.dumps(found))
        classes = [
            {"supercategory": "thing", "id": each + 1, "name": f"class {each}"} for each in range(options.classes)
        ]
        file.write(f'], "categories": {json.dumps(classes)}}}')


@contextmanager
def step(name: str, found: dict[str, float]) -> Iterator[None]:
    """Times a step, and notes the largest size of the process until its end."""
    start = time.perf_counter()
    yield
    found[f"{name}, s"] = round(time.perf_counter() - start, 1)
    found[f"{name}, GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def measure(folder: Path) -> dict[str, float]:
    """Reads, scores and writes the set of a folder."""
    found: dict[str, float] = {"file, MB": round((folder / "annotations.json").stat().st_size / 1e6)}
    source = folder / "annotations.json"
    with step("read", found):
        images = ls.load_images(source)
    with step("scored", found):
        verdicts = ls.scan(_features(images, folder), detector=ls.Joint())
    found["boxes"], found["flagged"] = len(images), int(verdicts.is_issue.sum())
    with step("written", found):
        labels = np.where(verdicts.is_issue, verdicts.predicted, verdicts.given)
        apply(images, labels, options={"source": str(source)}, out=folder / "corrected.json")
    return found


def _features(images: LabelledImages, folder: Path) -> LabelledFeatures:
    return LabelledFeatures(
        features=np.load(folder / "features.npy", mmap_mode="r"),
        ids=images.ids,
        labels=images.labels,
        class_names=images.class_names,
        contents=images.contents,
    )


def main(options: BoxesAtScale) -> None:
    """Measures each size in a process of its own."""
    if options.one is not None:
        print(json.dumps(measure(options.one)))
        return
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "set"
            make(place, options, images)
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(place)], check=True, stdout=subprocess.PIPE, text=True
            )
        print(f"{images:,} images: {done.stdout.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(BoxesAtScale))
