"""Writes corrected labels to Parquet, Arrow and Feather files; keeps schema, metadata, row groups and columns."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelsieve.core.errors import DataError, shown
from labelsieve.data.labels import normalise
from labelsieve.data.sources.arrow_files import features_of, is_parquet, open_arrow, plain_types, read_schema
from labelsieve.data.sources.edits import ISSUE, PREDICTED, QUALITY, Edits, joined

# Magic numbers of the compressed frames of an Arrow file, after the length of the buffer.
_FRAMES = {b"\x04\x22\x4d\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}


def write_arrow_files(
    files: Sequence[Path], targets: Mapping[Path, Path], *, column: str, edits: Sequence[Edits]
) -> None:
    """Writes the files of one table with new labels; copies files without changes.

    Args:
        files: All files of the table.
        targets: The files to write, and their targets.
        column: The column of labels.
        edits: The edits of each file.

    Raises:
        DataError: The column cannot represent a new class.
    """
    values, write = (_parquet_column, _write_parquet) if is_parquet(files[0]) else (_arrow_column, _write_arrow)
    columns = [values(path, column) for path in files]
    feature = features_of(read_schema(files[0]), files[0]).get(column)
    all_values = pa.chunked_array(
        [chunk.cast(columns[0].type) for each in columns for chunk in each.chunks], columns[0].type
    )
    labels = new_labels(all_values, joined(edits), feature=feature, where=f'the column "{shown(column)}" of {files[0]}')
    start = 0
    for path, part in zip(files, edits, strict=True):
        if path in targets and not len(part.rows) and part.verdicts is None:
            shutil.copyfile(path, targets[path])
        elif path in targets:
            write(path, targets[path], column, labels.slice(start, len(part)), part)
        start += len(part)


def new_labels(values: Any, edits: Edits, *, feature: Any, where: str) -> Any:
    """Returns the label column with its new values, as one array of the same type.

    Values are copied from rows that already have the class, so that they are written in the same way.

    Args:
        values: The column, N values.
        edits: The edits of the N rows; removed rows keep their value.
        feature: The feature of the column, which has the numbers of classes without rows.
        where: Name of the column, for messages.

    Raises:
        DataError: It is unknown how the column represents a class that it does not contain.
    """
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    values_listed = array.to_pylist()
    examples = edits.examples([each if isinstance(each, str | int) else repr(each) for each in values_listed])
    lacking = [label for label in np.unique(edits.new[edits.is_kept]).tolist() if examples[label] is None]
    if lacking:
        texts = [None if row is None else str(values_listed[row]) for row in examples]
        new_values = [_new_value(edits, label, array.type, texts, feature, where) for label in lacking]
        examples = [*examples]
        for index, label in enumerate(lacking):
            examples[label] = len(array) + index
        array = pa.concat_arrays([array, pa.array(new_values, array.type)])
    rows = np.arange(len(edits))
    for row in edits.rows.tolist():
        if edits.new[row] >= 0:
            rows[row] = examples[edits.new[row]]
    return array.take(pa.array(rows))


def _new_value(
    edits: Edits, label: int, kind: pa.DataType, texts: Sequence[str | None], feature: Any, where: str
) -> str | int | float:
    """Returns the value for a class without rows."""
    name = edits.class_names[label]
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if numbers and type(feature).__name__ == "ClassLabel":
        indices = [index for index, each in enumerate(feature.names) if normalise(each) == normalise(name)]
        return int(indices[0]) if indices else label
    if numbers and edits.by_number(texts):
        return label
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str(label) if edits.by_number(texts) else name
    raise DataError(
        f'no image has the class "{shown(name)}" yet, so it is not known how {where}, of type {kind}, writes it; '
        "correct these images by hand"
    )


def _plain_column(values: Any) -> Any:
    """Returns a column with dictionaries decoded, and views cast to the types that they represent."""
    kind = plain_types(pa.schema([pa.field("x", values.type)])).field("x").type
    return values if kind == values.type else values.cast(kind)


def _parquet_column(path: Path, column: str) -> Any:
    return _plain_column(pq.read_table(path, columns=[column], partitioning=None).column(column))


def _arrow_column(path: Path, column: str) -> Any:
    with open_arrow(path) as file:
        return _plain_column(file.read_all().column(column))


def _as_field(values: Any, field: pa.Field) -> Any:
    """Casts values to the type of the column of a file."""
    if pa.types.is_dictionary(field.type):
        return values.dictionary_encode().cast(field.type)
    return values.cast(field.type)


def _verdicts(edits: Edits) -> dict[str, Any]:
    """Returns the columns of verdicts, null for rows without a verdict."""
    verdicts = edits.verdicts
    if verdicts is None:
        return {}
    names = pa.array(edits.class_names, pa.string())
    return {
        QUALITY: pa.array(verdicts.quality, mask=~verdicts.known),
        PREDICTED: names.take(pa.array(verdicts.predicted, mask=~verdicts.known)),
        ISSUE: pa.array(verdicts.is_issue, mask=~verdicts.known),
    }


def _longer(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Schema:
    """Returns a schema with additional columns.

    Raises:
        DataError: One of them exists already.
    """
    for name, values in columns.items():
        if name in schema.names:
            raise DataError(f'there is a column "{name}" already; take the table without it')
        schema = schema.append(pa.field(name, values.type))
    return schema


def _edited(
    parts: Iterable[Any], schema: pa.Schema, column: str, labels: Any, edits: Edits, verdict_columns: Mapping[str, Any]
) -> Iterator[Any]:
    """Yields tables or batches of a file with new labels and with verdicts, without removed rows."""
    index, start = schema.get_field_index(column), 0
    field = schema.field(index)
    values = _as_field(labels, field)
    for part in parts:
        is_kept = edits.is_kept[start : start + len(part)]
        part = part.set_column(index, field, values.slice(start, len(part)))
        for name, column_of in verdict_columns.items():
            part = part.append_column(name, column_of.slice(start, len(part)))
        start += len(part)
        yield part if is_kept.all() else part.filter(pa.array(is_kept))


def _write_parquet(path: Path, target: Path, column: str, labels: Any, edits: Edits) -> None:
    verdict_columns = _verdicts(edits)
    with pq.ParquetFile(path) as file:
        schema, groups = file.schema_arrow, map(file.read_row_group, range(file.num_row_groups))
        with pq.ParquetWriter(target, _longer(schema, verdict_columns), **_parquet_settings(file)) as writer:
            for table in _edited(groups, schema, column, labels, edits, verdict_columns):
                if len(table):
                    writer.write_table(table, row_group_size=len(table))


def _parquet_settings(file: pq.ParquetFile) -> dict[str, Any]:
    """Returns the settings of a writer for a file like this one, as far as the file stores them."""
    meta = file.metadata
    groups = meta.num_row_groups
    columns = [meta.row_group(0).column(index) for index in range(meta.num_columns)] if groups else []
    codecs = {chunk.path_in_schema: chunk.compression.lower().replace("uncompressed", "none") for chunk in columns}
    return {
        "version": meta.format_version,
        "compression": codecs or "snappy",
        "use_dictionary": [chunk.path_in_schema for chunk in columns if chunk.has_dictionary_page],
        "write_statistics": [chunk.path_in_schema for chunk in columns if chunk.is_stats_set],
        "use_deprecated_int96_timestamps": any(chunk.physical_type == "INT96" for chunk in columns),
        "store_schema": b"ARROW:schema" in (meta.metadata or {}),
    }


def _write_arrow(path: Path, target: Path, column: str, labels: Any, edits: Edits) -> None:
    verdict_columns = _verdicts(edits)
    with open_arrow(path) as file:
        is_stream = isinstance(file, pa.RecordBatchStreamReader)
        options = pa.ipc.IpcWriteOptions(compression=_compression(path))
        batches = file if is_stream else map(file.get_batch, range(file.num_record_batches))
        new = pa.ipc.new_stream if is_stream else pa.ipc.new_file
        with (
            pa.OSFile(str(target), "wb") as sink,
            new(sink, _longer(file.schema, verdict_columns), options=options) as writer,
        ):
            for batch in _edited(batches, file.schema, column, labels, edits, verdict_columns):
                writer.write_batch(batch)


def _compression(path: Path) -> str | None:
    """Returns the compression of the record batches of an Arrow file, which Arrow itself does not expose."""
    with pa.memory_map(str(path)) as source:
        source.seek(8 if source.read(6) == b"ARROW1" else 0)
        while True:
            try:
                message = pa.ipc.read_message(source)
            except (EOFError, pa.ArrowInvalid, OSError):
                return None
            if message.type == "record batch" and message.body is not None and message.body.size:
                body = message.body.slice(0, min(message.body.size, 4096)).to_pybytes()
                return next((name for frame, name in _FRAMES.items() if frame in body), None)
