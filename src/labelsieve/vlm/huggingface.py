"""Two-tower models of `transformers`, from the Hub or a local folder.

A model kind is one adapter class and one line in `ADAPTERS`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from labelsieve.errors import ModelError
from labelsieve.provenance import fingerprint
from labelsieve.vlm.base import VisionLanguageModel


class HuggingFaceCLIP:
    """A `transformers.CLIPModel` with its own tokenizer and image processor. See :class:`VisionLanguageModel`."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.processor, self.name = tokenizer, processor, name
        text, vision = model.config.text_config, model.config.vision_config
        self.logit_scale = float(model.logit_scale.exp())
        self.text_width, self.context_length = int(text.hidden_size), int(text.max_position_embeddings)
        self.vision_width, self.patch_size = int(vision.hidden_size), int(vision.patch_size)
        self.image_size = int(vision.image_size)
        self.fingerprint = _fingerprint(model, processor)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the vision tower."""
        return self.model.vision_model.encoder.layers  # type: ignore[no-any-return]

    def to(self, device: torch.device) -> HuggingFaceCLIP:
        """Moves the parameters and returns the model."""
        self.model.to(device)
        return self

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Prepares RGB images as the model's own processor does: (B, 3, S, S)."""
        return self.processor(images=list(images), return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Brings RGB pixels between 0 and 1, (B, 3, S, S), to the model's mean and standard deviation."""
        if not getattr(self.processor, "do_normalize", True):
            return pixels
        mean, std = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (self.processor.image_mean, self.processor.image_std))
        return (pixels - mean) / std

    def pool(self, pixels: Tensor) -> Tensor:
        """Runs the vision tower up to the projection: (B, 3, S, S) to (B, vision_width)."""
        return self.model.vision_model(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

    def project(self, pooled: Tensor) -> Tensor:
        """Projects pooled image features into the joint space: (B, vision_width) to (B, D)."""
        return self.model.visual_projection(pooled)  # type: ignore[no-any-return]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encodes plain texts: (len(texts), D), not normalised. Texts too long for the tower are cut."""
        ids = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.context_length, return_tensors="pt"
        )["input_ids"]
        return self._text_features(ids.to(self.device))

    def _text_features(self, token_ids: Tensor) -> Tensor:
        # no attention mask: the tower is causal and the feature is read at the end token, so padding has no influence
        return self.model.text_projection(self.model.text_model(input_ids=token_ids).pooler_output)  # type: ignore[no-any-return]

    def tokenize_names(self, names: Sequence[str], *, context_tokens: int) -> tuple[Tensor, list[str]]:
        """Tokenises `[start, place holders, name, ".", end]`; see :class:`VisionLanguageModel`."""
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        stop = self._words(".")
        room = self.context_length - 2 - context_tokens - len(stop)
        if room < 1:
            raise ModelError(
                f"the text tower of {self.name} bears {self.context_length} tokens: no room for a class name beside "
                f"{context_tokens} context tokens; use fewer (--context-tokens)"
            )
        rows, shortened = [], []
        for name in names:
            words = self._words(name)
            if len(words) > room:
                shortened.append(name)
            rows.append([start, *stop[:1] * context_tokens, *words[:room], *stop, end])
        longest = max(map(len, rows))
        return torch.tensor([row + stop[:1] * (longest - len(row)) for row in rows]), shortened

    def _words(self, text: str) -> list[int]:
        return list(self.tokenizer(text.lower().replace("_", " "), add_special_tokens=False)["input_ids"])

    def embed_words(self, text: str) -> Tensor:
        """Returns the token embeddings of a text without start and end: (tokens, text_width)."""
        table = self.model.text_model.get_input_embeddings()
        return table(torch.tensor(self._words(text), device=self.device)).detach()  # type: ignore[no-any-return]

    def encode_prompts(self, context: Tensor, token_ids: Tensor) -> Tensor:
        """Encodes prompts with learned context vectors; see :class:`VisionLanguageModel`.

        The vectors replace the output of the token embedding, so that the tower itself runs as it is.
        """

        def replace(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            count = len(context)
            learned = context.to(embedded.dtype).expand(len(embedded), -1, -1)
            return torch.cat([embedded[:, :1], learned, embedded[:, 1 + count :]], dim=1)

        handle = self.model.text_model.get_input_embeddings().register_forward_hook(replace)
        try:
            return self._text_features(token_ids.to(self.device))
        finally:
            handle.remove()


ADAPTERS = {"clip": HuggingFaceCLIP}


def load_vlm(name: str | Path) -> VisionLanguageModel:
    """Loads a vision-language model with its own tokenizer and image processor, frozen and in float32.

    Weights are read from safetensors or, where a model has no other, by PyTorch's safe loader; code that a model
    folder may carry is never run.

    Args:
        name: Hub id such as `openai/clip-vit-base-patch16`, or a local folder.

    Raises:
        ModelError: There is no such folder or id, the Hub cannot be reached, the model is not a supported two-tower
            model, lacks a tokenizer or image processor, or its weights are missing, broken or not finite.
    """
    name = str(name)
    config = _load_part("configuration (config.json)", name, "AutoConfig")
    adapter = ADAPTERS.get(config.model_type)
    if adapter is None:
        raise ModelError(
            f"expected a two-tower vision-language model of kind {', '.join(ADAPTERS)}, "
            f"{name} is of kind {config.model_type}; choose another --model"
        )
    tokenizer = _load_part("tokenizer (tokenizer.json, or vocab.json and merges.txt)", name, "AutoTokenizer")
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None or not tokenizer("a").input_ids:
        raise ModelError(f"the tokenizer of {name} has no start or end token; copy the tokenizer files of the model")
    processor = _load_part("image processor (preprocessor_config.json)", name, "AutoImageProcessor")
    return adapter(_load_weights(name, config), tokenizer, processor, name=name)


def _load_part(what: str, name: str, loader: str) -> Any:
    import transformers

    is_folder = Path(name).is_dir()
    if not is_folder and (Path(name).exists() or name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1):
        raise ModelError(f"expected a model folder or a Hub id, {name} is neither; check --model")
    try:
        return getattr(transformers, loader).from_pretrained(name)
    except Exception as error:  # the loaders raise whatever their parsers raise
        if is_folder:
            raise ModelError(f"{name} has no usable {what}: {_first_line(error)}") from error
        raise ModelError(
            f"could not get the {what} of {name} from the Hub: {_first_line(error)}; "
            "check the id and the network, or give a local folder"
        ) from error


def _load_weights(name: str, config: Any) -> Any:
    import transformers

    architecture = transformers.MODEL_MAPPING[type(config)]
    try:
        model, info = architecture.from_pretrained(
            name, config=config, dtype=torch.float32, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # safetensors, torch and the Hub each raise their own
        raise ModelError(f"the weights of {name} cannot be loaded: {_first_line(error)}; get them again") from error
    if info["missing_keys"] or info.get("mismatched_keys"):
        lacking = sorted(map(str, info["missing_keys"])) or sorted(map(str, info["mismatched_keys"]))
        raise ModelError(f"the weights of {name} are incomplete, {len(lacking)} missing such as {lacking[0]}; get them again")
    if not all(bool(torch.isfinite(value).all()) for value in model.parameters()):
        raise ModelError(f"the weights of {name} hold values that are not finite; get them again")
    return model


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _fingerprint(model: Any, processor: Any) -> str:
    weights = [value.detach().cpu().numpy() for _, value in sorted(model.state_dict().items())]
    return fingerprint(model.config.model_type, processor.to_json_string(), *weights)
