"""How good is the consensus of several annotators, and how well are wrong votes found?

Each method gets the same labels and, but for the vote and Dawid-Skene, the same out-of-fold class probabilities: those
of `--detector joint` on the vote. Reads a `.npz` file of features with `truth`, and labels:

* `cifar10n`: the people of CIFAR-10N. Each image has three labels, of which the file has one, their majority and the
  worst. Those fix the three but for rare ties and the third label where two wrong ones are alike (:func:`of_people`).
* `simulated`: five annotators who are right on 95, 80, 70 and 60 % and by chance, each image labelled by three of them.

Example::

    python benchmarks/annotators.py cifar10n.npz --kind cifar10n --seeds 0 1 2
    python benchmarks/annotators.py clothing.npz --kind simulated --seeds 0 1 2
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from cleanlab.multiannotator import get_label_quality_multiannotator
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.core.seeds import Purpose
from labelsieve.data.annotators import Annotations, vote
from labelsieve.data.features import LabelledFeatures
from labelsieve.detect.evidence.annotators import Chunks, fit_annotators
from labelsieve.detect.evidence.discriminants import fit_discriminants, logits_of
from labelsieve.detect.evidence.fit import fit_joint
from labelsieve.detect.inputs import detector_inputs

ACCURACIES = (0.95, 0.8, 0.7, 0.6)
LABELS_AN_IMAGE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure.

    Attributes:
        source: A `.npz` file of features with `truth` and `class_names`.
        kind: Where the labels come from.
        texts: The text features to use; `none` for none.
        seeds: Of the labels and of the scan.
    """

    source: tyro.conf.Positional[Path]
    kind: Literal["cifar10n", "simulated"] = "simulated"
    texts: tuple[str, ...] = ("text", "none")
    seeds: tuple[int, ...] = (0, 1, 2)


