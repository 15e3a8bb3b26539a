"""Several labels per image: how they are read, what a scan of them keeps, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

import labelsieve as ls
from labelsieve.core.errors import DataError, LabelsieveError, RunError, SettingsError
from labelsieve.data.noise_files import METADATA, apply_noise, read_noise, write_noise
from labelsieve.data.noise_kinds import kinds_for
from labelsieve.data.sources import contents
from labelsieve.data.tags.columns import split_texts
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.sketches import CLASS_NAMES, sketches
from labelsieve.detect.tags.base import TagDetector
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.scores import TagScores, tag_scores
from labelsieve.report.tag_report import write_tag_report
from labelsieve.report.terminal import summarize_tags
from labelsieve.tags.verdicts import TAG_FILES, TagVerdicts
from labelsieve.verdicts import TAG_IMAGES as IMAGES
from labelsieve.verdicts import Verdicts
from labelsieve.vlm.base import VisionLanguageModel
from slow_cases import mostly_slow
from small_boxes import make_coco, make_voc, make_yolo

Run = Callable[..., tuple[int, str, str]]
TAGS = [["cat", "dog"], ["dog"], [], ["cat"]]
BITS = [[True, True], [False, True], [False, False], [True, False]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four different images, `0.png` to `3.png`."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def written(photos: Path) -> Callable[[str], Path]:
    """Writes a CSV beside the images; in the text `N` at the head of a line stands for `N.png`."""

    def write(text: str) -> Path:
        header, *lines = text.strip().splitlines()
        rows = [f"{line.partition(',')[0]}.png,{line.partition(',')[2]}" for line in lines]
        (photos / "tags.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return photos / "tags.csv"

    return write


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"image": [f"{index}.png" for index in range(4)], **columns}), folder / "tags.parquet")
    return folder / "tags.parquet"


# ------------------------------------------------------------------------------------------------------- forms of data

FORMS = {
    "semicolons": "path,tags\n0,cat;dog\n1,dog\n2,\n3,cat",
    "commas": 'path,tags\n0,"cat, dog"\n1,dog\n2,\n3,cat',
    "bars": "path,labels\n0,cat|dog\n1,dog\n2,\n3,cat",
    "python": "path,tags\n0,\"['cat', 'dog']\"\n1,['dog']\n2,[]\n3,['cat']",
    "json": 'path,tags\n0,"[""cat"", ""dog""]"\n1,"[""dog""]"\n2,[]\n3,"[""cat""]"',
    "tuples": "path,tags\n0,\"('cat', 'dog')\"\n1,\"('dog',)\"\n2,()\n3,\"('cat',)\"",
    "sets": "path,tags\n0,\"{'cat', 'dog'}\"\n1,{'dog'}\n2,set()\n3,{'cat'}",
    "columns": "path,cat,dog\n0,1,1\n1,0,1.0\n2,0,0\n3,1,0",
    "rows": "path,label\n0,cat\n1,dog\n0,dog\n2,\n3,cat",
    "columns-and-others": "path,width,cat,dog\n0,9,1,1\n1,8,0,1\n2,7,0,0\n3,9,1,0",
}


@pytest.mark.parametrize(
    "form", mostly_slow(FORMS, quick=("semicolons", "python", "sets", "rows", "columns-and-others"))
)
def test_texts_and_columns_of_a_csv_file(form: str, written: Callable[[str], Path]) -> None:
    images = ls.load_tags(written(FORMS[form]))
    assert images.tags.tolist() == BITS and images.class_names == ("cat", "dog")
    assert images.ids == ("0.png", "1.png", "2.png", "3.png")
    assert images.origin["source"].endswith("tags.csv")


def test_lists_of_0_and_1_in_a_csv_file_have_one_value_for_each_class(written: Callable[[str], Path]) -> None:
    path = written('path,tags\n0,"[1, 0, 1]"\n1,"[0, 0, 1]"\n2,"[0, 0, 0]"\n3,"[1, 1, 0]"')
    images = ls.load_tags(path, class_names=["x", "y", "z"])
    assert [images.names_of(row) for row in range(4)] == [("x", "z"), ("z",), (), ("x", "y")]
    with pytest.raises(DataError, match="holds 3 values of 0 and 1, one a class; give the names"):
        ls.load_tags(path)


def test_lists_of_0_and_1_in_memory_are_read_like_those_of_a_file() -> None:
    pixels = [np.full((8, 8, 3), 40 * value, dtype=np.uint8) for value in range(4)]
    rows = [[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0]]
    for tags in (rows, [np.array(row) for row in rows]):
        images = ls.load_tags(pixels, tags=tags, class_names=["x", "y", "z"])
        assert [images.names_of(row) for row in range(4)] == [("x", "z"), ("z",), (), ("x", "y")]
        with pytest.raises(DataError, match="each list in tags holds 3 values of 0 and 1, one a class; give the names"):
            ls.load_tags(pixels, tags=tags)
    indices = ls.load_tags(pixels, tags=[[0, 2], [2], [], [0, 1]], class_names=["x", "y", "z"])
    assert np.array_equal(indices.tags, images.tags)
    with pytest.raises(DataError, match="expected"):
        ls.load_tags(pixels, tags=[[2**70], [0], [], [1]], class_names=["x", "y", "z"])


TYPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lists": ({"tags": TAGS}, {}),
    "indices": ({"labels": [[0, 1], [1], [], [0]]}, {"class_names": ["cat", "dog"]}),
    "vectors": ({"labels": [[1, 1], [0, 1], [0, 0], [1, 0]]}, {"class_names": ["cat", "dog"]}),
    "booleans": ({"cat": [True, False, False, True], "dog": [True, True, False, False]}, {}),
    "named": (
        {"a": [1, 0, 0, 1], "b": [1, 1, 0, 0], "c": [3] * 4},
        {"tag_column": ["a", "b"], "class_names": ["cat", "dog"]},
    ),
    "blanks": ({"text": ["cat dog", "dog", None, "cat"]}, {"tag_column": "text", "separator": " "}),
}


@pytest.mark.parametrize("form", mostly_slow(TYPED, quick=("lists", "vectors", "named")))
def test_columns_with_types(form: str, photos: Path) -> None:
    columns, options = TYPED[form]
    images = ls.load_tags(parquet(photos, **columns), **options)
    assert images.tags.tolist() == BITS and images.class_names == ("cat", "dog")


def test_images_in_memory_and_data_sets(photos: Path) -> None:
    import datasets

    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    assert ls.load_tags(pixels, tags=TAGS).tags.tolist() == BITS
    assert ls.load_tags(pixels, tags=np.array(BITS), class_names=["cat", "dog"]).tags.tolist() == BITS
    classes = datasets.Sequence(datasets.ClassLabel(names=["cat", "dog", "fox"]))
    columns = {"image": [str(photos / f"{row}.png") for row in range(4)], "objects": [[0, 1], [1], [], [0]]}
    kinds = datasets.Features({"image": datasets.Value("string"), "objects": classes})
    images = ls.load_tags(datasets.Dataset.from_dict(columns, features=kinds))
    assert images.class_names == ("cat", "dog", "fox") and images.tags[:, :2].tolist() == BITS


def test_the_categories_of_a_coco_file_without_boxes(photos: Path) -> None:
    names = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    pairs = [(0, 3), (0, 7), (0, 7), (1, 7), (3, 3)]
    content = {
        "images": [{"id": index, "file_name": f"{index}.png"} for index in range(4)],
        "categories": names,
        "annotations": [{"id": at, "image_id": image, "category_id": name} for at, (image, name) in enumerate(pairs)],
    }
    (photos / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    images = ls.load_tags(photos / "coco.json")
    assert images.tags.tolist() == BITS and images.class_names == ("cat", "dog")


def test_annotations_of_no_known_image_are_left_out_and_true_tags_are_read(tmp_path: Path) -> None:
    path = make_coco(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["image_id"] = 77
    for each in content["annotations"]:
        each["true"] = content["categories"][0]["id"]
    content["images"].append({"id": 55, "file_name": content["images"][0]["file_name"].replace("a", "b")})
    path.write_text(json.dumps(content), encoding="utf-8")
    images = ls.load_tags(path, truth_column="true")
    assert images.truth is not None and images.truth.sum() == 2 and images.truth[:2, 0].all()
    assert not images.tags[2].any() and len(images) == 3
    assert any("1 annotation names an image without an entry" in note for note in images.notes)


def test_what_would_be_half_a_box_is_a_class(written: Callable[[str], Path]) -> None:
    sides = ls.load_tags(written("path,left,top,right,bottom\n0,1,0,0,1\n1,0,0,1,1\n2,0,0,0,0\n3,1,1,0,0"))
    assert sides.class_names == ("left", "top", "right", "bottom")
    corners = (
        "path,label,xmin,ymin,xmax,ymax\n0,cat,1,1,2,2\n0,dog,1,1,2,2\n1,dog,1,1,2,2\n2,cat,0,0,1,1\n3,cat,0,0,1,1"
    )
    assert ls.load_tags(written(corners), tag_column="label").tags.sum() == 5, "one row a tag"


@pytest.mark.parametrize("make", mostly_slow([make_yolo, make_voc], quick=[make_yolo]))
def test_the_classes_of_boxes_are_tags_of_their_image(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source, names = make(tmp_path), ["cat", "dog", "owl", "fox"]  # no image shows a fox
    boxes, images = ls.load_images(source, class_names=names), ls.load_tags(source, class_names=names)
    assert boxes.boxes is not None and images.boxes is None and images.class_names == boxes.class_names
    shown = {(str(boxes.boxes.image_of[row]), int(label)) for row, label in enumerate(boxes.labels)}
    assert int(images.tags.sum()) == len(shown) and len(images) == len(set(boxes.boxes.image_of.tolist()))
    # an image of which somebody said that there is nothing in it
    picture = next(path for path in source.rglob("a.png"))
    (picture.parent / "c.png").write_bytes(picture.read_bytes())
    label = next(path for path in source.rglob("a.*") if path.suffix in (".txt", ".xml"))
    nothing = "<annotation><filename>c.png</filename></annotation>" if label.suffix == ".xml" else ""
    (label.parent / f"c{label.suffix}").write_text(nothing)
    more = ls.load_tags(source, class_names=names)
    (empty,) = (row for row, name in enumerate(more.ids) if "c.png" in name)
    assert len(more) == len(images) + 1 and not more.tags[empty].any()
    assert any("1 image has no tag" in note for note in more.notes)
    assert any("1 image has no boxes and is not read" in note for note in ls.load_images(source).notes)


def test_a_folder_in_which_images_lie_in_several_classes(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("cat", "dog", "fox"):
        (folder / name).mkdir(parents=True)
    for name, index in (("cat", 0), ("dog", 1), ("fox", 2)):
        shutil.copy(photos / f"{index}.png", folder / name / f"{index}.png")
    one_label = "no image of .* lies in two class folders, so each has one label; .* use: labelsieve scan"
    with pytest.raises(DataError, match=one_label):
        ls.load_tags(folder)
    os.symlink(folder / "cat" / "0.png", folder / "dog" / "link.png")
    os.link(folder / "dog" / "1.png", folder / "fox" / "hard.png")
    shutil.copy(folder / "cat" / "0.png", folder / "fox" / "copy.png")
    images = ls.load_tags(folder)
    assert images.ids == ("cat/0.png", "dog/1.png", "fox/2.png")
    assert [images.names_of(row) for row in range(3)] == [("cat", "dog", "fox"), ("dog", "fox"), ("fox",)]
    assert any("2 of 3 images lie in several class folders" in note for note in images.notes)


# ------------------------------------------------------------------------------------------- what is odd, and refused


def test_odd_tags_are_told_of(written: Callable[[str], Path]) -> None:
    images = ls.load_tags(written("path,tags\n0,cat;;Dog;cat\n1,dog\n2,\n3,cat;"), class_names=["cat", "dog", "owl"])
    assert images.tags[:, :2].tolist() == BITS and not images.tags[:, 2].any()
    said = "\n".join(images.notes)
    assert 'are separated by ";"' in said and "2 blank tags were left out (first: row 1)" in said
    assert "1 tag is given more than once to the same image and counts once" in said
    assert "4 tags of 4 images, 1.0 an image; 1 image has no tag" in said


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "one-label": (
        "path,label\n0,cat\n1,dog\n2,cat\n3,cat",
        {},
        "each of the 4 images has one label .* use: labelsieve scan",
    ),
    "two-marks": (
        "path,tags\n0,cat;dog\n1,cat|dog\n2,\n3,cat",
        {},
        "one mark between the tags .* say with separator",
    ),
    "none": ("path,tags\n0,\n1,\n2,\n3,", {}, "expected images with tags .* found none at all"),
    "all": ("path,tags\n0,a;b\n1,a;b\n2,a;b\n3,a;b", {}, "each of the 4 images has all of the tags a, b"),
    "unknown": ("path,tags\n0,cat;dgo\n1,dog\n2,\n3,cat", {"class_names": ["cat", "dog"]}, 'first "dgo", id "0.png"'),
    "split": ("path,is_valid,cat,dog\n0,1,1,1\n1,0,0,1\n2,0,0,0\n3,1,1,0", {}, '"is_valid" may be a split'),
    "no-column": ("path,n\n0,7\n1,8\n2,9\n3,7", {}, "expected a column of tags .* name it with tag_column"),
    "not-there": ("path,tags\n0,a;b\n1,a\n2,\n3,", {"tag_column": "tag"}, 'expected a column "tag" .* "tags"'),
    "not-bits": (
        "path,a,b\n0,1,0\n1,2,0\n2,0,0\n3,0,1",
        {"tag_column": ["a", "b"]},
        'expected 0 or 1 .* column "a" .* in row 2',
    ),
    "odd-bit": ("path,a,b,c\n0,1,0,1\n1,2,0,1\n2,0,0,0\n3,0,1,0", {}, "column \"a\" .* found '?2'? in row 2 "),
    "no-bit": ("path,a,b,c\n0,1,0,1\n1,0,0,\n2,0,0,0\n3,0,1,0", {}, 'column "c" .* found nothing in row 2 '),
    "cut-list": ("path,tags\n0,['a']\n1,\"['b',\"\n2,\n3,['b']", {}, r"row 2 of the column .* found \['b',"),
    "numpy": (
        "path,tags\n0,['a']\n1,['a' 'b']\n2,\n3,['b']",
        {},
        r"names or integers in row 2 .* found \['a' 'b'\]; fix it",
    ),
    "booleans": ("path,tags\n0,['a']\n1,[True]\n2,\n3,['b']", {}, r"names or integers in row 2 .* found \[True\]"),
    "huge": ("path,tags\n0,[1]\n1,[99999999999999999999]\n2,\n3,[2]", {}, "names or integers in row 2 .* found"),
    "dictionary": ("path,tags\n0,{'a'}\n1,{'a': 1}\n2,\n3,{'b'}", {}, "names or integers in row 2 .* found {'a': 1}"),
    "twice": ("path,a,b\n0,1,0\n1,1,0\n2,0,0\n3,0,1", {"tag_column": ["a", "a"]}, "is named twice"),
    "broken-list": ("path,tags\n0,['a']\n1,[{}]\n2,\n3,['b']", {}, r"expected lists of names .* found \[\{\}\]"),
}


def test_what_is_refused(subtests: pytest.Subtests, written: Callable[[str], Path]) -> None:
    for case, (text, options, message) in REFUSED.items():
        with subtests.test(case):
            with pytest.raises(LabelsieveError, match=message) as caught:
                ls.load_tags(written(text), **options)
            assert "\n" not in str(caught.value)


def test_missing_lists_and_one_label_with_types_are_refused(photos: Path) -> None:
    with pytest.raises(DataError, match=r"expected a list of tags a row .* \(first: row 3"):
        ls.load_tags(parquet(photos, tags=[["a"], ["b"], None, []]))
    with pytest.raises(DataError, match='found integers in "label"; for one label per image use: labelsieve scan'):
        ls.load_tags(parquet(photos, label=[0, 1, 0, 1]))
    with pytest.raises(DataError, match="2 values of 0 and 1, one a class; give the names"):
        ls.load_tags(parquet(photos, labels=[[1, 1], [0, 1], [0, 0], [1, 0]]))
    with pytest.raises(SettingsError, match="a separator goes with texts"):
        ls.load_tags(parquet(photos, tags=TAGS), separator=";")
    for columns, message in (
        (["tags", "a"], r"column \"tags\" .* found \['cat', 'dog'\] in row 1 "),
        (["tags", "image"], 'expected an image column .* found the columns "image", "tags", "a"'),
    ):
        with pytest.raises(DataError, match=message):
            ls.load_tags(parquet(photos, tags=TAGS, a=[0, 1, 1, 0]), tag_column=columns)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["cat", "dog", "cat", "dog"], "'cat'"),
        ([["a"], None, [], ["b"]], "None"),
        ([["a"], b"b", [], ["b"]], "b'b'"),
        ([["a"], ["b"]], "2 lists"),
        (5, "5"),
        (np.array(5), r"array\(5\)"),
        (np.arange(4), r"np.int64\(0\)"),
    ],
)
def test_tags_in_memory_are_lists(tags: Any, found: str) -> None:
    with pytest.raises(DataError, match=f"expected 4 lists of tags, one for each image, got {found}"):
        ls.load_tags(np.zeros((4, 8, 8), dtype=np.uint8), tags=tags)


def test_lists_of_0_and_1_take_their_class_names_from_a_file(tmp_path: Path) -> None:
    names, bits = tmp_path / "names.txt", [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
    names.write_text("cat\ndog\nfox\n")
    pixels = np.zeros((4, 8, 8), dtype=np.uint8)
    images = ls.load_tags(pixels, tags=bits, class_names=names)
    assert images.class_names == ("cat", "dog", "fox") and images.tags.astype(int).tolist() == bits


def test_an_array_of_tags_keeps_the_true_tags_of_a_data_set() -> None:
    pixels = [Image.fromarray(np.full((8, 8, 3), 40 * value, dtype=np.uint8)) for value in range(4)]
    rows = datasets.Dataset.from_dict({"image": pixels, "true": [["cat"], ["dog"], [], ["cat", "dog"]]})
    images = ls.load_tags(rows, tags=np.array(BITS), class_names=["cat", "dog"], truth_column="true")
    assert images.tags.tolist() == BITS and images.truth is not None
    assert images.truth.astype(int).tolist() == [[1, 0], [0, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize("column", [5, [1, 2], [None]])
def test_names_of_tag_columns_are_texts(column: Any, photos: Path) -> None:
    with pytest.raises(SettingsError, match=r"expected the names of tag columns, got .*; name one or several"):
        ls.load_tags(parquet(photos, tags=TAGS), tag_column=column)


def test_class_folders_are_hashed_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    shutil.copy(photos / "0.png", tmp_path / "cat" / "0.png")
    shutil.copy(photos / "1.png", tmp_path / "cat" / "1.png")
    os.link(tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    expected = ls.load_tags(tmp_path)
    hashed: list[str] = []
    hash_file = contents._hash_file

    def watched(path: str) -> tuple[bytes | None, bool]:
        hashed.append(path)
        return hash_file(path)

    monkeypatch.setattr(contents, "_hash_file", watched)
    images = ls.load_tags(tmp_path)
    assert len(hashed) == len(images) == 2 and images.ids == ("cat/0.png", "cat/1.png")
    assert images.fingerprint == expected.fingerprint == ls.load_tags(tmp_path, limit=2).fingerprint


def test_texts_are_split_by_the_one_mark_that_they_have() -> None:
    assert split_texts(["a b, c", "", "d"], separator=None, where="x")[0] == [["a b", "c"], [], ["d"]]
    assert split_texts(["a b"], separator=" ", where="x")[0] == [["a", "b"]]
    assert split_texts(["[1, 2]", ""], separator=None, where="x")[0] == [[1, 2], []]


def test_a_subset_keeps_classes_and_the_truth(photos: Path) -> None:
    path = parquet(photos, tags=TAGS, true=[["cat"], ["dog"], ["fox"], []])
    images = ls.load_tags(path, truth_column="true", limit=2, seed=1)
    whole = ls.load_tags(path, truth_column="true")
    assert whole.class_names == images.class_names == ("cat", "dog", "fox") and whole.truth is not None
    rows = np.array([whole.ids.index(each) for each in images.ids])
    taken = whole.take(rows)
    assert images.truth is not None and taken.truth is not None
    assert np.array_equal(images.tags, taken.tags) and np.array_equal(images.truth, taken.truth)
    assert images.fingerprint == taken.fingerprint != whole.fingerprint
    assert ls.load_tags(**images.origin).fingerprint == images.fingerprint
    assert images.with_tags(~images.tags).fingerprint != images.fingerprint
    with pytest.raises(DataError, match=r"of shape \(2, 3\), .*, got int64"):
        images.with_tags(np.zeros((2, 3), dtype=np.int64))


# ---------------------------------------------------------------------------------------------------- scan and verdicts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odd(TagDetector):
    """Doubts every tag of the first class, and misses the second one everywhere."""

    def score(self, pairs: TagInputs) -> TagScores:
        present = np.full(pairs.given.shape, 0.5, dtype=np.float32)
        present[:, 0], present[:, 1] = np.linspace(0.01, 0.1, len(present)), 0.95
        return tag_scores(pairs, present, thresholds=(0.2, 0.2), omission=0.25, notes=("an odd detector",))


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> ls.TaggedImages:
    """Sixteen sketches of four classes, two of them wrongly tagged, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("tagged")
    drawn, labels = sketches(200, seed=0)
    rows = [row for row, label in enumerate(labels) if label < 4][:16]
    names = [CLASS_NAMES[labels[row]] for row in rows]
    for place, row in enumerate(rows):
        drawn[row].save(folder / f"{place:02d}.png")
    (folder / "03.png").write_bytes(b"broken")
    lines = [f"{place:02d}.png,{name if place != 1 else ''},{name}" for place, name in enumerate(names)]
    lines[2] = f"02.png,{names[2]};{CLASS_NAMES[(CLASS_NAMES.index(names[2]) + 1) % 4]},{names[2]}"
    (folder / "tags.csv").write_text("\n".join(["path,tags,true", *lines]) + "\n", encoding="utf-8")
    return ls.load_tags(folder / "tags.csv", truth_column="true")


