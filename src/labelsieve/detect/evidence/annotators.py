"""Several annotators of the same images: the consensus with the image evidence, and the accuracy of each annotator.

This is the model of Dawid and Skene (1979) with the class probability of the image evidence, p_k(x), instead of class
frequencies: `q_k ∝ p_k(x) Π_a (T^a_k,y_a)^t` over the annotators a of the image. The confusions T^a are estimated by
expectation-maximisation and shrunk towards each other, so that an annotator with few labels counts as an average one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress
from labelsieve.detect.chunks import CHUNK
from labelsieve.detect.evidence.fit import Evidence, Fit
from labelsieve.detect.evidence.noise_model import (
    EPSILON,
    FIRST_RATE,
    PRIOR_IMAGES,
    PRIOR_LABELS,
    JointModel,
    Posterior,
    even_confusion,
)
from labelsieve.detect.scores import Crowd

# Maximum number of cells of all confusions; above it, they are even: examples and memory would not suffice.
MAX_CELLS = 2**25
# Maximum number of class probabilities to keep in memory; above it, each round computes them again.
MAX_HELD = 2**26
# Maximum number of rounds, and tolerance, of expectation-maximisation.
ROUNDS, TOLERANCE = 100, 1e-4
# Number of bisection steps in the search for the weight of the labels.
STEPS = 6
# Level of the intervals of accuracies.
LEVEL = 0.95

Probability = Callable[[NDArray[np.int64]], Tensor]
"""Takes n row numbers and returns p_k(x), (n, K)."""


@dataclass(frozen=True, eq=False)
class AnnotatorNoise:
    """The label noise of A annotators: T^a_kk = 1 - ε_ak, T^a_kl = ε_ak R^a_kl.

    Attributes:
        errors: ε, (A, K), between 0 and 1: share of wrong labels by annotator and true class.
        confusion: R, (A, K, K), rows sum to 1, zero on the diagonal; None if all wrong classes are equally likely.
        weight: Exponent t of the likelihood of a label, above 0: 1 if annotators err independently of each other, given
            the class and the image evidence; less if they err on the same images.
    """

    errors: Tensor
    confusion: Tensor | None
    weight: float = 1.0

    @classmethod
    def even(cls, annotators: int, classes: int) -> AnnotatorNoise:
        """Returns the same noise for all annotators and classes, with confusions unless they are too large."""
        confused = annotators * classes**2 <= MAX_CELLS
        even = even_confusion(classes).expand(annotators, classes, classes) if confused else None
        return cls(torch.full((annotators, classes), FIRST_RATE), even)

    def likelihood(self, annotator: int, given: Tensor) -> Tensor:
        """Returns T^a_ky, (n, K), for the labels y of an annotator, (n,)."""
        errors, classes = self.errors[annotator], self.errors.shape[1]
        spread = 1 / max(1, classes - 1) if self.confusion is None else self.confusion[annotator].T[given]
        return (errors * spread).expand(len(given), classes).scatter(1, given[:, None], (1 - errors)[given][:, None])

    def posterior(self, probability: Tensor, annotations: Tensor) -> Tensor:
        """Returns q, (n, K), from p_k(x), (n, K), and the labels of all annotators, (n, A), -1 if missing."""
        logs = probability.clamp(min=EPSILON).log()
        for annotator, given in enumerate(annotations.T):
            rows = (given >= 0).nonzero()[:, 0]
            logs.index_add_(
                0, rows, self.likelihood(annotator, given[rows]).clamp(min=EPSILON).log(), alpha=self.weight
            )
        return logs.softmax(dim=1)

    def informative(self, annotator: int, posterior: Tensor) -> Tensor:
        """Returns the mutual information of an annotator's label and the true class, (n,)."""
        errors, classes = self.errors[annotator], self.errors.shape[1]
        wrong = posterior * errors
        if self.confusion is None:
            others = (wrong.sum(dim=1, keepdim=True) - wrong) / max(1, classes - 1)
            spread = torch.full((classes,), float(np.log(max(1, classes - 1))))
        else:
            others, spread = wrong @ self.confusion[annotator], _entropy(self.confusion[annotator])
        total = _entropy(posterior * (1 - errors) + others)
        known = _entropy(torch.stack([errors, 1 - errors], dim=1)) + errors * spread
        return total - torch.mv(posterior, known)

    def learned(self, chunks: Iterator[tuple[Tensor, Tensor]]) -> AnnotatorNoise:
        """Returns the noise after a round of expectation-maximisation over p_k(x) (m, K) and labels (m, A)."""
        annotators, classes = self.errors.shape
        right, wrong = torch.zeros(annotators, classes), torch.zeros(annotators, classes)
        cells = None if self.confusion is None else torch.zeros(annotators, classes, classes)  # given, true class
        for probability, several in chunks:
            posterior = self.posterior(probability, several)
            for annotator, given in enumerate(several.T):
                rows = (given >= 0).nonzero()[:, 0]
                others, labels = posterior[rows], given[rows]
                of_label = others.gather(1, labels[:, None])
                right[annotator].index_add_(0, labels, of_label[:, 0])
                others = others.scatter(1, labels[:, None], 0.0)
                wrong[annotator] += others.sum(dim=0)
                if cells is not None:
                    cells[annotator].index_add_(0, labels, others)
        confusion = None if cells is None else _confusions(cells.transpose(1, 2))
        return AnnotatorNoise(_errors(right, wrong), confusion, self.weight)


