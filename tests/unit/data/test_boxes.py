"""Boxes as images: the readers of each format, and what they say of files that are something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelsieve.core.errors import DataError
from labelsieve.data.box_formats.coco import box_of
from labelsieve.data.box_formats.registry import BOX_FORMATS
from labelsieve.data.images import LabelledImages, UnreadableImageError
from labelsieve.data.loading import load_images
from labelsieve.data.sources.readers import find_source
from small_boxes import BOXES, MAKERS, NAMES, SIDE, coco, images_in, make_coco, make_open_images, make_voc, make_yolo
from small_pictures import plain


def boxes_of(images: LabelledImages) -> set[tuple[Any, ...]]:
    """Returns image, class and pixels of each box, as `BOXES` has them."""
    assert images.boxes is not None
    found = set()
    for row in range(len(images)):
        left, top, right, bottom = images.boxes.in_pixels(row, size=(SIDE, SIDE))
        name = Path(images.dataset[row]["image"]["path"]).stem
        sides = tuple(round(value, 6) for value in (left, top, right - left, bottom - top))
        found.add((name, images.class_names[images.labels[row]], *sides))
    return found


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Changes a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def refused(source: Path, said: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        load_images(source, **options)
    assert said in str(caught.value) and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize("kind", BOX_FORMATS)
def test_a_data_set_of_each_format_is_read(tmp_path: Path, kind: str) -> None:
    source = MAKERS[kind](tmp_path)
    assert find_source(str(source)).kind == kind
    images = load_images(source)
    assert images.class_names == NAMES and len(set(images.ids)) == len(BOXES)
    assert boxes_of(images) == {(image, NAMES[label], *box) for image, label, *box in BOXES}
    assert images.open(0).size == (48, 36), "with a margin of a tenth on each side"
    assert "each row is a box: 8 boxes in 2 images" in images.notes


@pytest.mark.parametrize("kind", BOX_FORMATS)
def test_options_that_do_not_go_with_boxes_are_refused(tmp_path: Path, kind: str) -> None:
    source = MAKERS[kind](tmp_path)
    refused(source, 'whose images need no column, but "zz" was asked for', image_column="zz")
    refused(source, 'which have one label each, but "a", "b" were asked for', label_column=["a", "b"])


def test_ids_name_image_and_box(tmp_path: Path) -> None:
    assert load_images(make_voc(tmp_path / "voc")).ids[:2] == ("a#0", "a#1")
    assert load_images(make_yolo(tmp_path / "yolo")).ids[0] == "images/train/a#0"
    assert load_images(make_open_images(tmp_path / "open")).ids[2] == "b#0"
    assert load_images(make_coco(tmp_path / "coco")).ids[0] == "10"


# -------------------------------------------------------------------------------------------------------------- coco


def test_ids_that_are_there_twice_become_row_numbers(tmp_path: Path) -> None:
    path = edited(make_coco(tmp_path), lambda found: found["annotations"][1].update(id=10))
    images = load_images(path)
    assert images.ids[0] == "0000000" and any("gives no ids" in note for note in images.notes)


def test_boxes_beyond_their_image_are_cut_and_those_outside_have_a_reason(tmp_path: Path) -> None:
    sides = [[-20, -20, 50, 50], [200, 0, 10, 10], [5, 5, 0, 10], "x", [5, 5, 1, 1], [None, 0, 5, 5]]

    def change(found: dict[str, Any]) -> None:
        for each, box in zip(found["annotations"], sides, strict=False):
            each["bbox"] = box

    images = load_images(edited(make_coco(tmp_path), change))
    assert images.open(0).size == (33, 33)
    reasons = ["outside of its image of 100 x 100", "no area: 0 x 10", "no numbers", "smaller than 2", "no numbers"]
    for row, reason in enumerate(reasons, start=1):
        with pytest.raises(UnreadableImageError, match=reason):
            images.open(row)


NO_COCO: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda found: found.update(annotations=[]), "a COCO file with annotations in"),
    (lambda found: found.update(images=[]), "a COCO file with images in"),
    (lambda found: found.update(categories=[]), "expected categories with id and name"),
    (lambda found: found["annotations"][3].update(category_id=8), "found 8, which is none of 1, 4, 7"),
    (lambda found: found["categories"][1].update(name="cat"), 'the class "cat" is listed twice'),
    (
        lambda found: [each.pop("bbox") for each in found["annotations"]],
        "found none with numbers; for several labels",
    ),
    (
        lambda found: found.update(annotations=[{"id": 1, "image_id": 0, "caption": "a cat"}]),
        "expected annotations with a category_id in",
    ),
    (
        lambda found: found.update(annotations=[{"id": 1, "image_id": 0, "segments_info": []}]),
        "found those of panoptic segmentation",
    ),
    (
        lambda found: found["images"].append({**found["images"][1], "id": found["images"][0]["id"]}),
        "expected one file_name for each id in the images",
    ),
    (
        lambda found: found["categories"].append({"id": 1, "name": "zebra"}),
        "expected one name for each id in the categories",
    ),
    (lambda found: found["images"][0].pop("file_name"), 'expected "file_name" in each of the images'),
    (lambda found: found["images"][0].update(file_name="\ud800"), 'expected UTF-8 in "file_name" of the images'),
    (lambda found: found["annotations"][0].update(id="\ud800"), 'expected UTF-8 in "id" of the annotations'),
    (
        lambda found: found["annotations"][0].update(category_id=[1]),
        'expected one value in "category_id" of the annotations',
    ),
]


def test_a_coco_file_of_something_else_is_refused(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (change, said) in enumerate(NO_COCO):
        with subtests.test(said):
            refused(edited(make_coco(tmp_path / str(number)), change), said)


def test_a_json_file_that_is_cut_off_or_no_object_is_refused(tmp_path: Path) -> None:
    path = make_coco(tmp_path)
    text = path.read_text(encoding="utf-8")
    for length in (0, 1, 30, len(text) // 2, len(text) - 2):
        path.write_text(text[:length], encoding="utf-8")
        refused(path, "it is cut off")
    for more in (text, "}"):
        path.write_text(text + more, encoding="utf-8")
        refused(path, "cannot be read; check the file")
    path.write_text('[{"image_id": 1, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0.5}]')
    refused(path, "found a list of results of a model")
    path.write_text("1")
    refused(path, "expected a JSON object")
    for text in ("[1, 2]", '{"a": [1]}'):
        path.write_text(text)
        refused(path, "found neither; a table of images is not read from JSON: write it as Parquet")
    path.write_bytes(b"\xff\xfe{}")
    refused(path, "expected JSON in UTF-8")


def test_images_that_are_missing_or_not_listed_have_a_reason(tmp_path: Path) -> None:
    path = edited(make_coco(tmp_path), lambda found: found["annotations"][0].update(image_id=77))
    (tmp_path / "images" / "b.png").unlink()
    images = load_images(path)
    notes = " | ".join(images.notes)
    assert (
        "1 annotation names an image without an entry in images (first: 77)" in notes and "images are missing" in notes
    )
    with pytest.raises(UnreadableImageError):
        images.open(0)
    with pytest.raises(UnreadableImageError):
        images.open(2)
    assert images.open(1).size == (36, 48)


def test_an_image_of_thousands_of_boxes_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(found: dict[str, Any]) -> None:
        found["annotations"] = [{**found["annotations"][row % 2], "id": row} for row in range(5000)]

    images = load_images(edited(make_coco(tmp_path), change))
    decoded: list[int] = []
    decode = LabelledImages._decode

    def counted(self: LabelledImages, row: int) -> Any:
        decoded.append(row)
        return decode(self, row)

    monkeypatch.setattr(LabelledImages, "_decode", counted)
    sizes = {images.open(row).size for row in images.by_image(np.arange(5000)).tolist()}
    assert len(decoded) == 1 and sizes == {(48, 36), (36, 48)}


def mask_of(mask: Mapping[str, Any]) -> np.ndarray:
    """Decodes a mask as rleFrString and rleDecode of pycocotools do, number by number."""
    counts: list[int] = []
    text, at = mask["counts"], 0
    while isinstance(text, str) and at < len(text):
        value, place, more = 0, 0, True
        while more:
            code = ord(text[at]) - 48
            value |= (code & 31) << 5 * place
            more = bool(code & 32)
            at, place = at + 1, place + 1
            if not more and code & 16:
                value |= -1 << 5 * place
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    flat: list[int] = []
    for number, count in enumerate(counts if isinstance(text, str) else text):
        flat += [number % 2] * count
    return np.array(flat).reshape(mask["size"][::-1]).T


def encoded(mask: np.ndarray) -> str:
    """Encodes a mask as rleToString of pycocotools does."""
    flat, runs, last = mask.T.ravel().tolist(), [0], 0
    for value in flat:
        runs += [0] if value != last else []
        runs[-1] += 1
        last = value
    text = ""
    for number, run in enumerate(runs):
        value = run - (runs[number - 2] if number > 2 else 0)
        more = True
        while more:
            code, value = value & 31, value >> 5
            more = value != (-1 if code & 16 else 0)
            text += chr((code | 32 if more else code) + 48)
    return text


def test_the_box_of_a_mask_is_that_around_its_pixels() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        mask = np.zeros(rng.integers(1, 60, size=2), dtype=int)
        top, left = (int(rng.integers(side)) for side in mask.shape)
        part = mask[top : top + int(rng.integers(1, 40)), left : left + int(rng.integers(1, 40))]
        part[:] = rng.random(part.shape) < rng.choice([0.0, 0.05, 0.5, 1.0])
        rows, columns = np.nonzero(mask)
        compressed = {"size": [*mask.shape], "counts": encoded(mask)}
        assert (mask_of(compressed) == mask).all(), "the test itself"
        found = box_of({"segmentation": compressed, "iscrowd": 1})
        if len(rows):
            sides = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert found is not None and [*found] == sides
        else:
            assert found is not None and np.isnan(found).all()


def test_a_mask_takes_no_room_whatever_size_it_says() -> None:
    side = 2_000_000
    assert box_of({"segmentation": {"size": [side, side], "counts": [side + 5, 3, side**2 - side - 8]}}) == (1, 5, 1, 3)


def test_masks_that_make_no_sense_give_a_row_with_a_reason(tmp_path: Path) -> None:
    masks = [
        {"size": [4, 4], "counts": [3, 2]}, {"size": [4], "counts": [16]}, {"counts": "x"},
        {"size": [2, 2], "counts": "~"}, [[1, 2, 3]], [["a"]],
    ]  # fmt: skip

    def change(found: dict[str, Any]) -> None:
        for each, mask in zip(found["annotations"], masks, strict=False):
            del each["bbox"]
            each["segmentation"] = mask

    images = load_images(edited(make_coco(tmp_path), change))
    for row in range(len(masks)):
        with pytest.raises(UnreadableImageError, match="no numbers"):
            images.open(row)


# -------------------------------------------------------------------------------------------------------------- yolo


@pytest.mark.parametrize(
    "config",
    [
        "train: images/train\nnames:\n  0: cat\n  1: dog\n  2: owl\nnc: 3\n",
        "train: ../images/train\nnames: [cat, dog, owl]\n",
        "path: gone/from/here\ntrain: [images/train]\nnames: [cat, dog, owl]\n",
        "train: list.txt\nnames: [cat, dog, owl]\n",
        "path: ..\ntrain: set/images/train\nval: set/images/train\nnames: [cat, dog, owl]\n",
    ],
)
def test_ways_to_say_where_the_images_of_yolo_lie(tmp_path: Path, config: str) -> None:
    folder = make_yolo(tmp_path / "set", config=config)
    (folder / "list.txt").write_text("./images/train/a.png\nimages/train/b.png\n\n")
    for source in (folder, folder / "data.yaml"):
        assert boxes_of(load_images(source)) == {(image, NAMES[label], *box) for image, label, *box in BOXES}


def test_lines_of_yolo(tmp_path: Path) -> None:
    folder = make_yolo(tmp_path)
    file = folder / "labels" / "train" / "a.txt"
    file.write_text(
        "\ufeff\n2.0 .5 .5 .2 .2 0.93\n\t1 .1 .1 .5 .1 .5 .9\n0 .2 .2 .4 .2 .4 .4 .2 .4\n1 .1 .2 .3 .4 .5 .9 .99\n"
        "0 nan .5 .1 .1\n",
        encoding="utf-8",
    )
    (folder / "labels" / "train" / "b.txt").unlink()
    (folder / "images" / "train" / "c.png").write_bytes(plain("red"))
    (folder / "labels" / "train" / "c.txt").touch()
    images = load_images(folder)
    assert images.boxes is not None
    assert images.labels.tolist() == [2, 1, 0, 1, 0]
    boxes = [[40, 40, 60, 60], [10, 10, 50, 90], [20, 20, 40, 40], [10, 20, 50, 90]]
    for row, box in enumerate(boxes):
        assert images.boxes.in_pixels(row, size=(SIDE, SIDE)) == pytest.approx(box)
    with pytest.raises(UnreadableImageError, match="no numbers"):
        images.open(4)
    notes = " | ".join(images.notes)
    assert "1 image has no file of labels" in notes and "2 images have no boxes" in notes


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("3 .5 .5 .1 .1", "expected one of 3 classes in line 2 of"),
        ("-1 .5 .5 .1 .1", "found class -1"),
        ("cat .5 .5 .1 .1", "expected the number of a class, then x, y, width and height, in line 2 of"),
        ("1 .5 .5 .1", "found 1 .5 .5 .1; correct or remove it"),
        ("1.5 .5 .5 .1 .1", "in line 2 of"),
        ("inf .5 .5 .1 .1", "in line 2 of"),
    ],
)
def test_a_line_that_is_no_box_is_named(tmp_path: Path, line: str, said: str) -> None:
    folder = make_yolo(tmp_path)
    (folder / "labels" / "train" / "a.txt").write_text(f"0 .5 .5 .1 .1\n{line}\n")
    refused(folder, said)


NO_YOLO = [
    ("train: images/train\n", "expected a YOLO data set with names of classes"),
    ("- 1\n", "expected a YOLO data set with names of classes"),
    ("a: [\n", "expected YAML in"),
    ("names: [a]\n", "expected train, val or test in"),
    ("names: [a]\ntrain: nowhere\n", "which does not exist"),
    ("names: [a]\ntrain: labels\n", "expected images in train of"),
    ("names: cat\ntrain: images/train\n", "expected a list of classes"),
    ("names: [a, b]\nnc: 3\ntrain: images/train\n", "expected 3 names of classes"),
    ("names: [a, a, b]\ntrain: images/train\n", 'the class "a" is listed twice'),
    ("names: [a]\nkpt_shape: [17, 3]\ntrain: images/train\n", 'a data set for the task "key points"'),
    ("names: [a]\ntask: obb\ntrain: images/train\n", 'a data set for the task "obb"'),
    ("names: [a]\ntrain: {a: b}\n", 'expected folders or lists of images in "train"'),
]


def test_a_yaml_file_of_something_else_is_refused(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for number, (config, said) in enumerate(NO_YOLO):
        with subtests.test(config=config):
            refused(make_yolo(tmp_path / str(number), config=config), said)


def test_what_yolo_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = make_yolo(tmp_path)
    refused(folder, "has no truth_column", truth_column="true")
    refused(folder, 'expected a split "valid"', split="valid")
    refused(folder, "which does not exist", split="val")
    for name in "ab":
        (folder / "labels" / "train" / f"{name}.txt").write_text("0 .1 .1 .2 .1 .2 .2 .1 .2\n")
    refused(folder, "found four corners in all labels")
    for name in "ab":
        (folder / "labels" / "train" / f"{name}.txt").write_text("")
    refused(folder, "expected boxes in the data set")
    for name in "ab":
        (folder / "labels" / "train" / f"{name}.txt").unlink()
    refused(folder, "expected a file of labels such as")


def test_names_of_yaml_are_texts_as_they_stand_there(tmp_path: Path) -> None:
    assert load_images(make_yolo(tmp_path, names="[no, 1.10, ~]")).class_names == ("no", "1.10", "~")


# --------------------------------------------------------------------------------------------------------------- voc


def test_splits_of_voc_are_lists_of_all_classes(tmp_path: Path) -> None:
    folder = make_voc(tmp_path)
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\n")
    (lists / "val.txt").write_text("a\ngone\n")
    (lists / "cat_train.txt").write_text("a  1\n")
    assert load_images(folder).ids[0] == "b#0"
    images = load_images(folder, split="val")
    assert images.ids[0] == "a#0" and any("1 image of the split has no XML file: gone" in note for note in images.notes)
    refused(folder, 'expected a split "cat_train"', split="cat_train")
    (lists / "train.txt").write_text("gone\n")
    refused(folder, "none of the 1 images of the split train has an XML file")


def test_xml_files_beside_their_images(tmp_path: Path) -> None:
    make_voc(tmp_path / "voc")
    for file in [*(tmp_path / "voc").rglob("*.xml"), *(tmp_path / "voc").rglob("*.png")]:
        (tmp_path / "flat").mkdir(exist_ok=True)
        file.rename(tmp_path / "flat" / file.name.replace("a.png", "a.PNG"))
    images = load_images(tmp_path / "flat")
    assert len(images) == 8 and images.open(0).size == (48, 36), "the file of the name of the XML is taken"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "has a document type (DOCTYPE)"),
        ("<annotation>\n<object></annotation>", "mismatched tag, in line 2"),
        ("<annotations><image/></annotations>", "expected <annotation> in"),
        ("<annotation><object><bndbox/></object></annotation>", "expected <name> in each <object> of"),
        ("", "no element found"),
        ('<?xml version="1.0" encoding="x-none"?><annotation/>', "unknown encoding: x-none; save it as UTF-8"),
    ],
)
def test_an_xml_file_of_something_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    folder = make_voc(tmp_path)
    (folder / "Annotations" / "b.xml").write_text(text)
    refused(folder, said)


def test_objects_without_a_box_have_a_reason_and_those_of_no_file_an_error(tmp_path: Path) -> None:
    folder = make_voc(tmp_path)
    text = "<annotation><object><name>cat</name></object><object><name>cow</name></object></annotation>"
    (folder / "Annotations" / "b.xml").write_text(text)
    images = load_images(folder)
    assert images.class_names == ("cat", "cow", "dog", "owl")
    with pytest.raises(UnreadableImageError, match="no numbers"):
        images.open(len(images) - 1)
    for file in (folder / "Annotations").iterdir():
        file.write_text("<annotation/>")
    refused(folder, "expected boxes in the 2 XML files")


def test_a_folder_of_classes_with_an_xml_file_stays_one(photo_folder: Callable[..., Path]) -> None:
    folder = photo_folder({"cat": 2, "dog": 2})
    (folder / "info.xml").write_text("<annotations/>")
    assert find_source(str(folder)).kind == "folder"


# ------------------------------------------------------------------------------------------------------- open images


def test_classes_without_a_description_keep_their_codes(tmp_path: Path) -> None:
    path = make_open_images(tmp_path)
    names = tmp_path / "class-descriptions-boxable.csv"
    names.write_text("/m/0,cat\n/m/1,cat\n")
    images = load_images(path)
    assert images.class_names == ("/m/2", "cat (/m/0)", "cat (/m/1)")
    assert any(note.endswith("class-descriptions-boxable.csv, which has none of /m/2") for note in images.notes)
    names.unlink()
    images = load_images(path)
    assert images.class_names == ("/m/0", "/m/1", "/m/2")
    assert any("classes are named by their codes" in note for note in images.notes)


def test_open_images_in_another_folder_or_with_faults(tmp_path: Path) -> None:
    path = make_open_images(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    refused(path, 'were not found (first: "a.jpg"); say with image_folder where they lie')
    assert len(load_images(path, image_folder=tmp_path / "elsewhere")) == 8
    text = path.read_text()
    path.write_text(text.replace(",0.5,", ",half,"))
    refused(path, "expected numbers in the column", image_folder=tmp_path / "elsewhere")
    path.write_text(text.replace("/m/2", ""))
    refused(path, "expected a label in each row of the column", image_folder=tmp_path / "elsewhere")
    path.write_text(text.splitlines()[0])
    refused(path, "found no rows")
    path.write_text(text)
    (tmp_path / "train-2.csv").write_text(text)
    path.rename(tmp_path / "train-1.csv")
    with pytest.raises(DataError, match="are read from one file each"):
        load_images(str(tmp_path / "train-*.csv"))


# ------------------------------------------------------------------------------------------------------------ tables


def test_columns_of_boxes_make_each_row_one(tmp_path: Path) -> None:
    images_in(tmp_path)
    rows = [f"{image}.png,{NAMES[label]},{x},{y},{w},{h}" for image, label, x, y, w, h in BOXES]
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join(["path,label,x,y,width,height", *rows]))
    assert boxes_of(load_images(path)) == {(image, NAMES[label], *box) for image, label, *box in BOXES}
    assert "each row is a box: 8 boxes in 2 images" in load_images(path).notes
    assert len(coco()["annotations"]) == len(load_images(path))


def test_labels_of_yolo_whose_image_is_missing_are_rows_with_a_reason(tmp_path: Path) -> None:
    folder = make_yolo(tmp_path)
    (folder / "images" / "train" / "b.png").unlink()
    (folder / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    (folder / "labels" / "train" / "notes.txt").write_text("")
    images = load_images(folder)
    assert len(images) == len(BOXES), "nothing is lost"
    assert any("1 file of labels has no image (first: " in note for note in images.notes)
    gone = [row for row, name in enumerate(images.ids) if name.startswith("images/train/b#")]
    assert len(gone) == sum(image == "b" for image, *_ in BOXES)
    for row in gone:
        with pytest.raises(UnreadableImageError, match="No such file or directory") as caught:
            images.open(row)
        assert "b.jpg: " in str(caught.value), "ids of boxes do not name the file"


def test_labels_of_voc_that_lie_deeper_are_refused_as_they_cannot_be_written_back(tmp_path: Path) -> None:
    refused(make_voc(tmp_path), "expected an element of <object> itself as label_column", label_column="bndbox/xmin")


def test_two_xml_files_of_one_image_are_refused(tmp_path: Path) -> None:
    folder = make_voc(tmp_path)
    path = folder / "Annotations" / "b.xml"
    path.write_text(path.read_text(encoding="utf-8").replace("b.png", "a.png"), encoding="utf-8")
    refused(folder, "correct the <filename> of one of them")
