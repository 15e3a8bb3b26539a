"""How well are wrong labels found that only some of the classes have?

Half of the classes, drawn at random, have 40 % of their labels given as the class whose mean feature is nearest; the
others have right labels. Evidence that has learned from such labels is less sure of these classes, so that the surest
images of all show next to no wrong label.

Example::

    OMP_NUM_THREADS=1 python benchmarks/some_classes.py cifar10n.npz clothing.npz
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import tyro
from numpy.typing import NDArray

import labelsieve as ls
from labelsieve.data.features import LabelledFeatures
from labelsieve.detect.base import Detector

DETECTORS: dict[str, Detector] = {
    "joint": ls.Joint(),
    "label-match": ls.LabelMatch(),
    "prototype-gmm": ls.PrototypeGMM(),
    "knn": ls.KNN(),
    "aum": ls.AUM(),
    "confident-learning": ls.ConfidentLearning(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SomeClasses:
    """What to measure.

    Attributes:
        sources: Files of features with `truth`, and `text` of the classes for label-match.
        share: Share of the classes that have wrong labels.
        rate: Share of wrong labels among their images.
        seeds: Each draws the classes and the wrong labels.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    share: float = 0.5
    rate: float = 0.4
    seeds: tuple[int, ...] = (0, 1, 2)


def nearest_class(features: NDArray[np.float32], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each class the other one whose mean of the normalised features is nearest by cosine, (K,)."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[truth == label].mean(axis=0) for label in range(truth.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similarity = means @ means.T
    np.fill_diagonal(similarity, -2.0)
    nearest: NDArray[np.int64] = similarity.argmax(axis=1)
    return nearest


def noisy(data: LabelledFeatures, job: SomeClasses, seed: int) -> LabelledFeatures:
    """Returns the rows with wrong labels in some of the classes."""
    rng, truth = np.random.default_rng(seed), data.labels
    classes = rng.permutation(len(data.class_names))[: round(job.share * len(data.class_names))]
    wrong = np.isin(truth, classes) & (rng.random(len(truth)) < job.rate)
    return data.with_labels(np.where(wrong, nearest_class(data.features, truth)[truth], truth), truth=truth)


def measured(data: LabelledFeatures, job: SomeClasses, detector: Detector) -> str:
    """Returns issue F1, AUROC, and the estimated and the true share of wrong labels, in %, as cells of a table."""
    found: dict[str, list[float]] = {"issue_f1": [], "auroc": [], "estimated": [], "true": []}
    for seed in job.seeds:
        rows = noisy(data, job, seed)
        verdicts = ls.scan(rows, detector=detector, seed=seed)
        estimate, metrics = verdicts.record["estimate"], verdicts.metrics or {}
        found["issue_f1"].append(100 * metrics["issue_f1"])
        found["auroc"].append(100 * metrics["auroc"])
        found["estimated"] += [100 * estimate["wrong_labels"]["value"] / len(rows)] if estimate else []
        found["true"].append(100 * metrics["noise_rate"])
    return " | ".join(map(_spread, found.values()))


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values) if len(values) > 1 else 0:.1f}" if values else "-"


def main(job: SomeClasses) -> None:
    """Prints a table."""
    print("| data | text | detector | issue F1 | AUROC | estimated wrong | wrong |\n|---|---|---|---:|---:|---:|---:|")
    for source in job.sources:
        data = ls.load_features(source, label_column="truth")
        for text in (True, False):
            rows = data if text else data.with_text(None, logit_scale=None)
            for name, detector in DETECTORS.items():
                if ("text" not in detector.requires or text) and (text or detector.uses_text):
                    about = "with" if text and detector.uses_text else "none"
                    print(f"| {source.stem} | {about} | {name} | {measured(rows, job, detector)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(SomeClasses))
