"""Selections that no detector makes: all images, those with the right label, or those with small losses."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.bench.cell_inputs import Given, scan_once
from labelsieve.core.engine import Engine, make_engine
from labelsieve.data.images import LabelledImages
from labelsieve.data.input.preprocessed import preprocessed_images
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.scores import Scores
from labelsieve.detect.training.cross_entropy import losses_of
from labelsieve.detect.training.loop import check_finite
from labelsieve.detect.zero_shot import by_probability, in_chunks
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.run import adapt
from labelsieve.finetune.settings import Adaptation
from labelsieve.verdicts import Verdicts, decide
from labelsieve.vlm.features import image_features, temporary_features


def selection_of(given: Given, settings: Adaptation) -> Verdicts:
    """Returns the verdicts by which a cell selects what it fine-tunes on.

    Args:
        given: What the cell is measured on.
        settings: Of the fine-tuning. A probe has the same but for its loss and what is trained.
    """
    train_on = given.method.train_on
    if train_on == "selected":
        return scan_once(given, tests=False)[0]
    if train_on == "probe":  # TURN (Ahn et al., 2023, arXiv 2310.17668)
        return by_losses(given, replace(settings, tune="linear", loss="gce"))
    kept = given.truth == given.labelled.labels if train_on == "truth" else np.ones(len(given.images), dtype=np.bool_)
    return _only(given, kept)


def _only(given: Given, kept: NDArray[np.bool_]) -> Verdicts:
    """Returns verdicts that leave some images, (N,), and predict the true labels."""
    images = given.only_images
    scores = Scores(
        label_quality=kept.astype(np.float32), predicted=given.truth, confidence=np.ones(len(images), dtype=np.float32)
    )
    return decide(images, scores, record={"model": {"name": None if given.vlm is None else given.vlm.name}})


def by_losses(given: Given, settings: Adaptation, *, test: LabelledImages | None = None) -> Verdicts:
    """Selects by the losses of a classifier that is trained on all images.

    Two Gaussians are fitted to the losses of the un-augmented images after training: the quality of a label is the
    posterior of the one with the smaller mean.

    Args:
        given: What the cell is measured on.
        settings: Of the classifier.
        test: Images with right labels, to test the classifier on; its accuracies are `test` of the record.

    Raises:
        SettingsError: There are features alone.
        TrainingError: The losses are no finite numbers.
    """
    started, images, seed, progress = time.perf_counter(), given.only_images, given.seed, given.progress
    everything, backbone = _only(given, np.ones(len(images), dtype=np.bool_)), given.method.backbone
    adapted = adapt(images, everything, backbone=backbone, settings=settings, test=test, seed=seed, progress=progress)
    engine = make_engine(seed=seed, progress=progress)
    inputs = _inputs(images, adapted.backbone, engine, is_frozen=settings.tune == "linear")
    head = adapted.backbone.head

    @torch.inference_mode()
    def posterior(part: NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        return by_probability(head(inputs.pooled(part)).float(), images.labels[part])

    probability, predicted, confidence = in_chunks(posterior, inputs.rows, progress=progress)
    losses = losses_of(probability)
    check_finite(torch.from_numpy(losses).sum(), settings.epochs)
    scores = inputs.scores(quality=small_mean_posterior(losses), predicted=predicted, confidence=confidence)
    more = {"notes": adapted.record["notes"], "test": adapted.metrics["test"]}
    seconds = round(time.perf_counter() - started, 2)
    return decide(images, scores, record={**everything.record, **more, "seconds": seconds})


def _inputs(images: LabelledImages, backbone: Backbone, engine: Engine, *, is_frozen: bool) -> DetectorInputs:
    """Returns images as a classifier sees them: by the features that are cached, or those that it has learned."""
    if is_frozen:
        features = image_features(images, backbone, engine=engine)
    else:
        pixels = preprocessed_images(images, backbone, accelerator=engine.accelerator)
        features = temporary_features(images, backbone, engine=engine, pixels=pixels)
    return DetectorInputs(
        features=features,
        labels=images.labels,
        class_names=images.class_names,
        text=None,
        logit_scale=1.0,
        project=lambda pooled: pooled,
        engine=engine,
    )
