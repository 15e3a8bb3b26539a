"""The demonstration: scans of sketches with known wrong labels by four detectors, a comparison and a report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from labelsieve.core.files import write_json, write_text
from labelsieve.core.output_folders import exclusive_folder
from labelsieve.core.progress import Progress
from labelsieve.core.validation import DemoSize, Seed, check_value
from labelsieve.demo import MINI_CLIP
from labelsieve.metrics import METRIC_TITLES
from labelsieve.verdicts import REPORT

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.detect.base import Detector
    from labelsieve.vlm.base import VisionLanguageModel

SYMMETRIC, SIMILAR_CLASS = 0.2, 0.1
"""Shares of labels that are changed to any other class, and to the most similar class."""

SKETCHES_FILE, COMPARISON = "drawings.parquet", "comparison"
_LEGEND = (
    "clean: right labels kept; issue: wrong labels found; P precision, R recall; AUROC and AP of the issues; "
    "s: seconds without reading the images, which happens once"
)


def run_demo(
    out: Path,
    *,
    images: int = 2000,
    seed: int = 0,
    console: Console,
    overwrite: bool = False,
    detectors: Sequence[Detector] | None = None,
) -> dict[str, Any]:
    """Draws images, mislabels 30 % of them, scans them with each detector, and compares the results.

    20 % of the labels are changed to any other class, and another 10 % to the most similar class.

    Args:
        out: Folder for `drawings.parquet`, the run of the first detector with its report, and the comparison.
        images: Number of sketches, 48 to 20,000.
        seed: All random numbers derive from it.
        console: Where to print.
        overwrite: Whether to replace an existing run.
        detectors: Detectors to compare; by default DeFT, label-match, small-loss (with the true noise rate) and GMM.

    Returns:
        The content of `comparison.json`: `images`, `classes`, `seed`, `noise_rate`, and one record per detector.

    Raises:
        SettingsError: The number of images or the seed is out of range.
        RunError: The folder already has a run, or cannot be written to.
    """
    from labelsieve.run_folder import check_run_folder
    from labelsieve.vlm.loading import load_vlm

    check_value("images", images, DemoSize)
    check_value("seed", seed, Seed)
    with exclusive_folder(out):
        check_run_folder(out, overwrite=overwrite, resume=False)
        progress = Progress(console)
        progress.say(f"drawing {images:,} images and mislabelling {SYMMETRIC + SIMILAR_CLASS:.0%} of them")
        data = write_sketches(out / SKETCHES_FILE, count=images, seed=seed)
        vlm = load_vlm(MINI_CLIP)
        _cache_features(data, vlm, progress)
        rows = [
            _scan(data, vlm, detector, progress=progress, seed=seed, out=None if index else out)
            for index, detector in enumerate(detectors or default_detectors())
        ]
        result = {
            "images": images,
            "classes": len(data.class_names),
            "seed": seed,
            "noise_rate": rows[0]["metrics"]["noise_rate"],
            "detectors": rows,
        }
        _save(result, out)
        console.print()
        console.print(_table(rows))
        progress.say(_LEGEND)
        progress.say(f"\nreport: {out / REPORT}   (open it in a browser)")
    return result


def default_detectors() -> tuple[Detector, ...]:
    """Returns DeFT and the detectors that the paper compares with it; small-loss gets the true noise rate.

    The image encoder is frozen, so that the demonstration takes seconds on any machine.
    """
    from labelsieve.detect.deft.detector import DeFT
    from labelsieve.detect.gmm import GMM
    from labelsieve.detect.label_match import LabelMatch
    from labelsieve.detect.small_loss import SmallLoss
    from labelsieve.detect.training.settings import frozen_if_auto

    detectors = (DeFT(), LabelMatch(), SmallLoss(noise_rate=SYMMETRIC + SIMILAR_CLASS), GMM())
    return tuple(frozen_if_auto(detector) for detector in detectors)


def write_sketches(path: Path, *, count: int, seed: int) -> LabelledImages:
    """Writes mislabelled sketches with their true labels, and loads them as a user would.

    Args:
        path: The Parquet file to write.
        count: Number of sketches.
        seed: Seed of the sketches and of the wrong labels.
    """
    from labelsieve.data.loading import load_images
    from labelsieve.data.noise_files import write_noise
    from labelsieve.demo.sketches import CLASS_NAMES, sketches

    images, labels = sketches(count, seed=seed)
    clean = load_images(images, labels=labels, class_names=CLASS_NAMES)
    write_noise(mislabel(clean, seed=seed), path)
    return load_images(path, truth_column="clean_label")


def mislabel(images: LabelledImages, *, seed: int) -> LabelledImages:
    """Changes exactly 20 % of the labels to any other class, and another 10 % to the most similar class."""
    from labelsieve.data.noise import paired, symmetric
    from labelsieve.demo.sketches import SIMILAR

    names = images.class_names
    target = np.array([names.index(SIMILAR.get(name, name)) for name in names], dtype=np.int64)
    noisy = symmetric(images.labels, classes=len(names), rate=SYMMETRIC, seed=seed)
    unchanged = np.flatnonzero(noisy == images.labels)
    rate = round(SIMILAR_CLASS * len(images)) / len(unchanged)
    noisy[unchanged] = paired(images.labels[unchanged], target=target, rate=rate, seed=seed + 1)
    return images.with_labels(noisy, truth=images.labels)


def _cache_features(images: LabelledImages, vlm: VisionLanguageModel, progress: Progress) -> None:
    """Caches the features, so that the time of the first detector does not include extracting them."""
    from labelsieve.core.engine import make_engine
    from labelsieve.vlm.features import image_features

    engine = make_engine(progress=progress)
    image_features(images, vlm.to(engine.device), engine=engine)


def _scan(
    images: LabelledImages,
    vlm: VisionLanguageModel,
    detector: Detector,
    *,
    progress: Progress,
    seed: int,
    out: Path | None,
) -> dict[str, Any]:
    """Scans with one detector, and writes the run folder and the report if `out` is given."""
    from labelsieve.detect.registry import DETECTORS
    from labelsieve.pipeline import scan
    from labelsieve.report.label_report import write_report

    name = DETECTORS.label_of(detector)
    progress.say(f"scanning with {name}")
    start = time.perf_counter()
    verdicts = scan(images, vlm, detector=detector, seed=seed, progress=progress, out=out, overwrite=True)
    seconds = time.perf_counter() - start
    if out is not None:
        write_report(verdicts, images, out / REPORT)
    return {"detector": name, "settings": detector, "seconds": round(seconds, 1), "metrics": verdicts.metrics}


def _save(result: Mapping[str, Any], out: Path) -> None:
    write_json(out / f"{COMPARISON}.json", result)
    header = ["detector", *METRIC_TITLES.values(), "s"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *(_cells(row) for row in result["detectors"])]
    description = (
        f"{result['images']:,} sketches of {result['classes']} classes, {result['noise_rate']:.1%} wrong labels, "
        f"seed {result['seed']}."
    )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    write_text(out / f"{COMPARISON}.md", f"{description}\n\n{table}\n\n{_LEGEND[0].upper()}{_LEGEND[1:]}.\n")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("detector", no_wrap=True)
    for title in (*METRIC_TITLES.values(), "s"):
        table.add_column(title, justify="right", no_wrap=True)
    best = max(rows, key=lambda row: float(row["metrics"]["issue_f1"]))
    for row in rows:
        table.add_row(*_cells(row), style="bold" if row is best else None)
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    values = (row["metrics"][key] for key in METRIC_TITLES)
    shares = ("\N{EN DASH}" if value is None else f"{value:.3f}" for value in values)
    return [row["detector"], *shares, f"{row['seconds']:.1f}"]