def of_people(arrays: Any, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns the three labels of each image of CIFAR-10N, (N, 3), from one of them, their majority and the worst.

    What these leave open is taken to be right (the third label beside two equal wrong ones); the second and the third
    are put in random order. The truth serves to read "worst" alone, which is a wrong label if there is one.
    """
    truth, one, most, worst = (
        arrays[name].astype(np.int64) for name in ("truth", "label_one", "label_majority", "label_worst")
    )
    others = np.empty((len(truth), 2), dtype=np.int64)
    for row, (right, first, common, wrong) in enumerate(zip(truth, one, most, worst, strict=True)):
        if first == right:
            pair = (wrong, right) if common == right else (wrong, common)
        elif common == right:
            pair = (right, right) if wrong == first else (wrong, right)
        elif common == first:
            pair = (first, right) if wrong == first else (first, wrong)
        else:
            pair = (common, common if wrong in (common, first) else wrong)
        others[row] = rng.permutation(pair)
    return np.column_stack([one, others])


def simulated(truth: NDArray[np.int64], classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns labels of five annotators, (N, 5), -1 where one did not label an image."""
    accuracies = np.array([*ACCURACIES, 1 / classes])
    right = rng.random((len(truth), len(accuracies))) < accuracies
    other = (truth[:, None] + rng.integers(1, classes, right.shape)) % classes
    chosen = rng.random(right.shape).argsort(axis=1) < LABELS_AN_IMAGE
    return np.where(chosen, np.where(right, truth[:, None], other), -1)


def probabilities(data: LabelledFeatures, *, seed: int) -> NDArray[np.float64]:
    """Returns the class probabilities of `joint`, (N, K)."""
    inputs = detector_inputs(data, None, engine=make_engine(seed=seed, device="cpu"))
    options: dict[str, Any] = {"rows": inputs.rows, "classes": inputs.classes}
    pooled, generator = inputs.features.pooled, inputs.engine.generator
    folds = generator(Purpose.DISCRIMINANT_FOLDS)
    fitted = fit_discriminants(pooled, inputs.labels, folds=5, generator=folds, **options)

    def evidence(rows: NDArray[np.int64]) -> torch.Tensor:
        zero_shot = [] if inputs.text is None else [inputs.logits(rows)]
        return torch.stack([*zero_shot, *logits_of(fitted, rows, torch.from_numpy(pooled[rows]))]).float()

    calibrated = inputs.text is not None and inputs.zero_shot.knows_names
    drawn = generator(Purpose.POSTERIOR_ROWS)
    model = fit_joint(evidence, inputs.labels, calibrated=calibrated, generator=drawn, **options).model
    return model.logits(evidence(inputs.rows)).softmax(dim=1).double().numpy()


def dawid_skene(labels: NDArray[np.int64], votes: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Returns the posteriors without any image, (N, K)."""
    shares = torch.from_numpy(np.bincount(votes, minlength=classes) / len(votes)).float()
    chunks = Chunks(lambda rows: shares.expand(len(rows), -1), labels, np.arange(len(labels)), classes=classes)
    size, nothing = labels.shape[1], lambda _count: None
    noise = fit_annotators(chunks, annotators=size, classes=classes, votes=votes, rate=None, advance=nothing)
    return np.concatenate([noise.posterior(*chunk).double().numpy() for chunk in chunks])


def measure(name: str, consensus: Any, votes: Any, truth: Any, quality: Any = None, flagged: Any = None) -> None:
    """Prints how many of the consensus are right, and how well wrong votes are found."""
    wrong = votes != truth
    found = consensus != votes if flagged is None else flagged
    line = f"  {name:34} accuracy {100 * (consensus == truth).mean():5.2f}  F1 {100 * f1_score(wrong, found):5.1f}"
    if quality is not None:
        auroc, precision = roc_auc_score(wrong, -quality), average_precision_score(wrong, -quality)
        line += f"  AUROC {100 * auroc:5.2f}  average precision {100 * precision:5.1f}"
    print(line, flush=True)


def compare(arrays: Any, options: Options, texts: str, seed: int) -> None:
    """Prints a line for each method."""
    names, rng = [str(name) for name in arrays["class_names"]], np.random.default_rng(seed)
    truth, everyone = arrays["truth"].astype(np.int64), np.arange(len(arrays["truth"]))
    people = options.kind == "cifar10n"
    labels = of_people(arrays, rng) if people else simulated(truth, len(names), rng)
    votes = vote(labels, classes=len(names))
    known = {} if texts == "none" else {"text": arrays[texts], "logit_scale": float(arrays["logit_scale"])}
    data = ls.load_features(arrays["features"].astype(np.float32), labels=votes, class_names=names, **known)
    data = data.with_labels(votes, truth=truth)
    wrong = 100 * (votes != truth).mean()
    print(f"{options.source.name}, texts {texts}, seed {seed}: {wrong:.2f} % of the votes are wrong")
    measure("majority vote", votes, votes, truth, flagged=np.zeros(len(truth), bool))
    plain = dawid_skene(labels, votes, len(names))
    measure("Dawid-Skene without images", plain.argmax(1), votes, truth, plain[everyone, votes])
    known_classes = probabilities(data, seed=seed)
    table = np.where(labels < 0, np.nan, labels.astype(float))
    for method in ("best_quality", "majority_vote"):
        found = get_label_quality_multiannotator(table, known_classes, consensus_method=method, verbose=False)
        quality = found["label_quality"]
        consensus = quality["consensus_label"].to_numpy()
        if method == "best_quality":
            measure("cleanlab, best_quality", consensus, votes, truth)
        else:  # its score is of its own vote, whose ties may go elsewhere
            score = quality["consensus_quality_score"].to_numpy()
            measure("cleanlab, score of its own vote", consensus, consensus, truth, score, score < 0.5)
    alone = ls.scan(data, detector=ls.Joint(), seed=seed)
    suggested = np.where(alone.is_issue, alone.predicted, votes)
    measure("joint on the vote alone", suggested, votes, truth, alone.label_quality, alone.is_issue)
    several = Annotations(names=tuple(f"annotator {number}" for number in range(labels.shape[1])), labels=labels)
    joined = ls.scan(dataclasses.replace(data, annotations=several), detector=ls.Joint(), seed=seed)
    assert joined.consensus is not None
    place = {name: index for index, name in enumerate(names)}
    consensus = np.array([place[name] for name in joined.consensus["consensus_label"].to_pylist()])
    measure("joint with all annotators", consensus, votes, truth, joined.label_quality, joined.is_issue)
    for number, row in enumerate(joined.record["annotators"]):
        given = labels[:, number] >= 0
        real = (labels[given, number] == truth[given]).mean()
        print(
            f"    {row['name']}: {100 * row['accuracy']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f}), "
            f"truly {100 * real:.1f}"
        )
    estimate = joined.record["estimate"]["wrong_labels"]
    print(f"    estimate of wrong votes {estimate['value']:.0f}, truly {(votes != truth).sum()}", flush=True)


def run(options: Options) -> None:
    """Measures all cells."""
    arrays = np.load(options.source)
    for texts in options.texts:
        for seed in options.seeds:
            compare(arrays, options, texts, seed)


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
