"""Tags as the verdicts of a run have them, as one table for other tools."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.provenance import target_of, write_atomically
from labelsieve.core.spreadsheets import write_csv
from labelsieve.data.tags.columns import SEPARATORS
from labelsieve.tags.verdicts import TagVerdicts

_FORMATS = ("csv", "parquet")


def export_corrected_tags(
    verdicts: TagVerdicts, out: Path, *, format: str, overwrite: bool = False
) -> tuple[Path, str | None]:
    """Writes one row for each image: `id`, `tags` as the verdicts have them, `given_tags`, and `error`.

    In a Parquet file tags are lists; in a CSV file a text, with a mark between them that is in no class name.

    Args:
        verdicts: Each counts as right.
        out: The file to write, whole or not at all.
        format: `csv` or `parquet`.
        overwrite: Replace what stands there.

    Returns:
        The path, and the mark.

    Raises:
        SettingsError: The format is another one, or the class names have all marks.
        RunError: `out` is in the way or cannot be written.
    """
    if format not in _FORMATS:
        raise SettingsError(f"a run of labelsieve scan-tags is exported as {' or '.join(_FORMATS)}, got {format}")
    wrong = ".parquet" if format == "csv" else ".csv"
    if out.suffix.lower() == wrong:
        raise SettingsError(f"expected a file ending in .{format} for format {format}, got {out.name}; change either")
    target_of(out)
    if out.exists() and not overwrite:
        raise RunError(f"{out} is there already; choose another name or pass --overwrite (overwrite=True)")
    table = verdicts.corrected_table()
    if format == "parquet":
        with write_atomically(out) as part:
            pq.write_table(table, part)
        return out, None
    separator = _separator(verdicts.class_names)
    for name in ("tags", "given_tags"):
        texts = pc.binary_join(table[name].combine_chunks(), separator)
        table = table.set_column(table.column_names.index(name), name, texts.cast(pa.string()))
    write_csv(out, table)
    return out, separator


def _separator(names: tuple[str, ...]) -> str:
    found = next((mark for mark in (";", *SEPARATORS) if not any(mark in name for name in names)), None)
    if found is None:
        raise SettingsError(f"the class names have all of {' '.join(SEPARATORS)}; export as parquet, which has lists")
    return found
