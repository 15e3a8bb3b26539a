"""Reading features from `.npz` and Parquet files, without ever unpickling anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.columns import Columns, Table, choose_columns, may_hold_images
from labelsieve.data.readers import without_dictionaries
from labelsieve.errors import DataError, did_you_mean

FEATURE_NAMES = ("features", "embedding", "embeddings")
# What a .npz file may hold beside one array for each column of labels, truth or ids.
_ARRAYS = ("features", "class_names", "text", "logit_scale")
_IDS, _TRUTH = ("ids", "id"), "truth"
_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a file of features holds.

    Attributes:
        features: The features as they came, not checked yet.
        table: Labels, truth and ids, one row for each row of features.
        class_names: Class names in the order of label numbers, if the file has them.
        text: Text features of the classes, if the file has them.
        logit_scale: The scale that goes with them.
    """

    features: NDArray[Any]
    table: Table
    class_names: tuple[str, ...] | None = None
    text: NDArray[Any] | None = None
    logit_scale: Any = None


def holds_features(source: Any) -> bool:
    """Tells whether a source is a file of features rather than of images.

    A `.npz` file is; a Parquet file is if it has a column `features`, `embedding` or `embeddings` of lists of numbers
    and none that holds pictures or paths of images.
    """
    if not isinstance(source, str | Path):
        return False
    path = Path(source).expanduser()
    if path.suffix.lower() == ".npz":
        return path.is_file()
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        schema, kinds = _parquet_schema(path)
    except DataError:
        return False  # whoever reads it next says why it cannot be read
    return bool(_feature_columns(schema)) and not may_hold_images(kinds)


def read_features_file(path: Path, *, asked: Columns) -> Stored:
    """Reads a `.npz` or `.parquet` file.

    Raises:
        DataError: It cannot be read, or lacks features or labels.
    """
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    kind = path.suffix.lower()
    if not path.is_file() or kind not in readers:
        found = "does not exist" if not path.exists() else "is none"
        raise DataError(f"expected a file of features ending in .npz or .parquet, but {path} {found}; check the path")
    return readers[kind](path, asked=asked)


def read_text_file(text: Any) -> NDArray[Any]:
    """Returns text features that are given as an array, a `.npy` file, or a `.npz` file with an array `text`."""
    if not isinstance(text, str | Path):
        return np.asarray(text)
    path = Path(text).expanduser()
    found = _load(path)
    if not isinstance(found, dict):
        return np.asarray(found)
    if "text" not in found:
        raise DataError(f'expected an array "text" in {path}, found {_listed(found)}; add it or pass a .npy file')
    return np.asarray(found["text"])


def _load(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    """Reads the arrays of a NumPy file; Python objects in it are refused, since loading them can run any code."""
    try:
        with path.open("rb") as file:  # a damaged file is closed, too
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise DataError(f"expected a NumPy file, but {path} does not exist; check the path") from None
    except Exception as error:  # on damaged files the readers raise nearly anything
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are never loaded; save texts as np.array(values, dtype=str) and "
                "numbers as one array"
            ) from None
        raise DataError(f"expected a NumPy file, but {path} cannot be read: {error}; write it again") from None


def _read_npz(path: Path, *, asked: Columns) -> Stored:
    import pyarrow as pa
    from datasets import Dataset

    where, arrays = f"the file {path}", _load(path)
    if not isinstance(arrays, dict) or "features" not in arrays:
        found = _listed(arrays) if isinstance(arrays, dict) else "a single array"
        raise DataError(f'expected an array "features" in {where}, found {found}; save it with np.savez')
    features = arrays["features"]
    columns = {name: value for name, value in arrays.items() if name not in _ARRAYS and value.ndim == 1}
    left_out = [name for name in arrays if name not in _ARRAYS and name not in columns]
    chosen = _npz_columns(columns, asked, where=where)
    used = [name for name in (chosen.label, chosen.truth, chosen.id) if name is not None]
    for name in used:
        if features.ndim and len(columns[name]) != len(features):
            raise DataError(
                f'expected one value of "{name}" for each of {len(features)} rows of features in {where}, found '
                f"{len(columns[name])}; save both from the same images"
            )
    left_out += [name for name in columns if name not in used]
    notes = [f'the array "{name}" was left out{did_you_mean(name, (*_ARRAYS, "ids", _TRUTH))}' for name in left_out]
    rows = Dataset(pa.table({name: pa.array(columns[name].tolist()) for name in used}))
    names = arrays.get("class_names")
    return Stored(
        features=features,
        table=Table(rows=rows, columns=chosen, where=where, notes=tuple(notes)),
        class_names=None if names is None else _names(names, where=where),
        text=arrays.get("text"),
        logit_scale=arrays.get("logit_scale"),
    )


