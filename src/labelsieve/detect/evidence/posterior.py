"""One clean probability from several kinds of evidence, calibrated without true labels.

Each kind of evidence gives class logits. Their weighted sum gives class probabilities, and a noise model explains the
given label as a noisy copy of the true class (`noise_model.py`). `fit.py` fits the weights and the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.memory import reuse_allocations
from labelsieve.core.seeds import Purpose
from labelsieve.detect.chunks import in_chunks
from labelsieve.detect.evidence.annotators import score_annotators
from labelsieve.detect.evidence.discriminants import fit_discriminants, logits_of
from labelsieve.detect.evidence.fit import Evidence, Fit, fit_joint
from labelsieve.detect.evidence.noise_model import Posterior
from labelsieve.detect.evidence.noise_rate import far_off
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.scores import Estimate, Scores
from labelsieve.flagging import FlagRule, best_threshold
from labelsieve.metrics import Interval


def score_jointly(
    inputs: DetectorInputs, evidence: Evidence, *, kinds: Sequence[str], logit_scale: float | None
) -> Scores:
    """Combines several kinds of evidence into one posterior and chooses the threshold for flagging.

    Args:
        inputs: N images, their labels, and those of several annotators if there are any.
        evidence: Function from n row numbers to logits (P, n, K).
        kinds: Names of the P kinds of evidence.
        logit_scale: Logit scale of the zero-shot model, the first kind of evidence; None if there is no such model, or
            if it does not know the class names.
    """
    labels, rows, progress = inputs.labels, inputs.rows, inputs.progress
    with reuse_allocations():
        fit = fit_joint(
            evidence,
            labels if inputs.unreviewed_labels is None else inputs.unreviewed_labels,
            rows=rows,
            classes=inputs.classes,
            calibrated=logit_scale is not None,
            generator=inputs.engine.generator(Purpose.POSTERIOR_ROWS),
            progress=progress,
        )

        def score_rows(part: NDArray[np.int64]) -> Posterior:
            return fit.model.posterior(evidence(part), torch.from_numpy(labels[part]))

        if inputs.annotations is None:
            posterior, crowd = Posterior(*in_chunks(score_rows, rows, progress=progress)), None
        else:
            posterior, crowd, fit = score_annotators(
                evidence, fit, labels, inputs.annotations, rows=rows, progress=progress
            )
    threshold = best_threshold(posterior.clean)
    wrong = posterior.clean <= np.float32(threshold)
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(kinds, fit.model.weights.tolist(), strict=True))
    return inputs.scores(
        quality=posterior.clean,
        predicted=np.where(wrong, posterior.instead, posterior.likeliest),
        confidence=np.where(wrong, posterior.instead_confidence, posterior.likeliest_confidence),
        rule=FlagRule(threshold=threshold),
        notes=(
            f"weights of the evidence: {weights} (the larger, the more it counts in p_clean)",
            *_scale_notes(logit_scale, fit.factor),
        ),
        estimate=_estimate(fit, posterior.clean, threshold),
        crowd=crowd,
    )


def score_inputs(
    inputs: DetectorInputs,
    pooled: NDArray[np.float32],
    *,
    folds: int,
    learned: Callable[[Tensor], Sequence[Tensor]] | None = None,
    kinds: Sequence[str] = (),
) -> Scores:
    """Scores labels by the zero-shot model, if there are texts, learned evidence and two out-of-fold discriminants.

    Args:
        inputs: Given labels, class texts and the zero-shot model.
        pooled: Features that the discriminants are fitted to, (N, W).
        folds: F, at least 2.
        learned: Function from features (n, W) to the logits, (n, K), of each kind of learned evidence; None for none.
        kinds: Names of the learned kinds.
    """
    engine, texts = inputs.engine, inputs.text is not None
    discriminants = fit_discriminants(
        pooled,
        inputs.labels,
        rows=inputs.rows,
        classes=inputs.classes,
        folds=folds,
        generator=engine.generator(Purpose.DISCRIMINANT_FOLDS),
        progress=engine.progress,
    )

    @torch.no_grad()
    def evidence(rows: NDArray[np.int64]) -> Tensor:
        features = torch.from_numpy(pooled[rows]).to(inputs.device)
        zero_shot = [inputs.logits(rows)] if texts else []
        trained = learned(features) if learned else ()
        return torch.stack([*zero_shot, *trained, *logits_of(discriminants, rows, features)]).float().cpu()

    return score_jointly(
        inputs,
        evidence,
        kinds=(*(["zero-shot"] if texts else []), *kinds, "image features", "smoothed features"),
        logit_scale=inputs.logit_scale if texts and inputs.zero_shot.knows_names else None,
    )


def _scale_notes(scale: float | None, factor: float | None) -> tuple[str, ...]:
    if scale is None or factor is None or not far_off(factor):
        return ()
    return (
        f"the logit scale {scale:.3g} is far off: about {scale * factor:.2g} would fit the given labels, and that one"
        " is used to tell how many are wrong",
    )


def _estimate(fit: Fit, clean: NDArray[np.float32], threshold: float) -> Estimate | None:
    """Sums the posterior over all labels; the widths of the intervals come from the rows of the fit.

    The ends of the intervals are rounded outwards to integers.
    """
    if not len(fit.ends):
        return None
    flagged = clean <= np.float32(threshold)
    of_fit = fit.clean.numpy() <= np.float32(threshold)

    def interval(rows: NDArray[np.bool_], fitted: NDArray[np.bool_], rates: Sequence[float] = ()) -> Interval:
        wrong = float((1 - clean[rows].astype(np.float64)).sum())
        parts = [float((1 - each.numpy()[fitted].astype(np.float64)).sum()) for each in (fit.clean, *fit.ends)]
        parts += [rate * len(of_fit) for rate in rates]
        ends = [min(wrong + (part - parts[0]) * len(clean) / len(of_fit), float(rows.sum())) for part in parts[1:]]
        return Interval(wrong, float(max(math.floor(min(wrong, *ends)), 0)), float(math.ceil(max(wrong, *ends))))

    everywhere = interval(np.ones_like(flagged), np.ones_like(of_fit), fit.end_rates)
    if not (count := int(flagged.sum())):
        return Estimate(everywhere, None, everywhere)
    right = interval(flagged, of_fit)
    right = right._replace(low=min(right.low, everywhere.low))  # right flags cannot outnumber wrong labels
    # the errors of both numbers add up, because the ranking may be worse than the posterior claims
    missed = Interval(
        everywhere.value - right.value,
        max(everywhere.low - right.high, 0.0),
        min(everywhere.high - right.low, float(len(clean) - count)),
    )
    return Estimate(everywhere, Interval(*(each / count for each in right)), missed)
