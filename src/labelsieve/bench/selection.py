"""What a classifier is fine-tuned on where no detector selects it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.core.engine import make_engine
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.scores import Scores
from labelsieve.detect.training.cross_entropy import losses_of
from labelsieve.detect.zero_shot import by_probability
from labelsieve.finetune.run import adapt
from labelsieve.finetune.settings import Adaptation
from labelsieve.verdicts import Verdicts, decide
from labelsieve.vlm.features import image_features


def only(images: LabelledImages, kept: NDArray[np.bool_], *, truth: NDArray[np.int64], model: str | None) -> Verdicts:
    """Returns verdicts that leave some images.

    Args:
        images: N images.
        kept: Which of them, (N,).
        truth: Their true labels, (N,), which are what is predicted.
        model: Name of the model that is fine-tuned where no backbone is named.
    """
    scores = Scores(
        label_quality=kept.astype(np.float32), predicted=truth, confidence=np.ones(len(images), dtype=np.float32)
    )
    return decide(images, scores, record={"model": {"name": model}})


def by_probe(
    images: LabelledImages,
    everything: Verdicts,
    *,
    backbone: str | None,
    settings: Adaptation,
    seed: int,
    progress: Progress,
) -> Verdicts:
    """Selects as TURN does (Ahn et al., 2023, arXiv 2310.17668).

    A linear probe on the backbone is trained with generalised cross-entropy on all images. Two Gaussians are fitted to
    its losses: the quality of a label is the posterior of the one with the smaller mean.

    Args:
        images: N images.
        everything: Verdicts that leave all of them.
        backbone: Hub id or folder; by default the model of the verdicts.
        settings: Of the fine-tuning that is to come; the probe has the same but for its loss and what is trained.
        seed: Of the probe.
        progress: Where to show how far it is.
    """
    linear = replace(settings, tune="linear", loss="gce")
    probe = adapt(images, everything, backbone=backbone, settings=linear, seed=seed, progress=progress).backbone
    engine = make_engine(seed=seed, progress=progress)
    inputs = DetectorInputs(
        features=image_features(images, probe, engine=engine),
        labels=images.labels,
        class_names=images.class_names,
        text=None,
        logit_scale=1.0,
        project=lambda pooled: pooled,
        engine=engine,
    )
    with torch.no_grad():
        logits = probe.head(inputs.pooled(inputs.rows)).float().cpu()
    probability, predicted, confidence = by_probability(logits, inputs.given)
    quality = small_mean_posterior(losses_of(probability.numpy()))
    scores = inputs.scores(quality=quality, predicted=predicted.numpy(), confidence=confidence.numpy())
    return decide(images, scores, record=everything.record)
