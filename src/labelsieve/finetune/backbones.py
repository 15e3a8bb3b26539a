"""Classification models of `transformers` as backbones: pre-trained weights, their own image processor, a new head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from labelsieve.core.errors import ModelError, setting
from labelsieve.core.provenance import fingerprint
from labelsieve.finetune.timm_classifier import TimmEncoder, make_classifier
from labelsieve.finetune.timm_encoders import IMAGE_ENCODERS, convert_dual_encoder
from labelsieve.vlm.colours import ColourTransform, read_colours
from labelsieve.vlm.families.dual_encoder import read_encoders
from labelsieve.vlm.families.open_clip import OpenCLIP
from labelsieve.vlm.families.registry import DUAL_ENCODER, FAMILIES
from labelsieve.vlm.pretrained import (
    CONFIGURATION,
    PROCESSOR,
    check_weights,
    concise_weight_errors,
    error_summary,
    loader_options,
    quiet_loading,
    raw_configuration,
    read_part,
    read_weights,
    relevant,
)

# Entries of a configuration that depend on the classes, not on the weights.
_LABEL_ENTRIES = {"id2label", "label2id", "num_labels", "num_classes", "label_names", "problem_type"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A `transformers` image classifier with K outputs; it has the interface that cached features require.

    Attributes:
        name: Hub id or folder, or `open_clip:...`.
        model: The classifier, in float32; the head is zero until it is set.
        processor: Its own image processor.
        head: The last linear layer, vision_width to K.
        image_size: Side of the input in pixels.
        unused: Names of parameters that do not influence the logits.
        fingerprint: Of architecture, pre-trained weights and processor, without the head.
        colours: Colour transform of the processor.
    """

    name: str
    model: Any
    processor: Any
    head: nn.Linear
    image_size: int
    unused: frozenset[str]
    fingerprint: str
    colours: ColourTransform

    @property
    def kind(self) -> str:
        """The model type of the configuration, such as `clip` or `resnet`."""
        return str(self.model.config.model_type)

    @property
    def vision_width(self) -> int:
        """Width of the input of the head."""
        return int(self.head.in_features)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Prepares RGB images as the model's own processor does: (B, 3, S, S)."""
        return self.processor(images=list(images), return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Applies the colour transform of the processor to RGB pixels between 0 and 1, (B, 3, S, S)."""
        return self.colours(pixels)

    def logits(self, pixels: Tensor) -> Tensor:
        """Classifies prepared pixels: (B, 3, S, S) to (B, K)."""
        return self.model(pixel_values=pixels).logits  # type: ignore[no-any-return]

    def pool(self, pixels: Tensor) -> Tensor:
        """Returns the input of the head: (B, 3, S, S) to (B, vision_width)."""
        features: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _module, args: features.append(args[0]))
        try:
            self.logits(pixels)
        finally:
            handle.remove()
        return _first_token(features[0])


def load_backbone(
    name: str, class_names: Sequence[str], *, problem_type: str = "single_label_classification"
) -> Backbone:
    """Loads a pre-trained model as a classifier of K classes with a head of zeros.

    All models that `AutoModelForImageClassification` knows are supported, with weights that were saved with a head, as
    an image encoder, or with a text encoder; ViT-MAE loads as a ViT, and the encoders of vision-language models as
    described in :mod:`labelsieve.finetune.timm_encoders`. Weights are read as by
    :func:`labelsieve.load_vlm`.

    Args:
        name: Hub id or local folder, or any other name that :func:`labelsieve.load_vlm` takes.
        class_names: The K names, which become `id2label`.
        problem_type: Entry of the configuration of `transformers`, which `pipeline()` uses.

    Raises:
        ModelError: There is no such model, it is no image classifier, its weights are missing, mismatched, broken or
            not finite, or its image processor makes pixels that it does not take.
    """
    kind, options = _kind(name)
    model, processor = _read(kind, name, class_names, options)
    if isinstance(model, TimmEncoder):
        model = make_classifier(model, class_names, name)
    _, head = _head(model, name)
    with torch.no_grad():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    model.config.problem_type = problem_type
    colours = read_colours(processor, name)
    unused = _check_forward(model, head, colours.side, name)
    return Backbone(
        name=name,
        model=model,
        processor=processor,
        head=head,
        image_size=colours.side,
        unused=unused,
        fingerprint=_fingerprint(model, head, processor),
        colours=colours,
    )


def _kind(name: str) -> tuple[str, dict[str, Any]]:
    """Returns the model type, empty if config.json has none, and the arguments of the loaders."""
    if OpenCLIP.is_open_clip_name(name):
        return "open_clip", {}
    try:
        options = loader_options(name)
    except ModelError:
        raise ModelError(
            f'expected a model folder or a Hub id, "{name}" is neither; give one with {setting("backbone")}'
        ) from None
    return str(read_part(CONFIGURATION, name, raw_configuration, options).get("model_type", "")), options


def _read(kind: str, name: str, class_names: Sequence[str], options: dict[str, Any]) -> tuple[Any, Any]:
    """Reads a classifier, or the :class:`TimmEncoder` of one; returns it with its image processor."""
    if kind in IMAGE_ENCODERS:
        encoder = IMAGE_ENCODERS[kind](name, options)
        return encoder, encoder.processor
    read = _read_dual_encoder if kind == DUAL_ENCODER else _read_classifier
    return read(name, class_names, options)


def _read_dual_encoder(name: str, class_names: Sequence[str], options: dict[str, Any]) -> tuple[Any, Any]:
    """Reads the image encoder of a dual encoder, as :func:`_read` does."""
    dual_encoder, processor = read_encoders(name, options)
    encoder, config = dual_encoder.vision_model, dual_encoder.config.vision_config
    timm_encoder = convert_dual_encoder(encoder, config, processor, read_colours(processor, name).side, name)
    if timm_encoder is not None:
        return timm_encoder, timm_encoder.processor
    return _classifier_of(encoder, _classifier_config(config, name, class_names), name), processor


def _classifier_of(encoder: Any, config: Any, name: str) -> Any:
    """Builds the `transformers` classifier of an encoder, with its weights and an uninitialised head."""
    with quiet_loading(), torch.random.fork_rng(devices=[]):  # for its random initial weights
        model = _classifier_class(config)(config).eval()
    base = getattr(model, model.base_model_prefix)
    with concise_weight_errors(name):
        missing, _ = base.load_state_dict(encoder.state_dict(), strict=False)  # it may not have a pooler
    check_weights(name, base, missing, ())
    return model


def _classifier_config(config: Any, name: str, class_names: Sequence[str]) -> Any:
    """Converts the configuration of a model to that of a classifier of K classes."""
    import transformers

    if config.model_type == "vit_mae":  # it has no classifier of its own, and the one of ViT loads its weights
        settings = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
        config = transformers.ViTConfig(**settings)
    if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"{name} is of kind {config.model_type}, which transformers has no image classifier for; give another with "
            f"{setting('backbone')}: {', '.join(FAMILIES)}, vit, vit_mae, dinov2, swin, convnext, resnet, ..."
        )
    config.id2label = dict(enumerate(class_names))
    config.label2id = {label: index for index, label in enumerate(class_names)}
    return config


def _classifier_class(config: Any) -> Any:
    import transformers

    classes: Any = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    return classes[0] if isinstance(classes, tuple) else classes


def _read_classifier(name: str, class_names: Sequence[str], options: dict[str, Any]) -> tuple[Any, Any]:
    """Reads a classifier of `transformers`, as :func:`_read` does."""
    import transformers

    config = read_part(CONFIGURATION, name, transformers.AutoConfig.from_pretrained, options)
    config = _classifier_config(config, name, class_names)
    processor = read_part(PROCESSOR, name, transformers.AutoImageProcessor.from_pretrained, options)

    def head_weights(model: Any) -> tuple[str, str]:
        path, _ = _head(model, name)
        return f"{path}.weight", f"{path}.bias"

    return read_weights(name, _classifier_class(config), config, options, new=head_weights).eval(), processor


def _head(model: Any, name: str) -> tuple[str, nn.Linear]:
    """Returns the path and the layer that computes the logits; :func:`_check_forward` checks that it does."""
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    path, head = layers[-1] if layers else ("", nn.Linear(1, 0))
    if head.out_features != model.config.num_labels or head.bias is None:
        raise _no_head_error(model, name)
    return path, head


def _no_head_error(model: Any, name: str) -> ModelError:
    return ModelError(
        f"{name} ({type(model).__name__}) does not end in one linear layer with bias, so it gets no new head; "
        "choose another backbone"
    )


def _check_forward(model: Any, head: nn.Linear, size: int, name: str) -> frozenset[str]:
    """Runs the model on the output size of its processor; returns the parameters that do not influence the logits."""
    outputs: list[Tensor] = []
    handle = head.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    try:
        logits = model(pixel_values=torch.zeros(2, 3, size, size)).logits
    except Exception as error:  # each architecture has its own
        raise ModelError(
            f"{name} does not take the {size} x {size} images that its image processor makes: {error_summary(error)}; "
            "copy the preprocessor_config.json of the model, or choose another backbone"
        ) from error
    finally:
        handle.remove()
    if len(outputs) != 1 or not _same_memory(_first_token(outputs[0]), logits):
        raise _no_head_error(model, name)
    logits.sum().backward()
    unused = frozenset(key for key, parameter in model.named_parameters() if parameter.grad is None)
    model.zero_grad(set_to_none=True)
    return unused


def _first_token(values: Tensor) -> Tensor:
    """Selects the first token: the head of the ResNets of CLIP gets all tokens."""
    return values[:, 0] if values.ndim == 3 else values


def _same_memory(first: Tensor, second: Tensor) -> bool:
    return (first.data_ptr(), first.shape, first.stride()) == (second.data_ptr(), second.shape, second.stride())


def _fingerprint(model: Any, head: nn.Linear, processor: Any) -> str:
    head_ids = {id(head.weight), id(head.bias)}
    weights = [
        np.ascontiguousarray(value.detach().numpy())
        for _, value in sorted(model.state_dict(keep_vars=True).items())
        if id(value) not in head_ids
    ]
    config = {key: value for key, value in relevant(model.config.to_dict()).items() if key not in _LABEL_ENTRIES}
    return fingerprint(type(model).__name__, config, processor.to_json_string(), *weights)
