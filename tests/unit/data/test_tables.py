"""Tables as people have them: CSV files of all kinds, several files, names in a folder of images, odd columns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from labelsieve.core.errors import DataError, LabelsieveError, ModelError
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.demo import MINI_CLIP
from labelsieve.vlm.loading import load_vlm
from small_pictures import plain

OLD_DATASETS = tuple(map(int, datasets.__version__.split(".")[:2])) < (5, 1)

Run = Callable[..., tuple[int, str, str]]
NAMES = ("cat", "dog", "cat", "dog", "cat", "dog")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"


def png(value: int = 0) -> bytes:
    return plain((value, 0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with `x/0.png` to `x/5.png`, whose red is their number."""
    (tmp_path / "x").mkdir()
    for number in range(6):
        (tmp_path / "x" / f"{number}.png").write_bytes(png(number))
    return tmp_path


def rows(separator: str = ",", **changed: str) -> str:
    """Returns a table of path, label and note, with other lines in the place of some: `row2="..."`."""
    lines = [changed.get(f"row{n}", separator.join((f"x/{n}.png", NAMES[n], "fine"))) for n in range(6)]
    return "\n".join([separator.join(("path", "label", "note")), *lines]) + "\n"


def colours(images: LabelledImages) -> list[int]:
    """Returns the number of each image, by its red."""
    return [images.open(row).getpixel((0, 0))[0] for row in range(len(images))]  # type: ignore[index]


def assert_read(images: LabelledImages, numbers: Sequence[int] = range(6)) -> None:
    """Every image is there with its own label, and again when it is loaded from its origin."""
    assert colours(images) == [*numbers]
    assert [images.class_names[label] for label in images.labels] == [NAMES[n] for n in numbers]
    again = load_images(**json.loads(json.dumps(dict(images.origin))))
    assert again.fingerprint == images.fingerprint and again.origin == images.origin


def refused(source: Path | str, *words: str, **options: Any) -> str:
    with pytest.raises(LabelsieveError) as caught:
        load_images(source, **options)
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said
    return said


# ---------------------------------------------------------------- quotes and lines of CSV files


OPEN_QUOTES = [
    ({"row3": 'x/3.png,dog,"12 inch'}, 5, "is never closed"),
    ({"row5": 'x/5.png,dog,"open'}, 7, "is never closed"),
    ({"row1": '"x/1.png,dog,fine'}, 3, "is never closed"),
    (
        {"row1": 'x/1.png,dog,"12 inch', "row4": 'x/4.png,cat,5" wide'},
        3,
        "closed in the middle of a value, in line 6",
    ),
    ({"row1": 'x/1.png,dog,"12 inch', "row4": 'x/4.png,cat,"quoted"'}, 3, "closed in the middle of a value"),
    (
        {"row1": 'x/1.png,dog,"12 inch', "row4": 'x/4.png,cat,wide 5"'},
        3,
        'takes in other rows, such as "x/2.png,cat',
    ),
    (
        {"row1": 'x/1.png,dog,"12 inch', "row2": 'x/2.png,cat,wide 5"'},
        3,
        'other rows, such as "x/2.png,cat,wide 5"',
    ),
    ({"row1": 'x/1.png,"dog,fine', "row2": 'x/2.png,5",fine'}, 3, 'other rows, such as "x/2.png,5,fine"'),
    ({"row1": '"x/1.png,dog,fine', "row2": 'x/2.png",cat,fine'}, 3, "takes in other rows"),
]


def test_no_row_is_lost_to_an_open_quote(subtests: pytest.Subtests, folder: Path) -> None:
    for number, (changed, line, said) in enumerate(OPEN_QUOTES):
        with subtests.test(changed=changed):
            table = folder / f"{number}.csv"
            table.write_text(rows(**changed))
            refused(table, f"the quote that opens in line {line} of ", said, "close it")


def test_a_swallowed_row_is_known_by_its_label_where_names_have_no_suffix(folder: Path) -> None:
    lines = [f"{n},{NAMES[n]},fine" for n in range(6)]
    lines[1], lines[3] = '1,dog,"12 inch', '3,dog,wide 5"'
    (folder / "all.csv").write_text("\n".join(["id,label,note", *lines]))
    refused(folder / "all.csv", 'takes in other rows, such as "2,cat,fine"', image_folder=folder / "x")


