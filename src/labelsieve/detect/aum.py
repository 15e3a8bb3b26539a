"""AUM: area under the margin during the training of a probe, with threshold samples (Pleiss et al., NeurIPS 2020)."""

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
    """Ranks labels by their margin, averaged over the epochs in which a linear probe is trained on all labels.

    The margin of an image in epoch t is `z_y - max_{k≠y} z_k` of the probe's logits z at the image's training step
    (Eq. 1 of Pleiss et al., *Identifying Mislabeled Data using the Area Under the Margin Ranking*, NeurIPS 2020); AUM
    is its mean over the epochs (Eq. 2). The threshold is also learned: one of K + 1 images is a threshold sample, which
    is assigned to an extra class. A label is an issue if its AUM is at most the 99th percentile of the threshold
    samples. A second probe, with other threshold samples, scores the first ones. Quality is a logistic function of the
    distance to the threshold.

    With `average_of="probabilities"` the probabilities after each epoch are averaged over the epochs, and the margin is
    that of the logarithms of these means. A benchmark found this the best in-sample combination (Pickler, Kamassury and
    Silva, *Benchmarking Noisy Label Detection Methods*, 2025, arXiv 2510.16211). Threshold samples are the same.

    Attributes:
        average_of: What is averaged over the epochs: `margins`, which is AUM, or `probabilities`.
        epochs: Passes over the data, at least 1.
        min_steps: Minimum number of steps: small data get more epochs.
        batch_size: Images per step.
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
        for run in range(2 if share else 0):  # a single row has no threshold sample
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
    """A trained probe with the records of its training.

    Attributes:
        area: AUM, or the margin of the averaged probabilities, for the label each row was trained on, (n,).
        probe: Linear layer to the logits of the K classes and the extra class.
        losses: Mean loss of each epoch.
    """

    area: NDArray[np.float32]
    probe: nn.Linear
    losses: list[float]


def _reader(inputs: DetectorInputs) -> Reader:
    """Returns a function from positions among the readable rows to standardised and scaled features, (m, W)."""
    from labelsieve.detect.evidence.discriminants import moments

    mean, scale = (value.float().to(inputs.device) for value in moments(inputs.features.pooled, inputs.rows))
    scale = scale * math.sqrt(len(scale))
    return lambda part: (inputs.pooled(inputs.rows[part]) - mean) / scale


def learn(settings: AUM, read: Reader, labels: Tensor, inputs: DetectorInputs, *, run: int) -> Learned:
    """Trains a linear probe, initialised with zeros, and averages the margin of each row at its training steps.

    To average probabilities, it keeps the probe of each epoch, because the probabilities have N times K values.

    Args:
        settings: Settings of the optimiser and number of epochs.
        read: Returns the features of some rows.
        labels: Labels to train on, (n,), values 0 to K, where K is the extra class.
        inputs: Number of classes, width, device, seed and progress.
        run: Number of the probe, 0 or 1; each has its own order of the rows.

    Raises:
        TrainingError: The loss is not finite.
    """
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from labelsieve.core.training import check_finite
    from labelsieve.detect.zero_shot import margins

    # skip_init, because the default initialisation would draw from the global generator
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
    """Returns `log p_y - max_{k≠y} log p_k` of each row, (n,), where p is the mean probability over all probes."""
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
    """Returns the most likely class of some rows, other than the extra class, and its probability, (n,) each."""
    import torch

    from labelsieve.detect.chunks import in_chunks

    @torch.inference_mode()
    def likeliest(part: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        confidence, predicted = probe(read(part))[:, :classes].softmax(dim=1).max(dim=1)
        return predicted, confidence

    return in_chunks(likeliest, rows)
