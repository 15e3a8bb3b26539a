"""Chooses the columns of image, label, truth and id of a table; guesses only if the choice is unambiguous."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.core.errors import DataError, SettingsError, did_you_mean, listed, setting, shown
from labelsieve.data.sources.column_kinds import (
    ID_TYPES,
    element_of,
    holds_images,
    holds_names,
    holds_paths,
    holds_pixels,
    holds_text,
    kind_of,
)

if TYPE_CHECKING:
    from datasets import Dataset

    from labelsieve.data.boxes import Boxes, BoxFiles

IMAGE_NAMES = (
    "image", "img", "picture", "photo", "path", "image_path", "img_path", "file", "file_path", "filepath", "file_name",
    "filename",
)  # fmt: skip
LABEL_NAMES = ("label", "labels", "class", "class_name", "label_name", "category", "target")
# Names of label columns that are used if none of the above exists.
OTHER_LABEL_NAMES = ("targets", "y", "noisy_label", "noisy_labels", "given_label", "given_labels")
# Words in names of columns of encoded images. Beside a column of paths, other bytes, such as hashes, are not images.
_BYTES = re.compile(r"(?<![a-z])(image|img|picture|photo|bytes|content|data|raw|jpe?g|png)(?![a-z])", re.IGNORECASE)
# Names of columns of image names, without separators between words.
_NAME_COLUMNS = (
    "imageid", "imgid", "pictureid", "photoid", "fileid", "idcode", "imagename", "imgname", "fname", "name", "uuid",
    "imagefile", "imgfile", "key", "id",
)  # fmt: skip
# Names of the columns that make each row of a table a box in its image.
BOX_NAMES = ("x", "y", "width", "height")
# Names of columns of corners, without separators.
_CORNERS = ({"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"}, {"left", "top", "right", "bottom"})
_NUMBERED = re.compile(r"(?P<name>[a-z_]*?)[-_.]?\d+(x\d+)?", re.IGNORECASE)
_PIXELS = ("pixel", "px", "p", "")
_Features = Mapping[str, Any]
# Minimum number of numbered columns that count as one vector.
_MIN_NUMBERED = 20


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns. In a request, None means "guess it"; in a result, None means "there is none".

    Attributes:
        image: The column of images, their paths or names.
        label: The column of the given labels; the first of several annotators.
        annotators: The columns of the labels of several annotators; empty with one label per image.
        truth: The column of the true labels.
        id: The column of ids.
        folder: The folder of the images that the image column names, set by the user.
        one_class: Whether one class is enough, because the labels are not used.
        box: The columns of left, top, width and height, in pixels, if each row is a box in its image.
        guess: Function from features and source name to the columns of several labels per image. None: one label.
        option: The setting that names a column of labels.
    """

    image: str | None = None
    label: str | None = None
    truth: str | None = None
    id: str | None = None
    folder: Path | None = None
    annotators: tuple[str, ...] = ()
    one_class: bool = False
    box: tuple[str, ...] = ()
    guess: Callable[[Mapping[str, Any], str], tuple[str, ...]] | None = None
    option: str = "label_column"

    @property
    def labels_and_ids(self) -> tuple[str, ...]:
        """Returns all columns of labels, of true labels and of ids."""
        named = (self.label, *self.annotators, self.truth, self.id)
        return tuple(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True, kw_only=True)
