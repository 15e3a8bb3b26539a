"""Settings of phase 2. Each is a flag, a TOML key and an entry of `adapt.json` at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from labelsieve.core.errors import SettingsError, setting
from labelsieve.core.validation import (
    BatchSize,
    Bottleneck,
    Epochs,
    LearningRate,
    Momentum,
    Range,
    Rate,
    Share,
    Steps,
    WeightDecay,
    check_fields,
)
from labelsieve.finetune.registry import LossKind, TuneKind
from labelsieve.vlm.peft.registry import PEFT


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Settings of training a classifier on the selection of a scan.

    `RECIPES` has the settings of the paper for five backbones; the defaults are those of labelsieve.

    Attributes:
        labels: What becomes of flagged images: `selected` drops them, `all` keeps them with the given label, `relabel`
            gives them the predicted label (and drops those for which no other label was predicted). Of tags, flagged
            pairs of image and class: `relabel`, the default there, gives and takes tags, `selected` leaves the pairs
            out of the loss, `all` trains on the given tags.
        drop_at: Flagged images whose p_clean is at most this, from 0 to 1, are dropped (or relabelled). A scan of a
            weak model flags what is worth a look, up to a p_clean well above one half; by default those of them stay
            that are more likely right than wrong. 1 drops all that is flagged.
        weighting: Whether `p_clean`, the probability that its label is right, weighs each image.
        class_weights: Whether all classes get the same weight; `balanced` does so however many images the selection
            left of them.
        loss: Cross-entropy (of tags binary, and no other), or a loss that is robust to wrong labels: generalised or
            symmetric cross-entropy, early-learning regularisation, which remembers a target of K numbers for each
            image, or cross-entropy on the images that a mixture of two Gaussians (`gmm`), fitted to all losses before
            each epoch, selects.
        warmup_epochs: Epochs that learn from all images before loss `gmm` begins to select.
        tune: What is trained in addition to the head: everything, nothing (`linear`, quick on cached features), only
            the blocks (`paper`: embeddings and outer layer norms stay), low-rank matrices parallel to the linear
            layers, merged into them at the end (`lora`), all biases (`bitfit`), scales and shifts behind the linear
            layers, merged as well (`ssf`), visual prompts in each block (`vpt-deep`) or the first (`vpt-shallow`), or a
            bottleneck behind each MLP (`adapter`). A standard model has no place for the last three: they are for
            `labelsieve bench`, and for Python without an `out`.
        visual_prompts: L, tokens of `vpt-deep` and `vpt-shallow`.
        bottleneck: Rank of `lora` and width of `adapter`.
        head_init: `probe` starts the head from a linear discriminant on the frozen features, `zeros` from nothing.
        optimizer: `sgd` or `adamw`.
        learning_rate: Of everything but the head, with cosine decay by epoch.
        head_learning_rate: Of the head, with the same decay.
        momentum: Of sgd, from 0 to below 1.
        weight_decay: On everything that is trained.
        epochs: Passes over the data, at least 0; 0 leaves the head as `head_init` made it.
        min_steps: An epoch over small data passes them several times, until all epochs have this many steps.
        batch_size: Images a step, over all processes together. A batch that does not fit into memory passes the
            backbone in parts, unless that has batch normalisation.
        validation: Share of the training part of each class that is held out; the epoch that is best on it is saved.
            With 0 it is the last. The head before all training counts as epoch 0.

    Example:
        >>> import labelsieve as ls
        >>> settings = ls.Adaptation(tune="linear", epochs=5)
        >>> settings.loss, settings.drop_at
        ('ce', 0.5)
    """

    labels: Literal["selected", "all", "relabel"] = "selected"
    drop_at: Share = 0.5
    weighting: Literal["none", "p_clean"] = "none"
    class_weights: Literal["none", "balanced"] = "none"
    loss: LossKind = "ce"
    warmup_epochs: Epochs = 1
    tune: TuneKind = "full"
    visual_prompts: Annotated[int, Range(1, 500)] = 20
    bottleneck: Bottleneck = 8
    head_init: Literal["probe", "zeros"] = "probe"
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: LearningRate = 3e-5
    head_learning_rate: LearningRate = 3e-4
    momentum: Momentum = 0.9
    weight_decay: WeightDecay = 1e-4
    epochs: Epochs = 10
    min_steps: Steps = 300
    batch_size: BatchSize = 64
    validation: Rate = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


DEFAULT_FOR_TAGS: Literal["relabel"] = "relabel"
"""`labels` where images have tags: a pair of image and class that is wrong one way is right the other."""


def check_tag_settings(settings: Adaptation) -> None:
    """Checks that the settings support tags.

    Raises:
        SettingsError: Names the first that does not.
    """
    for name, only in (("loss", "ce"), ("class_weights", "none"), ("weighting", "none")):
        if (value := getattr(settings, name)) != only:
            raise SettingsError(
                f"--{name.replace('_', '-')} {value} is for one label per image, and this run is of labelsieve "
                f"scan-tags; leave it out ({only})"
            )


def check_saves(tune: str) -> None:
    """Checks that the trained model can be saved as a standard model.

    Raises:
        SettingsError: It cannot.
    """
    if tune in PEFT and PEFT.entries[tune].phase_2 == "attached":
        raise SettingsError(
            f"{setting('tune')} {tune} adds to the model what a standard one has no place for, so it cannot be "
            f"saved; use {setting('tune')} lora, ssf or bitfit (Python without an out, and labelsieve "
            "bench, measure it all the same)"
        )


def _paper_recipe(optimizer: Literal["sgd", "adamw"], rate: float, decay: float) -> Adaptation:
    return Adaptation(
        head_init="zeros",
        optimizer=optimizer,
        learning_rate=rate,
        head_learning_rate=rate,
        weight_decay=decay,
        min_steps=0,
    )


RECIPES: dict[str, Adaptation] = {
    "default": Adaptation(),
    # section 4 of the paper: CLIP ViT-B/16, and the other backbones of its comparison
    "paper": _paper_recipe("sgd", 5e-4, 5e-4),
    "paper-resnet": _paper_recipe("adamw", 1e-3, 1e-5),
    "paper-mae": _paper_recipe("adamw", 1e-4, 1e-3),
    "paper-vit": _paper_recipe("sgd", 1e-2, 1e-5),
    "paper-convnext": _paper_recipe("adamw", 1e-4, 1e-4),
}
