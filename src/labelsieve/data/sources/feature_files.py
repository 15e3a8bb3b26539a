"""Reads features from NumPy, Parquet and Arrow files, without unpickling anything."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, did_you_mean, first_line, listed, setting, shown
from labelsieve.core.files import check_reachable, expand_home
from labelsieve.data.sources.arrow_files import (
    batches,
    count_rows,
    features_of,
    plain_types,
    read_schema,
    refuse_duplicates,
)
from labelsieve.data.sources.column_kinds import holds_numbers
from labelsieve.data.sources.columns import (
    LABEL_NAMES,
    OTHER_LABEL_NAMES,
    Columns,
    Table,
    choose_columns,
    may_hold_images,
)
from labelsieve.data.sources.file_kinds import conversion, refuse_pointer
from labelsieve.data.sources.table_formats import TYPED_TABLES

# Names of arrays and columns of features, in lower case; the first is the documented one.
FEATURE_NAMES = (
    "features", "feature", "feats", "embeddings", "embedding", "embs", "emb", "image_features", "image_embeddings",
    "image_embeds", "vectors", "x",
)  # fmt: skip
_ARRAY_SUFFIXES = (".npz", ".npy")
# Arrays of a .npz file besides the columns of labels, truth and ids.
_ARRAYS = ("features", "class_names", "text", "logit_scale")
_IDS, _TRUTH = ("ids", "id"), "truth"
# Names that `np.savez` gives to unnamed arrays.
_UNNAMED = re.compile(r"arr_\d+")
# First bytes of a .npy file, a .npz file, and a pickle.
_NUMPY, _PICKLE = (b"\x93NUMPY", b"PK"), b"\x80"
_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The contents of a file of features.

    Attributes:
        features: The features as read, not checked yet.
        table: Labels, truth and ids, one row for each row of features.
        class_names: Class names in the order of label numbers, if the file has them.
        text: Text features of the classes, if the file has them.
        logit_scale: The factor from cosine similarity to logit, if the file has it.
    """

    features: NDArray[Any]
    table: Table
    class_names: tuple[str, ...] | None = None
    text: NDArray[Any] | None = None
    logit_scale: Any = None


def holds_features(source: Any) -> bool:
    """Returns whether a source is a file of features rather than of images.

    NumPy files always hold features. Parquet and Arrow files do if they have a column of lists of numbers with a common
    name (`FEATURE_NAMES`), and no column of images or their paths.
    """
    if not isinstance(source, str | Path):
        return False
    path = expand_home(source)
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        return os.path.isfile(path)
    if path.suffix.lower() not in TYPED_TABLES or not os.path.isfile(path):
        return False
    try:
        kinds = features_of(read_schema(path), path)
    except DataError:
        return False  # the next reader reports why it cannot be read
    return bool(_feature_columns(kinds)) and not may_hold_images(kinds)


def read_features_file(path: Path, *, requested: Columns) -> Stored:
    """Reads a NumPy, Parquet or Arrow file.

    Raises:
        DataError: It cannot be read, or lacks features or labels.
    """
    check_reachable(path, DataError)
    _check_kind(path)
    suffix = path.suffix.lower()
    if suffix in TYPED_TABLES:
        return _read_table(path, requested=requested)
    return _read_npy(path, requested=requested) if suffix == ".npy" else _read_npz(path, requested=requested)


def _check_kind(path: Path) -> None:
    *first, last = *_ARRAY_SUFFIXES, *TYPED_TABLES
    expected = f"expected a file of features ending in {', '.join(first)} or {last}"
    suffix = path.suffix.lower()
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{expected}, but {path} {state}; check the path")
    if suffix not in _ARRAY_SUFFIXES and suffix not in TYPED_TABLES:
        raise DataError(f"{expected}, but {path} is none; {conversion(path) or 'convert it first'}")
    refuse_pointer(path)


