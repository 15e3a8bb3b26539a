"""Look-alikes of published data sets: sketches in the official layout. A new one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.bench.lookalikes.formats import (
    car_list,
    cell_array,
    cifar_rows,
    python2_pickle,
    write_bytes,
    write_human,
    write_jpeg,
    write_lines,
    write_matlab,
)
from labelsieve.demo.sketches import CLASS_NAMES, sketches

NAMES: tuple[str, ...] = tuple(f"{name} drawing" for name in CLASS_NAMES)
"""Class names of look-alikes, with two words, since layouts differ in how they write spaces."""

_NOISE = 0.3
_ANIMALS = frozenset({"bird drawing", "cat drawing", "dog drawing", "fish drawing"})
_COARSE = ("living_things", "other_things")
# mini-WebVision has 50 of all classes; those without sketches have other names
_MINI, _SYNSETS = 50, 52
_WEB_NAMES = (*NAMES, *(f"unseen drawing {number}" for number in range(len(NAMES), _SYNSETS)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The sketches of one split.

    Attributes:
        images: Shape (N, 64, 64, 3).
        truth: Shape (N,), indices into `NAMES`.
        noisy: Shape (N,), labels of which some are wrong; those of test images are right.
    """

    images: NDArray[np.uint8]
    truth: NDArray[np.int64]
    noisy: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class SketchSplits:
    """The sketches of a look-alike.

    Attributes:
        train: Training sketches.
        test: Test sketches.
    """

    train: Split
    test: Split


def draw_splits(train: int, test: int) -> SketchSplits:
    """Draws fixed sketches; 30 % of the noisy training labels are wrong."""
    return SketchSplits(train=_draw_split(train, seed=0, noise=_NOISE), test=_draw_split(test, seed=1, noise=0.0))


def _draw_split(count: int, *, seed: int, noise: float) -> Split:
    from labelsieve.data.noise import symmetric

    images, truth = sketches(count, seed=seed)
    noisy = symmetric(truth, classes=len(NAMES), rate=noise, seed=seed)
    return Split(images=np.stack([np.asarray(image) for image in images]), truth=truth, noisy=noisy)


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """How to imitate a published data set.

    Attributes:
        write: Writes all its splits into a folder.
        names: Its class names as the reader returns them.
    """

    write: Callable[[Path, SketchSplits], None]
    names: tuple[str, ...] = NAMES


# ---------------------------------------------------------------- CIFAR


