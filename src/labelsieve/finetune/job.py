"""What is fine-tuned, on what, and how: all that the loop and the evaluation of a classifier share."""

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
from labelsieve.core.memory import max_chunk_size
from labelsieve.core.seeds import Purpose
from labelsieve.data.images import Images
from labelsieve.data.input.batches import crop_area
from labelsieve.data.input.image_cache import Pictures, kept_images
from labelsieve.data.input.preprocessed import preprocessed_images
from labelsieve.finetune.backbones import Backbone
from labelsieve.finetune.kinds import AnyImages, TargetKind, kind_of
from labelsieve.finetune.selection import Selection
from labelsieve.finetune.settings import Adaptation

# Bytes of activations, on any machine, of a backbone that draws random numbers while it is trained.
_ROOM = 2 * 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What is trained, on what, and how.

    Attributes:
        backbone: Changed in place.
        images: N images, with one label each or with tags.
        selection: Which of them, with which labels and weights.
        held_out: Rows of the selection that are kept for validation.
        test: Images that tell how well it does, with the class names of `images`; or None.
        settings: The settings.
        engine: Device, precision, processes, seed, checkpoints, progress.
        identity: What a checkpoint of all of this belongs to.
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
        """What the targets are: one class an image, or tags."""
        return kind_of(self.images)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows to train on."""
        return np.setdiff1d(self.selection.rows, self.held_out)

    @cached_property
    def crop_source(self) -> Pictures:
        """What epochs take their crops from."""
        area = crop_area(self.backbone.image_size)
        return kept_images(self.images, area=area, accelerator=self.engine.accelerator)

    def preprocessed(self, images: Images) -> Images | Pictures:
        """Returns images as the backbone prepares them, kept for all epochs; as they are where that cannot be."""
        if images.pixels_fingerprint not in self._preprocessed:
            found = preprocessed_images(images, self.backbone, accelerator=self.engine.accelerator)
            self._preprocessed[images.pixels_fingerprint] = images if found is None else found
        return self._preprocessed[images.pixels_fingerprint]

    @cached_property
    def _preprocessed(self) -> dict[str, Images | Pictures]:
        return {}

    @cached_property
    def at_once(self) -> int:
        """How many images pass the backbone at a time: all of a batch, or as many as fit into memory.

        Batch normalisation needs all of them together. What layers drop depends on the parts, so that these must not
        depend on the machine where there are such layers.
        """
        backbone, engine = self.backbone, self.engine
        most = math.ceil(self.settings.batch_size / int(engine.accelerator.num_processes))
        if any(isinstance(module, _BatchNorm) for module in backbone.model.modules()):
            return most

        def logits(pixels: Tensor) -> Tensor:
            with engine.autocast():
                return backbone.logits(backbone.normalise(pixels))

        one = torch.zeros(1, 3, backbone.image_size, backbone.image_size, device=engine.device)
        return max_chunk_size(
            logits, one, maximum=most, budget=_ROOM if _draws(backbone, engine, lambda: logits(one)) else None
        )

    @property
    def on_features(self) -> bool:
        """Whether the image encoder stands still, so that its features are computed once."""
        return self.settings.tune == "linear"


def hold_out(selection: Selection, share: float, *, engine: Engine) -> NDArray[np.int64]:
    """Draws a share of the rows of each class, or of all images with tags, rounded down."""
    labels, drawn = selection.strata[selection.rows], [np.empty(0, dtype=np.int64)]
    generator = engine.generator(Purpose.VALIDATION_IMAGES)
    for label in np.unique(labels):
        own = selection.rows[labels == label]
        drawn.append(own[torch.randperm(len(own), generator=generator).numpy()[: int(share * len(own))]])
    return np.sort(np.concatenate(drawn))


@contextmanager
def training_mode(backbone: Backbone, engine: Engine, epoch: int) -> Iterator[None]:
    """Sets the training mode, and draws what layers drop from the seed and the epoch."""
    model = backbone.model
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not all(p.requires_grad for p in module.parameters()):
            module.eval()  # where the layer is frozen, so are its statistics
    devices = [engine.device.index or 0] if engine.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            generator = engine.generator(Purpose.DROPOUT, epoch, engine.accelerator.process_index)
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            yield
    finally:
        model.eval()


@torch.no_grad()
def _draws(backbone: Backbone, engine: Engine, work: Callable[[], Any]) -> bool:
    """Returns whether work with the backbone draws random numbers in training mode, as dropout does."""
    device = engine.device

    def state() -> Tensor:
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    with training_mode(backbone, engine, 0):
        before = state()
        work()
        return not torch.equal(before, state())
