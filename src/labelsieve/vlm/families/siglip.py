"""SigLIP (Zhai et al., ICCV 2023) and SigLIP 2 of fixed resolution (Tschannen et al., 2025)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from labelsieve.core.errors import ModelError
from labelsieve.vlm.base import VisionLanguageModel


class SigLIP(VisionLanguageModel):
    """SigLIP, and SigLIP 2 of fixed resolution: `SiglipModel` of `transformers`.

    The text encoder is bidirectional without a mask, was trained on texts padded to 64 tokens, and pools at the last
    one: the padding influences the feature, and is that of the tokenizer. The pooled output of the
    attention head is the image feature; there is no projection.

    The model gives `sigmoid(logit_scale * cos + logit_bias)` for each pair of an image and a text. The bias is the
    same for every class and for both prompts: it cancels in s+ - s- and in the softmax over classes, so that no
    detector needs it.

    Attributes:
        logit_bias: The bias of the sigmoid, to compute the probability of a pair.
    """

    architecture: ClassVar[str] = "SiglipModel"
    has_start_token: ClassVar[bool] = False
    pads_to_full_length: ClassVar[bool] = True
    tokenizer_files: ClassVar[str] = "tokenizer.json, or spiece.model and the package sentencepiece"

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *, name: str) -> None:
        super().__init__(model, tokenizer, processor, name=name)
        self.logit_bias = float(model.logit_bias)

    @classmethod
    def check_config(cls, config: Any, name: str) -> None:
        """Rejects an image encoder without an attention pooling head."""
        if not getattr(config.vision_config, "vision_use_head", True):
            raise ModelError(f"the image encoder of {name} has no pooling head (vision_use_head); choose another model")

    @classmethod
    def is_tokenizer_of(cls, tokenizer: Any, text: Any) -> bool:
        """Returns whether there is a padding token."""
        return tokenizer.pad_token_id is not None and tokenizer.pad_token_id < text.vocab_size

    def text_features(self, token_ids: Tensor) -> Tensor:
        """Runs the text encoder on padded texts, without a mask: (K, context_length) to (K, D)."""
        return self.model.text_model(**self.inputs(token_ids)).pooler_output  # type: ignore[no-any-return]

    def project(self, pooled: Tensor) -> Tensor:
        """Returns the pooled features, which are already in the joint space."""
        return pooled
