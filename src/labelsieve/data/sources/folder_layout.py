"""Decides which top-level folders of a source are classes, and which are splits or copies of the data set.

Folders without images and system folders are not classes. The others are classified by their names and contents. A
folder has *the name of a split* if its name only has words of splits (train, val, test, unlabeled ... in many
spellings) and neutral words (images, set, 2017 ...), such as `seg_train` and `train2017`. It *sounds like* a split if
its name starts or ends with a word of a split: `test-multiple_fruits`, but also `steam train` and `test tube`. Rules:

- Folders are splits if all sound like splits, and at least two are clearly different splits: by the name itself, by
  class folders in them, or by a partner with the same name except for the split (`letters_train`, `letters_test`).
- They are splits if all have names of splits, even of the same one (`train_1`, `train_2`). Names of parts (`images_1`,
  `fold_2`) count if all have class folders or there is a table beside them. Beside a table, so do names that only
  differ in their number and have a word of parts (`HAM10000_images_part_1`).
- They are splits if two have names of different splits, and such folders are the majority or have class folders.
- They are splits if one has the name of a split and has class folders, with at most one other folder beside it.
- All others are classes: a `train` beside `car` and `ship` is a vehicle.
- A folder that contains folders with the names of its siblings is a copy or a split of the data set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from labelsieve.core.errors import listed, shown
from labelsieve.data.labels import normalise

_SYSTEM = frozenset(
    {
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@synoresource", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "lost+found"),
        *("__macosx", "network trash folder", "temporary items", "__pycache__"),
    }
)
# Words of each split, in order of preference.
_SPLITS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "holdout", "hold"),
    "test": ("test", "testing", "tst", "pred", "predict", "prediction", "predictions", "inference", "query", "gallery"),
    "unlabelled": ("unlabeled", "unlabelled", "unsupervised"),
}
_PART, _MASK = "part", "mask"
_KINDS = {
    **{word: kind for kind, words in _SPLITS.items() for word in words},
    **dict.fromkeys(("mask", "masks", "groundtruth", "annotations", "segmentations", "labels"), _MASK),
}
_CONTAINERS = frozenset((
    "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics", "frames", "jpg",
    "jpeg", "png", "data", "dataset", "set", "sets", "sample", "samples", "split", "splits", "fold", "folds",
    "folder", "part", "parts", "batch", "chunk", "shard", "subset",
))  # fmt: skip
_EMPTY_WORDS = _CONTAINERS | frozenset((
    "seg", "cls", "crop", "crops", "cropped", "resized", "small", "full", "new", "final", "original", "orig",
    "raw", "stage", "mini", "aug", "augmented", "sub", "public", "private", "and", "out",
))  # fmt: skip
_BY_LENGTH = sorted(_KINDS, key=len, reverse=True)
# Prefixes of file names by cameras and downloads.
_CAMERAS = _CONTAINERS | {"dsc", "dscn", "dscf", "imag", "pxl", "vid", "frame", "scan", "download", "index", "file"}


@dataclass(kw_only=True)
class Tree:
    """A folder: the number of its images, and its subfolders that contain images at any depth."""

    images: int = 0
    folders: dict[str, Tree] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Returns the number of images at any depth."""
        return self.images + sum(inner.total for inner in self.folders.values())

    @property
    def nested(self) -> bool:
        """Returns whether it, or its only subfolder, has several folders that contain most of the images."""
        inner = self.unwrapped("")[1]
        return len(inner.folders) > 1 and 2 * inner.images < inner.total

    def unwrapped(self, path: str) -> tuple[str, Tree]:
        """Descends while there is only a single folder; returns the last path and folder."""
        tree = self
        while not tree.images and len(tree.folders) == 1:
            ((name, tree),) = tree.folders.items()
            path = f"{path}/{name}"
        return path, tree


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The kinds of the top-level folders: names of classes or of splits, never of both, and of copies."""

    classes: tuple[str, ...]
    copies: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


def of_system(name: str) -> bool:
    """Returns whether a folder or file is hidden, or created by an operating system."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def tree_of(paths: Iterable[str]) -> Tree:
    """Returns the folders of relative paths of images."""
    root = Tree()
    for folder, count in Counter(path.rpartition("/")[0] for path in paths).items():
        node = root
        for name in PurePosixPath(folder).parts:
            node = node.folders.setdefault(name, Tree())
        node.images += count
    return root


