"""Losses of phase 2: cross-entropy, and robust losses, which the selection is compared with.

Tags are trained with binary cross-entropy. :mod:`labelsieve.finetune.registry` lists the losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from labelsieve.detect.losses import cross_entropy
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.finetune.registry import LOSSES


class Loss:
    """A per-image loss; this base class has no state and selects all images.

    Args:
        function: Takes logits (B, K) and labels (B,), returns (B,).

    Attributes:
        memory: Its state: tensors with one row for each image of the data, which are saved in checkpoints.

    Example:
        >>> import torch
        >>> loss = Loss(cross_entropy)
        >>> loss(torch.zeros(2, 4), torch.tensor([0, 1]), rows=torch.tensor([0, 1]))
        tensor([1.3863, 1.3863])
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function, self.memory = function, dict[str, Tensor]()

    def on_epoch_start(self, losses: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Is called in all processes at the start of each epoch after warm-up.

        Args:
            losses: Returns the training rows, (n,), and the cross-entropy of their un-augmented images, (n,), with the
                current weights.
        """

    def selects(self, rows: Tensor) -> Tensor:
        """Returns whether each row of a batch, (B,), is selected for training, (B,), bool."""
        return torch.ones(len(rows), dtype=torch.bool)

    def __call__(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Returns (B,) losses of logits (B, K) and labels (B,); `rows` (B,) are row numbers of the data, on the CPU."""
        return self.function(logits, labels)


def generalised_cross_entropy(logits: Tensor, labels: Tensor, *, q: float = 0.7) -> Tensor:
    """Generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018, Eq. 6): `(1 - p_y^q) / q`.

    Between cross-entropy (q to 0) and the mean absolute error (q = 1): the gradients of images are those of
    cross-entropy times p_y^q, which is small for labels that the model considers wrong.

    Args:
        logits: (B, K).
        labels: (B,).
        q: Above 0, at most 1.

    Returns:
        (B,), between 0 and 1/q.

    Example:
        >>> import torch
        >>> generalised_cross_entropy(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0180, 1.3428])
    """
    # as 1 - exp(q log p_y): accurate for p_y near 1, and with a gradient for p_y near 0
    return -torch.expm1(-q * cross_entropy(logits, labels)) / q


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of tags: the mean over the pairs of an image and each class.

    A pair that is left out counts as 0 in the mean, so that all other pairs have the same weight.

    Args:
        logits: (B, K).
        targets: (B, K), 1 where the image has the tag and 0 where it has not; NaN leaves the pair out.

    Returns:
        (B,), at least 0.

    Example:
        >>> import torch
        >>> binary_cross_entropy(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, torch.nan]]))
        tensor([0.6931, 0.3466])
    """
    known = ~targets.isnan()
    each = binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return torch.where(known, each, 0.0).mean(dim=1)


class EarlyLearning(Loss):
    """Early-learning regularisation (Liu et al., NeurIPS 2020): `-log p_y + λ log(1 - <t, p>)`.

    Models learn right labels before wrong ones. Each image has a target t, a moving average of the predictions for it,
    and the second term keeps the predictions close to it, so that early learning outweighs a wrong label.

    As in the reference, `t = β t + (1 - β) p / Σp` before the loss is computed, with p clamped to [1e-4, 1 - 1e-4]; no
    gradient goes through t. The state has N x K numbers.

    Args:
        images: N.
        classes: K.
        keep: β, the weight of the old target.
        strength: λ.

    Example:
        >>> import torch
        >>> loss = EarlyLearning(images=2, classes=2)
        >>> logits, labels, rows = torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]), torch.tensor([0, 1])
        >>> loss(logits, labels, rows)
        tensor([-5.6057, -1.6057])
        >>> loss.memory["target"][0]
        tensor([0.6874, 0.0126])
    """

    def __init__(self, images: int, classes: int, *, keep: float = 0.3, strength: float = 5.0) -> None:
        super().__init__(cross_entropy)
        self.keep, self.strength = keep, strength
        self.memory = {"target": torch.zeros(images, classes)}

    def __call__(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Moves the targets of these rows and returns (B,) losses."""
        probability = logits.softmax(dim=1).clamp(1e-4, 1 - 1e-4)
        predicted = probability.detach()
        target = self.memory["target"][rows].to(logits.device)
        target = self.keep * target + (1 - self.keep) * predicted / predicted.sum(dim=1, keepdim=True)
        self.memory["target"][rows] = target.cpu()
        agreement = (target * probability).sum(dim=1)
        return self.function(logits, labels) + self.strength * (1 - agreement).log()


class Mixture(Loss):
    """Cross-entropy on the images that a mixture of two Gaussians considers clean (Li et al., ICLR 2020).

    Before each epoch after warm-up the mixture is fitted to the losses of all images; those whose posterior of the
    component with the smaller mean is above one half are used for training. There is one network, and the other images
    are not used: the GMM that the published code of DeFT compares with.

    Args:
        images: N.

    Example:
        >>> import torch
        >>> loss, rows = Mixture(images=6), torch.arange(6)
        >>> loss.on_epoch_start(lambda: (rows, torch.tensor([0.1, 0.2, 0.1, 0.2, 4.0, 5.0])))
        >>> loss.selects(rows)
        tensor([ True,  True,  True,  True, False, False])
    """

    def __init__(self, images: int, _classes: int = 0) -> None:
        super().__init__(cross_entropy)
        self.chosen = torch.ones(images, dtype=torch.bool)  # not part of the state, since it follows from the weights

    def on_epoch_start(self, losses: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Fits the mixture."""
        rows, values = losses()
        self.chosen[rows] = torch.from_numpy(small_mean_posterior(values.double().numpy()) > 0.5)

    def selects(self, rows: Tensor) -> Tensor:
        """Returns the images of the component with the smaller mean."""
        return self.chosen[rows]


def make_loss(name: str, *, images: int, classes: int) -> Loss:
    """Makes a loss by its name in `LOSSES`.

    Args:
        name: The name.
        images: N, the number of images of the data.
        classes: K.

    Example:
        >>> import torch
        >>> make_loss("gce", images=3, classes=2)(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]))
        tensor([0.5492])
    """
    loss = LOSSES[name]
    return loss(images, classes) if isinstance(loss, type) else Loss(loss)
