"""The loss of DeFT of tags on one batch: binary cross-entropy of p_clean (Eq. 6) with the tags.

In Eq. 7, the target of p_clean is 1 for the label and 0 for one other class. With several labels per image, every pair
has a target: 1 if the tag is given, 0 if it is absent. Because most tags are absent, the given and the absent pairs of
an image count half each. After warm-up, a pair is weighted by the probability w that its given state is right. A hard
selection as in Eq. 5 would be random at first, because p_clean starts near one half. With w held constant, `-w log w`
has the gradient of `1 - w`, the mean absolute error, whose minimum does not move under noise of the same rate for all
states (Ghosh, Kumar and Sastry, AAAI 2017).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from labelsieve.core.engine import Engine
from labelsieve.detect.training.loop import Objective, RequiredNegatives, Step


def tag_losses(positive: Tensor, negative: Tensor, tags: Tensor, *, weighs: bool) -> Tensor:
    """Returns the binary cross-entropy of the pairs of each image, balanced between given and absent tags.

    Args:
        positive: s+, (B, K).
        negative: s-, (B, K).
        tags: Given tags, (B, K), bool.
        weighs: Whether to weight each pair by the probability that its given state is right, according to p_clean.

    Returns:
        (B,), not negative: the mean over the given pairs plus the mean over the absent ones, divided by 2; a mean over
        no pairs is 0.

    Example:
        >>> import torch
        >>> positive, negative = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]])
        >>> tag_losses(positive, negative, torch.tensor([[True, False, False]]), weighs=False)
        tensor([0.1869])
        >>> tag_losses(positive, negative, torch.tensor([[True, False, False]]), weighs=True)
        tensor([0.1000])
    """
    right = logsigmoid(torch.where(tags, positive - negative, negative - positive))
    losses = -right * right.detach().exp() if weighs else -right
    given = tags.to(losses.dtype)
    halves = [(losses * state).sum(dim=1) / state.sum(dim=1).clamp(min=1) for state in (given, 1 - given)]
    return torch.stack(halves).mean(dim=0)


class TagObjective(Objective):
    """The mean of :func:`tag_losses` over a batch, with weighted pairs after warm-up.

    Args:
        warmup: Number of warm-up epochs.
        classes: K.
        engine: Sums counts over the processes.
    """

    def __init__(self, *, warmup: int, classes: int, engine: Engine) -> None:
        super().__init__()
        self.warmup, self.engine = warmup, engine
        self._every = torch.arange(classes)

    def required_negatives(self, step: Step) -> RequiredNegatives:
        """Returns all classes, because each pair trains both of its prompts."""
        return RequiredNegatives(self._every, False)

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the loss, and the sum over images of the share of given tags that are considered right."""
        count = self.engine.total(step.rows.new_tensor(len(step.rows)).to(step.positive.device)).clamp(min=1)
        losses = tag_losses(step.positive, step.negative, step.labels, weighs=step.epoch > self.warmup)
        kept = (step.labels & (step.positive > step.negative)).sum(dim=1) / step.labels.sum(dim=1).clamp(min=1)
        return losses.sum() / count, {"tags_taken_for_right": kept.sum()}
