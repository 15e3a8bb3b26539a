"""The interface of vision-language models, and the base class of all families.

A family is one file with one class, which adapts its encoders to this interface, and one line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn

from labelsieve.core.errors import ModelError, setting
from labelsieve.core.memory import checkpointed_chunks, move
from labelsieve.vlm.pretrained import (
    CONFIGURATION,
    PROCESSOR,
    error_summary,
    model_fingerprint,
    read_part,
    read_weights,
)
from labelsieve.vlm.text_encoder import MAX_TOKENS, CausalTextEncoder, encode_with_shared_prefix

# Names are tokenised after this word: many tokenizers encode the first word of a text differently.
_CONTEXT_WORD = "photo"


class VisionLanguageModel:
    """Two encoders, one for images and one for texts, with a joint embedding space of width D.

    The parameters of the encoders are frozen. Learned prompts and parameter-efficient modules are added from outside.

    The methods are those of CLIP in `transformers`, with its own tokenizer and image processor. A family overrides
    those that differ: :meth:`text_features`, :attr:`token_embeddings`, :meth:`pool`, :meth:`project`,
    :attr:`vision_layers`, :meth:`scale`.

    Attributes:
        name: Hub id or folder that the model was loaded from.
        fingerprint: Fingerprint of configuration, weights and image processing.
        logit_scale: Factor from cosine similarity to logit, 1/τ.
        text_width: Width of the token embeddings.
        context_length: Maximum number of tokens, start and end included.
        vision_width: Width of the image encoder's hidden states.
        patch_size: Side of a patch in pixels; 0 if the image encoder has no patches.
        image_size: Side of the input image in pixels.
    """

    architecture: ClassVar[str]
    """Name of the class in `transformers`."""
    has_start_token: ClassVar[bool] = True
    """Whether texts begin with a start token."""
    pads_to_full_length: ClassVar[bool] = False
    """Whether texts have to be padded to the full length; the padding then influences the features."""
    masks_padding: ClassVar[bool] = False
    """Whether the text encoder masks the padding, which then does not influence the features."""
    tokenizer_files: ClassVar[str] = "tokenizer.json, or vocab.json and merges.txt"

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.processor, self.name = tokenizer, processor, name
        text, vision = model.config.text_config, model.config.vision_config
        self.logit_scale = self.scale()
        self.text_width, self.context_length = int(text.hidden_size), int(text.max_position_embeddings)
        self.vision_width, self.patch_size = int(vision.hidden_size), int(vision.patch_size)
        self.image_size = self.side(vision)
        self.fingerprint = model_fingerprint(model, model.config.to_dict(), processor.to_json_string())

    # ---------------------------------------------------------------------------------------------------- loading

    @classmethod
    def load(cls, name: str, options: dict[str, Any]) -> Self:
        """Loads a model of this family; see :func:`labelsieve.vlm.loading.load_vlm`."""
        import transformers

        architecture = getattr(transformers, cls.architecture)
        config = read_part(CONFIGURATION, name, architecture.config_class.from_pretrained, options)
        cls.check_config(config, name)
        tokenizer = cls.read_tokenizer(name, options, config.text_config)
        processor = read_part(PROCESSOR, name, transformers.AutoImageProcessor.from_pretrained, options)
        vlm = cls(read_weights(name, architecture, config, options), tokenizer, processor, name=name)
        vlm.check_processor()
        return vlm

    @classmethod
    def check_config(cls, config: Any, name: str) -> None:
        """Rejects a configuration of this family without two encoders."""

    @classmethod
    def read_tokenizer(cls, name: str, options: dict[str, Any], text: Any) -> Any:
        """Reads the tokenizer and checks that it belongs to the model.

        It also checks the vocabulary, since the loader creates an empty tokenizer if the files are missing.

        Args:
            name: Hub id or local folder.
            options: Keyword arguments of the loaders; a family may add others of the tokenizer.
            text: Configuration of the text encoder.
        """
        import transformers

        what = f"tokenizer ({cls.tokenizer_files})"
        tokenizer = read_part(what, name, transformers.AutoTokenizer.from_pretrained, options)
        ids, (start, end) = _ids(tokenizer, _CONTEXT_WORD, add_special_tokens=False), special_tokens(tokenizer)
        ends = "start and end" if cls.has_start_token else "end"
        if set(ids) <= set(tokenizer.all_special_ids) or not end or (cls.has_start_token and not start):
            raise ModelError(
                f"{name} has no usable {what}: it knows no words or no {ends}; copy the tokenizer files of the model"
            )
        is_foreign = max(*start, *end, *ids) >= text.vocab_size or (start and not cls.has_start_token)
        if is_foreign or not cls.is_tokenizer_of(tokenizer, text):
            raise ModelError(f"the tokenizer of {name} belongs to another model; copy the tokenizer files of the model")
        return tokenizer

    @classmethod
    def is_tokenizer_of(cls, tokenizer: Any, text: Any) -> bool:
        """Returns whether the tokenizer matches the configuration of the text encoder, as far as can be checked."""
        return not cls.masks_padding or bool(tokenizer.pad_token_id == text.pad_token_id)

    def check_processor(self) -> None:
        """Checks that the output of the image processor has the input size of the model."""
        expected = (1, 3, self.image_size, self.image_size)
        try:
            actual: Any = tuple(self.pixels([Image.new("RGB", (40, 30))]).shape)
        except Exception as error:  # any error of a processor with unusual settings
            actual = error_summary(error)
        if actual != expected:
            raise ModelError(
                f"expected the image processor of {self.name} to give pixels of shape {expected}, got {actual}; "
                "copy the preprocessor_config.json of the model"
            )

    def to(self, device: torch.device) -> Self:
        """Moves the parameters and returns the model."""
        with torch.inference_mode(False):  # parameters moved in inference mode could not be trained
            move(self.model, device)
        return self

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def scale(self) -> float:
        """Returns 1/τ."""
        return float(self.model.logit_scale.exp())

    # ----------------------------------------------------------------------------------------------------- images

    def side(self, vision: Any) -> int:
        """Returns the side of the input image in pixels."""
        return int(vision.image_size)

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Prepares RGB images as the model's own processor does: (B, 3, S, S)."""
        return self.processor(images=list(images), return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Brings RGB pixels between 0 and 1, (B, 3, S, S), to the model's mean and standard deviation."""
        if not getattr(self.processor, "do_normalize", True):
            return pixels
        mean, std = (
            pixels.new_tensor(v).view(1, 3, 1, 1) for v in (self.processor.image_mean, self.processor.image_std)
        )
        return (pixels - mean) / std

    @property
    def image_encoder(self) -> nn.Module:
        """The module that :meth:`pool` runs, with its parameters; the projection is not part of it."""
        return self.model.vision_model  # type: ignore[no-any-return]

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the image encoder, each called with hidden states (B, tokens, vision_width) first.

        Empty if the image encoder is not a vision transformer, or if the number or width of its tokens changes.
        """
        return self.model.vision_model.encoder.layers  # type: ignore[no-any-return]

    def pool(self, pixels: Tensor) -> Tensor:
        """Runs the image encoder up to the projection: (B, 3, S, S) to (B, vision_width)."""
        return self.model.vision_model(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

    def run(self) -> Tensor:
        """Runs the image encoder on one black image: (1, vision_width)."""
        return self.pool(torch.zeros(1, 3, self.image_size, self.image_size, device=self.device))

    def project(self, pooled: Tensor) -> Tensor:
        """Projects pooled image features into the joint space: (B, vision_width) to (B, D), not normalised."""
        return self.model.visual_projection(pooled)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------------------ texts

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.model.text_model.embeddings.token_embedding  # type: ignore[no-any-return]

    @property
    def pad(self) -> int:
        """The padding token."""
        return int(self.tokenizer.pad_token_id)

    def text_features(self, token_ids: Tensor) -> Tensor:
        """Runs the text encoder and its projection: (K, T) to (K, D)."""
        return self.model.text_projection(self.model.text_model(**self.inputs(token_ids)).pooler_output)  # type: ignore[no-any-return]

    @property
    def padding_side(self) -> str:
        """The side on which the tokenizer pads texts, `left` or `right`."""
        return str(getattr(self.tokenizer, "padding_side", "right"))

    def inputs(self, token_ids: Tensor) -> dict[str, Tensor]:
        """Returns the arguments of the text encoder: the tokens and, if it masks the padding, an attention mask."""
        mask = {"attention_mask": (token_ids != self.pad).long()} if self.masks_padding else {}
        return {"input_ids": token_ids, **mask}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Tokenises texts as the library does: (len(texts), T). Long texts are cut."""
        padding = "max_length" if self.pads_to_full_length else True
        return self.tokenizer(  # type: ignore[no-any-return]
            list(texts), padding=padding, truncation=True, max_length=self.context_length, return_tensors="pt"
        )["input_ids"]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encodes texts: (len(texts), D), not normalised. Long texts are cut."""
        return self.text_features(self.tokenize(texts).to(self.device))

    def tokenize_names(self, names: Sequence[str], *, context_tokens: int) -> tuple[Tensor, list[str]]:
        """Tokenises `[start, context_tokens place holders, name, ".", end]` for each class name, padded on one side.

        Start, full stop and end are included if the tokenizer of the model writes them, and it decides on the side.

        Returns:
            Token ids (K, T), T as short as the longest name allows, and the names that had to be shortened.
        """
        start, end = self.special_tokens()
        placeholder, full_stop = self.tokens_of(_CONTEXT_WORD)[:1], self._continuation_tokens(".")
        max_tokens = self.context_length - len(start) - len(end) - context_tokens - len(full_stop)
        if max_tokens < 1:
            raise ModelError(
                f"the text encoder of {self.name} takes {self.context_length} tokens: no room for a class name beside "
                f"{context_tokens} context tokens; use fewer ({setting('context_tokens')})"
            )
        rows, shortened = [], []
        for name in names:
            tokens = self._continuation_tokens(f" {name}")
            if len(tokens) > max_tokens:
                shortened.append(name)
            rows.append([*start, *placeholder * context_tokens, *tokens[:max_tokens], *full_stop, *end])
        return self._pad(rows), shortened

    def unknown_names(self, names: Sequence[str]) -> list[str]:
        """Returns the names of which the tokenizer knows no token, so that they mean nothing to the model."""
        tokenizer = getattr(self.tokenizer, "tokenizer", self.tokenizer)  # open_clip wraps a tokenizer of transformers
        unknown = getattr(tokenizer, "unk_token_id", None)
        tokens = [[token for token in self._continuation_tokens(f" {name}") if token != unknown] for name in names]
        # the token of a new word alone, as of SentencePiece, does not count
        return [name for name, ids in zip(names, tokens, strict=True) if not ids or not tokenizer.decode(ids).strip()]

    def _pad(self, rows: list[list[int]]) -> Tensor:
        longest = self.context_length if self.pads_to_full_length else max(map(len, rows))
        padding = [[self.pad] * (longest - len(row)) for row in rows]
        pads_left = self.padding_side == "left"
        return torch.tensor(
            [[*filler, *row] if pads_left else [*row, *filler] for row, filler in zip(rows, padding, strict=True)]
        )

    def special_tokens(self) -> tuple[list[int], list[int]]:
        """Returns the tokens that begin and end every text."""
        return special_tokens(self.tokenizer)

    def tokens_of(self, text: str) -> list[int]:
        """Returns the tokens of a text without start and end, in lower case with `_` replaced by a space."""
        return _ids(self.tokenizer, text.lower().replace("_", " "), add_special_tokens=False)

    def _continuation_tokens(self, text: str) -> list[int]:
        """Returns the tokens of a text that follows another word."""
        return self.tokens_of(_CONTEXT_WORD + text)[len(self.tokens_of(_CONTEXT_WORD)) :]

    def embed_words(self, text: str) -> Tensor:
        """Returns the token embeddings of a text without start and end: (tokens, text_width)."""
        ids = torch.tensor(self.tokens_of(text), dtype=torch.int64, device=self.device)
        return self.token_embeddings(ids).detach()  # type: ignore[no-any-return]

    @property
    def causal_text(self) -> CausalTextEncoder | None:
        """The parts of the text encoder if it is causal and pools at the end token; else None."""
        return None

    def encode_prompts(self, context: Tensor, token_ids: Tensor) -> Tensor:
        """Encodes prompts whose place holders are replaced by learned vectors.

        A causal text encoder encodes the common prefix of all prompts once for many of them. In other encoders each
        token attends to its whole prompt, so that only the context vectors are shared.

        Args:
            context: (M, text_width), shared by all prompts.
            token_ids: (K, T) from :meth:`tokenize_names` with `context_tokens=M`.

        Returns:
            Text features (K, D), not normalised, differentiable with respect to `context`.
        """
        encoder = self.causal_text
        if encoder is not None and self.padding_side == "right":
            return encode_with_shared_prefix(encoder, context, token_ids, start=len(self.special_tokens()[0]))
        chunk_size = max(1, MAX_TOKENS // token_ids.shape[1])
        return checkpointed_chunks(
            lambda first, last: self._encode_unshared(context, token_ids[first:last].to(self.device)),
            count=len(token_ids),
            chunk_size=chunk_size,
            device=self.device,
        )

    def _encode_unshared(self, context: Tensor, token_ids: Tensor) -> Tensor:
        """Encodes each prompt separately; the context replaces the embeddings of the place holders.

        Args:
            context: (M, text_width).
            token_ids: (K, T).

        Returns:
            (K, D), not normalised.
        """
        padding = (token_ids == self.pad).long().cumprod(dim=1).sum(dim=1)  # of tokenizers that pad on the left
        first = padding + len(self.special_tokens()[0])
        positions = first[:, None] + torch.arange(len(context), device=self.device)

        def replace(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            count, width = len(embedded), embedded.shape[-1]
            learned = context.to(embedded.dtype).expand(count, -1, width)
            return embedded.scatter(1, positions[:, :, None].expand(-1, -1, width), learned)

        handle = self.token_embeddings.register_forward_hook(replace)
        try:
            return self.text_features(token_ids)
        finally:
            handle.remove()


def _ids(tokenizer: Any, text: str, **options: Any) -> list[int]:
    return list(tokenizer(text, **options)["input_ids"])


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the tokens that a tokenizer of `transformers` puts before and after every text."""
    inner, full = _ids(tokenizer, _CONTEXT_WORD, add_special_tokens=False), _ids(tokenizer, _CONTEXT_WORD)
    for start in range(len(full) - len(inner) + 1):
        if full[start : start + len(inner)] == inner:
            return full[:start], full[start + len(inner) :]
    return [], []
