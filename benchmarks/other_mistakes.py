"""Mistakes of kinds that no file of features has a column of: which are found, and how many are estimated?

`some`: 40 % of the labels of half of the classes, which each seed draws, become the class whose mean feature is
nearest; the others are right. Evidence that has learned from such labels is less sure of these classes, and so is a
weak model of classes that it does not know, whose right labels should be left alone. `pair`: 10 % of all labels become
the nearest class. `alike`: 20 % become the likeliest wrong class of a discriminant of the true labels, out of fold, and
the more often the less it tells the image from that class. `mixed`: 15 % of that kind, but still more often of such
images, and 7 % any class. `even`: 20 % any class. `right`: none. `pair-30`, `alike-40` and `even-40` strike another
share, in %. With `--classes` each seed draws other classes of a file.

Example::

    OMP_NUM_THREADS=1 python benchmarks/other_mistakes.py cifar10n.npz clothing.npz cifar100.npz tiny-imagenet.npz
    OMP_NUM_THREADS=1 python benchmarks/other_mistakes.py weak.npz --encode clothing.parquet --model photo-clip \\
        --mistakes some right
    OMP_NUM_THREADS=1 python benchmarks/other_mistakes.py many-10.npz --drawn 1000 10 --mistakes even pair alike right
    OMP_NUM_THREADS=1 python benchmarks/other_mistakes.py cifar100.npz --classes 59 31 --mistakes pair-30 alike-40
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_predict

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.data.features import LabelledFeatures
from labelsieve.detect.base import Detector
from labelsieve.detect.inputs import detector_inputs

DETECTORS: dict[str, Detector] = {
    "joint": ls.Joint(),
    "label-match": ls.LabelMatch(),
    "knn": ls.KNN(),
    "aum": ls.AUM(),
    "confident-learning": ls.ConfidentLearning(),
    "prototype-gmm": ls.PrototypeGMM(),
    "simifeat": ls.SimiFeat(),
}


class Geometry(NamedTuple):
    """Which classes are near.

    Attributes:
        nearest: Shape (K,): for each class the other one whose mean of the normalised features is nearest by cosine.
        likeliest: Shape (N,): for each row the likeliest wrong class.
        rank: Shape (N,): how little the row is told from it, from 0 to 1 within its class.
    """

    nearest: NDArray[np.int64]
    likeliest: NDArray[np.int64]
    rank: NDArray[np.float64]


def geometry(features: NDArray[np.float32], truth: NDArray[np.int64]) -> Geometry:
    """Returns which classes are near, by the true labels."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[truth == label].mean(axis=0) for label in range(truth.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similarity = means @ means.T
    np.fill_diagonal(similarity, -2.0)
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    wrong = cross_val_predict(discriminant, unit, truth, cv=3, method="predict_proba")
    wrong[np.arange(len(truth)), truth] = 0.0
    rank = np.empty(len(truth))
    for label in np.unique(truth):
        rows = np.flatnonzero(truth == label)
        rank[rows] = (wrong[rows].max(axis=1).argsort().argsort() + 0.5) / len(rows)
    return Geometry(similarity.argmax(axis=1), wrong.argmax(axis=1), rank)


