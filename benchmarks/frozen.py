"""Measures dual-prompt learning on cached features against the same with the whole image encoder in the loop.

Sizes of ViT-B/16 with random weights, random features and pictures, the default of a scan. Ours trains all epochs.
With the encoder in the loop a step passes images through the frozen encoder, without gradients, in the precision that
a scan takes; its time is extrapolated from some steps. Both keep to the same text features and losses; decoding is left
out. What the features cost once is extrapolated as well.

Example::

    python benchmarks/frozen.py
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from labelsieve.core.engine import make_engine
from labelsieve.core.memory import reuse_allocations
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.deft.objective import DualObjective
from labelsieve.detect.training.autoconfig import resolve
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.loop import make_schedule, train
from labelsieve.vlm.feature_cache import ImageFeatures
from step import model
from text_encoder import names


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenMode:
    """What to measure.

    Attributes:
        images: N.
        classes: K.
        epochs: Epochs.
        batch: B with the image encoder in the loop.
        steps: Steps that its time is extrapolated from.
        device: Where.
    """

    images: int = 50_000
    classes: int = 100
    epochs: int = 10
    batch: int = 64
    steps: int = 20
    device: str = "auto"


class InTheLoop(BatchSource):
    """Passes pictures through the image encoder at each step, and stops after some steps."""

    steps = 0

    def epoch(self, number: int) -> Any:
        vlm, engine = self.learner.vlm, self.engine
        pixels = torch.rand(self.batch_size, 3, vlm.image_size, vlm.image_size, device=engine.device)
        for step in range(self.steps):
            with torch.no_grad(), engine.autocast():
                pooled = vlm.pool(vlm.normalise(pixels)).float()
            yield np.arange(self.batch_size) + step, pooled


def run(options: FrozenMode) -> None:
    """Prints the seconds of both, and the ratios."""
    engine = make_engine(device=options.device)
    vlm, classes = model("sdpa").to(engine.device), tuple(names(options.classes))
    generator = torch.Generator().manual_seed(0)
    pooled = torch.randn(options.images, vlm.vision_width, generator=generator).numpy()
    labels = torch.randint(0, options.classes, (options.images,), generator=generator)
    images: Any = SimpleNamespace(fingerprint="random", class_names=classes)

    def timed(settings: DeFT, kind: Any) -> float:
        learner = Learner(vlm, classes, settings=settings, engine=engine)
        size = int(settings.batch_size)
        feed = kind(images, ImageFeatures(pooled, {}), learner, engine, size, size, compiles=False)
        schedule = make_schedule(settings, images=options.images)
        objective = DualObjective(
            settings, warmup=schedule.warmup, images=options.images, classes=options.classes, engine=engine
        )
        started = time.perf_counter()
        train(feed, labels, objective=objective, settings=settings, schedule=schedule)
        return time.perf_counter() - started

    asked = DeFT(epochs=options.epochs, peft="none")
    settings = resolve(asked, vlm, readable=options.images, engine=engine)
    ours = timed(settings, BatchSource)
    steps = make_schedule(settings, images=options.images).epochs * -(-options.images // int(settings.batch_size))
    print(f"cached features ({engine.precision}): {ours:.1f} s, {steps} steps of {settings.batch_size}", flush=True)

    InTheLoop.steps = options.steps
    once = timed(replace(asked, peft="none", compile="off", epochs=1, min_steps=0, batch_size=options.batch), InTheLoop)
    of_all = -(-options.images // options.batch) * options.epochs
    loop = once / options.steps * of_all
    print(
        f"encoder in the loop: {once:.1f} s for {options.steps} steps of {options.batch}, so {loop:,.0f} s for {of_all}"
    )

    def forward() -> Tensor:
        with torch.no_grad(), engine.autocast(), reuse_allocations():
            return vlm.pool(torch.rand(options.batch, 3, vlm.image_size, vlm.image_size, device=engine.device))

    forward()
    started = time.perf_counter()
    float(forward().sum())
    features = (time.perf_counter() - started) / options.batch * options.images
    print(f"ratio: {loop / ours:.0f}; with {features:,.0f} s for the features, once: {loop / (ours + features):.1f}")


if __name__ == "__main__":
    run(tyro.cli(FrozenMode, description=__doc__))
