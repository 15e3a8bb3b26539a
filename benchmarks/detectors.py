"""Compares the detectors on one data set with known true labels, over several seeds.

Each cell (detector, seed) is one scan in this process; the features of the untouched model are read once before, so
that `seconds` are those of the detector alone. Finished cells are kept in the CSV file and not run again. A limit draws
another subset for each seed. The truth serves the metrics, and the noise rate that small-loss has to be told.

Example::

    python benchmarks/detectors.py photos.parquet --label-column label --truth-column clean_label \
        --model models/clip --limit 3000 --seeds 0 1 2 --out results/photos-3000.csv
"""

from __future__ import annotations

import csv
import dataclasses
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import tyro

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.core.files import write_atomically, write_text
from labelsieve.core.provenance import versions
from labelsieve.data.noise import inject
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.run import write_sketches
from labelsieve.detect.base import Detector
from labelsieve.detect.deft.detector import RECIPES
from labelsieve.detect.training.settings import frozen_if_auto
from labelsieve.metrics import METRIC_TITLES
from labelsieve.vlm.features import image_features

METRICS = {**METRIC_TITLES, "flagged_rate": "flagged"}

# Each takes the true noise rate, which only small-loss looks at.
DETECTORS: dict[str, Callable[[float], Detector]] = {
    "deft": lambda _rate: ls.DeFT(),
    "deft-untrained": lambda _rate: ls.DeFT(epochs=0),
    "deft-threshold": lambda _rate: ls.DeFT(evidence="threshold"),
    "deft-early-selection": lambda _rate: ls.DeFT(warmup_epochs=1),
    "deft-random-context": lambda _rate: ls.DeFT(context_init="random", context_tokens=16),
    "deft-by-epochs": lambda _rate: ls.DeFT(min_steps=0),
    "deft-paper": lambda _rate: RECIPES["paper"],
    "deft-paper-real": lambda _rate: RECIPES["paper-real"],
    "deft-paper-frozen": lambda _rate: dataclasses.replace(RECIPES["paper"], peft="none"),
    "deft-paper-real-frozen": lambda _rate: dataclasses.replace(RECIPES["paper-real"], peft="none"),
    "label-match": lambda _rate: ls.LabelMatch(),
    "small-loss": lambda rate: ls.SmallLoss(noise_rate=rate),
    "gmm": lambda _rate: ls.GMM(),
    "joint": lambda _rate: ls.Joint(),
    "clip-margin": lambda _rate: ls.ClipMargin(),
    "confident-learning": lambda _rate: ls.ConfidentLearning(),
    "knn": lambda _rate: ls.KNN(),
    "aum": lambda _rate: ls.AUM(),
    "lemon": lambda _rate: ls.Lemon(),
    "prototype-gmm": lambda _rate: ls.PrototypeGMM(),
    "clip-cleaner": lambda _rate: ls.CLIPCleaner(),
    "simifeat": lambda _rate: ls.SimiFeat(),
    "fine": lambda _rate: ls.FINE(),
    "deft-batch-64": lambda _rate: ls.DeFT(batch_size=64),
    "deft-vpt": lambda _rate: ls.DeFT(peft="vpt-deep"),
    "gmm-vpt": lambda _rate: ls.GMM(peft="vpt-deep"),
}


