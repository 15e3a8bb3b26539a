"""Small data sets of boxes, one a format, with two images of four boxes and odd ways to write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from small_pictures import plain

SIDE = 100
NAMES = ("cat", "dog", "owl")
# Image, class, left, top, width and height in pixels.
BOXES = (
    ("a", 0, 10, 10, 40, 30), ("a", 1, 50, 50, 30, 40), ("b", 2, 0, 0, 50, 50), ("b", 0, 40, 20, 20, 60),
    ("b", 1, 60, 60, 40, 40), ("a", 2, 5, 60, 30, 30), ("a", 0, 20, 30, 20, 20), ("b", 1, 10, 70, 30, 20),
)  # fmt: skip


def images_in(folder: Path, *, suffix: str = ".png") -> None:
    """Writes the two images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, color in (("a", "red"), ("b", "blue")):
        (folder / f"{name}{suffix}").write_bytes(plain(color, size=(SIDE, SIDE)))


def coco(**more: Any) -> dict[str, Any]:
    """Returns a COCO document."""
    annotations = [
        {
            "id": 10 + row,
            "image_id": "ab".index(image),
            "category_id": 3 * label + 1,
            "bbox": box,
            "attributes": {"category_id": 99},
        }
        for row, (image, label, *box) in enumerate(BOXES)
    ]
    return {
        "info": {"description": "köln"},
        "images": [{"id": index, "file_name": f"{name}.png"} for index, name in enumerate("ab")],
        "annotations": annotations,
        "categories": [{"id": 3 * index + 1, "name": name} for index, name in enumerate(NAMES)],
        **more,
    }


def make_coco(root: Path, **more: Any) -> Path:
    """Writes a COCO file and its images, and returns the file."""
    images_in(root / "images")
    path = root / "boxes.json"
    path.write_text(json.dumps(coco(**more), indent=1), encoding="utf-8")
    return path


def make_yolo(root: Path, *, config: str = "", names: str = "[cat, dog, owl]") -> Path:
    """Writes a YOLO data set, and returns its folder."""
    images_in(root / "images" / "train")
    labels = root / "labels" / "train"
    labels.mkdir(parents=True)
    for name in "ab":
        lines = [
            f"{label} {(x + w / 2) / SIDE:g} {(y + h / 2) / SIDE:g}  {w / SIDE:g} {h / SIDE:g}"
            for image, label, x, y, w, h in BOXES
            if image == name
        ]
        # with Windows line ends, a blank line and blanks behind a line; the second without an end of the last line
        (labels / f"{name}.txt").write_bytes(("\r\n\r\n".join(lines) + " \r\n" * (name == "a")).encode())
    (root / "data.yaml").write_text(config or f"path: .\ntrain: images/train\nval: images/val\nnames: {names}\n")
    return root


def voc_xml(name: str, boxes: list[tuple[Any, ...]]) -> str:
    """Returns the XML file of one image."""
    objects = "".join(
        f"  <object>\n    <part><name>head</name></part>\n    <name> {NAMES[label]} </name>\n"
        f"    <bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>\n<ymax>{y + h}</ymax></bndbox>\n"
        "  </object>  \n"
        for _, label, x, y, w, h in boxes
    )
    return f"<annotation>\n  <filename>{name}.png</filename><!-- name -->\n{objects}</annotation>"


def make_voc(root: Path) -> Path:
    """Writes a VOC data set, and returns its folder."""
    images_in(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for name in "ab":
        text = voc_xml(name, [box for box in BOXES if box[0] == name])
        (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8", newline="")
    return root


def make_open_images(root: Path) -> Path:
    """Writes a CSV file of Open Images with its images, and returns the file."""
    images_in(root / "train", suffix=".jpg")
    rows = [
        f'{image},xclick,/m/{label},1,{x / SIDE},{(x + w) / SIDE},{y / SIDE},"{(y + h) / SIDE}",0'
        for image, label, x, y, w, h in BOXES
    ]
    path = root / "train-annotations-bbox.csv"
    head = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf"
    path.write_text("\n".join([head, *rows]), encoding="utf-8")
    (root / "class-descriptions-boxable.csv").write_text("".join(f"/m/{i},{name}\n" for i, name in enumerate(NAMES)))
    return path


MAKERS = {"coco": make_coco, "yolo": make_yolo, "voc": make_voc, "open_images": make_open_images}
"""What makes a data set of each format."""
