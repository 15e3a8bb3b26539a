"""Class names, and labels as indices into them.

Two names are the same class if they are equal after :func:`normalise`, such as `T-Shirt` and `t_shirt`, or names that
look the same but are encoded differently: `é` as one or two code points, or with invisible characters.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, did_you_mean, first_line, listed, setting, shown
from labelsieve.core.files import expand_home, is_utf8

# Compatibility forms that look like their canonical form, unlike superscripts and circled digits.
_EQUIVALENT_FORMS = ("<wide>", "<narrow>", "<noBreak>", "<compat>")
# Combining marks and letters without a glyph: grapheme joiner, fillers of Hangul, variation selectors, Braille blank.
_INVISIBLE = frozenset(map(chr, (0x34F, 0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, *range(0xFE00, 0xFE10))))
# Tag characters, the only difference between flags of regions.
_TAGS = frozenset(map(chr, range(0xE0020, 0xE0080)))


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """The labels of N images, as read.

    Attributes:
        where: Name of the column, for messages.
        values: The distinct values: names, or integers that are indices into class names from another source.
        codes: Shape (N,), int64: index into `values`, -1 where the label is missing.
        class_names: The class names that came with the labels, or None.
        names_from: Source of `class_names`, for a note.
    """

    where: str
    values: tuple[str | int, ...]
    codes: NDArray[np.int64]
    class_names: tuple[str, ...] | None = None
    names_from: str = ""


@lru_cache(maxsize=2**16)  # a few distinct names make up many answers and labels
def normalise(name: str) -> str:
    r"""Returns the form in which names are compared.

    It is in lower case, with `_` and dashes as spaces, single spaces, composed accents, full-width characters in normal
    width, and without invisible characters. Numbers stay unchanged: `-1` is not `1`.

    Example:
        >>> normalise("T-Shirt") == normalise("t_shirt\u200b")
        True
    """
    # some invisible characters are white space and separate words
    simplified = "".join(
        unicodedata.normalize("NFKC", character) if _looks_equal(character) else character for character in name
    )
    visible = "".join(character for character in simplified if character.isspace() or not _is_invisible(character))
    stripped = unicodedata.normalize("NFC", visible).strip()
    if stripped.removeprefix("-").isdecimal():
        return stripped
    spaced = "".join(
        " " if unicodedata.category(character) in ("Pd", "Pc") else character for character in stripped.casefold()
    )
    return unicodedata.normalize("NFC", " ".join(spaced.split())) or stripped


def _looks_equal(character: str) -> bool:
    return unicodedata.decomposition(character).startswith(_EQUIVALENT_FORMS)


def _is_invisible(character: str) -> bool:
    """Returns whether a character is invisible: zero width, direction marks, control characters."""
    if character in _INVISIBLE or "\U000e0100" <= character <= "\U000e01ef":
        return True
    return unicodedata.category(character) in ("Cf", "Cc") and character not in _TAGS


def read_labels(
    column: Any, *, where: str, names_of_integers: Sequence[str] | None = None, names_from: str = ""
) -> LabelColumn:
    """Reads labels from an Arrow array or a sequence.

    Args:
        column: N names or integers; integral floats, which pandas writes for integers with gaps, count as integers.
            Missing labels are null, NaN, an empty text or, with `names_of_integers`, -1.
        where: Name of the labels, for messages.
        names_of_integers: Class names that integers refer to, if they come with the labels (as in a `ClassLabel`).
        names_from: Source of `names_of_integers`, for a note.

    Raises:
        DataError: The values are neither names nor integers, or outside of `names_of_integers`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, from_pandas=True)
        if not pa.types.is_dictionary(array.type):
            array = pc.dictionary_encode(array)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        raw, codes = array.dictionary.to_pylist(), np.asarray(array.indices.fill_null(-1)).astype(np.int64)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"expected one name or integer a row in {where}, found something else: {first_line(error)}"
        ) from None
    values = [_parsed_value(value, where=where) for value in raw]
    if names_of_integers is not None:
        values = [_named(value, names_of_integers, where=where) for value in values]
    # different raw values may be equal after stripping
    distinct = {value: None for value in values if value is not None}
    position = {value: index for index, value in enumerate(distinct)}
    table = np.array([-1 if value is None else position[value] for value in values] + [-1], dtype=np.int64)
    names = None if names_of_integers is None else tuple(names_of_integers)
    return LabelColumn(
        where=where, values=tuple(distinct), codes=table[codes], class_names=names, names_from=names_from
    )


def _parsed_value(value: Any, *, where: str) -> str | int | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value.strip() if normalise(value) else None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise DataError(f"expected one name or integer a row in {where}, found {shown(repr(value))}")


