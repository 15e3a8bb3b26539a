"""Chooses the split of a source."""

from __future__ import annotations

from collections.abc import Sequence

from labelsieve.core.errors import DataError, did_you_mean, listed, setting, shown


def refuse_split(split: str | None, where: object) -> None:
    """Raises a `DataError` if a split is requested from a source that has none."""
    if split is not None:
        raise DataError(
            f'{where} has no splits, but split "{shown(split)}" was asked for; leave it out or pass another path'
        )


def choose_split(
    splits: Sequence[str], split: str | None, *, where: str, slices: bool = False
) -> tuple[str, tuple[str, ...]]:
    """Chooses the split to read: the requested one, else the only one, else `train`.

    Args:
        splits: The existing splits; empty if unknown.
        split: The requested split.
        where: Name of the source, for messages.
        slices: Whether slices of a split are allowed, as in `train[:10%]`.

    Returns:
        The split, and remarks for the user.

    Raises:
        DataError: There is no such split, or one must be requested.
    """
    if split is not None:
        if splits and (split.split("[")[0] if slices else split) not in splits:
            raise DataError(
                f'expected a split "{shown(split)}" in {where}, found {listed(splits)}{did_you_mean(split, splits)}; '
                "choose one of these"
            )
        return split, ()
    if len(splits) == 1:
        return splits[0], ()
    if not splits or "train" in splits:
        return "train", (f"split train of {listed(splits)}; --split takes another",) if splits else ()
    raise DataError(f"expected one split in {where}, found {listed(splits)}; choose one with {setting('split')}")