def test_a_run_is_saved_and_read_again(tagged: ls.TaggedImages, tiny_clip: VisionLanguageModel, tmp_path: Path) -> None:
    verdicts = ls.scan_tags(tagged, tiny_clip, detector=Odd(), out=tmp_path / "run", device="cpu")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*TAG_FILES} - {"report.html"}
    again = TagVerdicts.load(tmp_path / "run")
    assert again.table.equals(verdicts.table) and again.images.equals(verdicts.images)
    assert again.metrics == verdicts.metrics and again.class_names == tagged.class_names
    assert again.table["rank"].to_pylist() == list(range(1, again.table.num_rows + 1))
    quality = again.table["label_quality"].to_pylist()
    assert quality == sorted(quality), "the most suspicious first"
    readable = again.is_readable
    assert not readable[3] and readable.sum() == 15 and again.unreadable["id"].to_pylist() == ["03.png"]
    first, second = tagged.tags[readable, 0], tagged.tags[readable, 1]
    assert len(again.of_kind("wrong")) == first.sum() and len(again.of_kind("missing")) == (~second).sum()
    corrected = again.corrected()
    assert not corrected[readable, 0].any() and corrected[readable, 1].all()
    assert np.array_equal(corrected[3], tagged.tags[3]), "what cannot be read stays as it is"
    assert np.array_equal(again.given, tagged.tags)
    row = again.per_class()[0]
    assert (row["tagged"], row["wrong"], row["missing"]) == (int(first.sum()), int(first.sum()), 0)
    assert row["omission"] == 0.25 and row["commission"] is None
    assert again.estimated() is None, "the detector says nothing of wrong tags"
    rates = [{"class_name": name, "omission": 0.5, "commission": 0.25} for name in tagged.class_names]
    said = dataclasses.replace(again, record={**again.record, "rates": rates}).estimated()
    given = int(tagged.tags[readable].sum())
    assert said == pytest.approx({"wrong": 0.25 * given, "missing": 0.75 * given})
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["kind"] == "tags" and record["data"]["fingerprint"] == tagged.fingerprint
    assert "an odd detector" in record["notes"]