def _errors(right: Tensor, wrong: Tensor) -> Tensor:
    """Returns ε, shrunk: each class towards its annotator, annotators towards their mean, and that to `FIRST_RATE`."""
    common = (wrong.sum() + PRIOR_IMAGES * FIRST_RATE) / (right.sum() + wrong.sum() + PRIOR_IMAGES)
    of_annotator = (wrong.sum(dim=1) + PRIOR_IMAGES * common) / ((right + wrong).sum(dim=1) + PRIOR_IMAGES)
    return (wrong + PRIOR_IMAGES * of_annotator[:, None]) / (right + wrong + PRIOR_IMAGES)


def _confusions(cells: Tensor) -> Tensor:
    """Returns R from expected counts (A, true class, given): annotators are shrunk to their sum, that to an even R."""
    common = cells.sum(dim=0)
    common = (common + PRIOR_LABELS * even_confusion(len(common))) / (common.sum(dim=1, keepdim=True) + PRIOR_LABELS)
    return (cells + PRIOR_LABELS * common) / (cells.sum(dim=2, keepdim=True) + PRIOR_LABELS)


def _entropy(shares: Tensor) -> Tensor:
    total: Tensor = torch.special.entr(shares.clamp(min=0)).sum(dim=-1)
    return total


class Chunks:
    """Class probabilities and labels of the readable images, kept in memory if small, else computed for each pass.

    Args:
        probability: Function from n row numbers to p_k(x), (n, K).
        annotations: Labels of all N rows, (N, A), -1 if missing.
        rows: Row numbers, (n,).
        classes: K.
    """

    def __init__(
        self, probability: Probability, annotations: NDArray[np.int64], rows: NDArray[np.int64], *, classes: int
    ) -> None:
        self.probability, self.annotations = probability, annotations
        self.parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        held = len(rows) * classes <= MAX_HELD
        self._held = [probability(part) for part in self.parts] if held else []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, part in enumerate(self.parts):
            known = self._held[number] if self._held else self.probability(part)
            yield known, torch.from_numpy(self.annotations[part])


@torch.no_grad()
def fit_annotators(
    chunks: Chunks,
    *,
    annotators: int,
    classes: int,
    votes: NDArray[np.int64],
    rate: float | None,
    advance: Callable[[int], None],
) -> AnnotatorNoise:
    """Fits the noise of A annotators and the weight of their labels.

    Annotators err on the same hard images. If their labels counted as independent, they would outvote the image
    evidence there. Their weight is reduced, to at least 1 / A, until the expected share of wrong votes reaches the rate
    of the image evidence.

    Args:
        chunks: Class probabilities and labels.
        annotators: A.
        classes: K.
        votes: Majority vote of each of the N rows.
        rate: Share of wrong votes according to the image evidence; None if unknown.
        advance: Called with 0 in each round, to show that the fit is running.
    """
    noise = _learned(AnnotatorNoise.even(annotators, classes), chunks, advance)
    low, high = 1 / annotators, 1.0
    if rate is None or _wrong(noise, chunks, votes) >= rate:
        return noise
    for _ in range(STEPS):
        noise = _learned(replace(noise, weight=(low + high) / 2), chunks, advance)
        low, high = (noise.weight, high) if _wrong(noise, chunks, votes) >= rate else (low, noise.weight)
    return noise


def _learned(noise: AnnotatorNoise, chunks: Chunks, advance: Callable[[int], None]) -> AnnotatorNoise:
    """Runs expectation-maximisation until it converges."""
    for _ in range(ROUNDS):
        advance(0)
        before, noise = noise, noise.learned(iter(chunks))
        if float((noise.errors - before.errors).abs().max()) < TOLERANCE:
            break
    return noise


def _wrong(noise: AnnotatorNoise, chunks: Chunks, votes: NDArray[np.int64]) -> float:
    """Returns the expected share of wrong votes."""
    clean, count = 0.0, 0
    for rows, (probability, given) in zip(chunks.parts, chunks, strict=True):
        label = torch.from_numpy(votes[rows])[:, None]
        clean += float(noise.posterior(probability, given).gather(1, label).sum())
        count += len(rows)
    return 1 - clean / count


def whom_to_ask(noise: AnnotatorNoise, posterior: Tensor, annotations: Tensor) -> Tensor:
    """Returns the annotator to ask next for each image, (n,), -1 if all have given the most likely class.

    Among annotators who have not labelled the image, this is the one whose label is most informative. If all have
    labelled it, it is the one whose label is least likely right, because asking again reveals slips.

    Args:
        noise: The noise of A annotators.
        posterior: q, (n, K), given the image and its annotators.
        annotations: Their labels, (n, A), -1 if missing.
    """
    gains = torch.stack([noise.informative(each, posterior) for each in range(annotations.shape[1])], dim=1)
    has_labelled = annotations >= 0
    best = gains.masked_fill(has_labelled, -torch.inf).argmax(dim=1)
    of_label = posterior.gather(1, annotations.clamp(min=0))
    doubted = of_label.masked_fill(annotations == posterior.argmax(dim=1, keepdim=True), torch.inf)
    again = torch.where(doubted.isinf().all(dim=1), -1, doubted.argmin(dim=1))
    return torch.where(has_labelled.all(dim=1), again, best)


