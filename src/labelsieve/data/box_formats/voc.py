"""Pascal VOC: a folder with one XML file per image, in `Annotations/` or beside the images.

Pixels are counted from 1, and the pixels of both corners belong to the box: "the top-left pixel in the image has
coordinates (1,1)" (development kit of VOC2012, section on annotations). Splits are the lists in `ImageSets/Main/`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, listed, setting, shown
from labelsieve.core.quantities import counted
from labelsieve.data.box_formats.rows import NO_BOX, BoxRows
from labelsieve.data.box_formats.voc_xml import Element, VocFile, VocObject, read_objects
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.edits import QUALITY, Splice, TextEdits, Written, spliced
from labelsieve.data.sources.file_kinds import SUFFIXES, is_image, listing, read_whole
from labelsieve.data.sources.splits import choose_split, refuse_split

NAME = "name"
_ANNOTATIONS = "Annotations"
_IMAGES = ("JPEGImages", "images", "Images", ".")
# Names of the lists of one class, such as `cat_train`.
_OF_CLASS = re.compile(r".+_(train|val|trainval|test)")
_ROOT = re.compile(rb"<annotation[\s/>]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Number of first bytes, and of XML files, that are read to detect the format.
_HEAD, _SAMPLE_SIZE = 4096, 3
_BLANKS = b" \t"


def is_voc(folder: Path) -> bool:
    """Returns whether a folder has annotations of VOC: XML files in `Annotations`, or in the folder itself."""
    return bool(_first(folder / _ANNOTATIONS, 1)) or any(_is_annotation(path) for path in _first(folder, _SAMPLE_SIZE))


def _first(folder: Path, count: int) -> list[str]:
    """Returns at most `count` XML files in a folder; none if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return [*islice((entry.path for entry in entries if entry.name.lower().endswith(".xml")), count)]
    except OSError:
        return []