def test_files_that_do_not_belong_together_are_refused(
    tagged: ls.TaggedImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    verdicts = ls.scan_tags(tagged, tiny_clip, detector=Odd(), out=folder)
    with pytest.raises(RunError, match="already holds a finished run"):
        ls.scan_tags(tagged, tiny_clip, detector=Odd(), out=folder)
    with pytest.raises(RunError, match="is a run of labelsieve scan-tags"):
        Verdicts.load(folder)
    record = json.loads((folder / "run.json").read_text())
    edits = [{"thresholds": {"wrong": "x"}}, {"rates": [{"omission": "x"}] * len(tagged.class_names)}]
    for edit in edits:
        (folder / "run.json").write_text(json.dumps(record | edit))
        with pytest.raises(RunError, match=r'expected "\w+\.\w+" in .* found "x"'):
            TagVerdicts.load(folder)
    (folder / "run.json").write_text(json.dumps(record))
    pq.write_table(verdicts.images.slice(1), folder / IMAGES)
    with pytest.raises(RunError, match=r"are not what run.json was written for"):
        TagVerdicts.load(folder)
    (folder / IMAGES).unlink()
    with pytest.raises(RunError, match=r"images\.parquet is missing"):
        TagVerdicts.load(folder)
    (folder / "run.json").unlink()
    with pytest.raises(RunError, match="make one with: labelsieve scan-tags"):
        TagVerdicts.load(folder)
    (folder / "checkpoint").mkdir()
    with pytest.raises(RunError, match="found none; finish it with --resume"):
        TagVerdicts.load(folder)


def test_a_run_of_the_other_kind_is_replaced_whole(
    tagged: ls.TaggedImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    points = np.repeat(np.eye(4), 8, axis=0) + np.random.default_rng(0).normal(scale=0.1, size=(32, 4))
    features = ls.load_features(points, labels=np.repeat(["cat", "dog", "fox", "owl"], 8))
    ls.scan(features, detector=ls.KNN(), out=tmp_path / "run")
    ls.scan_tags(tagged, tiny_clip, detector=Odd(), out=tmp_path / "run", overwrite=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*TAG_FILES} - {"report.html"}
    ls.scan(features, detector=ls.KNN(), out=tmp_path / "run", overwrite=True)
    assert IMAGES not in {path.name for path in (tmp_path / "run").iterdir()}
    assert len(Verdicts.load(tmp_path / "run")) == 32


def test_what_goes_with_a_scan(tagged: ls.TaggedImages, tiny_clip: VisionLanguageModel, drawn_folder: Path) -> None:
    with pytest.raises(SettingsError, match="expected images from load_tags"):
        ls.scan_tags(ls.load_images(drawn_folder), tiny_clip)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="expected a detector of tags"):
        ls.scan_tags(tagged, tiny_clip, detector=ls.Joint())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="images need a model"):
        ls.scan_tags(tagged)


