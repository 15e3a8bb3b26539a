"""One clean probability from several kinds of evidence, calibrated without any truth.

Each kind of evidence gives class logits. Weighted and added they are a class probability `p_k(x)`, and the given label
y is explained as the outcome of a noisy labelling of the true class k:

    P(y | x) = Σ_k p_k(x) T_ky,    T_kk = 1 - ε_k,    T_ky = ε_k R_ky,

with a rate of wrong labels ε_k for each class and a confusion R. Expectation-maximisation fits both (Dawid and Skene,
1979, for one annotator); the weights and a bias for each class maximise the likelihood of the given labels in turn.
The posterior that y is the true class,

    p_clean = p_y T_yy / (p_y T_yy + Σ_{k≠y} p_k max(T_ky, 0.3 / K)),

weighs the evidence for the given label against that for the other classes, at the rates of noise that the data show; no
confusion is ever ruled out altogether.

Given labels alone cannot tell a confusing image from a confused annotator: a class probability that is blurred enough
explains every label without any noise. So each kind of evidence has a smallest weight. What the untrained model says
counts at its own temperature at least: it was calibrated on captions and has never seen these labels. Evidence learned
from the labels counts as far as it explains them. Where the untrained model does not know the names of the classes, or
there are no texts, a discriminant on the image features stands in for it, at nearly its own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from labelsieve.detect.zero_shot import CHUNK, in_chunks
from labelsieve.memory import keeping_room
from labelsieve.progress import Progress

Evidence = Callable[[NDArray[np.int64]], Tensor]
"""Takes n row numbers and returns logits (P, n, K): P kinds of evidence."""

# The few parameters do not get better with more rows than this.
MOST_ROWS = 20_000
ROUNDS = 6
FIRST_RATE = 0.2
# The rate of a class is drawn to the common one as if so many of its images had been seen before.
PRIOR_IMAGES = 10.0
# An even noise of this share is never ruled out: what people confuse on hard images, the likelihood cannot see.
DOUBT = 0.3
# Of the discriminant that stands in for the untrained model. At its own scale, 1, it is too sure of itself and flags
# more right labels; below this it blurs, and explains pair and instance-dependent noise as its own doubt.
STAND_IN = 0.7
# No label is flagged that is more than three times more likely right than wrong.
MOST_CLEAN = 0.75
# Bytes of logits that are held while the few parameters are fitted.
MOST_HELD = 2**26
# A confusion of more classes takes more memory than it is worth, and has too few examples for each cell.
MOST_CLASSES_WITH_CONFUSION = 2_000


@dataclass(frozen=True, eq=False)
class JointModel:
    """What :func:`fit_joint` found.

    Attributes:
        weights: (P,): how much each kind of evidence counts.
        bias: (K,).
        rates: ε, (K,), between 0 and 1: estimated share of wrong labels among the images of each true class.
        confusion: R, (K, K), rows sum to 1, zero on the diagonal; None stands for all wrong classes alike.
        noise_rate: Estimated share of wrong labels in all, between 0 and 1.
    """

    weights: Tensor
    bias: Tensor
    rates: Tensor
    confusion: Tensor | None
    noise_rate: float

    def log_probability(self, parts: Tensor) -> Tensor:
        """Returns log p_k(x), (n, K), from logits (P, n, K) of each kind of evidence."""
        return log_softmax(torch.einsum("p,pnk->nk", self.weights, parts) + self.bias, dim=1)

    def posterior(self, parts: Tensor, labels: Tensor) -> Posterior:
        """Judges n labels from logits (P, n, K) of each kind of evidence; `labels` are the given ones, (n,)."""
        probability = self.log_probability(parts).exp()
        doubt = DOUBT / probability.shape[1]
        mine, others = explain(probability, labels, rates=self.rates, confusion=self.confusion, least=doubt)
        clean, instead, likeliest = (
            mine / (mine + others.sum(dim=1)).clamp(min=1e-30),
            others.argmax(1),
            probability.argmax(1),
        )
        confidence = probability.gather(1, torch.stack([instead, likeliest], dim=1))
        return Posterior(clean, instead, confidence[:, 0], likeliest, confidence[:, 1])


class Posterior(NamedTuple):
    """Judgements of n labels, each field a tensor or array of shape (n,).

    Attributes:
        clean: p_clean, between 0 and 1.
        instead: The class that explains the label best if it is wrong.
        instead_confidence: Its probability p_k(x).
        likeliest: The most likely class, whatever the given label is.
        likeliest_confidence: Its probability p_k(x).
    """

    clean: Any
    instead: Any
    instead_confidence: Any
    likeliest: Any
    likeliest_confidence: Any


class Judged(NamedTuple):
    """What a detector says of n readable images, arrays of shape (n,).

    Attributes:
        quality: p_clean, between 0 and 1.
        predicted: The class to suggest.
        confidence: Its probability.
        threshold: A label is an issue where the quality is at most this.
        notes: Remarks for the user.
        is_probability: Whether the quality is a probability that was fitted to the labels.
    """

    quality: NDArray[np.float32]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    threshold: float = 0.5
    notes: tuple[str, ...] = ()
    is_probability: bool = False


def least_weights(kinds: Sequence[str], *, knows_names: bool) -> dict[str, float]:
    """Returns the smallest weight of each kind of evidence.

    Args:
        kinds: Their names; `zero-shot` is the untrained model, `smoothed features` the discriminant for noisy labels.
        knows_names: Whether the untrained model is there and knows the names of the classes.
    """
    return {**dict.fromkeys(kinds, 0.0), **({"zero-shot": 1.0} if knows_names else {"smoothed features": STAND_IN})}


def judge_jointly(
    evidence: Evidence,
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    classes: int,
    least: Mapping[str, float],
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Judged:
    """Joins several kinds of evidence into one posterior and chooses where to flag.

    Args:
        evidence: Gives logits (P, n, K) for n rows.
        labels: Given labels, (N,).
        rows: Row numbers of the readable images, (n,), at least one.
        classes: K.
        least: Name and smallest weight of each of the P kinds of evidence.
        generator: Chooses the rows to fit on where there are too many.
        progress: Where to show how far it is.
    """
    weights = tuple(least.values())
    with keeping_room():
        model = fit_joint(
            evidence, labels, rows=rows, classes=classes, least=weights, generator=generator, progress=progress
        )

        def judge(part: NDArray[np.int64]) -> Posterior:
            return model.posterior(evidence(part), torch.from_numpy(labels[part]))

        posterior = Posterior(*in_chunks(judge, rows, progress=progress))
    threshold = best_threshold(posterior.clean)
    wrong = posterior.clean <= np.float32(threshold)
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(least, model.weights.tolist(), strict=True))
    return Judged(
        posterior.clean,
        np.where(wrong, posterior.instead, posterior.likeliest),
        np.where(wrong, posterior.instead_confidence, posterior.likeliest_confidence),
        threshold,
        (f"weights of the evidence: {told}",),
        is_probability=True,
    )


def best_threshold(clean: NDArray[np.float32]) -> float:
    """Returns the threshold on p_clean below which flagging is expected to give the best F1 of the issues.

    The F1 that is expected under the probabilities themselves, `F = max_j 2 Σ_{i≤j} q_i / (j + Σ_i q_i)` over the
    labels in descending order of q = 1 - p_clean, is reached by flagging where q is at least F / 2 (Lipton et al.,
    ECML 2014, theorem 1). So a strong model flags at one half, and a weak one, which would miss most wrong labels
    there, a little more.

    F falls with Σ q: where next to nothing is wrong there is no F1 to be had, and flagging everything would promise the
    most. So nothing is flagged whose p_clean is above `MOST_CLEAN`.

    Args:
        clean: p_clean, (n,), n at least 1.

    Returns:
        Between 0.5 and `MOST_CLEAN`.
    """
    suspicion = np.sort(1 - clean.astype(np.float64))[::-1]
    expected = 2 * np.cumsum(suspicion) / (np.arange(1, len(suspicion) + 1) + suspicion.sum())
    return min(float(1 - expected.max() / 2), MOST_CLEAN)


def explain(
    probability: Tensor, labels: Tensor, *, rates: Tensor, confusion: Tensor | None, least: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Splits P(y | x) into the parts of the true classes.

    Args:
        probability: p_k(x), (n, K).
        labels: y, (n,).
        rates: ε, (K,).
        confusion: R, (K, K), or None for all wrong classes alike.
        least: Smallest chance of a class to be labelled as one given other class.

    Returns:
        The part of the given class, p_y T_yy, (n,), and those of the others, p_k T_ky, (n, K), zero at k = y.
    """
    spread = 1 / max(1, probability.shape[1] - 1) if confusion is None else confusion.T[labels]
    mine = (probability * (1 - rates)).gather(1, labels[:, None])[:, 0]
    others = probability * (rates * spread).clamp(min=least)
    return mine, others.scatter(1, labels[:, None], 0.0)