def stored_names(path: Path) -> list[str]:
    """Returns the names of the arrays of a `.npz` file, or of the columns of a table; none for a `.npy` file.

    Raises:
        DataError: It cannot be read, or is not a file of features.
    """
    _check_kind(path)
    suffix = path.suffix.lower()
    if suffix in TYPED_TABLES:
        return list(features_of(read_schema(path), path))
    if suffix == ".npz" and is_zipfile(path):  # otherwise the next reader reports the actual type
        with ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    return []


def read_text_file(text: Any, *, name: str = "text") -> NDArray[Any]:
    """Returns text features from an array, a `.npy` file, or a `.npz` file with an array of this name."""
    if not isinstance(text, str | Path):
        return np.asarray(text)
    path = expand_home(text)
    arrays = _load(path)
    if not isinstance(arrays, dict):
        return np.asarray(arrays)
    if name not in arrays:
        raise DataError(f'expected an array "{name}" in {path}, found {_names_of(arrays)}; add it or pass a .npy file')
    return np.asarray(arrays[name])


def _load(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    """Reads the arrays of a NumPy file; rejects Python objects, because loading them can run arbitrary code."""
    refuse_pointer(path)
    try:
        with path.open("rb") as file:  # also closes damaged files
            head = file.read(6)
            file.seek(0)
            if head and not head.startswith((*_NUMPY, _PICKLE)):
                raise ValueError("it is none")
            arrays = np.load(file, allow_pickle=False)
            return arrays if isinstance(arrays, np.ndarray) else {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise DataError(f"expected a NumPy file, but {path} does not exist; check the path") from None
    except Exception as error:  # readers raise many kinds of errors on damaged files
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are never loaded; save texts as np.array(values, dtype=str) and "
                "numbers as one array"
            ) from None
        reason = first_line(error)
        raise DataError(f"expected a NumPy file, but {path} cannot be read: {reason}; write it again") from None


def _read_npy(path: Path, *, requested: Columns) -> Stored:
    """Reads an array of features, and their labels from the file beside it, such as `labels.npy`."""
    if requested.label or requested.truth:
        column = setting("label_column" if requested.label else "truth_column")
        raise DataError(f"{path} holds one array and no columns; leave out {column}, or save all with np.savez")
    features, label_file = _load(path), _label_file(path)
    if not isinstance(features, np.ndarray):
        raise DataError(f"expected one array in {path}, found several; rename it to .npz")
    labels = _load(label_file)
    where = f"the file {path}"
    if not isinstance(labels, np.ndarray):
        raise DataError(f"expected one array in {label_file}, found several; save the labels with np.save")
    stored = _from_arrays({"features": features, "labels": labels}, requested=Columns(), where=where)
    return replace(
        stored, table=replace(stored.table, notes=(f"the labels are those of {label_file}", *stored.table.notes))
    )


def _label_file(path: Path) -> Path:
    """Returns the file of labels that matches the name of a file of features: `y_test.npy` for `X_test.npy`."""
    words = path.stem.lower()
    names = [name for name in sorted(FEATURE_NAMES, key=len, reverse=True) if re.search(_word(name), words)]
    stems = {
        re.sub(_word(name), label, words, count=1) for name in names[:1] for label in (*LABEL_NAMES, *OTHER_LABEL_NAMES)
    }
    stems |= {"labels"} if not names else set()
    candidates = sorted(
        each for each in path.parent.iterdir() if each.suffix.lower() == ".npy" and each.stem.lower() in stems
    )
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise DataError(
            f"expected one file of labels beside {path}, found {listed(each.name for each in candidates)}; save the "
            'right one with the features: np.savez("features.npz", features=..., labels=...)'
        )
    name = re.sub(_word(names[0]), "labels", words, count=1) if names else "labels"
    raise DataError(
        f"{path} holds features alone; save their labels beside it as {name}.npy, or both in one file: "
        'np.savez("features.npz", features=..., labels=...)'
    )


def _word(name: str) -> str:
    return rf"(?<![a-z0-9]){name}(?![a-z0-9])"


def _read_npz(path: Path, *, requested: Columns) -> Stored:
    where, arrays = f"the file {path}", _load(path)
    if not isinstance(arrays, dict):
        raise DataError(f'expected an array "features" in {where}, found a single array; save it with np.savez')
    return _from_arrays(arrays, requested=requested, where=where)


def _from_arrays(arrays: Mapping[str, NDArray[Any]], *, requested: Columns, where: str) -> Stored:
    from datasets import Dataset

    name = _features_array(arrays, where=where)
    features, reserved = arrays[name], {name, *_ARRAYS}
    columns = {
        array_name: np.ravel(value)
        for array_name, value in arrays.items()
        if array_name not in reserved and _is_column(value)
    }
    notes = [] if name == "features" else [f'the features are the array "{shown(name)}"']
    chosen = _npz_columns(columns, requested, arrays, where=where)
    if chosen.label and _UNNAMED.fullmatch(chosen.label):
        notes.append(f'the labels are the array "{chosen.label}"')
    used = chosen.labels_and_ids
    for array_name in used:
        if features.ndim and len(columns[array_name]) != len(features):
            raise DataError(
                f'expected one value of "{shown(array_name)}" for each of {len(features)} rows of features in {where}, '
                f"found {len(columns[array_name])}; save both from the same images"
            )
    unused = [array_name for array_name in arrays if array_name not in reserved and array_name not in used]
    notes += [
        f'the array "{shown(array_name)}" was left out{did_you_mean(array_name, (*_ARRAYS, "ids", _TRUTH))}'
        for array_name in unused
    ]
    rows = Dataset(pa.table({array_name: _arrow_array(columns[array_name], array_name, where) for array_name in used}))
    names = arrays.get("class_names")
    return Stored(
        features=features,
        table=Table(rows=rows, columns=chosen, where=where, notes=tuple(notes)),
        class_names=None if names is None else _names(names, where=where),
        text=arrays.get("text"),
        logit_scale=arrays.get("logit_scale"),
    )


def _arrow_array(values: NDArray[Any], name: str, where: str) -> Any:
    try:  # from a list, Arrow would read unsigned integers as signed ones
        return pa.array(values if values.dtype.kind == "u" else values.tolist())
    except (pa.ArrowException, ValueError) as error:
        reason = first_line(error) if values.dtype.kind in "US" else str(values.dtype)
        raise DataError(f'expected texts or numbers in the array "{shown(name)}" of {where}, found {reason}') from None


def _is_column(values: NDArray[Any]) -> bool:
    """Returns whether an array has one value per row, (N,) or (N, 1)."""
    return values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)


