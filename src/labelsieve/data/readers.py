"""Readers: one function a kind of source, each giving its rows with undecoded pictures.

The `datasets` library reads Parquet, Arrow, saved folders and the Hub, memory mapped. Only a CSV file is read by
`pyarrow`, as texts: a reader that guesses types turns the class names `NA` and `007` into something else.
"""

from __future__ import annotations

import csv
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.data.columns import Columns, Table, choose_columns, choose_split, holds_pictures, refuse_split
from labelsieve.data.folders import TABLES, read_folder
from labelsieve.data.published.base import HUB, named_source, read_published, refuse_unknown_name
from labelsieve.errors import DataError, LabelsieveError, did_you_mean, first_line
from labelsieve.provenance import is_utf8

if TYPE_CHECKING:
    import pyarrow as pa

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")
_HUB_TIMEOUT = 5.0
# Rows read at once from a file whose row groups may be far larger.
_ROWS = 256


def read_path(source: str, *, asked: Columns, split: str | None) -> Table:
    """Reads a folder, a file, a published data set or a Hub id, whichever `source` is.

    Raises:
        DataError: It is none of them, or cannot be read.
    """
    if not source:  # of a shell variable that is not set; as a path it would be the current folder
        raise DataError("expected a folder, a file or a Hub data set, got an empty text; check the source")
    named = named_source(source)
    path = named.path if named else Path(source).expanduser()
    if not is_utf8(os.path.abspath(path)):  # Arrow and the record of a run hold paths as texts
        raise DataError(f"the path {str(path)!r} is not UTF-8; rename the folder or file")
    if named is not None:
        return read_published(named, asked=asked, split=split)
    kind = TABLES.get(path.suffix.lower())
    if path.is_dir():
        saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
        return read_saved(path, asked=asked, split=split) if saved else read_folder(path, asked=asked, split=split)
    if path.is_file() and kind is None:
        raise DataError(
            f"expected a folder of class folders or a file ending in {', '.join(TABLES)}, found {path}"
            f"{did_you_mean(path.suffix.lower(), TABLES)}; convert it first"
        )
    if path.is_file():
        refuse_split(split, path)
        return read_csv(path, asked=asked) if kind == "csv" else read_arrow_file(path, kind=str(kind), asked=asked)
    if kind is None and _HUB_ID.fullmatch(source):
        return read_hub(source, asked=asked, split=split)
    refuse_unknown_name(source)
    raise DataError(f"expected a folder, a file or a Hub data set, but {source} does not exist; check the path")


def read_csv(path: Path, *, asked: Columns) -> Table:
    """Reads a CSV file with a header; columns are parted by comma, semicolon or tab, all values are texts."""
    import pyarrow as pa
    import pyarrow.csv
    from datasets import Dataset

    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            header = handle.readline()
        separator = max(",;\t", key=header.count)
        parsing = pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        names = next(csv.reader([header], delimiter=separator), [])
        texts = dict.fromkeys(names, pa.string())
        converting = pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
        table = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=converting)
        table = table.rename_columns([name.strip() for name in table.column_names])
    except UnicodeDecodeError:
        raise DataError(f"expected a CSV file in UTF-8, but {path} is not; save it as UTF-8") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"expected a CSV file with a header, but {path} cannot be read: {first_line(error)}") from None
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DataError(f'expected different columns in {path}, found "{twice[0]}" more than once; rename one')
    table = table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
    rows = Dataset(table)
    where = f"the file {path}"
    chosen = choose_columns(rows.features, asked=asked, where=where)
    return Table(rows=rows, columns=chosen, where=where, folder=Path(os.path.abspath(path)).parent)


def read_arrow_file(path: Path, *, kind: str, asked: Columns) -> Table:
    """Reads a Parquet, Arrow or Feather file into the cache of the `datasets` library, batch by batch."""
    import datasets
    import pyarrow as pa

    where = f"the file {path}"
    try:
        features = datasets.Features.from_arrow_schema(without_dictionaries(_schema(path, kind=kind)))
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise DataError(
            f"expected {where} to be {kind.capitalize()}, but it cannot be read: {first_line(error)}"
        ) from None
    chosen = choose_columns(features, asked=asked, where=where)
    if holds_pictures(features[chosen.image]):
        features[chosen.image] = datasets.Image(decode=False)
    settings: dict[str, Any] = {}
    if kind == "parquet":  # the others are stored by row, so nothing is won by leaving columns out
        used = {chosen.image, chosen.label, chosen.truth, chosen.id}
        features = datasets.Features({name: feature for name, feature in features.items() if name in used})
        settings = {"columns": list(features), "batch_size": _ROWS}
    with quiet(), _reading(where):
        files = glob.escape(str(path))
        rows = datasets.load_dataset(kind, data_files=files, split="train", features=features, **settings)
    return Table(rows=rows, columns=chosen, where=where, folder=Path(os.path.abspath(path)).parent)


