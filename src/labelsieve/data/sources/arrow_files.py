"""Reads tables in one or several Parquet, Arrow or Feather files with the `datasets` library."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.data.sources.column_kinds import holds_images, kind_of
from labelsieve.data.sources.columns import Columns, Table, choose_columns
from labelsieve.data.sources.file_kinds import damage
from labelsieve.data.sources.image_paths import about_names, folder_of
from labelsieve.data.sources.quiet import quiet, reading
from labelsieve.data.sources.table_formats import format_of

if TYPE_CHECKING:
    from datasets import Dataset

# Maximum number of rows per batch; row groups of a file may be much larger.
_ROWS = 256
# View types of Arrow, and the types that they represent.
_VIEWS = {"binary_view": "binary", "string_view": "string"}


def read_arrow_files(files: Sequence[Path], *, requested: Columns, where: str) -> Table:
    """Reads Parquet, Arrow or Feather files into the cache of the `datasets` library, batch by batch.

    Args:
        files: The files, read in order as one table.
        requested: The requested columns.
        where: Name of the files, for messages.

    Raises:
        DataError: A file cannot be read, or columns are missing or differ between files.
    """
    import datasets

    kind, schemas = format_of(files[0]).name, [read_schema(path) for path in files]
    features = features_of(schemas[0], files[0])
    folder = folder_of(files)
    names = about_names(lambda name: _first_values(files[0], name), table_folder=folder)
    chosen = choose_columns(features, requested=requested, where=where, about_names=names)
    used = {*chosen.labels_and_ids, *chosen.box, *([chosen.image] if chosen.image is not None else [])}
    for path, schema in zip(files, schemas, strict=True):
        refuse_duplicates(used if kind == "parquet" else schema.names, schema, path)
    for path, schema in zip(files[1:], schemas[1:], strict=True):
        _check_same(features, features_of(schema, path), used, files[0], path)
    if kind == "parquet":  # other formats are always read completely, so leaving out columns saves nothing
        features = datasets.Features({name: feature for name, feature in features.items() if name in used})
    is_plain = all(each.field(chosen.image).type == _plain_type(each.field(chosen.image).type) for each in schemas)
    try:
        with quiet(), reading(where):
            rows = _load(files, features, kind=kind, image=str(chosen.image), is_plain=is_plain)
    except DataError:
        _refuse_empty(files, where)
        raise
    return Table(rows=rows, columns=chosen, where=where, folder=chosen.folder or folder)


def _load(files: Sequence[Path], features: Any, *, kind: str, image: str, is_plain: bool) -> Dataset:
    """Loads columns with images undecoded; if not `is_plain`, images can only be cast after loading."""
    import datasets

    undecoded = datasets.Image(decode=False)
    images = holds_images(features[image])
    if images and is_plain:
        features[image] = undecoded
    settings: dict[str, Any] = {"columns": list(features), "batch_size": _ROWS} if kind == "parquet" else {}
    names = [glob.escape(str(path)) for path in files]
    rows = datasets.load_dataset(kind, data_files=names, split="train", features=features, **settings)
    return rows if is_plain or not images else rows.cast_column(image, undecoded)


def _refuse_empty(files: Sequence[Path], where: str) -> None:
    """Raises a `DataError` if files have no rows; only called for files that do not load, because it may be slow."""
    with suppress(OSError, pa.ArrowException):  # damaged
        if not any(map(count_rows, files)):
            raise DataError(f"expected images in {where}, found no rows; check the source")


def refuse_duplicates(names: Iterable[str], schema: pa.Schema, path: Path) -> None:
    """Checks that the names of the columns to read are unique in a file.

    Args:
        names: Names of the columns that are read.
        schema: The schema of the file.
        path: The file, for the message.

    Raises:
        DataError: Several columns have one of these names.
    """
    if twice := [name for name in names if schema.names.count(name) > 1]:
        raise DataError(f'expected different columns in {path}, found "{shown(twice[0])}" more than once; rename one')


def read_schema(path: Path) -> pa.Schema:
    """Returns the schema of a table of a format with typed columns.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        if is_parquet(path):
            return pq.read_schema(path)
        with open_arrow(path) as file:
            return file.schema
    except (OSError, pa.ArrowException, ValueError):
        expected = f"expected the file {path} to be {format_of(path).name.capitalize()}"
        raise DataError(f"{expected}, but it {damage(path)}") from None


def batches(path: Path, *, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yields some columns of a file in batches.

    Args:
        path: The file.
        columns: Names of the columns.
        rows: Maximum number of rows in a batch.
    """
    if is_parquet(path):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=rows, columns=[*columns])
    else:
        with open_arrow(path) as file:
            yield from file.read_all().select([*columns]).to_batches(rows)


def count_rows(path: Path) -> int:
    """Returns the number of rows of a file."""
    if is_parquet(path):
        return int(pq.read_metadata(path).num_rows)
    with open_arrow(path) as file:
        return len(file.read_all())


def is_parquet(path: Path) -> bool:
    """Returns whether a file is Parquet by its suffix; else it is Arrow or Feather."""
    return format_of(path).name == "parquet"


def open_arrow(path: Path) -> Any:
    """Opens a memory-mapped Arrow file of either format: a stream, or a file with random access to record batches."""
    handle = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(handle)
    except pa.ArrowInvalid:
        handle.seek(0)
        return pa.ipc.open_file(handle)


def plain_types(schema: pa.Schema) -> pa.Schema:
    """Returns a schema where dictionaries have the type of their values, and views the type that they represent."""
    return pa.schema([field.with_type(_plain_type(field.type)) for field in schema], metadata=schema.metadata)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct(
            [kind.field(index).with_type(_plain_type(kind.field(index).type)) for index in range(kind.num_fields)]
        )
    return getattr(pa, _VIEWS[str(kind)])() if str(kind) in _VIEWS else kind


def features_of(schema: pa.Schema, path: Path) -> Any:
    """Returns the columns of a file as features of the `datasets` library, with plain types (:func:`plain_types`).

    Columns of types that it does not support, such as maps, are left out of Parquet files.

    Raises:
        DataError: An Arrow file has such a column; these files can only be read completely.
    """
    import datasets

    schema = plain_types(schema)
    features, unknown = datasets.Features(), []
    for field in schema:
        try:
            features.update(datasets.Features.from_arrow_schema(pa.schema([field], metadata=schema.metadata)))
        except (ValueError, TypeError, KeyError, NotImplementedError):
            unknown.append(f'"{field.name}" of {field.type}')
    if unknown and path.suffix.lower() != ".parquet":
        raise DataError(f"{path} has columns of kinds that are not read: {listed(unknown)}; write it without them")
    return features


def _check_same(features: Any, other_features: Any, used: set[str], first: Path, path: Path) -> None:
    """Checks that the used columns are the same in two files."""
    for name in sorted(used):
        if name not in other_features:
            raise DataError(f'expected a column "{shown(name)}" in {path}, as {first} has it; pass files of one table')
        kinds = kind_of(features[name]), kind_of(other_features[name])
        if other_features[name] != features[name] and "null" not in kinds and kinds != ("texts", "texts"):
            raise DataError(
                f'expected one kind of the column "{shown(name)}" in all files, found {kinds[0]} in {first} and '
                f"{kinds[1]} in {path}; pass files of one table"
            )


def _first_values(path: Path, name: str) -> list[str]:
    batch = next(batches(path, columns=[name], rows=_ROWS), None)
    values = [] if batch is None else batch.column(0).to_pylist()
    return [str(value) for value in values if value is not None]