class Table:
    """The result of a reader.

    Attributes:
        rows: All rows; the image column has undecoded images or texts (paths).
        columns: The columns of image, label, truth and id.
        where: Name of the source, for messages.
        folder: The folder that relative paths in a text column start from and must not leave; None: any path.
        class_names: Class names of the source, if they are not in the label column.
        notes: Notes for the user.
        boxes: The box of each row in its image, unless the table has columns of boxes.
        box_files: The annotation files of the rows; None unless the source is one of `BOX_FORMATS`.
        image_files: With `boxes`, the paths of all images by their numbers, including images without a box.
    """

    rows: Dataset
    columns: Columns
    where: str
    folder: Path | None = None
    class_names: tuple[str, ...] | None = None
    boxes: Boxes | None = None
    box_files: BoxFiles | None = None
    image_files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def choose_columns(
    features: Mapping[str, Any],
    *,
    requested: Columns,
    where: str,
    label_needed: bool = True,
    image_needed: bool = True,
    about_names: Callable[[str], str] | None = None,
) -> Columns:
    """Chooses the columns to read.

    The image column is one of type image, else one with a common name; if the user named a folder of images, one of
    paths or names in it. The label column is one with a common name, else one with class names, else one in
    `OTHER_LABEL_NAMES`. A column `id` of texts or integers contains the ids.

    Args:
        features: The columns: name to feature of the `datasets` library.
        requested: The requested columns.
        where: Name of the source, for messages.
        label_needed: False if the labels are passed separately; then only a requested label column is read.
        image_needed: False for rows without images, such as features.
        about_names: Function that returns a hint on a column of names for messages, for a table on the disk.

    Raises:
        DataError: A requested column is missing, or none or several match.
    """
    for option, name in (
        ("image_column", requested.image),
        *((requested.option, name) for name in requested.annotators or (requested.label,)),
        ("truth_column", requested.truth),
    ):
        if name is not None and name not in features:
            raise DataError(
                f'expected a column "{shown(name)}" in {where}, found {_listed(features)}'
                f"{did_you_mean(name, features)}; name another with {setting(option)}"
            )
    image = None
    if image_needed:
        free = {name: feature for name, feature in features.items() if name not in requested.labels_and_ids}
        image = requested.image or (
            _guess_image(free, columns=features, where=where, about_names=about_names or (lambda _: ""))
            if requested.folder is None
            else _guess_names(free, columns=features, where=where)
        )
        _check_image(features[image], image, named=requested.folder is not None, where=where)
    if requested.truth in requested.annotators:
        raise DataError(
            f'the truth column "{shown(requested.truth)}" is one of the label columns, too; leave it out there'
        )
    other_features = {name: feature for name, feature in features.items() if name not in (image, requested.truth)}
    label, several = requested.label, requested.annotators
    if label is None and label_needed:
        guessed = (_guess_label(other_features, where=where, columns=features),) if requested.guess is None else ()
        label, *further = guessed or requested.guess(other_features, where)  # type: ignore[misc]  # one of them is set
        several = (label, *further) if further else several
    named = "id" in other_features and label != "id" and str(getattr(features["id"], "dtype", "")).startswith(ID_TYPES)
    folder = requested.folder if image_needed else None
    unused = [name for name in other_features if name not in (label, *several)]
    return Columns(
        image=image,
        label=label,
        truth=requested.truth,
        id="id" if named else None,
        folder=folder,
        annotators=several,
        box=_box_columns(unused, where) if image_needed and requested.guess is None else (),  # tags have no boxes
    )