def test_quotes_that_are_in_order(folder: Path) -> None:
    """Lines in a value may have as many commas as the header, and an inch is no open quote where it ends a value."""
    note = '"a cat, sitting\non a mat, with\na bird, a ""big"" fish, a dog"'
    (folder / "all.csv").write_text(
        rows(row1='x/1.png,dog,12" wide', row2=f"x/2.png,cat,{note}", row4='"x/4.png" , "cat",""')
    )
    assert_read(load_images(folder / "all.csv"))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"row3": "x/3.png,dog,a,b"}, ("expected 3 values in line 5 of ", "found 4", 'a value with ","')),
        ({"row3": "x/3.png,dog"}, ("expected 3 values in line 5 of ", "found 2", "complete or remove the line")),
        ({"row0": "0,x/0.png,cat,fine"}, ("in line 2 of ", "found 4", "or name the first column in the header")),
        ({"row3": "x/3.png,d\0g,fine"}, ("found a zero byte in line 5",)),
        ({"row3": f"x/3.png,dog,{'a' * 140_000}"}, ("the value that begins in line 5", "longer than 131,072")),
    ],
)
def test_lines_that_do_not_fit(changed: dict[str, str], words: tuple[str, ...], folder: Path) -> None:
    (folder / "all.csv").write_text(rows(**changed))
    refused(folder / "all.csv", *words)


def test_encodings_and_ends_of_lines(subtests: pytest.Subtests, folder: Path) -> None:
    for number, (encoding, ends) in enumerate(product(("utf-8", "utf-8-sig", "utf-16"), ("\n", "\r\n", "\r"))):
        with subtests.test(encoding=encoding, ends=ends):
            table = folder / f"{number}.csv"
            table.write_bytes(rows().replace("\n", ends).encode(encoding))
            assert_read(load_images(table))


def test_other_encodings_are_told_with_their_line(folder: Path) -> None:
    (folder / "all.csv").write_bytes(rows(row3="x/3.png,d\u00f6g,fine").encode("latin-1"))
    refused(folder / "all.csv", "line 5 of ", "another encoding, such as Latin-1; save it as UTF-8")
    (folder / "all.csv").write_bytes(rows().encode("utf-16-le"))
    refused(folder / "all.csv", "a zero byte in line 1", "it may be UTF-16")
    (folder / "all.csv").write_bytes(b"PK\x03\x04\x14\x00")
    refused(folder / "all.csv", "is a zip file, as Excel writes it")


def test_empty_lines_and_rows(folder: Path) -> None:
    (folder / "all.csv").write_text("\n\n" + rows().replace("x/3", "\n   \nx/3") + "\n,,\n")
    images = load_images(folder / "all.csv")
    assert_read(images)
    assert "1 rows of all.csv without any value were left out" in images.notes


# ---------------------------------------------------------------- headers, blanks, backslashes, numbers


AS_PEOPLE_HAVE_THEM = [
    rows().replace(",", ", "),
    rows().replace(",", " ,"),
    rows().replace(",", '", "').replace("\n", '"\n"').removesuffix('"').join(('"', "")),
    rows().replace("x/", "x\\"),
    rows().replace("x/", ".\\x\\"),
    rows("\t"),
    rows(";"),
    rows("|"),
    "sep=;\n" + rows(";"),
    '"sep=\t"\r\n' + rows("\t"),
    ",path,label,\n" + "".join(f"{n},x/{n}.png,{NAMES[n]},\n" for n in range(6)),
    "path,label\n" + "".join(f"x/{n}.png,{NAMES[n]},\n" for n in range(6)),
    "path,label,note,note\n" + "".join(f"x/{n}.png,{NAMES[n]},a,b\n" for n in range(6)),
    "Image Path,LABEL\n" + "".join(f"x/{n}.png,{NAMES[n]}\n" for n in range(6)),
    "path\tlabel\tnote, if any\n" + rows("\t").split("\n", 1)[1],
    "path,y\n" + "".join(f"x/{n}.png,{NAMES[n]}\n" for n in range(6)),
]


