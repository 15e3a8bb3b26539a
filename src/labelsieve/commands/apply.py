"""`labelsieve apply`: write corrected labels in the format of the data set."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import Positional, arg

from labelsieve.commands.base import Command, Flag, MarkOption, OptionalText, names_or_file, review_files
from labelsieve.commands.output_checks import check_not_input
from labelsieve.commands.run_data import load_origin, origin_of
from labelsieve.core.errors import RunError, UsageError, listed
from labelsieve.core.files import quoted
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.review.changes import Change
    from labelsieve.verdicts import Verdicts

_OptionalPath = Annotated[Path | None, arg(metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class Apply(Command):
    """Writes a data set with the labels that reviewers corrected, in its own format.

    Class folders, CSV, Parquet and Arrow files and folders of `save_to_disk` keep their format and all their content
    except the labels. An image of none of the classes is left out, and so is one whose label is wrong if the right
    label is not known. All changes are listed in a CSV file beside the result.

    Attributes:
        run_folder: Folder of a reviewed run or, with --changes, the data set: what SOURCE of `labelsieve scan` may be.
        out: File or folder to write; it must not exist.
        in_place: Change the data set itself; the original is kept beside it as a backup.
        changes: A list of changes that `labelsieve apply` has written, to make them on another copy of the data set.
        marks: CSVs of marks that were downloaded from the report, beside the answers of `labelsieve review`.
        copy: Copy the images of a folder instead of linking to them.
        source: Where the images of the run lie now, if not where the run found them.
        image_column: With --changes: see `labelsieve scan`.
        image_folder: With --changes: see `labelsieve scan`.
        label_column: With --changes: see `labelsieve scan`.
        class_names: With --changes: see `labelsieve scan`.
        split: With --changes: see `labelsieve scan`.
    """

    run_folder: Annotated[Positional[str], arg(metavar="RUN|SOURCE")]
    out: _OptionalPath = None
    in_place: Flag = False
    changes: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    marks: MarkOption = ()
    copy: Flag = False
    source: OptionalText = None
    image_column: OptionalText = None
    image_folder: Annotated[Path | None, arg(metavar="FOLDER")] = None
    label_column: OptionalText = None
    class_names: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    split: OptionalText = None

    def run(self, console: Console) -> None:
        """Determines the changes, and writes the list of changes and the data set."""
        from labelsieve.review.apply import apply, check_target
        from labelsieve.review.changes import change_labels

        self._check_options()
        progress = Progress(console)
        options = self._options()
        check_target(options["source"], self.out)
        images = self._images(options, progress)
        changes = self._changes(images, progress)
        where = "the reviews" if self.changes is None else str(self.changes)
        corrected = change_labels(changes, images, where=where)
        progress.say_notes(corrected.notes)
        if self.in_place and not (corrected.changed or corrected.left_out):
            progress.say(f"nothing to change in {options['source']}")
            return
        list_path = self._write_list(changes, options)
        try:
            applied = apply(images, corrected.labels, options=options, out=self.out, copy=self.copy, progress=progress)
        except BaseException:
            if list_path is not None:
                list_path.unlink(missing_ok=True)
            raise
        progress.say_notes(applied.notes)
        left_out = f", {counted(corrected.left_out, 'image', 'images')} left out" if corrected.left_out else ""
        progress.say(f"wrote {applied.path}: {counted(corrected.changed, 'label', 'labels')} corrected{left_out}")
        if list_path is not None:
            progress.say(f"wrote {list_path}: the list of changes")
        if applied.backups:
            progress.say(f"what was there before is {_named(applied.backups)}")
        if self.changes is None:
            self._say_next_step(applied.path, progress)

    def _say_next_step(self, corrected: Path, progress: Progress) -> None:
        """Says how to scan the corrected data, if the answers are in the run, where a scan can read them."""
        from labelsieve.core.output_folders import next_runs
        from labelsieve.review.log import LOG

        run = Path(self.run_folder)
        if not (run / LOG).is_file():
            return
        out = next(each for each in next_runs(run) if not each.exists())
        words = ["scan", str(corrected), "--reviewed", str(run), *scan_options(self._verdicts, corrected)]
        progress.say(
            "to look for what is still wrong, with the answers known (without them the estimate would be too low, as "
            f"the most suspicious labels are corrected): labelsieve {shlex.join([*words, '--out', str(out)])}"
        )

    def _check_options(self) -> None:
        if (self.out is None) != self.in_place:
            raise UsageError("expected either --out PATH or --in-place; give one of both")
        of_source = (self.image_column, self.image_folder, self.label_column, self.split, *self.class_names)
        if self.changes is None and any(of_source):
            raise UsageError("a run knows how its data are read; leave out the options of the source")
        if self.changes is not None and (self.marks or self.source is not None):
            raise UsageError("--marks and --source go with a run, not with --changes; leave them out")

    @cached_property
    def _verdicts(self) -> Verdicts:
        from labelsieve.verdicts import Verdicts

        return Verdicts.load(self.run_folder)

    def _options(self) -> dict[str, Any]:
        """Returns the arguments to load the complete data set, of which a run may have scanned a subset."""
        from labelsieve.data.loading import without_subset

        if self.changes is None:
            if not Path(self.run_folder).is_dir():
                raise RunError(
                    f"expected the folder of a run, got {self.run_folder}; with a data set add --changes FILE"
                )
            origin = origin_of(self._verdicts, source=self.source)
            if self.out is not None:
                check_not_input(self.out, run=Path(self.run_folder), source=origin["source"])
            return without_subset(origin)
        options = {
            "source": self.run_folder,
            "image_column": self.image_column,
            "image_folder": None if self.image_folder is None else str(self.image_folder),
            "label_column": self.label_column,
            "class_names": names_or_file(self.class_names),
            "split": self.split,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _changes(self, images: LabelledImages, progress: Progress) -> Sequence[Change]:
        from labelsieve.review.changes import changes_of, read_changes
        from labelsieve.review.row_reviews import reviews_of, undecided_flags

        if self.changes is not None:
            return read_changes(self.changes)
        run = Path(self.run_folder)
        files = review_files(run, self.marks)
        reviews = None if files is None else reviews_of(files, self._verdicts, images=images, progress=progress)
        if not reviews:
            raise RunError(f"{run} has no reviews yet; make some with: labelsieve review {quoted(run)}")
        if undecided := undecided_flags(self._verdicts, reviews, images):
            labels = counted(undecided, "flagged label has", "flagged labels have")
            stays = "stays as it is" if undecided == 1 else "stay as they are"
            command = f"labelsieve review {quoted(run)}"
            progress.say(f"note: {labels} no answer that decides, and {stays}; answer with: {command}")
        return changes_of(reviews, images)

    def _write_list(self, changes: Sequence[Change], options: dict[str, Any]) -> Path | None:
        """Writes the list of changes beside the result, unless the list was passed."""
        from labelsieve.data.sources.file_kinds import CHANGES
        from labelsieve.data.sources.readers import find_source
        from labelsieve.review.changes import write_changes
        from labelsieve.review.writers.backups import free_name

        if self.changes is not None:
            return None
        target = self.out or find_source(options["source"], split=options.get("split")).path
        path = free_name(target, CHANGES)
        write_changes(path, changes)
        return path

    def _images(self, options: dict[str, Any], progress: Progress) -> LabelledImages:
        from labelsieve.data.loading import load_images
        from labelsieve.data.sources.feature_files import holds_features

        if holds_features(options["source"]):
            raise RunError("features have no file of labels that could be written again; use: labelsieve export RUN")
        if self.changes is not None:
            return load_images(**options, progress=progress)
        images: Any = load_origin(options, progress=progress)
        return images  # type: ignore[no-any-return]  # no features, as was checked


def scan_options(verdicts: Verdicts, corrected: Path) -> list[str]:
    """Returns the options of `labelsieve scan` that read corrected data, and score them, as the run did its data.

    Args:
        verdicts: The run.
        corrected: The corrected data, in the form that the data came in.
    """
    from labelsieve.detect.deft.detector import RECIPES
    from labelsieve.detect.registry import DEFAULT, detector_class

    run = verdicts.run
    origin, options = dict[str, Any](verdicts.record.get("origin") or {}), list[str]()
    source = Path(str(origin.get("source", "")))
    if source.is_file() and corrected.is_file() and corrected.resolve().parent != source.parent:
        origin.setdefault("image_folder", str(source.parent))  # paths in a table are relative to its folder
    for name in ("image_column", "image_folder", "label_column", "class_names", "split", "box_margin"):
        if (value := origin.get(name)) is not None:
            values = [value] if isinstance(value, str | int | float) else value
            options += [f"--{name.replace('_', '-')}", *map(str, values)]
    if run.model.name:
        options += ["--model", run.model.name]
    detector, recipe = run.detector.name or DEFAULT, run.detector.recipe or "default"
    options += ["--detector", detector] if detector != DEFAULT else []
    options += ["--recipe", recipe] if recipe != "default" else []
    usual = dataclasses.asdict(RECIPES[recipe] if detector == "deft" else detector_class(detector)())
    for name, value in (run.detector.settings or {}).items():
        option = name.replace("_", "-")
        if isinstance(value, bool) and value != usual.get(name):
            options.append(f"--{option}" if value else f"--no-{option}")
        elif value != usual.get(name):
            options += [f"--{option}", str(value)]
    options += ["--seed", str(run.seed)] if run.seed else []
    options += ["--image-defects"] if run.image_defects else []
    options += ["--false-flags", f"{run.rule.false_flags:g}"] if run.rule.false_flags is not None else []
    return options


def _named(backups: Sequence[Path]) -> str:
    """Returns a text that names a backup, or the folder of several and the first of them."""
    if len(backups) == 1:
        return str(backups[0])
    folder = os.path.commonpath([path.parent for path in backups])
    return f"in {folder}: {listed([os.path.relpath(path, folder) for path in backups])}"
