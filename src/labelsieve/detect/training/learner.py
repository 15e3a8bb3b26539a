"""The trained parameters: context vectors on the text side and, optionally, a module on the image encoder.

The encoders stay frozen: modules such as full fine-tuning train copies of the encoder's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from labelsieve.core.engine import Engine
from labelsieve.core.memory import checkpointed_chunks
from labelsieve.core.seeds import Purpose
from labelsieve.data.images import Images, LabelledImages
from labelsieve.data.input.batches import Augment, batches, crop_area, unit
from labelsieve.data.input.image_cache import CachedImages, cached_images
from labelsieve.data.input.preprocessed import preprocessed_images
from labelsieve.data.tags.records import TaggedImages
from labelsieve.detect.training.compiling import compiled
from labelsieve.detect.training.settings import PromptTraining, Training
from labelsieve.detect.zero_shot import NAMES, classify
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.feature_cache import ImageFeatures
from labelsieve.vlm.features import image_features, temporary_features
from labelsieve.vlm.peft.base import build_peft
from labelsieve.vlm.peft.target_layers import ModuleSpec
from labelsieve.vlm.prompts import DualPrompts


class Learner(nn.Module):
    """Prompts and an optional parameter-efficient module for a frozen model.

    Its parameters are those that are trained, and the positive context if it is fixed. The model is not a submodule, so
    that the state dict stays small.

    Args:
        vlm: The frozen model.
        class_names: The K names.
        settings: What to train; a `PromptTraining` leaves the image encoder frozen.
        engine: Provides the generator of the initial values and the device.
    """

    def __init__(
        self, vlm: VisionLanguageModel, class_names: tuple[str, ...], *, settings: PromptTraining, engine: Engine
    ) -> None:
        super().__init__()
        generator = engine.generator(Purpose.INITIAL_PROMPTS)
        self.prompts = DualPrompts(
            vlm,
            class_names,
            context_tokens=settings.context_tokens,
            init=settings.context_init,
            generator=generator,
        )
        self.prompts.positive.requires_grad_(settings.context_learns)
        self.peft = None
        if isinstance(settings, Training):
            spec = ModuleSpec(settings.peft, settings.visual_prompts, settings.bottleneck, generator)
            self.peft = build_peft(spec, vlm)
        self._frozen = (vlm,)
        self._is_attached = False
        self.engine = engine
        self.to(engine.device)

    @property
    def vlm(self) -> VisionLanguageModel:
        """The frozen model."""
        return self._frozen[0]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attaches the module to the image encoder within a `with` statement, which may be nested."""
        if self.peft is None or self._is_attached:
            yield
            return
        handles, self._is_attached = self.peft.attach(self.vlm), True
        try:
            yield
        finally:
            self._is_attached = False
            for handle in handles:
                handle.remove()

    def pool(self, pixels: Tensor) -> Tensor:
        """Returns features, (B, vision_width), of pixels from 0 to 1, (B, 3, S, S), in the precision of the engine."""
        with self.engine.autocast():
            return self.vlm.pool(self.vlm.normalise(pixels)).float()

    def text(self, *, negative: bool = True) -> tuple[Tensor, Tensor | None]:
        """Returns the normalised text features T+ and T-, each (K, D); T- is None without `negative`."""
        prompts = self.prompts
        with self.engine.autocast():
            positive = prompts.text_features(self.vlm, prompts.positive).float()
            return positive, prompts.text_features(self.vlm, prompts.negative).float() if negative else None

    @torch.inference_mode()
    def final_text(self, *, negative: bool = True) -> tuple[Tensor, Tensor | None]:
        """Returns the same as :meth:`text`, without gradients, in parts of some classes, with progress."""
        contexts = (self.prompts.positive, self.prompts.negative)[: 1 + negative]
        parts, features_of_parts = torch.arange(len(self.prompts.token_ids)).split(NAMES), []
        total, progress = len(contexts) * len(self.prompts.token_ids), self.engine.progress
        with progress.task("encoding prompts", total=total, unit="prompts", brief=True) as advance:
            for context in contexts:
                features = []
                for part in parts:
                    with self.engine.autocast():
                        features.append(self.prompts.text_features(self.vlm, context, part).float())
                    advance(len(part))
                features_of_parts.append(torch.cat(features))
        return features_of_parts[0], features_of_parts[1] if negative else None

    def similarities(self, pooled: Tensor, text: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        """Returns s+ and s-, each (B, K), of pooled image features (B, vision_width).

        The image features are detached in s-, so that a loss on it trains only the negative prompts. Without T-, s- is
        a detached s+.
        """
        image = normalize(self.vlm.project(pooled), dim=-1)
        positive = self.vlm.logit_scale * image @ text[0].T
        if text[1] is None:
            return positive, positive.detach()
        return positive, self.vlm.logit_scale * image.detach() @ text[1].T

    def negative_similarities(self, pooled: Tensor, classes: Tensor, *, others: bool) -> Tensor:
        """Returns s-, with gradients for some classes only.

        Args:
            pooled: (B, vision_width).
            classes: Distinct classes that need gradients, (n,), on the CPU, n at least 1.
            others: Whether to compute the other classes, without gradients; otherwise their prompts are not encoded.

        Returns:
            (B, K); 0 for the other classes without `others`.
        """
        image = normalize(self.vlm.project(pooled), dim=-1).detach()
        logits = image.new_zeros(len(image), len(self.prompts.token_ids))
        if others:
            other_classes = torch.ones(logits.shape[1], dtype=torch.bool).index_fill(0, classes, False).nonzero()[:, 0]
            with torch.no_grad():
                logits = self._fill(logits, image, other_classes) if len(other_classes) else logits
        return self._fill(logits, image, classes)

    def _fill(self, logits: Tensor, image: Tensor, classes: Tensor) -> Tensor:
        """Returns the logits, (B, K), with s- of some classes, (n,), in their columns."""
        with self.engine.autocast():
            text = self.prompts.text_features(self.vlm, self.prompts.negative, classes).float()
        return logits.index_copy(1, classes.to(image.device), self.vlm.logit_scale * image @ text.T)


@dataclass(frozen=True, eq=False)
class BatchSource:
    """Batches for a learner: cached features if the image encoder is frozen, augmented images if it is adapted.

    Attributes:
        images: N images, with one label each or with tags.
        features: Features of the zero-shot model; they know which images can be read.
        learner: The trained parameters.
        engine: Device, precision, seed.
        batch_size: B, over all processes together.
        at_once: Maximum number of images per pass through an adapted encoder; larger batches are split into parts,
            which are recomputed for their gradients.
        compiles: Whether the blocks of an adapted image encoder are compiled during training.
    """

    images: LabelledImages | TaggedImages
    features: ImageFeatures
    learner: Learner
    engine: Engine
    batch_size: int
    at_once: int
    compiles: bool

    @cached_property
    def crop_source(self) -> CachedImages:
        """The images from which epochs take their crops."""
        area, accelerator = crop_area(self.learner.vlm.image_size), self.engine.accelerator
        return cached_images(self.images, area=area, accelerator=accelerator, companion=self.preprocessed)

    @cached_property
    def preprocessed(self) -> CachedImages | None:
        """The un-augmented images that are scored at the end."""
        return preprocessed_images(self.images, self.learner.vlm, accelerator=self.engine.accelerator)

    @property
    def adapts_encoder(self) -> bool:
        """Whether images have to pass through the image encoder in every epoch."""
        return self.learner.peft is not None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attaches the learner's module to the image encoder, and compiles the encoder if requested."""
        blocks = self.learner.vlm.vision_layers
        with self.learner.attached(), compiled(blocks, batch=self.at_once) if self.compiles else nullcontext():
            yield

    def epoch(self, number: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yields rows and pooled features of one shuffled epoch, with gradients if the image encoder is adapted."""
        readable = self.features.readable
        order = readable[
            torch.randperm(len(readable), generator=self.engine.generator(Purpose.TRAINING_ORDER, number)).numpy()
        ]
        starts = range(0, len(order), self.batch_size)
        batches_of_process = [np.asarray(self.engine.share(order[start : start + self.batch_size])) for start in starts]
        if not self.adapts_encoder:
            for rows in batches_of_process:
                yield rows, torch.from_numpy(self.features.pooled[rows]).to(self.engine.device)
            return
        augment = Augment(self.learner.vlm.image_size, seed=self.engine.seed, epoch=number)
        for batch in batches(self.crop_source, batches_of_process, transform=augment, device=self.engine.device):
            yield batch.rows.numpy(), self._pool(batch.inputs)

    def _pool(self, pixels: Tensor) -> Tensor:
        """Returns the features of augmented images, (B, 3, S, S) uint8, with gradients."""
        learner, device = self.learner, self.engine.device
        if not len(pixels):  # more processes than images in the last batch
            return torch.zeros(0, learner.vlm.vision_width, device=device)

        def pool(first: int, last: int) -> Tensor:
            return learner.pool(unit(pixels[first:last].to(device)))

        return checkpointed_chunks(pool, count=len(pixels), chunk_size=self.at_once, device=device)


def adapted_features(batches: BatchSource, other: LabelledImages | None = None) -> ImageFeatures:
    """Returns the pooled features of un-augmented images after training.

    An adapted encoder takes a new, deterministic pass over the images: without augmentation, with fixed weights.

    Args:
        batches: The images and the trained learner.
        other: Images to use instead of those of the batches.
    """
    engine, learner = batches.engine, batches.learner
    if not batches.adapts_encoder:
        return batches.features if other is None else image_features(other, learner.vlm, engine=engine)
    images: Images = batches.images
    pixels = batches.preprocessed
    if other is not None:
        images, pixels = other, preprocessed_images(other, learner.vlm, accelerator=engine.accelerator)
    with learner.attached():
        return temporary_features(images, learner.vlm, engine=engine, batch_size=batches.batch_size, pixels=pixels)


@torch.inference_mode()
def classify_others(batches: BatchSource, images: LabelledImages) -> NDArray[np.int64]:
    """Classifies images outside the training data by s+ on un-augmented pixels.

    Args:
        batches: Provide the trained learner.
        images: T images; their labels are never read.

    Returns:
        Most likely class of each image, (T,); -1 if it could not be read.
    """
    learner, features = batches.learner, adapted_features(batches, images)
    text = learner.final_text(negative=False)

    def logits(rows: NDArray[np.int64]) -> Tensor:
        return learner.similarities(torch.from_numpy(features.pooled[rows]).to(batches.engine.device), text)[0]

    return classify(logits, rows=features.readable, images=len(images), progress=batches.engine.progress)
