"""`labelsieve report` and `labelsieve export`: what is made of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from tyro.conf import arg

from labelsieve.commands.base import Command, Flag, OptionalText, RunFolder, UsageError, refuse_inside
from labelsieve.errors import DataError, RunError
from labelsieve.progress import Progress

if TYPE_CHECKING:
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.verdicts import Verdicts


# Classes that a line names; a list of hundreds is not read.
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Writes the report of a finished run anew, with other pictures or after the data moved.

    Attributes:
        run_folder: Folder of the run.
        out: File to write; by default report.html in the folder of the run.
        source: Where the images lie now, if not where the run found them.
        max_images: How many of the most suspicious images to show.
        thumbnail_px: Longest side of the pictures.
    """

    run_folder: RunFolder
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    source: OptionalText = None
    max_images: int = 400
    thumbnail_px: int = 256

    def run(self, console: Console) -> None:
        """Reads the run and its images, writes the report."""
        from labelsieve.report.html import write_report
        from labelsieve.verdicts import REPORT, Verdicts

        verdicts = Verdicts.load(self.run_folder)
        path = write_report(
            verdicts,
            data_of(verdicts, source=self.source),
            self.out or self.run_folder / REPORT,
            max_images=self.max_images,
            thumbnail_px=self.thumbnail_px,
        )
        Progress(console).say(f"wrote {path}")


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Writes the verdicts of a finished run for other tools.

    Attributes:
        run_folder: Folder of the run.
        format: One table (csv, parquet), one as cleanlab has it, or a folder of class folders without the issues.
        out: File or folder to write.
        marks: CSV of marks that was downloaded from the report; a mark counts more than a verdict.
        copy: Copy the images of an imagefolder instead of linking to them.
        overwrite: Replace what is there.
        source: Where the images lie now, if not where the run found them.
    """

    run_folder: RunFolder
    format: Literal["csv", "parquet", "imagefolder", "cleanlab"]
    out: Path
    marks: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="(optional)")] = None
    copy: Flag = False
    overwrite: Flag = False
    source: OptionalText = None

    def run(self, console: Console) -> None:
        """Reads the run, and its images where the format holds them, and writes the export."""
        from labelsieve.report.export import export
        from labelsieve.verdicts import RUN_FILES, Verdicts

        verdicts = Verdicts.load(self.run_folder)
        own = {(self.run_folder / name).resolve() for name in RUN_FILES}
        if self.out.resolve() in own:
            raise UsageError(f"expected --out to be no file of the run itself, got {self.out}; choose another name")
        images = None
        if self.format == "imagefolder":
            images = images_of(verdicts, source=self.source)
            refuse_inside(images.origin.get("source"), self.out)
        path = export(
            verdicts,
            images,
            format=self.format,
            out=self.out,
            marks=self.marks,
            copy=self.copy,
            overwrite=self.overwrite,
        )
        Progress(console).say(f"wrote {path}" + (_what_is_left(verdicts, path) if images is not None else ""))


def _what_is_left(verdicts: Verdicts, folder: Path) -> str:
    """Says how much an image folder holds, and which classes lost all images: it has no folder for these."""
    from labelsieve.report.imagefolder import MARKER

    content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    text = f": {content['images']:,} of {len(verdicts):,} images"
    gone = [name for own, name in content["class_of_folder"].items() if not (folder / own).exists()]
    if not gone:
        return text
    more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
    return f"{text}; no image is left of {', '.join(gone[:_NAMED])}{more}"


def images_of(verdicts: Verdicts, *, source: str | None = None) -> LabelledImages:
    """Loads the images of a run again, from where it found them or from `source`.

    Raises:
        RunError: The run had its images in memory or had none, or they are not the same any more.
        DataError: The images cannot be loaded.
    """
    from labelsieve.data.features import LabelledFeatures

    data = data_of(verdicts, source=source)
    if isinstance(data, LabelledFeatures):
        raise RunError("this run scanned features, which have no pictures; scan the images themselves for that")
    return data


def data_of(verdicts: Verdicts, *, source: str | None = None) -> LabelledImages | LabelledFeatures:
    """Loads the images or features of a run again, from where it found them or from `source`.

    Raises:
        RunError: The run had its data in memory, or they are not the same any more.
        DataError: The data cannot be loaded.
    """
    from labelsieve.data.feature_files import holds_features
    from labelsieve.data.features import load_features
    from labelsieve.data.sources import load_images

    origin: dict[str, Any] = dict(verdicts.record.get("origin") or {})
    if source is not None:
        origin = _moved(origin, source)
    if "source" not in origin:
        raise RunError("the images of this run were in memory; say with --source where they lie")
    try:
        data = load_features(**origin) if holds_features(origin["source"]) else load_images(**origin)
    except DataError as error:
        raise DataError(f"{error} (--source says where the images of a run lie now)") from error
    if data.fingerprint != verdicts.record.get("data", {}).get("fingerprint"):
        raise RunError(
            f"the images or labels of {origin['source']} changed since the run; scan again, or say with --source where "
            "the old ones are"
        )
    return data


def _moved(origin: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns what to load moved data with: a folder of images beside or below a table has moved with it."""
    folder, old = origin.get("image_folder"), Path(str(origin.get("source", ""))).parent
    moved = {**origin, "source": source}
    if folder is not None and Path(folder).is_relative_to(old):
        new = Path(source).expanduser().parent / Path(folder).relative_to(old)
        moved["image_folder"] = str(new) if new.is_dir() else folder
    return moved
