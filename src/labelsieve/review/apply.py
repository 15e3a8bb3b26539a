"""Corrected labels, written back in the form that a data set came in."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.core.errors import DataError, RunError, shown
from labelsieve.core.output_folders import check_no_mount, new_folder
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import write_atomically
from labelsieve.data.box_formats.registry import BOX_FORMATS
from labelsieve.data.box_formats.yolo import label_files
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.readers import Place, find_source, read_hub, read_path
from labelsieve.data.sources.table_formats import TABLES
from labelsieve.review.changes import Placed
from labelsieve.review.writers import Edits, Placing, RowVerdicts, copied, hard_linked, linked
from labelsieve.review.writers.arrow_tables import row_count, write_arrow_tables
from labelsieve.review.writers.boxes import write_boxes
from labelsieve.review.writers.class_folders import write_class_folders
from labelsieve.review.writers.csv_tables import write_csv_tables
from labelsieve.review.writers.saved import relabelled, write_saved

BACKUP = ".backup"
"""Ends the name of what stood at the place of a data set that was corrected in place."""
# Lists and settings beside annotations of boxes.
_TEXTS = (".txt", ".xml", ".yaml", ".yml", ".json")


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What was written.

    Attributes:
        path: The file or folder.
        backups: What stood there before, a folder or each file that changed; empty for a new place.
        notes: Remarks for the user.
    """

    path: Path
    backups: tuple[Path, ...]
    notes: tuple[str, ...]


