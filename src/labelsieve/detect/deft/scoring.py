"""Trains the dual prompts of DeFT, then scores every image with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.detect.chunks import in_chunks
from labelsieve.detect.deft.objective import DualObjective, score_by_threshold
from labelsieve.detect.deft.settings import DeFTSettings
from labelsieve.detect.evidence.posterior import score_inputs
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.scores import Scores
from labelsieve.detect.training.autoconfig import prepare
from labelsieve.detect.training.learner import BatchSource, adapted_features, classify_others
from labelsieve.detect.training.loop import train
from labelsieve.detect.zero_shot import shortened_note
from labelsieve.flagging import FlagRule

# Names of the two parts of Eq. 6 in messages about their weights.
LEARNED = ("positive prompts", "learned threshold")


def score_with_dual_prompts(settings: DeFTSettings, inputs: DetectorInputs) -> Scores:
    """Trains dual prompts and scores every image; see :class:`labelsieve.detect.deft.detector.DeFT`."""
    ready = prepare(settings, inputs)
    objective = DualObjective(
        ready.settings,
        warmup=ready.schedule.warmup,
        images=len(inputs.labels),
        classes=inputs.classes,
        engine=inputs.engine,
    )
    labels, batches = torch.from_numpy(inputs.labels), ready.batches
    history = train(batches, labels, objective=objective, settings=ready.settings, schedule=ready.schedule)
    scores = _score(objective, batches, inputs)
    return dataclasses.replace(
        scores,
        history=history,
        notes=(*shortened_note(batches.learner.prompts.shortened), *scores.notes),
        resolved=ready.resolved,
        test_predicted=None if inputs.test is None else classify_others(batches, inputs.test),
    )


def _score(objective: DualObjective, batches: BatchSource, inputs: DetectorInputs) -> Scores:
    rule = FlagRule(demand_agreement=objective.settings.demand_agreement)
    if objective.settings.scores_from == "last-epoch":
        quality, predicted, confidence = (objective.memory[name].numpy()[inputs.rows] for name in objective.memory)
        return inputs.scores(quality=quality, predicted=predicted.astype(np.int64), confidence=confidence, rule=rule)
    pooled = adapted_features(batches).pooled
    text = batches.learner.final_text(negative=objective.settings.negative_prompts)
    if objective.settings.evidence == "joint":

        def learned(features: Tensor) -> tuple[Tensor, Tensor]:
            positive, negative = batches.learner.similarities(features, text)
            return positive, positive - negative

        return score_inputs(inputs, pooled, folds=objective.settings.folds, learned=learned, kinds=LEARNED)
    return _score_by_threshold(batches, pooled, text, inputs, rule=rule)


Text = tuple[Tensor, Tensor | None]


@torch.inference_mode()
def _score_by_threshold(
    batches: BatchSource, pooled: NDArray[np.float32], text: Text, inputs: DetectorInputs, *, rule: FlagRule
) -> Scores:
    device, labels = batches.engine.device, inputs.labels

    def score_rows(rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        positive, negative = batches.learner.similarities(torch.from_numpy(pooled[rows]).to(device), text)
        threshold = None if text[1] is None else negative
        given = torch.from_numpy(labels[rows]).to(device)
        return score_by_threshold(positive, threshold, given, rule.demand_agreement)

    quality, predicted, confidence = in_chunks(score_rows, inputs.rows, progress=batches.engine.progress)
    return inputs.scores(quality=quality, predicted=predicted, confidence=confidence, rule=rule)
