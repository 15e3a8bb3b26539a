"""Exports for annotation tools: Label Studio, FiftyOne, CVAT and COCO, each a folder with images and annotations.

The label of an image is the one from the reviewers, else the given label. An image that was reviewed as wrong, without
a known right label, has no annotation, so that it can be labelled.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from labelsieve.core.errors import SettingsError
from labelsieve.core.files import write_json, write_text
from labelsieve.core.text import clean
from labelsieve.data.images import LabelledImages, UnreadableImageError
from labelsieve.report.exports.folder import export_folder, write_images, write_marker
from labelsieve.report.exports.registry import ExportRequest
from labelsieve.review.row_reviews import Reviewed

Card = dict[str, Any]
"""The data of one image in an export, see :func:`_cards`."""


@contextmanager
def _exported_images(
    request: ExportRequest, *, image_folder: str = "images", has_sizes: bool = False
) -> Iterator[tuple[list[Card], Path]]:
    """Writes a folder with all readable images, most suspicious first, without those that reviewers left out.

    Args:
        request: The export.
        image_folder: Folder of the images in it.
        has_sizes: Whether the cards have the size of each image, for which it is decoded.

    Yields:
        A card for each image, and the temporary folder, for the annotations.

    Raises:
        SettingsError: The images are boxes.
        RunError: `out` exists or cannot be written, or the images are not those of the verdicts.
        DataError: An image file is missing.
    """
    reviewed, images = request.reviewed, request.images
    if images.boxes is not None:
        raise SettingsError(
            f"format {request.format.name} holds labels of whole images, no boxes; use --format annotations"
        )
    with export_folder(request) as part:
        rows = np.flatnonzero(reviewed.verdicts.is_readable & ~reviewed.is_dropped)
        order = rows[np.argsort(np.asarray(reviewed.after.table["rank"].to_pylist())[rows].astype(np.int64))].tolist()
        paths = write_images(request, part, dict.fromkeys(order, image_folder), by_stem=True)
        cards = _cards(reviewed, images, paths)
        if has_sizes:
            for row, card in zip(paths, cards, strict=True):
                card["size"] = _size(images, row)
        yield cards, part
        write_marker(reviewed.verdicts, part, count=len(paths), class_of_folder={})


def _cards(reviewed: Reviewed, images: LabelledImages, paths: Mapping[int, str]) -> list[Card]:
    """Returns for each image its path, id, given, suggested and final label (None: not known), p_clean and flag."""
    verdicts, ranked, labels, marks = reviewed.verdicts, reviewed.after, reviewed.labels, reviewed.marks
    names, cards = verdicts.class_names, []
    for row, path in paths.items():
        is_open = marks[row] == "wrong" and not reviewed.is_corrected[row]
        cards.append(
            {
                "path": path,
                "id": images.ids[row],
                "given_label": names[verdicts.given[row]],
                "suggested_label": names[ranked.predicted[row]],
                "confidence": float(ranked.table["predicted_confidence"][row].as_py()),
                "label": None if is_open else names[labels[row]],
                "reviewed": str(marks[row]) or None,
                "p_clean": float(ranked.label_quality[row]),
                "flagged": bool(ranked.is_issue[row]),
            }
        )
    return cards


def _size(images: LabelledImages, row: int) -> tuple[int, int]:
    """Returns width and height, (0, 0) if the image cannot be read any more."""
    try:
        return images.open(row).size
    except UnreadableImageError:
        return 0, 0


def write_label_studio(request: ExportRequest) -> None:
    """Writes `tasks.json`, with the suggestion as prediction and a review as annotation, and `config.xml`."""
    with _exported_images(request) as (cards, part):
        tasks = []
        for card in cards:
            data = {name: card[name] for name in ("id", "given_label", "p_clean", "flagged")}
            image = f"/data/local-files/?d={quote(request.out.name + '/' + card['path'])}"
            suggestion = {
                "model_version": "labelsieve",
                "score": card["confidence"],
                "result": _choice(card["suggested_label"]),
            }
            task: Card = {"data": {"image": image, **data}, "predictions": [suggestion]}
            if _is_decided(card) and card["label"] is not None:
                task["annotations"] = [{"result": _choice(card["label"])}]
            tasks.append(task)
        write_json(part / "tasks.json", tasks)
        view = ET.Element("View")
        ET.SubElement(view, "Image", name="image", value="$image")
        ET.SubElement(view, "Header", value="Given label: $given_label")
        choices = ET.SubElement(view, "Choices", name="label", toName="image", choice="single", showInLine="true")
        for name in request.verdicts.class_names:
            ET.SubElement(choices, "Choice", value=clean(name))
        # without an XML declaration: Label Studio parses a text, which must not declare an encoding
        write_text(part / "config.xml", _xml(view))


def _is_decided(card: Card) -> bool:
    """Returns whether reviewers decided if the given label is right."""
    return card["reviewed"] in ("right", "wrong")


def _choice(label: str) -> list[Card]:
    return [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [clean(label)]}}]


def write_fiftyone(request: ExportRequest) -> None:
    """Writes `labels.json` of FiftyOne's image classification data set."""
    with _exported_images(request, image_folder="data") as (cards, part):
        index = {name: number for number, name in enumerate(request.verdicts.class_names)}
        labels = {}
        for card in cards:
            if card["label"] is not None:
                names = ("given_label", "suggested_label", "p_clean", "flagged", "reviewed")
                labels[Path(card["path"]).stem] = {
                    "label": index[card["label"]],
                    # FiftyOne reserves `id`
                    "attributes": {"source_id": card["id"], **{name: card[name] for name in names}},
                }
        write_json(part / "labels.json", {"classes": request.verdicts.class_names, "labels": labels})


