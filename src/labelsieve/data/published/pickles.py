"""Reads pickles of arrays, lists and texts safely, without creating any other objects.

A pickle is a program that calls functions by name. Here, the few names needed for numpy arrays are replaced by passive
classes of this module; every other name is rejected. Not even numpy classes are used, because a pickle could make them
interpret bytes as Python objects.
"""

from __future__ import annotations

import codecs
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, first_line
from labelsieve.data.published.layout import AGAIN

_WHOLE_NUMBERS = re.compile("[biu][1248]")
_REASON = re.compile(r"(?:WeightsUnpickler error: |^(?=Trying to load))\s*(.+)", re.MULTILINE)


class _Kind:
    """Stand-in for `numpy.dtype`: an integer type and its byte order."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = _text(code)
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def dtype(self) -> np.dtype[Any]:
        if not _WHOLE_NUMBERS.fullmatch(self.code):
            raise pickle.UnpicklingError(f"it holds an array of {self.code} instead of integers")
        kind: np.dtype[Any] = np.dtype(self.code).newbyteorder(self.order)
        return kind


class _Array:
    """Stand-in for `numpy.ndarray`, and for the function that creates an empty one."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] = np.empty(0, dtype=np.int64)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_column, data = state
        self.values = np.frombuffer(data, kind.dtype()).reshape(shape, order="F" if by_column else "C")


_ALLOWED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Kind,
    "_codecs.encode": codecs.encode,  # how Python 3 writes bytes that Python 2 can read
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not run")
        return _ALLOWED[f"{module}.{name}"]


def read_pickle(data: bytes, *, where: object) -> dict[str, Any]:
    """Reads a dictionary of arrays of integers, lists, texts and numbers, as Python 2 or 3 wrote it.

    Raises:
        DataError: It is broken, or requires anything else.
    """
    try:
        return _converted(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except Exception as error:  # broken pickles raise errors of many types
        raise _unreadable(where, error) from None


def read_torch(path: Path) -> dict[str, Any]:
    """Reads such a dictionary from a file written by `torch.save`, which may also contain tensors.

    Raises:
        DataError: It is broken, or requires anything else.
    """
    import torch

    try:
        with torch.serialization.safe_globals([(kind, name) for name, kind in _ALLOWED.items()]):
            return _converted(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # broken files raise errors of many types
        raise _unreadable(path, error) from None


def _unreadable(where: object, error: Exception) -> DataError:
    # torch adds advice to the reason, including how to run code of the file
    match = _REASON.search(str(error))
    reason = (match[1] if match else first_line(error)).split(". ")[0].rstrip(" .")
    return DataError(
        f"expected a dictionary of arrays, lists and texts in {where}, which cannot be read: {reason}; {AGAIN}"
    )


def _converted(record: Any) -> dict[str, Any]:
    """Converts stand-ins to arrays and bytes to texts, in the dictionary and in lists directly inside it."""
    if not isinstance(record, dict):
        raise TypeError(f"it holds a {type(record).__name__}")
    return {str(_text(key)): _value(value) for key, value in record.items()}


def _value(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.values
    return [_text(each) for each in value] if isinstance(value, list) else _text(value)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