def fit_joint(
    evidence: Evidence,
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    classes: int,
    least: Sequence[float],
    generator: torch.Generator,
    progress: Progress | None = None,
) -> JointModel:
    """Fits weights, biases, rates of noise and confusion to the given labels.

    Args:
        evidence: Gives logits (P, n, K) for n rows, which the own label of a row should have little or no part in: what
            has learned it by heart explains it without noise.
        labels: Shape (N,).
        rows: Rows to use; of more than `MOST_ROWS` a random part is taken. `CHUNK` of them are looked at at a time.
        classes: K, at least 2.
        least: The smallest weight of each of the P kinds of evidence, at least 0.
        generator: Chooses the part.
        progress: Where to show how far it is.
    """
    if len(rows) > MOST_ROWS:
        rows = np.sort(rows[torch.randperm(len(rows), generator=generator)[:MOST_ROWS].numpy()])
    weights, bias = torch.tensor(least, dtype=torch.float32), torch.zeros(classes)
    rates, confusion, noise_rate = torch.full((classes,), FIRST_RATE), None, FIRST_RATE
    with (progress or Progress()).task("weighing the evidence", total=ROUNDS, unit="rounds", brief=True) as advance:
        sample = _Sample(evidence, labels, rows, advance)
        for _ in range(ROUNDS):
            weights, bias = _maximise(sample, weights, bias, least=least, rates=rates, confusion=confusion)
            rates, confusion, noise_rate = _noise(sample, JointModel(weights, bias, rates, confusion, noise_rate))
            advance(1)
    return JointModel(weights, bias, rates, confusion, noise_rate)


