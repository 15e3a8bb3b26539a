"""One table in several files: downloads of the Hub, folders that Spark or Dask wrote, patterns such as `train-*.csv`.

File names contain the split: `train-00000-of-00003.parquet`, `train_1.csv`, `test.parquet`, `train/0000.parquet`.
"""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from labelsieve.core.errors import DataError, listed
from labelsieve.data.sources.file_kinds import CHANGES, is_image, is_table
from labelsieve.data.sources.image_paths import folder_of
from labelsieve.data.sources.location import SourceLocation
from labelsieve.data.sources.splits import choose_split, refuse_split
from labelsieve.data.sources.table_formats import TABLES, TYPED_TABLES

# Names of files without a split, and of folders between a data set and its files.
_NO_SPLIT = ("part", "data", "shard", "chunk", "file", "table", "batch")
_SPLITS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
# Older files of the Hub end with a hash.
_NUMBERED = re.compile(r"(?P<name>.*?)[-_.]?(?P<number>\d+)(?:[-_]of[-_](?P<count>\d+)(?:-[0-9a-f]{8,})?)?")
# Spark appends an id and the compression to the number of the part.
_OF_SPARK = re.compile(r"part-(?P<number>\d+)(?:[-.].*)?")
_PARTITION = re.compile(r"[^=]+=.*")
_DEPTH = 3
# Minimum number of images in a folder of images; fewer images beside Parquet or Arrow files belong to a README.
_IMAGES = 10


def has_pattern(source: str) -> bool:
    """Returns whether a source is a pattern of file names rather than the name of something that exists."""
    return glob.has_magic(source) and not os.path.exists(os.path.expanduser(source))


def shards_of_pattern(pattern: str, *, split: str | None) -> SourceLocation:
    """Returns the files of one split that match a pattern.

    Raises:
        DataError: No file matches, the files are not tables of one format, or there is no such split.
    """
    paths = [Path(path) for path in sorted(glob.glob(os.path.expanduser(pattern), recursive=True))]
    files = [path for path in paths if path.is_file() and not path.name.lower().endswith(CHANGES)]
    if not files:
        raise DataError(f"expected tables, but no file fits {pattern}; check the pattern")
    if other_names := [path.name for path in files if path.suffix.lower() not in TABLES]:
        raise DataError(
            f"expected a pattern of tables ending in {', '.join(TABLES)}, but {pattern} fits {listed(other_names)}; "
            "choose another pattern, or pass the folder of images"
        )
    root = Path(os.path.commonpath([path.parent for path in files]))
    names = {path: _split_of(path, root) for path in files}
    if None in names.values():  # the pattern of the user implies that they belong together
        names = dict.fromkeys(files, "")
    return _choose(names, None, where=f"the files {pattern}", split=split)


def shards_of_folder(folder: Path, *, split: str | None) -> SourceLocation | None:
    """Returns the files of one split of a folder of tables, or None if the folder has images or no tables.

    Raises:
        DataError: The tables do not belong together, one is missing, or there is no such split.
    """
    files = _tables(folder)
    if not files:
        return None
    names = {path: _split_of(path, folder) for path in files}
    relative = [path.relative_to(folder).as_posix() for path in files]
    if partitions := [part for path in files for part in path.relative_to(folder).parts if _PARTITION.fullmatch(part)]:
        raise DataError(
            f"{folder} is partitioned by a column ({partitions[0]}), which the files do not hold; write the table "
            "without partitions"
        )
    if len(files) == 1 and names[files[0]] is None:
        raise DataError(f"{folder} holds no images, only the table {relative[0]}; pass the file itself, {files[0]}")
    folders = {_place(path, folder) for path in files}
    if None in names.values() or len(folders) > 1 or len({TABLES[path.suffix.lower()] for path in files}) > 1:
        raise DataError(
            f"{folder} holds several tables ({listed(relative)}); pass one of them, or for the parts of one a pattern "
            f'such as "{folder / "train-*.parquet"}"'
        )
    _check_complete(files, folder)
    return _choose(names, folder, where=f"the folder {folder}", split=split)


def _choose(
    split_of: Mapping[Path, str | None], folder: Path | None, *, where: str, split: str | None
) -> SourceLocation:
    """Returns the files of one split, located in `folder` or, if it is None, in the common folder of these files."""
    kinds = {TABLES[path.suffix.lower()] for path in split_of}
    if len(kinds) > 1:
        raise DataError(
            f"expected files of one kind, found {listed(path.name for path in split_of)}; pass those of one"
        )
    groups: dict[str, list[Path]] = defaultdict(list)
    for path, name in split_of.items():
        groups[name or ""].append(path)
    notes: tuple[str, ...] = ()
    if set(groups) == {""}:
        refuse_split(split, where)
        chosen = ""
    else:
        chosen, notes = choose_split(sorted(groups), split, where=where)
    chosen_files = groups[chosen]
    if len(chosen_files) > 1:
        notes = (
            *notes,
            f"{len(chosen_files)} files are read as one table: {chosen_files[0].name} to {chosen_files[-1].name}",
        )
    return SourceLocation(
        kind=kinds.pop(), path=folder or folder_of(chosen_files), files=tuple(chosen_files), where=where, notes=notes
    )


def _tables(folder: Path) -> list[Path]:
    """Returns the tables in a folder and its subfolders; none if it is a folder of images."""
    tables, images = [], 0
    for current, folders, files in os.walk(folder):
        depth = len(Path(current).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < _DEPTH and name[0] not in "._")
        for name in sorted(files):
            images += is_image(name)
            if images == _IMAGES:
                return []
            if is_table(name) and name[0] not in "._":
                tables.append(Path(current, name))
    with_images = images and any(path.suffix.lower() not in TYPED_TABLES for path in tables)
    return [] if with_images else sorted(tables)


def _split_of(path: Path, folder: Path) -> str | None:
    """Returns the split in the path of a file, "" for a part of a table without a split, None if it is not a part."""
    stem = path.name.removesuffix(path.suffix)
    numbered, parents = _NUMBERED.fullmatch(stem), path.relative_to(folder).parts[:-1]
    above = next((part for part in reversed(parents) if part.lower() in _SPLITS), "")
    if _OF_SPARK.fullmatch(stem):
        return above
    name = stem if stem.lower() in _SPLITS else numbered and numbered["name"]
    if name is None:
        return above or None
    return above if name.lower() in ("", *_NO_SPLIT) else name


def _place(path: Path, folder: Path) -> tuple[str, ...]:
    """Returns the parent folders of a file, without those that name a split."""
    inner = path.relative_to(folder).parts[:-1]
    return tuple(part for part in inner if part.lower() not in (*_SPLITS, "data"))


def _check_complete(files: Iterable[Path], folder: Path) -> None:
    """Rejects `train-00000-of-00003` without the other two files."""
    numbers_of: dict[tuple[Path, str, str], set[int]] = defaultdict(set)
    for path in files:
        match = _NUMBERED.fullmatch(path.name.removesuffix(path.suffix))
        if match and match["count"]:
            numbers_of[path.parent, match["name"], match["count"]].add(int(match["number"]))
    for (_, name, count), numbers in numbers_of.items():
        if lacking := sorted({*range(int(count))} - numbers)[:1]:
            raise DataError(
                f"{folder} holds {len(numbers)} of {int(count)} files of {name or 'the table'}: number {lacking[0]} is "
                "missing; download it again, or pass those that are there as a pattern"
            )
