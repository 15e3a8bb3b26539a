"""CLIP (Radford et al., ICML 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from labelsieve.vlm.encoders import TwoEncoders
from labelsieve.vlm.text_encoder import CausalText

# Configurations of before transformers 4.31 name this end token; the image encoder then reads at the largest id.
_LEGACY_END = 2


class HuggingFaceCLIP(TwoEncoders):
    """CLIP: `CLIPModel` of `transformers`. See :class:`VisionLanguageModel`.

    The text encoder is causal and the feature is read at the end token.
    """

    architecture: ClassVar[str] = "CLIPModel"

    @classmethod
    def belongs(cls, tokenizer: Any, text: Any) -> bool:
        """Returns whether the end token is the one that the image encoder reads at."""
        return text.eos_token_id in (_LEGACY_END, tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        """A word: CLIP's own padding is the end token, at the first of which the feature is read."""
        return self.pieces("photo")[0]

    @property
    def causal_text(self) -> CausalText | None:
        """The parts of the text encoder; none where its attention takes no mask of ours."""
        encoder = self.model.text_model
        if self.model.config.text_config._attn_implementation != "sdpa":
            return None
        return CausalText(
            words=self.words,
            positions=encoder.embeddings.position_embedding.weight,
            blocks=lambda hidden, visible: (
                encoder.encoder(inputs_embeds=hidden, attention_mask=visible[:, None]).last_hidden_state
            ),
            finish=lambda hidden: self.model.text_projection(encoder.final_layer_norm(hidden)),
            end=self.frame()[1][-1],
        )

    def text_features(self, token_ids: Tensor) -> Tensor:
        """Runs the text encoder; without a mask, for what follows the end token has no influence."""
        return self.model.text_projection(self.model.text_model(**self.inputs(token_ids)).pooler_output)  # type: ignore[no-any-return]
