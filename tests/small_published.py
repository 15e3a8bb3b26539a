"""Tiny replicas of published data sets: the file names and formats of the official ones, with a handful of pictures."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelsieve.bench.lookalikes.formats import (
    car_list,
    cell_array,
    cifar_rows,
    python2_pickle,
    write_human,
    write_lines,
    write_matlab,
)
from small_pictures import encoded


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a replica has to be read as.

    Attributes:
        classes: Class names.
        ids: Ids of the pictures.
        labels: Given labels.
        truth: True labels, or None.
        pixels: The pictures themselves, where they are stored losslessly.
    """

    classes: Sequence[str]
    ids: Sequence[str]
    labels: Sequence[int]
    truth: Sequence[int] | None = None
    pixels: NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A function that writes a data set into a folder, and what each split has to be read as."""

    write: Callable[[Path], None]
    splits: Mapping[str, Expected] = field(default_factory=dict)


def jpeg(path: Path, number: int, *, mode: str = "RGB") -> None:
    """Writes a small picture that is unlike those of other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path.write_bytes(encoded(Image.fromarray(pixels).convert(mode), "JPEG"))


def text(path: Path, *lines: str, end: str = "\n") -> None:
    """Writes lines, and blank ones after them, as some of the official files have."""
    write_lines(path, *lines, "", "", end=end)


def numbers(count: int) -> list[str]:
    """Returns the ids of pictures that have no names."""
    return [f"{number:07d}" for number in range(count)]


# ---------------------------------------------------------------- CIFAR


TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE, COARSE = ("apple", "aquarium_fish", "pickup_truck"), ("fish", "fruit_and_vegetables", "vehicles_1")
COARSE_OF = (1, 0, 2)


def cifar_pixels(split: str, count: int) -> NDArray[np.uint8]:
    """Returns pictures of shape (count, 32, 32, 3)."""
    return np.random.default_rng(len(split)).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


TEN_TRAIN, TEN_TEST = [3, 5, 0, 1, 9, 9, 2, 4, 3, 8], [7, 6]
FINE_TRAIN, FINE_TEST = [2, 0, 1, 0], [1, 2]


def write_cifar10(folder: Path) -> None:
    """Five batches of two pictures, and a test batch."""
    home = folder / "cifar-10-batches-py"
    home.mkdir(parents=True, exist_ok=True)
    pixels = cifar_pixels("train", 10)
    for part in range(5):
        rows = slice(2 * part, 2 * part + 2)
        batch = {
            "batch_label": f"training batch {part + 1} of 5",
            "labels": TEN_TRAIN[rows],
            "data": cifar_rows(pixels[rows]),
            "filenames": ["a_s_1.png", "b_s_2.png"],
        }
        (home / f"data_batch_{part + 1}").write_bytes(python2_pickle(batch))
    batch = {"labels": TEN_TEST, "data": cifar_rows(cifar_pixels("test", 2)), "filenames": ["c_s_3.png", "d_s_4.png"]}
    (home / "test_batch").write_bytes(python2_pickle(batch))
    (home / "batches.meta").write_bytes(
        python2_pickle({"num_cases_per_batch": 2, "label_names": list(TEN), "num_vis": 3072})
    )


def write_cifar100(folder: Path) -> None:
    """One file a split."""
    home = folder / "cifar-100-python"
    home.mkdir(parents=True, exist_ok=True)
    for split, fine in (("train", FINE_TRAIN), ("test", FINE_TEST)):
        part = {
            "filenames": ["x.png"] * len(fine),
            "fine_labels": fine,
            "coarse_labels": [COARSE_OF[label] for label in fine],
            "data": cifar_rows(cifar_pixels(split, len(fine))),
        }
        (home / split).write_bytes(python2_pickle(part))
    (home / "meta").write_bytes(python2_pickle({"fine_label_names": list(FINE), "coarse_label_names": list(COARSE)}))


def packed(folder: Path, archive: Path) -> None:
    """Packs the one folder in a folder, as CIFAR comes."""
    with tarfile.open(archive, "w:gz") as out:
        for inner in folder.iterdir():
            out.add(inner, arcname=inner.name)


WORSE = [3, 5, 0, 9, 9, 1, 2, 4, 5, 8]
TEN_HUMAN = {
    "clean_label": np.array(TEN_TRAIN),
    "worse_label": np.array(WORSE),
    "aggre_label": np.array(TEN_TRAIN),
    "random_label1": np.array(TEN_TRAIN[::-1]),
    "random_label2": np.array(TEN_TRAIN).reshape(1, -1),
    "random_label3": np.array(TEN_TRAIN, dtype=np.int32),
}
FINE_NOISY = [2, 1, 1, 2]
FINE_HUMAN = {
    "clean_label": np.array(FINE_TRAIN),
    "noisy_label": np.array(FINE_NOISY),
    "clean_coarse_label": [COARSE_OF[label] for label in FINE_TRAIN],
    "noisy_coarse_label": [COARSE_OF[label] for label in FINE_NOISY],
}