def interval_of_accuracy(labels: float, right: float, spread: float) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of the share of right labels.

    They are Beta quantiles (Jeffreys prior). The variance has two parts: one for the limited number of labels, and one
    for the uncertainty about which of them are right.

    Args:
        labels: Number of labels.
        right: Expected number of right labels.
        spread: Variance of that number.
    """
    from scipy.stats import beta

    share = (right + 0.5) / (labels + 1)
    variance = share * (1 - share) / (labels + 2) + spread / (labels + 1) ** 2
    weight = share * (1 - share) / variance - 1
    low, high = beta.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], share * weight, (1 - share) * weight)
    return float(low), float(high)


def score_annotators(
    evidence: Evidence,
    fit: Fit,
    labels: NDArray[np.int64],
    annotations: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    progress: Progress | None = None,
) -> tuple[Posterior, Crowd, Fit]:
    """Scores the vote of several annotators by the image evidence and all of their labels.

    Args:
        evidence: Function from n row numbers to logits (P, n, K).
        fit: The fit with the vote as the label of each image.
        labels: The vote, (N,).
        annotations: Shape (N, A), -1 if a label is missing.
        rows: Row numbers of the readable images, (n,).
        progress: Receives progress.

    Returns:
        Posteriors of the vote; the results for the annotators; and the fit whose p_clean, also at its ends, covers all
        rows and depends on the labels of all annotators.
    """
    with (progress or Progress()).task("weighing the annotators", total=1 + len(fit.ends), unit="fits") as advance:

        def scored(model: JointModel, clean: Tensor) -> tuple[Posterior, Crowd]:
            def probability(part: NDArray[np.int64]) -> Tensor:
                return model.logits(evidence(part)).softmax(dim=1)

            chunks = Chunks(probability, annotations, rows, classes=len(model.bias))
            noise = fit_annotators(
                chunks,
                annotators=annotations.shape[1],
                classes=len(model.bias),
                votes=labels,
                rate=1 - float(clean.mean()) if fit.ends else None,
                advance=advance,
            )
            scored = _scored(noise, chunks, labels)
            advance(1)
            return scored

        posterior, crowd = scored(fit.model, fit.clean)
        of_ends = [scored(*pair) for pair in zip(fit.end_models, fit.ends, strict=True)]
    # the number of wrong votes is uncertain, and the accuracy of the annotators with it
    every = [crowd, *(each for _, each in of_ends)]
    crowd = crowd._replace(low=np.min([each.low for each in every], 0), high=np.max([each.high for each in every], 0))
    ends = tuple(torch.from_numpy(each.clean) for each, _ in of_ends)
    return posterior, crowd, replace(fit, clean=torch.from_numpy(posterior.clean), ends=ends, end_rates=())


@torch.no_grad()
def _scored(noise: AnnotatorNoise, chunks: Chunks, labels: NDArray[np.int64]) -> tuple[Posterior, Crowd]:
    """Scores the vote and sums the statistics of the annotators, chunk by chunk."""
    annotators = len(noise.errors)
    counts, right, spread = (np.zeros(annotators) for _ in range(3))
    parts: list[list[NDArray[Any]]] = []
    for rows, (probability, given) in zip(chunks.parts, chunks, strict=True):
        posterior = noise.posterior(probability, given)
        p_given, has_label = posterior.gather(1, given.clamp(min=0)).double(), (given >= 0).double()
        counts += has_label.sum(dim=0).numpy()
        right += (p_given * has_label).sum(dim=0).numpy()
        spread += (p_given * (1 - p_given) * has_label).sum(dim=0).numpy()
        label = torch.from_numpy(labels[rows])[:, None]
        instead = posterior.scatter(1, label, -1.0).max(dim=1)
        likeliest = posterior.max(dim=1)
        clean, ask = posterior.gather(1, label)[:, 0], whom_to_ask(noise, posterior, given)
        columns = (clean, instead.indices, instead.values, likeliest.indices, likeliest.values, ask)
        parts.append([column.numpy() for column in columns])
    joined = Posterior(*(np.concatenate(each) for each in list(zip(*parts, strict=True))[:5]))
    next_annotator = np.concatenate([part[5] for part in parts])
    low, high = np.transpose([interval_of_accuracy(*each) for each in zip(counts, right, spread, strict=True)])
    crowd = Crowd(
        rows=np.concatenate(chunks.parts),
        right=right,
        low=low,
        high=high,
        consensus=joined.likeliest,
        probability=joined.likeliest_confidence,
        ask=next_annotator,
    )
    return joined, crowd
