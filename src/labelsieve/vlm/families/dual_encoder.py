"""Encoders that were trained separately, with a projection each: LiT (Zhai et al., CVPR 2022) and similar models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from labelsieve.core.errors import ModelError, shown
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.colours import read_colours
from labelsieve.vlm.families.clip import HuggingFaceCLIP
from labelsieve.vlm.peft.sequence import patch_size_of, sequence_blocks
from labelsieve.vlm.pretrained import (
    CONFIGURATION,
    PROCESSOR,
    error_summary,
    model_fingerprint,
    quiet_loading,
    read_part,
    read_weights,
)

# The only causal text encoder, which pools at its end token; all others mask the padding.
_CAUSAL = "clip_text_model"
# Required entries of the configurations.
_IMAGES, _TEXTS = ("hidden_size",), ("hidden_size", "max_position_embeddings", "vocab_size")
_SHORT_AND_LONG = ["photo", "a photo of a cat and a dog"]
_TOLERANCE = 1e-4


class DualEncoder(VisionLanguageModel):
    """LiT and others: `VisionTextDualEncoderModel` of `transformers`, which joins any two encoders. See docs/models.md.

    Both features are the projected pooled output of an encoder. The text encoder is a BERT, a RoBERTa or a similar
    model with a mask over the padding, or that of CLIP.
    """

    architecture: ClassVar[str] = "VisionTextDualEncoderModel"
    masks_padding: ClassVar[bool] = True
    tokenizer_files: ClassVar[str] = "tokenizer.json or vocab.txt"

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.processor, self.name = tokenizer, processor, name
        self._is_causal = model.config.text_config.model_type == _CAUSAL
        self.logit_scale = self.scale()
        self.text_width, self.context_length = self.token_embeddings.embedding_dim, _positions(model.text_model)
        self._colours = read_colours(processor, name)
        self.image_size, self.vision_width = self._colours.side, model.visual_projection.in_features
        self.fingerprint = model_fingerprint(model, model.config.to_dict(), processor.to_json_string())
        with quiet_loading(), torch.no_grad():
            check_images(model, self.image_size, name)
            self._check_texts()
            layers, width = sequence_blocks(self.image_encoder, self.run)
        self._layers = layers if width == self.vision_width else ()
        self.patch_size = patch_size_of(self.image_encoder) if len(self._layers) else 0

    # ---------------------------------------------------------------------------------------------------- loading

    @classmethod
    def check_config(cls, config: Any, name: str) -> None:
        """Rejects encoders that `transformers` does not know and would load from code in the folder."""
        import transformers

        encoders = (("image", "vision_config", _IMAGES), ("text", "text_config", _TEXTS))
        for what, key, needed in encoders:
            part = getattr(config, key)
            if type(part) not in transformers.MODEL_MAPPING:
                raise ModelError(
                    f"the {what} encoder of {shown(name)} is of kind {shown(part.model_type)}, which cannot stand in a "
                    f"{cls.architecture}; choose another model"
                )
            missing = [field for field in needed if not _is_size(getattr(part, field, None))]
            if missing:
                raise ModelError(
                    f"the config.json of {shown(name)} does not say the {missing[0]} of its {what} encoder "
                    f"({shown(part.model_type)}) in {key}; get it again, or choose another model"
                )
        _check_timm(config.vision_config, name)

    @classmethod
    def is_tokenizer_of(cls, tokenizer: Any, text: Any) -> bool:
        """Returns whether the tokenizer matches the configuration of the text encoder, as far as can be checked."""
        if text.model_type == _CAUSAL:
            return HuggingFaceCLIP.is_tokenizer_of(tokenizer, text)
        return super().is_tokenizer_of(tokenizer, text)

    def _check_texts(self) -> None:
        """Checks that there is a pooled output, and that it is the same for texts as for prompts."""
        kind = self.model.config.text_config.model_type
        tokens = self.tokenizer(
            _SHORT_AND_LONG, padding=True, truncation=True, max_length=self.context_length, return_attention_mask=True
        )
        inputs = {key: torch.tensor(tokens[key]) for key in ("input_ids", "attention_mask")}
        try:
            pooled = pooled_output(self.model.text_model, **inputs)
            expected = None if pooled is None else self.model.text_projection(pooled)
            actual = None if pooled is None else self.encode_text(_SHORT_AND_LONG)
        except Exception as error:  # each architecture has its own
            raise ModelError(
                f"the text encoder of {shown(self.name)} ({kind}) cannot encode a text: {error_summary(error)}; "
                "choose another model"
            ) from error
        if expected is None or actual is None:
            raise _no_pooler(f"text encoder of {shown(self.name)} ({kind})")
        if not bool((expected - actual).abs().max() <= _TOLERANCE * expected.abs().max()):
            raise ModelError(
                f"the text encoder of {shown(self.name)} ({kind}) reads padded texts in a way that is not known; "
                "choose another model"
            )

    # ----------------------------------------------------------------------------------------------------- images

    def normalise(self, pixels: Tensor) -> Tensor:
        """Applies the colour transform of the processor to RGB pixels between 0 and 1, (B, 3, S, S)."""
        return self._colours(pixels)

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the image encoder; none if it has no single sequence of tokens."""
        return self._layers

    def pool(self, pixels: Tensor) -> Tensor:
        """Runs the image encoder up to the projection: (B, 3, S, S) to (B, vision_width)."""
        return pooled_images(self.model.vision_model, pixels)

    # ------------------------------------------------------------------------------------------------------ texts

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.model.text_model.get_input_embeddings()  # type: ignore[no-any-return]

    @property
    def pad(self) -> int:
        """The padding token; with CLIP an ordinary token, since CLIP pads with the end token."""
        return self.tokens_of("photo")[0] if self._is_causal else super().pad

    def inputs(self, token_ids: Tensor) -> dict[str, Tensor]:
        """Returns the arguments of the text encoder; that of CLIP needs no mask over the padding."""
        return {"input_ids": token_ids} if self._is_causal else super().inputs(token_ids)