def _features_array(arrays: Mapping[str, NDArray[Any]], *, where: str) -> str:
    """Returns the name of the array of features: `features`, another common name, or the only unnamed matrix."""
    if "features" in arrays:
        return "features"
    candidates = [name for name, value in arrays.items() if name.lower() in FEATURE_NAMES and value.ndim > 1]
    candidates = candidates or [
        name for name, value in arrays.items() if _UNNAMED.fullmatch(name) and not _is_column(value)
    ]
    if len(candidates) == 1:
        return candidates[0]
    several = f"several that fit: {_names_of(candidates)}" if candidates else _names_of(arrays)
    raise DataError(f'expected an array "features" in {where}, found {several}; save it with np.savez')


def _names(names: NDArray[Any], *, where: str) -> tuple[str, ...]:
    if names.dtype.kind == "S":
        raise DataError(f'expected texts in "class_names" of {where}, found bytes; save them as an array of str')
    return tuple(map(str, np.ravel(names).tolist()))


def _npz_columns(
    columns: Mapping[str, NDArray[Any]], requested: Columns, arrays: Mapping[str, NDArray[Any]], *, where: str
) -> Columns:
    truth = requested.truth or (_TRUTH if _TRUTH in columns else None)
    unnamed = [name for name in columns if _UNNAMED.fullmatch(name)]
    label = requested.label or (unnamed[0] if len(unnamed) == 1 == len(columns) else None)
    flat = [name for name in arrays if name.lower() in (*LABEL_NAMES, *OTHER_LABEL_NAMES) and name not in columns]
    if label is None and flat and not any(name.lower() in (*LABEL_NAMES, *OTHER_LABEL_NAMES) for name in columns):
        raise DataError(
            f'expected one label a row in the array "{shown(flat[0])}" of {where}, got shape {arrays[flat[0]].shape}; '
            "if they are one-hot, save labels.argmax(axis=1)"
        )
    if not columns and not requested.label:
        raise DataError(f"{where} holds features and no labels; save both: np.savez(FILE, features=..., labels=...)")
    wish = Columns(label=label, truth=truth, annotators=requested.annotators)
    chosen = choose_columns(columns, requested=wish, where=where, image_needed=False)
    ids = next((name for name in _IDS if name in columns and name not in chosen.labels_and_ids), None)
    return replace(chosen, id=ids)


