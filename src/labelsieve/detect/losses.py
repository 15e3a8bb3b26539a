"""The losses of DeFT (Wei et al., NeurIPS 2024) as functions of the logits of one batch.

Shapes: B images, K classes. `positive` and `negative` are s+ and s-, each (B, K): cosine similarities to the positive
and negative prompts, divided by the model's own temperature.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Lower bound of probabilities, as in the reference implementation; below it there is no gradient.
SMALLEST_PROBABILITY = 1e-5


def clean_probability(positive: Tensor, negative: Tensor) -> Tensor:
    """Returns the probability that an image shows a class (Eq. 6): `exp(s+) / (exp(s+) + exp(s-))`.

    Args:
        positive: s+, any shape.
        negative: s-, the same shape.

    Returns:
        The same shape, between 0 and 1; above 0.5 if and only if s+ exceeds the learned threshold s- (Eq. 5).

    Example:
        >>> import torch
        >>> clean_probability(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]))
        tensor([0.8808, 0.5000])
    """
    return torch.sigmoid(positive - negative)


def dual_prompt_loss(
    positive: Tensor,
    negative: Tensor,
    *,
    labels: Tensor,
    complementary: Tensor,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    count: Tensor | int | None = None,
) -> Tensor:
    """Returns the dual-prompt loss (Eq. 7), mean over the batch: `-w log p_clean_ŷ - v log(1 - p_clean_ȳ)`.

    It trains the negative prompts so that s- is below s+ for the (refined) label, and above it for a class that the
    image does not show. As in the published code, s+ is detached, and the caller detaches the image features in s-, so
    that this loss trains only the negative prompts.

    Args:
        positive: s+, (B, K).
        negative: s-, (B, K).
        labels: ŷ, (B,): the label or, if it was not selected, the model's argmax.
        complementary: ȳ, (B,): one other class drawn at random for each image.
        positive_weight: w, 1 in Eq. 7, 0.25 in the paper's setting for severe noise.
        negative_weight: v, 1 in Eq. 7.
        count: Divisor of the sum, for a part of a larger batch; B if None.

    Returns:
        Scalar, not negative.

    Example:
        >>> import torch
        >>> positive, negative = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 4.0]])
        >>> dual_prompt_loss(positive, negative, labels=torch.tensor([0]), complementary=torch.tensor([1]))
        tensor(0.0363)
    """
    fixed, label, other = positive.detach(), labels[:, None], complementary[:, None]
    of_label = clean_probability(fixed.gather(1, label), negative.gather(1, label)).clamp(SMALLEST_PROBABILITY, 1.0)
    # 1 - p_clean with s+ and s- swapped, because a subtraction from 1 would lose precision
    of_others = clean_probability(negative.gather(1, other), fixed.gather(1, other)).clamp(SMALLEST_PROBABILITY, 1.0)
    terms = positive_weight * of_label.log() + negative_weight * of_others.log()
    return -terms.sum() / (len(labels) if count is None else count)


def similarity_loss(
    positive: Tensor, *, labels: Tensor, selected: Tensor | None = None, count: Tensor | int | None = None
) -> Tensor:
    """Returns the similarity loss (Eq. 8): cross-entropy of s+ with the labels, mean over the selected images.

    Args:
        positive: s+, (B, K).
        labels: (B,).
        selected: (B,), bool; all images if None.
        count: Divisor of the sum, for a part of a larger batch; the number of selected images if None.

    Returns:
        Scalar, not negative; zero, with zero gradients, if no image is selected.

    Example:
        >>> import torch
        >>> positive, labels = torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1])
        >>> similarity_loss(positive, labels=labels)
        tensor(2.0181)
        >>> similarity_loss(positive, labels=labels, selected=torch.tensor([True, False]))
        tensor(0.0181)
    """
    losses = cross_entropy(positive, labels)
    chosen = torch.ones_like(losses) if selected is None else selected.to(losses.dtype)
    return (losses * chosen).sum() / (chosen.sum() if count is None else torch.as_tensor(count)).clamp(min=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy of each image, `-log p_y`.

    Args:
        logits: (B, K).
        labels: (B,).

    Returns:
        (B,), not negative.

    Example:
        >>> import torch
        >>> cross_entropy(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0181, 4.0181])
    """
    return functional.cross_entropy(logits, labels, reduction="none")


def symmetric_cross_entropy(logits: Tensor, labels: Tensor, *, alpha: float = 1.0, beta: float = 1.0) -> Tensor:
    """Returns the symmetric cross-entropy (Wang et al., ICCV 2019) of each image: `alpha CE + beta RCE`.

    `RCE = -Σ p log q`, where q is the one-hot label and log 0 is replaced by log 1e-4.

    Args:
        logits: (B, K).
        labels: (B,).
        alpha: Weight of the cross-entropy.
        beta: Weight of the reverse cross-entropy, which a wrong label cannot make large.

    Returns:
        (B,), not negative.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
        >>> symmetric_cross_entropy(logits, torch.tensor([0, 1]))
        tensor([ 0.1838, 13.0628])
    """
    probability = logits.softmax(dim=1).clamp(1e-7, 1.0)
    target = torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype).clamp(1e-4, 1.0)
    reverse = -(probability * target.log()).sum(dim=1)
    return alpha * cross_entropy(logits, labels) + beta * reverse


def select(positive: Tensor, negative: Tensor, *, labels: Tensor, demand_agreement: bool) -> Tensor:
    """Returns a mask of the images whose label is considered clean: `p_clean_y > 0.5` (Eq. 5 and 6).

    Args:
        positive: s+, (B, K).
        negative: s-, (B, K).
        labels: (B,).
        demand_agreement: Whether to use the rule for real noise, which also requires `argmax_k p_clean_k = y`.

    Returns:
        (B,), bool.

    Example:
        >>> import torch
        >>> positive, negative = torch.tensor([[2.0, 3.0]]), torch.tensor([[1.0, 0.0]])
        >>> select(positive, negative, labels=torch.tensor([0]), demand_agreement=False)
        tensor([True])
        >>> select(positive, negative, labels=torch.tensor([0]), demand_agreement=True)
        tensor([False])
    """
    probability = clean_probability(positive, negative)
    chosen = probability.gather(1, labels[:, None])[:, 0] > 0.5
    # argmax of the difference, because in float32 p_clean may be 1 for several classes
    return chosen & ((positive - negative).argmax(dim=1) == labels) if demand_agreement else chosen
