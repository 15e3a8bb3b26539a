"""AltCLIP (Chen et al., 2022): CLIP with a multilingual text encoder."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from labelsieve.vlm.base import VisionLanguageModel


class AltCLIP(VisionLanguageModel):
    """AltCLIP: `AltCLIPModel` of `transformers`.

    The text encoder is XLM-RoBERTa with a mask over the padding, pooled at its first token. Class names may be Chinese
    or English (AltCLIP-m9: nine languages).
    """

    architecture: ClassVar[str] = "AltCLIPModel"
    masks_padding: ClassVar[bool] = True
    tokenizer_files: ClassVar[str] = "tokenizer.json, or sentencepiece.bpe.model and the package sentencepiece"

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *, name: str) -> None:
        super().__init__(model, tokenizer, processor, name=name)
        self.context_length -= model.config.text_config.pad_token_id + 1  # positions of RoBERTa start after it

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.model.text_model.roberta.embeddings.word_embeddings  # type: ignore[no-any-return]
