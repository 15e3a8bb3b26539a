"""The work of AUM: two linear probes, each with threshold samples of its own, and their margins on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, log_softmax

from labelsieve.detect.base import Scores
from labelsieve.detect.discriminant import moments
from labelsieve.detect.view import FeatureView
from labelsieve.detect.zero_shot import CHUNK, margins
from labelsieve.engine import Engine
from labelsieve.errors import TrainingError

if TYPE_CHECKING:
    from labelsieve.detect.aum import AUM

# Purposes of random generators; see also those in probe.py.
THRESHOLD, ORDER = 7, 8


class Learned(NamedTuple):
    """A trained probe and what it took to get there.

    Attributes:
        area: AUM, or the margin of the averaged probabilities, of each row with the label it was trained on, (n,).
        probe: Logits of the K classes and the extra one.
        losses: Mean loss of each epoch.
    """

    area: NDArray[np.float32]
    probe: nn.Linear
    losses: list[float]


def score_by_area(settings: AUM, view: FeatureView, *, engine: Engine) -> Scores:
    """Trains both probes and scores every row; see :class:`labelsieve.detect.aum.AUM`."""
    count, labels = len(view.rows), torch.from_numpy(view.given)
    order = torch.randperm(count, generator=engine.generator(THRESHOLD))
    present = len(np.unique(view.given))
    share = min(max(1, count // (present + 1)), count // 2)
    read = _reader(view)
    excess = np.ones(count, dtype=np.float64)
    predicted, confidence = view.given.copy(), np.ones(count, dtype=np.float32)
    losses = []
    for run in range(2 if share else 0):  # a single row has nothing to be compared with
        fake = torch.zeros(count, dtype=torch.bool)
        fake[order[run * share : (run + 1) * share]] = True
        found = learn(settings, read, labels.masked_fill(fake, view.classes), view, run=run, engine=engine)
        threshold = float(np.percentile(found.area[fake.numpy()], settings.percentile))
        # the second probe judges the threshold samples of the first
        mine = np.setdiff1d(np.arange(count), order[:share].numpy()) if run == 0 else np.sort(order[:share].numpy())
        excess[mine] = found.area[mine] - threshold
        predicted[mine], confidence[mine] = _classify(found.probe, read, mine, classes=view.classes)
        losses.append(found.losses)
    spread = float(excess.std()) or 1.0
    return view.scores(
        quality=1 / (1 + np.exp(-np.clip(excess / spread, -80, 80))),
        predicted=predicted,
        confidence=confidence,
        history=tuple(
            {"epoch": number, "loss": float(np.mean(both))}
            for number, both in enumerate(zip(*losses, strict=True), start=1)
        ),
    )


Reader = Callable[[NDArray[np.int64]], Tensor]
"""Takes positions among the readable rows and returns their features, standardised and scaled, (m, W)."""


def _reader(view: FeatureView) -> Reader:
    mean, scale = (value.float().to(view.device) for value in moments(view.features.pooled, view.rows))
    scale = scale * math.sqrt(len(scale))
    return lambda part: (view.pooled(view.rows[part]) - mean) / scale


def learn(settings: AUM, read: Reader, labels: Tensor, view: FeatureView, *, run: int, engine: Engine) -> Learned:
    """Trains a linear probe, which starts at zero, and averages the margin that each row has when it comes up.

    Where probabilities are averaged, the probe of each epoch is kept, not the probabilities, which are of N times K.

    Args:
        settings: Optimiser and epochs.
        read: Gives the features of some rows.
        labels: What to train on, (n,), values 0 to K, K being the extra class.
        view: Number of classes, width and device.
        run: Which of the probes; draws its own order of the rows.
        engine: Seed and progress.

    Raises:
        TrainingError: The loss is no longer finite.
    """
    # skip_init: the usual start would be drawn from the global generator
    probe = nn.utils.skip_init(nn.Linear, view.features.pooled.shape[1], view.classes + 1, device=view.device)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.SGD(
        probe.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    epochs = max(settings.epochs, math.ceil(settings.min_steps / math.ceil(len(labels) / settings.batch_size)))
    area, losses, probes = torch.zeros(len(labels)), [], []
    with engine.progress.task(f"training probe {run + 1} of 2", total=epochs, unit="epochs") as advance:
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(labels), generator=engine.generator(ORDER, run, epoch))
            total = 0.0
            for part in order.split(settings.batch_size):
                target = labels[part].to(view.device)
                logits = probe(read(part.numpy()))
                loss = cross_entropy(logits, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                area[part] += margins(logits.detach(), target).cpu() / epochs
                total += float(loss.detach()) * len(part)
            if not math.isfinite(total):
                raise TrainingError(
                    f"the loss is no longer a finite number in epoch {epoch}; use a lower --learning-rate"
                )
            losses.append(total / len(labels))
            if settings.average_of == "probabilities":
                probes.append((probe.weight.detach().clone(), probe.bias.detach().clone()))
            advance(1)
    return Learned(_margins_of_mean(probes, read, labels) if probes else area.numpy(), probe, losses)


@torch.inference_mode()
def _margins_of_mean(probes: list[tuple[Tensor, Tensor]], read: Reader, labels: Tensor) -> NDArray[np.float32]:
    """Returns `log p_y - max_{k≠y} log p_k` of each row, (n,), p the mean of the probabilities of all probes."""
    found = []
    for part in torch.arange(len(labels)).split(CHUNK):
        features = read(part.numpy())
        total = log_softmax(linear(features, *probes[0]), dim=1)
        for probe in probes[1:]:
            total = total.logaddexp(log_softmax(linear(features, *probe), dim=1))
        found.append(margins(total, labels[part].to(total.device)).cpu())
    return torch.cat(found).numpy()


@torch.inference_mode()
def _classify(
    probe: nn.Linear, read: Reader, part: NDArray[np.int64], *, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the most likely class of some rows and its probability, the extra class left out."""
    found = [
        probe(read(part[start : start + CHUNK]))[:, :classes].softmax(dim=1).max(dim=1)
        for start in range(0, len(part), CHUNK)
    ]
    return (
        torch.cat([most.indices for most in found]).cpu().numpy(),
        torch.cat([most.values for most in found]).cpu().numpy(),
    )