def layout_of(tree: Tree, *, root: str, table: bool) -> Layout:
    """Classifies the top-level folders as classes, copies and splits; see the docstring of this module.

    Args:
        tree: The folder.
        root: Its name.
        table: Whether it contains a table.
    """
    copies = _copies(tree, root=root)
    remaining = [name for name in tree.folders if name not in copies]
    if len(remaining) < 2:
        copies, remaining = [], list(tree.folders)
    splits = _are_splits({name: tree.folders[name] for name in remaining}, table=table)
    return Layout(
        classes=() if splits else tuple(remaining),
        copies=tuple(copies),
        splits=tuple(sorted(remaining)) if splits else (),
    )


def set_within(tree: Tree, path: str) -> str | None:
    """Returns the path of the nearest folder of class folders in a folder, preferably for training, or None."""
    if not tree.nested:
        return None
    path, tree = tree.unwrapped(path)
    layout = layout_of(tree, root=path.rpartition("/")[2], table=False)
    inner = (set_within(tree.folders[name], f"{path}/{name}") for name in by_kind(layout.splits))
    return next((inner_path for inner_path in inner if inner_path), None) if layout.splits else path


def are_parts(names: Iterable[str]) -> bool:
    """Returns whether folders are parts of one: `HAM10000_images_part_1` and `HAM10000_images_part_2`."""
    words = [_words(name) for name in names]
    return len(words) > 1 and all(each == words[0] for each in words) and not _CONTAINERS.isdisjoint(words[0])


def is_named_as_split(name: str) -> bool:
    """Returns whether a name is that of a split, such as `train` or `is_valid`."""
    return _named(re.sub(r"(?i)^is(?=[_A-Z])", "", name)) in _SPLITS


def by_kind(names: Iterable[str]) -> list[str]:
    """Sorts names of splits: training first."""
    order = (*_SPLITS, _PART, _MASK)
    return sorted(names, key=lambda name: (order.index(kind) if (kind := _sound(name)) else len(order), name))


def nested_note(tree: Tree, classes: Sequence[str]) -> list[str]:
    """Returns a note if class folders have several subfolders with images, which may be the classes."""
    nested = [name for name in classes if len(tree.folders[name].folders) > 1 and tree.folders[name].nested]
    if not nested:
        return []
    inner = listed(sorted(tree.folders[nested[0]].folders), quoted=True)
    return [
        f'{len(nested)} of {len(classes)} class folders hold folders of their own (first: "{shown(nested[0])}" with '
        f"{inner}), which were read as one class each; if the inner ones are the classes, pass the folder that holds "
        "them"
    ]


def labels_in_names(paths: Iterable[str]) -> tuple[list[str], str]:
    """Returns apparent labels at the start of file names, as in `cat.0.jpg`, and the first such name."""
    counts: Counter[str] = Counter()
    example = ""
    for path in paths:
        stem = PurePosixPath(path).stem
        match = re.fullmatch(r"([^\W\d_][^\d]*?)[ ._-]*\(?\d+\)?", stem)
        if match and match[1].casefold() not in _CAMERAS:
            counts[match[1]] += 1
            example = example or PurePosixPath(path).name
    usual = [word for word, count in counts.items() if count > 1]
    enough = len(usual) > 1 and len(counts) <= counts.total() / 2
    return (sorted(usual), example) if enough else ([], "")


def best_table(names: Iterable[str]) -> str | None:
    """Returns the table that most likely contains the labels: of the training data, or named labels."""

    def rank(name: str) -> tuple[int, str]:
        words = _words(PurePosixPath(name).stem)
        kinds = {_KINDS.get(word) for word in words}
        if kinds & {"test", "unlabelled"} or {"submission", "sample"} & set(words):
            return 3, name
        return (0 if "train" in kinds else 1 if {"label", "labels"} & set(words) else 2), name

    return min(names, key=rank, default=None)