def _is_annotation(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _ROOT.search(file.read(_HEAD).replace(b"\0", b"")) is not None
    except OSError:
        return False


def read_voc(path: Path, *, requested: Columns, split: str | None) -> Table:
    """Reads the boxes of a folder, or of one of its splits.

    Args:
        path: The folder.
        requested: The folder of the images, and the elements of an object with the label and the true label; by
            default, the label is `name`.
        split: A list in `ImageSets/Main/`; by default the only one, else `train`. Without lists, all files are read.

    Raises:
        DataError: A file is not valid, there is no such split, or the label is not a direct child of an object.
    """
    files, notes = _files(path, split)
    label = requested.label or NAME
    if "/" in label:  # `edit_voc` could not write it
        raise DataError(
            f'expected an element of <object> itself as {setting("label_column")} of {path}, got "{shown(label)}"; '
            f"name another, such as {NAME}"
        )
    folder = _folder(path, requested)
    names, boxes, counts = {*_listdir(folder)}, BoxRows(), []
    file_of: dict[str, Path] = {}
    for file in files:
        voc_file = read_objects(read_whole(file), where=file)
        image = _image(voc_file.image, file.stem, names)
        _check_one_file_per_image(image, file, file_of.setdefault(image, file))
        for index, each in enumerate(voc_file.objects):
            truth = None if requested.truth is None else _text(each, requested.truth, file)
            boxes.add(
                *(image, _text(each, label, file)),
                name=f"{file.stem}#{index}",
                sides=_sides(each.texts),
                truth=truth,
            )
        counts.append(len(voc_file.objects))
    classes = tuple(sorted({*boxes.labels, *boxes.truths}))
    return boxes.to_table(
        where=f"the {counted(len(files), 'XML file', 'XML files')} of {path}",
        images={image: image for image in file_of},
        classes={name: name for name in classes},
        folder=folder,
        files=BoxFiles(files=tuple(files), counts=tuple(counts), codes=classes, column=label, takes_new=True),
        notes=notes,
    )


def _listdir(folder: Path) -> list[str]:
    with listing(folder):
        return sorted(os.listdir(folder))


def _files(path: Path, split: str | None) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the XML files of a split, in the order of their names or of its list, and notes."""
    folder = path / _ANNOTATIONS if (path / _ANNOTATIONS).is_dir() else path
    files = {name[:-4]: folder / name for name in _listdir(folder) if name.lower().endswith(".xml")}
    lists = path / "ImageSets" / "Main"
    splits = [name[:-4] for name in (_listdir(lists) if lists.is_dir() else ()) if name.endswith(".txt")]
    splits = [name for name in splits if not _OF_CLASS.fullmatch(name)]
    if not splits:
        refuse_split(split, f"the folder {path}")
        return [*files.values()], ()
    chosen, notes = choose_split(splits, split, where=f"the folder {path}")
    text = (lists / f"{chosen}.txt").read_text(encoding="utf-8-sig", errors="replace")
    stems = [*dict.fromkeys(line.split()[0] for line in text.splitlines() if line.strip())]
    lacking = [stem for stem in stems if stem not in files]
    if len(lacking) == len(stems):
        raise DataError(
            f"none of the {len(stems)} images of the split {chosen} has an XML file in {folder}"
            + (f' (first: "{shown(stems[0])}")' if stems else "")
            + f"; choose another {setting('split')}"
        )
    if lacking:
        images = counted(len(lacking), "image of the split has", "images of the split have")
        notes = (*notes, f"{images} no XML file: {listed(lacking)}")
    return [files[stem] for stem in stems if stem in files], notes


def _folder(path: Path, requested: Columns) -> Path:
    """Returns the folder of the images."""
    candidates = [path / name for name in _IMAGES if (path / name).is_dir()]
    holding = (each for each in candidates if any(map(is_image, _listdir(each))))
    folder = requested.folder or next(holding, None)
    if folder is None:
        raise DataError(
            f"expected images in {' or '.join(_IMAGES[:-1])} of {path}, or beside the XML files, found none; say with "
            f"{setting('image_folder')} where they lie"
        )
    return Path(os.path.abspath(folder))


def _check_one_file_per_image(image: str, file: Path, first: Path) -> None:
    if first is not file:
        raise DataError(
            f"expected one XML file for each image, found {shown(image)} in {first} and in {file.name}; correct the "
            "<filename> of one of them"
        )


def _image(named: str, stem: str, names: set[str]) -> str:
    """Returns the file of an image: the file named in the XML, else that with the stem of the XML file."""
    stated = re.split(r"[\\/]", named)[-1]
    candidates = (stem + suffix for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)))
    return stated if stated in names else next((name for name in candidates if name in names), stated or f"{stem}.jpg")


def _text(voc_object: VocObject, name: str, file: Path) -> str:
    text = voc_object.texts.get(name, "")
    if not text:
        raise DataError(
            f"expected <{shown(name)}> in each <object> of {file}, found one with "
            f"{listed(dict.fromkeys(each.split('/')[0] for each in voc_object.texts)) or 'nothing in it'}; add it"
        )
    return text


def _sides(texts: Mapping[str, str]) -> tuple[float, ...]:
    """Returns left, top, width and height, NaN if they are invalid."""
    try:
        left, top, right, bottom = (float(texts[f"bndbox/{name}"]) for name in _CORNERS)
    except (KeyError, ValueError):
        return NO_BOX
    return left - 1, top - 1, right - left + 1, bottom - top + 1


def edit_voc(data: bytes, edits: TextEdits) -> bytes:
    """Returns an XML file with new names of objects, without removed ones, and with `<label_quality>` in the others.

    Raises:
        DataError: The file is in UTF-16.

    Example:
        >>> edit_voc(
        ...     b"<annotation><object><name>cat</name></object></annotation>",
        ...     TextEdits(column="name", labels={0: "dog"}),
        ... )
        b'<annotation><object><name>dog</name></object></annotation>'
    """
    if not (edits.labels or edits.verdicts):
        return data
    voc_file = read_objects(data, where="the file")
    if b"\0" in data[:4]:
        raise DataError("expected XML in UTF-8, found UTF-16, in which labels are not changed; convert it first")
    text = data.decode("latin-1")
    return spliced(text, _splices(data, voc_file, edits)).encode("latin-1")


def _splices(data: bytes, voc_file: VocFile, edits: TextEdits) -> Iterator[Splice]:
    for row, voc_object in enumerate(voc_file.objects):
        if row in edits.labels and edits.labels[row] is None:
            yield Splice(*_with_its_line(data, voc_object.place), "")
            continue
        splices = []
        if new := edits.labels.get(row):
            splices.append(_content(data, voc_object.children[edits.column], _escaped(new, voc_file.encoding)))
        if verdict := edits.verdict(row):
            splices.append(_quality(data, voc_object, verdict.quality))
        yield from sorted(splices)


def _escaped(text: str, encoding: str) -> str:
    """Returns a text escaped for the XML file, with one character per byte."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.encode(encoding, "xmlcharrefreplace").decode("latin-1")


def _content(data: bytes, element: Element, new: str) -> Splice:
    """Replaces the content of an element, without surrounding blanks."""
    inner = data[element.inner : element.close]
    start = element.inner + len(inner) - len(inner.lstrip())
    return Splice(start, max(start, element.close - len(inner) + len(inner.rstrip())), new)


def _quality(data: bytes, voc_object: VocObject, quality: str) -> Splice:
    """Adds an element after the last one of an object, with the same leading blanks."""
    if QUALITY in voc_object.children:
        return _content(data, voc_object.children[QUALITY], quality)
    elements: Sequence[Element] = sorted(voc_object.children.values())
    last, start = elements[-1].start, max([voc_object.place.inner, *(each.end for each in elements[:-1])])
    before = data[start:last].decode("latin-1")
    blanks = before if not before.strip() else ""
    return Splice(elements[-1].end, elements[-1].end, f"{blanks}<{QUALITY}>{quality}</{QUALITY}>")


def _with_its_line(data: bytes, element: Element) -> tuple[int, int]:
    """Returns start and end of an element, or of its line if nothing else is on it."""
    start, end = element.start, element.end
    while start and data[start - 1] in _BLANKS:
        start -= 1
    while end < len(data) and data[end] in _BLANKS:
        end += 1
    line_end = re.compile(rb"\r\n|\r|\n").match(data, end)
    alone = line_end is not None and (start == 0 or data[start - 1] in b"\r\n")
    return (start, line_end.end()) if line_end is not None and alone else (element.start, element.end)


def written_voc(path: Path, *, column: str) -> Iterator[Written]:
    """Yields the content of an XML file, read by another parser than the one for positions."""
    from xml.etree import ElementTree

    data = path.read_bytes()
    read_objects(data, where=path)  # rejects entities, which the other parser would expand
    for each in ElementTree.fromstring(data):  # has no document type, as checked above
        label = each.find(column) if each.tag == "object" else None
        if label is None:
            yield Written(None, _content_of(each))
        else:
            text = (label.text or "").strip()
            label.text = ""
            yield Written(text, [_content_of(child) for child in each if child.tag != QUALITY])


def _content_of(element: Any) -> tuple[Any, ...]:
    """Returns the content of an element, without surrounding blanks."""
    return element.tag, element.attrib, (element.text or "").strip(), [_content_of(child) for child in element]