def _chosen(count: int, weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = rng.choice(len(weights), count, replace=False, p=weights / weights.sum())
    return rows


def _some(truth: NDArray[np.int64], near: Geometry, rng: np.random.Generator) -> NDArray[np.int64]:
    classes = rng.permutation(len(near.nearest))[: len(near.nearest) // 2]
    wrong = np.isin(truth, classes) & (rng.random(len(truth)) < 0.4)
    return np.where(wrong, near.nearest[truth], truth)


def _pair(truth: NDArray[np.int64], near: Geometry, rng: np.random.Generator, share: float = 0.1) -> NDArray[np.int64]:
    return np.where(rng.random(len(truth)) < share, near.nearest[truth], truth)


def _alike(truth: NDArray[np.int64], near: Geometry, rng: np.random.Generator, share: float = 0.2) -> NDArray[np.int64]:
    given, rows = truth.copy(), _chosen(round(share * len(truth)), near.rank, rng)
    given[rows] = near.likeliest[rows]
    return given


def _mixed(truth: NDArray[np.int64], near: Geometry, rng: np.random.Generator) -> NDArray[np.int64]:
    given, rows = truth.copy(), _chosen(round(0.15 * len(truth)), near.rank**2, rng)
    given[rows] = near.likeliest[rows]
    rows = rng.choice(len(truth), round(0.07 * len(truth)), replace=False)
    classes = len(near.nearest)
    given[rows] = (truth[rows] + rng.integers(1, classes, len(rows))) % classes
    return given


def _even(truth: NDArray[np.int64], near: Geometry, rng: np.random.Generator, share: float = 0.2) -> NDArray[np.int64]:
    classes = len(near.nearest)
    others = (truth + rng.integers(1, classes, len(truth))) % classes
    return np.where(rng.random(len(truth)) < share, others, truth)


def _right(truth: NDArray[np.int64], _near: Geometry, _rng: np.random.Generator) -> NDArray[np.int64]:
    return truth


MISTAKES = {"some": _some, "pair": _pair, "alike": _alike, "mixed": _mixed, "even": _even, "right": _right}


def with_mistakes(data: LabelledFeatures, near: Geometry, kind: str, seed: int) -> LabelledFeatures:
    """Returns rows with right labels as they are where some of these are wrong, and the right ones as their truth.

    Args:
        data: The rows.
        near: Which of their classes are near.
        kind: A name of `MISTAKES`, and -PERCENT for another share of them where the kind has but one.
        seed: Which are wrong.
    """
    name, _, percent = kind.partition("-")
    share = {"share": int(percent) / 100} if percent else {}
    given = MISTAKES[name](data.labels, near, np.random.default_rng(seed), **share)
    return data.with_labels(given, truth=data.labels)


def some_classes(data: LabelledFeatures, classes: int, per_class: int, seed: int) -> LabelledFeatures:
    """Returns so many of the classes, and of the images of each, at random."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(data.class_names))[:classes])
    rows = np.concatenate([rng.permutation(np.flatnonzero(data.labels == label))[:per_class] for label in chosen])
    return ls.load_features(
        data.features[rows],
        labels=np.searchsorted(chosen, data.labels[rows]),
        class_names=[data.class_names[label] for label in chosen],
        text=None if data.text is None else data.text[chosen],
        logit_scale=data.logit_scale,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherMistakes:
    """What to measure.

    Attributes:
        sources: Files of features with `truth`, and `text` of the classes for label-match.
        encode: Images with right labels, whose features are written to the one source first.
        classes: So many classes at random, another draw for each seed, and so many images of each.
        drawn: Numbers of classes and of images of each: random features, as :func:`draw` makes them, are written first.
        label_column: Column of these labels.
        limit: So many of these images at random.
        model: What encodes them.
        mistakes: Kinds of mistakes, as `pair` or `pair-30`.
        seeds: Each draws other mistakes.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    encode: Path | None = None
    classes: tuple[int, int] | None = None
    drawn: tuple[int, int] | None = None
    label_column: str = "label"
    limit: int | None = None
    model: str = "openai/clip-vit-base-patch16"
    mistakes: tuple[str, ...] = tuple(MISTAKES)
    seeds: tuple[int, ...] = (0, 1, 2)


def encode(job: OtherMistakes, images: Path) -> None:
    """Writes the features of images in the joint space, and the text features of their classes."""
    data = ls.load_images(images, label_column=job.label_column, limit=job.limit)
    inputs = detector_inputs(data, ls.load_vlm(job.model), engine=make_engine())
    np.savez_compressed(
        job.sources[0],
        features=inputs.all_joint().cpu().numpy(),
        truth=inputs.given,
        class_names=np.array(inputs.class_names),
        text=np.empty(0) if inputs.text is None else inputs.text.cpu().numpy(),
        logit_scale=inputs.logit_scale,
    )


def draw(path: Path, classes: int, per_class: int) -> None:
    """Writes random features of many classes, ten to a kind, and text features of a model that knows most of them.

    A class is the mean of its kind and its own part, both Gaussian; images and names lie around it. The zero-shot model
    is right on two images of three, the true means on 98 % (1,000 classes), and its logit scale fits the true labels.
    """
    rng, width = np.random.default_rng(0), 256
    kinds = rng.normal(size=(-(-classes // 10), width))
    means = np.sqrt(0.6) * kinds[np.arange(classes) // 10] + np.sqrt(0.4) * rng.normal(size=(classes, width))
    truth = np.repeat(np.arange(classes), per_class)
    features = means[truth] + 2.5 * rng.normal(size=(len(truth), width))
    text = means + rng.normal(size=means.shape)
    features, text = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (features, text))
    cosines = features[:: max(1, len(truth) // 2000)] @ text.T
    labels = truth[:: max(1, len(truth) // 2000)]
    scale = min(
        range(5, 100), key=lambda each: log_loss(labels, softmax(each * cosines, axis=1), labels=range(classes))
    )
    names = np.array([f"class {number}" for number in range(classes)])
    np.savez(
        path, features=np.float32(features), truth=truth, class_names=names, text=np.float32(text), logit_scale=scale
    )


def measured(cases: Sequence[LabelledFeatures], job: OtherMistakes, detector: Detector) -> str:
    """Returns cells of a table, in %: issue F1, AUROC, flagged, and the shares that are estimated and truly wrong."""
    found: dict[str, list[float]] = {"issue_f1": [], "auroc": [], "flagged": [], "estimated": [], "true": []}
    for seed, rows in zip(job.seeds, cases, strict=True):
        verdicts = ls.scan(rows, detector=detector, seed=seed)
        estimate, metrics = verdicts.record["estimate"], verdicts.metrics or {}
        if metrics["noise_rate"]:
            found["issue_f1"].append(100 * metrics["issue_f1"])
            found["auroc"].append(100 * metrics["auroc"])
        found["flagged"].append(100 * float(verdicts.is_issue.mean()))
        if estimate:
            found["estimated"].append(100 * estimate["wrong_labels"]["value"] / len(rows))
        found["true"].append(100 * metrics["noise_rate"])
    return " | ".join(map(spread, found.values()))


def spread(values: Sequence[float]) -> str:
    """Returns mean and spread, a dash where there are no values."""
    return f"{mean(values):.1f} ± {stdev(values) if len(values) > 1 else 0:.1f}" if values else "n/a"


def main(job: OtherMistakes) -> None:
    """Prints a table."""
    if job.encode:
        encode(job, job.encode)
    if job.drawn:
        draw(job.sources[0], *job.drawn)
    print("| data | mistakes | text | detector | issue F1 | AUROC | flagged | estimated wrong | wrong |")
    print("|---|---|---|---|---:|---:|---:|---:|---:|")
    for source in job.sources:
        data = ls.load_features(source, label_column="truth")
        if job.classes:
            rights = [some_classes(data, *job.classes, seed) for seed in job.seeds]
            places = [(right, geometry(right.features, right.labels)) for right in rights]
        else:
            places = [(data, geometry(data.features, data.labels))] * len(job.seeds)
        for kind in job.mistakes:
            cases = [with_mistakes(*place, kind, seed) for place, seed in zip(places, job.seeds, strict=True)]
            for text in (True, False):
                rows = cases if text else [each.with_text(None, logit_scale=None) for each in cases]
                for name, detector in DETECTORS.items():
                    if text if "text" in detector.requires else detector.uses_text or not text:
                        cells = measured(rows, job, detector)
                        print(
                            f"| {source.stem} | {kind} | {'with' if text else 'none'} | {name} | {cells} |", flush=True
                        )


if __name__ == "__main__":
    main(tyro.cli(OtherMistakes))
