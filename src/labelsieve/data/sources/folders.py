"""Reads a folder of class folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.core.files import quoted
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.file_kinds import is_image, is_table, listing
from labelsieve.data.sources.folder_layout import (
    Layout,
    Tree,
    are_parts,
    best_table,
    by_kind,
    labels_in_names,
    layout_of,
    nested_note,
    of_system,
    set_within,
    tree_of,
)
from labelsieve.data.sources.splits import refuse_split

_LAYOUT = "expected a folder of class folders such as photos/cat/1.jpg"
_TABLE_COLUMNS = "write a CSV with the columns path,label and pass that"


@dataclass(kw_only=True)
class _Content:
    """The content of a folder.

    Attributes:
        folders: Names of the top-level folders without system folders, sorted.
        files: Names of the top-level files that are not hidden, sorted.
        paths: Relative paths of the images in folders, sorted folder by folder.
        other: Suffixes of all other files in folders.
        tables: Relative paths of tables, top-level ones first.
        closed: Folders that cannot be read.
        system: Names of system folders, and their number.
    """

    folders: list[str]
    files: list[str]
    paths: list[str] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    tables: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    system: Counter[str] = field(default_factory=Counter)

    @property
    def loose(self) -> list[str]:
        return [name for name in self.files if is_image(name)]

    @property
    def suffixes(self) -> str:
        return ", ".join(
            f"{count} {_in_utf8(suffix) or 'without suffix'}" for suffix, count in self.other.most_common(5)
        )


def read_folder(folder: Path, *, requested: Columns, split: str | None) -> Table:
    """Reads a folder of class folders: `photos/cat/1.jpg`, or nested more deeply.

    Hidden files, system folders and folders without images are left out;
    :mod:`labelsieve.data.sources.folder_layout` decides which other folders are not classes.

    Args:
        folder: The folder of the class folders or, if one class is enough, of the images themselves.
        requested: Its `one_class` says whether one class is enough; requested columns are rejected.
        split: Must be None, because a folder has no splits.
    """
    refuse_split(split, folder)
    if wish := requested.image or requested.label or requested.truth:
        raise DataError(
            f'{folder} is a folder of class folders, which has no columns, but "{shown(wish)}" was asked for'
        )
    folder = Path(os.path.abspath(folder))
    with listing(folder):
        content = _list_folder(folder)
        # raises an error for a name that is not UTF-8
        for name in (*content.paths, *content.folders):
            name.encode()
    if requested.one_class and content.loose and not content.paths:
        return _table(folder, content.loose, ["images"] * len(content.loose), classes=("images",), notes=())
    tree = tree_of(content.paths)
    layout = layout_of(tree, root=folder.name, table=bool(content.tables))
    _check_folder(folder, content, tree, layout, one_class=requested.one_class)
    classes = tuple(sorted(layout.classes))
    ids = [path for path in content.paths if path.split("/", 1)[0] not in layout.copies]
    notes = (*_notes(content, tree, layout), *nested_note(tree, classes))
    return _table(folder, ids, [path.split("/", 1)[0] for path in ids], classes=classes, notes=notes)


def _table(
    folder: Path, ids: Sequence[str], labels: list[str], *, classes: tuple[str, ...], notes: tuple[str, ...]
) -> Table:
    from datasets import Dataset, Features, Value

    columns = {"image": [*ids], "label": labels}
    rows = Dataset.from_dict(columns, features=Features({"image": Value("string"), "label": Value("string")}))
    chosen, where = Columns(image="image", label="label"), f"the folder {folder}"
    return Table(rows=rows, columns=chosen, where=where, folder=folder, class_names=classes, notes=notes)


def _in_utf8(name: str) -> str:
    """Makes a name in another encoding printable, because files that are left out must not raise an error."""
    return name.encode("utf-8", "backslashreplace").decode()


def _list_folder(folder: Path) -> _Content:
    """Lists a folder and its subfolders."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = [entry.name for entry in entries if entry.is_file() and not of_system(entry.name)]
    content = _Content(folders=[name for name in folders if not of_system(name)], files=files)
    content.system.update(filter(of_system, folders))
    content.tables += filter(is_table, files)
    root = Path(os.path.realpath(folder))
    for name in content.folders:
        _walk(folder, name, content, above={str(root), *map(str, root.parents)})
    return content