def test_tables_as_people_have_them(subtests: pytest.Subtests, folder: Path) -> None:
    for number, text in enumerate(AS_PEOPLE_HAVE_THEM):
        with subtests.test(text=text):
            table = folder / f"{number}.csv"
            table.write_text(text)
            images = load_images(table)
            assert_read(images)
            assert images.ids == tuple(f"x/{n}.png" for n in range(6))


def test_a_file_whose_name_has_blanks_or_backslashes_is_read_as_it_is(folder: Path) -> None:
    odd = " 0\\ .png"
    (folder / odd).write_bytes(png(5))
    table = pa.table({"path": [odd, "x/0.png "], "label": ["a", "b"]})
    pq.write_table(table, folder / "all.parquet")
    assert colours(load_images(folder / "all.parquet")) == [5, 0]


@pytest.mark.parametrize("class_names", [None, ("cat", "dog")])
def test_whole_floats_are_numbers(class_names: Any, folder: Path) -> None:
    text = "path,label,real\n" + "".join(f"x/{n}.png,{n % 2}.0,{n % 2}\n" for n in range(6))
    (folder / "all.csv").write_text(text)
    images = load_images(folder / "all.csv", class_names=class_names, truth_column="real")
    assert images.class_names == (class_names or ("0", "1")) and images.labels.tolist() == [0, 1] * 3
    assert images.truth is not None and images.truth.tolist() == [0, 1] * 3
    (folder / "all.csv").write_text(text.replace("1.0,", "1.5,"))
    assert load_images(folder / "all.csv").class_names == ("0.0", "1.5"), "these are names"


NO_HEADERS = [
    (rows().split("\n", 1)[1], ("expected a header such as path,label", 'found the image "x/0.png"')),
    (
        "label," + ",".join(f"pixel{n}" for n in range(784)),
        ("784 columns of numbers, pixel0 to pixel783", "reshape"),
    ),
    ("label," + ",".join(f"{n}x{n}" for n in range(28)), ("holds pixels in 28 columns", "load_images(")),
    ("emotion,pixels\n0,1 2 3", ('the column "pixels"', "load_images(")),
    ("label," + ",".join(f"f_{n}" for n in range(512)), ("512 columns of numbers", "features.npz")),
    (rows(" "), ("separated by comma, semicolon, tab or |",)),
    (",label\nx/0.png,cat\nx/1.png,dog\n", ("columns without a name in the header are not read",)),
    ('"path;label"\n"x/0.png;cat"\n', ("remove the quotes around whole lines",)),
    ('path,label\n"x/0.png,cat"\n', ("in line 2 of ", "remove the quotes around the whole line")),
    ("name,kind," + ",".join("abcdefghijk"), ('"h" and 3 more',)),
    ("", ("is empty",)),
]


def test_headers_that_are_none(subtests: pytest.Subtests, folder: Path) -> None:
    for number, (text, words) in enumerate(NO_HEADERS):
        with subtests.test(text=text):
            table = folder / f"{number}.csv"
            table.write_text(text)
            assert len(refused(table, *words)) < 400


# ---------------------------------------------------------------- names in a folder of images


def test_names_in_a_folder_of_images(subtests: pytest.Subtests, folder: Path) -> None:
    names = ("image_id", "id_code", "Id", "ImageID", "fname", "image name", "path", "id")
    for number, (name, suffix) in enumerate(product(names, ("", ".png"))):
        with subtests.test(name=name, suffix=suffix):
            table = folder / f"{number}.csv"
            table.write_text(f"{name},label\n" + "".join(f"{n}{suffix},{NAMES[n]}\n" for n in range(6)))
            images = load_images(table, image_folder=folder / "x")
            assert_read(images)
            assert images.ids[0] == "0.png" and images.origin["image_folder"] == str(folder / "x")
            assert any('"0" is 0.png' in note for note in images.notes) == (suffix == "")


def test_whole_numbers_of_a_table_name_images(folder: Path) -> None:
    columns = {"id": [f"row {n}" for n in range(6)], "ImageID": range(6), "label": NAMES}
    pq.write_table(pa.table(columns), folder / "all.parquet")
    images = load_images(folder / "all.parquet", image_folder=folder / "x")
    assert_read(images)
    assert images.ids[0] == "row 0"


