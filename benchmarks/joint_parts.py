"""What is each part of the joint evidence for? `joint` with one part taken out or replaced, on files of features.

Each cell is one scan. The table has, for each kind of noise, the mean issue F1 over the files and seeds, then the mean
error of the estimated share of wrong labels, and what is flagged where all labels are right. With `--per-class` only so
many images of each class are taken, which other parts are for.

Example::

    OMP_NUM_THREADS=1 python benchmarks/joint_parts.py cifar10n.npz clothing.npz cifar100.npz tiny-imagenet.npz
    OMP_NUM_THREADS=1 python benchmarks/joint_parts.py cifar100.npz tiny-imagenet.npz --per-class 5
    OMP_NUM_THREADS=1 python benchmarks/joint_parts.py cifar10n.npz --noises worst one majority
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import labelsieve as ls
from labelsieve.data.features import LabelledFeatures
from labelsieve.detect.evidence.discriminants import Discriminant, fit_discriminants
from labelsieve.detect.evidence.fit import _likeliest
from labelsieve.detect.evidence.noise_model import AssumedNoise, Joined, even_confusion
from labelsieve.detect.evidence.noise_rate import _minimum_count, noise_rate
from labelsieve.detect.folds import random_folds


def _one_discriminant(*args: Any, **named: Any) -> tuple[Discriminant, Discriminant]:
    """Gives the discriminant that is shrunk for few images alone in the place of the smoothed one, too."""
    first, _ = fit_discriminants(*args, **named)
    return first, first


def _folds_by_chance(labels: NDArray[np.int64], *, folds: int, generator: torch.Generator) -> NDArray[np.int64]:
    return random_folds(len(labels), folds=folds, generator=generator)


def _always_differ(sample: Any, start: Any) -> Any:
    """Takes the classes for different, whatever the evidence shows."""
    return _likeliest(sample, start, biased=False)


def _unlike_pair_noise(joined: Any, surest: Any, kind: Any, **named: Any) -> Any:
    """Estimates the rate as if class-dependent noise were far from pair noise."""
    return noise_rate(joined, surest, kind, **{**named, "like_pair": 0.0})


def _even_confusion(joined: Joined) -> torch.Tensor:
    return even_confusion(joined.logits.shape[1])


_NOISE = "labelsieve.detect.evidence.noise_model."
_FIT, _RATE = "labelsieve.detect.evidence.fit.", "labelsieve.detect.evidence.noise_rate."
_POSTERIOR = "labelsieve.detect.evidence.posterior."
# Each part by what stands in its place: where it is looked up, and the value.
PARTS: dict[str, tuple[tuple[str, Any], ...]] = {
    "joint": (),
    "one discriminant": ((_POSTERIOR + "fit_discriminants", _one_discriminant),),
    "folds by chance": (("labelsieve.detect.evidence.discriminants.stratified_folds", _folds_by_chance),),
    "classes always differ": ((_FIT + "_if_classes_differ", _always_differ),),
    "classes never differ": ((_FIT + "_if_classes_differ", lambda *_: None),),
    "sharpness by likelihood": ((_FIT + "noise_rate", lambda *_, **__: None),),
    "rate of the surest": ((_RATE + "RISE", 1.0), (_RATE + "INSTANCE_RISE", 1.0), (_RATE + "FLOOR", 0.0)),
    "class-dependent noise always rises": ((_FIT + "noise_rate", _unlike_pair_noise),),
    "no reliability curve": ((_FIT + "reliability_rate", lambda *_, **__: None),),
    "doubt counts as wrong": ((_RATE + "_without_doubt", lambda _joined, surest: surest.shares),),
    "always the surest 15 %": (
        (_RATE + "_where_flat", lambda hits: _minimum_count(len(hits))),
        (_RATE + "SURE_STEP", 1e9),
    ),
    "symmetric noise alone": ((_FIT + "_assumed_noise", lambda *_: (AssumedNoise.SYMMETRIC, 0.0)),),
    "no pair noise": ((_FIT + "PAIR_GAIN", math.inf),),
    "pair noise whatever it strikes": ((_FIT + "strikes_all_alike", lambda *_: True),),
    "pair noise whatever the image tells": ((_FIT + "_images_tell_more", lambda *_: False),),
    "an even prior confusion": (
        (_FIT + "prior_confusion", _even_confusion),
        (_NOISE + "prior_confusion", _even_confusion),
    ),
    "no instance-dependent noise": (
        (_FIT + "INSTANCE_GAIN", math.inf),
        (_FIT + "INSTANCE_GAIN_OVER_SYMMETRIC", math.inf),
    ),
    "symmetric where no confusion shows": ((_FIT + "INSTANCE_GAIN_OVER_SYMMETRIC", math.inf),),
    "few images show symmetric noise": ((_RATE + "_unsure_of_symmetric", lambda _joined: 0.0),),
    "flagged at one half": ((_POSTERIOR + "best_threshold", lambda _clean: 0.5),),
}
NOISES = ("sym2", "sym4", "pair3", "inst4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointParts:
    """What to measure.

    Attributes:
        sources: Files of features with `truth`, `text`, and labels `label_NOISE_SEED`, or `label_NOISE` for all seeds.
        noises: Names of the noises.
        seeds: Their seeds.
        per_class: So many images of each class at random; all of them if it is not given.
        text: Whether the text features are used, too.
        parts: Names out of the table in this file.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    noises: tuple[str, ...] = NOISES
    seeds: tuple[int, ...] = (0,)
    per_class: int | None = None
    text: bool = True
    parts: tuple[str, ...] = tuple(PARTS)


