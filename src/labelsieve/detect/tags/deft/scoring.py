"""Trains the dual prompts of DeFT of tags, then scores every pair with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.errors import SettingsError
from labelsieve.detect.chunks import chunks
from labelsieve.detect.deft.scoring import LEARNED
from labelsieve.detect.inputs import NO_MODEL
from labelsieve.detect.losses import clean_probability
from labelsieve.detect.tags.deft.objective import TagObjective
from labelsieve.detect.tags.deft.settings import TagDeFTSettings
from labelsieve.detect.tags.evidence import Kind, centred_kind
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.joining import join
from labelsieve.detect.tags.scores import TagScores, tag_scores
from labelsieve.detect.training.autoconfig import frozen_batch
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.loop import make_schedule, train
from labelsieve.detect.zero_shot import shortened_note


def score_pairs_with_dual_prompts(settings: TagDeFTSettings, pairs: TagInputs) -> TagScores:
    """Trains dual prompts on the pairs and scores every pair; see :class:`TagDeFTSettings`.

    Raises:
        SettingsError: There are only precomputed features.
    """
    requested = settings
    batches, settings = _prepare(settings, pairs)
    images, schedule = pairs.images, make_schedule(settings, images=len(pairs.given))
    objective = TagObjective(warmup=schedule.warmup, classes=images.classes, engine=images.engine)
    history = train(batches, torch.from_numpy(pairs.tags), objective=objective, settings=settings, schedule=schedule)
    notes = shortened_note(batches.learner.prompts.shortened)
    similarities = _similarities(batches.learner, pairs)
    if settings.evidence == "threshold":
        present = np.concatenate([clean_probability(*similarities(part)).cpu().numpy() for part in chunks(images.rows)])
        scores = tag_scores(pairs, present, thresholds=(0.5, 0.5), notes=notes, history=history)
    else:
        scores = join(
            pairs,
            folds=settings.folds,
            neighbours=settings.neighbours,
            windows=settings.windows,
            more=_kinds(pairs, similarities),
            history=history,
            notes=notes,
        )
    resolved = {"batch_size": settings.batch_size} if requested.batch_size == "auto" else {}
    return dataclasses.replace(scores, resolved=resolved)


def _kinds(pairs: TagInputs, similarities: Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]) -> dict[str, Kind]:
    """Returns the learned kinds of evidence: s+, and its margin over the threshold s-."""
    logits = (lambda rows: similarities(rows)[0], lambda rows: torch.sub(*similarities(rows)))
    return {name: centred_kind(pairs, each) for name, each in zip(LEARNED, logits, strict=True)}


def _prepare(settings: TagDeFTSettings, pairs: TagInputs) -> tuple[BatchSource, TagDeFTSettings]:
    """Returns batches of cached features, and settings without `auto`."""
    images = pairs.images
    if pairs.source is None or images.vlm is None:
        raise SettingsError(NO_MODEL)
    size = settings.batch_size
    if size == "auto":
        size = frozen_batch(settings, len(pairs.given))
    settings = dataclasses.replace(settings, batch_size=size)
    learner = Learner(images.vlm, images.class_names, settings=settings, engine=images.engine)
    return BatchSource(pairs.source, images.features, learner, images.engine, size, size, compiles=False), settings


def _similarities(learner: Learner, pairs: TagInputs) -> Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]:
    """Returns a function from m row numbers to s+ and s- after training, each (m, K)."""
    text = learner.final_text()

    @torch.inference_mode()
    def of_rows(rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return learner.similarities(pairs.images.pooled(rows), text)

    return of_rows