def _schema(path: Path, *, kind: str) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet":
        return pq.read_schema(path)
    with pa.memory_map(str(path)) as handle:
        try:
            return pa.ipc.open_stream(handle).schema
        except pa.ArrowInvalid:
            handle.seek(0)
            return pa.ipc.open_file(handle).schema


def without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """Returns a schema in which columns encoded by a dictionary have the type of their values."""
    import pyarrow as pa

    def plain(kind: pa.DataType) -> pa.DataType:
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    return pa.schema([field.with_type(plain(field.type)) for field in schema], metadata=schema.metadata)


def read_saved(path: Path, *, asked: Columns, split: str | None) -> Table:
    """Reads a folder written by `save_to_disk`, memory mapped where it lies."""
    import datasets

    where = f"the folder {path}"
    with quiet(), _reading(where):
        found = datasets.load_from_disk(str(path))
    return _from_dataset(found, asked=asked, split=split, where=where)


def read_hub(source: str, *, asked: Columns, split: str | None) -> Table:
    """Reads `name/dataset` or `name/dataset:configuration` from the Hub or its cache.

    Of published data sets that are there the columns are known; those of others are guessed.
    """
    import datasets

    name, _, configuration = source.partition(":")
    where = f"the Hub data set {source}"
    _check_hub(name)
    with quiet(), _reading(where):
        builder = datasets.load_dataset_builder(name, name=configuration or None)
        chosen, notes = choose_split(list(builder.info.splits or {}), split, where=where, slices=True)
        rows = datasets.load_dataset(name, name=configuration or None, split=chosen)
    known = HUB.get(name, Columns())
    wish = replace(asked, image=asked.image or known.image, label=asked.label or known.label)
    found = _from_dataset(rows, asked=wish, split=None, where=where)
    return Table(rows=found.rows, columns=found.columns, where=where, notes=(*notes, *found.notes))


def _check_hub(name: str) -> None:
    """Asks once, with a short limit: the loader itself goes on trying for minutes where there is no network."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=_HUB_TIMEOUT)
    except OfflineModeIsEnabled:
        return  # the cache may have it
    except GatedRepoError:
        raise DataError(f"the Hub data set {name} asks for consent; accept its terms on its page and log in") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise DataError(
            f"{name} is neither a path that exists nor a data set on the Hub; check the spelling, or log in if it is "
            "private"
        ) from None
    except Exception as error:  # what the transport raises differs between releases of the library
        raise DataError(
            f"{name} is no path that exists, and the Hub cannot be reached ({type(error).__name__}); check the path or "
            "the network, or set HF_HUB_OFFLINE=1 to use the cache"
        ) from None


def read_dataset(rows: Any, *, asked: Columns, split: str | None, label_needed: bool) -> Table:
    """Takes a `datasets.Dataset`, or a `DatasetDict` with a split."""
    return _from_dataset(rows, asked=asked, split=split, where="the data set", label_needed=label_needed)


def _from_dataset(found: Any, *, asked: Columns, split: str | None, where: str, label_needed: bool = True) -> Table:
    import datasets

    notes: tuple[str, ...] = ()
    if isinstance(found, datasets.DatasetDict):
        chosen, notes = choose_split(list(found), split, where=where)
        found = found[chosen]
    elif split is not None:
        refuse_split(split, where)
    if not isinstance(found, datasets.Dataset):
        raise DataError(f"expected a datasets.Dataset, got {type(found).__name__}; a stream has to be saved first")
    rows = found.with_format(None)  # also drops transforms of the caller, which would be run on every row
    columns = choose_columns(rows.features, asked=asked, where=where, label_needed=label_needed)
    if columns.image and holds_pictures(rows.features[columns.image]):
        with _reading(where):
            rows = rows.cast_column(columns.image, datasets.Image(decode=False))
    return Table(rows=rows, columns=columns, where=where, notes=notes)


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back the progress bars and log lines of the `datasets` library for a while; warnings stay as they are."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)  # errors reach the user as ours, once
    if bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except LabelsieveError:
        raise
    except Exception as error:  # the library wraps what went wrong in errors of many kinds
        cause = error.__cause__ or error
        advice = "; check the file"
        if isinstance(cause, ConnectionError):
            advice = "; check the network, or unset HF_HUB_OFFLINE if it is not in the cache"
        elif isinstance(cause, OSError):
            advice = "; check the disk that holds the cache, which HF_HOME can move"
        raise DataError(f"{where} cannot be read: {first_line(cause)}{advice}") from error