def test_the_option_is_named_where_it_helps(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name, options in (("image_id", {}), ("image_id", {"image_column": "image_id"}), ("path", {}), ("id", {})):
        (folder / "all.csv").write_text(f"{name},label\n" + "".join(f"{n},{NAMES[n]}\n" for n in range(6)))
        refused("all.csv", "add image_folder x", **options)
    code, _, said = run("scan", "all.csv", "--image-folder", "nowhere", "--model", MINI_CLIP, "--out", "run")
    assert code == 1 and 'expected --image-folder to be a folder of images, but "nowhere" does not exist' in said
    shutil.rmtree("x")
    (folder / "all.csv").write_text("image_id,label\n1,cat\n2,dog\n")
    refused("all.csv", 'if "image_id" names images, add image_folder FOLDER')


def test_a_header_that_names_an_image_is_none(folder: Path) -> None:
    (folder / "all.csv").write_text("".join(f"{n},{NAMES[n]}\n" for n in range(6)))
    refused(folder / "all.csv", "expected a header", 'found the image "0"', image_folder=folder / "x")


def test_images_of_several_folders(folder: Path) -> None:
    for part in ("a", "b"):
        (folder / "parts" / part).mkdir(parents=True)
    for number in range(6):
        (folder / "x" / f"{number}.png").rename(folder / "parts" / "ab"[number % 2] / f"{number}.png")
    (folder / "all.csv").write_text("image_id,label\n" + "".join(f"{n},{NAMES[n]}\n" for n in range(6)))
    refused(folder / "all.csv", f"add image_folder {folder / 'parts'}")
    images = load_images(folder / "all.csv", image_folder=folder / "parts")
    assert_read(images)
    assert images.ids[:2] == ("a/0.png", "b/1.png")
    (folder / "parts" / "a" / "1.png").write_bytes(png(9))
    refused(folder / "all.csv", 'the name "1" fits several images', "a/1.png, b/1.png", image_folder=folder / "parts")


def test_of_several_suffixes_the_one_that_fits_most_names_is_taken(folder: Path) -> None:
    for number in range(3):
        (folder / "x" / f"{number}.jpg").write_bytes(png(100))
    (folder / "x" / "5.png").rename(folder / "x" / "5.TIF")
    (folder / "all.csv").write_text("image_id,label\n" + "".join(f"{n},{NAMES[n]}\n" for n in range(6)))
    images = load_images(folder / "all.csv", image_folder=folder / "x")
    assert_read(images)
    assert any("3 names fit several images" in note and "(first: 0.png, not 0.jpg)" in note for note in images.notes)


def test_the_folder_of_images_is_where_paths_may_lead(folder: Path) -> None:
    (folder / "tables").mkdir()
    (folder / "tables" / "all.csv").write_text(rows().replace("x/", f"{folder}/x/"))
    refused(folder / "tables" / "all.csv", "leads out of the folder", "image_folder")
    assert_read(load_images(folder / "tables" / "all.csv", image_folder=folder))
    refused(folder / "tables" / "all.csv", "leads out of the folder", image_folder=folder / "tables")
    (folder / "all.csv").write_text(rows())
    refused(folder / "all.csv", "the paths begin with x/, so pass the folder", image_folder=folder / "x")


def test_sources_that_name_no_images_have_no_folder_of_images(folder: Path) -> None:
    pq.write_table(pa.table({"image": [png()] * 6, "label": NAMES}), folder / "all.parquet")
    options: dict[str, Any] = {"image_folder": folder / "x"}
    refused(folder / "all.parquet", "found bytes; leave out image_folder", image_column="image", **options)
    with pytest.raises(DataError, match="images in memory have no columns"):
        load_images(np.zeros((2, 4, 4), np.uint8), labels=[0, 1], **options)
    (folder / "classes" / "a").mkdir(parents=True)
    refused(folder / "classes", "goes with a table that names images", **options)
    refused(folder / "all.parquet", "is no folder", image_folder=folder / "all.parquet")


def test_every_verb_reads_the_folder_of_images(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run knows it, and finds it again where both have moved."""
    (folder / "set").mkdir()
    (folder / "x").rename(folder / "set" / "x")
    (folder / "set" / "all.csv").write_text("id,breed\n" + "".join(f"{n},{NAMES[n]}\n" for n in range(6)))
    monkeypatch.chdir(folder)
    words = ("set/all.csv", "--image-folder", "set/x", "--label-column", "breed")
    test = ("--test", words[0], "--test-image-folder", words[2], "--test-label-column", "breed")
    scan = ("--model", MINI_CLIP, "--detector", "label-match", "--device", "cpu", "--out", "run")
    assert run("scan", *words, *scan, *test)[0] == 0
    assert json.loads(Path("run/run.json").read_text())["test"]["images"] == 6
    assert run("report", "run")[0] == 0
    (folder / "set").rename(folder / "moved")
    assert run("export", "run", "--format", "imagefolder", "--out", "clean", "--source", "moved/all.csv")[0] == 0
    assert (
        run(
            "noise",
            "moved/all.csv",
            *words[1:2],
            "moved/x",
            *words[3:],
            "--kind",
            "pair",
            "--rate",
            "0.5",
            "--out",
            "n.parquet",
        )[0]
        == 0
    )
    assert len(load_images("n.parquet")) == 6


# ---------------------------------------------------------------- paths in a column of images

IMAGES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def structs(path: Path, cells: Sequence[Any]) -> Path:
    table = pa.table({"image": pa.array(cells, IMAGES), "label": NAMES[: len(cells)]})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_paths_in_a_column_of_images_are_relative_to_the_table(
    suffix: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere" / "x").mkdir(parents=True)
    for number in range(6):
        (folder / "elsewhere" / "x" / f"{number}.png").write_bytes(png(99))
    monkeypatch.chdir(folder / "elsewhere")
    named = [{"bytes": None, "path": f"x/{n}.png"} for n in range(6)]
    assert_read(load_images(structs(folder / f"all{suffix}", named)))
    # beside encoded images a path is no more than a name
    mixed = [cell if n % 2 else {"bytes": png(n), "path": "/gone/a.png"} for n, cell in enumerate(named)]
    assert_read(load_images(structs(folder / f"mixed{suffix}", mixed)))
    gaps = load_images(structs(folder / f"gaps{suffix}", [None, *named[1:]]))
    assert any("1 of 6 images are missing (first: 0000000)" in note for note in gaps.notes)
    assert gaps.open(5).getpixel((0, 0)) == (5, 0, 0)
    for path in ("../y/0.png", "/etc/0.png"):
        outside = structs(folder / "x" / f"out{suffix}", [*named[:2], {"bytes": None, "path": path}])
        refused(outside, f'the path "{path}" in row 3 of ', "leads out of the folder", "image_folder")
    (folder / "tables").mkdir()
    assert_read(load_images(structs(folder / "tables" / f"all{suffix}", named), image_folder=folder))
    gone = [{"bytes": None, "path": f"y/{n}.png"} for n in range(6)]
    refused(structs(folder / f"gone{suffix}", gone), "none of the 6 images", '(first: "y/0.png")')


@pytest.mark.parametrize(
    "kind", [{"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, datasets.Value("string")]
)
def test_paths_in_a_saved_folder_are_relative_to_it(kind: Any, folder: Path) -> None:
    paths = [f"x/{n}.png" for n in range(6)]
    cells = paths if isinstance(kind, datasets.Value) else [{"bytes": None, "path": path} for path in paths]
    features = datasets.Features({"image": kind, "label": datasets.Value("string")})
    saved = datasets.Dataset.from_dict({"image": cells, "label": NAMES}, features=features)
    saved.save_to_disk(folder / "saved")
    shutil.copytree(folder / "x", folder / "saved" / "x")
    assert_read(load_images(folder / "saved"))


def test_paths_of_a_data_set_in_memory_are_relative_to_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("string")})
    cells = [{"bytes": None, "path": f"x/{n}.png"} for n in range(6)]
    images = load_images(datasets.Dataset.from_dict({"image": cells, "label": NAMES}, features=features))
    assert colours(images) == [*range(6)]


# ---------------------------------------------------------------- one table in several files


def part(path: Path, start: int, stop: int, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": [png(n) for n in range(start, stop)], "label": list(NAMES[start:stop]), **more}
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)


SEVERAL_FILES = [
    ("hub", ("hub/data/train-00000-of-00002.parquet", "hub/data/train-00001-of-00002.parquet"), True),
    ("hub/data", ("hub/data/train-00000-of-00002.parquet", "hub/data/train-00001-of-00002.parquet"), True),
    (
        "hub/data/tr*.parquet",
        ("hub/data/train-00000-of-00002.parquet", "hub/data/train-00001-of-00002.parquet"),
        True,
    ),
    ("refs", ("refs/default/train/0000.parquet", "refs/default/train/0001.parquet"), True),
    (
        "out.parquet",
        ("out.parquet/part-00000-a1-c000.snappy.parquet", "out.parquet/part-00001-a1-c000.snappy.parquet"),
        False,
    ),
    (
        "old",
        ("old/train-00000-of-00002-6ef9b5c0d0e5e2b5.parquet", "old/train-00001-of-00002-1a2b3c4d5e6f7a8b.parquet"),
        True,
    ),
    ("dask", ("dask/part.0.parquet", "dask/part.1.parquet"), False),
    ("arrow", ("arrow/data-00000-of-00002.arrow", "arrow/data-00001-of-00002.arrow"), False),
    ("any/*.parquet", ("any/first.parquet", "any/second.parquet"), False),
    ("deep/**/*.parquet", ("deep/a/0.parquet", "deep/b/1.parquet"), False),
]


def test_a_table_in_several_files(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (source, files, splits) in enumerate(SEVERAL_FILES):
        with subtests.test(source=source, files=files), pytest.MonkeyPatch.context() as patch:
            home = tmp_path / str(number)
            home.mkdir()
            patch.chdir(home)
            for place, name in enumerate(files):
                part(Path(name), 3 * place, 3 * place + 3)
            (Path(files[0]).parent / "_SUCCESS").write_text("")
            (Path(files[0].split("/")[0]) / "README.md").write_text("![](banner.png)")
            (Path(files[0].split("/")[0]) / "banner.png").write_bytes(png())
            images = load_images(source)
            assert_read(images)
            note = f"2 files are read as one table: {Path(files[0]).name} to {Path(files[1]).name}"
            assert note in images.notes and images.origin["source"] == str(home / source)
            if not splits:
                refused(source, "has no splits" if "*" not in source else "splits", split="train")


def test_splits_of_a_table_in_several_files(tmp_path: Path) -> None:
    part(tmp_path / "data" / "train-00000-of-00002.parquet", 0, 3)
    part(tmp_path / "data" / "train-00001-of-00002.parquet", 3, 6)
    part(tmp_path / "data" / "test-00000-of-00001.parquet", 0, 2)
    assert_read(load_images(tmp_path, split="test"), [0, 1])
    images = load_images(tmp_path)
    assert_read(images)
    assert "split train of test, train; --split takes another" in images.notes
    assert_read(load_images(f"{tmp_path}/data/*.parquet", split="test"), [0, 1])
    refused(tmp_path, 'expected a split "tst"', "found test, train", split="tst")


def test_csv_in_several_files(folder: Path) -> None:
    for number in range(2):
        lines = rows().splitlines()[3 * number + 1 : 3 * number + 4]
        (folder / f"train_{number}.csv").write_text("\n".join(["path,label,note", *lines]))
    assert_read(load_images(f"{folder}/train_*.csv"))
    (folder / "train_1.csv").write_text("path,labels\nx/0.png,cat\n")
    refused(f"{folder}/train_*.csv", "the same columns in all files", '"path", "labels" in')


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    part(tmp_path / "lost" / "train-00000-of-00003.parquet", 0, 3)
    part(tmp_path / "lost" / "train-00002-of-00003.parquet", 3, 6)
    refused(tmp_path / "lost", "2 of 3 files of train: number 1 is missing")
    part(tmp_path / "kinds" / "part-0.parquet", 0, 3)
    part(tmp_path / "kinds" / "part-1.parquet", 3, 6, label=[0, 1, 0])
    refused(tmp_path / "kinds", 'one kind of the column "label"', "texts in", "integers in", "part-1.parquet")
    part(tmp_path / "lacks" / "part-0.parquet", 0, 3, real=["a"] * 3)
    part(tmp_path / "lacks" / "part-1.parquet", 3, 6)
    assert_read(load_images(tmp_path / "lacks"))
    refused(tmp_path / "lacks", 'a column "real" in', "part-1.parquet", truth_column="real")
    part(tmp_path / "hive" / "label=cat" / "part-0.parquet", 0, 3)
    refused(tmp_path / "hive", "partitioned by a column (label=cat)")
    for name in ("small", "full"):
        part(tmp_path / "configs" / name / "train-00000-of-00001.parquet", 0, 3)
    refused(tmp_path / "configs", "several tables", "full/train-00000-of-00001.parquet", "pass one of them")


def test_folders_with_tables_that_are_no_parts(folder: Path) -> None:
    (folder / "one" / "data").mkdir(parents=True)
    (folder / "one" / "data" / "all.csv").write_text(rows())
    refused(folder / "one", "only the table data/all.csv; pass the file itself")
    for name in ("train", "test", "sample_submission"):
        (folder / "one" / "data" / f"{name}.csv").write_text(rows())
    refused(folder / "one", "holds several tables (data/all.csv, data/sample_submission.csv")
    shutil.rmtree(folder / "one")
    (folder / "all.csv").write_text(rows())
    refused(folder, 'has only "x"', "pass the table that lies there", f"{folder / 'all.csv'} --image-folder")
    shutil.copytree(folder / "x", folder / "y")
    notes = load_images(folder).notes
    assert any(note.startswith("all.csv beside the class folders was not read") for note in notes)
    (folder / "x").rename(folder / "train_images")
    (folder / "y").rename(folder / "test_images")
    refused(folder, "holds splits", "pass the table that lies there", "--image-folder", "train_images")


def test_patterns_that_fit_nothing_or_no_tables(folder: Path, run: Run) -> None:
    refused(f"{folder}/*.parquet", "no file fits")
    refused(f"{folder}/x/*.png", "a pattern of tables", "0.png, 1.png")
    for number in range(2):
        part(folder / f"{number}.parquet", 0, 3)
    code, _, said = run("scan", folder / "0.parquet", folder / "1.parquet", "--out", folder / "run")
    assert code == 2 and "a pattern in quotes" in said


# ---------------------------------------------------------------- kinds of columns


def test_kinds_of_columns(subtests: pytest.Subtests, tmp_path: Path) -> None:
    cells, names = [png(n) for n in range(6)], list(NAMES)
    words = [name.encode() for name in names]
    views = pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])
    extra = pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int64()))
    for number, (kind, images, labels) in enumerate(
        (
            ("views of bytes", pa.array(cells, pa.binary_view()), names),
            ("large bytes, views of texts", pa.array(cells, pa.large_binary()), pa.array(names, pa.string_view())),
            ("categories", pa.array(cells).dictionary_encode(), pa.array(names).dictionary_encode()),
            ("labels as bytes", cells, words),
            ("labels as large bytes", cells, pa.array(words, pa.large_binary())),
            ("labels as bytes of one width", cells, pa.array([word.ljust(5, b"\0") for word in words], pa.binary(5))),
            ("labels as categories of bytes", cells, pa.array(words).dictionary_encode()),
            ("labels in lists", cells, [[name] for name in names]),
            ("records of views", pa.array([{"bytes": cell, "path": "a"} for cell in cells], views), names),
        )
    ):
        with subtests.test(kind):
            if kind == "labels as bytes of one width" and OLD_DATASETS:
                pytest.skip("datasets has this type from 5.1 on")
            path = tmp_path / f"{number}.parquet"
            pq.write_table(pa.table({"image": images, "label": labels, "extra": extra}), path)
            assert_read(load_images(path))


PNGS = [png(number) for number in range(6)]
PATHS = [f"x/{number}.png" for number in range(6)]
HASHES = [b"\xff" + bytes([number]) for number in range(6)]
BYTES = [name.encode() for name in NAMES]


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"md5": HASHES, "path": PATHS, "label": NAMES}, {}),
        ({"path": PATHS, "label": BYTES}, {}),
        ({"pixels": PNGS, "kind": BYTES, "real": BYTES}, {"label_column": "kind", "truth_column": "real"}),
        ({"md5": HASHES, "photo_1": [{"bytes": each, "path": "a"} for each in PNGS], "label": NAMES}, {}),
        ({"image_bytes": PNGS, "filename": ["gone.png"] * 6, "label": NAMES}, {}),
        ({"name": NAMES, "id": PATHS}, {"label_column": "name", "image_folder": "."}),
    ],
    ids=["hashes", "labels", "named", "struct", "bytes", "folder"],
)
def test_bytes_that_are_no_images(columns: Any, options: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    pq.write_table(pa.table(columns), folder / "all.parquet")
    assert_read(load_images("all.parquet", **options))


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8), (8, 8, 1)])
def test_nested_lists_of_pixels(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    pq.write_table(pa.table({"image": pixels.tolist(), "label": NAMES}), tmp_path / "all.parquet")
    images = load_images(tmp_path / "all.parquet")
    for row in range(6):
        assert np.array_equal(np.asarray(images.open(row)), np.broadcast_to(pixels[row].reshape(8, 8, -1), (8, 8, 3)))


def test_columns_of_arrays_are_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Array3D((8, 8, 3), "uint8"), "label": datasets.Value("string")})
    datasets.Dataset.from_dict({"image": list(pixels), "label": NAMES}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    assert np.array_equal(np.asarray(load_images(tmp_path / "a.parquet").open(5)), pixels[5])


@pytest.mark.parametrize(
    ("ids", "note"),
    [
        ([0, 1, 2, 0, 1, 2], '3 values are listed more than once (first: "0" in rows 1 and 4)'),
        (["a", None, "b", "c", "d", "e"], "it is empty in 1 rows (first: row 2)"),
    ],
)
def test_ids_that_repeat_or_lack(ids: list[Any], note: str, folder: Path) -> None:
    columns = {"id": ids, "image": [png(n) for n in range(6)], "label": NAMES}
    pq.write_table(pa.table(columns), folder / "all.parquet")
    images = load_images(folder / "all.parquet")
    assert images.ids[1] == "0000001" and any(note in each and "row numbers" in each for each in images.notes)
    pq.write_table(pa.table({**columns, "image": [f"x/{n}.png" for n in range(6)]}), folder / "paths.parquet")
    assert load_images(folder / "paths.parquet").ids[1] == "x/1.png"


# ---------------------------------------------------------------- files that are something else


OTHER_FILES: list[tuple[str, str, tuple[str, ...]]] = [
    *(
        (f"all{suffix}", POINTER, ("Git LFS pointer", "git lfs pull"))
        for suffix in (".csv", ".parquet", ".arrow", ".npz")
    ),
    ("all.parquet", "<!DOCTYPE html>", ("it is a web page",)),
    ("all.csv", "<!DOCTYPE html>", ("is a web page",)),
    ("all.parquet", "", ("it is empty",)),
    ("all.parquet", "PAR1 and then nothing", ("it is cut off",)),
    ("all.arrow", "hello", ("no Arrow file, or damaged",)),
    ("all.xlsx", "PK", ("save it as CSV",)),
    ("all.json", "{}", ("pandas.read_json",)),
    ("all.pkl", "x", ("nothing is unpickled", "numpy.savez")),
    ("all.zip", "PK", ("unpack it",)),
    ("a.png", "x", ("pass its folder",)),
]


def test_files_of_other_kinds(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (name, content, words) in enumerate(OTHER_FILES):
        with subtests.test(name=name, content=content):
            (tmp_path / str(number)).mkdir()
            path = tmp_path / str(number) / name
            path.write_text(content)
            said = refused(path, *words)
            assert not any(word in said for word in ("magic", "thrift", "deserialize", "Invalid"))


def test_images_that_are_pointers(folder: Path) -> None:
    (folder / "all.csv").write_text(rows())
    (folder / "x" / "3.png").write_text(POINTER)
    images = load_images(folder / "all.csv")
    assert any("1 of 6 images are Git LFS pointers (first: x/3.png)" in note for note in images.notes)
    with pytest.raises(DataError, match="git lfs pull"):
        images.open(3)
    for number in range(6):
        (folder / "x" / f"{number}.png").write_text(POINTER)
    refused(folder / "all.csv", "are Git LFS pointers", "git lfs pull")


def test_weights_that_are_a_pointer(tmp_path: Path) -> None:
    shutil.copytree(MINI_CLIP, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_text(POINTER)
    with pytest.raises(ModelError, match=r"pointers of Git LFS in the place of model\.safetensors.*git lfs pull"):
        load_vlm(tmp_path / "model")
