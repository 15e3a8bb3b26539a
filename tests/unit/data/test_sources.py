"""Loading from every kind of source, and one clear line for every kind of bad input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from PIL import Image

from labelsieve.core.errors import DataError, SettingsError
from labelsieve.data.images import LabelledImages, UnreadableImageError
from labelsieve.data.loading import load_images
from labelsieve.data.sources.table_formats import TABLES
from small_pictures import plain
from small_tables import write_table

MakeFolder = Callable[..., Path]


def png(value: int = 0) -> bytes:
    return plain((value, 0, 0))


def write_csv(path: Path, *rows: Sequence[str], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=separator).writerows(rows)
    return path


def a_dataset(count: int = 6, names: Sequence[str] = ("cat", "dog", "hen")) -> datasets.Dataset:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(names)),
            "truth": datasets.ClassLabel(names=list(reversed(names))),
        }
    )
    numbers = [row % len(names) for row in range(count)]
    return datasets.Dataset.from_dict(
        {"image": [{"bytes": png(row), "path": None} for row in range(count)], "label": numbers, "truth": numbers},
        features=features,
    )


def assert_reloads(images: LabelledImages) -> None:
    """The same comes back from the origin, also once it has been through JSON."""
    again = load_images(**json.loads(json.dumps(dict(images.origin))))
    assert again.fingerprint == images.fingerprint
    assert again.origin == images.origin


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) > 20
    return text


def test_importing_is_light() -> None:
    code = "import labelsieve.data.loading, sys; print(sorted({'torch', 'datasets', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------- folders


def test_folder(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"hen": 1, "cat": 3, "dog": 2, "dog/deeper": 1, "none": 0})
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / ".hidden.png").write_bytes(png())
    (folder / ".git").mkdir()
    (folder / "loose.png").write_bytes(png())
    (folder / "dog" / "UPPER.PNG").write_bytes(png(1))
    (folder / "dog" / "loop").symlink_to(folder / "dog")
    images = load_images(str(folder))
    assert images.class_names == ("cat", "dog", "hen")
    assert images.ids == (
        *(f"cat/{index}.png" for index in range(3)),
        *("dog/0.png", "dog/1.png", "dog/UPPER.PNG", "dog/deeper/0.png"),
        "hen/0.png",
    )
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2] and images.labels.dtype == np.int64
    assert images.contents.dtype == np.uint64 and len(set(images.contents.tolist())) > 5
    assert images.open(4).size == (8, 8)
    notes = "\n".join(images.notes)
    assert "3 classes: cat, dog, hen (from the class folders)" in notes
    assert "folders without an image (.jpg, .png, ...) were left out: none" in notes
    assert "1 hidden folders or folders of a system were left out: .git" in notes
    assert "1 of 3 classes have a single image: hen" in notes
    assert "1 of the images lie in no class folder and were left out (first: loose.png)" in notes
    assert "1 files that are no images by their suffix were left out (1 .txt)" in notes
    assert_reloads(images)


def test_links_that_lead_up_bring_in_no_other_class(photo_folder: MakeFolder) -> None:
    """They are loops, also where the loop closes above the class, or above the whole folder."""
    folder = photo_folder({"cat": 2, "dog": 1})
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "0.png").write_bytes(png())
    (folder / "dog" / "outside").symlink_to(folder.parent / "elsewhere")
    for name, target in (("root", folder), ("above", folder.parent), ("top", Path("/"))):
        (folder / "dog" / name).symlink_to(target)
    assert load_images(folder).ids == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/outside/0.png")


def test_folder_with_given_order_of_classes(photo_folder: MakeFolder, tmp_path: Path) -> None:
    folder = photo_folder({"cat": 2, "big_dog": 2})
    images = load_images(folder, class_names=["Big Dog", "cat", "hen"])
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert_reloads(images)
    (tmp_path / "names.txt").write_text("\ufeffbig dog\ncat\n\n", encoding="utf-8")
    (tmp_path / "names.json").write_text('["cat", "big dog"]')
    assert load_images(folder, class_names=tmp_path / "names.txt").class_names == ("big dog", "cat")
    assert load_images(folder, class_names=str(tmp_path / "names.json")).labels.tolist() == [1, 1, 0, 0]
    with pytest.raises(DataError, match=r'first "big_dog".*did you mean "big dogs"'):
        load_images(folder, class_names=["cat", "big dogs"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'["cat", ', "which is not valid JSON"),
        (b'{"cat": 0, "dog": 1}', "found an object; give the names in their order"),
        (b'["cat", 7]', "expected class names in UTF-8, not empty, .* found 7"),
        (b'["cat", "d\\u0000g"]', r"not empty, without zero bytes, found 'd\\x00g'"),
        (b'["cat", "\\ud800"]', r"not empty, without zero bytes, found '\\ud800'"),
        (b"[" * 100_000, "which is not valid JSON: maximum recursion depth"),
        (b"cat\n", "expected at least two classes .* found cat"),
        (b"c\xffat\ndog\n", "cannot be read .it is not UTF-8 text"),
    ],
)
def test_bad_files_of_class_names(content: bytes, message: str, photo_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_images(photo_folder({"cat": 1, "dog": 1}), class_names=tmp_path / "names")
    one_line(error)


def test_class_names_rename_class_folders(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"n01": 1, "n02": 2, "hen": 1})
    images = load_images(folder, class_names=["Hen", "tabby cat", "big dog"])
    assert images.class_names == ("Hen", "tabby cat", "big dog") and images.labels.tolist() == [0, 1, 2, 2]
    assert images.ids[1] == "n01/0.png" and len(images) == 4
    assert '(as given, in the order of the class folders: "n01" is "tabby cat", "n02" is "big dog")' in images.notes[0]
    assert_reloads(images)
    with pytest.raises(DataError, match="outside of the"):
        load_images(folder, class_names=["tabby cat", "hen", "big dog"])  # a name at another place
    with pytest.raises(DataError, match=r"expected 3 class names for the class folders \(hen, n01, n02\), got 2"):
        load_images(folder, class_names=["hen", "tabby cat"])


def test_class_names_never_rename_numbers_by_place(photo_folder: MakeFolder) -> None:
    folder = photo_folder({str(number): 1 for number in range(11)})
    names = [f"kind {letter}" for letter in "abcdefghijk"]
    images = load_images(folder, class_names=names)
    assert [(images.ids[row], images.labels[row]) for row in (0, 2, 3)] == [
        ("0/0.png", 0),
        ("10/0.png", 10),
        ("2/0.png", 2),
    ]


def test_contents_follow_the_pictures_and_not_their_place(photo_folder: MakeFolder) -> None:
    first, second = photo_folder({"a": 2, "b": 2}), photo_folder({"a": 2, "b": 2}, name="copy")
    before, after = load_images(first), load_images(second)
    assert before.fingerprint == after.fingerprint
    (second / "b" / "1.png").write_bytes(png(7))
    assert (load_images(second).contents != before.contents).tolist() == [False, False, False, True]


@pytest.mark.parametrize("start", [b"BM", b"\xff\xd8\xff"])
def test_files_are_hashed_whole_and_as_in_a_table(start: bytes, photo_folder: MakeFolder, tmp_path: Path) -> None:
    """Some of the images have the same size and the same ends, and differ in the middle alone."""
    folder = photo_folder({"a": 1, "b": 1})
    whole = start + np.random.default_rng(0).bytes(1_300_000)
    places = (len(start), 70_000, 650_000, 1_048_577, len(whole) - 1)
    changed = [whole, whole + whole[-65536:], *(_with_another_byte(whole, place) for place in places)]
    for index, data in enumerate(changed):
        (folder / "a" / f"{index}.jpg").write_bytes(data)
    images = load_images(folder)
    assert len(set(images.contents.tolist())) == len(images) == len(changed) + 2
    rows = [{"id": name, "image": (folder / name).read_bytes(), "label": name[0]} for name in images.ids]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "all.parquet")
    assert load_images(tmp_path / "all.parquet").contents.tolist() == images.contents.tolist()


def _with_another_byte(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_limit_takes_a_seeded_subset_in_order(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"a": 10, "b": 10, "c": 1})
    images = load_images(folder, limit=6, seed=3)
    whole = load_images(folder)
    rows = [whole.ids.index(name) for name in images.ids]
    assert len(images) == 6 and rows == sorted(rows) and images.class_names == whole.class_names
    assert np.array_equal(images.contents, whole.contents[rows]) and np.array_equal(images.labels, whole.labels[rows])
    assert images.ids != load_images(folder, limit=6, seed=4).ids
    assert any("a random subset of 6 of 21" in note for note in images.notes)
    assert load_images(folder, limit=100).ids == whole.ids
    assert_reloads(images)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty"),
        (["a.png", "b.png"], r"has no folders, only 2 files \(2 images\)"),
        (["all.parquet"], r"pass the file itself.*all\.parquet"),
        (
            ["cat/a.heic", "dog/b.HEIC"],
            r"no folder .* holds an image .* only other files \(2 \.heic\); .* convert these",
        ),
        (["cat/a.png"], 'has only "cat"'),
        (["train/cat/a.png", "test/cat/b.png"], "holds splits: train, test"),
        (["T-Shirt/a.png", "t_shirt/b.png"], '"T-Shirt" and "t_shirt" .* are the same'),
    ],
)
def test_bad_folders(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "photos").mkdir()
    for name in files:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png())
    with pytest.raises(DataError, match=message) as error:
        load_images(tmp_path / "photos")
    one_line(error)


def test_folder_has_no_columns_or_splits(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"a": 1, "b": 1})
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"label_column": "x"}, 'which has no columns, but "x" was asked for'),
        ({"split": "train"}, "splits"),
        ({"labels": [1, 2]}, "labels go with images in memory only"),
    )
    for arguments, message in cases:
        with pytest.raises(DataError, match=message):
            load_images(folder, **arguments)
    rows = a_dataset()
    with pytest.raises(DataError, match="either labels or label_column, got both"):
        load_images(rows, labels=[0, 1, 2, 0, 1, 2], label_column="label")
    with pytest.raises(DataError, match="images in memory have no columns or splits"):
        load_images(np.zeros((2, 4, 4), np.uint8), labels=[0, 1], split="train")
    with pytest.raises(SettingsError, match="limit"):
        load_images(folder, limit=0)
    with pytest.raises(SettingsError, match="seed"):
        load_images(folder, limit=1, seed=-1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse to make such a name")
def test_file_name_that_is_no_text(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"a": 1, "b": 1})
    try:
        (folder / "a" / "caf\udce9.png").write_bytes(png())
    except OSError:
        pytest.skip("this file system refuses such a name")
    with pytest.raises(DataError, match="not UTF-8"):
        load_images(folder)
    (folder / "a" / "caf\udce9.png").rename(folder / "caf\udce9.png")
    (folder / "a" / "x.caf\udce9").write_bytes(b"")
    text = "".join(load_images(folder).notes).encode().decode()
    assert r"(first: caf\udce9.png)" in text and r"(1 .caf\udce9)" in text, "they are left out, and can be told"
    (folder / "caf\udce9").mkdir()
    with pytest.raises(DataError, match=r"the file name 'caf\\udce9' .* not UTF-8"):
        load_images(folder)
    (folder / "caf\udce9").rmdir()
    with pytest.raises(DataError, match=r"the path '.*h\\udce9' is not UTF-8; rename the folder or file"):
        load_images(folder.rename(folder.with_name("h\udce9")))


def test_paths_on_another_drive_of_windows(photo_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photo_folder({"cat": 2, "dog": 2})
    paths = [str(folder / name / f"{row}.png") for name in ("cat", "dog") for row in range(2)]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label", *(f"{path},{row % 2}" for row, path in enumerate(paths))]))

    def other_drive(*_: object) -> str:
        raise ValueError("Paths don't have the same drive")

    for name in ("relpath", "commonpath"):
        monkeypatch.setattr(os.path, name, other_drive)
    with pytest.raises(DataError, match="leads out of the folder"):
        load_images(table)
    rows = datasets.Dataset.from_dict({"path": paths, "label": ["a", "b"] * 2})
    assert load_images(rows).ids == tuple(Path(path).as_posix() for path in paths)


def test_a_folder_that_cannot_be_read_is_told(photo_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, scandir = photo_folder({"cat": 2, "cat/inside": 2, "dog": 2}), os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "inside":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    images = load_images(folder)
    assert len(images) == 4
    assert f"1 folders cannot be read and were left out (first: {Path('cat/inside')})" in images.notes


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse to make such a name")
def test_a_folder_whose_name_is_not_utf8(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"cat": 2, "dog": 2})
    try:
        odd = folder.rename(folder.with_name("caf\udce9"))
    except OSError:
        pytest.skip("this file system refuses such a name")
    (odd / "table.csv").write_text("path,label\ncat/0.png,cat\ndog/0.png,dog\n")
    for source in (odd, odd / "table.csv", f"cifar10:{odd}"):
        with pytest.raises(DataError, match="is not UTF-8; rename the folder"):
            load_images(source)


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(photo_folder: MakeFolder, separator: str) -> None:
    folder = photo_folder({"x": 4})
    rows = [("path", "label", "real"), ("x/0.png", "NA", "NA"), ("./x/1.png", "007", "NA"), ("x/gone.png", "NA", "007")]
    rows.append((str(folder / "x" / "3.png"), " null ", "NA"))
    images = load_images(write_csv(folder / "all.csv", *rows, separator=separator), truth_column="real")
    assert images.class_names == ("007", "NA", "null"), "a class name was read as a number or as missing"
    assert images.labels.tolist() == [1, 0, 1, 2]
    assert images.truth is not None and images.truth.tolist() == [1, 1, 0, 1]
    assert images.ids == ("x/0.png", "x/1.png", "x/gone.png", "x/3.png")
    assert any("1 of 4 images are missing (first: x/gone.png)" in note for note in images.notes)
    assert images.open(3).size == (8, 8)
    with pytest.raises(UnreadableImageError, match=r"x/gone\.png: No such file"):
        images.open(2)
    assert_reloads(images)


def test_csv_with_ids_and_quoted_texts(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"x": 2})
    rows = [("id", "file name", "class"), ("7", "x/0.png", "cat, small"), ("9", "x/1.png", 'dog "big"')]
    images = load_images(write_csv(folder / "all.csv", *rows), image_column="file name")
    assert images.ids == ("7", "9") and images.class_names == ("cat, small", 'dog "big"')


def test_csv_that_lists_an_image_twice_gets_row_numbers(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"x": 2})
    rows = [("path", "label"), ("x/0.png", "cat"), ("x/1.png", "dog"), ("x/../x/0.png", "dog")]
    images = load_images(write_csv(folder / "all.csv", *rows))
    assert images.ids == ("0000000", "0000001", "0000002")
    assert any("listed more than once" in note for note in images.notes)


@pytest.mark.parametrize(
    ("numbers", "class_names", "expected"),
    [
        (("-1", "none", "-1", "1"), None, ((0, 2, 0, 1), ("-1", "1", "none"))),
        (("0", "2", "2", "10"), None, ((0, 1, 1, 2), ("0", "2", "10"))),
        (("0", "2", "2", "1"), ["cat", "dog", "hen"], ((0, 2, 2, 1), ("cat", "dog", "hen"))),
        (("2", "1", "2", "1"), ["1", "2"], ((1, 0, 1, 0), ("1", "2"))),
    ],
)
def test_numbers_as_labels(photo_folder: MakeFolder, numbers: Any, class_names: Any, expected: Any) -> None:
    folder = photo_folder({"x": 4})
    rows = [("path", "label"), *((f"x/{index}.png", number) for index, number in enumerate(numbers))]
    images = load_images(write_csv(folder / "all.csv", *rows), class_names=class_names)
    assert (tuple(images.labels.tolist()), images.class_names) == expected
    are_numbers = all(number.isdecimal() for number in numbers)
    assert any("numbers without names" in note for note in images.notes) == (class_names is None and are_numbers)


BAD_CSV: list[tuple[str, list[str], dict[str, Any], str]] = [
    ("path,label", ["../a.png,cat", "x/0.png,dog"], {}, r'path "\.\./a\.png" in row 1 .* leads out of the folder'),
    ("path,label", ["x/0.png,cat", "/etc/a.png,dog"], {}, r'path "/etc/a\.png" in row 2 .* leads out'),
    ("path,label", ["x/0.png,cat", "https://example.org/a.png,dog"], {}, "expected the path of an image"),
    ("path,label", ["x/0.png,cat", ",dog"], {}, "expected the path of an image in row 2"),
    ("path,label", ["x/0.png,cat", "x/1.png,"], {}, r'1 of 2 labels are missing .*\(first: id "x/1\.png"\)'),
    ("path,label", ["x/0.png,cat", "x/1.png,cat"], {}, "at least two classes .* found cat"),
    ("path,label", ["x/0.png,cat", "x/1.png,Cat"], {}, '"Cat" and "cat" .* are the same'),
    ("path,label", ["a.png,cat", "b.png,dog"], {}, "none of the 2 images .* was found"),
    ("path,label", [], {}, "found no rows"),
    ("path,label", ["x/0.png,cat", "x/1.png,dog,more"], {}, "expected 2 values in line 3 .* found 3"),
    ("path,path", ["x/0.png,cat", "x/1.png,dog"], {}, '"path" more than once'),
    ("path,labl", ["x/0.png,cat", "x/1.png,dog"], {}, r'did you mean "label".*found the columns "path", "labl"'),
    ("pth,label", ["x/0.png,cat", "x/1.png,dog"], {}, r'expected an image column .*did you mean "path"'),
    ("path,file,label", ["x/0.png,x,cat", "x/1.png,x,dog"], {}, r'several that fit: "path", "file"'),
    ("path,label,class", ["x/0.png,cat,1", "x/1.png,dog,1"], {}, r'several that fit: "label", "class"'),
    ("path,label", ["x/0.png,cat", "x/1.png,dog"], {"label_column": "lable"}, r'found .*did you mean "label"'),
    ("path,label", ["x/0.png,cat", "x/1.png,dgo"], {"class_names": ["cat", "dog"]}, r'did you mean "dog"'),
    ("path,label", ["x/0.png,1", "x/1.png,2"], {"class_names": ["cat", "dog"]}, "seem to count from 1"),
    ("path,label", ["x/0.png,-1", "x/1.png,1"], {}, "expected names or numbers from 0 in .* found -1"),
    ("path,label", ["x/0.png,0", "x/1.png,1"], {"class_names": ["cat", "CAT"]}, "are the same"),
    ("path,label", ["x/0.png,0", "x/1.png,1"], {"class_names": ["cat", ""]}, "not empty"),
    ("path,label", ["x/0.png,0", "x/1.png,1"], {"class_names": "nowhere.txt"}, "cannot be read"),
    ("path,label", ["x/0.png,0", "x/1.png,1"], {"class_names": "~no-such-user/names.txt"}, "cannot be read"),
    (
        "path,label",
        ["x/0.png,0", "x/1.png,1"],
        {"image_folder": "~no-such-user/x"},
        '"~no-such-user/x" does not exist',
    ),
    ("path,label,t", ["x/0.png,cat,cat", "x/1.png,dog,cow"], {"truth_column": "t"}, 'column "t" .* first "cow"'),
    ("path,label,t", ["x/0.png,cat,1", "x/1.png,dog,0"], {"truth_column": "t"}, "outside of the 2 class names"),
]


def test_bad_csv(subtests: pytest.Subtests, photo_folder: MakeFolder) -> None:
    for number, (header, rows, arguments, message) in enumerate(BAD_CSV):
        with subtests.test(header=header, rows=rows, arguments=arguments):
            folder = photo_folder({"x": 2}, name=str(number))
            (folder / "all.csv").write_text("\n".join([header, *rows]) + "\n")
            with pytest.raises(DataError, match=message) as error:
                load_images(folder / "all.csv", **arguments)
            one_line(error)


def test_csv_that_is_no_text_or_empty(tmp_path: Path) -> None:
    for data, message in ((b"", "is empty"), (b"path,label\n\xff\xfe,x\n", "line 2 of .* another encoding")):
        (tmp_path / "all.csv").write_bytes(data)
        with pytest.raises(DataError, match=message) as error:
            load_images(tmp_path / "all.csv")
        one_line(error)


# ---------------------------------------------------------------- Parquet, Arrow, saved folders, data sets


@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_of_each_format_is_read(photo_folder: MakeFolder, suffix: str) -> None:
    folder = photo_folder({"x": 2})
    table = pa.table({"path": ["x/0.png", "x/1.png"], "label": ["dog", "cat"]})
    images = load_images(write_table(table, folder / f"all{suffix}"))
    assert (images.class_names, images.labels.tolist()) == (("cat", "dog"), [1, 0])
    assert images.open(1).tobytes() == Image.open(folder / "x" / "1.png").tobytes()


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_file_as_the_datasets_library_writes_it(tmp_path: Path, suffix: str) -> None:
    rows = a_dataset()
    (tmp_path / "odd [1]").mkdir()
    path = write_table(rows.with_format("arrow")[:], tmp_path / "odd [1]" / f"all{suffix}")
    images = load_images(path, truth_column="truth")
    assert images.class_names == ("cat", "dog", "hen") and images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert images.truth is not None and images.truth.tolist() == [2, 1, 0, 2, 1, 0], "truth goes by names, not numbers"
    assert images.ids[:2] == ("0000000", "0000001")
    assert images.open(3).getpixel((0, 0)) == (3, 0, 0)
    assert images.dataset.column_names == ["image"]
    assert any('3 classes: cat, dog, hen (from the ClassLabel column "label")' in note for note in images.notes)
    assert load_images(path, class_names=["hen", "dog", "cat"]).labels.tolist() == [2, 1, 0, 2, 1, 0]
    renamed = load_images(path, class_names=["kitten", "puppy", "chick"], truth_column="truth")
    assert renamed.labels.tolist() == [0, 1, 2, 0, 1, 2] and renamed.truth is not None
    assert renamed.truth.tolist() == [2, 1, 0, 2, 1, 0], "the truth is renamed with the labels"
    assert_reloads(images)


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_bytes_with_categories_and_gaps(tmp_path: Path, suffix: str, kind: pa.DataType) -> None:
    table = pa.table(
        {
            "id": pa.array([11, 12, 13]),
            "img": pa.array([png(1), None, png(3)], kind),
            "label": pa.array(["b", "a", "b"]).dictionary_encode(),
        }
    )
    images = load_images(write_table(table, tmp_path / f"all{suffix}"))
    assert images.ids == ("11", "12", "13") and images.labels.tolist() == [1, 0, 1]
    assert images.open(2).getpixel((0, 0)) == (3, 0, 0)
    with pytest.raises(UnreadableImageError, match="12: no image in this row"):
        images.open(1)


def test_parquet_of_paths(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"x": 2})
    table = pa.table({"path": ["x/0.png", "x/1.png"], "label": [1.0, 0.0], "size": [1, 2]})
    images = load_images(write_table(table, folder / "all.parquet"), class_names=["a", "b"])
    assert images.ids == ("x/0.png", "x/1.png") and images.labels.tolist() == [1, 0]
    assert images.open(0).size == (8, 8)
    outside = pa.table({"path": ["x/0.png", "../../1.png"], "label": ["a", "b"]})
    with pytest.raises(DataError, match="leads out of the folder"):
        load_images(write_table(outside, folder / "outside.parquet"))


def test_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    write_table(pa.table({"image": [png(1), png(2)], "label": ["a", "b"]}), path)
    before = load_images(path)
    write_table(pa.table({"image": [png(1), png(3)], "label": ["b", "a"]}), path)
    assert load_images(path).fingerprint != before.fingerprint
    assert before.open(1).getpixel((0, 0)) == (2, 0, 0)


BAD_TABLES: list[tuple[dict[str, Any], str]] = [
    ({"image": [b"x", b"y"], "label": ["a", None]}, r"1 of 2 labels are missing .*0000001"),
    ({"image": [b"x", b"y"], "label": [0.5, 1.0]}, "found 0.5"),
    ({"image": [b"x", b"y"], "label": [-1, 1]}, "found -1"),
    ({"image": [b"x", b"y"], "label": [["a"], ["b", "c"]]}, "one label a row .* found 2 in row 2"),
    ({"image": [b"x", b"y"], "label": [{"name": "a"}, {"name": "b"}]}, "a row .* found records of name"),
    ({"image": [b"x", b"y"], "label": [b"caf\xe9", b"b"]}, "expected texts in UTF-8 .* found other bytes"),
    ({"image": [1, 2], "label": ["a", "b"]}, "found integers; if they name images, add image_folder"),
    ({"image": [[1, 2], [3, 4]], "label": ["a", "b"]}, "expected images or paths .* found lists of integers"),
    ({"clip": [[1.0], [2.0]], "label": ["a", "b"]}, 'lists of numbers in the column "clip"; features of images'),
    ({"image": [[[300]], [[1]]], "label": ["a", "b"]}, "pixels from 0 to 255 .* in row 1"),
    ({"image": [None, None], "label": ["a", "b"], "bytes": [b"x", b"y"], "raw": [b"x", b"y"]}, "several that fit"),
]


def test_bad_tables(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (columns, message) in enumerate(BAD_TABLES):
        with subtests.test(columns=columns):
            path = write_table(pa.table(columns), tmp_path / f"{number}.parquet")
            with pytest.raises(DataError, match=message) as error:
                load_images(path)
            one_line(error)


def test_labels_of_minus_one_are_missing(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = datasets.Dataset.from_dict({"image": [{"bytes": png(), "path": None}] * 2, "label": [-1, 1]}, features)
    with pytest.raises(DataError, match="1 of 2 labels are missing"):
        load_images(rows)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_tables_without_rows_or_with_two_columns_of_one_name(tmp_path: Path, suffix: str) -> None:
    table, path = a_dataset().with_format("arrow")[:], tmp_path / f"all{suffix}"
    write_table(table.slice(0, 0), path)
    with pytest.raises(DataError, match=f"expected images in the file {path}, found no rows") as error:
        load_images(path)
    one_line(error)
    for name in ("image", "label"):
        write_table(table.append_column(name, table[name]), path)
        with pytest.raises(DataError, match=f'found "{name}" more than once; rename one') as error:
            load_images(path)
        one_line(error)
    if suffix == ".parquet":  # of which columns that are not used are not read
        write_table(table.append_column("note", table["label"]).append_column("note", table["label"]), path)
        assert len(load_images(path)) == 6


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_broken_files(tmp_path: Path, suffix: str) -> None:
    path = write_table(a_dataset(200).with_format("arrow")[:], tmp_path / f"all{suffix}")
    whole = path.read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot be read") as error:
            load_images(path)
        one_line(error)


def test_saved_folder_and_splits(tmp_path: Path) -> None:
    a_dataset().save_to_disk(tmp_path / "one")
    images = load_images(tmp_path / "one")
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert_reloads(images)
    splits = datasets.DatasetDict({"train": a_dataset(6), "test": a_dataset(3)})
    splits.save_to_disk(tmp_path / "two")
    assert len(load_images(tmp_path / "two")) == 6
    images = load_images(tmp_path / "two", split="test")
    assert len(images) == 3
    assert_reloads(images)
    assert len(load_images(splits, split="test")) == 3
    with pytest.raises(DataError, match=r'found train, test \(did you mean "test"\?\)'):
        load_images(tmp_path / "two", split="tset")
    with pytest.raises(DataError, match=r'expected a split "train\[:2\]" in .* found train, test'):
        load_images(tmp_path / "two", split="train[:2]")  # slices are for the Hub
    with pytest.raises(DataError, match=r"expected one split in .* found a, b"):
        load_images(datasets.DatasetDict({"a": a_dataset(), "b": a_dataset()}))


def test_saved_folders_without_rows(tmp_path: Path) -> None:
    empty = a_dataset().select([])
    empty.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": a_dataset(), "test": empty}).save_to_disk(tmp_path / "two")
    for name, message in (("one", "found no rows; check"), ("two", "found no rows in one of its splits; check")):
        with pytest.raises(DataError, match=f"expected images in the folder .*{name}, {message}") as error:
            load_images(tmp_path / name)
        one_line(error)


def test_dataset(tmp_path: Path) -> None:
    rows = a_dataset()
    images = load_images(rows.with_format("numpy"), truth_column="truth")
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2] and not images.origin
    chosen = load_images(rows.select([5, 0, 1]))
    assert chosen.labels.tolist() == [2, 0, 1] and chosen.open(0).getpixel((0, 0)) == (5, 0, 0)
    assert chosen.contents[0] == images.contents[5]
    named = load_images(rows.remove_columns("label"), labels=["x", "y", "x", "y", "x", "y"])
    assert named.class_names == ("x", "y")
    assert load_images(rows.rename_column("image", "picture"), image_column="picture").dataset.column_names == ["image"]
    with pytest.raises(DataError, match="got Features"):
        load_images(rows.features)
    with pytest.raises(DataError, match="no splits"):
        load_images(rows, split="train")
    with pytest.raises(DataError, match="got IterableDataset; a stream has to be saved first"):
        load_images(rows.to_iterable_dataset())


def test_loading_leaves_progress_bars_and_logs_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    load_images(write_table(a_dataset().with_format("arrow")[:], tmp_path / "all.parquet"))
    assert (datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()) == (level, bars)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1), (5, 6, 7, 3)])
@pytest.mark.parametrize("listed", [True, False])
def test_arrays_in_memory(shape: tuple[int, ...], listed: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = load_images(list(pixels) if listed else pixels, labels=np.array([0, 1, 0, 1, 1]))
    assert images.class_names == ("0", "1") and images.labels.tolist() == [0, 1, 0, 1, 1] and not images.origin
    expected = np.broadcast_to(pixels[2].reshape(6, 7, -1), (6, 7, 3))
    assert np.array_equal(np.asarray(images.open(2)), expected)


def test_pictures_in_memory(photo_folder: MakeFolder) -> None:
    folder = photo_folder({"a": 1})
    opened = Image.open(folder / "a" / "0.png")
    images = load_images([opened, Image.new("CMYK", (3, 2)), Image.new("L", (1, 1))], labels=["x", "y", "x"])
    opened.close()
    (folder / "a" / "0.png").unlink()
    assert [images.open(row).size for row in range(3)] == [(8, 8), (3, 2), (1, 1)]


def test_bad_pictures_in_memory(subtests: pytest.Subtests) -> None:
    cases: tuple[tuple[Any, Any, str], ...] = (
        (np.zeros((2, 4, 4, 3), np.float32), ["a", "b"], "expected images as uint8 .* got float32"),
        (np.zeros((2, 3, 5, 5), np.uint8), ["a", "b"], r"got uint8 of shape \(2, 3, 5, 5\)"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 4, 5), np.uint8)], ["a", "b"], "for image 1, got"),
        ([np.zeros((0, 4), np.uint8)], ["a"], "for image 0"),
        (np.zeros((2, 4, 4, 3), np.uint8), ["a"], "expected 2 labels, one for each image, got 1"),
        (np.zeros((2, 4, 4, 3), np.uint8), 5, "expected 2 labels, one for each image, got 5; pass a list"),
        (np.zeros((2, 4, 4, 3), np.uint8), "ab", "expected 2 labels, one for each image, got 'ab'; pass a list"),
        (np.zeros((2, 4, 4, 3), np.uint8), ["a", None], "1 of 2 labels are missing"),
        (np.zeros((2, 4, 4, 3), np.uint8), ["a", 1], "one name or integer"),
        (np.zeros((2, 4, 4, 3), np.uint8), [2**70, 1], "one name or integer"),
        (np.zeros((2, 4, 4, 3), np.uint8), None, "got ndarray without labels"),
        ([], [], "found no rows"),
        (42, ["a"], "expected images as uint8"),
    )
    for pictures, labels, message in cases:
        with subtests.test(message):
            with pytest.raises(DataError, match=message) as error:
                load_images(pictures, labels=labels)
            one_line(error)


def test_labels_that_arrow_cannot_read_are_refused_in_one_short_line() -> None:
    labels = [np.zeros((2, 40), dtype=np.float32)] * 2
    with pytest.raises(DataError, match="one name or integer a row in labels, found something else") as error:
        load_images(np.zeros((2, 4, 4), np.uint8), labels=labels)
    one_line(error)
    with pytest.raises(DataError, match="one name or integer a row in labels") as error:
        load_images(np.zeros((2, 4, 4), np.uint8), labels=list(torch.zeros(2, 40, 40)))
    one_line(error)
    assert len(str(error.value)) < 300


def test_labels_are_replaced_by_indices_alone() -> None:
    images = load_images(np.zeros((3, 4, 4), np.uint8), labels=["cat", "dog", "cat"])
    other = images.with_labels(np.array([1, 1, 0]), truth=np.array([1, 0, 0]))
    assert other.labels.tolist() == [1, 1, 0] and other.truth is not None and other.truth.tolist() == [1, 0, 0]
    assert images.labels.tolist() == [0, 1, 0] and other.with_labels(images.labels).truth is other.truth
    cases: tuple[tuple[Any, str], ...] = (
        ([0, 1], r"expected 3 labels, one for each image, got shape \(2,\)"),
        ([0, 1, 2], "expected labels from 0 to 1, got 0 to 2"),
        ([-1, 0, 1], "expected labels from 0 to 1, got -1 to 1"),
        ([0.0, 0.7, 1.0], "expected labels as integers from 0 to 1, got float64"),
        (["cat", "dog", "cat"], "expected labels as integers from 0 to 1, got <U3"),
    )
    for labels, message in cases:
        with pytest.raises(DataError, match=message):
            images.with_labels(labels)
        with pytest.raises(DataError, match=message.replace("labels", "true labels")):
            images.with_labels(images.labels, truth=labels)


# ---------------------------------------------------------------- no such source, and the Hub


@pytest.mark.parametrize(
    "source", ["photos", "./photos/x", "/nowhere/photos", "a/b/c", "x/all.parquet", "~no-such-user/x"]
)
def test_sources_that_do_not_exist(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="does not exist") as error:
        load_images(source)
    one_line(error)


def test_an_empty_source_is_not_the_current_folder(photo_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo_folder({"cat": 1, "dog": 1}))
    with pytest.raises(DataError, match="got an empty text; check the source"):
        load_images("")
    assert len(load_images(".")) == 2


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "all.parqet").write_text("x")
    with pytest.raises(DataError, match=r'ending in \.csv.*did you mean "\.parquet"'):
        load_images(tmp_path / "all.parqet")


def test_hub_offline_is_one_line() -> None:
    with pytest.raises(DataError, match="Hub data set some-name/nothing") as error:
        load_images("some-name/nothing")
    one_line(error)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (TimeoutError("slow"), r"the Hub cannot be reached \(TimeoutError\).*HF_HUB_OFFLINE=1"),
        (RepositoryNotFoundError.__new__(RepositoryNotFoundError), "neither a path that exists nor a data set"),
        (GatedRepoError.__new__(GatedRepoError), "asks for consent; accept its terms on its page and log in"),
    ],
)
def test_hub_failures(monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(DataError, match=message) as error:
        load_images("some-name/nothing")
    one_line(error)


@pytest.mark.parametrize(
    ("asked", "names"),
    [(None, ("apple", "aquarium_fish")), ("coarse_label", ("fish", "fruit and vegetables"))],
)
def test_published_data_on_the_hub_have_known_columns(
    asked: str | None, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFAR-100 has two columns of class names there, of which none has a usual name."""
    pictures = [Image.new("RGB", (8, 8), (20 * row, 0, 0)) for row in range(4)]
    kinds = {
        "img": datasets.Image(),
        "coarse_label": datasets.ClassLabel(names=["fish", "fruit and vegetables"]),
        "fine_label": datasets.ClassLabel(names=["apple", "aquarium_fish"]),
    }
    rows = datasets.Dataset.from_dict(
        {"img": pictures, "coarse_label": [1, 0, 0, 1], "fine_label": [0, 1, 1, 0]}, features=datasets.Features(kinds)
    )
    builder = SimpleNamespace(info=SimpleNamespace(splits={"train": None}))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    images = load_images("uoft-cs/cifar100", label_column=asked)
    assert images.class_names == names
    assert images.labels.tolist() == ([0, 1, 1, 0] if asked is None else [1, 0, 0, 1])
    with pytest.raises(DataError, match="label"):
        load_images("somebody-else/cifar100")


@pytest.mark.parametrize(("name", "noted"), [("n01443537", True), ("n0144353", False)])
def test_ids_of_wordnet_are_no_class_names(name: str, noted: bool, photo_folder: Any) -> None:
    folder = photo_folder({name: 2, "n02124075": 2})
    notes = [note for note in load_images(folder).notes if "WordNet" in note]
    assert bool(notes) == noted and all("--class-names" in note for note in notes)


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    builder = SimpleNamespace(info=SimpleNamespace(splits={"train": None, "test": None}))

    def load(path: str, **options: Any) -> datasets.Dataset:
        calls.append((path, options))
        return a_dataset()

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr(datasets, "load_dataset", load)
    images = load_images("some-name/animals:small")
    assert calls == [("some-name/animals", {"name": "small", "split": "train"})]
    assert images.origin == {"source": "some-name/animals:small"}
    assert any("split train of train, test" in note for note in images.notes)
    with pytest.raises(DataError, match="found train, test"):
        load_images("some-name/animals", split="validation")
