"""How well are wrong labels found that only some of the classes have, and what is flagged where all labels are right?

Half of the classes, drawn at random, have 40 % of their labels given as the class whose mean feature is nearest; the
others have right labels. Evidence that has learned from such labels is less sure of these classes, and so is a weak
model of classes that it does not know, whose right labels should be left alone: the two belong side by side.

Example::

    OMP_NUM_THREADS=1 python benchmarks/some_classes.py cifar10n.npz clothing.npz
    OMP_NUM_THREADS=1 python benchmarks/some_classes.py weak.npz --encode clothing.parquet --model photo-clip
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import tyro
from numpy.typing import NDArray

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.data.features import LabelledFeatures
from labelsieve.detect.base import Detector
from labelsieve.detect.inputs import detector_inputs

DETECTORS: dict[str, Detector] = {
    "joint": ls.Joint(),
    "label-match": ls.LabelMatch(),
    "prototype-gmm": ls.PrototypeGMM(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SomeClasses:
    """What to measure.

    Attributes:
        sources: Files of features with `truth`, and `text` of the classes for label-match.
        encode: Images with right labels, whose features are written to the one source first.
        label_column: Column of these labels.
        limit: So many of these images at random.
        model: What encodes them.
        share: Share of the classes that have wrong labels.
        rate: Share of wrong labels among their images.
        seeds: Each draws the classes and the wrong labels.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    encode: Path | None = None
    label_column: str = "label"
    limit: int | None = None
    model: str = "openai/clip-vit-base-patch16"
    share: float = 0.5
    rate: float = 0.4
    seeds: tuple[int, ...] = (0, 1, 2)


def encode(job: SomeClasses, images: Path) -> None:
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
    """Returns cells of a table, in %: issue F1, estimated and true share of wrong labels, and flagged right labels."""
    found: dict[str, list[float]] = {"issue_f1": [], "estimated": [], "true": [], "right": []}
    for seed in job.seeds:
        rows = noisy(data, job, seed)
        verdicts = ls.scan(rows, detector=detector, seed=seed)
        estimate, metrics = verdicts.record["estimate"], verdicts.metrics or {}
        found["issue_f1"].append(100 * metrics["issue_f1"])
        if estimate:
            found["estimated"].append(100 * estimate["wrong_labels"]["value"] / len(rows))
        found["true"].append(100 * metrics["noise_rate"])
        found["right"].append(100 * float(ls.scan(data, detector=detector, seed=seed).is_issue.mean()))
    return " | ".join(map(spread, found.values()))


def spread(values: Sequence[float]) -> str:
    """Returns mean and spread, a dash where there are no values."""
    return f"{mean(values):.1f} ± {stdev(values) if len(values) > 1 else 0:.1f}" if values else "n/a"


def main(job: SomeClasses) -> None:
    """Prints a table."""
    if job.encode:
        encode(job, job.encode)
    print("| data | text | detector | issue F1 | estimated wrong | wrong | flagged where all are right |")
    print("|---|---|---|---:|---:|---:|---:|")
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
