"""The parts of an experiment: data sets, noises, methods and a comparison, as in the tables of its file.

The attributes are the keys of the tables, and are checked on creation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.bench.synthetic import SYNTHETIC_SOURCES
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
from labelsieve.data.noise_kinds import NOISE, SHARES, kinds_for
from labelsieve.detect.registry import detector_class
from labelsieve.detect.tags.registry import tag_detector_class
from labelsieve.detect.training.settings import frozen_if_auto
from labelsieve.metrics import DETECTION

BUNDLED = "bundled"
FEATURES = "features"
"""Name of the model of data that are files of features, which need none."""
NO_TEXT = "none"
"""The text regime without class text features."""
SEED = "{seed}"
"""Placeholder of the seed in the name of a label column."""
TRUE_RATE = "true"
"""Placeholder of the true noise rate in the settings of a detector that needs it."""


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
        limit: Number of images of a random subset, which depends on the seed; the number of sketches or scenes.
        image_column: Column of the images.
        label_column: Column of the given labels, or tags.
        truth_column: Column of the true labels, or tags.
        class_names: File of the class names.
        split: Split of a Hub data set.
        test: Source of clean images to evaluate a classifier on; synthetic images have another seed.
        test_split: Split of it; without `test` a split of the source itself, as published data sets have them.
        test_label_column: Its column of labels.
        test_limit: Number of test images of a random subset; the number of sketches or scenes.
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
            if getattr(self, name) == "":  # as a path it would be the working directory
                raise SettingsError(f'expected {name} to say where images lie, got ""')
        for name, value, source in (("limit", self.limit, self.source), ("test_limit", self.test_limit, self.test)):
            if source in SYNTHETIC_SOURCES:
                check_value(name, value, SYNTHETIC_SOURCES[source].limits | None)
        if self.test_split is not None and self.test_source in SYNTHETIC_SOURCES:
            raise SettingsError(f"`{self.test_source}` have no splits; leave test_split out")

    @property
    def is_features(self) -> bool:
        """Whether the source is a file of features; a NumPy file always is, even if it does not exist yet."""
        from labelsieve.data.sources.feature_files import holds_features

        return Path(self.source).suffix.lower() in (".npz", ".npy") or holds_features(self.source)

    @property
    def test_source(self) -> str | None:
        """The source of the test images; None if there are none."""
        return self.source if self.test is None and self.test_split is not None else self.test


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of the labels.

    Attributes:
        kind: `given` uses the given labels. `none` uses the true ones, so that no label is wrong. `column` uses a
            column of a file of features. `file` uses a file from `labelsieve noise`, the same for all seeds. The others
            inject noise into the true labels, or into the given ones if the truth is unknown: see
            :func:`labelsieve.inject`. `tags`, only for task `tags`, removes some tags and adds wrong ones.
        rate: Share of wrong labels, from 0 to below 1; only for kinds that inject noise.
        exact: False draws each image independently, and symmetric noise from all K classes, as usual benchmarks and the
            code of the paper do.
        omit: For kind `tags`: share of the right tags that are removed, from 0 to below 1.
        add: For kind `tags`: share of the tags of the result that are wrong, from 0 to below 1.
        file: For kind `file`: its path.
        column: For kind `column`: its name, in which `{seed}` is replaced by the seed of the cell; without it all seeds
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
        for name in SHARES:
            if getattr(self, name) and name not in self.takes:
                raise SettingsError(f"kind {self.kind} takes no {name}; leave it out")
        if self.for_tags and not any(self.shares.values()):
            raise SettingsError(f"expected {' or '.join(self.takes)} above 0 with kind {self.kind}, found none")
        for name in ("file", "column"):
            if (self.kind == name) != bool(getattr(self, name)):
                raise SettingsError(f'expected {name} = "..." with kind {name} and with no other, got kind {self.kind}')

    @property
    def takes(self) -> tuple[str, ...]:
        """The settings that its kind takes; none if it does not inject noise."""
        return NOISE.entries[self.kind].takes if self.kind in NOISE else ()

    @property
    def shares(self) -> dict[str, Any]:
        """The shares that its kind takes, by name."""
        return {name: getattr(self, name) for name in self.takes if name in SHARES}

    @property
    def injects_noise(self) -> bool:
        """Whether wrong labels are injected at a rate."""
        return self.kind in kinds_for(tags=False)

    @property
    def for_tags(self) -> bool:
        """Whether wrong tags are injected, and right ones removed."""
        return self.kind in kinds_for(tags=True)

    def column_of(self, seed: int) -> str | None:
        """Returns the name of the label column of a seed; None for the other kinds."""
        return None if self.column is None else self.column.replace(SEED, str(seed))


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the tables.

    Attributes:
        detector: Name of a detector, see `labelsieve list`. None for task `detect`: a classifier with a linear head is
            trained on all images, and a mixture of two Gaussians on its losses selects the right labels; then
            `train_on` is `all`, and `adapt` and `backbone` are for the classifier.
        recipe: Settings of deft to start from.
        settings: Settings of the detector. `noise_rate = "true"` is the true rate.
        train_on: For task `adapt`: `all` images, those that the detector `selected`, those with small losses of a
            linear `probe` on the backbone (TURN), or those whose label is the `truth`. `nothing` skips phase 2 and
            evaluates the model that the detector has trained.
        adapt: For task `adapt`: settings of :class:`labelsieve.Adaptation`, and `recipe` to start from. Without effect
            if `train_on` is `nothing`.
        backbone: For task `adapt`: Hub id or folder of the trained model; by default the model of the scan.
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
    def gets_noise_rate(self) -> bool:
        """Whether the detector is given the true noise rate."""
        return self.settings.get("noise_rate") == TRUE_RATE

    @property
    def uses_text(self) -> bool:
        """Whether text features change the scores of the detector, if there is one."""
        return self.detector is not None and detector_class(self.detector).uses_text

    def supports_text(self, text: str) -> bool:
        """Returns whether the detector works in a text regime."""
        return text != NO_TEXT or "text" not in detector_class(self.detector or "").requires

    def make_detector(self, *, noise_rate: float) -> Any:
        """Returns the detector, with the true `noise_rate` if the settings require it.

        Without a setting `peft` the image encoder is frozen: the choice of `auto` depends on the machine, and cells of
        different machines have to be comparable.
        """
        from labelsieve.detect.deft.detector import RECIPES, DeFT

        kind = detector_class(self.detector or "")
        check_keys(self.settings, field_names(kind), what=f"detector {self.detector}")
        settings = dict(self.settings)
        if self.gets_noise_rate:
            settings["noise_rate"] = noise_rate
        recipe = look_up(RECIPES, self.recipe, what="recipe")
        if kind is not DeFT and self.recipe != "default":
            raise SettingsError(f"recipe goes with detector deft only, got {self.detector}; leave it out")
        detector = replace(recipe, **settings) if kind is DeFT else kind(**settings)
        return detector if "peft" in settings else frozen_if_auto(detector)

    def make_tag_detector(self) -> Any:
        """Returns the detector of tags, for images with several labels."""
        kind = tag_detector_class(self.detector or "")
        check_keys(self.settings, field_names(kind), what=f"detector {self.detector}")
        return kind(**self.settings)


@dataclass(frozen=True, kw_only=True)
class Against:
    """Comparison of one method with the best of all others that are not given the noise rate.

    Attributes:
        method: Name of the method.
        within: Metric to the maximum difference below the best other method that counts as a tie, from 0 to 1.
        rate_within: Maximum error of an estimated noise rate, from 0 to 1.
    """

    method: str
    within: Mapping[str, Any] = field(default_factory=lambda: {"issue_f1": 0.005, "auroc": 0.002})
    rate_within: Share = 0.06

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in self.within.items():
            look_up(DETECTION, name, what="a metric in within")
            check_value(f"within.{name}", value, Share)