class _Sample:
    """Some rows to fit on. Where their logits are many, they are computed anew for each pass, one chunk at a time.

    Args:
        evidence: Gives logits (P, n, K) for n rows.
        labels: Shape (N,).
        rows: Row numbers, (n,).
        advance: Gets 0 before each chunk, as a sign of life.
    """

    def __init__(
        self,
        evidence: Evidence,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        advance: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.evidence, self.labels, self.advance = evidence, labels, advance
        self.chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        self.count = len(rows)
        first = evidence(self.chunks[0])
        few = first.nbytes * len(self.chunks) <= MOST_HELD
        self._held = [first, *(evidence(rows) for rows in self.chunks[1:])] if few else []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields logits (P, m, K) and given labels (m,), chunk by chunk."""
        for number, rows in enumerate(self.chunks):
            self.advance(0)
            parts = self._held[number] if self._held else self.evidence(rows)
            yield parts, torch.from_numpy(self.labels[rows])


def _maximise(
    sample: _Sample,
    weights: Tensor,
    bias: Tensor,
    *,
    least: Sequence[float],
    rates: Tensor,
    confusion: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Returns weights and biases, near to those given, that make the given labels most likely."""
    from scipy.optimize import minimize

    at_least = torch.cat([torch.tensor(least, dtype=torch.float32), torch.zeros_like(bias)])

    def loss_and_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = torch.from_numpy(values).float().requires_grad_()
        weights, bias = now[: len(least)], now[len(least) :]
        # a standard normal prior: weights stay finite where few images are, and classes without images where they are
        prior = 0.5 * (now - at_least).square().sum() / sample.count
        (slope,) = torch.autograd.grad(prior, now)
        total = float(prior.detach())
        for parts, labels in sample:
            logits = torch.einsum("p,pnk->nk", weights, parts) + bias
            mine, others = explain(logits.softmax(dim=1), labels, rates=rates, confusion=confusion)
            loss = -(mine + others.sum(dim=1)).clamp(min=1e-12).log().sum() / sample.count
            slope += torch.autograd.grad(loss, now)[0]
            total += float(loss.detach())
        return total, slope.double().numpy()

    # bounds, and no positive function of a free number: its slope would vanish where a weight came near its least
    bounds = [(low, None) for low in least] + [(None, None)] * len(bias)
    start = torch.cat([weights, bias]).double().numpy()
    found = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30})
    best = torch.from_numpy(found.x).float()
    return best[: len(least)], best[len(least) :]


@torch.no_grad()
def _noise(sample: _Sample, model: JointModel) -> tuple[Tensor, Tensor | None, float]:
    """Re-estimates rates and confusion from the posterior of the true class, and the noise rate in all."""
    classes = len(model.bias)
    confused = 2 < classes <= MOST_CLASSES_WITH_CONFUSION
    right, wrong = torch.zeros(classes), torch.zeros(classes)  # by true class
    counts = torch.zeros(classes, classes) if confused else None  # rows: given label, columns: true class
    for parts, labels in sample:
        probability = model.log_probability(parts).exp()
        mine, others = explain(probability, labels, rates=model.rates, confusion=model.confusion)
        whole = (mine + others.sum(dim=1)).clamp(min=1e-30)
        others = others / whole[:, None]
        right.index_add_(0, labels, mine / whole)
        wrong += others.sum(dim=0)
        if counts is not None:
            counts.index_add_(0, labels, others)
    noise_rate = float(wrong.sum() / (wrong.sum() + right.sum()).clamp(min=1e-30))
    rates = (wrong + PRIOR_IMAGES * noise_rate) / (right + wrong + PRIOR_IMAGES)
    if counts is None:
        return rates, None, noise_rate
    counts = counts.T + 1.0 - torch.eye(classes)  # one pseudo-count in each cell (Laplace)
    return rates, counts / counts.sum(dim=1, keepdim=True), noise_rate