def _named(value: str | int | None, names: Sequence[str], *, where: str) -> str | int | None:
    if isinstance(value, int):
        if value == -1:
            return None
        if not 0 <= value < len(names):
            raise DataError(f"expected labels from 0 to {len(names) - 1} in {where}, found {value}; fix them")
        return names[value]
    return value


def resolve_class_names(
    label: LabelColumn, class_names: Sequence[str] | str | Path | None, *, one_class: bool = False
) -> tuple[tuple[str, ...], str]:
    """Returns the class names in the order of the indices, and a note on their source.

    Args:
        label: The labels, which may come with class names.
        class_names: K names, or their file; None: those that came with the labels, else the distinct labels, sorted.
        one_class: Whether one class is enough, instead of two.

    Raises:
        DataError: The file cannot be read, a name is empty, two names are the same class, or there are too few.
    """
    if class_names is not None:
        names, origin = given_names(class_names)
    elif label.class_names is not None:
        names, origin = label.class_names, f"from {label.names_from}"
    else:
        names, origin = _names_of_values(label)
    check_class_names(names, where=label.where if class_names is None else "class_names", one_class=one_class)
    if former := renamed(label, names):
        changes = [
            f'"{old}" is "{now}"' for old, now in zip(former, names, strict=True) if normalise(old) != normalise(now)
        ]
        origin += f", in the order of {label.names_from}: {listed(changes)}"
    return names, f"{len(names)} classes: {listed(names)} ({origin})"


