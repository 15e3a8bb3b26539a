"""Base classes of the verbs: the command, and the options that name the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from labelsieve.commands.parsing import read
from labelsieve.core.errors import SettingsError, UsageError, listed, options_in_messages, setting
from labelsieve.core.validation import Limit, Seed, check_ranges
from labelsieve.data.boxes import BoxMargin

if TYPE_CHECKING:
    from labelsieve.core.progress import Progress
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.vlm.base import VisionLanguageModel

Flag = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
"""A switch that is off by default: `--resume`, without a `--no-resume`."""
OptionalText = Annotated[str | None, arg(metavar="NAME")]
RunFolder = Annotated[Positional[Path], arg(metavar="RUN")]
# the option may be repeated, with several files each time
MarkOption = Annotated[UseAppendAction[tuple[tuple[Path, ...], ...]], arg(metavar="FILE ...")]
"""CSVs of marks or logs of answers: `--marks a.csv b.csv`, or `--marks a.csv --marks b.csv`."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One verb with its options.

    Attributes:
        resume_flags: Arguments that resume a stopped command; None if it cannot be resumed.
        settings_are_options: Whether settings are options, as messages then call them; else they are in a file.
    """

    resume_flags: ClassVar[tuple[str, ...] | None] = None
    settings_are_options: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def parse(cls, args: Sequence[str], *, prog: str) -> Self:
        """Parses the arguments after the verb.

        Raises:
            SystemExit: They request help.
            UsageError: They are invalid.
        """
        return read(cls, args, prog=prog)

    def run(self, console: Console) -> None:
        """Runs the command.

        Raises:
            LabelsieveError: The user can fix it.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class RunOptions(Command):
    """Options of all verbs that compute for long and write a folder.

    Attributes:
        out: Folder to write.
        device: Where to compute: auto, cpu, cuda or mps.
        precision: auto is bf16 where the hardware is faster with it.
        seed: Seed of all random choices.
        resume: Continue from the checkpoint of an interrupted run.
        overwrite: Replace existing results.
    """

    resume_flags = ("--resume",)

    out: Path
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Seed = 0
    resume: Flag = False
    overwrite: Flag = False

    def run_options(self) -> dict[str, Any]:
        """Returns these options as arguments of `scan` and `adapt`."""
        return {each.name: getattr(self, each.name) for each in fields(RunOptions)}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the images lie, and which columns to read.

    Attributes:
        source: A folder of class folders; a CSV, Parquet or Arrow file, or several by their folder or a quoted
            pattern; a saved data set; boxes, each as an image (COCO, YOLO, Pascal VOC, Open Images); a published data
            set as NAME:PATH (`labelsieve list`); or a Hub id.
        image_column: Column of the images or their paths. Guessed where only one fits.
        image_folder: Folder of the images that a table names, with or without their suffix.
        label_column: Column of the given labels, or one for each annotator. Guessed where only one fits.
        class_names: A file of the class names (one a line, or a JSON list), or several names. As many as there are
            class folders rename these, in their order.
        split: Split of a published or Hub data set or a table in several files; by default the only one, else train.
        limit: Take a random subset of this many images.
        box_margin: For boxes: the margin around each box, as a share of its sides.
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    image_column: OptionalText = None
    image_folder: Annotated[Path | None, arg(metavar="FOLDER")] = None
    label_column: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    class_names: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    split: OptionalText = None
    limit: Annotated[Limit, arg(metavar="N")] = None
    box_margin: Annotated[BoxMargin | None, arg(help_behavior_hint="(default: 10%)")] = None

    def __post_init__(self) -> None:
        check_ranges(self)

    def load(
        self,
        *,
        seed: int,
        progress: Progress,
        truth_column: str | None = None,
        noise: Path | None = None,
        one_class: bool = False,
    ) -> LabelledImages:
        """Loads the images.

        Args:
            seed: Seed of the subset, if there is a limit.
            progress: Receives progress.
            truth_column: Column of the true labels, for metrics only.
            noise: A file of wrong labels for these images; their own labels become the truth.
            one_class: Whether a single class is allowed.
        """
        from labelsieve.data.loading import load_images

        options = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "source"}
        options |= {"label_column": self.label_column or None, "class_names": names_or_file(self.class_names)}
        options |= {"truth_column": truth_column, "noise": noise, "one_class": one_class}
        return load_images(self.source, **options, seed=seed, progress=progress)

    def feature_options(self) -> dict[str, Any]:
        """Returns the options that also apply to precomputed features.

        Raises:
            UsageError: Another option is set.
        """
        of_images = ("image_column", "image_folder", "split", "box_margin")
        if unsupported := [setting(name) for name in of_images if getattr(self, name) is not None]:
            raise UsageError(f"features come without {listed(unsupported)}; leave it out")
        return {
            "label_column": self.label_column or None,
            "class_names": names_or_file(self.class_names),
            "limit": self.limit,
        }