def test_the_report_shows_pairs_and_escapes_what_users_write(
    tagged: ls.TaggedImages, tiny_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    images = dataclasses.replace(tagged, class_names=("<b>x</b>", *tagged.class_names[1:]), origin={})
    verdicts = ls.scan_tags(images, tiny_clip, detector=Odd())
    page = write_tag_report(verdicts, images, tmp_path / "report.html", max_images=2).read_text(encoding="utf-8")
    assert "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    assert page.count("<article") == 4 and page.count("data:image") == 4, "two of each kind"
    assert "Tags that look wrong" in page and "Tags that look missing" in page and "03.png" in page
    assert "1&nbsp;image could not be read and has no verdict.</p>" in page
    with pytest.raises(RunError, match="expected the 16 images of the run, got 4"):
        write_tag_report(verdicts, images.take(np.arange(4)), tmp_path / "report.html")


# --------------------------------------------------------------------------------------------------- the command line


def test_a_run_in_the_current_folder(
    tagged: ls.TaggedImages, tiny_clip: VisionLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = ls.scan_tags(tagged, tiny_clip, detector=Odd())
    (tmp_path / "my run").mkdir()
    monkeypatch.chdir(tmp_path / "my run")
    out = io.StringIO()
    summarize_tags(dataclasses.replace(verdicts, record={**verdicts.record, "out": "."}), Console(file=out, width=400))
    assert f"labelsieve export . --format csv --out '{tmp_path}/my run-corrected.csv'" in out.getvalue()


def test_scan_report_and_export_from_the_command_line(tagged: ls.TaggedImages, run: Run, tmp_path: Path) -> None:
    source, out = tagged.origin["source"], tmp_path / "run"
    code, said, error = run("scan-tags", source, "--truth-column", "true", "--model", MINI_CLIP, "--out", out)
    assert code == 0, error
    assert "1 unreadable" in said and "Against the truth" in said and "report.html" in said
    assert {path.name for path in out.iterdir()} == {*TAG_FILES}
    for limit, words in ((500, ()), (1, ("--max-images", "1")), (5000, ("--max-images", "5000"))):
        code, said, error = run("report", out, *words)
        assert code == 0 and f"at most {limit:,} pairs of each kind" in said, error
    code, said, error = run("export", out, "--format", "csv", "--out", tmp_path / "new.csv")
    assert code == 0 and 'separated by ";"' in said, error
    verdicts = TagVerdicts.load(out)
    again = ls.load_tags(
        tmp_path / "new.csv", image_column="id", image_folder=Path(source).parent, class_names=verdicts.class_names
    )
    assert np.array_equal(again.tags, verdicts.corrected()), "what is exported is read again"
    (out / "reviews.jsonl").write_text("of a run with one label per image that was here before")
    (tmp_path / "marks.csv").write_text(f"id,class_name,mark\n00.png,{verdicts.class_names[0]},present\n")
    marked = ("--marks", tmp_path / "marks.csv", "--out", tmp_path / "marked.parquet")
    code, said, error = run("export", out, "--format", "parquet", *marked)
    assert code == 0 and "1 mark in" in said, error
    assert verdicts.class_names[0] in pq.read_table(tmp_path / "marked.parquet")["tags"].to_pylist()[0]
    code, _, error = run("export", out, "--format", "parquet", "--out", out / IMAGES, "--overwrite")
    assert code == 2 and "no file of the run itself" in error
    code, _, error = run("export", out, "--format", "parquet", "--out", tmp_path / "new.parquet", "--drop-at", "0.5")
    assert code == 1 and "--drop-at does not go with a run of labelsieve scan-tags" in error
    code, _, error = run("export", out, "--format", "parquet", "--out", tmp_path / "new.parquet")
    assert code == 0, error
    assert pq.read_table(tmp_path / "new.parquet")["given_tags"].to_pylist()[1] == []


OTHERS = {
    "review": ("review", "RUN"),
    "status": ("status", "RUN"),
    "audit": ("audit", "RUN"),
    "apply": ("apply", "RUN", "--out", "OUT"),
    "compare": ("compare", "RUN", "RUN"),
}


@pytest.mark.parametrize("verb", mostly_slow(OTHERS, quick=("review", "audit")))
def test_other_verbs_refuse_a_run_of_tags(
    verb: str, tagged: ls.TaggedImages, tiny_clip: VisionLanguageModel, run: Run, tmp_path: Path
) -> None:
    places = {"RUN": tmp_path / "run", "OUT": tmp_path / "new"}
    ls.scan_tags(tagged, tiny_clip, detector=Odd(), out=places["RUN"])
    code, _, error = run(*(places.get(word, word) for word in OTHERS[verb]))
    assert code == 1 and error.count("\n") == 1 and "is a run of labelsieve scan-tags" in error
    assert not places["OUT"].exists() or not any(places["OUT"].iterdir())


def test_what_the_command_line_refuses(tagged: ls.TaggedImages, run: Run, tmp_path: Path) -> None:
    source, out = tagged.origin["source"], tmp_path / "run"
    for words, message in (
        (("scan-tags", source, "--out", out, "--detector", "jiont"), 'did you mean "joint"'),
        (("scan-tags", source, "--out", out, "--tag-column", "true", "--separator", ";"), "has one label"),
        (("scan-tags", "--tag-column", "nothing", source, "--out", out), 'expected a column "nothing"'),
        (("noise", source, "--kind", "tags", "--out", "x.parquet"), "expected --omit or --add above 0"),
        (
            ("noise", source, "--kind", "tags", "--rate", "0.1", "--out", "x.parquet"),
            f"--rate goes with --kind {' or '.join(kinds_for(tags=False))} only",
        ),
        (
            ("noise", source, "--kind", "pair", "--rate", "0.1", "--omit", "0.1", "--out", "x.parquet"),
            "--omit goes with --kind tags only",
        ),
        (("noise", source, "--kind", "pair", "--out", "x.parquet"), "missing --rate"),
    ):
        code, _, error = run(*words)
        assert code in (1, 2) and error.count("\n") == 1 and message in error
    assert not out.exists() or not any(out.iterdir())


# --------------------------------------------------------------------------------------------------------------- noise


def test_noise_of_tags_in_a_file_gives_the_same_data(photos: Path, run: Run, tmp_path: Path) -> None:
    source, out = parquet(photos, tags=TAGS), tmp_path / "noise.parquet"
    noise = ("noise", source, "--kind", "tags", "--omit", "0.5", "--add", "0.5", "--seed", "3")
    code, said, error = run(*noise, "--labels-only", "--out", out)
    assert (
        code == 0 and "of 4 tags 2 left out and 2 added with seed 3" in said and "scan-tags SOURCE --noise" in said
    ), error
    images = ls.load_tags(source, noise=out)
    assert images.truth is not None and images.truth.tolist() == BITS
    assert (images.truth & ~images.tags).sum() == (images.tags & ~images.truth).sum() == 2
    part = ls.load_tags(source, noise=out, limit=2)
    assert np.array_equal(part.tags, images.tags[[images.ids.index(each) for each in part.ids]])
    code, _, error = run(*noise, "--out", tmp_path / "whole.parquet")
    assert code == 0, error
    whole = ls.load_tags(tmp_path / "whole.parquet", truth_column="clean_tags")
    assert np.array_equal(whole.tags, images.tags) and np.array_equal(whole.contents, images.contents)
    about = json.loads(pq.read_schema(out).metadata[METADATA])
    assert (about["omitted"], about["added"], about["noise"]["seed"]) == (2, 2, 3)


def test_noise_of_other_images_is_refused(photos: Path, tmp_path: Path) -> None:
    images = ls.load_tags(parquet(photos, tags=TAGS))
    noisy = images.with_tags(~images.tags, truth=images.tags)
    path = write_noise(
        noisy, tmp_path / "noise.parquet", parameters={"omit": 1, "add": 1, "seed": 0}, with_images=False
    )
    assert np.array_equal(read_noise(path, tags=True).given, noisy.tags)
    with pytest.raises(DataError, match=r"the tags of .* are others there"):
        apply_noise(noisy, path)
    with pytest.raises(DataError, match='it has no class "fox"'):
        apply_noise(dataclasses.replace(images, class_names=("cat", "fox")), path)
    with pytest.raises(DataError, match='it has no image "elsewhere"'):
        apply_noise(dataclasses.replace(images, ids=("elsewhere", *images.ids[1:])), path)
    with pytest.raises(DataError, match="is no file of noise of tags"):
        ls.load_tags(parquet(photos, tags=TAGS), noise=photos / "tags.parquet")
    with pytest.raises(SettingsError, match="leave out the truth column"):
        ls.load_tags(parquet(photos, tags=TAGS), noise=path, truth_column="tags")


@pytest.mark.slow
def test_a_run_that_was_stopped_at_its_report_gets_it(tagged: ls.TaggedImages, run: Run, tmp_path: Path) -> None:
    words = ("scan-tags", tagged.origin["source"], "--model", MINI_CLIP, "--out", tmp_path / "run")
    assert run(*words)[0] == 0
    code, _, error = run(*words)
    assert code == 1 and "already holds a finished run" in error
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "checkpoint").mkdir()
    code, _, error = run(*words, "--resume", "--seed", "1")
    assert code == 1 and "holds a finished run of other data or settings" in error
    code, said, error = run(*words, "--resume")
    assert code == 0 and "loading" not in said and (tmp_path / "run" / "report.html").is_file(), error
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_one_label_an_image_says_where_several_are_read(written: Callable[[str], Path], photos: Path) -> None:
    images = ls.load_images(written("path,label\n0,black;white\n1,cat\n2,red;blue\n3,dog"))
    assert not any("scan-tags" in note for note in images.notes), "names that are no combinations"
    images = ls.load_images(written("path,label\n0,cat;dog\n1,cat\n2,dog;cat\n3,dog"))
    assert any("for several labels per image use: labelsieve scan-tags" in note for note in images.notes)
    with pytest.raises(DataError, match="for several use: labelsieve scan-tags"):
        ls.load_images(parquet(photos, label=TAGS))