DEFAULT = ("deft", "deft-paper-real-frozen", "label-match", "small-loss", "gmm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One data set, some detectors, some seeds.

    Attributes:
        source: What `labelsieve scan` takes, or `drawings` for those of the demonstration.
        out: CSV file to add to; a Markdown table is written beside it.
        label_column: Column of the given labels.
        truth_column: Column of the true labels.
        model: Hub id or folder; the bundled one for sketches.
        limit: Random subset of so many images, or the number of sketches.
        noise: Inject this kind of noise into the given labels, which then count as the truth.
        rate: How much; with sketches, 0 leaves the labels as they are.
        detectors: Names out of the tables in this file.
        seeds: Each draws the subset, the noise and the training.
    """

    source: tyro.conf.Positional[str]
    out: Path
    label_column: str | None = None
    truth_column: str | None = None
    model: str = str(MINI_CLIP)
    limit: int | None = None
    noise: str | None = None
    rate: float | None = None
    detectors: tuple[str, ...] = DEFAULT
    seeds: tuple[int, ...] = (0, 1, 2)

    def images(self, seed: int) -> ls.LabelledImages:
        """Returns the images of one seed with their truth."""
        if self.source == "drawings":
            images = write_sketches(
                self.out.parent / f"drawings-{self.limit}-{seed}.parquet", count=self.limit or 2000, seed=seed
            )
            if self.noise is None and self.rate is None:
                return images
            assert images.truth is not None
            images = images.with_labels(images.truth, truth=images.truth)
        else:
            images = ls.load_images(
                self.source, label_column=self.label_column, truth_column=self.truth_column, limit=self.limit, seed=seed
            )
        if self.noise is not None:
            return inject(images, kind=self.noise, rate=self.rate, seed=seed)  # type: ignore[arg-type]  # checked there
        return images.with_labels(images.labels, truth=images.labels if images.truth is None else images.truth)


def run(comparison: Comparison) -> None:
    """Runs what is missing and writes the tables."""
    unknown = sorted({*comparison.detectors} - {*DETECTORS})
    if unknown:
        raise SystemExit(f"expected --detectors out of {', '.join(DETECTORS)}; got {', '.join(unknown)}")
    path, rows = comparison.out, _read(comparison.out)
    vlm = ls.load_vlm(comparison.model)
    done = {(row["detector"], int(row["seed"])) for row in rows}
    for seed in comparison.seeds:
        wanted = [name for name in comparison.detectors if (name, seed) not in done]
        if not wanted:
            continue
        images = comparison.images(seed)
        assert images.truth is not None
        image_features(images, vlm, engine=make_engine())
        rate = float((images.truth != images.labels).mean())
        for name in wanted:
            rows.append(_cell(name, seed, images, vlm, rate))
            _write(path, rows)
            print(
                name, seed, {key: rows[-1][key] for key in ("issue_f1", "auroc", "flagged_rate", "seconds")}, flush=True
            )
    write_text(path.with_suffix(".md"), "\n".join(_markdown(rows)) + "\n")


def _cell(name: str, seed: int, images: ls.LabelledImages, vlm: Any, rate: float) -> dict[str, Any]:
    start = time.perf_counter()
    # frozen unless the row says otherwise, so that no machine measures something else
    verdicts = ls.scan(images, vlm, detector=frozen_if_auto(DETECTORS[name](rate)), seed=seed)
    metrics = verdicts.metrics
    assert metrics is not None
    return {
        "detector": name,
        "seed": seed,
        "images": metrics["images"],
        "noise_rate": round(metrics["noise_rate"], 4),
        **{key: "" if metrics[key] is None else round(metrics[key], 4) for key in METRICS},
        "seconds": round(time.perf_counter() - start, 1),
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores {platform.machine()}, {verdicts.record['hardware'].split(',')[0]}",
        "torch": versions()["torch"],
        "fingerprint": images.fingerprint,
        "notes": verdicts.record["notes"][-1] if verdicts.record["notes"] else "",
    }


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with write_atomically(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)


def _markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a table with mean and, of several seeds, sample standard deviation."""
    yield "| detector | seeds | " + " | ".join(METRICS.values()) + " | seconds |"
    yield "|---|" + "---:|" * (len(METRICS) + 2)
    for name in dict.fromkeys(row["detector"] for row in rows):
        own = [row for row in rows if row["detector"] == name]
        cells = [_spread([row[key] for row in own]) for key in METRICS]
        seconds = [float(row["seconds"]) for row in own if row["seconds"] != ""]
        cells.append(f"{mean(seconds):.1f}" if seconds else "n/a")
        yield f"| {name} | {len(own)} | " + " | ".join(cells) + " |"


def _spread(cells: list[Any]) -> str:
    values = [float(cell) for cell in cells if cell != ""]
    if not values:
        return "n/a"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    run(tyro.cli(Comparison))