def write_cifar10n(folder: Path) -> None:
    """Labels beside the archive."""
    write_cifar10(folder)
    write_human(folder / "CIFAR-10_human.pt", TEN_HUMAN)


def write_cifar100n(folder: Path) -> None:
    """Labels in a folder `data`, as in the authors' repository."""
    write_cifar100(folder)
    write_human(folder / "data" / "CIFAR-100_human.pt", FINE_HUMAN, old_numpy=False)


# ---------------------------------------------------------------- lists and folders


def write_tiny_imagenet(folder: Path) -> None:
    """Three classes, two of which have the same first synonym."""
    home = folder / "tiny-imagenet-200"
    text(home / "wnids.txt", "n02124075", "n03126707", "n02012849")
    text(
        home / "words.txt",
        "n00001740\tentity",
        "n02012849\tcrane",
        "n02124075\tEgyptian cat",
        "n03126707\tcrane, hoist",
    )
    for number, name in enumerate(("n02124075_0", "n02124075_1", "n03126707_0", "n02012849_10")):
        place = home / "train" / name.split("_")[0] / "images" / f"{name}.JPEG"
        jpeg(place, number, mode="L" if number == 1 else "RGB")
    text(home / "train" / "n02124075" / "n02124075_boxes.txt", "n02124075_0.JPEG\t0\t0\t62\t63")
    for number in range(2):
        jpeg(home / "val" / "images" / f"val_{number}.JPEG", 10 + number)
    text(
        home / "val" / "val_annotations.txt",
        "val_0.JPEG\tn02012849\t0\t32\t44\t62",
        "val_1.JPEG\tn02124075\t52\t55\t57\t59",
        end="\r\n",
    )