def half_size(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns images (N, 64, 64, 3) at half the size, (N, 32, 32, 3), as in CIFAR."""
    count, side = len(images), images.shape[1] // 2
    halved: NDArray[np.uint8] = images.reshape(count, side, 2, side, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    return halved


def _batch(images: NDArray[np.uint8], **labels: NDArray[np.int64]) -> bytes:
    record: dict[str, Any] = {name: values.tolist() for name, values in labels.items()}
    files = [f"drawing_s_{row:06d}.png" for row in range(len(images))]
    return python2_pickle({**record, "data": cifar_rows(half_size(images)), "filenames": files})


def _underscored(name: str) -> str:
    return name.replace(" ", "_")


def _coarse(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    group = np.array([int(name not in _ANIMALS) for name in NAMES], dtype=np.int64)
    return group[labels]


def _write_cifar10(folder: Path, splits: SketchSplits) -> None:
    archive, train, test = folder / "cifar-10-batches-py", splits.train, splits.test
    for number, rows in enumerate(np.array_split(np.arange(len(train)), 5), 1):
        write_bytes(archive / f"data_batch_{number}", _batch(train.images[rows], labels=train.truth[rows]))
    write_bytes(archive / "test_batch", _batch(test.images, labels=test.truth))
    write_bytes(archive / "batches.meta", python2_pickle({"label_names": list(map(_underscored, NAMES))}))


def _write_cifar10n(folder: Path, splits: SketchSplits) -> None:
    _write_cifar10(folder, splits)
    train = splits.train
    names = ("worse_label", "random_label1", "random_label2", "random_label3")
    clean = {"clean_label": train.truth, "aggre_label": train.truth}
    write_human(folder / "CIFAR-10_human.pt", {**clean, **dict.fromkeys(names, train.noisy)})


def _write_cifar100(folder: Path, splits: SketchSplits) -> None:
    archive = folder / "cifar-100-python"
    for name, part in (("train", splits.train), ("test", splits.test)):
        batch = _batch(part.images, fine_labels=part.truth, coarse_labels=_coarse(part.truth))
        write_bytes(archive / name, batch)
    meta = {"fine_label_names": list(map(_underscored, NAMES)), "coarse_label_names": list(_COARSE)}
    write_bytes(archive / "meta", python2_pickle(meta))


def _write_cifar100n(folder: Path, splits: SketchSplits) -> None:
    _write_cifar100(folder, splits)
    clean, noisy = splits.train.truth, splits.train.noisy
    coarse = {"clean_coarse_label": _coarse(clean), "noisy_coarse_label": _coarse(noisy)}
    write_human(folder / "CIFAR-100_human.pt", {"clean_label": clean, "noisy_label": noisy, **coarse})


# ---------------------------------------------------------------- folders and lists


def _codes(count: int) -> list[str]:
    return [f"n{number:08d}" for number in range(1, count + 1)]


def _write_tiny_imagenet(folder: Path, splits: SketchSplits) -> None:
    codes = _codes(len(NAMES))
    write_lines(folder / "wnids.txt", *codes)
    words = (f"{code}\t{name}, sketch" for code, name in zip(codes, NAMES, strict=True))
    write_lines(folder / "words.txt", "n00000000\tentity", *words)
    for row, label in enumerate(splits.train.truth.tolist()):
        file = f"{codes[label]}_{row}.JPEG"
        write_jpeg(folder / "train" / codes[label] / "images" / file, splits.train.images[row])
    files = [f"val_{row}.JPEG" for row in range(len(splits.test))]
    annotations = (
        f"{file}\t{codes[label]}\t0\t0\t63\t63" for file, label in zip(files, splits.test.truth, strict=True)
    )
    write_lines(folder / "val" / "val_annotations.txt", *annotations)
    _write_images(folder / "val" / "images", files, splits.test)


def _write_images(folder: Path, files: list[str], part: Split) -> None:
    for file, pixels in zip(files, part.images, strict=True):
        write_jpeg(folder / file, pixels)


def _write_cars(folder: Path, splits: SketchSplits) -> None:
    write_matlab(folder / "devkit" / "cars_meta.mat", {"class_names": cell_array([name.title() for name in NAMES])})
    lists = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, part in (("train", splits.train), ("test", splits.test)):
        files = [f"{row:05d}.jpg" for row in range(1, len(part) + 1)]
        rows = list(zip((part.truth + 1).tolist(), files, strict=True))
        write_matlab(folder / lists[split], {"annotations": car_list(rows)})
        _write_images(folder / f"cars_{split}", files, part)


def _write_cub(folder: Path, splits: SketchSplits) -> None:
    names = [_underscored(name.title()) for name in NAMES]
    folders = [f"{number:03d}.{name}" for number, name in enumerate(names, 1)]
    files, labels, flags = list[str](), list[int](), list[int]()
    for part, flag in ((splits.train, 1), (splits.test, 0)):
        labels_of_split = part.truth.tolist()
        files_of_split = [
            f"{folders[label]}/{names[label]}_{row:04d}_{flag}.jpg" for row, label in enumerate(labels_of_split)
        ]
        _write_images(folder / "images", files_of_split, part)
        files, labels, flags = [*files, *files_of_split], [*labels, *labels_of_split], [*flags, *[flag] * len(part)]
    for name, values in (
        ("classes.txt", folders),
        ("images.txt", files),
        ("image_class_labels.txt", [label + 1 for label in labels]),
        ("train_test_split.txt", flags),
    ):
        write_lines(folder / name, *(f"{number} {value}" for number, value in enumerate(values, 1)))


def _write_clothing1m(folder: Path, splits: SketchSplits) -> None:
    """Writes clean labels of all images and noisy ones of the training images, so that every split has enough."""
    train, test = (
        [f"images/{row % 10}/{row % 100:02d}/{row},{split}.jpg" for row in range(len(part))]
        for split, part in enumerate((splits.train, splits.test))
    )
    write_lines(folder / "category_names_eng.txt", *(_underscored(name.title()) for name in NAMES))
    noisy, clean = splits.train.noisy.tolist(), [*splits.train.truth.tolist(), *splits.test.truth.tolist()]
    write_lines(folder / "noisy_label_kv.txt", *map(_pair, train, noisy))
    write_lines(folder / "clean_label_kv.txt", *map(_pair, [*train, *test], clean))
    for name, keys in (("noisy_train", train), ("clean_train", train), ("clean_val", test), ("clean_test", test)):
        write_lines(folder / f"{name}_key_list.txt", *keys)
    _write_images(folder, train, splits.train)
    _write_images(folder, test, splits.test)


def _pair(key: str, value: object) -> str:
    return f"{key} {value}"


def _write_webvision(folder: Path, splits: SketchSplits) -> None:
    """Lists some images a second time with a class that is not among the 50, which the reader has to drop."""
    codes, info = _codes(_SYNSETS), folder / "info"
    write_lines(info / "synsets.txt", *(f"{code} {name}, sketch" for code, name in zip(codes, _WEB_NAMES, strict=True)))
    train = [f"google/q{label + 1:04d}/{row} drawing.jpg" for row, label in enumerate(splits.train.noisy)]
    test = [f"val{row:06d}.jpg" for row in range(1, len(splits.test) + 1)]
    for file, keys, part in (("train_filelist_google", train, splits.train), ("val_filelist", test, splits.test)):
        write_lines(info / f"{file}.txt", _pair(keys[0], _MINI), *map(_pair, keys, part.noisy), _pair(keys[-1], _MINI))
    _write_images(folder, train, splits.train)
    _write_images(folder / "val_images_256", test, splits.test)
    for code in codes[:_MINI]:
        (folder / "imagenet-val" / code).mkdir(parents=True, exist_ok=True)
    files = [f"{codes[label]}/ILSVRC2012_val_{row:08d}.JPEG" for row, label in enumerate(splits.test.truth)]
    _write_images(folder / "imagenet-val", files, splits.test)


def _write_food101n(folder: Path, splits: SketchSplits) -> None:
    folders, meta, head = [_underscored(name) for name in NAMES], folder / "meta", "class_name/key"
    keys = [f"{folders[label]}/{row}.jpg" for row, label in enumerate(splits.train.noisy)]
    is_right = (splits.train.noisy == splits.train.truth).astype(int)
    write_lines(meta / "classes.txt", "class_name", *folders)
    write_lines(meta / "imagelist.tsv", head, *keys)
    for part in ("train", "val"):
        verified = (f"{key}\t{flag}" for key, flag in zip(keys, is_right, strict=True))
        write_lines(meta / f"verified_{part}.tsv", f"{head}\tverification_label", *verified)
    _write_images(folder / "images", keys, splits.train)


# ANIMAL-10N is missing: its reader has fixed classes, which the sketches do not have.
LOOKALIKES: Mapping[str, Lookalike] = {
    "cifar10": Lookalike(write=_write_cifar10),
    "cifar100": Lookalike(write=_write_cifar100),
    "cifar10n": Lookalike(write=_write_cifar10n),
    "cifar100n": Lookalike(write=_write_cifar100n),
    "tiny-imagenet": Lookalike(write=_write_tiny_imagenet),
    "stanford-cars": Lookalike(write=_write_cars),
    "cub-200-2011": Lookalike(write=_write_cub),
    "clothing1m": Lookalike(write=_write_clothing1m),
    "webvision": Lookalike(write=_write_webvision, names=_WEB_NAMES[:_MINI]),
    "food-101n": Lookalike(write=_write_food101n),
}
