"""Selections without a detector: all images, those with the right label, or those with small losses."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.bench.cell_inputs import CellInputs, scan_once
from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.training import check_finite
from labelsieve.data.images import LabelledImages
from labelsieve.data.input.preprocessed import preprocessed_images
from labelsieve.detect.chunks import in_chunks
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.scores import Scores
from labelsieve.detect.training.cross_entropy import losses_of
from labelsieve.detect.zero_shot import by_probability
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.run import adapt
from labelsieve.finetune.settings import Adaptation
from labelsieve.verdicts import Verdicts, decide
from labelsieve.vlm.features import image_features, temporary_features


def selection_of(inputs: CellInputs, settings: Adaptation) -> Verdicts:
    """Returns the verdicts that select the training images of a cell.

    Args:
        inputs: The inputs of the cell.
        settings: Settings of the fine-tuning. A probe has the same ones except for `loss` and `tune`.
    """
    train_on = inputs.method.train_on
    if train_on == "selected":
        return scan_once(inputs, tests=False)[0]
    if train_on == "probe":  # TURN (Ahn et al., 2023, arXiv 2310.17668)
        return by_losses(inputs, replace(settings, tune="linear", loss="gce"))
    is_selected = (
        inputs.truth == inputs.labelled.labels if train_on == "truth" else np.ones(len(inputs.images), dtype=np.bool_)
    )
    return _fixed_selection(inputs, is_selected)


def _fixed_selection(inputs: CellInputs, is_selected: NDArray[np.bool_]) -> Verdicts:
    """Returns verdicts with a given selection (N,) that predict the true labels."""
    images = inputs.only_images
    scores = Scores(
        label_quality=is_selected.astype(np.float32),
        predicted=inputs.truth,
        confidence=np.ones(len(images), dtype=np.float32),
    )
    return decide(images, scores, record={"model": {"name": None if inputs.vlm is None else inputs.vlm.name}})


def by_losses(inputs: CellInputs, settings: Adaptation, *, test: LabelledImages | None = None) -> Verdicts:
    """Selects by the losses of a classifier that is trained on all images.

    A mixture of two Gaussians is fitted to the losses of the un-augmented images after training. The label quality is
    the posterior of the component with the smaller mean.

    Args:
        inputs: The inputs of the cell.
        settings: Settings of the classifier.
        test: Images with correct labels to evaluate the classifier on; its accuracies are `test` of the record.

    Raises:
        TrainingError: The losses are not finite.
    """
    started, images, seed, progress = time.perf_counter(), inputs.only_images, inputs.seed, inputs.progress
    all_images, backbone = _fixed_selection(inputs, np.ones(len(images), dtype=np.bool_)), inputs.method.backbone
    adapted = adapt(images, all_images, backbone=backbone, settings=settings, test=test, seed=seed, progress=progress)
    engine = make_engine(seed=seed, progress=progress)
    data = _detector_inputs(images, adapted.backbone, engine, is_frozen=settings.tune == "linear")
    head = adapted.backbone.head

    @torch.inference_mode()
    def posterior(chunk: NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        return by_probability(head(data.pooled(chunk)).float(), images.labels[chunk])

    probability, predicted, confidence = in_chunks(posterior, data.rows, progress=progress)
    losses = losses_of(probability)
    check_finite(torch.from_numpy(losses).sum(), settings.epochs)
    scores = data.scores(quality=small_mean_posterior(losses), predicted=predicted, confidence=confidence)
    extra = {"notes": adapted.record["notes"], "test": adapted.metrics["test"]}
    seconds = round(time.perf_counter() - started, 2)
    return decide(images, scores, record={**all_images.record, **extra, "seconds": seconds})


def _detector_inputs(images: LabelledImages, backbone: Backbone, engine: Engine, *, is_frozen: bool) -> DetectorInputs:
    """Returns detector inputs from a classifier: with cached features if it is frozen, else with its own."""
    if is_frozen:
        features = image_features(images, backbone, engine=engine)
    else:
        pixels = preprocessed_images(images, backbone, accelerator=engine.accelerator)
        features = temporary_features(images, backbone, engine=engine, pixels=pixels)
    return DetectorInputs(features=features, labels=images.labels, class_names=images.class_names, engine=engine)
