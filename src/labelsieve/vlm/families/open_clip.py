"""Models of the `open_clip` library, an extra: `pip install 'labelsieve[open-clip]'`."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn

from labelsieve.core.errors import ModelError, did_you_mean, listed, shown
from labelsieve.vlm.base import VisionLanguageModel, special_tokens
from labelsieve.vlm.names import OPEN_CLIP
from labelsieve.vlm.pretrained import (
    check_no_lfs_pointers,
    check_weights,
    concise_weight_errors,
    error_summary,
    loader_options,
    model_fingerprint,
    read_part,
)
from labelsieve.vlm.text_encoder import CausalTextEncoder

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Only these entries are passed to the loaders of tokenizers, which could otherwise be made to run code.
_TOKENIZER_SETTINGS = ("clean", "strip_sep_token", "language")


class OpenCLIP(VisionLanguageModel):
    """open_clip: models of that library with its own text encoders; needs the extra open-clip. See docs/models.md.

    The image encoder may be a ViT, a ResNet or one of `timm`; methods that need a vision transformer reject the others.
    """

    architecture: ClassVar[str] = "open_clip"
    pads_to_full_length: ClassVar[bool] = True

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *, name: str, config: dict[str, Any]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.processor, self.name = tokenizer, processor, name
        self.logit_scale = self.scale()
        self.text_width, self.context_length = self.token_embeddings.embedding_dim, int(tokenizer.context_length)
        self.image_size, self.patch_size = side(model.visual, name), _patch_size(model.visual)
        self.fingerprint = model_fingerprint(model, config, json.dumps(model.visual.preprocess_cfg, sort_keys=True))
        self._detach_projection()
        with torch.inference_mode():
            self.vision_width = int(self.run().shape[1])

    def _detach_projection(self) -> None:
        """Detaches the projection of a ViT from its image encoder, which then returns the features before it."""
        visual = self.model.visual
        self.model.image_projection = getattr(visual, "proj", None)
        if self.model.image_projection is not None:
            visual.proj = None

    # ---------------------------------------------------------------------------------------------------- loading

    @classmethod
    def is_open_clip_name(cls, name: str) -> bool:
        """Returns whether open_clip loads a name: it has the prefix, or is a folder with only its configuration."""
        is_there = [os.path.isfile(os.path.join(name, file)) for file in (CONFIG, "config.json")]
        return name.startswith(OPEN_CLIP) or (bool(name) and is_there == [True, False])

    @classmethod
    def load(cls, name: str, options: dict[str, Any]) -> Self:
        """Loads a folder or a name with the prefix; see :func:`labelsieve.vlm.loading.load_vlm`."""
        open_clip = _library(name)
        source = _source(name)
        text = source.config["text_cfg"]
        if "hf_model_name" in text or "multimodal_cfg" in source.config or text.get("tokenizer_mode"):
            raise ModelError(
                f"expected an open_clip model with a text encoder of its own, that of {name} is "
                f"{text.get('hf_model_name', 'one that generates')}; choose another model"
            )
        model = _build(source, name)
        tokenizer = _tokenizer(source, name)
        _load_weights(model, source.weights, name)
        preprocessing = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
        processor = open_clip.transform.image_transform_v2(preprocessing, is_train=False)
        vlm = cls(model, tokenizer, processor, name=name, config=source.config)
        if max(int(vlm.tokenize(["photo"]).max()), vlm.pad) >= vlm.token_embeddings.num_embeddings:
            raise ModelError(f"the tokenizer of {name} belongs to another model; copy the tokenizer files of the model")
        vlm.check_processor()
        return vlm

    # ----------------------------------------------------------------------------------------------------- images

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Prepares RGB images as the model's own transforms do: (B, 3, S, S)."""
        return torch.stack([self.processor(image) for image in images])

    def normalise(self, pixels: Tensor) -> Tensor:
        """Brings RGB pixels between 0 and 1, (B, 3, S, S), to the model's mean and standard deviation."""
        settings = self.model.visual.preprocess_cfg
        mean, std = (pixels.new_tensor(settings[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        return (pixels - mean) / std

    @property
    def image_encoder(self) -> nn.Module:
        """The image encoder without the projection."""
        return getattr(self.model.visual, "trunk", self.model.visual)  # type: ignore[no-any-return]

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the image encoder; none if it is not a vision transformer."""
        layers, width = _blocks(self.model.visual)
        return layers if width == self.vision_width else ()

    def pool(self, pixels: Tensor) -> Tensor:
        """Runs the image encoder up to the projection: (B, 3, S, S) to (B, vision_width)."""
        return self.image_encoder(pixels)  # type: ignore[no-any-return]

    def project(self, pooled: Tensor) -> Tensor:
        """Projects pooled image features into the joint space: (B, vision_width) to (B, D)."""
        visual, projection = self.model.visual, self.model.image_projection
        if hasattr(visual, "trunk"):
            return visual.head(pooled)  # type: ignore[no-any-return]
        return pooled if projection is None else pooled @ projection

    # ------------------------------------------------------------------------------------------------------ texts

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return getattr(self.model, "text", self.model).token_embedding  # type: ignore[no-any-return]

    @property
    def _hf_tokenizer(self) -> Any:
        """The tokenizer of `transformers`, where the model has one."""
        return getattr(self.tokenizer, "tokenizer", None)

    @property
    def pad(self) -> int:
        """The padding token; the tokenizer of open_clip uses 0."""
        return 0 if self._hf_tokenizer is None else int(self._hf_tokenizer.pad_token_id)

    @property
    def padding_side(self) -> str:
        """The side on which the tokenizer pads texts, `left` or `right`."""
        return str(getattr(self._hf_tokenizer, "padding_side", "right"))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Tokenises texts as the library does: (len(texts), context_length)."""
        return self.tokenizer(list(texts))  # type: ignore[no-any-return]

    def special_tokens(self) -> tuple[list[int], list[int]]:
        """Returns the tokens that begin and end every text."""
        if self._hf_tokenizer is None:
            return [self.tokenizer.sot_token_id], [self.tokenizer.eot_token_id]
        start, end = special_tokens(self._hf_tokenizer)
        return start, [
            0 if self.tokenizer.strip_sep_token and token == self._hf_tokenizer.sep_token_id else token for token in end
        ]

    def tokens_of(self, text: str) -> list[int]:
        """Returns the tokens of a text without start and end, in lower case with `_` replaced by a space."""
        cleaned = text.lower().replace("_", " ")
        if self._hf_tokenizer is None:
            return list(self.tokenizer.encode(cleaned))
        return list(self._hf_tokenizer(self.tokenizer.clean_fn(cleaned), add_special_tokens=False)["input_ids"])

    @property
    def causal_text(self) -> CausalTextEncoder | None:
        """The parts of the text encoder; None if it is not causal or does not pool at the end token."""
        encoder = getattr(self.model, "text", self.model)
        pool_type = getattr(encoder, "pool_type", getattr(encoder, "text_pool_type", None))
        has_other_inputs = getattr(encoder, "use_pad_mask", False) or getattr(encoder, "cls_emb", None) is not None
        causal = encoder.attn_mask is not None and not has_other_inputs
        if not causal or pool_type not in ("argmax", "eos") or self._hf_tokenizer is not None:
            return None
        heads = encoder.transformer.resblocks[0].attn.num_heads

        def blocks(hidden: Tensor, visible: Tensor) -> Tensor:
            bias = hidden.new_zeros(visible.shape).masked_fill(~visible, -torch.inf)
            return encoder.transformer(hidden, attn_mask=bias.repeat_interleave(heads, dim=0))  # type: ignore[no-any-return]

        def finish(hidden: Tensor) -> Tensor:
            hidden, projection = encoder.ln_final(hidden), encoder.text_projection
            if projection is not None:
                hidden = projection(hidden) if isinstance(projection, nn.Linear) else hidden @ projection
            return hidden

        end = self.tokenizer.eot_token_id
        return CausalTextEncoder(
            token_embeddings=self.token_embeddings,
            positions=encoder.positional_embedding,
            blocks=blocks,
            finish=finish,
            end=end,
        )

    def text_features(self, token_ids: Tensor) -> Tensor:
        """Runs the text encoder and its projection: (K, context_length) to (K, D)."""
        return self.model.encode_text(token_ids)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The parts of a model: its name in open_clip, configuration, file of weights and tokenizer."""

    model: str
    tag: str | None = None
    config: dict[str, Any]
    weights: Path
    tokenizer: str


def read_vision(name: str) -> tuple[Any, dict[str, Any]]:
    """Reads a model with any text encoder; returns its image encoder and the configuration of that (`vision_cfg`)."""
    source = _source(name)
    model = _build(source, name)
    _load_weights(model, source.weights, name)
    return model.visual.eval().requires_grad_(False), source.config["vision_cfg"]


def _library(name: str) -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ModelError(f"{name} needs the open_clip library; pip install 'labelsieve[open-clip]'") from error
    return open_clip


def _source(name: str) -> _Source:
    path = name.removeprefix(OPEN_CLIP)
    architecture, _, weights = path.partition("/")
    open_clip = _library(name)
    if os.path.isdir(path):
        return _from_folder(Path(path), name)
    if architecture in open_clip.list_models():
        return _from_architecture(architecture, weights)
    return _from_folder(_download(path), name)


def _from_folder(folder: Path, name: str) -> _Source:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        config["text_cfg"], config["vision_cfg"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        check_no_lfs_pointers(str(folder))
        lacking = "it lacks model_cfg, or text_cfg and vision_cfg in that"
        reason = error_summary(error) if isinstance(error, OSError | ValueError) else lacking
        raise ModelError(f"{name} has no usable configuration ({CONFIG}): {reason}") from error
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), folder / WEIGHTS[0])
    return _Source(model=f"local-dir:{folder}", config=config, weights=weights, tokenizer=str(folder))


def _from_architecture(architecture: str, tag_or_file: str) -> _Source:
    """Combines a built-in configuration with weights from a file, or with those of a tag of open_clip."""
    import open_clip

    config = open_clip.get_model_config(architecture)
    tokenizer = config["text_cfg"].get("hf_tokenizer_name", "")
    if os.path.isfile(tag_or_file):
        return _Source(model=architecture, config=config, weights=Path(tag_or_file), tokenizer=tokenizer)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag_or_file not in tags:
        raise ModelError(
            f'expected a file or one of {listed(tags) or "no tags"} after "{OPEN_CLIP}{architecture}/", '
            f'got "{shown(tag_or_file)}"{did_you_mean(tag_or_file, tags)}'
        )
    pretrained = open_clip.get_pretrained_cfg(architecture, tag_or_file)
    with concise_weight_errors(f"{OPEN_CLIP}{architecture}/{tag_or_file}"):
        weights = Path(open_clip.download_pretrained(pretrained))
    return _Source(model=architecture, tag=tag_or_file, config=config, weights=weights, tokenizer=tokenizer)


def _download(name: str) -> Path:
    """Downloads the files of a Hub id and returns their folder."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    options = {"local_files_only": loader_options(name)["local_files_only"]}
    small = [CONFIG, "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model"]

    def get(name: str, **options: Any) -> Path:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=small, **options))
        for file in WEIGHTS:
            try:
                huggingface_hub.hf_hub_download(name, file, **options)
                break
            except EntryNotFoundError:
                continue
        return folder

    path: Path = read_part(f"files ({CONFIG}, {WEIGHTS[0]})", name, get, options)
    return path


def _build(source: _Source, name: str) -> Any:
    import open_clip

    no_weights = {"load_weights": False, "pretrained_text": False, "pretrained_image": False}
    with _quiet():
        try:
            return open_clip.create_model(source.model, pretrained=source.tag, **no_weights)
        except Exception as error:  # any error of an invalid configuration
            raise ModelError(f"{name} has no usable configuration ({CONFIG}): {error_summary(error)}") from error


def _tokenizer(source: _Source, name: str) -> Any:
    from open_clip import tokenizer

    text = source.config["text_cfg"]
    settings = {key: value for key, value in text.get("tokenizer_kwargs", {}).items() if key in _TOKENIZER_SETTINGS}
    settings["context_length"] = text.get("context_length", tokenizer.DEFAULT_CONTEXT_LENGTH)
    if not text.get("hf_tokenizer_name"):
        return tokenizer.SimpleTokenizer(**settings)
    options = loader_options(source.tokenizer)
    loaded = read_part("tokenizer (tokenizer.json)", source.tokenizer, tokenizer.HFTokenizer, {**settings, **options})
    inner = loaded.tokenizer
    if inner.pad_token_id is None or set(inner("photo", add_special_tokens=False)["input_ids"]) <= {
        *inner.all_special_ids
    }:
        raise ModelError(
            f"{name} has no usable tokenizer (tokenizer.json): it knows no words or no padding; "
            "copy the tokenizer files of the model"
        )
    return loaded


def _load_weights(model: Any, weights: Path, name: str) -> None:
    """Loads the weights by open_clip, which supports its older formats."""
    import open_clip

    with _quiet(), concise_weight_errors(name, folder=weights.parent):
        try:
            keys = open_clip.load_checkpoint(model, str(weights), strict=False, weights_only=True)
        except RuntimeError as error:
            mismatched = re.findall(r"size mismatch for ([^\s:]+):", str(error))
            if not mismatched:
                raise
            keys = None
    if keys is None:
        check_weights(name, model, (), mismatched)
    check_weights(name, model, keys.missing_keys if keys else (), ())


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses warnings of open_clip about random weights, which are loaded afterwards."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def _blocks(visual: Any) -> tuple[Sequence[nn.Module], int]:
    """Returns the blocks of a vision transformer and their width; none for another encoder."""
    if hasattr(visual, "transformer"):
        return visual.transformer.resblocks, visual.transformer.width
    if hasattr(visual, "trunk"):
        from timm.models.vision_transformer import VisionTransformer

        if isinstance(visual.trunk, VisionTransformer):
            return list(visual.trunk.blocks), visual.trunk.embed_dim
    return (), 0


def side(visual: Any, name: str) -> int:
    """Returns the side of the input images; rejects models whose input is not square."""
    size = visual.image_size
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ModelError(f"expected a model of square images, {name} takes {size}; choose another model")
    return int(sides.pop())


def _patch_size(visual: Any) -> int:
    """Returns the side of a patch, 0 if there are none."""
    size = getattr(visual, "patch_size", None)
    if size is None and _blocks(visual)[0]:
        size = visual.trunk.patch_embed.patch_size
    return 0 if size is None else int(size[0])
