"""What all families of models have in common: two encoders of `transformers`, a tokenizer and an image processor.

A family is one file with one class that says where its encoders keep things, and one line in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn

from labelsieve.core.errors import ModelError
from labelsieve.core.memory import in_chunks
from labelsieve.vlm.pretrained import (
    CONFIGURATION,
    PROCESSOR,
    check_processor,
    model_fingerprint,
    read_part,
    read_weights,
)
from labelsieve.vlm.text_encoder import MOST_TOKENS, CausalText, encode_behind_prefix

# Pieces of a name are looked up after this word: many tokenizers write the first word of a text differently.
_BEFORE = "photo"


class TwoEncoders:
    """A model of `transformers` with its own tokenizer and image processor. See :class:`VisionLanguageModel`.

    A family overrides what it does in another way than CLIP: :meth:`text_features`, :attr:`words`, :meth:`pool`,
    :meth:`project`, :attr:`vision_layers`, :meth:`scale`.
    """

    architecture: ClassVar[str]
    """Name of the class in `transformers`."""
    starts: ClassVar[bool] = True
    """Whether a text begins with a token of its own."""
    padded: ClassVar[bool] = False
    """Whether the image encoder demands that each text is padded to the full length, and padding has an influence."""
    masked: ClassVar[bool] = False
    """Whether the text encoder masks the padding, which then has no influence."""
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
        check_processor(vlm)
        return vlm

    @classmethod
    def check_config(cls, config: Any, name: str) -> None:
        """Refuses a configuration of this family that has no two encoders."""

    @classmethod
    def read_tokenizer(cls, name: str, options: dict[str, Any], text: Any) -> Any:
        """Reads the tokenizer and makes sure that it is the model's own.

        Of the words too: the loader makes up a tokenizer without any where the files are missing.
        """
        import transformers

        what = f"tokenizer ({cls.tokenizer_files})"
        tokenizer = read_part(what, name, transformers.AutoTokenizer.from_pretrained, options)
        words, (start, end) = _ids(tokenizer, _BEFORE, add_special_tokens=False), frame(tokenizer)
        ends = "start and end" if cls.starts else "end"
        if set(words) <= set(tokenizer.all_special_ids) or not end or (cls.starts and not start):
            raise ModelError(
                f"{name} has no usable {what}: it knows no words or no {ends}; copy the tokenizer files of the model"
            )
        strange = max(*start, *end, *words) >= text.vocab_size or (start and not cls.starts)
        if strange or not cls.belongs(tokenizer, text):
            raise ModelError(f"the tokenizer of {name} belongs to another model; copy the tokenizer files of the model")
        return tokenizer

    @classmethod
    def belongs(cls, tokenizer: Any, text: Any) -> bool:
        """Returns whether the tokenizer fits the configuration of the text encoder, as far as that can be checked."""
        return not cls.masked or bool(tokenizer.pad_token_id == text.pad_token_id)

    def to(self, device: torch.device) -> Self:
        """Moves the parameters and returns the model."""
        with torch.inference_mode(False):  # parameters that are moved in that mode are of no use for training
            self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
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
        """The image encoder without the projection."""
        return self.model.vision_model  # type: ignore[no-any-return]

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the image encoder."""
        return self.model.vision_model.encoder.layers  # type: ignore[no-any-return]

    def pool(self, pixels: Tensor) -> Tensor:
        """Runs the image encoder up to the projection: (B, 3, S, S) to (B, vision_width)."""
        return self.model.vision_model(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

    def run(self) -> Tensor:
        """Runs the image encoder on one black image: (1, vision_width)."""
        return self.pool(torch.zeros(1, 3, self.image_size, self.image_size, device=self.device))

    def project(self, pooled: Tensor) -> Tensor:
        """Projects pooled image features into the joint space: (B, vision_width) to (B, D)."""
        return self.model.visual_projection(pooled)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------------------ texts

    @property
    def words(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.model.text_model.embeddings.token_embedding  # type: ignore[no-any-return]

    @property
    def pad(self) -> int:
        """The token that fills a text up."""
        return int(self.tokenizer.pad_token_id)

    def text_features(self, token_ids: Tensor) -> Tensor:
        """Runs the text encoder and its projection: (K, T) to (K, D)."""
        raise NotImplementedError

    @property
    def padding_side(self) -> str:
        """Where the tokenizer fills texts up, `left` or `right`."""
        return str(getattr(self.tokenizer, "padding_side", "right"))

    def inputs(self, token_ids: Tensor) -> dict[str, Tensor]:
        """Returns the arguments of the text encoder: the tokens and, where it masks the padding, 1 for each word."""
        mask = {"attention_mask": (token_ids != self.pad).long()} if self.masked else {}
        return {"input_ids": token_ids, **mask}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Tokenises texts as the library does: (len(texts), T). Texts too long for the image encoder are cut."""
        padding = "max_length" if self.padded else True
        return self.tokenizer(  # type: ignore[no-any-return]
            list(texts), padding=padding, truncation=True, max_length=self.context_length, return_tensors="pt"
        )["input_ids"]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encodes texts: (len(texts), D), not normalised. Texts too long for the image encoder are cut."""
        return self.text_features(self.tokenize(texts).to(self.device))

    def tokenize_names(self, names: Sequence[str], *, context_tokens: int) -> tuple[Tensor, list[str]]:
        """Tokenises `[start, place holders, name, ".", end]`; see :class:`VisionLanguageModel`.

        Start, full stop and end are there where the model's own tokenizer writes them.
        """
        start, end = self.frame()
        holder, stop = self.pieces(_BEFORE)[:1], self._inside(".")
        room = self.context_length - len(start) - len(end) - context_tokens - len(stop)
        if room < 1:
            raise ModelError(
                f"the text encoder of {self.name} takes {self.context_length} tokens: no room for a class name beside "
                f"{context_tokens} context tokens; use fewer (--context-tokens)"
            )
        rows, shortened = [], []
        for name in names:
            pieces = self._inside(f" {name}")
            if len(pieces) > room:
                shortened.append(name)
            rows.append([*start, *holder * context_tokens, *pieces[:room], *stop, *end])
        return self._fill(rows), shortened

    def unknown_names(self, names: Sequence[str]) -> list[str]:
        """Returns the names of which the tokenizer knows nothing: to the model they are no words."""
        words = getattr(self.tokenizer, "tokenizer", self.tokenizer)  # open_clip wraps that of transformers
        unknown = getattr(words, "unk_token_id", None)
        known = [[token for token in self._inside(f" {name}") if token != unknown] for name in names]
        # SentencePiece leaves the mark of a new word
        return [name for name, rest in zip(names, known, strict=True) if not rest or not words.decode(rest).strip()]

    def _fill(self, rows: list[list[int]]) -> Tensor:
        longest = self.context_length if self.padded else max(map(len, rows))
        fill = [[self.pad] * (longest - len(row)) for row in rows]
        left = self.padding_side == "left"
        return torch.tensor([[*more, *row] if left else [*row, *more] for row, more in zip(rows, fill, strict=True)])

    def frame(self) -> tuple[list[int], list[int]]:
        """Returns the tokens that begin and end every text."""
        return frame(self.tokenizer)

    def pieces(self, text: str) -> list[int]:
        """Returns the tokens of a text without start and end, in lower case and with `_` read as a space."""
        return _ids(self.tokenizer, text.lower().replace("_", " "), add_special_tokens=False)

    def _inside(self, text: str) -> list[int]:
        """Returns the tokens of a text that follows on a word."""
        return self.pieces(_BEFORE + text)[len(self.pieces(_BEFORE)) :]

    def embed_words(self, text: str) -> Tensor:
        """Returns the token embeddings of a text without start and end: (tokens, text_width)."""
        ids = torch.tensor(self.pieces(text), dtype=torch.int64, device=self.device)
        return self.words(ids).detach()  # type: ignore[no-any-return]

    @property
    def causal_text(self) -> CausalText | None:
        """The parts of the text encoder, where it is causal and the feature is read at the end token."""
        return None

    def encode_prompts(self, context: Tensor, token_ids: Tensor) -> Tensor:
        """Encodes prompts with learned context vectors; see :class:`VisionLanguageModel`.

        A causal text encoder reads what all prompts have in common once for many of them. In others each token sees all
        of its prompt, so that nothing is common but the vectors.
        """
        causal = self.causal_text
        if causal is not None and self.padding_side == "right":
            return encode_behind_prefix(causal, context, token_ids, start=len(self.frame()[0]))
        at_once = max(1, MOST_TOKENS // token_ids.shape[1])
        return in_chunks(
            lambda first, last: self._encode_alone(context, token_ids[first:last].to(self.device)),
            count=len(token_ids),
            chunk_size=at_once,
            device=self.device,
        )

    def _encode_alone(self, context: Tensor, token_ids: Tensor) -> Tensor:
        """Encodes each prompt by itself; the context takes the place of what the token embedding gives.

        Args:
            context: (M, text_width).
            token_ids: (K, T).

        Returns:
            (K, D), not normalised.
        """
        leading = (token_ids == self.pad).long().cumprod(dim=1).sum(dim=1)  # of tokenizers that fill up on the left
        first = leading + len(self.frame()[0])
        at = first[:, None] + torch.arange(len(context), device=self.device)

        def replace(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            count, width = len(embedded), embedded.shape[-1]
            learned = context.to(embedded.dtype).expand(count, -1, width)
            return embedded.scatter(1, at[:, :, None].expand(-1, -1, width), learned)

        handle = self.words.register_forward_hook(replace)
        try:
            return self.text_features(token_ids)
        finally:
            handle.remove()


def _ids(tokenizer: Any, text: str, **options: Any) -> list[int]:
    return list(tokenizer(text, **options)["input_ids"])


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the tokens that a tokenizer of `transformers` puts before and after every text."""
    inner, whole = _ids(tokenizer, _BEFORE, add_special_tokens=False), _ids(tokenizer, _BEFORE)
    for at in range(len(whole) - len(inner) + 1):
        if whole[at : at + len(inner)] == inner:
            return whole[:at], whole[at + len(inner) :]
    return [], []
