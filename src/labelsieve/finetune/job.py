"""The training job of a classifier: model, data and settings, which the loop and the evaluation share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from labelsieve.core.checkpoints import RunIdentity
from labelsieve.core.engine import Engine
from labelsieve.core.errors import SettingsError, setting
from labelsieve.core.memory import max_chunk_size
from labelsieve.core.seeds import Purpose
from labelsieve.data.images import Images
from labelsieve.data.input.batches import crop_area
from labelsieve.data.input.image_cache import CachedImages, cached_images
from labelsieve.data.input.preprocessed import preprocessed_images
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.selection import Selection
from labelsieve.finetune.settings import Adaptation
from labelsieve.finetune.target_kinds import AnyImages, TargetKind, kind_of

# Bytes of activations, the same on all machines, of a backbone with random layers such as dropout.
_ACTIVATION_BUDGET = 2 * 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """Model, data and settings of a training.

    Attributes:
        backbone: Changed in place.
        images: N images, with one label each or with tags.
        selection: Training rows, labels and weights.
        held_out: Rows of the selection for validation.
        test: Test images with the class names of `images`; or None.
        settings: The settings.
        engine: Device, precision, processes, seed, checkpoints, progress.
        identity: Identity of the run, for checkpoints.
    """

    backbone: Backbone
    images: AnyImages
    selection: Selection
    held_out: NDArray[np.int64]
    test: AnyImages | None
    settings: Adaptation
    engine: Engine
    identity: RunIdentity

    @cached_property
    def kind(self) -> TargetKind:
        """Single labels or tags."""
        return kind_of(self.images)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The training rows without the validation rows."""
        return np.setdiff1d(self.selection.rows, self.held_out)

    @cached_property
    def crop_source(self) -> CachedImages:
        """Cached images from which epochs take their crops."""
        area = crop_area(self.backbone.image_size)
        return cached_images(self.images, area=area, accelerator=self.engine.accelerator)

    def preprocessed(self, images: Images) -> Images | CachedImages:
        """Returns the preprocessed images, cached for all epochs; the images themselves if they cannot be cached."""
        if images.pixels_fingerprint not in self._preprocessed:
            cached = preprocessed_images(images, self.backbone, accelerator=self.engine.accelerator)
            self._preprocessed[images.pixels_fingerprint] = images if cached is None else cached
        return self._preprocessed[images.pixels_fingerprint]

    @cached_property
    def _preprocessed(self) -> dict[str, Images | CachedImages]:
        return {}

    @cached_property
    def chunk_size(self) -> int:
        """Number of images in a forward pass: the whole batch, or as many as fit into memory.

        Batch normalisation needs the whole batch. Random layers such as dropout depend on the chunks, whose size must
        then be the same on all machines.
        """
        backbone, engine = self.backbone, self.engine
        maximum = math.ceil(self.settings.batch_size / int(engine.accelerator.num_processes))
        if any(isinstance(module, _BatchNorm) for module in backbone.model.modules()):
            return maximum

        def logits(pixels: Tensor) -> Tensor:
            with engine.autocast():
                return backbone.logits(backbone.normalise(pixels))

        one = torch.zeros(1, 3, backbone.image_size, backbone.image_size, device=engine.device)
        return max_chunk_size(
            logits,
            one,
            maximum=maximum,
            budget=_ACTIVATION_BUDGET if _uses_randomness(backbone, engine, lambda: logits(one)) else None,
        )

    @property
    def uses_cached_features(self) -> bool:
        """Whether the image encoder is frozen, so that its features are computed once."""
        return self.settings.tune == "linear"


def draw_validation_rows(selection: Selection, share: float, *, engine: Engine) -> NDArray[np.int64]:
    """Draws a share of the rows of each class, or of all images for tags, at random.

    Args:
        selection: The training part of the data.
        share: At least 0 and below 1; the number of rows of a class is rounded down.
        engine: Has the seed.

    Raises:
        SettingsError: That would be no row at all.
    """
    labels, drawn = selection.strata[selection.rows], [np.empty(0, dtype=np.int64)]
    generator = engine.generator(Purpose.VALIDATION_IMAGES)
    for label in np.unique(labels):
        class_rows = selection.rows[labels == label]
        count = int(round(share * len(class_rows), 9))  # 0.29 of 100 is 29, not 28.999...
        drawn.append(class_rows[torch.randperm(len(class_rows), generator=generator).numpy()[:count]])
    held_out = np.sort(np.concatenate(drawn))
    if share > 0 and not len(held_out):
        raise SettingsError(
            f"{setting('validation')} {share:g} would hold out no image, for each class has fewer than "
            f"{math.ceil(1 / share)} to train on; use a larger share, or leave it out"
        )
    return held_out


@contextmanager
def training_mode(backbone: Backbone, engine: Engine, epoch: int) -> Iterator[None]:
    """Sets the training mode, and seeds random layers by the seed and the epoch.

    Args:
        backbone: In training mode within the block, in evaluation mode after it.
        engine: Has the seed, the device and the number of the process.
        epoch: Number of the epoch, from 1; 0 for a trial before training.
    """
    model = backbone.model
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not all(p.requires_grad for p in module.parameters()):
            module.eval()  # statistics of a frozen layer are frozen, too
    devices = [engine.device.index or 0] if engine.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            generator = engine.generator(Purpose.DROPOUT, epoch, engine.accelerator.process_index)
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            yield
    finally:
        model.eval()


@torch.no_grad()
def _uses_randomness(backbone: Backbone, engine: Engine, work: Callable[[], Any]) -> bool:
    """Returns whether `work` with the backbone uses random numbers in training mode, as dropout does."""
    device = engine.device

    def state() -> Tensor:
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    with training_mode(backbone, engine, 0):
        initial = state()
        work()
        return not torch.equal(initial, state())