def _box_columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the columns of boxes, none if rows are images; raises a `DataError` if one is missing, or for corners."""
    present = [name for name in BOX_NAMES if name in names]
    if len(present) == len(BOX_NAMES):
        return BOX_NAMES
    corners = {re.sub("[^a-z0-9]", "", name.lower()): name for name in names}
    cornered = next((corner_names for corner_names in _CORNERS if corner_names <= corners.keys()), ())
    if cornered or len(present) == len(BOX_NAMES) - 1:
        columns_found = [name for short, name in corners.items() if short in cornered] or present
        raise DataError(
            f"expected boxes as columns x, y, width and height (left, top and size in pixels) in {where}, found "
            f"{listed(columns_found, quoted=True)}; write these four, or rename the columns if rows are whole images"
        )
    return ()


def label_columns(columns: str | Sequence[str] | None, *, what: str = "label", of: str = "annotator") -> Columns:
    """Returns the request for one or several columns of labels.

    Args:
        columns: One name, or several; None to guess the column.
        what: What the columns hold, for messages.
        of: What each of several columns belongs to, for messages.

    Raises:
        SettingsError: There are no names, or one is named twice.
    """
    if columns is None or isinstance(columns, str):
        return Columns(label=columns)
    names = tuple(columns) if isinstance(columns, Iterable) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"expected the names of {what} columns, got {shown(repr(columns))}; name one or several")
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f'the {what} column "{shown(twice[0])}" is named twice; name each {of} once')
    return Columns(label=names[0], annotators=names if len(names) > 1 else ())


def may_hold_images(features: Mapping[str, Any]) -> bool:
    """Returns whether a table has a column that may contain images or their paths."""
    return any(
        holds_images(feature) or (is_usual(name, IMAGE_NAMES) and (holds_text(feature) or holds_pixels(feature)))
        for name, feature in features.items()
    )


def _check_image(feature: Any, name: str, *, named: bool, where: str) -> None:
    """Checks that a column can be read as images."""
    column = f'the column "{shown(name)}" of {where}'
    if named:
        if not (holds_names(feature) or holds_paths(feature)):
            raise DataError(
                f"expected paths or names of images in {column}, found {kind_of(feature)}; leave out "
                f"{setting('image_folder')}, or name another with {setting('image_column')}"
            )
    elif not (holds_images(feature) or holds_text(feature) or holds_pixels(feature)):
        folder, other = (
            f"if they name images, add {setting('image_folder')} FOLDER",
            f"name another with {setting('image_column')}",
        )
        advice = folder if holds_names(feature) else other
        raise DataError(f"expected images or paths in {column}, found {kind_of(feature)}; {advice}")


def _guess_image(features: _Features, *, columns: _Features, where: str, about_names: Callable[[str], str]) -> str:
    images = [name for name, feature in features.items() if holds_images(feature)]
    likely = [name for name in images if holds_paths(features[name]) or _BYTES.search(name)]
    paths = [name for name, feature in features.items() if holds_text(feature) and is_usual(name, IMAGE_NAMES)]
    pixels = [name for name, feature in features.items() if holds_pixels(feature) and is_usual(name, IMAGE_NAMES)]
    usual = [name for name in images if is_usual(name, IMAGE_NAMES)]
    candidates = usual if len(usual) == 1 else likely or paths or pixels or images
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        _refuse_known(features, where=where, about_names=about_names)
    raise DataError(no_guess("an image column", candidates, IMAGE_NAMES, "image_column", where=where, columns=columns))


def _guess_names(features: _Features, *, columns: _Features, where: str) -> str:
    """Returns the column of paths or names in a folder of images; a column `id` is the last choice."""
    fitting = [name for name, feature in features.items() if holds_names(feature)]
    paths = [name for name in fitting if is_usual(name, IMAGE_NAMES)]
    paths = paths or [name for name, feature in features.items() if holds_paths(feature)]
    names = [name for name in fitting if _plain_name(name) in _NAME_COLUMNS]
    candidates = paths or [name for name in names if _plain_name(name) != "id"] or names
    if len(candidates) == 1:
        return candidates[0]
    usual = (*IMAGE_NAMES, "image_id", "id")
    raise DataError(
        no_guess("a column of image names", candidates, usual, "image_column", where=where, columns=columns)
    )


def is_usual(name: str, usual: tuple[str, ...]) -> bool:
    """Returns whether the name of a column is among common names, ignoring case and separators."""
    return _plain_name(name) in map(_plain_name, usual)


def _plain_name(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _refuse_known(features: Mapping[str, Any], *, where: str, about_names: Callable[[str], str]) -> None:
    """Rejects known kinds of tables that have to be read in another way, with advice."""
    numbered = [match for name in features if (match := _NUMBERED.fullmatch(name))]
    if len(numbered) >= _MIN_NUMBERED:
        counted = f"{len(numbered)} columns of numbers, {shown(numbered[0][0])} to {shown(numbered[-1][0])}"
        if numbered[0]["name"].lower() in _PIXELS:
            side = math.isqrt(len(numbered))
            shape = f"-1, {side}, {side}" if side**2 == len(numbered) else "N, H, W"
            raise DataError(
                f"{where} holds pixels in {counted}, which are not read as images; pass them in Python, as uint8: "
                f"load_images(pixels.reshape({shape}), labels=labels)"
            )
        raise DataError(
            f"{where} holds {counted}, and no images; for features write them as one array with their labels: "
            'numpy.savez("features.npz", features=..., labels=...)'
        )
    if lowered := [name for name in features if name.lower() in ("pixels", "pixel")]:
        raise DataError(
            f'the column "{lowered[0]}" of {where} holds {kind_of(features[lowered[0]])}, which are not read as '
            "images; pass them in Python: load_images(pixels.reshape(N, H, W), labels=labels)"
        )
    if usual := [name for name in features if is_usual(name, IMAGE_NAMES)]:
        _check_image(features[usual[0]], usual[0], named=False, where=where)
    lists = [name for name, feature in features.items() if element_of(feature) is not None]
    if vectors := [name for name in lists if kind_of(features[name]).endswith("numbers")]:
        kind = kind_of(features[vectors[0]])
        raise DataError(
            f'{where} holds no images, but {kind} in the column "{shown(vectors[0])}"; features of images are read '
            'from one file, with a column "features" of flat lists'
        )
    for name, feature in features.items():
        if holds_names(feature) and (simplified := _plain_name(name)) in _NAME_COLUMNS:
            hint = about_names(name)
            if not hint and simplified not in ("id", "name", "key"):
                hint = f'; if "{shown(name)}" names images, add {setting("image_folder")} FOLDER'
            if hint:
                raise DataError(f"expected an image column in {where}, found the columns {_listed(features)}{hint}")


def _guess_label(features: Mapping[str, Any], *, where: str, columns: Mapping[str, Any]) -> str:
    usual = [name for name in features if is_usual(name, LABEL_NAMES)]
    other = [name for name in features if is_usual(name, OTHER_LABEL_NAMES)]
    classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    candidates = usual or classes or other
    if len(candidates) == 1:
        return candidates[0]
    message = no_guess("a label column", candidates, LABEL_NAMES, "label_column", where=where, columns=columns)
    has_tags = any(_plain_name(name) == "tags" for name in features)
    raise DataError(f"{message}; for several labels per image use: labelsieve scan-tags" if has_tags else message)


def no_guess(
    what: str, candidates: list[str], usual: tuple[str, ...], option: str, *, where: str, columns: Mapping[str, Any]
) -> str:
    """Returns the error message if no column or several columns match.

    Args:
        what: Description of the column, with an article.
        candidates: The columns that match, none or several.
        usual: Common names of such a column, the best example first.
        option: The setting that names the column.
        where: Name of the source.
        columns: All columns by name.
    """
    if candidates:
        several = f"found several that fit: {_listed(candidates)}"
        return f"expected {what} in {where}, {several}; choose one with {setting(option)}"
    near = next((hint for name in columns if (hint := did_you_mean(name.lower(), usual))), "")
    return (
        f'expected {what} in {where} with a usual name such as "{usual[0]}"{near}, found the columns '
        f"{_listed(columns)}; name it with {setting(option)}"
    )


def _listed(names: Mapping[str, Any] | list[str]) -> str:
    return listed(names, quoted=True) or "no columns"
