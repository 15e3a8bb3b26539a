"""Boxes as images: what is cut out, how often an image is decoded, and boxes upon one another."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

import labelsieve as ls
from labelsieve.core.errors import DataError, SettingsError
from labelsieve.curation.same_boxes import conflicting_boxes, overlaps
from labelsieve.data import images as images_module
from labelsieve.data.boxes import Boxes
from labelsieve.data.images import UnreadableImageError


def boxes_at(*sides: tuple[float, ...], images: list[int] | None = None, **settings: object) -> Boxes:
    numbers = np.array(images or [0] * len(sides), dtype=np.int64)
    return Boxes(sides=np.array(sides, dtype=np.float64), image_of=numbers, **settings)  # type: ignore[arg-type]


def write_coco(folder: Path, boxes: list[tuple[int, list[float], int]], *, size: tuple[int, int] = (60, 40)) -> Path:
    """Writes images whose pixels say where they are, and (image, box, category) as a COCO file."""
    (folder / "images").mkdir(parents=True)
    numbers = sorted({image for image, _, _ in boxes})
    for number in numbers:
        across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        pixels = np.stack([across, down, np.full_like(across, number)], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    found = {
        "images": [{"id": each, "file_name": f"{each}.png", "width": size[0], "height": size[1]} for each in numbers],
        "annotations": [
            {"id": 100 + row, "image_id": image, "category_id": category, "bbox": box}
            for row, (image, box, category) in enumerate(boxes)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(found))
    return path


def test_each_row_is_what_its_box_shows(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [(0, [10, 5, 20, 10], 7), (4, [0, 0, 10, 10], 3), (0, [50, 30, 30, 30], 3)])
    images = ls.load_images(path, box_margin=0)

    assert images.ids == ("100", "101", "102")
    assert images.class_names == ("dog", "cat")  # in the order of their ids
    assert images.labels.tolist() == [1, 0, 0]
    first = np.asarray(images.open(0))
    assert first.shape == (10, 20, 3)
    assert first[0, 0].tolist() == [10, 5, 0]
    assert first[-1, -1].tolist() == [29, 14, 0]
    assert np.asarray(images.open(1))[0, 0].tolist() == [0, 0, 4]
    assert images.open(2).size == (10, 10)  # what lies beyond the image is left out
    assert images.full_image(2).size == (60, 40)


def test_the_margin_is_a_share_of_the_sides(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [(0, [20, 10, 20, 10], 7), (0, [0, 0, 10, 10], 3)])

    assert np.asarray(ls.load_images(path).open(0)).shape == (12, 24, 3)  # a tenth
    wide = ls.load_images(path, box_margin=0.5)
    assert np.asarray(wide.open(0))[0, 0].tolist() == [10, 5, 0]
    assert wide.open(1).size == (15, 15)
    assert wide.pixels_fingerprint != ls.load_images(path).pixels_fingerprint
    assert wide.fingerprint == ls.load_images(path).fingerprint  # the labels belong to the same boxes
    # test images are cut out like those of the run, whose accuracy is that on other crops else
    assert ls.load_images(path).read_like(wide).open(1).size == (15, 15)
    assert wide.origin["box_margin"] == 0.5


def test_coordinates_are_those_of_the_upright_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    image = Image.new("RGB", (40, 20), "white")
    image.paste((255, 0, 0), (0, 0, 10, 20))  # turned right it is at the top
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "images" / "a.png", exif=exif)
    table = tmp_path / "boxes.csv"
    table.write_text("path,x,y,width,height,label\nimages/a.png,0,0,20,10,red\nimages/a.png,0,10,20,30,white\n")
    images = ls.load_images(table, box_margin=0)

    assert images.full_image(0).size == (20, 40)
    assert np.unique(np.asarray(images.open(0)).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]
    assert np.unique(np.asarray(images.open(1)).reshape(-1, 3), axis=0).tolist() == [[255, 255, 255]]


@pytest.mark.parametrize(
    ("sides", "reason"),
    [
        ((70.0, 0.0, 10.0, 10.0), "outside of its image of 60 x 40 pixels"),
        ((5.0, 5.0, 0.0, 10.0), "no area: 0 x 10"),
        ((5.0, 5.0, 10.0, -1.0), "no area: 10 x -1"),
        ((5.0, 5.0, 1.5, 10.0), "smaller than 2 pixels: 1.5 x 10.0"),
        ((float("nan"), 5.0, 10.0, 10.0), "no numbers"),
    ],
)
def test_a_box_that_shows_nothing_is_a_row_with_a_reason(tmp_path: Path, sides: tuple[float, ...], reason: str) -> None:
    path = write_coco(tmp_path, [(0, list(sides), 7), (0, [0, 0, 10, 10], 3)])
    images = ls.load_images(path)

    with pytest.raises(UnreadableImageError, match=f"^100: the box .*{reason}"):
        images.open(0)
    assert images.open(1).size == (11, 11)


def test_the_shares_of_an_image_are_made_pixels() -> None:
    boxes = boxes_at((0.25, 0.5, 0.5, 0.25), is_relative=True, margin=0.0)

    assert boxes.area(0, size=(40, 80)) == (10, 40, 30, 60)


@pytest.mark.slow
def test_an_image_is_decoded_once_for_all_its_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelsieve.core.engine import make_engine
    from labelsieve.demo import MINI_CLIP
    from labelsieve.vlm.features import extract

    places = [[10.0 * (row % 5), 5.0 * (row % 4), 12.0, 9.0] for row in range(40)]
    path = write_coco(tmp_path, [(row % 4, place, 7) for row, place in enumerate(places)] + [(0, [0, 0, 9, 9], 3)])
    images, decoded = ls.load_images(path), []
    decode = images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda *args: decoded.append(1) or decode(*args))  # type: ignore[func-returns-value]
    engine = make_engine(device="cpu", precision="fp32", seed=0)
    extract(images, ls.load_vlm(MINI_CLIP), tmp_path / "features", engine, 16)

    assert len(decoded) == 4
    features = np.load(tmp_path / "features.npy")
    assert (np.abs(features).sum(axis=1) > 0).all()
    alone = images.take(np.array([17]))
    extract(alone, ls.load_vlm(MINI_CLIP), tmp_path / "alone", engine, 16)
    np.testing.assert_allclose(np.load(tmp_path / "alone.npy")[0], features[17], atol=1e-5)


@given(images=st.lists(st.integers(0, 5), min_size=1, max_size=60), size=st.integers(1, 9))
def test_batches_hold_all_rows_and_cut_an_image_only_where_they_must(images: list[int], size: int) -> None:
    boxes = boxes_at(*[(0.0, 0.0, 5.0, 5.0)] * len(images), images=images)
    rows = boxes.by_image(np.arange(len(images)))
    batches = boxes.in_batches(rows, size)

    assert sorted(np.concatenate(batches).tolist()) == list(range(len(images)))
    assert all(0 < len(batch) <= size for batch in batches)
    for image in set(images):
        holding = sum(image in boxes.image_of[batch] for batch in batches)
        assert holding == 1 or images.count(image) > size


def test_tables_with_columns_of_boxes(tmp_path: Path) -> None:
    write_coco(tmp_path, [(0, [0, 0, 10, 10], 7), (1, [0, 0, 10, 10], 7)])
    table = tmp_path / "boxes.csv"
    table.write_text(
        "path,x,y,width,height,label\nimages/0.png,10,5,20,10,cat\nimages/1.png,,5,20,10,dog\nimages/0.png,0,0,9,9,dog\n"
    )
    images = ls.load_images(table)

    assert images.ids == ("0000000", "0000001", "0000002")
    assert images.boxes is not None
    assert images.boxes.image_of.tolist() == [0, 1, 0]
    with pytest.raises(UnreadableImageError, match="no numbers"):
        images.open(1)
    table.write_text("path,x,y,width,height,label\nimages/0.png,left,5,20,10,cat\nimages/1.png,1,5,20,10,dog\n")
    with pytest.raises(DataError, match=r'numbers in the column "x" of .*boxes\.csv.* found "left" in row 1'):
        ls.load_images(table)


@pytest.mark.parametrize("names", ["xmin,ymin,xmax,ymax", "x1,y1,x2,y2", "Left,Top,Right,Bottom", "x,y,width,z"])
def test_a_table_of_half_a_box_or_of_corners_is_no_table_of_images(tmp_path: Path, names: str) -> None:
    write_coco(tmp_path, [(0, [0, 0, 10, 10], 7)])
    table = tmp_path / "boxes.csv"
    table.write_text(f"path,{names},label\nimages/0.png,10,5,20,10,cat\nimages/1.png,1,5,20,10,dog\n")
    with pytest.raises(DataError, match="expected boxes as columns x, y, width and height"):
        ls.load_images(table)


def test_a_margin_needs_boxes_and_has_a_range(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [(0, [0, 0, 10, 10], 7), (0, [0, 0, 10, 10], 3)])
    with pytest.raises(SettingsError, match="box_margin"):
        ls.load_images(path, box_margin=-0.1)
    pixels = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(SettingsError, match="box_margin goes with boxes only"):
        ls.load_images(pixels, labels=["cat", "dog"], box_margin=0.2)


def test_a_margin_without_boxes_is_refused_before_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelsieve.data.loading.hash_images", lambda *_args, **_options: pytest.fail("read"))
    with pytest.raises(SettingsError, match="box_margin goes with boxes only"):
        ls.load_images(np.zeros((2, 8, 8), dtype=np.uint8), labels=["cat", "dog"], box_margin=0.2)


def test_boxes_of_equal_images_have_equal_contents_and_those_at_one_place_do_not(tmp_path: Path) -> None:
    boxes = [([0.0, 0, 10, 10], 7), ([0.0, 0, 10, 10], 3), ([1.0, 0, 10, 10], 7)]
    path = write_coco(tmp_path, [(image, *each) for image in (0, 1) for each in boxes])
    (tmp_path / "images" / "1.png").write_bytes((tmp_path / "images" / "0.png").read_bytes())
    contents = ls.load_images(path).contents.tolist()
    assert contents[:3] == contents[3:] and len({*contents}) == 3, "an answer to one is none to the other at its place"


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2), min_size=1, max_size=8))
def test_overlaps_count_the_pixels_in_common(sides: list[tuple[int, int, int, int]]) -> None:
    masks = np.zeros((len(sides), 40, 40), dtype=bool)
    for mask, (left, top, width, height) in zip(masks, sides, strict=True):
        mask[top : top + height, left : left + width] = True
    both = (masks[:, None] & masks).sum(axis=(2, 3))
    either = (masks[:, None] | masks).sum(axis=(2, 3))
    values = np.array(sides, dtype=np.float64)

    np.testing.assert_allclose(overlaps(values, values), both / either)


def test_boxes_upon_one_another_are_found_within_an_image_only() -> None:
    same = (0.0, 0.0, 100.0, 100.0)
    boxes = boxes_at(same, same, same, (0, 0, 100, 80), images=[0, 1, 0, 0])
    found = conflicting_boxes(boxes, np.array([0, 1, 1, 1]), rows=np.arange(4))

    assert found.rows.tolist() == [0, 2]
    assert found.others.tolist() == [2, 0]
    none = conflicting_boxes(boxes, np.array([0, 1, 0, 0]), rows=np.arange(4))
    assert len(none.rows) == 0


@pytest.mark.slow
def test_five_thousand_boxes_in_one_image_are_compared() -> None:
    rng = np.random.default_rng(0)
    sides = np.concatenate([rng.uniform(0, 4000, (5000, 2)), rng.uniform(5, 50, (5000, 2))], axis=1)
    sides[4321] = sides[17]
    labels = rng.integers(3, size=5000)
    labels[[17, 4321]] = 0, 1
    found = conflicting_boxes(boxes_at(*map(tuple, sides)), labels, rows=np.arange(5000))

    assert {17, 4321} <= set(found.rows.tolist())
