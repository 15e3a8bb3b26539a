"""Zero-shot classification of images, which every detector starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.core.errors import listed
from labelsieve.core.progress import Progress
from labelsieve.detect.chunks import in_chunks
from labelsieve.detect.scores import GUESSING
from labelsieve.vlm.base import VisionLanguageModel

# General templates from the list of CLIP's authors, averaged as in their paper (Radford et al., 2021, section 3.1.4).
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a good photo of a {}.",
)

# Number of class names to encode at a time.
NAMES = 512
# Maximum number of remarks on class names that the model reads as the same text.
_REMARKS = 5


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Zero-shot classification of n readable images.

    Attributes:
        label_probability: Probability of the given label.
        predicted: Most likely class.
        confidence: Probability of that class.
        agreement: Share of readable images whose given label is predicted.
        per_class: The same share per given class, (K,); NaN for a class without images.
    """

    label_probability: NDArray[np.float32]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    agreement: float
    per_class: NDArray[np.float64]

    @property
    def knows_names(self) -> bool:
        """Whether the model agrees with the given labels better than by guessing, as a mean over the classes.

        For this mean, guessing scores 1 / K, whatever the class frequencies. With a single class nothing can be
        estimated, and the result is true.
        """
        present = self.per_class[~np.isnan(self.per_class)]
        chance = 1 / len(present)
        return len(present) < 2 or float(present.mean()) - chance >= GUESSING * (1 - chance)


@torch.inference_mode()
def classify(
    logits: Callable[[NDArray[np.int64]], Tensor],
    *,
    rows: NDArray[np.int64],
    images: int,
    progress: Progress,
) -> NDArray[np.int64]:
    """Returns the most likely class of each image, (N,), -1 for images that are not among `rows`.

    Args:
        logits: Function from m row numbers to logits (m, K).
        rows: Row numbers of the readable images, (n,).
        images: N.
        progress: Receives progress.
    """
    predicted = np.full(images, -1, dtype=np.int64)
    if len(rows):
        (predicted[rows],) = in_chunks(lambda part: [logits(part).argmax(dim=1)], rows, progress=progress)
    return predicted


def by_probability(logits: Tensor, labels: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the probability of the label, the most likely class and its probability, (n,) each, of logits (n, K)."""
    probability = logits.softmax(dim=1)
    confidence, predicted = probability.max(dim=1)
    return probability.gather(1, torch.from_numpy(labels).to(logits.device)[:, None])[:, 0], predicted, confidence


@torch.no_grad()
def fitting_factor(logits: Tensor, labels: Tensor, *, noise_rate: float) -> float:
    """Returns the factor for logits that maximises the likelihood of given labels, a share of which is wrong.

    This is temperature scaling (Guo et al., ICML 2017) for noisy labels. It assumes symmetric noise of a fixed rate: a
    label is the true class with probability 1 - rate, and each other class with rate / (K - 1).

    Args:
        logits: (n, K), n at least 1, K at least 2.
        labels: Given labels, (n,).
        noise_rate: Share of wrong labels, between 0 and 1.

    Returns:
        Between 1/1000 and 1000; near 1 if the logits are calibrated.
    """
    from scipy.optimize import minimize_scalar

    other = noise_rate / (logits.shape[1] - 1)

    def loss(log_factor: float) -> float:
        of_label = (logits * math.exp(log_factor)).softmax(dim=1).gather(1, labels[:, None])
        return -float(((1 - noise_rate) * of_label + other * (1 - of_label)).clamp(min=1e-12).log().mean())

    # the loss may be flat at the ends, so that the search starts at the best point of a grid
    start = min(np.linspace(-math.log(1000), math.log(1000), 25), key=loss)
    near = minimize_scalar(loss, bounds=(start - 0.6, start + 0.6), method="bounded")
    return math.exp(min(max(float(near.x), -math.log(1000)), math.log(1000)))


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the logit of the label minus the largest other logit, (n,), from logits (n, K), K at least 2."""
    of_label = logits.gather(1, labels[:, None])
    return (of_label - logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1, keepdim=True))[:, 0]


@torch.inference_mode()
def class_features(
    vlm: VisionLanguageModel, class_names: tuple[str, ...], *, progress: Progress | None = None
) -> Tensor:
    """Returns text features, (K, D): per class, the normalised mean of the normalised features of all templates.

    Args:
        vlm: The model.
        class_names: The K names; `NAMES` of them are encoded at a time.
        progress: Receives progress.
    """
    names, features = [name.replace("_", " ").lower() for name in class_names], []
    with (progress or Progress()).task("encoding class names", total=len(names), unit="classes", brief=True) as advance:
        for part in (names[at : at + NAMES] for at in range(0, len(names), NAMES)):
            total = sum(normalize(vlm.encode_text([t.format(name) for name in part]), dim=-1) for t in TEMPLATES)
            features.append(normalize(torch.as_tensor(total), dim=-1))
            advance(len(part))
    return torch.cat(features)


def same_texts(vlm: VisionLanguageModel, class_names: Sequence[str]) -> list[list[str]]:
    """Returns the groups of class names that a model reads as the same text because they have the same tokens."""
    groups: dict[tuple[int, ...], list[str]] = {}
    token_ids, _ = vlm.tokenize_names(class_names, context_tokens=1)
    for name, tokens in zip(class_names, token_ids.tolist(), strict=True):
        groups.setdefault(tuple(tokens), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def class_text_notes(vlm: VisionLanguageModel, class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns remarks on class names that a model reads as the same text, and on names unknown to its tokenizer."""
    notes = [
        f"the class names {listed(names, quoted=True)} are one text to {vlm.name}, which cannot tell them apart by "
        "name; give other words with --class-names"
        for names in same_texts(vlm, class_names)[:_REMARKS]
    ]
    if unknown := vlm.unknown_names(class_names):
        notes.append(
            f"the tokenizer of {vlm.name} knows no part of {len(unknown)} class names: {listed(unknown, quoted=True)}; "
            "give other words with --class-names"
        )
    return tuple(notes)


def template_notes(vlm: VisionLanguageModel, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a warning for class names that are too long for the text encoder within the longest template."""
    longest = max(len(template.replace("{}.", "").split()) for template in TEMPLATES)
    return shortened_note(vlm.tokenize_names(class_names, context_tokens=longest)[1])


def shortened_note(shortened: list[str]) -> tuple[str, ...]:
    """Returns a warning for class names that were too long for the text encoder, if there are any."""
    if not shortened:
        return ()
    more = f" and {len(shortened) - 1} more" if len(shortened) > 1 else ""
    return (f'class name "{shortened[0]}"{more} is longer than the text encoder takes and was shortened',)
