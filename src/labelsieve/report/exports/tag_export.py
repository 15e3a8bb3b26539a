"""Exports tags, corrected by the verdicts of a run, as one table for other tools."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.errors import SettingsError
from labelsieve.core.output_folders import check_file
from labelsieve.data.tags.columns import SEPARATORS
from labelsieve.report.exports.export import write_in_format
from labelsieve.report.exports.registry import formats_with
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