def write_cars(folder: Path) -> None:
    """The labels of the test set lie beside the devkit, and hold one picture only."""
    names = ["AM General Hummer SUV 2000", "Acura TL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
    write_matlab(folder / "devkit" / "cars_meta.mat", {"class_names": cell_array(names)})
    train, test = [(2, "00001.jpg"), (3, "00002.jpg"), (1, "00003.jpg")], [(3, "00001.jpg")]
    write_matlab(folder / "devkit" / "cars_train_annos.mat", {"annotations": car_list(train)})
    write_matlab(folder / "cars_test_annos_withlabels.mat", {"annotations": car_list(test)})
    for number, (_, name) in enumerate(train):
        jpeg(folder / "cars_train" / name, number, mode="L" if number == 2 else "RGB")
    jpeg(folder / "cars_test" / "00001.jpg", 9)


def write_cub(folder: Path) -> None:
    """Blanks and dots in names, and labels in another order than the pictures."""
    home = folder / "CUB_200_2011"
    files = (
        "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
        "002.Le_Conte_Sparrow/St. Louis sparrow.v2.jpg",
        "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
        "003.Chuck_will_Widow/a b.jpg",
    )
    text(home / "images.txt", *(f"{number} {name}" for number, name in enumerate(files, 1)))
    text(home / "image_class_labels.txt", "4 3", "2 2", "1 1", "3 1")
    text(home / "classes.txt", "1 001.Black_footed_Albatross", "2 002.Le_Conte_Sparrow", "3 003.Chuck_will_Widow")
    text(home / "train_test_split.txt", "1 0", "2 1", "3 1", "4 1")
    text(home / "bounding_boxes.txt", *(f"{number} 60.0 27.0 325.0 304.0" for number in range(1, 5)))
    for number, name in enumerate(files):
        jpeg(home / "images" / name, number)


def write_clothing1m(folder: Path) -> None:
    """Noisy and clean labels, some pictures with both."""
    text(folder / "category_names_eng.txt", "T-Shirt", "Down_Coat", "Suit", end="\r\n")
    keys = [f"images/{number % 2}/{number:02d},{number}.jpg" for number in range(8)]
    text(folder / "noisy_label_kv.txt", *(f"{keys[row]} {row % 3}" for row in range(5)))
    text(folder / "clean_label_kv.txt", *(f"{keys[row]} {2 - row % 3}" for row in (7, 6, 5, 4, 3)))
    text(folder / "noisy_train_key_list.txt", *keys[:4])
    text(folder / "clean_train_key_list.txt", keys[4], keys[3])
    text(folder / "clean_val_key_list.txt", keys[5])
    text(folder / "clean_test_key_list.txt", keys[6], keys[7], end="\r\n")
    for number, key in enumerate(keys):
        jpeg(folder / key, number)


def write_webvision(folder: Path) -> None:
    """52 classes, of which the last two are none of mini-WebVision."""
    codes = [f"n{number:08d}" for number in range(52)]
    synonyms = ["tench, Tinca tinca", "goldfish, Carassius auratus", *(f"thing {number}" for number in range(2, 52))]
    text(folder / "info" / "synsets.txt", *(f"{code} {words}" for code, words in zip(codes, synonyms, strict=True)))
    text(
        folder / "info" / "train_filelist_google.txt",
        "google/q0001/a b.jpg 0",
        "google/q0001/c.jpg 51",
        "google/q0002/d.jpg 49",
        "google/q0003/e.jpg 1",
    )
    text(folder / "info" / "val_filelist.txt", "val000001.jpg 50", "val000002.jpg 1", "val000003.jpg 0")
    for number, name in enumerate(("q0001/a b.jpg", "q0001/c.jpg", "q0002/d.jpg", "q0003/e.jpg")):
        jpeg(folder / "google" / name, number)
    for number in range(1, 4):
        jpeg(folder / "val_images_256" / f"val{number:06d}.jpg", 10 + number)
    for code in codes[:50]:
        (folder / "imagenet-val" / code).mkdir(parents=True)
    jpeg(folder / "imagenet-val" / codes[1] / "ILSVRC2012_val_00000002.JPEG", 20, mode="L")
    jpeg(folder / "imagenet-val" / codes[0] / "ILSVRC2012_val_00000009.JPEG", 21)
    jpeg(folder / "imagenet-val" / codes[0] / "ILSVRC2012_val_00000001.JPEG", 22)


ANIMALS = ("cat", "lynx", "wolf", "coyote", "cheetah", "jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig")


def write_animal10n(folder: Path) -> None:
    """Files with their label in front, and what macOS leaves."""
    for number, name in enumerate(("training/9_12.jpg", "training/0_7.jpg", "training/3_100.jpg", "testing/5_1.jpg")):
        jpeg(folder / name, number)
    (folder / "training" / "._0_7.jpg").write_bytes(b"x")


def write_food101n(folder: Path) -> None:
    """Headers, and a verified picture that is not there, as one of the official ones."""
    home = folder / "Food-101N_release"
    meta, header = home / "meta", "class_name/key\tverification_label"
    keys = ("apple_pie/a.jpg", "hot_and_sour_soup/b.jpg", "apple_pie/c.jpg")
    text(meta / "classes.txt", "class_name", "apple_pie", "hot_and_sour_soup")
    text(meta / "imagelist.tsv", "class_name/key", *keys)
    text(meta / "verified_train.tsv", header, "hot_and_sour_soup/b.jpg\t1", "apple_pie/gone.jpg\t0", end="\r\n")
    text(meta / "verified_val.tsv", header, "apple_pie/c.jpg\t0", "apple_pie/a.jpg\t1")
    for number, key in enumerate(keys):
        jpeg(home / "images" / key, number)


# ---------------------------------------------------------------- all of them

_FINE = ("apple", "aquarium fish", "pickup truck")
_TINY = ("Egyptian cat", "crane, hoist", "crane")
_CARS = ("am general hummer suv 2000", "acura tl sedan 2012", "ram c/v cargo van minivan 2012")
_BIRDS = ("black footed albatross", "le conte sparrow", "chuck will widow")
_CLOTHES = ("t-shirt", "down coat", "suit")
_MINI = ("tench", "goldfish", *(f"thing {number}" for number in range(2, 50)))
_FOOD = ("apple pie", "hot and sour soup")
_NOISY_CLOTHES = Expected(
    classes=_CLOTHES,
    ids=("images/0/00,0.jpg", "images/1/01,1.jpg", "images/0/02,2.jpg", "images/1/03,3.jpg"),
    labels=(0, 1, 2, 0),
)
_TEN_TEST = Expected(classes=TEN, ids=numbers(2), labels=TEN_TEST, pixels=cifar_pixels("test", 2))
_FINE_TEST = Expected(classes=_FINE, ids=numbers(2), labels=FINE_TEST, pixels=cifar_pixels("test", 2))

REPLICAS = {
    "cifar10": Replica(
        write=write_cifar10,
        splits={
            "train": Expected(classes=TEN, ids=numbers(10), labels=TEN_TRAIN, pixels=cifar_pixels("train", 10)),
            "test": _TEN_TEST,
        },
    ),
    "cifar100": Replica(
        write=write_cifar100,
        splits={
            "train": Expected(classes=_FINE, ids=numbers(4), labels=FINE_TRAIN, pixels=cifar_pixels("train", 4)),
            "test": _FINE_TEST,
        },
    ),
    "cifar10n": Replica(
        write=write_cifar10n,
        splits={
            "train": Expected(
                classes=TEN, ids=numbers(10), labels=WORSE, truth=TEN_TRAIN, pixels=cifar_pixels("train", 10)
            ),
            "test": _TEN_TEST,
        },
    ),
    "cifar100n": Replica(
        write=write_cifar100n,
        splits={
            "train": Expected(
                classes=_FINE, ids=numbers(4), labels=FINE_NOISY, truth=FINE_TRAIN, pixels=cifar_pixels("train", 4)
            ),
            "test": _FINE_TEST,
        },
    ),
    "tiny-imagenet": Replica(
        write=write_tiny_imagenet,
        splits={
            "train": Expected(
                classes=_TINY,
                ids=(
                    "train/n02124075/images/n02124075_0.JPEG",
                    "train/n02124075/images/n02124075_1.JPEG",
                    "train/n03126707/images/n03126707_0.JPEG",
                    "train/n02012849/images/n02012849_10.JPEG",
                ),
                labels=(0, 0, 1, 2),
            ),
            "val": Expected(classes=_TINY, ids=("val/images/val_0.JPEG", "val/images/val_1.JPEG"), labels=(2, 0)),
        },
    ),
    "stanford-cars": Replica(
        write=write_cars,
        splits={
            "train": Expected(
                classes=_CARS, ids=[f"cars_train/0000{number}.jpg" for number in (1, 2, 3)], labels=(1, 2, 0)
            ),
            "test": Expected(classes=_CARS, ids=("cars_test/00001.jpg",), labels=(2,)),
        },
    ),
    "cub-200-2011": Replica(
        write=write_cub,
        splits={
            "train": Expected(
                classes=_BIRDS,
                ids=(
                    "images/002.Le_Conte_Sparrow/St. Louis sparrow.v2.jpg",
                    "images/001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
                    "images/003.Chuck_will_Widow/a b.jpg",
                ),
                labels=(1, 0, 2),
            ),
            "test": Expected(
                classes=_BIRDS,
                ids=("images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",),
                labels=(0,),
            ),
        },
    ),
    "clothing1m": Replica(
        write=write_clothing1m,
        splits={
            "train": _NOISY_CLOTHES,
            "sample-64000": _NOISY_CLOTHES,
            "both": Expected(
                classes=_CLOTHES, ids=("images/0/04,4.jpg", "images/1/03,3.jpg"), labels=(1, 0), truth=(1, 2)
            ),
            "clean-train": Expected(classes=_CLOTHES, ids=("images/0/04,4.jpg", "images/1/03,3.jpg"), labels=(1, 2)),
            "val": Expected(classes=_CLOTHES, ids=("images/1/05,5.jpg",), labels=(0,)),
            "test": Expected(classes=_CLOTHES, ids=("images/0/06,6.jpg", "images/1/07,7.jpg"), labels=(2, 1)),
        },
    ),
    "webvision": Replica(
        write=write_webvision,
        splits={
            "train": Expected(
                classes=_MINI,
                ids=("google/q0001/a b.jpg", "google/q0002/d.jpg", "google/q0003/e.jpg"),
                labels=(0, 49, 1),
            ),
            "val": Expected(
                classes=_MINI, ids=("val_images_256/val000002.jpg", "val_images_256/val000003.jpg"), labels=(1, 0)
            ),
            "imagenet-val": Expected(
                classes=_MINI,
                ids=(
                    "imagenet-val/n00000000/ILSVRC2012_val_00000001.JPEG",
                    "imagenet-val/n00000000/ILSVRC2012_val_00000009.JPEG",
                    "imagenet-val/n00000001/ILSVRC2012_val_00000002.JPEG",
                ),
                labels=(0, 0, 1),
            ),
        },
    ),
    "animal-10n": Replica(
        write=write_animal10n,
        splits={
            "train": Expected(
                classes=ANIMALS, ids=("training/0_7.jpg", "training/3_100.jpg", "training/9_12.jpg"), labels=(0, 3, 9)
            ),
            "test": Expected(classes=ANIMALS, ids=("testing/5_1.jpg",), labels=(5,)),
        },
    ),
    "food-101n": Replica(
        write=write_food101n,
        splits={
            "train": Expected(
                classes=_FOOD,
                ids=("images/apple_pie/a.jpg", "images/hot_and_sour_soup/b.jpg", "images/apple_pie/c.jpg"),
                labels=(0, 1, 0),
            ),
            "verified-train": Expected(
                classes=_FOOD, ids=("images/hot_and_sour_soup/b.jpg", "images/apple_pie/gone.jpg"), labels=(1, 0)
            ),
            "verified-val": Expected(
                classes=_FOOD, ids=("images/apple_pie/c.jpg", "images/apple_pie/a.jpg"), labels=(0, 0)
            ),
        },
    ),
}


class Hostile:
    """Something whose pickle runs a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def hostile_pickle(path: Path) -> bytes:
    """Returns a pickle that makes a file if what it asks for is run."""
    return pickle.dumps({"label_names": Hostile(path)}, protocol=2)