class Cell(NamedTuple):
    """What one scan gave, in %."""

    issue_f1: float | None
    error: float
    flagged: float


def rows_of(data: LabelledFeatures, per_class: int | None, seed: int) -> NDArray[np.int64]:
    """Returns so many rows of each class, ascending; all of them for None."""
    order = np.random.default_rng(seed).permutation(len(data))
    if per_class is None:
        return np.sort(order)
    truth = data.labels if data.truth is None else data.truth
    return np.sort(np.concatenate([order[truth[order] == k][:per_class] for k in range(len(data.class_names))]))


def label_of(source: Path, noise: str, seed: int) -> str:
    """Returns the name of the array of labels with a noise."""
    with np.load(source) as arrays:
        return name if (name := f"label_{noise}_{seed}") in arrays else f"label_{noise}"


def measured(job: JointParts, source: Path, label: str, seed: int) -> Cell:
    """Scans one file with one column of labels."""
    data = ls.load_features(source, label_column=label, truth_column="truth")
    data = data.take(rows_of(data, job.per_class, seed))
    verdicts = ls.scan(data if job.text else data.with_text(None, logit_scale=None), detector=ls.Joint(), seed=seed)
    metrics, estimate = verdicts.metrics or {}, verdicts.record["estimate"]
    share = estimate["wrong_labels"]["value"] / len(data) if estimate else math.nan
    return Cell(
        100 * metrics["issue_f1"] if metrics["noise_rate"] else None,
        100 * abs(share - metrics["noise_rate"]),
        100 * float(verdicts.is_issue.mean()),
    )


def row(job: JointParts, part: str) -> str:
    """Returns the row of one part."""
    with ExitStack() as stack:
        for name, value in PARTS[part]:
            stack.enter_context(patch(name, value))
        cells = {
            noise: [
                measured(job, source, label_of(source, noise, seed), seed)
                for source in job.sources
                for seed in job.seeds
            ]
            for noise in job.noises
        }
        right = [measured(job, source, "truth", seed) for source in job.sources for seed in job.seeds]
    scores = [f"{mean(cell.issue_f1 or 0.0 for cell in each):.1f}" for each in cells.values()]
    error = _mean([cell.error for each in cells.values() for cell in each])
    return f"| {part} | " + " | ".join([*scores, error, _mean([cell.flagged for cell in right])]) + " |"


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{mean(known):.1f}" if known else "n/a"


def main(job: JointParts) -> None:
    """Prints a table."""
    print("| part | " + " | ".join(job.noises) + " | error of the rate | flagged where all are right |")
    print("|---|" + "---:|" * (len(job.noises) + 2))
    for part in job.parts:
        print(row(job, part), flush=True)


if __name__ == "__main__":
    main(tyro.cli(JointParts))
