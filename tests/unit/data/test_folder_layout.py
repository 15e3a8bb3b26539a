"""Folders as people have them, with splits, copies and what systems keep there, and names that look the same."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from labelsieve.core.errors import DataError
from labelsieve.data.class_notes import class_name_notes
from labelsieve.data.labels import normalise
from labelsieve.data.loading import load_images
from small_pictures import plain

TABLE = "id,breed\n0,a\n"


def make(root: Path, *names: str) -> Path:
    """Makes `cat` a folder of two images, `cat/` an empty one, and `cat/a.png` or `a.csv` a file."""
    for name in names:
        path = root / "set" / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        elif path.suffix in (".png", ".csv"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(plain((1, 2, 3)) if path.suffix == ".png" else TABLE.encode())
        else:
            path.mkdir(parents=True, exist_ok=True)
            for row in range(2):
                (path / f"{row}.png").write_bytes(plain((row, 0, 0)))
    return root / "set"


WITH_SPLITS = [
    (["seg_train/seg_train/a", "seg_train/seg_train/b", "seg_pred/seg_pred"], "seg_train/seg_train"),
    (["Training/a", "Training/b", "Test/a", "Test/b", "test-multiple_fruits", "papers/"], "Training"),
    (["train/a", "train/b", "test"], "train"),
    (["train/a", "train/b", "val/a", "val/b", "set/train/a", "set/train/b", "set/val/a"], "train"),
    (["letters_train/x/A", "letters_train/x/B", "letters_test"], "letters_train/x"),
    (["Training/a", "Training/b", "PublicTest/a", "PublicTest/b"], "Training"),
    (["train2017/a", "train2017/b", "val2017/a", "val2017/b", "unlabeled2017"], "train2017"),
    (["trainset/a", "trainset/b", "hold_out/a", "hold_out/b"], "trainset"),
    (["train/a", "train/b", "sample"], "train"),
    (["data/train/a", "data/train/b", "data/test"], "data/train"),
    (["only/train/a", "only/train/b"], "only/train"),
    (["wrapper/inner/a", "wrapper/inner/b", "annotations/"], "wrapper/inner"),
]


def test_splits_are_no_classes(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (names, passed) in enumerate(WITH_SPLITS):
        with subtests.test(names=names):
            folder = make(tmp_path / str(number), *names)
            with pytest.raises(DataError) as error:
                load_images(folder)
            assert str(error.value).endswith(f"; pass {folder / passed}") and "\n" not in str(error.value)
            assert len(load_images(folder / passed).class_names) == 2, "what is advised can be read"


WITHOUT_CLASSES = [
    (
        ["train_images", "test_images", "train.csv", "sample_submission.csv"],
        "scan {}/train.csv --image-folder {}/train_images",
    ),
    (["train", "test", "labels.csv", "test.csv"], "scan {}/labels.csv --image-folder {}/train"),
    (["images", "labels.csv"], "scan {}/labels.csv --image-folder {}/images"),
    (["images_1", "images_2", "all.csv"], "scan {}/all.csv --image-folder {}"),
    (["HAM10000_images_part_1", "HAM10000_images_part_2", "all.csv"], "scan {}/all.csv --image-folder {}"),
    (
        ["train", "test"],
        "put the images of each class into a folder of its own, or write a CSV",
    ),
    (
        [f"train/{name}.{row}.png" for name in ("cat", "dog") for row in range(3)] + ["test1"],
        "the file names seem to hold the labels (cat, dog; first: cat.0.png), so write a CSV",
    ),
    ([f"{name}_{row}.png" for name in ("cat", "dog") for row in range(3)], "seem to hold the labels (cat, dog;"),
    ([f"IMG_{row}.png" for row in range(3)], "put the images of each class into a folder of its own"),
    (["cat", "dog/"], 'has only "cat" (no image in dog); add the other classes'),
]


def test_folders_without_classes(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (names, advice) in enumerate(WITHOUT_CLASSES):
        with subtests.test(names=names):
            folder = make(tmp_path / str(number), *names)
            with pytest.raises(DataError) as error:
                load_images(folder)
            assert advice.format(folder, folder) in str(error.value) and "\n" not in str(error.value)


REAL_CLASSES = [
    ["car", "plane", "ship", "train"],
    ["car", "test"],
    ["test tube", "toy train", "train"],
    ["bullet_train", "freight_train", "steam_train"],
    ["bus", "car", "train", "unlabeled"],
    ["class_0", "class_1"],
    ["with_mask", "without_mask"],
    ["photo", "sketch"],
    ["0", "1"],
]


def test_real_classes_stay(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, classes in enumerate(REAL_CLASSES):
        with subtests.test(classes=classes):
            folder = make(tmp_path / str(number), *classes, "table.csv")
            assert load_images(folder).class_names == tuple(classes)


def test_a_class_with_folders_of_its_own_is_noted(tmp_path: Path) -> None:
    images = load_images(make(tmp_path, "car", "plane", "train/diesel", "train/steam"))
    assert images.class_names == ("car", "plane", "train")
    assert any('1 of 3 class folders hold folders of their own (first: "train" with' in note for note in images.notes)
    same = load_images(make(tmp_path / "same", "cat/cat", "dog/dog"))
    assert same.class_names == ("cat", "dog") and len(same.notes) == 1


def test_a_copy_of_the_set_is_left_out(tmp_path: Path) -> None:
    images = load_images(make(tmp_path, "rose", "tulip", "set/rose", "set/tulip"))
    assert images.class_names == ("rose", "tulip") and len(images) == 4
    assert any('"set" holds folders of the names of those beside it (rose, tulip)' in note for note in images.notes)


def test_folders_of_systems_are_left_out(tmp_path: Path) -> None:
    system = (
        "@eaDir",
        "$RECYCLE.BIN",
        "lost+found",
        "System Volume Information",
        ".Trash-1000",
        "__MACOSX",
        "#recycle",
    )
    folder = make(tmp_path, "cat", "dog", *system, "cat/@eaDir/0", "dog/.ipynb_checkpoints", "papers/")
    images = load_images(folder)
    assert images.class_names == ("cat", "dog") and len(images) == 4
    notes = "\n".join(images.notes)
    assert "left out: papers\n" in notes and "9 hidden folders or folders of a system were left out: " in notes
    assert all(name in notes for name in (*system, ".ipynb_checkpoints"))


SAME = [
    ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
    ("hat", "hat\u200b"),
    ("hat", "\ufeffhat"),
    ("sofa", "so\u00adfa"),
    ("hat", "\u202ahat\u202c"),
    ("hot dog", "hot\u00a0 dog "),
    ("cat", "\uff23\uff41\uff54"),
    ("T-Shirt", "t\u2011shirt"),
    ("1", "\uff11"),
    ("\u2764", "\u2764\ufe0f"),
]


def test_names_that_look_the_same_are_one_class(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (one, other) in enumerate(SAME):
        with subtests.test(one=ascii(one), other=ascii(other)):
            assert normalise(one) == normalise(other)
            folder = make(tmp_path / str(number), "x")
            (folder / "all.csv").write_text(f"path,label\nx/0.png,{one}\nx/1.png,{other}\n", encoding="utf-8")
            with pytest.raises(DataError, match=r"class names must differ: .*write them alike if they are one class"):
                load_images(folder / "all.csv")
            known = load_images(folder / "all.csv", class_names=[one, "other"])
            assert known.labels.tolist() == [0, 0]


def test_names_that_look_the_same_are_shown_by_their_characters(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in characters 'hat' and 'hat\\u200b'"):
        load_images(make(tmp_path, "hat", "hat\u200b"))


@pytest.mark.parametrize(
    ("one", "other"), [("1", "-1"), ("x\u00b2", "x2"), ("1", "\u2460"), ("C", "C++"), ("\U0001f457", "\U0001f3a9")]
)
def test_names_that_look_different_are_two(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_names_in_two_scripts_are_noted() -> None:
    (note,) = class_name_notes(["cat", "c\u0430t", "dog"])
    assert r"(in characters 'cat' and 'c\u0430t') look the same" in note
