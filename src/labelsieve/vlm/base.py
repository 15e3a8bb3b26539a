"""The interface of vision-language models, whatever library a model comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from labelsieve.data.input.preprocessed import ImagePreprocessor


class ImageEncoder(ImagePreprocessor, Protocol):
    """A model that turns images into features: the interface that caching features requires."""

    @property
    def name(self) -> str:
        """Hub id or folder that the model was loaded from."""
        ...

    @property
    def vision_width(self) -> int:
        """Width of the features."""
        ...

    def pool(self, pixels: Tensor) -> Tensor:
        """Computes the features: (B, 3, S, S) to (B, vision_width)."""
        ...


class VisionLanguageModel(Protocol):
    """Two encoders, one for images and one for texts, with a joint embedding space of width D.

    The parameters of the encoders are frozen. Learned prompts and parameter-efficient modules are added from outside.
    """

    name: str
    """Hub id or folder that the model was loaded from."""
    fingerprint: str
    """Fingerprint of configuration, weights and image processing."""
    logit_scale: float
    """Factor from cosine similarity to logit, 1/τ."""
    text_width: int
    """Width of the token embeddings."""
    context_length: int
    """Maximum number of tokens, start and end included."""
    vision_width: int
    """Width of the image encoder's hidden states."""
    patch_size: int
    """Side of a patch in pixels; 0 if the image encoder has no patches."""
    image_size: int
    """Side of the input image in pixels."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        ...

    @property
    def image_encoder(self) -> nn.Module:
        """The module that :meth:`pool` runs, with its parameters; the projection is not part of it."""
        ...

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the image encoder, each called with hidden states (B, tokens, vision_width) first.

        Empty if the image encoder is not a vision transformer, or if the number or width of its tokens changes.
        """
        ...

    def to(self, device: torch.device) -> VisionLanguageModel:
        """Moves the parameters and returns the model."""
        ...

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Prepares RGB images as the model's own processor does: (B, 3, S, S)."""
        ...

    def normalise(self, pixels: Tensor) -> Tensor:
        """Brings RGB pixels between 0 and 1, (B, 3, S, S), to the model's mean and standard deviation."""
        ...

    def pool(self, pixels: Tensor) -> Tensor:
        """Runs the image encoder up to the projection: (B, 3, S, S) to (B, vision_width)."""
        ...

    def run(self) -> Tensor:
        """Runs the image encoder on one black image: (1, vision_width)."""
        ...

    def project(self, pooled: Tensor) -> Tensor:
        """Projects pooled image features into the joint space: (B, vision_width) to (B, D), not normalised."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encodes texts: (len(texts), D), not normalised."""
        ...

    def tokenize_names(self, names: Sequence[str], *, context_tokens: int) -> tuple[Tensor, list[str]]:
        """Tokenises `[start, context_tokens place holders, name, ".", end]` for each class name, padded at the end.

        Returns:
            Token ids (K, T), T as short as the longest name allows, and the names that had to be shortened.
        """
        ...

    def unknown_names(self, names: Sequence[str]) -> list[str]:
        """Returns the names of which the tokenizer knows no token, so that they mean nothing to the model."""
        ...

    def embed_words(self, text: str) -> Tensor:
        """Returns the token embeddings of a text without start and end: (tokens, text_width)."""
        ...

    def encode_prompts(self, context: Tensor, token_ids: Tensor) -> Tensor:
        """Encodes prompts whose place holders are replaced by learned vectors.

        Args:
            context: (M, text_width), shared by all prompts.
            token_ids: (K, T) from :meth:`tokenize_names` with `context_tokens=M`.

        Returns:
            Text features (K, D), not normalised, differentiable with respect to `context`.
        """
        ...
