"""Which folders at the top of a source are classes, and which are splits or copies of the set.

Folders without images and folders that a system keeps there are no classes. Of the others the names decide, together
with what lies in them. A name *is that of a split* if it has no words but those of splits (train, val, test, unlabeled
... in many spellings) and those that say nothing (images, set, 2017 ...): `seg_train` and `train2017` are. It *sounds
like* one if it begins or ends with such a word: `test-multiple_fruits`, but `steam train` and `test tube`, too. So:

- Folders are splits where all sound like splits, and two or more are different ones beyond doubt: by the name itself,
  by class folders in them, or by a partner of the same name but for the split (`letters_train`, `letters_test`).
- They are splits where all have names of splits, even if of one kind (`train_1`, `train_2`). Names of mere parts
  (`images_1`, `fold_2`) count where they hold class folders or a table lies beside them; beside a table, so do names
  that differ in their number alone and have such a word (`HAM10000_images_part_1`).
- They are splits where two are different ones by name, if these are most of the folders or hold class folders.
- They are splits where one is by name and holds class folders, with one other folder at most beside it.
- All else are classes: a `train` beside `car` and `ship` is a vehicle.
- A folder which holds folders of the same names as those beside it is a copy of the set, or a split of it.
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
# In the order in which they are recommended.
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
_LONGEST_FIRST = sorted(_KINDS, key=len, reverse=True)
# How cameras and downloads begin the names of files.
_CAMERAS = _CONTAINERS | {"dsc", "dscn", "dscf", "imag", "pxl", "vid", "frame", "scan", "download", "index", "file"}


@dataclass(kw_only=True)
class Tree:
    """A folder: how many images lie in it, and its folders that hold images somewhere."""

    images: int = 0
    folders: dict[str, Tree] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of images in it, however deep."""
        return self.images + sum(inner.total for inner in self.folders.values())

    @property
    def nested(self) -> bool:
        """Whether it holds two folders with images, or a folder that does, and these hold most of the images."""
        inner = self.unwrapped("")[1]
        return len(inner.folders) > 1 and 2 * inner.images < inner.total

    def unwrapped(self, path: str) -> tuple[str, Tree]:
        """Goes down while there is nothing but one folder; returns where that ends."""
        found = self
        while not found.images and len(found.folders) == 1:
            ((name, found),) = found.folders.items()
            path = f"{path}/{name}"
        return path, found


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the folders at the top are: names of classes, of copies, and of splits, of which there are none or all."""

    classes: tuple[str, ...]
    copies: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


def of_system(name: str) -> bool:
    """Returns whether a folder or file is hidden, or one that a system keeps beside those of the user."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def tree_of(paths: Iterable[str]) -> Tree:
    """Returns the folders of relative paths of images."""
    root = Tree()
    for folder, count in Counter(path.rpartition("/")[0] for path in paths).items():
        here = root
        for name in PurePosixPath(folder).parts:
            here = here.folders.setdefault(name, Tree())
        here.images += count
    return root


def layout_of(tree: Tree, *, root: str, table: bool) -> Layout:
    """Tells classes, copies and splits at the top of a folder apart; see the head of this module.

    Args:
        tree: The folder.
        root: Its name.
        table: Whether a table lies in it.
    """
    copies = _copies(tree, root=root)
    others = [name for name in tree.folders if name not in copies]
    if len(others) < 2:
        copies, others = [], list(tree.folders)
    splits = _are_splits({name: tree.folders[name] for name in others}, table=table)
    return Layout(
        classes=() if splits else tuple(others), copies=tuple(copies), splits=tuple(sorted(others)) if splits else ()
    )


def set_within(tree: Tree, path: str) -> str | None:
    """Returns the path of the nearest folder of class folders in a folder, that of training first, or None."""
    if not tree.nested:
        return None
    path, tree = tree.unwrapped(path)
    layout = layout_of(tree, root=path.rpartition("/")[2], table=False)
    inner = (set_within(tree.folders[name], f"{path}/{name}") for name in by_kind(layout.splits))
    return next((found for found in inner if found), None) if layout.splits else path


def are_parts(names: Iterable[str]) -> bool:
    """Returns whether folders are parts of one: `HAM10000_images_part_1` and `HAM10000_images_part_2`."""
    words = [_words(name) for name in names]
    return len(words) > 1 and all(each == words[0] for each in words) and not _CONTAINERS.isdisjoint(words[0])


def is_named_as_split(name: str) -> bool:
    """Returns whether a name has no words but those of splits, such as `train` or `is_valid`."""
    return _named(re.sub(r"(?i)^is(?=[_A-Z])", "", name)) in _SPLITS