def _walk(folder: Path, name: str, content: _Content, *, above: set[str]) -> None:
    """Adds the content of a top-level folder."""
    paths: list[str] = []
    visited = set(above)
    for current, folders, files in os.walk(
        folder / name,
        followlinks=True,
        onerror=lambda error: content.closed.append(os.path.relpath(error.filename, folder)),
    ):
        real = os.path.realpath(current)
        if real in visited:  # a link to a parent would recurse forever, or include other classes
            folders[:] = []
            continue
        visited.add(real)
        content.system.update(filter(of_system, folders))
        folders[:] = [inner for inner in folders if not of_system(inner)]
        below = Path(current).relative_to(folder).as_posix()
        for file in files:
            if of_system(file):
                continue
            if is_image(file):
                paths.append(f"{below}/{file}")
            else:
                content.other[os.path.splitext(file)[1].lower()] += 1
                content.tables += [f"{below}/{file}"] if is_table(file) else []
    content.paths += sorted(paths)


def _notes(content: _Content, tree: Tree, layout: Layout) -> Iterator[str]:
    """Yields notes on what was left out of a folder."""
    if loose := content.loose:
        yield f"{len(loose)} of the images lie in no class folder and were left out (first: {_in_utf8(loose[0])})"
    if empty := _without_images(content, tree):
        yield f"folders without an image (.jpg, .png, ...) were left out: {listed(empty)}"
    if content.system:
        yield (
            f"{content.system.total()} hidden folders or folders of a system were left out: "
            f"{listed(map(_in_utf8, sorted(content.system)))}"
        )
    for name in layout.copies:
        inner = listed(sorted(tree.folders[name].unwrapped("")[1].folders))
        yield (
            f'"{shown(name)}" holds folders of the names of those beside it ({inner}) and was left out as a copy or a '
            f"split of the set, with {tree.folders[name].total} images"
        )
    if closed := content.closed:
        yield f"{len(closed)} folders cannot be read and were left out (first: {_in_utf8(closed[0])})"
    if content.other:
        yield f"{content.other.total()} files that are no images by their suffix were left out ({content.suffixes})"


def _without_images(content: _Content, tree: Tree) -> list[str]:
    return [name for name in content.folders if name not in tree.folders and name not in content.closed]


def _check_folder(folder: Path, content: _Content, tree: Tree, layout: Layout, *, one_class: bool) -> None:
    """Rejects a folder without class folders, with advice on what to pass instead."""
    loose, tables = content.loose, [name for name in content.files if is_table(name)]
    if not content.files and not content.folders:
        raise DataError(f"{_LAYOUT}, but {folder} is empty; check the path")
    if not content.folders:
        hint = f"pass the file itself, {folder / tables[0]}" if tables else _advice_on_files(loose)
        raise DataError(
            f"{_LAYOUT}, but {folder} has no folders, only {len(content.files)} files ({len(loose)} images); {hint}"
        )
    if not content.paths:
        only, hint = (f", only other files ({content.suffixes})", ", or convert these") if content.other else ("", "")
        hint += f", or pass the table {folder / tables[0]}" if tables else ""
        raise DataError(
            f"{_LAYOUT}, but no folder in {folder} holds an image (.jpg, .png, ...){only}; check the path{hint}"
        )
    if layout.splits:
        names = by_kind(layout.splits)
        raise DataError(
            f"{_LAYOUT}, but {folder} holds splits: {listed(names)}; {_advice(folder, content, tree, names)}"
        )
    if len(layout.classes) == 1 and not one_class:
        (name,) = layout.classes
        empty = _without_images(content, tree)
        more = f" (no image in {listed(empty)})" if empty else ""
        more += f", and {len(loose)} images in no folder" if loose else ""
        raise DataError(
            f'{_LAYOUT}, two classes at least, but {folder} has only "{shown(name)}"{more}; '
            f"{_advice(folder, content, tree, [name])}"
        )


def _advice(folder: Path, content: _Content, tree: Tree, names: Sequence[str]) -> str:
    """Returns the advice if the top-level folders are not classes: a subfolder, or a table of labels."""
    for name in names:
        if inner := set_within(tree.folders[name], name):
            return f"pass {folder / inner}"
    if table := best_table([name for name in content.tables if "/" not in name] or content.tables):
        images = "" if are_parts(names) else tree.folders[names[0]].unwrapped(names[0])[0]
        source, image_path = (quoted(folder / path) for path in (table, images))
        return f"pass the table that lies there: labelsieve scan {source} --image-folder {image_path}"
    return (
        _advice_on_files(content.paths)
        if len(names) > 1 or labels_in_names(content.paths)[0]
        else "add the other classes"
    )


def _advice_on_files(paths: Sequence[str]) -> str:
    """Returns the advice for images outside of class folders."""
    labels, example = labels_in_names(paths)
    if labels:
        return (
            f"the file names seem to hold the labels ({listed(labels)}; first: {shown(example)}), so {_TABLE_COLUMNS}"
        )
    return f"put the images of each class into a folder of its own, or {_TABLE_COLUMNS}"
