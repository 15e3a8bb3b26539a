"""What the fine-tuning of a cell trains on: what a detector, a probe or the truth leaves of the images, or all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from labelsieve.bench.tasks import Given, scan_once
from labelsieve.data.images import LabelledImages
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.scores import Scores
from labelsieve.detect.training.cross_entropy import losses_of
from labelsieve.detect.zero_shot import by_probability
from labelsieve.engine import make_engine
from labelsieve.finetune.run import adapt
from labelsieve.finetune.settings import Adaptation
from labelsieve.verdicts import Verdicts, decide
from labelsieve.vlm.features import image_features


def selection_of(given: Given, images: LabelledImages, settings: Adaptation) -> Verdicts:
    """Returns the verdicts by which a cell selects what it trains on.

    Args:
        given: What the cell is measured on.
        images: Its images.
        settings: Of the fine-tuning that is to come.
    """
    if given.method.train_on == "selected":
        return scan_once(given, tests=False)[0]
    labels = images.labels
    kept = given.truth == labels if given.method.train_on == "truth" else np.ones(len(labels), bool)
    scores = Scores(
        label_quality=kept.astype(np.float32), predicted=given.truth, confidence=np.ones(len(labels), np.float32)
    )
    found = decide(images, scores, record={"model": {"name": None if given.vlm is None else given.vlm.name}})
    return _by_probe(given, images, found, settings) if given.method.train_on == "probe" else found


def _by_probe(given: Given, images: LabelledImages, everything: Verdicts, settings: Adaptation) -> Verdicts:
    """Selects as TURN does (Ahn et al., 2023, arXiv 2310.17668), with verdicts that flag nothing to begin with.

    A linear probe on the backbone is trained with generalised cross-entropy on all images, otherwise with the settings
    of the fine-tuning. Two Gaussians are fitted to its losses: the quality of a label is the posterior of the one with
    the smaller mean.
    """
    probe = adapt(
        images,
        everything,
        backbone=given.method.backbone,
        settings=replace(settings, tune="linear", loss="gce"),
        seed=given.seed,
        progress=given.progress,
    ).backbone
    engine = make_engine(seed=given.seed, progress=given.progress)
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