@dataclass(frozen=True, kw_only=True)
class TagSource:
    """Where images with several labels each lie, and which columns to read.

    Attributes:
        source: A CSV, Parquet or Arrow file, or several by their folder or a quoted pattern; a saved data set; a COCO
            file; YOLO, VOC or Open Images; a folder of class folders with links or copies; or a Hub id.
        tag_column: Column of lists, or of texts such as cat;dog; or several columns of 0 and 1, one a class. Guessed
            where only one fits.
        separator: Separator between two tags of a text. Guessed if it is clearly |, ; or , alone.
        image_column: Column of the images or their paths. Guessed where only one fits.
        image_folder: Folder of the images that a table names, with or without their suffix.
        class_names: A file of the class names (one a line, or a JSON list), or several names.
        split: Split of a Hub data set or a table in several files; by default the only one, else train.
        limit: Take a random subset of this many images.
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    tag_column: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    separator: Annotated[str | None, arg(metavar="MARK")] = None
    image_column: OptionalText = None
    image_folder: Annotated[Path | None, arg(metavar="FOLDER")] = None
    class_names: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    split: OptionalText = None
    limit: Annotated[Limit, arg(metavar="N")] = None

    def __post_init__(self) -> None:
        check_ranges(self)

    def load(
        self, *, seed: int, progress: Progress, truth_column: str | None = None, noise: Path | None = None
    ) -> TaggedImages:
        """Loads the images.

        Args:
            seed: Seed of the subset, if there is a limit.
            progress: Receives progress.
            truth_column: Column of the true tags, for metrics only.
            noise: A file of wrong tags for these images; their own tags become the truth.
        """
        from labelsieve.data.tags.loading import load_tags

        options = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "source"}
        options |= {"tag_column": self.tag_column or None, "class_names": names_or_file(self.class_names)}
        return load_tags(self.source, **options, truth_column=truth_column, seed=seed, noise=noise, progress=progress)


_SourceT = TypeVar("_SourceT", Source, TagSource)


def source_of_options(kind: type[_SourceT], source: str, options: Any, *, prefix: str = "") -> _SourceT:
    """Creates a source with those of its fields that other options have under names with a prefix.

    Args:
        kind: The class of the source.
        source: Where the images lie.
        options: A dataclass of options. Its label column is one name or None.
        prefix: With `test_`, the value of `test_split` becomes `split`.
    """
    given = {each.name for each in fields(options)}
    names = [each.name for each in fields(kind) if each.name != "source" and prefix + each.name in given]
    values = {name: getattr(options, prefix + name) for name in names}
    if "label_column" in values:
        values["label_column"] = () if values["label_column"] is None else (values["label_column"],)
    return kind(source=source, **values)


def names_or_file(words: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """Returns class names, or their file if there is one word: a data set has at least two classes."""
    if len(words) == 1:
        return words[0]
    return words or None


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Images with right labels, and which columns to read.

    Attributes:
        test: Images with right labels, to measure accuracy with; they are not used to choose anything.
        test_image_column: Column of their images. Guessed where only one fits.
        test_image_folder: Folder of the images that a table names, with or without their suffix.
        test_label_column: Column of their labels. Guessed where only one fits.
        test_class_names: Their class names, where their labels are numbers: a file, or several names.
        test_split: Their split of a published or Hub data set.
    """

    test: Annotated[str | None, arg(metavar="SOURCE")] = None
    test_image_column: OptionalText = None
    test_image_folder: Annotated[Path | None, arg(metavar="FOLDER")] = None
    test_label_column: OptionalText = None
    test_class_names: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    test_split: OptionalText = None

    def given_source(self) -> str | None:
        """Returns the source; None without a test set.

        Raises:
            SettingsError: There are further options, but no source.
        """
        if self.test is None and any(getattr(self, each.name) for each in fields(self)):
            raise SettingsError("the options of the test set go with --test SOURCE only; add it or leave them out")
        return self.test

    def load(self, *, seed: int, progress: Progress) -> LabelledImages | None:
        """Loads the test images; None without a test set.

        Raises:
            SettingsError: There are options of them, but no source.
        """
        if (test := self.given_source()) is None:
            return None
        with options_in_messages("test_"):
            return source_of_options(Source, test, self, prefix="test_").load(seed=seed, progress=progress)


