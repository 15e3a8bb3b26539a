"""What a classifier says of preprocessed images while it is trained: classes, accuracies, losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from labelsieve.data.images import LabelledImages
from labelsieve.finetune.job import Job
from labelsieve.metrics import accuracy
from labelsieve.vlm.features import image_features, pixels_of, prepared


def accuracies(job: Job) -> dict[str, float]:
    """Returns `validation_accuracy` and `test_accuracy` of the backbone as it is, each if there are such images."""
    found = {}
    if len(job.held_out):
        predicted = predict(job, job.images, job.held_out)[job.held_out]
        found["validation_accuracy"] = accuracy(predicted, job.selection.labels[job.held_out])
    if job.test is not None:
        found["test_accuracy"] = accuracy(predict(job, job.test, np.arange(len(job.test))), job.test.labels)
    return found


def predict(job: Job, images: LabelledImages, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Classifies some rows of preprocessed images; the processes share them.

    Returns:
        Shape (N,): the most likely class, -1 for other rows and for images that cannot be read.
    """
    found = _evaluate(job, images, rows, lambda logits, _rows: logits.argmax(dim=1) + 1)
    return found.long().numpy() - 1


def losses(job: Job) -> tuple[Tensor, Tensor]:
    """Returns the readable rows of training and the cross-entropy of their un-augmented images, each (n,)."""
    labels = torch.from_numpy(job.selection.labels)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:  # and 1, to tell it from what cannot be read
        return 1 + cross_entropy(logits.float(), labels[rows].to(logits.device), reduction="none")

    found = _evaluate(job, job.images, job.rows, loss)
    rows = torch.nonzero(found)[:, 0]
    return rows, found[rows] - 1


@torch.inference_mode()
def _evaluate(
    job: Job, images: LabelledImages, rows: NDArray[np.int64], measure: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Evaluates some rows of preprocessed images; the processes share them.

    Args:
        job: Knows the backbone.
        images: N images.
        rows: Which of them.
        measure: Takes logits (B, K) and row numbers (B,), returns (B,).

    Returns:
        Shape (N,), float32, on the CPU; 0 for other rows and for images that cannot be read.
    """
    backbone, engine, size = job.backbone, job.engine, job.settings.batch_size
    found = torch.zeros(len(images))
    own = np.array_split(rows, engine.accelerator.num_processes)[engine.accelerator.process_index]
    parts = np.array_split(own, max(1, math.ceil(len(own) / size)))
    if job.on_features:  # in no time: they are cached, and there is one layer to pass
        features = image_features(images, backbone, engine=engine)
        for part in parts:
            logits = backbone.head(torch.from_numpy(features.pooled[part]).to(engine.device))
            found[part] = measure(logits, torch.from_numpy(part)).float().cpu()
        found[list(features.errors)] = 0
    else:
        with engine.progress.task("evaluating", total=len(own), unit="images", brief=True) as advance:
            for batch in prepared(job.preprocessed(images), parts, backbone, device=engine.device):
                if len(batch.rows):
                    with engine.autocast():
                        logits = backbone.logits(pixels_of(batch, backbone, engine.device))
                    found[batch.rows] = measure(logits, batch.rows).float().cpu()
                advance(len(batch.rows) + len(batch.errors))
    return engine.total(found.to(engine.device)).cpu()