def write_cvat(request: ExportRequest) -> None:
    """Writes `annotations.xml` of "CVAT for images 1.1"."""
    with _exported_images(request, has_sizes=True) as (cards, part):
        root = ET.Element("annotations")
        ET.SubElement(root, "version").text = "1.1"
        task = ET.SubElement(ET.SubElement(root, "meta"), "task")
        for name, value in (("name", clean(request.out.name)), ("size", str(len(cards))), ("mode", "annotation")):
            ET.SubElement(task, name).text = value
        labels = ET.SubElement(task, "labels")
        for class_name in request.verdicts.class_names:
            label = ET.SubElement(labels, "label")
            for name, value in (("name", clean(class_name)), ("type", "tag")):
                ET.SubElement(label, name).text = value
            ET.SubElement(label, "attributes")
        for number, card in enumerate(cards):
            width, height = map(str, card["size"])
            name = clean(Path(card["path"]).name)
            image = ET.SubElement(root, "image", id=str(number), name=name, width=width, height=height)
            if card["label"] is not None:
                source = "manual" if _is_decided(card) else "file"
                ET.SubElement(image, "tag", label=clean(card["label"]), source=source)
        write_text(part / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{_xml(root)}')


def write_coco(request: ExportRequest) -> None:
    """Writes `annotations.json`: an annotation of a whole image has a category and no box."""
    with _exported_images(request, has_sizes=True) as (cards, part):
        category_ids = {name: number for number, name in enumerate(request.verdicts.class_names, start=1)}
        attributes = ("given_label", "suggested_label", "p_clean", "flagged", "reviewed")
        content = {
            "info": {"description": "labels after labelsieve"},
            "licenses": [],
            "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in category_ids.items()],
            "images": [
                {
                    "id": number,
                    "file_name": Path(card["path"]).name,
                    "width": card["size"][0],
                    "height": card["size"][1],
                    "source_id": card["id"],
                }
                for number, card in enumerate(cards, start=1)
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": number,
                    "category_id": category_ids[card["label"]],
                    "attributes": {name: card[name] for name in attributes},
                }
                for number, card in enumerate(cards, start=1)
                if card["label"] is not None
            ],
        }
        write_json(part / "annotations.json", content)


def _xml(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
