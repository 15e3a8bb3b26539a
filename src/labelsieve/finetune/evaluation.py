"""What a classifier says of preprocessed images while it is trained: classes or tags, how good they are, losses."""

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


def scores(job: Job) -> dict[str, float]:
    """Returns how good the backbone is as it is, on held-out and on test images, each if there are such images.

    With one label an image `validation_accuracy` and `test_accuracy`, with tags `validation_map` and `test_map`.
    """
    found, kind = {}, job.kind
    if len(job.held_out):
        answers = predict(job, job.images, job.held_out)[job.held_out]
        found[f"validation_{kind.score_name}"] = kind.score(answers, job.selection.labels[job.held_out])
    if job.test is not None:
        answers = predict(job, job.test, np.arange(len(job.test)))
        found[f"test_{kind.score_name}"] = kind.score(answers, kind.targets(job.test))
    return found


def predict(job: Job, images: Images, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Classifies some rows of preprocessed images; the processes share them.

    Returns:
        Shape (N,), int64: the most likely class, -1 for other rows and for images that cannot be read. Of tags (N, K),
        float32: the logits, NaN for these.
    """
    found, seen = _evaluate(job, images, rows, lambda logits, _rows: job.kind.answers(logits))
    values = found.masked_fill(~seen.view(-1, *[1] * (found.ndim - 1)), job.kind.unread).numpy()
    return values if values.ndim > 1 else values.astype(np.int64)


def losses(job: Job) -> tuple[Tensor, Tensor]:
    """Returns the readable rows of training and the cross-entropy of their un-augmented images, each (n,)."""
    labels = torch.from_numpy(job.selection.labels)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(logits.float(), labels[rows].to(logits.device), reduction="none")

    found, seen = _evaluate(job, job.images, job.rows, loss)
    rows = torch.nonzero(seen)[:, 0]
    return rows, found[rows]


@torch.inference_mode()
def _evaluate(
    job: Job, images: Images, rows: NDArray[np.int64], measure: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Evaluates some rows of preprocessed images; the processes share them.

    Args:
        job: Knows the backbone.
        images: N images.
        rows: Which of them.
        measure: Takes logits (B, K) and row numbers (B,), returns (B,) or (B, K).

    Returns:
        What it returned for all images, (N,) or (N, K), float32, on the CPU; 0 for other rows and for images that
        cannot be read. And which images have it, (N,), bool.
    """
    backbone, engine, size = job.backbone, job.engine, job.settings.batch_size
    shape = measure(torch.zeros(0, backbone.head.out_features), torch.zeros(0, dtype=torch.int64)).shape[1:]
    found, seen = torch.zeros(len(images), *shape), torch.zeros(len(images))
    own = np.array_split(rows, engine.accelerator.num_processes)[engine.accelerator.process_index]
    parts = np.array_split(own, max(1, math.ceil(len(own) / size)))
    if job.on_features:  # in no time: they are cached, and there is one layer to pass
        features = image_features(images, backbone, engine=engine)
        for part in parts:
            logits = backbone.head(torch.from_numpy(features.pooled[part]).to(engine.device))
            found[part] = measure(logits, torch.from_numpy(part)).float().cpu()
            seen[part] = 1
        for each in (found, seen):
            each[list(features.errors)] = 0
    else:
        with engine.progress.task("evaluating", total=len(own), unit="images", brief=True) as advance:
            for batch in prepared(job.preprocessed(images), parts, backbone, device=engine.device):
                if len(batch.rows):
                    with engine.autocast():
                        logits = backbone.logits(pixels_of(batch, backbone, engine.device))
                    found[batch.rows] = measure(logits, batch.rows).float().cpu()
                    seen[batch.rows] = 1
                advance(len(batch.rows) + len(batch.errors))
    return engine.total(found.to(engine.device)).cpu(), engine.total(seen.to(engine.device)).cpu() > 0