def apply(
    images: LabelledImages,
    placed: Placed,
    *,
    options: Mapping[str, Any],
    out: Path | None,
    copy: bool = False,
    verdicts: RowVerdicts | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Writes a data set again with other labels, in the form that it has.

    A folder of class folders, a table in one or several CSV, Parquet or Arrow files, annotation files of boxes, a
    folder of `save_to_disk`. A data set of the Hub becomes such a folder.

    Args:
        images: All images of the source, with their labels of now.
        placed: Their new labels.
        options: What the images were loaded with: `source` and what :func:`labelsieve.load_images` takes beside it.
        out: The file or folder to write, where nothing is yet; None changes the source itself and keeps a backup.
        copy: Copy the images of a folder instead of linking to them.
        verdicts: What is written beside the labels of a table or of boxes.
        progress: Where to show how far it is.

    Raises:
        DataError: The source has no form that labels can be written to.
        RunError: Something is in the way, or cannot be written; the source stays as it was.
    """
    source, split = str(options["source"]), options.get("split")
    place = find_source(source, split=split)
    _check_form(place, source, options)
    asked = Columns(
        image=options.get("image_column"),
        label=options.get("label_column"),
        truth=options.get("truth_column"),
        folder=Path(options["image_folder"]) if options.get("image_folder") else None,
    )
    job = _Job(
        place=place,
        source=source,
        split=split,
        asked=asked,
        images=images,
        edits=Edits(old=images.labels, new=placed.labels, class_names=images.class_names, verdicts=verdicts),
        copy=copy,
        progress=progress or Progress(),
    )
    return job.in_place() if out is None else job.to(out)


def check_target(source: str, out: Path | None) -> None:
    """Checks that a corrected data set may be written to a place, before anything expensive starts.

    Args:
        source: The data set.
        out: Where to write it; None for the source itself.

    Raises:
        RunError: Something is there, or one lies in the other.
    """
    if out is None:
        return
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        raise RunError(f"{out} is there already; choose another name, or remove it")
    path = Path(os.path.realpath(Path(source).expanduser()))
    if path.is_dir() and Path(os.path.realpath(out)).is_relative_to(path):
        raise RunError(f"expected --out outside of the source folder, got {out} in {source}; choose a folder beside it")


def _check_form(place: Place, source: str, options: Mapping[str, Any]) -> None:
    if options.get("noise"):
        raise DataError(
            "the given labels are those of a file of noise, which the source does not hold; scan it without --noise"
        )
    if place.kind == "published":
        raise DataError(
            f"labels are not written back into the official layout of {source}; write a folder with: "
            "labelsieve export RUN --format imagefolder"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """A data set that is written again."""

    place: Place
    source: str
    split: str | None
    asked: Columns
    images: LabelledImages
    edits: Edits
    copy: bool
    progress: Progress

    @cached_property
    def table(self) -> Table:
        """The rows, and which column holds the labels."""
        read = read_hub if self.place.kind == "hub" else read_path
        return read(self.source, asked=self.asked, split=self.split)

    @property
    def is_boxes(self) -> bool:
        """Whether the source is made of annotation files of boxes."""
        return self.place.kind in BOX_FORMATS

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the labels; none where the source is a folder of images."""
        boxes = self.table.box_files if self.is_boxes else None
        return boxes.files if boxes else self.place.files

    @property
    def root(self) -> Path:
        """The folder or file that is written; of YOLO the folder that its YAML file lies in."""
        return self.place.path.parent if self.place.kind == "yolo" else self.place.path

    @property
    def column(self) -> str:
        """The column of labels."""
        return str(self.table.columns.label)

    @cached_property
    def parts(self) -> list[Edits]:
        """The edits of each file of a table."""
        boxes = self.table.box_files if self.is_boxes else None
        counts = [*boxes.counts] if boxes else [row_count(self.place.kind)(path) for path in self.place.files]
        if sum(counts) != len(self.edits):
            raise RunError(f"{self.source} has changed while it was read; try it again")
        starts = np.cumsum([0, *counts]).tolist()
        return [self.edits.part(start, size) for start, size in zip(starts, counts, strict=False)]

    def to(self, out: Path) -> Applied:
        """Writes to a new place."""
        check_target(str(self.root) if self.is_boxes else self.source, out)
        self._check_suffix(out)
        placing = copied if self.copy else linked
        if not self._is_folder:
            self._write_tables({self.files[0]: out})
        elif self.files:
            with new_folder(out) as part:
                self._write_folder_of_tables(part, placing)
        else:
            with new_folder(out) as part:
                self._write_folder(part, placing)
        return Applied(path=out, backups=(), notes=self._notes(out))

    def _check_suffix(self, out: Path) -> None:
        """Refuses a name under which the table would be read as another kind, or not at all."""
        if self._is_folder:
            return
        suffix, new = self.place.path.suffix, out.suffix.lower()
        if not (new == suffix.lower() if self.is_boxes else TABLES.get(new) == self.place.kind):
            raise RunError(
                f"expected --out to end in {suffix}, as {self.place.path}, got {shown(out)}; change the name"
            )

    def in_place(self) -> Applied:
        """Changes the source itself; what was there before stays beside it."""
        if self.place.kind == "hub":
            raise DataError(f"{self.source} is a data set of the Hub, which is not changed; pass --out FOLDER")
        if self.files:
            changing = [path for path, part in zip(self.files, self.parts, strict=True) if len(part.rows)]
            with _kept(changing) as backups:
                self._write_tables(dict(zip(changing, changing, strict=True)))
            return Applied(path=self.place.path, backups=tuple(backups), notes=self._about_caches(changing))
        folder = Path(os.path.realpath(self.place.path))
        backup = free_name(folder, BACKUP)
        with _in_place_of(folder, backup) as part:
            self._write_folder(part, copied if self.copy else hard_linked)
        return Applied(path=self.place.path, backups=(backup,), notes=())

    @property
    def _is_folder(self) -> bool:
        """Whether the source is more than one file."""
        return not (len(self.files) == 1 and self.place.path == self.files[0])

    def _write_folder(self, part: Path, placing: Placing) -> None:
        if self.place.kind == "folder":
            write_class_folders(
                Path(os.path.abspath(self.place.path)),
                part,
                ids=self.images.ids,
                edits=self.edits,
                placing=placing,
                progress=self.progress,
            )
        elif self.place.kind == "saved":
            write_saved(self.place.path, part, split=self.split, column=self.column, edits=self.edits)
        else:
            rows = relabelled(self.table.rows, column=self.column, edits=self.edits, where=self.table.where)
            rows.save_to_disk(str(part))

    def _write_folder_of_tables(self, part: Path, placing: Placing) -> None:
        """Writes the files of a table, and beside them whatever else lies in a folder of tables."""
        folder = self.root
        source = folder if self.is_boxes else Path(self.source).expanduser()
        if self.is_boxes:
            self._check_inside(self.files, folder)
        targets = {path: part / os.path.relpath(path, folder) for path in self.files}
        for target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
        self._write_tables(targets, in_new_folder=True)
        for path in sorted(source.rglob("*")) if source.is_dir() else ():
            target = part / os.path.relpath(path, folder)
            if os.path.lexists(target) or not (path.is_file() or path.is_symlink()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # with images copied from there it would be a folder of images, and none of tables
                target.symlink_to(_led_to(path, target, folder=source, part=part), target_is_directory=True)
            elif self.is_boxes and path.suffix.lower() in _TEXTS:
                copied(path, target)  # small, and through a link the source would be edited
            else:
                placing(path, target)
        if self.place.kind == "yolo":
            self._check_inside(label_files(part / self.place.path.name, split=self.split), part)

    def _check_inside(self, files: Sequence[Path], folder: Path) -> None:
        """Refuses labels outside of the folder that is written: there the old ones would be read."""
        if outside := [path for path in files if not _is_below(os.path.abspath(path), folder)]:
            raise DataError(
                f"{self.place.path} leads to labels outside of its folder, such as {outside[0]}; write paths there "
                "that are relative to it, or use --in-place"
            )

    def _write_tables(self, targets: Mapping[Path, Path], *, in_new_folder: bool = False) -> None:
        """Writes files beside their places first, and moves them there when all of them are whole.

        Of annotation files, which may be thousands, each is moved when it is whole.
        """
        if self.is_boxes:
            write_boxes(self.place.kind, targets, table=self.table, parts=self.parts, in_new_folder=in_new_folder)
            return
        with ExitStack() as stack:
            parts = {path: stack.enter_context(write_atomically(target)) for path, target in targets.items()}
            if self.place.kind == "csv":
                write_csv_tables(self.place.files, parts, column=self.column, edits=self.parts)
            else:
                write_arrow_tables(self.place.files, parts, kind=self.place.kind, column=self.column, edits=self.parts)
            for path, part in parts.items():
                shutil.copymode(path, part)

    def _notes(self, out: Path) -> tuple[str, ...]:
        """Says where the images of a table are now that it lies elsewhere."""
        if self.is_boxes and not self._is_folder:
            moved = os.path.realpath(self.place.path.parent) != os.path.realpath(out.parent)
            folder = self.table.folder
            add = f"its images lie in {folder}: put it beside {self.place.path}, or add --image-folder {folder}"
            return (add,) if moved and self.asked.folder is None else ()
        if self.place.kind not in ("csv", "parquet", "arrow") or self.asked.folder is not None:
            return ()
        first = self.images.dataset[0]["image"] if len(self.images) else None
        if not first or first["bytes"] is not None or self._has_whole_paths():
            return ()
        before = self.place.path if self._is_folder else self.place.path.parent
        after = out if self._is_folder else out.parent
        came_along = Path(self.source).expanduser().is_dir() and _is_below(first["path"], before)
        if came_along or os.path.realpath(before) == os.path.realpath(after):
            return ()
        return (f"the paths in it are relative to {before}: put it there, or add --image-folder {before}",)

    def _about_caches(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Says which caches Ultralytics keeps of labels that have changed, which it does not always see."""
        folders = sorted({path.parent for path in files}) if self.place.kind == "yolo" else []
        caches = [cache for folder in folders if (cache := folder.with_suffix(".cache")).is_file()]
        return tuple(f"{cache} is of the labels before; remove it, for training may read it" for cache in caches)

    def _has_whole_paths(self) -> bool:
        value = self.table.rows[0][str(self.table.columns.image)]
        return os.path.isabs(str(value["path"] if isinstance(value, dict) else value))


def _is_below(path: str, folder: Path) -> bool:
    """Returns whether a path leads into a folder, by its names: what links lead to does not matter."""
    return Path(os.path.normpath(path)).is_relative_to(os.path.abspath(folder))


def _led_to(path: Path, target: Path, *, folder: Path, part: Path) -> str:
    """Returns what a link leads to, seen from its new place; within the folder it leads to the new files."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    if Path(real).is_relative_to(root):
        return os.path.relpath(part / os.path.relpath(real, root), target.parent)
    return real


def free_name(path: Path, ending: str) -> Path:
    """Returns a name beside a file or folder that is not taken: `photos.backup`, `photos-2.backup` ..."""
    candidate, number = path.with_name(f"{path.name}{ending}"), 2
    while os.path.lexists(candidate):
        candidate = path.with_name(f"{path.name}-{number}{ending}")
        number += 1
    return candidate


@contextmanager
def _kept(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Copies files that are replaced in the block; if it fails, those that were replaced by then are put back.

    Raises:
        RunError: One cannot be copied.
    """
    backups: dict[Path, Path] = {}
    try:
        for path in files:
            backup = free_name(path, BACKUP)
            with write_atomically(backup) as part:
                shutil.copy2(os.path.realpath(path), part)
            backups[path] = backup
        yield [*backups.values()]
    except BaseException:
        for path, backup in backups.items():
            if filecmp.cmp(path, backup, shallow=False):
                backup.unlink()
            else:
                backup.replace(os.path.realpath(path))
        raise


@contextmanager
def _in_place_of(folder: Path, backup: Path) -> Iterator[Path]:
    """Yields a temporary folder, which takes the place of another one; that one gets the name of the backup."""
    check_no_mount(folder)
    fresh = folder.with_name(f"{folder.name}.new-{os.getpid()}")
    with new_folder(fresh) as part:
        yield part
    try:
        folder.rename(backup)
        fresh.rename(folder)
    except OSError as error:
        if backup.exists() and not folder.exists():
            backup.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        raise RunError(f"could not replace {folder}: {error.strerror}; choose --out in a writable folder") from error
