"""AUM: the area under the margin while a probe learns, with threshold samples (Pleiss et al., NeurIPS 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from labelsieve.core.errors import setting
from labelsieve.core.seeds import Purpose
from labelsieve.core.validation import BatchSize, LearningRate, Momentum, Range, Steps, WeightDecay
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores

    Reader = Callable[[NDArray[np.int64]], Tensor]


@dataclass(frozen=True, kw_only=True)
class AUM(Detector):
    """Ranks by the margin of the given label, averaged over the epochs in which a linear probe learns all labels.

    The margin of an image in epoch t is `z_y - max_{k≠y} z_k` of the probe's logits z when the image comes up (Eq. 1 of
    Pleiss et al., *Identifying Mislabeled Data using the Area Under the Margin Ranking*, NeurIPS 2020); AUM is its mean
    over the epochs (Eq. 2). The threshold is learned too: one image in K + 1 is put into an extra class, where it does
    not belong, and an image is an issue where its AUM is not above the 99th percentile of theirs. A second probe with
    other threshold samples scores the first ones. Quality is a logistic function of the distance to the threshold, so
    that it ranks as AUM does.

    By `average_of="probabilities"` the margin is instead that of the logarithms of the probabilities after each epoch,
    averaged over the epochs: the combination in sample that a benchmark found the best (Pickler, Kamassury and Silva,
    *Benchmarking Noisy Label Detection Methods*, 2025, arXiv 2510.16211). Threshold samples are as before.

    Attributes:
        average_of: What is averaged over the epochs: `margins`, which is AUM, or `probabilities`.
        epochs: Passes over the data, at least 1.
        min_steps: Small data get more epochs until there are at least this many steps.
        batch_size: Images in a step.
        learning_rate: Of SGD on standardised features, scaled to a mean square length of 1.
        momentum: Of SGD.
        weight_decay: Of SGD.
        percentile: Of the threshold samples, between 0 and 100; 99 in the paper.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.AUM())
        >>> sorted(verdicts.label_quality.argsort()[:2].tolist())  # the two of lowest quality
        [0, 1]
    """

    average_of: Literal["margins", "probabilities"] = "margins"
    epochs: Annotated[int, Range(1, 1_000)] = 20
    min_steps: Steps = 300
    batch_size: BatchSize = 256
    learning_rate: LearningRate = 1.0
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 1e-4
    percentile: Annotated[float, Range(0, 100)] = 99.0
    uses_text = False

    def score(self, inputs: DetectorInputs) -> Scores:
        """Trains both probes and scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import numpy as np
        import torch

        count, labels = len(inputs.rows), torch.from_numpy(inputs.given)
        order = torch.randperm(count, generator=inputs.engine.generator(Purpose.AUM_THRESHOLD_SAMPLES))
        present = len(np.unique(inputs.given))
        share = min(max(1, count // (present + 1)), count // 2)
        read = _reader(inputs)
        excess = np.ones(count, dtype=np.float64)
        predicted, confidence = inputs.given.copy(), np.ones(count, dtype=np.float32)
        losses = []
        for run in range(2 if share else 0):  # a single row has nothing to be compared with
            fake = torch.zeros(count, dtype=torch.bool)
            fake[order[run * share : (run + 1) * share]] = True
            probe_run = learn(self, read, labels.masked_fill(fake, inputs.classes), inputs, run=run)
            threshold = float(np.percentile(probe_run.area[fake.numpy()], self.percentile))
            # the second probe scores the threshold samples of the first
            rows = np.setdiff1d(np.arange(count), order[:share].numpy()) if run == 0 else np.sort(order[:share].numpy())
            excess[rows] = probe_run.area[rows] - threshold
            predicted[rows], confidence[rows] = _classify(probe_run.probe, read, rows, classes=inputs.classes)
            losses.append(probe_run.losses)
        spread = float(excess.std()) or 1.0
        return inputs.scores(
            quality=1 / (1 + np.exp(-np.clip(excess / spread, -80, 80))),
            predicted=predicted,
            confidence=confidence,
            history=tuple(
                {"epoch": number, "loss": float(np.mean(both))}
                for number, both in enumerate(zip(*losses, strict=True), start=1)
            ),
        )


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


def _reader(inputs: DetectorInputs) -> Reader:
    """Returns what takes positions among the readable rows to their features, standardised and scaled, (m, W)."""
    from labelsieve.detect.evidence.discriminants import moments

    mean, scale = (value.float().to(inputs.device) for value in moments(inputs.features.pooled, inputs.rows))
    scale = scale * math.sqrt(len(scale))
    return lambda part: (inputs.pooled(inputs.rows[part]) - mean) / scale


def learn(settings: AUM, read: Reader, labels: Tensor, inputs: DetectorInputs, *, run: int) -> Learned:
    """Trains a linear probe, which starts at zero, and averages the margin that each row has when it comes up.

    Where probabilities are averaged, the probe of each epoch is kept, not the probabilities, which are of N times K.

    Args:
        settings: Optimiser and epochs.
        read: Gives the features of some rows.
        labels: What to train on, (n,), values 0 to K, K being the extra class.
        inputs: Number of classes, width, device, seed and progress.
        run: Which of the probes; draws its own order of the rows.

    Raises:
        TrainingError: The loss is no longer finite.
    """
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from labelsieve.core.training import check_finite
    from labelsieve.detect.zero_shot import margins

    # skip_init: the usual start would be drawn from the global generator
    probe = nn.utils.skip_init(nn.Linear, inputs.features.pooled.shape[1], inputs.classes + 1, device=inputs.device)
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
    with inputs.progress.task(f"training probe {run + 1} of 2", total=epochs, unit="epochs") as advance:
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(labels), generator=inputs.engine.generator(Purpose.AUM_ORDER, run, epoch))
            total = 0.0
            for part in order.split(settings.batch_size):
                target = labels[part].to(inputs.device)
                logits = probe(read(part.numpy()))
                loss = cross_entropy(logits, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                area[part] += margins(logits.detach(), target).cpu() / epochs
                total += float(loss.detach()) * len(part)
            check_finite(torch.tensor(total), epoch, advice=f"a lower {setting('learning_rate')}")
            losses.append(total / len(labels))
            if settings.average_of == "probabilities":
                probes.append((probe.weight.detach().clone(), probe.bias.detach().clone()))
            advance(1)
    return Learned(_margins_of_mean(probes, read, labels) if probes else area.numpy(), probe, losses)


def _margins_of_mean(probes: list[tuple[Tensor, Tensor]], read: Reader, labels: Tensor) -> NDArray[np.float32]:
    """Returns `log p_y - max_{k≠y} log p_k` of each row, (n,), p the mean of the probabilities of all probes."""
    import torch
    from torch.nn.functional import linear, log_softmax

    from labelsieve.detect.chunks import CHUNK
    from labelsieve.detect.zero_shot import margins

    parts = []
    for part in torch.arange(len(labels)).split(CHUNK):
        features = read(part.numpy())
        total = log_softmax(linear(features, *probes[0]), dim=1)
        for probe in probes[1:]:
            total = total.logaddexp(log_softmax(linear(features, *probe), dim=1))
        parts.append(margins(total, labels[part].to(total.device)).cpu())
    return torch.cat(parts).numpy()


def _classify(probe: nn.Linear, read: Reader, rows: NDArray[np.int64], *, classes: int) -> list[NDArray[Any]]:
    """Returns the most likely class of some rows and its probability, (n,) each, the extra class left out."""
    import torch

    from labelsieve.detect.chunks import in_chunks

    @torch.inference_mode()
    def likeliest(part: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        confidence, predicted = probe(read(part))[:, :classes].softmax(dim=1).max(dim=1)
        return predicted, confidence

    return in_chunks(likeliest, rows)
