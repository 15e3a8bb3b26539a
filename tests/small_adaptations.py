"""What tests of phase 2 train on: noisy pictures of three colours, verdicts on them, and a quick way to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import labelsieve as ls
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources import load_images
from labelsieve.detect.scores import Scores
from labelsieve.finetune.result import Adapted
from labelsieve.finetune.settings import Adaptation
from labelsieve.verdicts import Verdicts, decide
from small_backbones import SIZE

CLASSES = ("red", "green", "blue")
FLAGGED = (0, 5, 11)
QUICK: dict[str, Any] = {"epochs": 2, "min_steps": 0, "batch_size": 8}


def pictures(count: int, *, seed: int = 0) -> tuple[list[Image.Image], NDArray[np.int64]]:
    """Draws noisy pictures in which the channel of the class is the brightest."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % len(CLASSES)
    found = []
    for label in labels:
        pixels = rng.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
        pixels[..., label] += 100
        found.append(Image.fromarray(pixels))
    return found, labels


def mislabelled() -> LabelledImages:
    """Returns 24 pictures; those of `FLAGGED` have the label of the next class."""
    drawn, labels = pictures(24)
    labels[list(FLAGGED)] = (labels[list(FLAGGED)] + 1) % 3
    return load_images(drawn, labels=labels, class_names=CLASSES)


def verdicts_on(images: LabelledImages, *, flagged: Any = FLAGGED, unreadable: Any = (), **columns: Any) -> Verdicts:
    """Returns verdicts by which what is flagged has a p_clean of 0.2, all else one above one half."""
    quality = np.linspace(0.6, 1.0, len(images)).astype(np.float32)
    quality[list(flagged)] = 0.2
    predicted = images.labels.copy()
    predicted[list(flagged)] = (predicted[list(flagged)] - 1) % 3
    predicted[list(unreadable)], quality[list(unreadable)] = -1, np.nan
    values: dict[str, Any] = {"label_quality": quality, "predicted": predicted, "confidence": quality, **columns}
    scores = Scores(**values)
    rule = {"threshold": None if scores.issue is not None else scores.threshold}
    rule |= {"demand_agreement": scores.demand_agreement}
    record = {**rule, "data": {"fingerprint": images.fingerprint}, "source": "photos", "detector": {"name": "deft"}}
    return decide(images, scores, record=record)


def adapted(images: LabelledImages, verdicts: Verdicts, backbone: Path, *, out: Any = None, **settings: Any) -> Adapted:
    """Adapts a backbone on the CPU, with quick settings where none are given."""
    options = {key: settings.pop(key) for key in ("test", "resume", "seed", "overwrite", "marks") if key in settings}
    how = Adaptation(**{**QUICK, **settings})
    return ls.adapt(
        images, verdicts, backbone=backbone, settings=how, device="cpu", precision="fp32", out=out, **options
    )


def weights(result: Adapted) -> dict[str, Tensor]:
    """Returns the weights of a result by name."""
    return {key: value.detach() for key, value in result.model.state_dict().items()}


def differs(first: Adapted, second: Adapted) -> set[str]:
    """Returns the names of the weights of the first that are others in the second."""
    one, two = weights(first), weights(second)
    return {key for key, value in one.items() if not torch.equal(value, two[key])}
