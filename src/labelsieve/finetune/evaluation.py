"""Evaluation of a classifier on preprocessed images during training: predictions, metrics and losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from labelsieve.data.images import Images
from labelsieve.finetune.job import Job
from labelsieve.vlm.features import image_features, pixels_of, prepared


def evaluate(job: Job) -> dict[str, float]:
    """Evaluates the current backbone on the held-out and on the test images, if there are any.

    With one label per image `validation_accuracy` and `test_accuracy`, with tags `validation_map` and `test_map`.
    """
    metrics, kind = {}, job.kind
    if len(job.held_out):
        answers = predict(job, job.images, job.held_out)[job.held_out]
        metrics[f"validation_{kind.score_name}"] = kind.score(answers, job.selection.labels[job.held_out])
    if job.test is not None:
        answers = predict(job, job.test, np.arange(len(job.test)))
        metrics[f"test_{kind.score_name}"] = kind.score(answers, kind.targets(job.test))
    return metrics


def predict(job: Job, images: Images, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Classifies some rows of preprocessed images; the processes share them.

    Args:
        job: Has the backbone and the kind of classification.
        images: N images of training or test, not yet preprocessed.
        rows: Rows to classify.

    Returns:
        Shape (N,), int64: the most likely class, -1 for other rows and for images that cannot be read. With tags
        (N, K), float32: the logits, NaN for these.
    """
    answers, seen = _apply(job, images, rows, lambda logits, _rows: job.kind.answers(logits))
    values = answers.masked_fill(~seen.view(-1, *[1] * (answers.ndim - 1)), job.kind.unreadable_value).numpy()
    return values if values.ndim > 1 else values.astype(np.int64)


def training_losses(job: Job) -> tuple[Tensor, Tensor]:
    """Returns the readable training rows and the cross-entropy of their un-augmented images, each (n,)."""
    labels = torch.from_numpy(job.selection.labels)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(logits.float(), labels[rows].to(logits.device), reduction="none")

    values, seen = _apply(job, job.images, job.rows, loss)
    rows = torch.nonzero(seen)[:, 0]
    return rows, values[rows]


@torch.inference_mode()
def _apply(
    job: Job, images: Images, rows: NDArray[np.int64], measure: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Applies a function to the logits of some preprocessed images; the processes share them.

    Args:
        job: Has the backbone.
        images: N images.
        rows: Rows to evaluate.
        measure: Takes logits (B, K) and row numbers (B,), returns (B,) or (B, K).

    Returns:
        Its results for all images, (N,) or (N, K), float32, on the CPU, which are 0 for other rows and unreadable
        images; and whether each image has a result, (N,), bool.
    """
    backbone, engine, batch_size = job.backbone, job.engine, job.settings.batch_size
    shape = measure(torch.zeros(0, backbone.head.out_features), torch.zeros(0, dtype=torch.int64)).shape[1:]
    results, seen = torch.zeros(len(images), *shape), torch.zeros(len(images))
    process_rows = np.array_split(rows, engine.accelerator.num_processes)[engine.accelerator.process_index]
    batches = np.array_split(process_rows, max(1, math.ceil(len(process_rows) / batch_size)))
    if job.uses_cached_features:  # without progress, since it is fast
        features = image_features(images, backbone, engine=engine)
        for batch_rows in batches:
            logits = backbone.head(torch.from_numpy(features.pooled[batch_rows]).to(engine.device))
            results[batch_rows] = measure(logits, torch.from_numpy(batch_rows)).float().cpu()
            seen[batch_rows] = 1
        for each in (results, seen):
            each[list(features.errors)] = 0
    else:
        with engine.progress.task("evaluating", total=len(process_rows), unit="images", brief=True) as advance:
            for batch in prepared(job.preprocessed(images), batches, backbone, device=engine.device):
                if len(batch.rows):
                    with engine.autocast():
                        logits = backbone.logits(pixels_of(batch, backbone, engine.device))
                    results[batch.rows] = measure(logits, batch.rows).float().cpu()
                    seen[batch.rows] = 1
                advance(len(batch.rows) + len(batch.errors))
    return engine.total(results.to(engine.device)).cpu(), engine.total(seen.to(engine.device)).cpu() > 0
