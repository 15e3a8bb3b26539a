"""Exports verdicts for other tools, in each format; and the formats that are one table, also of tags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.errors import SettingsError, look_up, setting
from labelsieve.core.files import write_parquet
from labelsieve.core.output_folders import check_file
from labelsieve.core.progress import Progress
from labelsieve.core.spreadsheets import write_csv
from labelsieve.core.validation import Share, check_value
from labelsieve.data.images import LabelledImages
from labelsieve.data.tags.columns import SEPARATORS
from labelsieve.report.exports.registry import FORMATS, ExportRequest, FormatKind, formats_with
from labelsieve.review.row_reviews import FLAGGED_ARE_DROPPED, Reviewed, ReviewFiles, read_reviews
from labelsieve.tags.verdicts import TagVerdicts
from labelsieve.verdicts import Verdicts

TABLE_WRITERS: dict[str, Callable[[Path, pa.Table], None]] = {"csv": write_csv, "parquet": write_parquet}
"""The formats of tables."""


def export(
    verdicts: Verdicts,
    images: LabelledImages | None,
    *,
    format: FormatKind,
    out: Path,
    marks: ReviewFiles | None = None,
    drop_at: float = FLAGGED_ARE_DROPPED,
    copy: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes the verdicts in a format of other tools.

    A review overrides the verdict: a label reviewed as right is no issue and has label quality 1, a label reviewed as
    wrong is an issue and has label quality 0, and ranks are updated; see
    :attr:`labelsieve.review.row_reviews.Reviewed.after`.

    * `csv`, `parquet`: one file, the full table of verdicts, one row for each image; with reviews also a column `mark`
      (`right`, `wrong` or `unsure`), a column `new_label` (another class named by a reviewer), and a column `left_out`
      (whether reviewers left the image out as a copy, a leak or a defect). In a CSV file, a text that a spreadsheet
      would read as a formula gets an apostrophe before it.
    * `cleanlab`: one file ending in `.csv` or `.parquet` with `index`, `is_label_issue`, `label_quality`,
      `given_label` and `predicted_label`, labels as integers, as in `CleanLearning.get_label_issues()` of cleanlab.
    * `imagefolder`: one folder for each class with the clean part only: readable images that are not flagged or, with
      a `drop_at` below 1, are flagged with a label quality above it; and images whose right label a reviewer named,
      in the folder of that label.
    * `label-studio`, `fiftyone`, `cvat`, `coco`: one folder with all readable images, except those that reviewers left
      out, and the annotations in the import format of the tool; see docs/export.md.
    * `annotations`: for boxes, the annotation file or folder in its own format, with corrected labels and the label
      quality of each box; see docs/boxes.md.
    * `dataset-card`: a `README.md` for the Hub of Hugging Face that says which labels were changed.

    Args:
        verdicts: The verdicts to export.
        images: The images of the verdicts; required by formats that are a folder. If they are passed, copies of an
            image share a review.
        format: A key of `labelsieve.report.exports.registry.FORMATS`.
        out: The file or, for the formats that are a folder, the folder. It is written completely or not at all.
        marks: Reviews: run folders with a log of answers, and CSV files of marks, downloaded from the report; one or
            several, see :func:`labelsieve.review.row_reviews.read_reviews`.
        drop_at: For `imagefolder`: 1 leaves out every flagged image; 0.5 leaves out the same images as
            :func:`labelsieve.adapt` by default and keeps flagged images that are more likely right than wrong.
        copy: For the formats that are a folder: copy the image files instead of linking to them.
        overwrite: Replace existing output; a folder is only replaced if it is empty or was written by an export.
        progress: Receives progress, and messages on the effect of reviews and `drop_at`.

    Returns:
        The path that was written.

    Raises:
        SettingsError: The format is unknown, or an option does not apply to it.
        RunError: `out` exists or cannot be written, or the images are not those of the verdicts.
        DataError: An image file is missing, or the reviews cannot be read or belong to other verdicts.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> features = ls.load_features(points, labels=labels)
        >>> verdicts = ls.scan(features, detector=ls.KNN())
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = ls.export(verdicts, features, format="cleanlab", out=Path(folder) / "issues.csv")
        ...     path.read_text().splitlines()[:2]
        ['"index","is_label_issue","label_quality","given_label","predicted_label"', '0,true,0.05,1,0']
    """
    out = Path(out)
    look_up(FORMATS, format, what=setting("format"))
    chosen = FORMATS.entries[format]
    check_value("drop_at", drop_at, Share)
    reviews = None if marks is None else read_reviews(marks, verdicts, images=images, progress=progress)
    restricted = {"drop_at": (drop_at != FLAGGED_ARE_DROPPED, "is_clean_part"), "copy": (copy, "needs_images")}
    for option, (is_set, field) in restricted.items():
        if is_set and not getattr(chosen, field):
            fitting = ", ".join(formats_with(field))
            raise SettingsError(f"{setting(option)} goes with {fitting} only, got format {format}; leave it out")
    request = ExportRequest(
        format=chosen,
        reviewed=Reviewed(verdicts=verdicts, reviews=reviews),
        images_or_none=images,
        out=out,
        drop_at=drop_at,
        copy=copy,
        overwrite=overwrite,
        progress=progress,
    )
    if not chosen.needs_images:
        check_file(out, overwrite=overwrite)
    FORMATS[format](request)
    return out


