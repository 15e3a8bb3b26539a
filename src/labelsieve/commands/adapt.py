"""`labelsieve adapt`: train a classifier on the clean part of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, arg

from labelsieve.commands.base import (
    MarkOption,
    OptionalText,
    RunFolder,
    RunOptions,
    TagSource,
    TestSet,
    mark_files,
    review_files,
    source_of_options,
)
from labelsieve.commands.output_checks import check_outside_source
from labelsieve.commands.parsing import last_value, read
from labelsieve.commands.run_data import images_of, is_tag_run, source_of, tagged_images_of
from labelsieve.core.errors import SettingsError, UsageError, look_up, options_in_messages
from labelsieve.core.progress import Progress, is_main_process
from labelsieve.finetune.settings import DEFAULT_FOR_TAGS, RECIPES, Adaptation, check_saves, check_tag_settings

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.tags.records import TaggedImages

_RECIPES = "{" + ",".join(RECIPES) + "}"


@dataclass(frozen=True, kw_only=True)
class AdaptTestSet(TestSet):
    """Images with right labels (for a run of scan-tags: right tags), and which columns to read.

    Attributes:
        test_tag_column: For a run of scan-tags: column of their tags, or several columns of 0 and 1. Guessed if only
            one fits.
        test_separator: For a run of scan-tags: the separator between two tags of a text.
    """

    test_tag_column: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    test_separator: Annotated[str | None, arg(metavar="MARK")] = None

    def load(self, *, seed: int, progress: Progress) -> LabelledImages | None:
        """Loads test images with one label each; None without a test set.

        Raises:
            SettingsError: There are options of tags, or options but no source.
        """
        if self.test_tag_column or self.test_separator:
            raise SettingsError("--test-tag-column and --test-separator go with a run of scan-tags; leave them out")
        return super().load(seed=seed, progress=progress)

    def load_tags(self, *, seed: int, progress: Progress) -> TaggedImages | None:
        """Loads test images with tags; None without a test set.

        Raises:
            SettingsError: There is an option of labels, or options but no source.
        """
        if self.test_label_column is not None:
            raise SettingsError("--test-label-column goes with one label per image; name tags with --test-tag-column")
        if (test := self.given_source()) is None:
            return None
        with options_in_messages("test_"):
            return source_of_options(TagSource, test, self, prefix="test_").load(seed=seed, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Adapt(RunOptions):
    """Trains a standard image classifier on the clean part of a run, and writes it as a transformers model.

    Flagged images whose label is more likely right than wrong are kept, too (--drop-at). For a run of scan-tags, it
    trains on all images, with tags corrected by the verdicts (--labels relabel).

    Training starts from the pre-trained weights. The folder can be loaded with AutoModelForImageClassification and
    pipeline("image-classification").

    Attributes:
        run_folder: Folder of the run.
        out: Folder of the model to write.
        backbone: Hub id or folder of any image model of transformers, or what --model of scan takes; by default the
            model of the run.
        recipe: Settings to start from; those of the paper are for five backbones, `paper` for CLIP.
        marks: CSVs of marks that were downloaded from the report, beside the answers of `labelsieve review` in the run
            folder, which always count; a review counts more than a verdict, and a later CSV more than an earlier one.
        test_set: Images to test the classifier on.
        source: Where the images of the run lie now, if not where the run found them.
        settings: How to train.
    """

    run_folder: RunFolder
    out: Annotated[Path, arg(metavar="MODEL")]
    backbone: OptionalText = None
    recipe: Annotated[str, arg(metavar=_RECIPES)] = "default"
    marks: MarkOption = ()
    test_set: OmitArgPrefixes[AdaptTestSet] = field(default_factory=AdaptTestSet)
    source: OptionalText = None
    settings: OmitArgPrefixes[Adaptation]

    @classmethod
    def parse(cls, args: Sequence[str], *, prog: str) -> Self:
        """Parses the arguments in two stages: the recipe first, since it determines the defaults."""
        recipe = last_value(args, "--recipe", default="default")
        settings = look_up(RECIPES, recipe, what="--recipe", error=UsageError)
        default = cls(run_folder=tyro.MISSING, out=tyro.MISSING, recipe=recipe, settings=settings)
        command = read(cls, args, prog=prog, default=default)
        if last_value(args, "--labels", default="") or not is_tag_run(command.run_folder):
            return command
        return replace(command, settings=replace(command.settings, labels=DEFAULT_FOR_TAGS))

    def run(self, console: Console) -> None:
        """Loads the data, trains and evaluates the classifier, and writes it."""
        from labelsieve.core.output_folders import exclusive_folder
        from labelsieve.finetune.run import check_model_folder
        from labelsieve.tags.verdicts import TagVerdicts
        from labelsieve.verdicts import Verdicts

        check_saves(self.settings.tune)
        has_tags = is_tag_run(self.run_folder)
        verdicts = TagVerdicts.load(self.run_folder) if has_tags else Verdicts.load(self.run_folder)
        if has_tags:
            check_tag_settings(self.settings)  # before anything is loaded
        check_outside_source(source_of(verdicts, self.source), self.out)
        with exclusive_folder(self.out):
            check_model_folder(self.out, overwrite=self.overwrite, resume=self.resume)  # before minutes of loading
            self._adapt(verdicts, console)

    def _adapt(self, verdicts: Any, console: Console) -> None:
        from labelsieve.finetune.run import adapt
        from labelsieve.finetune.terminal import summarize
        from labelsieve.tags.verdicts import TagVerdicts

        progress = Progress(console if is_main_process() else None)
        has_tags = isinstance(verdicts, TagVerdicts)
        images = (tagged_images_of if has_tags else images_of)(verdicts, source=self.source, progress=progress)
        test = (self.test_set.load_tags if has_tags else self.test_set.load)(seed=self.seed, progress=progress)
        progress.say(f"adapting {self.backbone or verdicts.run.model.name}")
        adapted = adapt(
            images,
            verdicts,
            backbone=self.backbone,
            settings=self.settings,
            marks=mark_files(self.marks) if has_tags else review_files(self.run_folder, self.marks),
            test=test,
            **self.run_options(),
            progress=progress,
        )
        if is_main_process():
            summarize(adapted, self.out, console)
