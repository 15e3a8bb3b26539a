"""The loss of DeFT of tags on one batch: binary cross-entropy of p_clean (Eq. 6) with the tags.

Eq. 7 asks p_clean to be 1 for the label and 0 for one other class. Where an image has any number of labels it is asked
of every pair: 1 where the tag is given, 0 where it is absent. Absent ones are many, so each image's given and absent
pairs count half of it each. After warm-up a pair counts as much as p_clean says that its given state is right, where
the selection of Eq. 5 takes it or leaves it: near one half, where p_clean begins, that would be by chance. `-w log w`
with w held has the gradient of `1 - w`, the mean absolute error, whose minimum noise of one rate for all states does
not move (Ghosh, Kumar and Sastry, AAAI 2017).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from labelsieve.core.engine import Engine
from labelsieve.detect.training.loop import Objective, RequiredNegatives, Step


def tag_losses(positive: Tensor, negative: Tensor, tags: Tensor, *, weighs: bool) -> Tensor:
    """Binary cross-entropy of the pairs of each image, its given and its absent ones balanced.

    Args:
        positive: s+, (B, K).
        negative: s-, (B, K).
        tags: Which classes are given, (B, K), bool.
        weighs: Whether a pair counts as much as p_clean says that its given state is right, rather than fully.

    Returns:
        (B,), not negative: half the mean over the given pairs and half that over the absent ones, nothing for those
        that an image has none of.

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
    """The mean of :func:`tag_losses` over a batch, with pairs weighed after warm-up.

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
        """Returns all classes: each pair trains both of its prompts."""
        return RequiredNegatives(self._every, False)

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the loss, and how many of the given tags of each image are taken for right."""
        count = self.engine.total(step.rows.new_tensor(len(step.rows)).to(step.positive.device)).clamp(min=1)
        losses = tag_losses(step.positive, step.negative, step.labels, weighs=step.epoch > self.warmup)
        kept = (step.labels & (step.positive > step.negative)).sum(dim=1) / step.labels.sum(dim=1).clamp(min=1)
        return losses.sum() / count, {"tags_taken_for_right": kept.sum()}
