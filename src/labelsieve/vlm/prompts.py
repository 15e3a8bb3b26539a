"""Dual prompts (DeFT, section 3.1): two sets of learned context vectors, shared by all classes.

`prompt+_k = [V+]_1..M [CLASS]_k` means that an image shows class k, `prompt-_k = [V-]_1..M [CLASS]_k` that it does not;
the similarity with the second is the threshold that the similarity with the first has to exceed (Eq. 4 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labelsieve.core.errors import SettingsError
from labelsieve.vlm.base import VisionLanguageModel

REFERENCE_STD = 0.02


class DualPrompts(nn.Module):
    """The context vectors V+ and V-, and the tokenised class names that follow them.

    Args:
        vlm: The model whose text encoder encodes the prompts.
        class_names: The K names.
        context_tokens: M, at least 1.
        init: `"random"`: both from N(0, 0.02²) as the reference does. Otherwise a text such as `"a photo of a"`:
            both start from its token embeddings, preceded by N(0, 0.02²) vectors where it has fewer than M tokens
            (its last M tokens where it has more).
        generator: Source of the random values.

    Attributes:
        token_ids: (K, T), on the CPU.
        shortened: The class names that are too long for the text encoder and were cut.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        class_names: Sequence[str],
        *,
        context_tokens: int,
        init: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if context_tokens < 1:
            raise SettingsError(f"expected at least 1 context token, got {context_tokens}")
        self.positive = nn.Parameter(_initial(vlm, context_tokens, init, generator))
        self.negative = nn.Parameter(_initial(vlm, context_tokens, init, generator))
        # not a buffer: they stay on the CPU, where the prompts are packed
        self.token_ids, self.shortened = vlm.tokenize_names(class_names, context_tokens=context_tokens)

    def text_features(self, vlm: VisionLanguageModel, context: Tensor, classes: Tensor | None = None) -> Tensor:
        """Returns the normalised text features of class names with one of the contexts.

        Args:
            vlm: The model.
            context: V+ or V-.
            classes: Indices of names, (n,), on the CPU; all K if None.

        Returns:
            (n, D) or (K, D).
        """
        token_ids = self.token_ids if classes is None else self.token_ids[classes]
        return nn.functional.normalize(vlm.encode_prompts(context, token_ids), dim=-1)


def _initial(vlm: VisionLanguageModel, count: int, init: str, generator: torch.Generator) -> Tensor:
    noise = torch.randn(count, vlm.text_width, generator=generator) * REFERENCE_STD
    if init == "random":
        return noise
    words = vlm.embed_words(init)[-count:].cpu()
    return torch.cat([noise[: count - len(words)], words])
