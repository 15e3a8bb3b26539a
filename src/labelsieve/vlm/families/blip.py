"""BLIP (Li et al., ICML 2022), its image-text contrastive heads."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from labelsieve.core.errors import ModelError
from labelsieve.vlm.base import VisionLanguageModel

# Initial value of ALBEF and BLIP; the models of `transformers` do not have the learned one.
INITIAL_TEMPERATURE = 0.07


class BLIP(VisionLanguageModel):
    """BLIP: the contrastive heads of `BlipForImageTextRetrieval` of `transformers`.

    The text encoder is BERT with a mask over the padding; both features are pooled at the class token. The checkpoints
    do not contain the temperature: τ = 0.07 is the initial value of the authors.
    """

    architecture: ClassVar[str] = "BlipForImageTextRetrieval"
    masks_padding: ClassVar[bool] = True
    tokenizer_files: ClassVar[str] = "tokenizer.json or vocab.txt"

    @classmethod
    def check_config(cls, config: Any, name: str) -> None:
        """Rejects captioning and question-answering models, which have no contrastive heads."""
        architectures = config.architectures or [cls.architecture]
        if cls.architecture not in architectures:
            raise ModelError(
                f"expected a BLIP model with contrastive heads ({cls.architecture}), such as "
                f"Salesforce/blip-itm-base-coco, {name} is a {architectures[0]}; choose another model"
            )

    def scale(self) -> float:
        """Returns 1/τ."""
        return 1 / INITIAL_TEMPERATURE

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.model.text_encoder.embeddings.word_embeddings  # type: ignore[no-any-return]

    def text_features(self, token_ids: Tensor) -> Tensor:
        """Runs the text encoder and its projection: (K, T) to (K, D)."""
        hidden = self.model.text_encoder(**self.inputs(token_ids)).last_hidden_state
        return self.model.text_proj(hidden[:, 0])  # type: ignore[no-any-return]

    def pool(self, pixels: Tensor) -> Tensor:
        """Runs the image encoder and its layer norm up to the class token: (B, 3, S, S) to (B, vision_width)."""
        return self.model.vision_model(pixel_values=pixels).last_hidden_state[:, 0]  # type: ignore[no-any-return]

    def project(self, pooled: Tensor) -> Tensor:
        """Projects pooled image features into the joint space: (B, vision_width) to (B, D)."""
        return self.model.vision_proj(pooled)  # type: ignore[no-any-return]