def _names(names: NDArray[Any], *, where: str) -> tuple[str, ...]:
    if names.dtype.kind == "S":
        raise DataError(f'expected texts in "class_names" of {where}, found bytes; save them as an array of str')
    return tuple(map(str, np.ravel(names).tolist()))


def _npz_columns(columns: Mapping[str, NDArray[Any]], asked: Columns, *, where: str) -> Columns:
    truth = asked.truth or (_TRUTH if _TRUTH in columns else None)
    wish = Columns(label=asked.label, truth=truth)
    chosen = choose_columns(columns, asked=wish, where=where, image_needed=False)
    ids = next((name for name in _IDS if name in columns and name != chosen.label), None)
    return Columns(label=chosen.label, truth=chosen.truth, id=ids)


def _read_parquet(path: Path, *, asked: Columns) -> Stored:
    import pyarrow.parquet as pq
    from datasets import Dataset

    where = f"the file {path}"
    schema, kinds = _parquet_schema(path)
    found = _feature_columns(schema)
    if len(found) != 1:
        wanted = ", ".join(f'"{name}"' for name in FEATURE_NAMES)
        raise DataError(
            f"expected one column of lists of numbers named {wanted} in {where}, found "
            f"{_listed(found or schema.names)}; rename the column of features"
        )
    others = {name: kind for name, kind in kinds.items() if name != found[0]}
    chosen = choose_columns(others, asked=asked, where=where, image_needed=False)
    used = [name for name in (chosen.label, chosen.truth, chosen.id) if name is not None]
    try:
        labels = pq.read_table(path, columns=used)
        features = _read_lists(pq.ParquetFile(path), found[0], where=where)
    except (OSError, ValueError) as error:  # those of Arrow are ValueErrors too
        raise DataError(f"{where} cannot be read: {error}; write it again") from None
    rows = Dataset(labels.cast(without_dictionaries(labels.schema)))
    return Stored(features=features, table=Table(rows=rows, columns=chosen, where=where))


def _parquet_schema(path: Path) -> tuple[Any, Mapping[str, Any]]:
    """Returns the Arrow schema and the kinds of columns as the `datasets` library has them."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        return schema, datasets.Features.from_arrow_schema(without_dictionaries(schema))
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise DataError(f"expected the file {path} to be Parquet, but it cannot be read: {error}") from None


def _feature_columns(schema: Any) -> list[str]:
    import pyarrow.types as types

    def fits(kind: Any) -> bool:
        listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(listed and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))

    return [field.name for field in schema if field.name.lower() in FEATURE_NAMES and fits(field.type)]


def _read_lists(file: Any, name: str, *, where: str) -> NDArray[np.float32]:
    """Reads a column of equally long lists, some rows at a time: shape (N, D)."""
    import pyarrow.compute as pc

    features = np.empty((0, 0), dtype=np.float32)
    at = 0
    for batch in file.iter_batches(batch_size=_ROWS, columns=[name]):
        column = batch.column(0)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
        if not at:
            features = np.empty((file.metadata.num_rows, max(int(lengths[0]), 0)), dtype=np.float32)
        wrong = np.flatnonzero(lengths != features.shape[1])
        if len(wrong):
            raise DataError(
                f'expected lists of {features.shape[1]} numbers in the column "{name}" of {where}, found '
                f"{max(int(lengths[wrong[0]]), 0)} in row {at + int(wrong[0]) + 1}; compute all with one model"
            )
        with np.errstate(over="ignore"):
            values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)  # what is null becomes NaN
        features[at : at + len(lengths)] = values.reshape(len(lengths), -1)
        at += len(lengths)
    return features


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names) or "nothing"
