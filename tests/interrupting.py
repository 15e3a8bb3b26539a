"""Breaking training off in the middle of an epoch, as Ctrl-C does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def break_off(patch: pytest.MonkeyPatch, owner: Any, name: str, *, epoch: int, batch: int = 1) -> None:
    """Lets what feeds a training loop stop before a batch, the first being 0, of an epoch, the first being 1.

    `owner.name` takes anything and the number of an epoch, and yields batches.
    """
    whole = getattr(owner, name)

    def broken(first: Any, number: int) -> Iterator[Any]:
        for count, given in enumerate(whole(first, number)):
            if number == epoch and count == batch:
                raise KeyboardInterrupt
            yield given

    patch.setattr(owner, name, broken)
