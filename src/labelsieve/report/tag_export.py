"""Tags as the verdicts of a run have them, as one table for other tools."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelsieve.core.errors import SettingsError
from labelsieve.core.provenance import write_atomically
from labelsieve.core.registry import loaded
from labelsieve.core.spreadsheets import write_csv
from labelsieve.data.tags.columns import SEPARATORS
from labelsieve.report.registry import FORMATS, formats_with
from labelsieve.report.request import check_file, refuse_suffix
from labelsieve.tags.verdicts import TagVerdicts


def export_corrected_tags(
    verdicts: TagVerdicts, out: Path, *, format: str, overwrite: bool = False
) -> tuple[Path, str | None]:
    """Writes one row for each image: `id`, `tags` as the verdicts have them, `given_tags`, and `error`.

    Args:
        verdicts: Each counts as right.
        out: The file to write, whole or not at all.
        format: A key of `FORMATS` that is for tags.
        overwrite: Replace what stands there.

    Returns:
        The path, and what separates tags in the file, None where they are lists.

    Raises:
        SettingsError: The format is another one, or the class names have all separators.
        RunError: `out` is in the way or cannot be written.
    """
    fitting = formats_with("tags")
    if format not in fitting:
        raise SettingsError(f"a run of labelsieve scan-tags is exported as {' or '.join(fitting)}, got {format}")
    check_file(out, overwrite=overwrite)
    return out, loaded(FORMATS.entries[format].tags)(verdicts, out)


def write_parquet_of_tags(verdicts: TagVerdicts, out: Path) -> None:
    """Writes tags as lists.

    Raises:
        SettingsError: The suffix is that of CSV.
    """
    refuse_suffix(out, ".csv", format="parquet")
    with write_atomically(out) as part:
        pq.write_table(verdicts.corrected_table(), part)


def write_csv_of_tags(verdicts: TagVerdicts, out: Path) -> str:
    """Writes tags as texts, and returns the mark between them, which is in no class name.

    Raises:
        SettingsError: The suffix is that of Parquet, or the class names have all marks.
    """
    refuse_suffix(out, ".parquet", format="csv")
    table, separator = verdicts.corrected_table(), _separator(verdicts.class_names)
    for name in ("tags", "given_tags"):
        texts = pc.binary_join(table[name].combine_chunks(), separator)
        table = table.set_column(table.column_names.index(name), name, texts.cast(pa.string()))
    write_csv(out, table)
    return separator


def _separator(names: tuple[str, ...]) -> str:
    found = next((mark for mark in (";", *SEPARATORS) if not any(mark in name for name in names)), None)
    if found is None:
        raise SettingsError(f"the class names have all of {' '.join(SEPARATORS)}; export as parquet, which has lists")
    return found
