"""Precomputed features with a given label each, for scans without images and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, first_line, setting, shown
from labelsieve.core.files import expand_home
from labelsieve.core.provenance import fingerprint
from labelsieve.core.validation import LogitScale, range_of
from labelsieve.data.class_notes import class_size_notes
from labelsieve.data.labelled import Labelled
from labelsieve.data.labels import read_labels
from labelsieve.data.origin import check_limit, subset, with_origin
from labelsieve.data.sources.columns import Columns, Table, label_columns
from labelsieve.data.sources.contents import digest_of
from labelsieve.data.sources.feature_files import Stored, read_features_file, read_text_file
from labelsieve.data.sources.table_labels import labels_in_memory, read_ids, read_table_labels


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFeatures(Labelled):
    """N rows of features with a given label each, instead of images.

    Attributes:
        features: Shape (N, D), float32, finite; in the same embedding space as `text`, if that is given. Norms
            only matter for linear fits.
        ids: N unique names.
        labels: Shape (N,), int64, values 0 to K-1: the given labels, indices into `class_names`.
        class_names: The K names, in the order of the indices.
        contents: Shape (N,), uint64: a hash of each row of features; equal rows have equal hashes.
        text: Shape (K, D), float32, or None: a text feature per class.
        logit_scale: The model's factor from cosine similarity to logit; set if and only if `text` is.
        truth: Shape (N,), int64, or None: the true labels, if they are known. Used for metrics only.
        annotations: The labels of several annotators, whose majority vote is `labels`; None with one label per row.
        origin: Arguments of :func:`labelsieve.load_features` to load the same features, without `text`; empty for
            features in memory.
        notes: Notes of the loader for the user, one line each.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> features = ls.load_features(np.eye(4), labels=["cat", "dog", "cat", "dog"])
        >>> features.features.shape, features.ids[0]
        ((4, 4), '0000000')
        >>> features.with_labels(np.array([0, 1, 1, 0])).labels.tolist()
        [0, 1, 1, 0]
    """

    features: NDArray[np.float32]
    text: NDArray[np.float32] | None = None
    logit_scale: float | None = None

    @cached_property
    def text_fingerprint(self) -> str | None:
        """Fingerprint of the class text features and their scale; None without text features."""
        return None if self.text is None else fingerprint(self.text, self.logit_scale)

    def with_text(self, text: Any, *, logit_scale: float | None) -> LabelledFeatures:
        """Returns the same features with other class text features, shape (K, D); None for both removes them.

        Raises:
            DataError: They do not match the classes or the features, or only one of the two is passed.
        """
        texts = None if text is None else _texts(text, len(self.class_names), self.features.shape[1])
        return replace(self, text=texts, logit_scale=_scale(logit_scale, needed=texts is not None))


def load_features(
    source: Any,
    *,
    labels: Any = None,
    label_column: str | Sequence[str] | None = None,
    truth_column: str | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    text: Any = None,
    logit_scale: float | None = None,
    limit: int | None = None,
    seed: int = 0,
    one_class: bool = False,
) -> LabelledFeatures:
    """Loads precomputed features with a given label each. Nothing is unpickled.

    Args:
        source: A `.npz` file with arrays `features` (N, D) and `labels` (N,), and optionally `ids` (N,), `truth` (N,),
            `class_names` (K,), `text` (K, D) and `logit_scale`; a `.npy` file with `labels.npy` beside it; a Parquet or
            Arrow file with a column `features` of lists of D numbers; or an array (N, D) in memory. Other common names
            of features and labels are also recognised (docs/features.md).
        labels: N names or integers, for an array in memory.
        label_column: Column of the given labels, or array of the `.npz` file. Guessed if only one matches. Several
            columns are the labels of several annotators, see :func:`labelsieve.load_images`.
        truth_column: The same for the true labels, if they are known; `truth` of a `.npz` file is read by default.
            Used for metrics only.
        class_names: As for :func:`labelsieve.load_images`.
        text: Text features of the classes, (K, D), in the order of the class names: an array, a `.npy` file, or a
            `.npz` file with an array `text`. Requires explicit class names, or labels 0 to K-1.
        logit_scale: The model's factor from cosine similarity to logit (for CLIP usually 100); required with `text`.
        limit: Size of a random subset of the rows, which keep their order; all classes are kept.
        seed: Seed of that subset.
        one_class: Whether a single class is allowed, as for `scan(against=...)`.

    Returns:
        The features. Their `notes` list assumptions and irregularities.

    Raises:
        DataError: Features are not finite or have different widths, labels do not match the rows, text features do not
            match the classes, or a file cannot be read. The message is one line with advice.
        SettingsError: `limit` or `seed` is out of range.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> features = ls.load_features(np.eye(4), labels=["cat", "dog", "cat", "dog"])
        >>> len(features), features.class_names, features.labels.tolist()
        (4, ('cat', 'dog'), [0, 1, 0, 1])
    """
    check_limit(limit, seed)
    requested = replace(label_columns(label_column), truth=truth_column)
    stored = _open(source, labels=labels, requested=requested)
    stored = replace(stored, features=_matrix(stored.features, where=stored.table.where))
    features = _assemble(
        stored,
        labels=labels,
        class_names=stored.class_names if class_names is None else class_names,
        text=stored.text if text is None else read_text_file(text),
        logit_scale=stored.logit_scale if logit_scale is None else logit_scale,
        limit=limit,
        seed=seed,
        one_class=one_class,
    )
    named = class_names is not None or features.text is not None
    arguments = {
        "label_column": list(requested.annotators) or requested.label,
        "truth_column": truth_column,
        "class_names": list(features.class_names) if named else None,
        "limit": limit,
        "seed": None if limit is None else seed,
        "one_class": one_class or None,
    }
    return with_origin(features, source, arguments)


def _open(source: Any, *, labels: Any, requested: Columns) -> Stored:
    import pyarrow as pa
    from datasets import Dataset

    if isinstance(source, str | Path):
        if labels is not None:
            raise DataError(
                f"labels go with features in memory only; name the column of a file with {setting('label_column')}"
            )
        return read_features_file(expand_home(source), requested=requested)
    if labels is None:
        raise DataError(
            f"expected a .npz, .npy or .parquet file, or an array with labels=, got {type(source).__name__}"
        )
    if requested.label or requested.truth:
        raise DataError("features in memory have no columns; pass labels=, and the truth to with_labels()")
    where = "the features in memory"
    try:  # fails on rows of different widths, and on tensors of bfloat16 or with gradients
        values = np.asarray(source)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = "rows of different lengths" if "inhomogeneous" in str(error) else first_line(error)
        raise DataError(f"expected features as numbers of shape (N, D) in {where}, found {reason}") from None
    rows = Dataset(pa.table({"row": np.arange(len(values) if values.ndim else 0)}))
    return Stored(features=values, table=Table(rows=rows, columns=Columns(), where=where))


def _assemble(
    stored: Stored,
    *,
    labels: Any,
    class_names: Sequence[str] | str | Path | None,
    text: Any,
    logit_scale: float | None,
    limit: int | None,
    seed: int,
    one_class: bool,
) -> LabelledFeatures:
    table, values, notes = stored.table, stored.features, list(stored.table.notes)
    rows, ids = subset(len(values), limit, seed), read_ids(table, None, notes)
    _check_finite(values, ids, where=table.where)
    labels = None if labels is None else labels_in_memory(labels, table)
    if text is not None and class_names is None:
        class_names = _names_by_number(stored, labels, count=len(np.atleast_1d(text)))
    table_labels = read_table_labels(table, ids, labels=labels, class_names=class_names, one_class=one_class)
    names, indices, truth, note, annotations = table_labels
    notes.append(note)
    texts = None if text is None else _texts(text, len(names), values.shape[1])
    features = LabelledFeatures(
        features=values,
        ids=tuple(ids),
        labels=indices,
        class_names=names,
        contents=np.zeros(len(ids), dtype=np.uint64),  # hashed below, for the subset only
        text=texts,
        logit_scale=_scale(logit_scale, needed=texts is not None),
        truth=truth,
        annotations=annotations,
    )
    if rows is not None:
        notes.append(f"a random subset of {len(rows)} of {len(ids)} rows")
        features = features.take(rows)
    notes += class_size_notes(features.labels, names)
    return replace(features, contents=_hashes(features.features), notes=tuple(notes))


def _matrix(values: NDArray[Any], *, where: str) -> NDArray[np.float32]:
    shape = values.shape
    if len(shape) > 2 and max(shape[1:]) == np.prod(shape[1:], dtype=np.int64):  # as (N, 1, D) or (N, D, 1, 1)
        values = values.reshape(len(values), -1)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        advice = "save one row of D numbers for each image"
        if values.ndim == 3:
            advice += ", such as the class token or the mean over tokens"
        elif values.ndim == 4 and values.shape[-1] in (1, 3, 4):
            advice = "images in memory go to load_images(array, labels=labels)"
        raise DataError(
            f"expected features as numbers of shape (N, D) in {where}, got {values.dtype} of shape {shape}; {advice}"
        )
    with np.errstate(over="ignore"):  # values too large for float32 become infinite, which _check_finite refuses
        return np.ascontiguousarray(values, dtype=np.float32)


def _check_finite(values: NDArray[np.float32], ids: Sequence[str], *, where: str) -> None:
    # a NaN makes minimum and maximum of its row NaN; isfinite() of all values would allocate a byte for each
    rows = np.flatnonzero(~(np.isfinite(values.min(axis=1)) & np.isfinite(values.max(axis=1))))
    if len(rows):
        raise DataError(
            f"expected finite features, but {len(rows)} of {len(values)} rows in {where} hold NaN or infinity "
            f'(first: id "{ids[rows[0]]}"); compute them again or leave these rows out'
        )


def _names_by_number(stored: Stored, labels: Any, *, count: int) -> tuple[str, ...]:
    """Returns the numbers 0 to K-1 as class names, for integer labels with K text features."""
    column = stored.table.columns.label
    values = labels if column is None else stored.table.rows.select_columns([column])[:][column]
    label_values = read_labels(values, where="labels").values
    if not all(isinstance(value, int) for value in label_values):
        raise DataError(
            f"text features need {setting('class_names')}, which say what class each of them is of; pass the names in "
            "their order"
        )
    return tuple(map(str, range(count)))


def _texts(text: Any, classes: int, width: int) -> NDArray[np.float32]:
    values = np.asarray(text)
    if values.shape != (classes, width) or values.dtype.kind not in "fiu":
        raise DataError(
            f"expected text features as numbers of shape ({classes}, {width}), one for each class and as wide as the "
            f"features, got {values.dtype} of shape {values.shape}; compute both with one model"
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise DataError("expected finite text features, found NaN or infinity; compute them again")
    return values


def _scale(value: Any, *, needed: bool) -> float | None:
    if not needed:
        if value is not None:
            raise DataError(
                f"{setting('logit_scale')} goes with text features, which are missing; add them or leave it out"
            )
        return None
    if value is None:
        raise DataError(
            f"text features need the model's {setting('logit_scale')}, the factor from cosine similarity to logit (for "
            "CLIP mostly 100); pass it"
        )
    try:
        scale = float(np.asarray(value).reshape(()))
    except (TypeError, ValueError, OverflowError):
        scale = float("nan")
    limits = range_of(LogitScale)
    if limits is not None and scale not in limits:
        raise DataError(
            f"expected {setting('logit_scale')} {limits}, got {shown(value)}; CLIP's own is e to the power of "
            "its parameter"
        )
    return scale


def _hashes(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(digest_of(row.tobytes()) for row in values), dtype="<u8").astype(np.uint64)
