"""Selections by the losses of a classifier with a linear head, in the place of a detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import labelsieve as ls
from labelsieve.bench.estimate import estimate
from labelsieve.bench.experiment import read_experiment
from labelsieve.bench.run import run_experiment
from labelsieve.bench.store import CELLS
from labelsieve.cli import main
from labelsieve.core.progress import Progress
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.metrics import evaluate

SETTINGS: dict[str, Any] = {
    "tune": "bitfit",
    "loss": "gmm",
    "epochs": 2,
    "min_steps": 0,
    "learning_rate": 1e-3,
}
DETECT = f"""
title = "Tiny"
task = "detect"
seeds = [0]
tables = [["clean_f1"]]

[model]
mini = "bundled"

[data.drawings]
source = "drawings"
limit = 64
test = "drawings"
test_limit = 24

[noise.sym-25]
kind = "symmetric"
rate = 0.25

[method.gmm]
train_on = "all"
adapt = {{ {", ".join(f"{name} = {json.dumps(value)}" for name, value in SETTINGS.items())} }}
"""


@pytest.mark.slow
def test_a_classifier_selects_what_it_has_small_losses_for(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(DETECT)
    out = run_experiment(read_experiment(tmp_path / "tiny.toml"), tmp_path / "out")
    (row,) = [json.loads(line) for line in (out / CELLS).read_text().splitlines()]

    drawn = ls.load_images(out / "runs" / "drawings-64-0.parquet", label_column="clean_label")
    noisy = ls.inject(drawn, kind="symmetric", rate=0.25, seed=0)
    given = ls.scan(noisy.with_labels(noisy.labels, truth=None), ls.load_vlm(MINI_CLIP), detector=ls.LabelMatch())
    test = ls.load_images(out / "runs" / "drawings-24-1000000.parquet", label_column="clean_label")
    found = ls.adapt(noisy, given, settings=ls.Adaptation(labels="all", **SETTINGS), test=test)
    with torch.inference_mode(), torch.autocast("cpu", enabled=found.record["precision"] == "bf16"):
        pixels = found.backbone.pixels([noisy.open(index) for index in range(64)])
        logits = found.backbone.logits(pixels).float()
    quality = small_mean_posterior(cross_entropy(logits, torch.from_numpy(noisy.labels), reduction="none").numpy())
    expected = evaluate(wrong=noisy.labels != noisy.truth, flagged=quality <= 0.5, quality=quality.astype(np.float32))
    for name in ("clean_precision", "clean_recall", "clean_f1"):
        assert row[name] == pytest.approx(expected[name], abs=1e-6)
    assert row["auroc"] == pytest.approx(expected["auroc"], abs=0.02) and row["auroc"] > 0.8
    assert row["predicted_accuracy"] == pytest.approx((logits.argmax(dim=1).numpy() == noisy.truth).mean(), abs=0.02)
    assert row["test_accuracy"] == found.metrics["test"]["accuracy"] and row["seconds"] > 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('train_on = "all"', "", "expected a detector, found none"),
        ('train_on = "all"', 'train_on = "probe"', 'train_on = "all", to select by a classifier'),
        (
            'train_on = "all"',
            'train_on = "all"\nrecipe = "paper"',
            "train_on all takes no detector",
        ),
        ('loss = "gmm"', 'loss = "gm"', 'got gm (did you mean "gmm"?)'),
        ("[model]", 'text = ["none"]\n[model]', "[method.gmm]: a classifier needs the images and a model"),
    ],
)
def test_wrong_files(old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert old in DETECT
    (tmp_path / "tiny.toml").write_text(DETECT.replace(old, new))
    assert main(["bench", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.slow
def test_it_is_estimated_and_goes_without_test_images(tmp_path: Path) -> None:
    told = DETECT.replace('test = "drawings"\ntest_limit = 24\n', "").replace('"bitfit"', '"linear"')
    (tmp_path / "tiny.toml").write_text(told)
    experiment = read_experiment(tmp_path / "tiny.toml")
    (cost,) = estimate(experiment, experiment.cells(), progress=Progress()).values()
    assert cost is not None and cost.seconds > 0
