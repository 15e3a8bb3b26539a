"""Two-tower models of `transformers`, from the Hub or a local folder.

A model kind is one adapter class and one line in `ADAPTERS`.
"""

from __future__ import annotations

import os
import pickle
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
    def vision_tower(self) -> nn.Module:
        """The vision tower without the projection."""
        return self.model.vision_model  # type: ignore[no-any-return]

    @property
    def vision_layers(self) -> Sequence[nn.Module]:
        """The transformer blocks of the vision tower."""
        return self.model.vision_model.encoder.layers  # type: ignore[no-any-return]

    def to(self, device: torch.device) -> HuggingFaceCLIP:
        """Moves the parameters and returns the model."""
        with torch.inference_mode(False):  # parameters that are moved in that mode are of no use for training
            self.model.to(device)
        return self

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
        ids = torch.tensor(self._words(text), dtype=torch.int64, device=self.device)
        return table(ids).detach()  # type: ignore[no-any-return]

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

# What a configuration holds that makes no difference to what the model computes in float32.
_IRRELEVANT = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}
# Configurations of before transformers 4.31 name this end token; the tower then reads at the largest id.
_LEGACY_END = 2


def load_vlm(name: str | Path) -> VisionLanguageModel:
    """Loads a vision-language model with its own tokenizer and image processor, frozen and in float32.

    Weights are read from safetensors or, where a model has no other, by PyTorch's safe loader; code that a model
    folder may carry is never run. Where the Hub cannot be reached, a model that was downloaded before still loads.

    Args:
        name: Hub id such as `openai/clip-vit-base-patch16`, or a local folder.

    Raises:
        ModelError: There is no such folder or id, the Hub cannot be reached, the model is not a supported two-tower
            model, lacks a tokenizer or image processor or has those of another model, or its weights are missing,
            broken or not finite.
    """
    name = str(name)
    options = _options(name)
    config = _load_part("configuration (config.json)", name, "AutoConfig", options)
    adapter = ADAPTERS.get(config.model_type)
    if adapter is None:
        raise ModelError(
            f"expected a two-tower vision-language model of kind {', '.join(ADAPTERS)}, "
            f"{name} is of kind {config.model_type}; choose another --model"
        )
    tokenizer = _load_part("tokenizer (tokenizer.json, or vocab.json and merges.txt)", name, "AutoTokenizer", options)
    _check_tokenizer(tokenizer, config.text_config, name)
    processor = _load_part("image processor (preprocessor_config.json)", name, "AutoImageProcessor", options)
    vlm = adapter(_load_weights(name, config, options), tokenizer, processor, name=name)
    _check_processor(vlm)
    return vlm


def _options(name: str) -> dict[str, Any]:
    """Returns how the loaders are called: code out of the model never runs, and nobody asks whether it may."""
    if name and Path(name).is_dir():
        return {"trust_remote_code": False, "local_files_only": True}
    if not name or Path(name).exists() or name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1:
        raise ModelError(f'expected a model folder or a Hub id, "{name}" is neither; check --model')
    return {"trust_remote_code": False, "local_files_only": not _reaches_hub()}


def _reaches_hub() -> bool:
    """Tries once, for the loaders try each of their files for half a minute before they turn to what is on the disk."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # requests, httpx and the offline mode each raise their own
        return False
    return True


def _load_part(what: str, name: str, loader: str, options: dict[str, Any]) -> Any:
    import transformers

    try:
        return getattr(transformers, loader).from_pretrained(name, **options)
    except Exception as error:  # the loaders raise whatever their parsers raise
        if Path(name).is_dir():
            raise ModelError(f"{name} has no usable {what}: {_first_line(error)}") from error
        if options["local_files_only"]:
            raise ModelError(
                f"the Hub cannot be reached and the {what} of {name} is not on this machine; "
                "check the network and the id, or give a local folder"
            ) from error
        raise ModelError(
            f"could not get the {what} of {name} from the Hub: {_first_line(error)}; "
            "check the id and the network, or give a local folder"
        ) from error


def _check_tokenizer(tokenizer: Any, text: Any, name: str) -> None:
    """Makes sure of the words, since the loader makes up a tokenizer without any where the files are missing."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    words = tokenizer("photo", add_special_tokens=False)["input_ids"]
    if start is None or end is None or set(words) <= set(tokenizer.all_special_ids):
        raise ModelError(
            f"{name} has no usable tokenizer (tokenizer.json, or vocab.json and merges.txt): it knows no words or no "
            "start and end; copy the tokenizer files of the model"
        )
    if text.eos_token_id not in (_LEGACY_END, end) or max(start, end, *words) >= text.vocab_size:
        raise ModelError(f"the tokenizer of {name} belongs to another model; copy the tokenizer files of the model")


def _check_processor(vlm: VisionLanguageModel) -> None:
    expected = (1, 3, vlm.image_size, vlm.image_size)
    try:
        found: Any = tuple(vlm.pixels([Image.new("RGB", (40, 30))]).shape)
    except Exception as error:  # whatever a processor with odd settings raises
        found = _first_line(error)
    if found != expected:
        raise ModelError(
            f"expected the image processor of {vlm.name} to give pixels of shape {expected}, got {found}; "
            "copy the preprocessor_config.json of the model"
        )


def _load_weights(name: str, config: Any, options: dict[str, Any]) -> Any:
    import transformers

    architecture: Any = transformers.MODEL_MAPPING[type(config)]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()  # half a second needs none
    try:
        model, info = architecture.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, in one line
            **options,
        )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"the weights of {name} are a pickle that holds more than tensors, or broken, and are not loaded; "
            "get a model with safetensors"
        ) from error
    except Exception as error:  # safetensors, torch and the Hub each raise their own
        raise ModelError(f"the weights of {name} cannot be loaded: {_first_line(error)}; get them again") from error
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    missing, misshapen = sorted(info["missing_keys"]), sorted(key for key, *_shapes in info["mismatched_keys"])
    if missing:
        raise ModelError(
            f"the weights of {name} are incomplete, {len(missing)} missing such as {missing[0]}; get them again"
        )
    if misshapen:
        raise ModelError(
            f"{len(misshapen)} weights of {name} have another shape than its config.json says, such as {misshapen[0]}; "
            "get both again"
        )
    if not all(bool(torch.isfinite(value).all()) for value in model.parameters()):
        raise ModelError(f"the weights of {name} hold values that are not finite; get them again")
    return model


def _first_line(error: BaseException) -> str:
    """Returns the first sentence: what follows in the messages of the loaders is advice on calling them."""
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].rstrip(" .") if lines else type(error).__name__


def _fingerprint(model: Any, processor: Any) -> str:
    weights = [value.detach().cpu().numpy() for _, value in sorted(model.state_dict().items())]
    return fingerprint(_relevant(model.config.to_dict()), processor.to_json_string(), *weights)


def _relevant(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _relevant(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _IRRELEVANT
    }
