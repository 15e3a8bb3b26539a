"""Exports tags, corrected by the verdicts of a run, as one table for other tools."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.errors import SettingsError
from labelsieve.core.files import write_parquet
from labelsieve.core.output_folders import check_file
from labelsieve.core.registry import loaded
from labelsieve.core.spreadsheets import write_csv
from labelsieve.data.tags.columns import SEPARATORS
from labelsieve.report.exports.export_request import check_suffix
from labelsieve.report.exports.registry import FORMATS, formats_with
from labelsieve.tags.verdicts import TagVerdicts


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
        SettingsError: The format is not for tags, or class names contain every separator.
        RunError: `out` exists or cannot be written.
    """
    fitting = formats_with("tags")
    if format not in fitting:
        raise SettingsError(f"a run of labelsieve scan-tags is exported as {' or '.join(fitting)}, got {format}")
    check_file(out, overwrite=overwrite)
    return out, loaded(FORMATS.entries[format].tags)(verdicts, out)


def write_parquet_of_tags(verdicts: TagVerdicts, out: Path) -> None:
    """Writes tags as lists.

    Raises:
        SettingsError: The suffix is another one.
    """
    check_suffix(out, format="parquet")
    write_parquet(out, verdicts.corrected_table())


def write_csv_of_tags(verdicts: TagVerdicts, out: Path) -> str:
    """Writes tags as texts, and returns their separator, which is in no class name.

    Raises:
        SettingsError: The suffix is another one, or class names contain every separator.
    """
    check_suffix(out, format="csv")
    table, separator = verdicts.corrected_table(), _separator(verdicts.class_names)
    for name in ("tags", "given_tags"):
        texts = pc.binary_join(table[name].combine_chunks(), separator)
        table = table.set_column(table.column_names.index(name), name, texts.cast(pa.string()))
    write_csv(out, table)
    return separator


def _separator(names: tuple[str, ...]) -> str:
    separator = next((mark for mark in (";", *SEPARATORS) if not any(mark in name for name in names)), None)
    if separator is None:
        raise SettingsError(f"the class names have all of {' '.join(SEPARATORS)}; export as parquet, which has lists")
    return separator