def _copies(tree: Tree, *, root: str) -> list[str]:
    """Returns the folders that contain folders with the names of their siblings.

    If each class folder has folders with all names, including its own, these are a second label rather than copies.
    """
    names = {normalise(name) for name in tree.folders}
    copies = []
    for name, folder in tree.folders.items():
        inner = {normalise(each) for each in folder.unwrapped("")[1].folders}
        normalised = normalise(name)
        shared = len(inner & names - {normalised})
        has_most = shared > 1 and 2 * shared >= max(len(inner), len(names) - 1)
        if has_most and (normalised not in inner or normalised == normalise(root)):
            copies.append(name)
    return copies


def _are_splits(folders: dict[str, Tree], *, table: bool) -> bool:
    named = {name: kind for name in folders if (kind := _named(name))}
    sounds = {name: kind for name in folders if (kind := _sound(name))}
    sure = {kind for name, kind in sounds.items() if name in named or folders[name].nested or _partner(name, sounds)}
    kinds = {kind for kind in named.values() if kind not in (_PART, _MASK)}
    nested = any(folders[name].nested for name, kind in named.items() if kind != _PART)
    if len(folders) < 2:
        return False
    if table and are_parts(folders):
        return True
    if len(sounds) == len(folders) and len(sure) > 1:
        return True
    if len(named) == len(folders):
        return bool(kinds) or table or all(folder.nested for folder in folders.values())
    if len(kinds) > 1:
        return nested or 2 * len(named) > len(folders)
    return len(kinds) == 1 and nested and _is_only_split(folders, named)


def _is_only_split(folders: dict[str, Tree], named: dict[str, str]) -> bool:
    """Returns whether a split has at most one sibling, whose class folders, if any, overlap with its own."""
    remaining = [name for name in folders if name not in named]
    if len(remaining) > 1:
        return False
    within = {inner for name in named for inner in folders[name].unwrapped("")[1].folders}
    return (
        not remaining
        or not folders[remaining[0]].nested
        or bool(within & set(folders[remaining[0]].unwrapped("")[1].folders))
    )


def _words(name: str) -> list[str]:
    """Returns the words of a name in lower case, without digits and single letters: `trainA` equals `Train_2`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for letters in re.findall(r"[^\W\d_]{2,}", spaced) for word in _parts(letters.casefold())]


def _parts(word: str) -> tuple[str, ...]:
    """Splits compound words, such as `trainset` and `trainval`."""
    for split_word in () if word in _KINDS else _BY_LENGTH:
        before, _, after = word.partition(split_word)
        if split_word in word and {before, after} <= {"", *_EMPTY_WORDS, *_KINDS}:
            return tuple(each for each in (before, split_word, after) if each)
    return (word,)


def _named(name: str) -> str | None:
    """Returns the kind of split of a name, None if it has other words."""
    words = _words(name)
    kinds = [_KINDS[word] for word in words if word in _KINDS]
    if any(word not in _KINDS and word not in _EMPTY_WORDS for word in words):
        return None
    return kinds[0] if kinds else _PART if _CONTAINERS & set(words) else None


def _sound(name: str) -> str | None:
    """Returns the kind of split that a name starts or ends with, or None."""
    words = [word for word in _words(name) if word in _KINDS or word not in _EMPTY_WORDS]
    ends = (words[-1], words[0]) if words else ()
    return _named(name) or next((_KINDS[word] for word in ends if word in _KINDS and _KINDS[word] in _SPLITS), None)


def _partner(name: str, sounds: dict[str, str]) -> bool:
    """Returns whether another name only differs in the split."""

    def without_split(other_name: str) -> list[str]:
        return [word for word in _words(other_name) if word not in _KINDS]

    return any(sounds[other] != sounds[name] and without_split(other) == without_split(name) for other in sounds)
