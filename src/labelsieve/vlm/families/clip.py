"""CLIP (Radford et al., ICML 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.text_encoder import CausalTextEncoder

# End token in configurations before transformers 4.31; the text encoder then pools at the largest id.
_LEGACY_END = 2


class HuggingFaceCLIP(VisionLanguageModel):
    """CLIP: `CLIPModel` of `transformers`.

    The text encoder is causal and pools at the end token.
    """

    architecture: ClassVar[str] = "CLIPModel"

    @classmethod
    def is_tokenizer_of(cls, tokenizer: Any, text: Any) -> bool:
        """Returns whether the end token is the one at which the text encoder pools."""
        return text.eos_token_id in (_LEGACY_END, tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        """An ordinary token: CLIP pads with the end token, at the first of which it pools."""
        return self.tokens_of("photo")[0]

    @property
    def causal_text(self) -> CausalTextEncoder | None:
        """The parts of the text encoder; None if its attention implementation takes no custom mask."""
        encoder = self.model.text_model
        if self.model.config.text_config._attn_implementation != "sdpa":
            return None
        return CausalTextEncoder(
            token_embeddings=self.token_embeddings,
            positions=encoder.embeddings.position_embedding.weight,
            blocks=lambda hidden, visible: (
                encoder.encoder(inputs_embeds=hidden, attention_mask=visible[:, None]).last_hidden_state
            ),
            finish=lambda hidden: self.model.text_projection(encoder.final_layer_norm(hidden)),
            end=self.special_tokens()[1][-1],
        )
