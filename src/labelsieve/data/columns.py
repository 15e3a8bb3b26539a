"""Which column of a table is the image, the label, the truth and the id: guessed only where there is no doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE_NAMES = (
    "image", "img", "picture", "photo", "path", "image_path", "img_path", "file", "file_path", "filepath", "file_name",
    "filename",
)  # fmt: skip
LABEL_NAMES = ("label", "labels", "class", "class_name", "label_name", "category", "target")
_ID_TYPES = ("string", "large_string", "int", "uint")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns. As a wish of the user, None means "guess it"; as an answer, None means "there is none"."""

    image: str | None = None
    label: str | None = None
    truth: str | None = None
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a reader found.

    Attributes:
        rows: All rows; the image column holds undecoded pictures or texts (paths).
        columns: Which column is what.
        where: What to call the source in a message.
        folder: What relative paths in a text column are relative to, and must lie in; None: no rule.
        class_names: Class names that the source itself states apart from the label column.
        notes: Remarks for the user.
    """

    rows: Dataset
    columns: Columns
    where: str
    folder: Path | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def refuse_split(split: str | None, where: object) -> None:
    """Raises a `DataError` if a split is asked of a source that has none."""
    if split is not None:
        raise DataError(f'{where} has no splits, but split "{split}" was asked for; leave it out or pass another path')


def choose_split(
    splits: Sequence[str], split: str | None, *, where: str, slices: bool = False
) -> tuple[str, tuple[str, ...]]:
    """Settles which split to read: the one asked for, else the only one, else `train`.

    Args:
        splits: Those there are; none if that is not known.
        split: What the user asked for.
        where: Name of the source, for messages.
        slices: Whether part of a split may be asked for, as in `train[:10%]`.

    Returns:
        The split, and remarks for the user.

    Raises:
        DataError: There is no such split, or it has to be said which.
    """
    if split is not None:
        if splits and (split.split("[")[0] if slices else split) not in splits:
            raise DataError(
                f'expected a split "{split}" in {where}, found {", ".join(splits)}{did_you_mean(split, splits)}; '
                "choose one of these"
            )
        return split, ()
    if len(splits) == 1:
        return splits[0], ()
    if not splits or "train" in splits:
        return "train", (f"split train of {', '.join(splits)}",) if splits else ()
    raise DataError(f"expected one split in {where}, found {', '.join(splits)}; choose one with split")


def choose_columns(
    features: Mapping[str, Any], *, asked: Columns, where: str, label_needed: bool = True, image_needed: bool = True
) -> Columns:
    """Settles which columns to read.

    An image column is one that holds pictures by its type, else one with a usual name; a label column is one with a
    usual name, else the only one with class names. A column `id` of texts or whole numbers gives the ids.

    Args:
        features: The columns: name to feature of the `datasets` library.
        asked: What the user asked for.
        where: Name of the source, for messages.
        label_needed: False if the labels come from elsewhere; then only a label column that was asked for is read.
        image_needed: False for rows without pictures, such as features.

    Raises:
        DataError: A column that was asked for is missing, or none or several fit.
    """
    for option, name in (
        ("--image-column", asked.image),
        ("--label-column", asked.label),
        ("--truth-column", asked.truth),
    ):
        if name is not None and name not in features:
            raise DataError(
                f'expected a column "{name}" in {where}, found {_listed(features)}'
                f"{did_you_mean(name, features)}; name another with {option}"
            )
    image = asked.image or (_guess_image(features, where=where) if image_needed else None)
    others = {name: feature for name, feature in features.items() if name not in (image, asked.truth)}
    label = asked.label or (_guess_label(others, where=where, columns=features) if label_needed else None)
    named = "id" in others and label != "id" and str(getattr(features["id"], "dtype", "")).startswith(_ID_TYPES)
    return Columns(image=image, label=label, truth=asked.truth, id="id" if named else None)


def holds_pictures(feature: Any) -> bool:
    """Tells whether a column holds encoded pictures: an image, bytes, or a struct of `bytes` and `path`."""
    if isinstance(feature, Mapping):
        return "bytes" in feature
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", "") in ("binary", "large_binary")


def holds_text(feature: Any) -> bool:
    """Tells whether a column holds texts, such as paths."""
    return getattr(feature, "dtype", "") in ("string", "large_string")


def may_hold_images(features: Mapping[str, Any]) -> bool:
    """Tells whether a table has a column that would be taken for pictures or their paths."""
    return any(
        holds_pictures(feature) or (holds_text(feature) and name.lower() in IMAGE_NAMES)
        for name, feature in features.items()
    )


def _guess_image(features: Mapping[str, Any], *, where: str) -> str:
    pictures = [name for name, feature in features.items() if holds_pictures(feature)]
    paths = [name for name, feature in features.items() if holds_text(feature) and name.lower() in IMAGE_NAMES]
    usual = [name for name in pictures if name.lower() in IMAGE_NAMES]
    found = usual if len(usual) == 1 else pictures or paths
    if len(found) == 1:
        return found[0]
    raise DataError(_no_guess("an image column", found, IMAGE_NAMES, "--image-column", where=where, columns=features))


def _guess_label(features: Mapping[str, Any], *, where: str, columns: Mapping[str, Any]) -> str:
    usual = [name for name in features if name.lower() in LABEL_NAMES]
    found = usual or [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    if len(found) == 1:
        return found[0]
    raise DataError(_no_guess("a label column", found, LABEL_NAMES, "--label-column", where=where, columns=columns))


def _no_guess(
    what: str, found: list[str], usual: tuple[str, ...], option: str, *, where: str, columns: Mapping[str, Any]
) -> str:
    if found:
        return f"expected {what} in {where}, found several that fit: {_listed(found)}; choose one with {option}"
    near = next((hint for name in columns if (hint := did_you_mean(name.lower(), usual))), "")
    return (
        f'expected {what} in {where} with a usual name such as "{usual[0]}"{near}, found the columns '
        f"{_listed(columns)}; name it with {option}"
    )


def _listed(names: Mapping[str, Any] | list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "no columns"