def renamed(label: LabelColumn, class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns the class names that came with the labels if `class_names` rename them one by one, else an empty tuple.

    They do if both have the same number of names and some are new. However, if an unchanged name has another position,
    some name is misspelt rather than renamed. Names that are numbers are never renamed: they are sorted as texts.
    """
    former = label.class_names or ()
    index_of = {normalise(name): index for index, name in enumerate(class_names)}
    positions = [index_of.get(normalise(name)) for name in former]
    if len(former) != len(class_names) or None not in positions or all(name.isdecimal() for name in former):
        return ()
    return former if all(position in (None, index) for index, position in enumerate(positions)) else ()


def _names_of_values(label: LabelColumn) -> tuple[tuple[str, ...], str]:
    names, origin = sorted(map(str, label.values)), f"the different values of {label.where}, sorted"
    are_numbers = bool(names) and all(name.isdecimal() for name in names if name != "-1")
    negative = [each for each in label.values if (isinstance(each, int) and each < 0) or (are_numbers and each == "-1")]
    if negative:
        raise DataError(f"expected names or numbers from 0 in {label.where}, found {negative[0]}; fix these rows")
    if are_numbers:
        origin += "; the labels are numbers without names; name them with --class-names"
        return tuple(sorted(names, key=int)), origin
    return tuple(names), origin


def given_names(class_names: Sequence[str] | str | Path) -> tuple[tuple[str, ...], str]:
    """Returns class names that were passed, or those in a file, and a note on their source.

    Raises:
        DataError: The file cannot be read.
    """
    if not isinstance(class_names, str | Path):
        return tuple(class_names), "as given"
    path = expand_home(class_names)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(
            f"expected {setting('class_names')} to be a list, or a text file with one name a line: {path} cannot be "
            f"read ({reason})"
        ) from None
    if text.lstrip().startswith("{"):
        raise DataError(
            f"expected a JSON list of class names in {path}, found an object; give the names in their order"
        )
    if not text.lstrip().startswith("["):
        return tuple(line.strip() for line in text.splitlines() if line.strip()), f"from {path.name}"
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected a JSON list of class names in {path}, which is not valid JSON: {error}") from None
    return tuple(names), f"from {path.name}"


def check_class_names(names: Sequence[Any], *, where: str, one_class: bool = False) -> None:
    """Raises a `DataError` if there are too few class names, or if some are empty, equal or cannot be stored.

    Args:
        names: The K names: texts in UTF-8 without zero bytes, compared after :func:`normalise`.
        where: Name of their source, for messages.
        one_class: Whether one name is enough, instead of two.
    """
    for name in names:
        if not isinstance(name, str) or not normalise(name) or "\0" in name or not is_utf8(name):
            actual = shown(repr(name))
            raise DataError(f"expected class names in UTF-8, not empty, without zero bytes, found {actual} in {where}")
    first_by_form: dict[str, str] = {}
    for name in names:
        if (normalised := normalise(name)) in first_by_form:
            raise DataError(
                f"class names must differ: {quoted_pair(first_by_form[normalised], name)} in {where} are the same; "
                "write them alike if they are one class, else rename one"
            )
        first_by_form[normalised] = name
    if len(names) < (1 if one_class else 2):
        actual = listed(names) or "none"
        raise DataError(f"expected at least two classes in {where}, found {actual}; one class has no wrong labels")


def quoted_pair(first: str, second: str) -> str:
    """Quotes two names, with their code points if they may look the same."""
    quoted = f'"{shown(first)}" and "{shown(second)}"'
    if first.isascii() and second.isascii():
        return quoted
    return f"{quoted} (in characters {shown(ascii(first))} and {shown(ascii(second))})"


def check_complete(column: LabelColumn, ids: Sequence[str]) -> None:
    """Raises a `DataError` with the number of missing labels and the first id, if any is missing."""
    if len(missing := np.flatnonzero(column.codes < 0)):
        first = shown(ids[missing[0]])
        raise DataError(
            f'{len(missing)} of {len(ids)} labels are missing in {column.where} (first: id "{first}"); '
            "fill them in or remove these rows"
        )


def to_indices(
    column: LabelColumn,
    *,
    class_names: Sequence[str],
    ids: Sequence[str],
    by_number: bool,
    former: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Maps labels to indices into `class_names`, (N,), int64; compares names after :func:`normalise`.

    Args:
        column: The labels of N images.
        class_names: The K names.
        ids: The N ids, for messages.
        by_number: Whether integers that are not names are indices: true if the order of `class_names` was stated.
        former: The K names that `class_names` replace and the labels still use, see :func:`renamed`; empty for none.

    Raises:
        DataError: Labels are missing or outside of `class_names`; the message states how many, and the first id.
    """
    check_complete(column, ids)
    expected_names = former or class_names
    table = _lookup(column.values, expected_names, by_number=by_number)
    if len(unknown := np.flatnonzero(table[column.codes] < 0)):
        value = column.values[column.codes[unknown[0]]]
        if by_number and column.class_names and len(column.class_names) != len(class_names):
            count, names = len(column.class_names), listed(column.class_names)
            raise DataError(
                f"expected {count} class names for {column.names_from} ({names}), got {len(class_names)}: "
                f"{listed(class_names)}; give one for each, in their order"
            )
        raise DataError(
            f"{len(unknown)} of {len(ids)} labels in {column.where} are outside of the {len(class_names)} class names: "
            f'first "{shown(value)}", id "{shown(ids[unknown[0]])}"{_hint(value, column, expected_names)}; '
            f"fix the labels or give {setting('class_names')}"
        )
    return table[column.codes]


def checked_indices(labels: Any, *, count: int, class_names: Sequence[str], what: str) -> NDArray[np.int64]:
    """Checks N labels that are already indices, and returns them as int64.

    Args:
        labels: An array of integers, shape (N,), or a sequence, values 0 to K-1.
        count: N.
        class_names: The K names.
        what: Name of the labels in messages, in the plural.

    Raises:
        DataError: They are not integers, do not have the shape (`count`,), or are outside of `class_names`.
    """
    checked, last = np.asarray(labels), len(class_names) - 1
    if checked.size and checked.dtype.kind not in "iu":
        raise DataError(f"expected {what} as integers from 0 to {last}, got {checked.dtype}")
    checked = checked.astype(np.int64, copy=False)
    if checked.shape != (count,):
        raise DataError(f"expected {count} {what}, one for each image, got shape {checked.shape}")
    if checked.size and (checked.min() < 0 or checked.max() > last):
        raise DataError(f"expected {what} from 0 to {last}, got {checked.min()} to {checked.max()}")
    return checked


def _lookup(values: Sequence[str | int], class_names: Sequence[str], *, by_number: bool) -> NDArray[np.int64]:
    index = {normalise(name): number for number, name in enumerate(class_names)}
    table = np.array([index.get(normalise(text), -1) for text in map(str, values)], dtype=np.int64)
    numbers = [int(text) if (text := str(value)).removeprefix("-").isdecimal() else None for value in values]
    if not by_number or None in numbers or (len(table) and (table >= 0).all()):
        return table
    inside = [number if number is not None and 0 <= number < len(class_names) else -1 for number in numbers]
    return np.array(inside, dtype=np.int64)


def _hint(value: str | int, column: LabelColumn, class_names: Sequence[str]) -> str:
    numbers = [int(text) for text in map(str, column.values) if text.isdecimal()]
    if len(numbers) == len(column.values):
        counts_from_one = min(numbers) == 1 and max(numbers) == len(class_names)
        remark = "; these seem to count from 1" if counts_from_one else ""
        return f" (numbers go from 0 to {len(class_names) - 1}{remark})"
    return did_you_mean(str(value), class_names)