def review_files(run: Path, option: tuple[tuple[Path, ...], ...]) -> list[Path] | None:
    """Returns the log of answers of a run, if there is one, and the files of a `MarkOption`; None if there are none."""
    from labelsieve.review.log import LOG

    log = [run / LOG] if (run / LOG).is_file() else []
    return [*log, *(mark_files(option) or ())] or None


def mark_files(option: tuple[tuple[Path, ...], ...]) -> list[Path] | None:
    """Returns the files of a `MarkOption`; None if there are none."""
    return [path for paths in option for path in paths] or None


@dataclass(frozen=True, kw_only=True)
class OtherSplit:
    """Images of another split to compare with, and which columns to read.

    Attributes:
        against: Images of another split, only for comparison: copies of them in the data are leaks. Their labels are
            not used, and a folder needs no class folders. For features: features of the same model.
        against_image_column: Column of their images. Guessed where only one fits.
        against_image_folder: Folder of the images that a table names, with or without their suffix.
        against_label_column: Column of their labels. Guessed where only one fits.
        against_split: Their split of a published or Hub data set.
    """

    against: Annotated[str | None, arg(metavar="SOURCE")] = None
    against_image_column: OptionalText = None
    against_image_folder: Annotated[Path | None, arg(metavar="FOLDER")] = None
    against_label_column: OptionalText = None
    against_split: OptionalText = None

    def load(self, *, seed: int, progress: Progress) -> LabelledImages | LabelledFeatures | None:
        """Loads the images; None without another split.

        Raises:
            SettingsError: There are options of them, but no source.
        """
        from labelsieve.data.features import load_features
        from labelsieve.data.sources.feature_files import holds_features

        if self.against is None:
            if any(getattr(self, each.name) for each in fields(self)):
                raise SettingsError("the options --against-... go with --against SOURCE only; add it or leave them out")
            return None
        source = source_of_options(Source, self.against, self, prefix="against_")
        with options_in_messages("against_"):
            if holds_features(self.against):
                return load_features(self.against, **source.feature_options(), seed=seed, one_class=True)
            return source.load(seed=seed, progress=progress, one_class=True)  # their labels do not matter


def load_model(name: str, progress: Progress) -> VisionLanguageModel:
    """Loads a model, with a message, since it may take a while."""
    from labelsieve.vlm.loading import load_vlm

    first_time = "" if Path(name).is_dir() else "; the first time it is downloaded"
    progress.say(f"loading {name}{first_time}")
    return load_vlm(name)