def read_encoders(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Reads the model of `transformers` and its image processor, without a tokenizer.

    Args:
        name: Hub id or local folder.
        options: From :func:`labelsieve.vlm.pretrained.loader_options`.

    Raises:
        ModelError: As :func:`labelsieve.load_vlm`, except for errors of the text encoder.
    """
    import transformers

    architecture = getattr(transformers, DualEncoder.architecture)
    config = read_part(CONFIGURATION, name, architecture.config_class.from_pretrained, options)
    DualEncoder.check_config(config, name)
    processor = read_part(PROCESSOR, name, transformers.AutoImageProcessor.from_pretrained, options)
    model = read_weights(name, architecture, config, options).eval()
    with quiet_loading(), torch.no_grad():
        check_images(model, read_colours(processor, name).side, name)
    return model, processor


def pooled_output(encoder: Any, **inputs: Tensor) -> Any:
    """Runs an encoder of `transformers`; returns its pooled output, or None if it has none."""
    return getattr(encoder(**inputs), "pooler_output", None)


def pooled_images(encoder: Any, pixels: Tensor) -> Tensor:
    """Runs an image encoder: (B, 3, S, S) to (B, width). ResNets pool to (B, width, 1, 1)."""
    return encoder(pixel_values=pixels).pooler_output.flatten(1)  # type: ignore[no-any-return]


def check_images(model: Any, side: int, name: str) -> None:
    """Checks the input size of the image encoder, and the width of its pooled output against the projection.

    Args:
        model: A `VisionTextDualEncoderModel`.
        side: Side of the output of its image processor, in pixels.
        name: Name of the model, for messages.

    Raises:
        ModelError: One of them does not match.
    """
    encoder, kind = model.vision_model, model.config.vision_config.model_type
    expected = model.visual_projection.in_features
    try:
        pooled = pooled_output(encoder, pixel_values=torch.zeros(1, 3, side, side))
    except Exception as error:  # each architecture has its own
        raise ModelError(
            f"the image encoder of {shown(name)} ({kind}) does not take the {side} x {side} images that its image "
            f"processor makes: {error_summary(error)}; copy the preprocessor_config.json of the model"
        ) from error
    if pooled is None:
        raise _no_pooler(f"image encoder of {shown(name)} ({kind})")
    if tuple(pooled.flatten(1).shape) != (1, expected):
        raise ModelError(
            f"expected the image encoder of {shown(name)} ({kind}) to give features of width {expected}, which its "
            f"config.json says (hidden_size), got shape {tuple(pooled.shape)}; get the model again"
        )


def _no_pooler(what: str) -> ModelError:
    return ModelError(f"the {what} has no pooled output, which the projection reads; choose another model")


def _check_timm(vision: Any, name: str) -> None:
    """Rejects a model that `timm` does not have and would look for on the Hub or in other folders."""
    import timm

    if vision.model_type == "timm_wrapper" and not timm.is_model(vision.architecture):
        raise ModelError(
            f"timm {timm.__version__} has no {shown(vision.architecture)}, which the image encoder of {shown(name)} "
            "is; update timm, or choose another model"
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _positions(text: Any) -> int:
    """Returns the maximum number of tokens. Positions of RoBERTa and similar models start after the padding index."""
    embeddings = (part for name, part in text.named_modules() if "position_embedding" in name)
    first = getattr(next(embeddings, None), "padding_idx", None)
    return int(text.config.max_position_embeddings) - (0 if first is None else first + 1)
