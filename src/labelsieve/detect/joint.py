"""One clean probability from several kinds of evidence, calibrated without any truth.

Each kind of evidence gives class logits. Weighted and added they are a class probability `p_k(x)`, and the given label
y is explained as the outcome of a noisy labelling of the true class k:

    P(y | x) = Σ_k p_k(x) T_ky,    T_kk = 1 - ε_k,    T_ky = ε_k R_ky,

with a rate of wrong labels ε_k for each class and a confusion R. The posterior that y is the true class is

    p_clean = p_y T_yy / Σ_k p_k T_ky.

`joint_fit.py` finds the weights, the rates and the confusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.detect.joint_fit import Evidence, Posterior, fit_joint
from labelsieve.detect.zero_shot import in_chunks
from labelsieve.memory import keeping_room
from labelsieve.progress import Progress

# No label is flagged that is more than three times more likely right than wrong.
MOST_CLEAN = 0.75


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


def judge_jointly(
    evidence: Evidence,
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    classes: int,
    kinds: Sequence[str],
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Judged:
    """Joins several kinds of evidence into one posterior and chooses where to flag.

    Args:
        evidence: Gives logits (P, n, K) for n rows.
        labels: Given labels, (N,).
        rows: Row numbers of the readable images, (n,), at least one.
        classes: K.
        kinds: Names of the P kinds of evidence.
        generator: Chooses the rows to fit on where there are too many.
        progress: Where to show how far it is.
    """
    with keeping_room():
        model = fit_joint(evidence, labels, rows=rows, classes=classes, generator=generator, progress=progress)

        def judge(part: NDArray[np.int64]) -> Posterior:
            return model.posterior(evidence(part), torch.from_numpy(labels[part]))

        posterior = Posterior(*in_chunks(judge, rows, progress=progress))
    threshold = best_threshold(posterior.clean)
    wrong = posterior.clean <= np.float32(threshold)
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(kinds, model.weights.tolist(), strict=True))
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
