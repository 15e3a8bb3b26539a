"""One table in several files: downloads of the Hub, folders that Spark or Dask wrote, patterns such as `train-*.csv`.

The name of a file tells its split: `train-00000-of-00003.parquet`, `train_1.csv`, `test.parquet`, `train/0000.parquet`.
"""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelsieve.core.errors import DataError, listed
from labelsieve.data.sources.folders import CHANGES, SUFFIXES, is_table
from labelsieve.data.sources.splits import choose_split, refuse_split
from labelsieve.data.sources.table_formats import TABLES, TYPED_TABLES

# Names of files that say nothing of a split, and of folders that stand between a data set and its files.
_NO_SPLIT = ("part", "data", "shard", "chunk", "file", "table", "batch")
_SPLITS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
# Older files of the Hub have a hash at their end.
_NUMBERED = re.compile(r"(?P<name>.*?)[-_.]?(?P<number>\d+)(?:[-_]of[-_](?P<count>\d+)(?:-[0-9a-f]{8,})?)?")
# Spark puts a number of its own and how it packed the file behind the number of the part.
_OF_SPARK = re.compile(r"part-(?P<number>\d+)(?:[-.].*)?")
_PARTITION = re.compile(r"[^=]+=.*")
_DEPTH = 3
# From so many images on a folder is one of images; fewer beside Parquet or Arrow files are those of a README.
_IMAGES = 10


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The files of one split.

    Attributes:
        files: The files, in the order of their names.
        kind: A key of :data:`labelsieve.data.sources.table_formats.TABLE_FORMATS`.
        notes: Remarks for the user.
    """

    files: tuple[Path, ...]
    kind: str
    notes: tuple[str, ...]


def has_pattern(source: str) -> bool:
    """Returns whether a source is a pattern of file names rather than the name of something that exists."""
    return glob.has_magic(source) and not os.path.exists(os.path.expanduser(source))


def shards_of_pattern(pattern: str, *, split: str | None) -> Shards:
    """Returns the files of one split that fit a pattern of names.

    Raises:
        DataError: None fits, they are no tables or of several kinds, or there is no such split.
    """
    found = [Path(path) for path in sorted(glob.glob(os.path.expanduser(pattern), recursive=True))]
    files = [path for path in found if path.is_file() and not path.name.lower().endswith(CHANGES)]
    if not files:
        raise DataError(f"expected tables, but no file fits {pattern}; check the pattern")
    if other := [path.name for path in files if path.suffix.lower() not in TABLES]:
        raise DataError(
            f"expected a pattern of tables ending in {', '.join(TABLES)}, but {pattern} fits {listed(other)}; choose "
            "another pattern, or pass the folder of images"
        )
    root = Path(os.path.commonpath([path.parent for path in files]))
    names = {path: _split_of(path, root) for path in files}
    if None in names.values():  # the user says that they belong together
        names = dict.fromkeys(files, "")
    return _choose(files, names, where=f"the files {pattern}", split=split)


def shards_of_folder(folder: Path, *, split: str | None) -> Shards | None:
    """Returns the files of one split of a folder of tables, or None if the folder holds images or no tables.

    Raises:
        DataError: There are tables that do not belong together, one is missing, or there is no such split.
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
    places = {_place(path, folder) for path in files}
    if None in names.values() or len(places) > 1 or len({TABLES[path.suffix.lower()] for path in files}) > 1:
        raise DataError(
            f"{folder} holds several tables ({listed(relative)}); pass one of them, or for the parts of one a pattern "
            f'such as "{folder / "train-*.parquet"}"'
        )
    _check_complete(files, folder)
    return _choose(files, names, where=f"the folder {folder}", split=split)


def _choose(files: Sequence[Path], names: Mapping[Path, str | None], *, where: str, split: str | None) -> Shards:
    kinds = {TABLES[path.suffix.lower()] for path in files}
    if len(kinds) > 1:
        raise DataError(f"expected files of one kind, found {listed(path.name for path in files)}; pass those of one")
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        groups[names[path] or ""].append(path)
    notes: tuple[str, ...] = ()
    if set(groups) == {""}:
        refuse_split(split, where)
        chosen = ""
    else:
        chosen, notes = choose_split(sorted(groups), split, where=where)
    found = groups[chosen]
    if len(found) > 1:
        notes = (*notes, f"{len(found)} files are read as one table: {found[0].name} to {found[-1].name}")
    return Shards(files=tuple(found), kind=kinds.pop(), notes=notes)


def _tables(folder: Path) -> list[Path]:
    """Returns the tables in a folder and those below it; none if it is a folder of images."""
    found, images = [], 0
    for here, folders, files in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < _DEPTH and name[0] not in "._")
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            images += suffix in SUFFIXES
            if images == _IMAGES:
                return []
            if is_table(name) and name[0] not in "._":
                found.append(Path(here, name))
    with_images = images and any(path.suffix.lower() not in TYPED_TABLES for path in found)
    return [] if with_images else sorted(found)


def _split_of(path: Path, folder: Path) -> str | None:
    """Returns the split that the name of a file tells, "" for a part of a table without one, None if it is no part."""
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
    """Returns the folders that a file lies in, without those that name a split."""
    inner = path.relative_to(folder).parts[:-1]
    return tuple(part for part in inner if part.lower() not in (*_SPLITS, "data"))


def _check_complete(files: Iterable[Path], folder: Path) -> None:
    """Refuses `train-00000-of-00003` without the other two."""
    there: dict[tuple[Path, str, str], set[int]] = defaultdict(set)
    for path in files:
        found = _NUMBERED.fullmatch(path.name.removesuffix(path.suffix))
        if found and found["count"]:
            there[path.parent, found["name"], found["count"]].add(int(found["number"]))
    for (_, name, count), numbers in there.items():
        if lacking := sorted({*range(int(count))} - numbers)[:1]:
            raise DataError(
                f"{folder} holds {len(numbers)} of {int(count)} files of {name or 'the table'}: number {lacking[0]} is "
                "missing; download it again, or pass those that are there as a pattern"
            )
