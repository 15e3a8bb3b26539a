"""Readers: one function per kind of source, which returns its rows with undecoded images.

`csv_files.py` and `arrow_files.py` read tables, and `shards.py` finds the files of tables in several files. The
`datasets` library reads saved folders and the Hub, memory-mapped.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, did_you_mean, listed, setting, shown
from labelsieve.core.files import check_reachable, expand_home, is_utf8
from labelsieve.data.box_formats.open_images import is_open_images
from labelsieve.data.box_formats.registry import BOX_FILES, BOX_FORMATS
from labelsieve.data.box_formats.voc import is_voc
from labelsieve.data.published.base import named_source, read_published, refuse_unknown_name
from labelsieve.data.sources.column_kinds import holds_images
from labelsieve.data.sources.columns import Columns, Table, choose_columns
from labelsieve.data.sources.file_kinds import SUFFIXES, conversion, is_table, refuse_pointer
from labelsieve.data.sources.folders import read_folder
from labelsieve.data.sources.location import SourceLocation
from labelsieve.data.sources.quiet import quiet, reading
from labelsieve.data.sources.shards import has_pattern, shards_of_folder, shards_of_pattern
from labelsieve.data.sources.splits import choose_split, refuse_split
from labelsieve.data.sources.table_formats import TABLE_FORMATS, TABLES

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")
_HUB_TIMEOUT = 5.0
# Columns of data sets on the Hub that cannot be guessed: CIFAR-100 has two columns of classes.
_HUB_COLUMNS = {
    "uoft-cs/cifar10": Columns(image="img", label="label"),
    "uoft-cs/cifar100": Columns(image="img", label="fine_label"),
}
_YOLO = ("data.yaml", "data.yml", "dataset.yaml")


def find_source(source: str, *, split: str | None = None) -> SourceLocation:
    """Returns the location and kind of a source: folder, file, pattern of files, published data set or Hub id.

    Raises:
        DataError: It is none of them, or has no such split.
    """
    if not source:  # such as an unset shell variable; as a path it would be the current folder
        raise DataError("expected a folder, a file or a Hub data set, got an empty text; check the source")
    named = named_source(source)
    path = named.path if named else expand_home(source)
    if not is_utf8(os.path.abspath(path)):  # Arrow and the record of a run store paths as texts
        raise DataError(f"the path {str(path)!r} is not UTF-8; rename the folder or file")
    check_reachable(path, DataError)
    if named is not None:
        return SourceLocation(kind="published", path=path)
    if path.is_dir():
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            return SourceLocation(kind="saved", path=path)
        if (boxes := find_boxes(path)) is not None:
            return SourceLocation(kind=boxes[0], path=boxes[1])
        return shards_of_folder(path, split=split) or SourceLocation(kind="folder", path=path)
    if path.is_file():
        refuse_pointer(path)
        if (boxes := find_boxes(path)) is not None:
            return SourceLocation(kind=boxes[0], path=path, where=f"the file {path}")
        refuse_split(split, path)
        return SourceLocation(kind=_kind(path), path=path, files=(path,), where=f"the file {path}")
    if has_pattern(source):
        return shards_of_pattern(source, split=split)
    if path.suffix.lower() not in {*TABLES, *BOX_FILES} and _HUB_ID.fullmatch(source):
        return SourceLocation(kind="hub", path=path)
    refuse_unknown_name(source)
    raise DataError(f"expected a folder, a file or a Hub data set, but {shown(source)} does not exist; check the path")


def find_boxes(path: Path) -> tuple[str, Path] | None:
    """Returns the format of boxes in a file or folder, and the path to read: for a YOLO folder its YAML file.

    Returns:
        A key of `BOX_FORMATS` and a path; None for other sources.
    """
    if path.is_dir():
        stated = next((path / name for name in _YOLO if (path / name).is_file()), None)
        return ("yolo", stated) if stated else ("voc", path) if is_voc(path) else None
    if path.suffix.lower() in BOX_FILES:
        return BOX_FILES[path.suffix.lower()], path
    return ("open_images", path) if path.suffix.lower() == ".csv" and is_open_images(path) else None


def read_path(source: str, *, requested: Columns, split: str | None) -> Table:
    """Reads a folder, a file, a pattern of files, a published data set or a Hub id.

    Args:
        source: One of these; its files determine its kind or, if it does not exist, its form.
        requested: The requested columns.
        split: The split, for sources that have splits; None: the only one, else `train`.

    Raises:
        DataError: It is none of them, or cannot be read.
    """
    location = find_source(source, split=split)
    named = named_source(source)
    if named is not None:
        _refuse_image_folder(requested, "a published data set")
        return read_published(named, requested=requested, split=split)
    if location.kind == "saved":
        return read_saved(location.path, requested=requested, split=split)
    if location.kind == "folder":
        return _read_class_folders(location.path, requested=requested, split=split)
    if location.kind == "hub":
        return read_hub(source, requested=requested, split=split)
    if location.kind in BOX_FORMATS:
        _refuse_columns_of_boxes(location, requested)
        return BOX_FORMATS[location.kind](location.path, requested=requested, split=split)
    for path in location.files:
        refuse_pointer(path)
    table = TABLE_FORMATS[location.kind](location.files, requested=requested, where=location.where)
    return replace(table, notes=(*location.notes, *table.notes))


def _kind(path: Path) -> str:
    """Returns the format of a table by its suffix."""
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return TABLES[suffix]
    advice = conversion(path) or ("pass its folder" if suffix in SUFFIXES else "convert it first")
    raise DataError(
        f"expected a folder of class folders or a file ending in {', '.join(TABLES)}, found {path}"
        f"{did_you_mean(suffix, TABLES)}; {advice}"
    )


def _read_class_folders(path: Path, *, requested: Columns, split: str | None) -> Table:
    """Reads a folder of class folders, with a note on tables beside them."""
    tables = _tables_in(path)
    if not tables:
        _refuse_image_folder(requested, "a folder of class folders")
        return read_folder(path, requested=requested, split=split)
    hint = f"the table {path / tables[0]}"
    if len(tables) > 1:
        hint = f"one of its {len(tables)} tables ({listed(tables)})"
    if requested.folder is not None:
        raise DataError(f"expected a table with {setting('image_folder')}, got the folder {path}; pass {hint}")
    table = read_folder(path, requested=requested, split=split)
    note = f"{listed(tables)} beside the class folders was not read; pass the table itself if it holds the labels"
    return replace(table, notes=(*table.notes, note))


def _tables_in(folder: Path) -> list[str]:
    with suppress(OSError):  # the next reader reports why it cannot be read
        names = (entry.name for entry in os.scandir(folder) if entry.is_file())
        return sorted(name for name in names if is_table(name) and name[0] != "." and is_utf8(name))
    return []


def _refuse_image_folder(requested: Columns, kind: str) -> None:
    if requested.folder is not None:
        raise DataError(
            f"{setting('image_folder')} goes with a table that names images, and this is {kind}; leave it out"
        )


def _refuse_columns_of_boxes(location: SourceLocation, requested: Columns) -> None:
    boxes = f"{location.path} is a source of boxes ({location.kind})"
    if requested.image is not None:
        raise DataError(
            f'{boxes}, whose images need no column, but "{shown(requested.image)}" was asked for; leave it out'
        )
    if requested.annotators:
        labels = listed(requested.annotators, quoted=True)
        raise DataError(f"{boxes}, which have one label each, but {labels} were asked for; name one")


def read_saved(path: Path, *, requested: Columns, split: str | None) -> Table:
    """Reads a folder written by `save_to_disk`, memory-mapped.

    Args:
        path: The folder.
        requested: The requested columns.
        split: The split of a `DatasetDict`; None: the only one, else `train`.
    """
    import datasets

    where = f"the folder {path}"
    with quiet(), reading(where):
        try:
            data = datasets.load_from_disk(str(path))
        except IndexError:  # the data set has no files
            part = " in one of its splits" if (path / "dataset_dict.json").is_file() else ""
            raise DataError(f"expected images in {where}, found no rows{part}; check the source") from None
    table = read_dataset(data, requested=requested, split=split, where=where)
    return replace(table, folder=table.columns.folder or Path(os.path.abspath(path)))


def read_hub(source: str, *, requested: Columns, split: str | None) -> Table:
    """Reads a data set from the Hub or its cache.

    Args:
        source: `name/dataset` or `name/dataset:configuration`.
        requested: The requested columns; by default, the columns of some data sets are known, others are guessed.
        split: The split, or a slice of it as in `train[:10%]`; None: the only one, else `train`.
    """
    import datasets

    name, _, configuration = source.partition(":")
    where = f"the Hub data set {source}"
    _check_hub(name)
    with quiet(), reading(where):
        builder = datasets.load_dataset_builder(name, name=configuration or None)
        chosen, notes = choose_split(list(builder.info.splits or {}), split, where=where, slices=True)
        rows = datasets.load_dataset(name, name=configuration or None, split=chosen)
    hub_columns = _HUB_COLUMNS.get(name, Columns())
    wish = replace(requested, image=requested.image or hub_columns.image, label=requested.label or hub_columns.label)
    table = read_dataset(rows, requested=wish, split=None, where=where)
    return replace(table, notes=(*notes, *table.notes))


def _check_hub(name: str) -> None:
    """Checks access once with a short timeout, because without a network the loader retries for minutes."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=_HUB_TIMEOUT)
    except OfflineModeIsEnabled:
        return  # the cache may have it
    except GatedRepoError:
        raise DataError(f"the Hub data set {name} asks for consent; accept its terms on its page and log in") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise DataError(
            f"{name} is neither a path that exists nor a data set on the Hub; check the spelling, or log in if it is "
            "private"
        ) from None
    except Exception as error:  # errors of the transport differ between releases of the library
        raise DataError(
            f"{name} is no path that exists, and the Hub cannot be reached ({type(error).__name__}); check the path or "
            "the network, or set HF_HUB_OFFLINE=1 to use the cache"
        ) from None


def read_dataset(
    data: Any, *, requested: Columns, split: str | None, where: str = "the data set", label_needed: bool = True
) -> Table:
    """Reads a `datasets.Dataset`, or one split of a `DatasetDict`.

    Args:
        data: The data set; its format and transforms are removed.
        requested: The requested columns.
        split: The split of a `DatasetDict`; None: the only one, else `train`.
        where: Name of the data set, for messages.
        label_needed: False if the labels are passed separately.
    """
    import datasets

    notes: tuple[str, ...] = ()
    if isinstance(data, datasets.DatasetDict):
        chosen, notes = choose_split(list(data), split, where=where)
        data = data[chosen]
    elif split is not None:
        refuse_split(split, where)
    if not isinstance(data, datasets.Dataset):
        raise DataError(f"expected a datasets.Dataset, got {type(data).__name__}; a stream has to be saved first")
    rows = data.with_format(None)  # also removes transforms, which would run on every row
    columns = choose_columns(rows.features, requested=requested, where=where, label_needed=label_needed)
    if columns.image and holds_images(rows.features[columns.image]):
        with reading(where):
            rows = rows.cast_column(columns.image, datasets.Image(decode=False))
    return Table(rows=rows, columns=columns, where=where, folder=columns.folder, notes=notes)
