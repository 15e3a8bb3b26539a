"""Measures time and memory from features to verdicts and report, up to a million rows and a thousand classes.

Each cell is a process of its own. It holds N rows of features in a memory-mapped file, and text features of K classes,
so that there is no model and no picture in what is measured: scoring (`joint`, or another detector that takes
features), deciding, writing and the report. It tells by how much the largest resident size exceeds that before the
scan, with libraries and labels loaded (`VmHWM` and `VmRSS` of Linux).

Example::

    OMP_NUM_THREADS=2 python benchmarks/verdicts.py
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import labelsieve as ls
from labelsieve.data.features import LabelledFeatures
from labelsieve.detect.registry import detector_class
from labelsieve.report.label_report import write_report
from memory import megabytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerdictsAtScale:
    """Which sizes to measure.

    Attributes:
        rows: N.
        classes: K.
        width: D.
        detectors: Names of detectors that take features.
        cell: Measure one detector with N rows in this process: used by the script itself.
    """

    rows: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    classes: int = 1_000
    width: int = 64
    detectors: tuple[str, ...] = ("label-match", "joint")
    cell: tuple[str, int] | None = None


def make(folder: Path, rows: int, classes: int, width: int) -> LabelledFeatures:
    """Returns features around class centres, with a fifth of the labels wrong; the features lie in a file."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(classes, width)).astype(np.float32)
    truth = rng.integers(0, classes, rows)
    labels = np.where(rng.random(rows) < 0.2, rng.integers(0, classes, rows), truth)
    path = folder / "features.npy"
    features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
    for start in range(0, rows, 65_536):
        part = truth[start : start + 65_536]
        features[start : start + len(part)] = text[part] + rng.normal(size=(len(part), width))
    features.flush()
    return LabelledFeatures(
        features=np.load(path, mmap_mode="r"),
        ids=tuple(f"photos/{row:07d}.jpg" for row in range(rows)),
        labels=labels,
        class_names=tuple(f"class {k}" for k in range(classes)),
        contents=np.arange(rows, dtype=np.uint64),
        text=text,
        logit_scale=20.0,
        truth=truth,
    )


def measure(options: VerdictsAtScale) -> dict[str, Any]:
    """Returns megabytes and seconds of one cell, in this process."""
    assert options.cell is not None
    name, rows = options.cell
    with tempfile.TemporaryDirectory() as made:
        data = make(Path(made), rows, options.classes, options.width)
        before = megabytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the largest size starts anew; making the data had its own
        started = time.perf_counter()
        verdicts = ls.scan(data, None, detector=detector_class(name)(), out=Path(made) / "run")
        scanned = time.perf_counter() - started
        peak = megabytes("VmHWM") - before
        started = time.perf_counter()
        write_report(verdicts, data, Path(made) / "report.html")
        return {
            "scan": scanned,
            "scoring": verdicts.record["seconds"],
            "report": time.perf_counter() - started,
            "peak": peak,
            "peak_with_report": megabytes("VmHWM") - before,
        }


def run(options: VerdictsAtScale) -> None:
    """Prints a Markdown table, and how the time of a scan grows with N."""
    print("| detector | rows | scoring, s | scan in all, s | report, s | peak, MB | with report, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in options.detectors:
        seconds = []
        for rows in options.rows:
            words = [sys.executable, __file__, "--cell", name, str(rows)]
            words += ["--classes", str(options.classes), "--width", str(options.width)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds.append(found["scan"])
            cells = [f"{found[key]:.1f}" for key in ("scoring", "scan", "report")]
            cells += [f"{found[key]:.0f}" for key in ("peak", "peak_with_report")]
            print(f"| {name} | {rows:,} | " + " | ".join(cells) + " |", flush=True)
        slope = float(np.polyfit(np.log(options.rows), np.log(seconds), 1)[0])
        print(f"\n{name}: seconds grow with rows to the power of {slope:.2f}\n", flush=True)


if __name__ == "__main__":
    chosen = tyro.cli(VerdictsAtScale, description=__doc__)
    if chosen.cell is None:
        run(chosen)
    else:
        print(json.dumps(measure(chosen)))