def by_kind(names: Iterable[str]) -> list[str]:
    """Sorts names of splits: training first."""
    order = (*_SPLITS, _PART, _MASK)
    return sorted(names, key=lambda name: (order.index(kind) if (kind := _sound(name)) else len(order), name))


def nested_note(tree: Tree, classes: Sequence[str]) -> list[str]:
    """Returns a remark where the images of classes lie in folders of their own, which may be the classes."""
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
    """Returns what seem to be labels at the beginning of file names, as in `cat.0.jpg`, and the first such name."""
    counts: Counter[str] = Counter()
    example = ""
    for path in paths:
        stem = PurePosixPath(path).stem
        found = re.fullmatch(r"([^\W\d_][^\d]*?)[ ._-]*\(?\d+\)?", stem)
        if found and found[1].casefold() not in _CAMERAS:
            counts[found[1]] += 1
            example = example or PurePosixPath(path).name
    usual = [word for word, count in counts.items() if count > 1]
    enough = len(usual) > 1 and len(counts) <= counts.total() / 2
    return (sorted(usual), example) if enough else ([], "")


def best_table(names: Iterable[str]) -> str | None:
    """Returns the table that most likely holds the labels: that of the training data, or one called labels."""

    def rank(name: str) -> tuple[int, str]:
        words = _words(PurePosixPath(name).stem)
        kinds = {_KINDS.get(word) for word in words}
        if kinds & {"test", "unlabelled"} or {"submission", "sample"} & set(words):
            return 3, name
        return (0 if "train" in kinds else 1 if {"label", "labels"} & set(words) else 2), name

    return min(names, key=rank, default=None)


def _copies(tree: Tree, *, root: str) -> list[str]:
    """Returns the folders that hold folders of the names of their neighbours.

    Where each class folder holds folders of all names, its own too, these are a second label rather than copies.
    """
    names = {normalise(name) for name in tree.folders}
    found = []
    for name, folder in tree.folders.items():
        inner = {normalise(each) for each in folder.unwrapped("")[1].folders}
        own = normalise(name)
        shared = len(inner & names - {own})
        most = shared > 1 and 2 * shared >= max(len(inner), len(names) - 1)
        if most and (own not in inner or own == normalise(root)):
            found.append(name)
    return found


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
    return len(kinds) == 1 and nested and _alone(folders, named)


def _alone(folders: dict[str, Tree], named: dict[str, str]) -> bool:
    """Returns whether one other folder at most lies beside a split, and holds no other class folders."""
    others = [name for name in folders if name not in named]
    if len(others) > 1:
        return False
    within = {inner for name in named for inner in folders[name].unwrapped("")[1].folders}
    return (
        not others or not folders[others[0]].nested or bool(within & set(folders[others[0]].unwrapped("")[1].folders))
    )


def _words(name: str) -> list[str]:
    """Returns the words of a name in lower case, without digits and single letters: `trainA` and `Train_2` are one."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for found in re.findall(r"[^\W\d_]{2,}", parted) for word in _parts(found.casefold())]


def _parts(word: str) -> tuple[str, ...]:
    """Parts words that are written as one, such as `trainset` and `trainval`."""
    for known in () if word in _KINDS else _LONGEST_FIRST:
        before, _, after = word.partition(known)
        if known in word and {before, after} <= {"", *_EMPTY_WORDS, *_KINDS}:
            return tuple(each for each in (before, known, after) if each)
    return (word,)


def _named(name: str) -> str | None:
    """Returns the kind of split, if a name has no other words."""
    words = _words(name)
    kinds = [_KINDS[word] for word in words if word in _KINDS]
    if any(word not in _KINDS and word not in _EMPTY_WORDS for word in words):
        return None
    return kinds[0] if kinds else _PART if _CONTAINERS & set(words) else None


def _sound(name: str) -> str | None:
    """Returns the kind of split that a name begins or ends with."""
    words = [word for word in _words(name) if word in _KINDS or word not in _EMPTY_WORDS]
    ends = (words[-1], words[0]) if words else ()
    return _named(name) or next((_KINDS[word] for word in ends if word in _KINDS and _KINDS[word] in _SPLITS), None)


def _partner(name: str, sounds: dict[str, str]) -> bool:
    """Returns whether there is a name that differs in the split alone."""

    def rest(each: str) -> list[str]:
        return [word for word in _words(each) if word not in _KINDS]

    return any(sounds[other] != sounds[name] and rest(other) == rest(name) for other in sounds)
