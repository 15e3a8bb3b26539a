"""`labelsieve report` and `labelsieve export`: what is made of a finished run."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import arg

from labelsieve.commands.base import (
    Command,
    Flag,
    MarkOption,
    OptionalText,
    Percentage,
    RunFolder,
    mark_files,
    moved_origin,
    percentage,
    review_files,
)
from labelsieve.commands.own_files import refuse_inside, refuse_own
from labelsieve.commands.tag_runs import export_tags, is_tag_run, refuse_with_tags, write_report_of_tags
from labelsieve.core.errors import DataError, LabelsieveError, RunError, listed, shown
from labelsieve.core.progress import Progress
from labelsieve.core.validation import Share
from labelsieve.records import OriginRecord, check_kinds, kinds_of
from labelsieve.report import MAX_IMAGES, Images, ThumbnailPixels
from labelsieve.report.registry import FORMATS, FormatKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.review.statement import Statement
    from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Writes the report of a finished run again, with more images or after the data moved.

    Attributes:
        run_folder: Folder of the run.
        out: File to write; by default report.html in the folder of the run.
        source: Where the images lie now, if not where the run found them.
        max_images: How many of the most suspicious images to show, at most 20,000.
        thumbnail_px: Longest side of the thumbnails.
        overwrite: Replace a file that is no report, too.
    """

    run_folder: RunFolder
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    source: OptionalText = None
    max_images: Images = MAX_IMAGES
    thumbnail_px: ThumbnailPixels = 256
    overwrite: Flag = False

    def run(self, console: Console) -> None:
        """Reads the run and its images, writes the report."""
        from labelsieve.core.quantities import megabytes
        from labelsieve.report.common import all_flagged
        from labelsieve.report.html import check_free, write_report
        from labelsieve.verdicts import REPORT, Verdicts

        progress = Progress(console)
        if is_tag_run(self.run_folder):
            write_report_of_tags(
                self.run_folder,
                out=self.out or self.run_folder / REPORT,
                source=self.source,
                max_images=self.max_images,
                thumbnail_px=self.thumbnail_px,
                overwrite=self.overwrite,
                progress=progress,
            )
            return
        verdicts = Verdicts.load(self.run_folder)
        out = self.out or self.run_folder / REPORT
        refuse_own(out, run=self.run_folder, source=_source_of(verdicts, self.source), but=REPORT)
        check_free(out, overwrite=self.overwrite)  # before the images are loaded
        data = data_of(verdicts, source=self.source, progress=progress)
        path = write_report(
            verdicts,
            data,
            out,
            audit=self._audited(verdicts, data, progress),
            max_images=self.max_images,
            thumbnail_px=self.thumbnail_px,
            overwrite=self.overwrite,
            progress=progress,
        )
        flagged = int(verdicts.is_issue.sum())
        in_page = min(flagged, self.max_images)
        said = f"wrote {path} ({megabytes(path.stat().st_size)}): {in_page:,} of {flagged:,} flagged images"
        more = all_flagged(verdicts, shown=in_page)
        progress.say(f"{said}; for all: {more}" if more else said)

    def _audited(
        self, verdicts: Verdicts, data: LabelledImages | LabelledFeatures, progress: Progress
    ) -> Statement | None:
        """Returns what the answers in the run folder prove; None where there are none."""
        from labelsieve import review
        from labelsieve.review.audit import statement

        reviews = review.load(self.run_folder, progress=progress)
        return statement(verdicts, reviews, contents=data.contents) if len(reviews) else None


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Writes the verdicts of a finished run for other tools.

    Attributes:
        run_folder: Folder of the run.
        format: One table (csv, parquet), one as cleanlab has it; the clean part as a folder of class folders; all
            images with annotations as label-studio, fiftyone, cvat or coco import them; of boxes their annotation file
            with label quality (annotations); or a card of what was changed.
        out: File or folder to write.
        marks: CSVs of marks that were downloaded from the report, beside the answers of `labelsieve review` in the run
            folder, which always count; a review counts more than a verdict, and a later CSV more than an earlier one.
        drop_at: For imagefolder: of the flagged images, leave out those whose p_clean is at most this. 1 leaves out all
            of them; 0.5 leaves out what `labelsieve adapt` leaves out by default.
        copy: Copy the images of a folder instead of linking to them.
        overwrite: Replace what is there.
        false_flags: A share, such as 10%: flag where the audit says that no more of the flags are false, not where the
            scan did.
        source: Where the images lie now, if not where the run found them.
    """

    run_folder: RunFolder
    format: FormatKind
    out: Path
    marks: MarkOption = ()
    drop_at: Share = 1.0
    copy: Flag = False
    overwrite: Flag = False
    false_flags: Percentage = None
    source: OptionalText = None

    def run(self, console: Console) -> None:
        """Reads the run, and its images where the format holds them, and writes the export."""
        from labelsieve.report.export import export
        from labelsieve.verdicts import Verdicts

        progress = Progress(console)
        if is_tag_run(self.run_folder):
            others = {"--drop-at": self.drop_at != 1, "--copy": self.copy}
            others["--false-flags"] = self.false_flags is not None
            refuse_with_tags(others)
            export_tags(
                self.run_folder,
                out=self.out,
                format=self.format,
                marks=mark_files(self.marks),
                source=self.source,
                overwrite=self.overwrite,
                progress=progress,
            )
            return
        verdicts = Verdicts.load(self.run_folder)
        refuse_own(self.out, run=self.run_folder, source=_source_of(verdicts, self.source))
        if self.false_flags is not None:
            verdicts = self._flagged_again(verdicts, percentage(self.false_flags, "--false-flags"), progress)
        images = self._images(verdicts, progress)
        path = export(
            verdicts,
            images,
            format=self.format,
            out=self.out,
            marks=review_files(self.run_folder, self.marks),
            drop_at=self.drop_at,
            copy=self.copy,
            overwrite=self.overwrite,
            progress=progress,
        )
        left = _what_is_left(verdicts, path) if FORMATS.entries[self.format].is_clean_part else ""
        progress.say(f"wrote {path}{left}")

    def _images(self, verdicts: Verdicts, progress: Progress) -> Any:
        """Loads what the format needs; answers are found by the content of the images, where these can be loaded."""
        from labelsieve.review.log import LOG

        if FORMATS.entries[self.format].needs_images:
            images = images_of(verdicts, source=self.source, progress=progress)
            refuse_inside(images.origin.get("source"), self.out)
            return images
        is_reviewed = (self.run_folder / LOG).is_file()
        return _data_if_there(verdicts, source=self.source, progress=progress) if is_reviewed else None

    def _flagged_again(self, verdicts: Verdicts, false_flags: float, progress: Progress) -> Verdicts:
        from labelsieve import review
        from labelsieve.review.audit import flagged_again

        reviews = review.load(self.run_folder, progress=progress)
        contents = contents_of(verdicts, source=self.source, progress=progress) if len(reviews) else None
        return flagged_again(verdicts, reviews, false_flags=false_flags, contents=contents)


def _what_is_left(verdicts: Verdicts, folder: Path) -> str:
    """Says how much an image folder holds, and which classes lost all images: it has no folder for these."""
    from labelsieve.report.imagefolder import MARKER

    content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    text = f": {content['images']:,} of {len(verdicts):,} images"
    gone = [name for own, name in content["class_of_folder"].items() if not (folder / own).exists()]
    if not gone:
        return text
    return f"{text}; no image is left of {listed(gone)}"


def _source_of(verdicts: Verdicts, source: str | None) -> str | None:
    return source or verdicts.run.origin.source


def images_of(verdicts: Verdicts, *, progress: Progress, source: str | None = None) -> LabelledImages:
    """Loads the images of a run again, from where it found them or from `source`.

    Raises:
        RunError: The run had its images in memory or had none, or they are not the same any more.
        DataError: The images cannot be loaded.
    """
    from labelsieve.data.features import LabelledFeatures

    data = data_of(verdicts, source=source, progress=progress)
    if isinstance(data, LabelledFeatures):
        raise RunError("this run scanned features, which have no images; scan the images for that")
    return data


def data_of(verdicts: Verdicts, *, progress: Progress, source: str | None = None) -> LabelledImages | LabelledFeatures:
    """Loads the images or features of a run again, from where it found them or from `source`.

    Raises:
        RunError: The run had its data in memory, or they are not the same any more.
        DataError: The data cannot be loaded.
    """
    origin = origin_of(verdicts, source=source)
    data = load_origin(origin, progress=progress)
    if data.fingerprint != verdicts.run.data.fingerprint:
        raise RunError(
            f"the images or labels of {origin['source']} changed since the run; scan again, or say with --source where "
            "the old ones are"
        )
    return data


def origin_of(verdicts: Verdicts, *, source: str | None = None) -> dict[str, Any]:
    """Returns what the data of a run are loaded with, from where it found them or from `source`.

    Raises:
        RunError: The run had its data in memory.
    """
    origin: dict[str, Any] = dict(verdicts.record.get("origin") or {})
    if source is not None:
        origin = moved_origin(origin, source)
    if not origin.get("source"):
        raise RunError("the images of this run were in memory; say with --source where they lie")
    return origin


def load_origin(origin: Mapping[str, Any], *, progress: Progress) -> LabelledImages | LabelledFeatures:
    """Loads images or features with what :func:`origin_of` returns; whether they are those of the run is not checked.

    Raises:
        RunError: The run has options that there are not.
        DataError: The data cannot be loaded.
    """
    try:
        return _load(origin, progress)
    except DataError as error:
        raise DataError(f"{error} (--source says where the images of a run lie now)") from error


def _load(origin: Mapping[str, Any], progress: Progress) -> LabelledImages | LabelledFeatures:
    from labelsieve.data.features import load_features
    from labelsieve.data.loading import load_images
    from labelsieve.data.sources.feature_files import holds_features

    load: Any = load_features if holds_features(origin["source"]) else partial(load_images, progress=progress)
    unknown = sorted(set(origin) - set(inspect.signature(load).parameters) | {"progress"} & set(origin))
    if unknown:
        raise RunError(f'expected no "{shown(unknown[0])}" in "origin" of the run; make the run again')
    data: LabelledImages | LabelledFeatures = load(**origin)
    return data


def compared_with(verdicts: Verdicts, *, progress: Progress) -> LabelledImages | None:
    """Loads the images again that a run found leaks to; None, with a note, where they are gone or it does not say.

    Without leaks they are not looked for.
    """
    from labelsieve.curation.findings import EXACT_LEAK, NEAR_LEAK
    from labelsieve.data.images import LabelledImages

    found, against = verdicts.image_findings, verdicts.run.against
    if found is None or against is None or not {EXACT_LEAK, NEAR_LEAK} & {*found["kind"].to_pylist()}:
        return None
    try:
        others = load_part(against.origin, what="the images to compare with", progress=progress)
        if not isinstance(others, LabelledImages) or others.fingerprint != against.fingerprint:
            raise RunError(f"{shown(against.source)} changed since the run")
    except LabelsieveError as error:
        progress.say(f"note: leaks are shown without the image of the other split, as {error}")
        return None
    return others


def load_part(origin: Mapping[str, Any] | None, *, what: str, progress: Progress) -> LabelledImages | LabelledFeatures:
    """Loads test images, or those that were compared with, from what the record of a run says of them.

    Raises:
        RunError: It does not say where they lie, or says something else than texts and numbers.
        DataError: They cannot be loaded.
    """
    from labelsieve.verdicts import RECORD

    if not origin or not origin.get("source"):
        raise RunError(f"the run does not say where {what} lie")
    check_kinds({"origin": dict(origin)}, kinds_of(OriginRecord, "origin."), Path(RECORD))
    return _load(origin, progress)


def contents_of(verdicts: Verdicts, *, progress: Progress, source: str | None = None) -> NDArray[np.uint64] | None:
    """Returns the hashes of the images of a run, by which answers find them; None, with a note, if they are gone.

    Raises:
        LabelsieveError: They are not in `source`, where that is given.
    """
    data = _data_if_there(verdicts, source=source, progress=progress)
    return None if data is None else data.contents


def _data_if_there(
    verdicts: Verdicts, *, progress: Progress, source: str | None
) -> LabelledImages | LabelledFeatures | None:
    try:
        return data_of(verdicts, source=source, progress=progress)
    except LabelsieveError as error:
        if source is not None:
            raise
        progress.say(f"note: answers are matched by the ids of the images, without their copies, as {error}")
        return None
