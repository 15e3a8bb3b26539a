"""Marks all values of a parameter but for the common ones as slow: `make test-slow` has them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], *, quick: Container[Any]) -> list[Any]:
    """Returns what `pytest.mark.parametrize` takes; a test that leaves out the slow ones still holds what it says.

    Args:
        values: Those of one parameter, or tuples of several.
        quick: Those that stay in the default run.
    """
    each = [(value, value if isinstance(value, tuple) else (value,)) for value in values]
    return [pytest.param(*parts, marks=() if value in quick else pytest.mark.slow) for value, parts in each]
