"""`labelsieve adapt`: train a classifier on what a scan left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, arg

from labelsieve.commands.base import (
    MarkOption,
    OptionalText,
    RunFolder,
    RunOptions,
    TestSet,
    refuse_inside,
    review_files,
)
from labelsieve.commands.reading import read
from labelsieve.commands.runs import images_of
from labelsieve.commands.scan import asked
from labelsieve.core.errors import UsageError, look_up
from labelsieve.core.progress import Progress, is_main_process
from labelsieve.finetune.settings import RECIPES, Adaptation, check_saves

_RECIPES = "{" + ",".join(RECIPES) + "}"


@dataclass(frozen=True, kw_only=True)
class Adapt(RunOptions):
    """Trains a standard image classifier on the clean part of a run, and writes it as a transformers model.

    Flagged images that are more likely right than wrong are kept, too (--drop-at).

    It starts from the pre-trained weights again. The folder loads with AutoModelForImageClassification and
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
    test_set: OmitArgPrefixes[TestSet] = field(default_factory=TestSet)
    source: OptionalText = None
    settings: OmitArgPrefixes[Adaptation]

    @classmethod
    def parse(cls, args: Sequence[str], *, prog: str) -> Self:
        """Reads the words in two stages: the recipe first, since it says what the defaults are."""
        recipe = asked(args, "--recipe", default="default")
        settings = look_up(RECIPES, recipe, what="--recipe", error=UsageError)
        default = cls(run_folder=tyro.MISSING, out=tyro.MISSING, recipe=recipe, settings=settings)
        return read(cls, args, prog=prog, default=default)

    def run(self, console: Console) -> None:
        """Loads, trains, measures, writes."""
        from labelsieve.core.folders import alone_in
        from labelsieve.finetune.run import check_model_folder
        from labelsieve.verdicts import Verdicts

        check_saves(self.settings.tune)
        verdicts = Verdicts.load(self.run_folder)
        refuse_inside(self.source or verdicts.run.origin.source, self.out)
        with alone_in(self.out):
            check_model_folder(self.out, overwrite=self.overwrite, resume=self.resume)  # before minutes of loading
            self._adapt(verdicts, console)

    def _adapt(self, verdicts: Any, console: Console) -> None:
        from labelsieve.finetune.run import adapt
        from labelsieve.finetune.terminal import summarize

        progress = Progress(console if is_main_process() else None)
        images = images_of(verdicts, source=self.source, progress=progress)
        test = self.test_set.load(seed=self.seed, progress=progress)
        progress.say(f"adapting {self.backbone or verdicts.run.model.name}")
        adapted = adapt(
            images,
            verdicts,
            backbone=self.backbone,
            settings=self.settings,
            marks=review_files(self.run_folder, self.marks),
            test=test,
            **self.run_options(),
            progress=progress,
        )
        if is_main_process():
            summarize(adapted, self.out, console)
