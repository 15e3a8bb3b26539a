"""Reading features from NumPy, Parquet and Arrow files, without ever unpickling anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, did_you_mean, first_line, listed, shown
from labelsieve.core.registry import loaded
from labelsieve.data.sources.arrow_files import features_of, plain_types, read_schema
from labelsieve.data.sources.columns import (
    LABEL_NAMES,
    OTHER_LABEL_NAMES,
    Columns,
    Table,
    choose_columns,
    holds_numbers,
    may_hold_images,
)
from labelsieve.data.sources.file_kinds import conversion, refuse_pointer
from labelsieve.data.sources.table_formats import TABLE_FORMATS, TYPED_TABLES

# In lower case; the first is the documented one.
FEATURE_NAMES = (
    "features", "feature", "feats", "embeddings", "embedding", "embs", "emb", "image_features", "image_embeddings",
    "image_embeds", "vectors", "x",
)  # fmt: skip
_ARRAY_SUFFIXES = (".npz", ".npy")
# What a .npz file may hold beside one array for each column of labels, truth or ids.
_ARRAYS = ("features", "class_names", "text", "logit_scale")
_IDS, _TRUTH = ("ids", "id"), "truth"
# How `np.savez` calls arrays without names.
_UNNAMED = re.compile(r"arr_\d+")
# How a .npy or .npz file begins, and a pickle.
_NUMPY, _PICKLE = (b"\x93NUMPY", b"PK"), b"\x80"
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
    """Returns whether a source is a file of features rather than of images.

    A NumPy file is; a Parquet or Arrow file is if it has a column with a usual name of features (`FEATURE_NAMES`) of
    lists of numbers and none that holds images or their paths.
    """
    if not isinstance(source, str | Path):
        return False
    path = Path(source).expanduser()
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        return path.is_file()
    kind = TYPED_TABLES.get(path.suffix.lower())
    if kind is None or not path.is_file():
        return False
    try:
        kinds = features_of(read_schema(path, kind=kind), path)
    except DataError:
        return False  # whoever reads it next says why it cannot be read
    return bool(_feature_columns(kinds)) and not may_hold_images(kinds)


def read_features_file(path: Path, *, asked: Columns) -> Stored:
    """Reads a NumPy, Parquet or Arrow file.

    Raises:
        DataError: It cannot be read, or lacks features or labels.
    """
    _check_kind(path)
    suffix = path.suffix.lower()
    if suffix in TYPED_TABLES:
        return _read_table(path, asked=asked, kind=TYPED_TABLES[suffix])
    return _read_npy(path, asked=asked) if suffix == ".npy" else _read_npz(path, asked=asked)


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
    """Returns the names of the arrays of a `.npz` file, or of the columns of a table; of a `.npy` file none.

    Raises:
        DataError: It cannot be read, or is no file of features.
    """
    _check_kind(path)
    suffix = path.suffix.lower()
    if suffix in TYPED_TABLES:
        return list(features_of(read_schema(path, kind=TYPED_TABLES[suffix]), path))
    if suffix == ".npz" and is_zipfile(path):  # else whoever reads it next says what it is
        with ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    return []


def read_text_file(text: Any, *, name: str = "text") -> NDArray[Any]:
    """Returns text features that are given as an array, a `.npy` file, or a `.npz` file with an array of a name."""
    if not isinstance(text, str | Path):
        return np.asarray(text)
    path = Path(text).expanduser()
    found = _load(path)
    if not isinstance(found, dict):
        return np.asarray(found)
    if name not in found:
        raise DataError(f'expected an array "{name}" in {path}, found {_names_of(found)}; add it or pass a .npy file')
    return np.asarray(found[name])


def _load(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    """Reads the arrays of a NumPy file; Python objects in it are refused, since loading them can run any code."""
    refuse_pointer(path)
    try:
        with path.open("rb") as file:  # a damaged file is closed, too
            head = file.read(6)
            file.seek(0)
            if head and not head.startswith((*_NUMPY, _PICKLE)):
                raise ValueError("it is none")
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
        reason = first_line(error)
        raise DataError(f"expected a NumPy file, but {path} cannot be read: {reason}; write it again") from None


def _read_npy(path: Path, *, asked: Columns) -> Stored:
    """Reads an array of features, and their labels from the file beside it: `labels.npy` of `features.npy`."""
    if asked.label or asked.truth:
        raise DataError(
            f"{path} holds one array and no columns; leave out --label-column and --truth-column, or save all with "
            "np.savez"
        )
    features, beside = _load(path), _labels_beside(path)
    if not isinstance(features, np.ndarray):
        raise DataError(f"expected one array in {path}, found several; rename it to .npz")
    labels = _load(beside)
    where = f"the file {path}"
    if not isinstance(labels, np.ndarray):
        raise DataError(f"expected one array in {beside}, found several; save the labels with np.save")
    stored = _from_arrays({"features": features, "labels": labels}, asked=Columns(), where=where)
    return replace(
        stored, table=replace(stored.table, notes=(f"the labels are those of {beside}", *stored.table.notes))
    )


def _labels_beside(path: Path) -> Path:
    """Returns the file of labels that goes with a file of features by its name, as `y_test.npy` with `X_test.npy`."""
    words = path.stem.lower()
    names = [name for name in sorted(FEATURE_NAMES, key=len, reverse=True) if re.search(_word(name), words)]
    wanted = {
        re.sub(_word(name), label, words, count=1) for name in names[:1] for label in (*LABEL_NAMES, *OTHER_LABEL_NAMES)
    }
    wanted |= {"labels"} if not names else set()
    found = sorted(
        each for each in path.parent.iterdir() if each.suffix.lower() == ".npy" and each.stem.lower() in wanted
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"expected one file of labels beside {path}, found {listed(each.name for each in found)}; save the right "
            'one with the features: np.savez("features.npz", features=..., labels=...)'
        )
    name = re.sub(_word(names[0]), "labels", words, count=1) if names else "labels"
    raise DataError(
        f"{path} holds features alone; save their labels beside it as {name}.npy, or both in one file: "
        'np.savez("features.npz", features=..., labels=...)'
    )


def _word(name: str) -> str:
    return rf"(?<![a-z0-9]){name}(?![a-z0-9])"


def _read_npz(path: Path, *, asked: Columns) -> Stored:
    where, arrays = f"the file {path}", _load(path)
    if not isinstance(arrays, dict):
        raise DataError(f'expected an array "features" in {where}, found a single array; save it with np.savez')
    return _from_arrays(arrays, asked=asked, where=where)


def _from_arrays(arrays: Mapping[str, NDArray[Any]], *, asked: Columns, where: str) -> Stored:
    import pyarrow as pa
    from datasets import Dataset

    name = _features_array(arrays, where=where)
    features, known = arrays[name], {name, *_ARRAYS}
    columns = {each: np.ravel(value) for each, value in arrays.items() if each not in known and _is_column(value)}
    notes = [] if name == "features" else [f'the features are the array "{shown(name)}"']
    chosen = _npz_columns(columns, asked, arrays, where=where)
    if chosen.label and _UNNAMED.fullmatch(chosen.label):
        notes.append(f'the labels are the array "{chosen.label}"')
    used = chosen.labels
    for each in used:
        if features.ndim and len(columns[each]) != len(features):
            raise DataError(
                f'expected one value of "{shown(each)}" for each of {len(features)} rows of features in {where}, found '
                f"{len(columns[each])}; save both from the same images"
            )
    left_out = [each for each in arrays if each not in known and each not in used]
    notes += [
        f'the array "{shown(each)}" was left out{did_you_mean(each, (*_ARRAYS, "ids", _TRUTH))}' for each in left_out
    ]
    rows = Dataset(pa.table({each: pa.array(columns[each].tolist()) for each in used}))
    names = arrays.get("class_names")
    return Stored(
        features=features,
        table=Table(rows=rows, columns=chosen, where=where, notes=tuple(notes)),
        class_names=None if names is None else _names(names, where=where),
        text=arrays.get("text"),
        logit_scale=arrays.get("logit_scale"),
    )


def _is_column(values: NDArray[Any]) -> bool:
    """Returns whether an array has one value a row, (N,) or (N, 1)."""
    return values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)


def _features_array(arrays: Mapping[str, NDArray[Any]], *, where: str) -> str:
    """Returns the name of the array of features: `features`, another usual one, or of unnamed ones that of rows."""
    if "features" in arrays:
        return "features"
    found = [name for name, value in arrays.items() if name.lower() in FEATURE_NAMES and value.ndim > 1]
    found = found or [name for name, value in arrays.items() if _UNNAMED.fullmatch(name) and not _is_column(value)]
    if len(found) == 1:
        return found[0]
    several = f"several that fit: {_names_of(found)}" if found else _names_of(arrays)
    raise DataError(f'expected an array "features" in {where}, found {several}; save it with np.savez')


def _names(names: NDArray[Any], *, where: str) -> tuple[str, ...]:
    if names.dtype.kind == "S":
        raise DataError(f'expected texts in "class_names" of {where}, found bytes; save them as an array of str')
    return tuple(map(str, np.ravel(names).tolist()))


def _npz_columns(
    columns: Mapping[str, NDArray[Any]], asked: Columns, arrays: Mapping[str, NDArray[Any]], *, where: str
) -> Columns:
    truth = asked.truth or (_TRUTH if _TRUTH in columns else None)
    unnamed = [name for name in columns if _UNNAMED.fullmatch(name)]
    label = asked.label or (unnamed[0] if len(unnamed) == 1 == len(columns) else None)
    flat = [name for name in arrays if name.lower() in (*LABEL_NAMES, *OTHER_LABEL_NAMES) and name not in columns]
    if label is None and flat and not any(name.lower() in (*LABEL_NAMES, *OTHER_LABEL_NAMES) for name in columns):
        raise DataError(
            f'expected one label a row in the array "{shown(flat[0])}" of {where}, got shape {arrays[flat[0]].shape}; '
            "if they are one-hot, save labels.argmax(axis=1)"
        )
    if not columns and not asked.label:
        raise DataError(f"{where} holds features and no labels; save both: np.savez(FILE, features=..., labels=...)")
    wish = Columns(label=label, truth=truth, annotators=asked.annotators)
    chosen = choose_columns(columns, asked=wish, where=where, image_needed=False)
    ids = next((name for name in _IDS if name in columns and name not in chosen.labels), None)
    return replace(chosen, id=ids)


def _read_table(path: Path, *, asked: Columns, kind: str) -> Stored:
    import pyarrow as pa
    from datasets import Dataset

    where, format = f"the file {path}", TABLE_FORMATS.entries[kind]
    schema, batches = read_schema(path, kind=kind), loaded(format.batches)
    kinds = features_of(schema, path)
    found = _feature_columns(kinds)
    if len(found) != 1:
        raise DataError(
            f"expected one column of lists of numbers named {listed(FEATURE_NAMES[:6], quoted=True)} in {where}, found "
            f"{_names_of(found or kinds)}; rename the column of features"
        )
    others = {name: each for name, each in kinds.items() if name != found[0]}
    chosen = choose_columns(others, asked=asked, where=where, image_needed=False)
    used = list(chosen.labels)
    try:
        parts = [*batches(path, columns=used, rows=_ROWS)]
        labels = pa.Table.from_batches(parts) if parts else schema.empty_table().select(used)
        features = _read_lists(
            batches(path, columns=found, rows=_ROWS), found[0], count=loaded(format.count)(path), where=where
        )
    except (OSError, pa.ArrowException):
        raise DataError(f"{where} cannot be read: it is damaged or cut off; write it again") from None
    rows = Dataset(labels.cast(plain_types(labels.schema)))
    notes = (
        ()
        if found[0].lower() in ("features", "embedding", "embeddings")
        else (f'the features are the column "{shown(found[0])}"',)
    )
    return Stored(features=features, table=Table(rows=rows, columns=chosen, where=where, notes=notes))


def _feature_columns(kinds: Mapping[str, Any]) -> list[str]:
    return [name for name, kind in kinds.items() if name.lower() in FEATURE_NAMES and holds_numbers(kind)]


def _read_lists(batches: Iterable[Any], name: str, *, count: int, where: str) -> NDArray[np.float32]:
    """Reads a column of equally long lists, some rows at a time: shape (N, D)."""
    import pyarrow.compute as pc

    features = np.empty((0, 0), dtype=np.float32)
    at = 0
    for batch in batches:
        column = batch.column(0)
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
        if not at:
            features = np.empty((count, max(int(lengths[0]), 0)), dtype=np.float32)
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


def _names_of(names: Iterable[str]) -> str:
    return listed(names, quoted=True) or "nothing"
