"""Chinese CLIP (Yang et al., 2022)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from labelsieve.vlm.base import VisionLanguageModel


class ChineseCLIP(VisionLanguageModel):
    """Chinese CLIP: `ChineseCLIPModel` of `transformers`.

    The text encoder is a Chinese BERT with a mask over the padding, pooled at the class token. Class names have to be
    Chinese.
    """

    architecture: ClassVar[str] = "ChineseCLIPModel"
    masks_padding: ClassVar[bool] = True
    tokenizer_files: ClassVar[str] = "tokenizer.json or vocab.txt"

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.model.text_model.embeddings.word_embeddings  # type: ignore[no-any-return]

    def text_features(self, token_ids: Tensor) -> Tensor:
        """Runs the text encoder and its projection: (K, T) to (K, D)."""
        hidden = self.model.text_model(**self.inputs(token_ids)).last_hidden_state
        return self.model.text_projection(hidden[:, 0])  # type: ignore[no-any-return]
