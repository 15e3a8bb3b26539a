"""Measures a scan in two processes on two cores against one process on one core and one process on both.

The sketches of the demonstration and the bundled model, `--peft vpt-deep`, one batch size for all; the seconds are
those of the whole command, and those of an epoch of training.

Example::

    python benchmarks/processes.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from labelsieve.demo import MINI_CLIP
from labelsieve.demo.run import write_sketches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """What to measure.

    Attributes:
        count: Drawings.
        epochs: Epochs.
        batch: B.
    """

    count: int = 2000
    epochs: int = 3
    batch: int = 64


def run(options: Processes) -> None:
    """Prints a Markdown table."""
    python = [sys.executable, "-m"]
    launch = [*python, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    kinds = {
        "1 process, 1 core": (python, 1, "0"),
        "1 process, 2 cores": (python, 2, "0,1"),
        "2 processes, 2 cores": (launch, 1, "0,1"),
    }
    print("| | seconds | epoch, s | times the first |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as made:
        write_sketches(Path(made) / "drawings.parquet", count=options.count, seed=0)
        first = 0.0
        for name, (start, threads, cores) in kinds.items():
            out = Path(made) / f"run-{len(name)}-{threads}"
            words = [*start, "labelsieve", "scan", str(Path(made) / "drawings.parquet"), "--out", str(out)]
            words += ["--model", str(MINI_CLIP), "--peft", "vpt-deep", "--device", "cpu", "--min-steps", "0"]
            words += ["--epochs", str(options.epochs), "--batch-size", str(options.batch)]
            environment = os.environ | {
                "OMP_NUM_THREADS": str(threads),
                "LABELSIEVE_CACHE": str(Path(made) / f"cache-{out.name}"),
            }
            started = time.perf_counter()
            subprocess.run(["taskset", "-c", cores, *words], env=environment, check=True, capture_output=True)
            seconds = time.perf_counter() - started
            history = json.loads((out / "run.json").read_text())["history"]
            epoch = min(record["seconds"] for record in history)
            first = first or epoch
            print(f"| {name} | {seconds:.1f} | {epoch:.1f} | {first / epoch:.2f} |", flush=True)


if __name__ == "__main__":
    run(tyro.cli(Processes, description=__doc__))
