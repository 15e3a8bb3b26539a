"""Runs the `datasets` library without progress bars and log messages, and reports its errors in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from labelsieve.core.errors import DataError, LabelsieveError, first_line


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses progress bars and log messages of the `datasets` library in a block; keeps warnings."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)  # errors are also raised, and reported from there
    if bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Converts errors that the library raises in a block to a `DataError` of one line."""
    import pyarrow as pa

    try:
        yield
    except LabelsieveError:
        raise
    except Exception as error:  # the library wraps the cause in errors of many types
        cause = error.__cause__ or error
        reason, advice = first_line(cause), "; check the file"
        if isinstance(cause, ConnectionError):
            advice = "; check the network, or unset HF_HUB_OFFLINE if it is not in the cache"
        elif isinstance(cause, pa.ArrowNotImplementedError | pa.ArrowTypeError):
            reason, advice = "a column has values of a kind that is not read", "; write it with plain types"
        elif isinstance(cause, pa.ArrowException) or (isinstance(cause, OSError) and cause.errno is None):
            reason, advice = "it is damaged or cut off", "; copy, download or write it again"
        elif isinstance(cause, OSError):
            advice = "; check the disk that holds the cache, which HF_HOME can move"
        raise DataError(f"{where} cannot be read: {reason}{advice}") from error