def cleanlab_table(verdicts: Verdicts) -> pa.Table:
    """Returns one row for each image, in the order of the data, with labels as indices into `class_names`.

    cleanlab has no unreadable images: they are no issue, with quality NaN and predicted label -1.
    """
    table = pa.table(
        {
            "index": pa.array(np.arange(len(verdicts), dtype=np.int64)),
            "is_label_issue": pa.array(verdicts.is_issue),
            "label_quality": pa.array(verdicts.label_quality),
            "given_label": pa.array(verdicts.given),
            "predicted_label": pa.array(verdicts.predicted),
        }
    )
    return table.replace_schema_metadata({"class_names": json.dumps(verdicts.class_names)})


def write_in_format(format: str, out: Path, table: pa.Table) -> None:
    """Writes a table in a format that is also the suffix of its files.

    Args:
        format: A key of `TABLE_WRITERS`.
        out: The file to write.
        table: The table.

    Raises:
        SettingsError: The file has another suffix, which would mislead other tools.
    """
    if out.suffix.lower() not in ("", f".{format}"):
        raise SettingsError(f"expected a file ending in .{format} for format {format}, got {out.name}; change either")
    TABLE_WRITERS[format](out, table)


def write_table(request: ExportRequest) -> None:
    """Writes the table of verdicts, see :func:`write_in_format`."""
    write_in_format(request.format.name, request.out, _with_reviews(request.reviewed))


def _with_reviews(reviewed: Reviewed) -> pa.Table:
    if reviewed.reviews is None:
        return reviewed.verdicts.table
    names = pa.array(reviewed.verdicts.class_names, pa.string())
    marks = pa.array(reviewed.marks.tolist(), pa.string(), mask=reviewed.marks == "")
    table = reviewed.after.table.append_column("mark", marks)
    new_labels = names.take(pa.array(reviewed.labels, mask=~reviewed.is_corrected))
    return table.append_column("new_label", new_labels).append_column("left_out", pa.array(reviewed.is_dropped))


def write_cleanlab_table(request: ExportRequest) -> None:
    """Writes the table of :func:`cleanlab_table` in the format of the suffix.

    Raises:
        SettingsError: There is no such format.
    """
    format = request.out.suffix.lower().removeprefix(".")
    if format not in TABLE_WRITERS:
        raise SettingsError(f"expected a file ending in .csv or .parquet for format cleanlab, got {request.out.name}")
    TABLE_WRITERS[format](request.out, cleanlab_table(request.reviewed.after))


def export_corrected_tags(
    verdicts: TagVerdicts, out: Path, *, format: str, overwrite: bool = False
) -> tuple[Path, str | None]:
    """Writes one row for each image: `id`, corrected `tags`, `given_tags`, and `error`.

    Args:
        verdicts: Each is taken as right.
        out: The file to write, completely or not at all.
        format: A key of `FORMATS` that is for tags.
        overwrite: Replace an existing file.

    Returns:
        The path, and the separator between tags in the file, None if they are lists.

    Raises:
        SettingsError: The format is not for tags, the suffix is another one, or class names contain every separator.
        RunError: `out` exists or cannot be written.
    """
    fitting = formats_with("tags")
    if format not in fitting:
        raise SettingsError(f"a run of labelsieve scan-tags is exported as {' or '.join(fitting)}, got {format}")
    check_file(out, overwrite=overwrite)
    table = verdicts.corrected_table()
    separator = _separator(verdicts.class_names) if format == "csv" else None
    write_in_format(format, out, table if separator is None else _as_texts(table, separator))
    return out, separator


def _as_texts(table: pa.Table, separator: str) -> pa.Table:
    """Returns a table whose tags are joined, since a CSV file has no lists."""
    for name in ("tags", "given_tags"):
        texts = pc.binary_join(table[name].combine_chunks(), separator)
        table = table.set_column(table.column_names.index(name), name, texts.cast(pa.string()))
    return table


def _separator(names: tuple[str, ...]) -> str:
    separator = next((mark for mark in (";", *SEPARATORS) if not any(mark in name for name in names)), None)
    if separator is None:
        raise SettingsError(f"the class names have all of {' '.join(SEPARATORS)}; export as parquet, which has lists")
    return separator
