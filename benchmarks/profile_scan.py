"""Measures where the time of a scan goes, stage by stage, and how long the command takes to start.

Example::

    python benchmarks/profile_scan.py drawings
    python benchmarks/profile_scan.py cifar10n_train.parquet --label-column label --model photo-clip
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import tyro

import labelsieve as ls
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.run import write_sketches
from labelsieve.report.label_report import write_report

# Module, name there, and what it is called in the table. A stage within another one counts there only.
STAGES = (
    ("labelsieve.detect.inputs", "image_features", "features of the frozen image encoder"),
    ("labelsieve.detect.inputs", "class_features", "text features of the class names"),
    ("labelsieve.detect.deft.scoring", "train", "training of the prompts"),
    ("labelsieve.detect.evidence.posterior", "fit_discriminants", "discriminants, out of fold"),
    ("labelsieve.detect.evidence.posterior", "score_jointly", "fit of the joint evidence, and scores"),
    ("labelsieve.pipeline", "decide", "verdicts"),
    ("labelsieve.pipeline", "diagnose", "findings"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileScan:
    """What to scan.

    Attributes:
        source: What `labelsieve scan` takes, or `drawings`: 2,000 of the demonstration.
        label_column: Column of the given labels.
        model: Folder of the model; the bundled one by default.
        limit: Random subset of so many images.
        peft: How the image encoder is adapted.
    """

    source: tyro.conf.Positional[str]
    label_column: str | None = None
    model: str = str(MINI_CLIP)
    limit: int | None = None
    peft: Literal["none", "vpt-deep"] = "none"


def run(options: ProfileScan) -> None:
    """Prints a Markdown table."""
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*args, **named)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

        return inner

    for words in ("--version", "--help", "scan --help"):
        command = [sys.executable, "-m", "labelsieve", *words.split()]
        timed(f"`labelsieve {words}`", subprocess.run)(command, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as made:
        os.environ["LABELSIEVE_CACHE"] = str(Path(made) / "cache")
        source = options.source
        if source == "drawings":
            source = str(Path(made) / "drawings.parquet")
            write_sketches(Path(source), count=2000, seed=0)
        images = timed("reading the data", ls.load_images)(
            source, label_column=options.label_column, limit=options.limit
        )
        vlm = timed("reading the model", ls.load_vlm)(options.model)
        with ExitStack() as stack:
            for module, name, said in STAGES:
                whole = __import__(module, fromlist=[name])
                stack.enter_context(patch.object(whole, name, timed(said, getattr(whole, name))))
            verdicts = timed("scan in all", ls.scan)(
                images, vlm, detector=ls.DeFT(peft=options.peft), out=Path(made) / "run"
            )
        timed("report", write_report)(verdicts, images, Path(made) / "report.html")
    print("| stage | seconds |\n|---|---:|")
    for name, seconds in spent.items():
        print(f"| {name} | {seconds:.2f} |")


if __name__ == "__main__":
    run(tyro.cli(ProfileScan, description=__doc__))
