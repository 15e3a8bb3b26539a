"""How much could any selection gain? A linear head on what is selected where the noise is known exactly.

Symmetric noise is put into right labels. The probability that a label is right is then the posterior under the true
rate: of all detectors that score by the same features none can know more of the noise. Class probabilities are those of
the smoothed out-of-fold discriminant, at the temperature that makes the noisy labels most likely under the true noise.
What this selects, or weighs, is compared with cross-entropy on all images and with the images that are truly right.

Example::

    OMP_NUM_THREADS=1 python benchmarks/known_noise.py clothing_train.parquet --test clothing_test.parquet \
        --model models/clip --rate 0.6
"""

from __future__ import annotations

import dataclasses
import math
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.data.noise import inject
from labelsieve.detect.evidence.discriminants import fit_discriminants
from labelsieve.detect.scores import Scores
from labelsieve.finetune.settings import Adaptation
from labelsieve.flagging import FlagRule
from labelsieve.verdicts import decide
from labelsieve.vlm.features import image_features

# Name, p_clean from which on images are selected (None for all of them), and the weighting.
WAYS: dict[str, tuple[float | None, str]] = {
    "cross-entropy on all": (None, "none"),
    "selected above 0.2": (0.2, "none"),
    "selected above 0.3": (0.3, "none"),
    "selected above 0.5": (0.5, "none"),
    "weighed by p_clean": (None, "p_clean"),
}
ORACLE = "truly right"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """What to measure.

    Attributes:
        source: Images with right labels, to put noise into.
        test: Images with right labels, to test on. Nothing is chosen by them.
        model: Hub id or folder.
        rate: Share of wrong labels.
        seeds: Each draws the noise, the folds and the training.
    """

    source: tyro.conf.Positional[str]
    test: str
    model: str
    rate: float = 0.6
    seeds: tuple[int, ...] = tuple(range(12))


def posterior(images: ls.LabelledImages, vlm: Any, *, rate: float, seed: int) -> NDArray[np.float32]:
    """Returns the probability that each label is right, (N,), under symmetric noise of a known rate."""
    engine, classes = make_engine(seed=seed), len(images.class_names)
    pooled = image_features(images, vlm, engine=engine).pooled
    rows, labels = np.arange(len(images)), images.labels
    _, smoothed = fit_discriminants(pooled, labels, rows=rows, classes=classes, folds=10, generator=engine.generator(1))
    logits = smoothed.logits(rows, torch.from_numpy(np.array(pooled)))

    def split(log_temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        given = (logits / math.exp(log_temperature)).softmax(dim=1)[torch.arange(len(rows)), torch.from_numpy(labels)]
        return given * (1 - rate), (1 - given) * rate / (classes - 1)

    def loss(log_temperature: float) -> float:
        right, wrong = split(log_temperature)
        return float(-(right + wrong).log().mean())

    right, wrong = split(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)
    return np.asarray((right / (right + wrong)).numpy(), dtype=np.float32)


def accuracy(
    images: ls.LabelledImages, clean: NDArray[np.float32], way: tuple[float | None, str], bound: Bound, seed: int
) -> float:
    """Returns the accuracy of a linear head on the test images."""
    least, weighting = way
    scores = Scores(
        label_quality=clean, predicted=images.labels, confidence=clean, rule=FlagRule(threshold=least or 0.0)
    )
    verdicts = decide(images, scores)
    settings = Adaptation(
        tune="linear",
        labels="all" if least is None else "selected",
        drop_at=1.0,
        weighting=weighting,  # type: ignore[arg-type]
    )
    test = ls.load_images(bound.test)
    made = ls.adapt(images, verdicts, backbone=bound.model, settings=settings, test=test, seed=seed)
    return float(made.metrics["test"]["accuracy"])


def run(bound: Bound) -> None:
    """Prints a Markdown table."""
    images, vlm = ls.load_images(bound.source), ls.load_vlm(bound.model)
    found: dict[str, list[float]] = {name: [] for name in (*WAYS, ORACLE)}
    for seed in bound.seeds:
        noisy = inject(images, kind="symmetric", rate=bound.rate, seed=seed)
        clean = posterior(noisy, vlm, rate=bound.rate, seed=seed)
        for name, way in WAYS.items():
            found[name].append(100 * accuracy(noisy, clean, way, bound, seed))
        truth = (noisy.labels == images.labels).astype(np.float32)
        found[ORACLE].append(100 * accuracy(noisy, truth, (0.5, "none"), bound, seed))
    print("| trained on | accuracy, % | less cross-entropy on all, points |\n|---|---:|---:|")
    base = found["cross-entropy on all"]
    for name, values in found.items():
        gains = [value - other for value, other in zip(values, base, strict=True)]
        error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        print(f"| {name} | {mean(values):.1f} ± {stdev(values):.1f} | {mean(gains):+.1f} ± {error:.1f} |", flush=True)


if __name__ == "__main__":
    run(tyro.cli(Bound))