def _read_table(path: Path, *, requested: Columns) -> Stored:
    from datasets import Dataset

    where, schema = f"the file {path}", read_schema(path)
    kinds = features_of(schema, path)
    candidates = _feature_columns(kinds)
    if len(candidates) != 1:
        raise DataError(
            f"expected one column of lists of numbers named {listed(FEATURE_NAMES[:6], quoted=True)} in {where}, found "
            f"{_names_of(candidates or kinds)}; rename the column of features"
        )
    other_features = {name: each for name, each in kinds.items() if name != candidates[0]}
    chosen = choose_columns(other_features, requested=requested, where=where, image_needed=False)
    used = list(chosen.labels_and_ids)
    refuse_duplicates([*candidates, *used], schema, path)
    try:
        parts = [*batches(path, columns=used, rows=_ROWS)]
        labels = pa.Table.from_batches(parts) if parts else schema.empty_table().select(used)
        features = _read_lists(
            batches(path, columns=candidates, rows=_ROWS), candidates[0], count=count_rows(path), where=where
        )
    except (OSError, pa.ArrowException):
        raise DataError(f"{where} cannot be read: it is damaged or cut off; write it again") from None
    rows = Dataset(labels.cast(plain_types(labels.schema)))
    notes = (
        ()
        if candidates[0].lower() in ("features", "embedding", "embeddings")
        else (f'the features are the column "{shown(candidates[0])}"',)
    )
    return Stored(features=features, table=Table(rows=rows, columns=chosen, where=where, notes=notes))


def _feature_columns(kinds: Mapping[str, Any]) -> list[str]:
    return [name for name, kind in kinds.items() if name.lower() in FEATURE_NAMES and holds_numbers(kind)]


def _read_lists(parts: Iterable[Any], name: str, *, count: int, where: str) -> NDArray[np.float32]:
    """Reads a column of lists of equal length, batch by batch: shape (N, D)."""
    features = np.empty((0, 0), dtype=np.float32)
    at = width = 0
    for batch in parts:
        column = batch.column(0)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
        if not at:
            width = int(next(iter(lengths[lengths > 0]), 0))
            features = np.empty((count, width), dtype=np.float32)
        wrong = np.flatnonzero(lengths != width)
        if len(wrong):
            expected = f"lists of {width} numbers" if width else "lists of numbers"
            raise DataError(
                f'expected {expected} in the column "{name}" of {where}, found {max(int(lengths[wrong[0]]), 0)} in row '
                f"{at + int(wrong[0]) + 1}; compute all with one model"
            )
        with np.errstate(over="ignore"):
            values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)  # null becomes NaN
        features[at : at + len(lengths)] = values.reshape(len(lengths), -1)
        at += len(lengths)
    return features


def _names_of(names: Iterable[str]) -> str:
    return listed(names, quoted=True) or "nothing"
