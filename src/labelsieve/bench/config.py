"""The parts of an experiment: data sets, noises, methods and a comparison, as the tables of its file hold them.

What each key means stands at the attributes; everything is checked when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.bench.synthetic import DRAWN
from labelsieve.core.errors import SettingsError, look_up
from labelsieve.core.validation import (
    Limit,
    Rate,
    Share,
    check_fields,
    check_keys,
    check_value,
    field_names,
)
from labelsieve.data.noise_kinds import NOISE, kinds_for
from labelsieve.detect.registry import detector_class
from labelsieve.detect.tags.registry import tag_detector_class
from labelsieve.detect.training.settings import frozen_if_auto
from labelsieve.metrics import DETECTION

BUNDLED = "bundled"
FEATURES = "features"
"""Stands for the model where there is none: data that are files of features need none."""
NO_TEXT = "none"
"""The text regime without class text features."""
SEED = "{seed}"
"""Stands for the seed in the name of a label column."""
TRUE_RATE = "true"
"""Stands for the true noise rate in the settings of a detector that needs it."""


if TYPE_CHECKING:
    LabelKind = str
else:
    LabelKind = Literal[("given", "none", "column", "file", *NOISE)]


@dataclass(frozen=True, kw_only=True)
class Data:
    """One data set.

    Attributes:
        source: What :func:`labelsieve.load_images` takes; or `drawings` for the sketches of the demonstration,
            `scenes` for boxes in scenes of several sketches, `scene-shapes` for the same shapes as single images,
            `scene-tags` for the classes in each scene as its tags; or a file of features, see
            :func:`labelsieve.load_features`. For task `tags` what :func:`labelsieve.load_tags` takes.
        limit: Random subset of so many images, another one for each seed; the number of sketches or scenes.
        image_column: Column of the images.
        label_column: Column of the given labels, or tags.
        truth_column: Column of the true labels, or tags.
        class_names: File of the class names.
        split: Split of a Hub data set.
        test: Source of clean images to measure a classifier on; what is drawn has another seed then.
        test_split: Split of it; without `test` a split of the source itself, as published data sets have them.
        test_label_column: Its column of labels.
        test_limit: Random subset of so many test images; the number of sketches or scenes.
    """

    source: str
    limit: Limit = None
    image_column: str | None = None
    label_column: str | None = None
    truth_column: str | None = None
    class_names: str | None = None
    split: str | None = None
    test: str | None = None
    test_split: str | None = None
    test_label_column: str | None = None
    test_limit: Limit = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("source", "test"):
            if getattr(self, name) == "":  # which as a path would be the folder that the command runs in
                raise SettingsError(f'expected {name} to say where images lie, got ""')
        for name, value, source in (("limit", self.limit, self.source), ("test_limit", self.test_limit, self.test)):
            if source in DRAWN:
                check_value(name, value, DRAWN[source].limits | None)
        if self.test_split is not None and self.test_source in DRAWN:
            raise SettingsError(f"`{self.test_source}` have no splits; leave test_split out")

    @property
    def is_features(self) -> bool:
        """Whether the source is a file of features; a NumPy file is one even before it is there."""
        from labelsieve.data.sources.feature_files import holds_features

        return Path(self.source).suffix.lower() in (".npz", ".npy") or holds_features(self.source)

    @property
    def test_source(self) -> str | None:
        """Where the test images lie; None where there are none."""
        return self.source if self.test is None and self.test_split is not None else self.test


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is done to the labels.

    Attributes:
        kind: `given` leaves them as they come. `none` takes the true ones, so that no label is wrong. `column` takes a
            column of a file of features. `file` takes them from a file that `labelsieve noise` wrote, the same for all
            seeds. The others put wrong labels into the true ones, or into the given ones where the truth is not known:
            see :func:`labelsieve.inject`. `tags`, for task `tags` alone, leaves some out and adds wrong ones.
        rate: Share of wrong labels, from 0 to below 1. A file says it for the kinds that put wrong labels in alone.
        exact: False draws each image on its own, and symmetric noise from all K classes, as the usual benchmarks and
            the code of the paper do.
        omit: For kind `tags`: share of the right tags that go, from 0 to below 1.
        add: For kind `tags`: share of the tags of the result that are wrong, from 0 to below 1.
        file: For kind `file`: where it lies.
        column: For kind `column`: its name; `{seed}` in it stands for the seed of the cell, and without it all seeds
            have the same labels.
        data: Names of the data sets that have this noise; all by default.
    """

    kind: LabelKind
    rate: Rate = 0.0
    exact: bool = True
    omit: Rate = 0.0
    add: Rate = 0.0
    file: str | None = None
    column: str | None = None
    data: list[str] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        shares = {name: getattr(self, name) for name in ("rate", "omit", "add")}
        for name, share in shares.items():
            if share and name not in self.takes:
                raise SettingsError(f"kind {self.kind} takes no {name}; leave it out")
        if self.for_tags and not any(shares.values()):
            raise SettingsError(f"expected {' or '.join(self.takes)} above 0 with kind {self.kind}, found none")
        for name in ("file", "column"):
            if (self.kind == name) != bool(getattr(self, name)):
                raise SettingsError(f'expected {name} = "..." with kind {name} and with no other, got kind {self.kind}')

    @property
    def takes(self) -> tuple[str, ...]:
        """What its kind takes; nothing where labels come from elsewhere."""
        return NOISE.entries[self.kind].takes if self.kind in NOISE else ()

    @property
    def puts_in(self) -> bool:
        """Whether wrong labels are put in at a rate."""
        return self.kind in kinds_for(tags=False)

    @property
    def for_tags(self) -> bool:
        """Whether wrong tags are put in, and right ones taken away."""
        return self.kind in kinds_for(tags=True)

    def column_of(self, seed: int) -> str | None:
        """Returns the name of the label column of a seed; None for the other kinds."""
        return None if self.column is None else self.column.replace(SEED, str(seed))


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the tables.

    Attributes:
        detector: Name of a detector, see `labelsieve list`. None for task `detect`: a classifier with a linear head is
            trained on all images, and a mixture of two Gaussians on its losses says which labels are right; `train_on`
            is `all` then, and `adapt` and `backbone` are those of the classifier.
        recipe: Settings of deft to start from.
        settings: Settings of the detector. `noise_rate = "true"` tells the true rate.
        train_on: For task `adapt`: `all` images, those that the detector `selected`, those for which a linear `probe`
            on the backbone has small losses (TURN), or those whose label is the `truth`. `nothing` leaves phase 2 out:
            what the detector itself has trained in phase 1 is tested.
        adapt: For task `adapt`: settings of :class:`labelsieve.Adaptation`, and `recipe` to start from. Without effect
            where `nothing` is trained on.
        backbone: For task `adapt`: Hub id or folder of what is trained; by default the model of the scan.
    """

    detector: str | None = None
    recipe: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    train_on: Literal["all", "selected", "probe", "truth", "nothing"] = "selected"
    adapt: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def knows_rate(self) -> bool:
        """Whether the detector is given the true noise rate."""
        return self.settings.get("noise_rate") == TRUE_RATE

    @property
    def uses_text(self) -> bool:
        """Whether the detector, if there is one, scores otherwise with text features than without."""
        return self.detector is not None and detector_class(self.detector).uses_text

    def works_with(self, text: str) -> bool:
        """Returns whether the detector has what it needs in a text regime."""
        return text != NO_TEXT or "text" not in detector_class(self.detector or "").requires

    def make_detector(self, *, noise_rate: float) -> Any:
        """Returns the detector; `noise_rate`, the true one, is passed where the settings ask for it.

        Where the settings do not say how the image encoder is adapted, it stays frozen: what `auto` chooses depends on
        whether there is an accelerator, and the cells of two machines have to stand side by side.
        """
        from labelsieve.detect.deft.detector import RECIPES, DeFT

        kind = detector_class(self.detector or "")
        check_keys(self.settings, field_names(kind), what=f"detector {self.detector}")
        told = dict(self.settings)
        if self.knows_rate:
            told["noise_rate"] = noise_rate
        recipe = look_up(RECIPES, self.recipe, what="recipe")
        if kind is not DeFT and self.recipe != "default":
            raise SettingsError(f"recipe goes with detector deft only, got {self.detector}; leave it out")
        made = replace(recipe, **told) if kind is DeFT else kind(**told)
        return made if "peft" in told else frozen_if_auto(made)

    def make_pair_detector(self) -> Any:
        """Returns the detector of pairs, for images with several labels."""
        kind = tag_detector_class(self.detector or "")
        check_keys(self.settings, field_names(kind), what=f"detector {self.detector}")
        return kind(**self.settings)


@dataclass(frozen=True, kw_only=True)
class Against:
    """A summary of one method against the best of all others that are not given the noise rate.

    Attributes:
        method: Name of the method.
        within: Metric to how far below the best other method still counts as level with it, from 0 to 1.
        rate_within: How far an estimated noise rate may be from the true one, from 0 to 1.
    """

    method: str
    within: Mapping[str, Any] = field(default_factory=lambda: {"issue_f1": 0.005, "auroc": 0.002})
    rate_within: Share = 0.06

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in self.within.items():
            look_up(DETECTION, name, what="a metric in within")
            check_value(f"within.{name}", value, Share)
