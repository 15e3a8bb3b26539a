"""Pascal VOC: a folder with an XML file an image, in `Annotations/` or beside the images.

Pixels are counted from 1, and those of both corners belong to the box: "the top-left pixel in the image has coordinates
(1,1)" (development kit of VOC2012, section on annotations). Splits are the lists in `ImageSets/Main/`.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.core.quantities import counted
from labelsieve.data.box_formats.edits import QUALITY, BoxEdits, Splice, Written, spliced
from labelsieve.data.box_formats.rows import NO_BOX, BoxRows
from labelsieve.data.box_formats.voc_xml import Element, VocFile, VocObject, read_objects
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.file_kinds import read_whole
from labelsieve.data.sources.folders import SUFFIXES
from labelsieve.data.sources.splits import choose_split, refuse_split

NAME = "name"
_ANNOTATIONS = "Annotations"
_IMAGES = ("JPEGImages", "images", "Images", ".")
# Lists of the images that show one class, such as `cat_train.txt`.
_OF_CLASS = re.compile(r".+_(train|val|trainval|test)")
_ROOT = re.compile(rb"<annotation[\s/>]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# How much of how many XML files is read to see what they are.
_HEAD, _TRIED = 4096, 3
_BLANKS = b" \t"


def is_voc(folder: Path) -> bool:
    """Returns whether a folder holds annotations of VOC: XML files in `Annotations`, or such ones beside images."""
    return bool(_first(folder / _ANNOTATIONS, 1)) or any(_is_annotation(path) for path in _first(folder, _TRIED))


def _first(folder: Path, count: int) -> list[str]:
    """Returns some XML files in a folder, none where there is no such folder."""
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
        requested: Whether the images lie in another folder, and which elements of an object hold the label and the true
            label; else `name`.
        split: A list of `ImageSets/Main/`; by default the only one, else `train`. Without lists all files are read.

    Raises:
        DataError: A file is no such XML, or there is no such split.
    """
    files, notes = _files(path, split)
    label, number = requested.label or NAME, len(files)
    found = _Found(label=label, truth=requested.truth)
    folder = _folder(path, requested)
    names = {*_listdir(folder)}
    for index, file in enumerate(files):
        found.add(index, file, names)
    _refuse_one_image_of_two(files, found.paths)
    classes = tuple(sorted({*found.labels, *found.truths}))
    place = {name: index for index, name in enumerate(classes)}
    rows = BoxRows(
        paths=found.paths,
        image_of=np.frombuffer(found.image_of, dtype=np.int64),
        sides=np.frombuffer(found.sides, dtype=np.float64).reshape(-1, 4),
        labels=np.array([place[name] for name in found.labels], dtype=np.int64),
        truth=None if requested.truth is None else np.array([place[name] for name in found.truths], dtype=np.int64),
        class_names=classes,
        ids=found.ids,
        folder=folder,
        files=BoxFiles(files=tuple(files), counts=tuple(found.counts), codes=classes, column=label, takes_new=True),
        notes=notes,
    )
    return rows.to_table(where=f"the {counted(number, 'XML file', 'XML files')} of {path}")


def _listdir(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; check its permissions") from None


def _files(path: Path, split: str | None) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the XML files of a split, in the order of their names or of its list, and remarks."""
    place = path / _ANNOTATIONS if (path / _ANNOTATIONS).is_dir() else path
    there = {name[:-4]: place / name for name in _listdir(place) if name.lower().endswith(".xml")}
    lists = path / "ImageSets" / "Main"
    splits = [name[:-4] for name in (_listdir(lists) if lists.is_dir() else ()) if name.endswith(".txt")]
    splits = [name for name in splits if not _OF_CLASS.fullmatch(name)]
    if not splits:
        refuse_split(split, f"the folder {path}")
        return [*there.values()], ()
    chosen, notes = choose_split(splits, split, where=f"the folder {path}")
    text = (lists / f"{chosen}.txt").read_text(encoding="utf-8-sig", errors="replace")
    stems = [*dict.fromkeys(line.split()[0] for line in text.splitlines() if line.strip())]
    lacking = [stem for stem in stems if stem not in there]
    if len(lacking) == len(stems):
        raise DataError(
            f"none of the {len(stems)} images of the split {chosen} has an XML file in {place}"
            + (f' (first: "{shown(stems[0])}")' if stems else "")
            + "; choose another --split"
        )
    if lacking:
        images = counted(len(lacking), "image of the split has", "images of the split have")
        notes = (*notes, f"{images} no XML file: {listed(lacking)}")
    return [there[stem] for stem in stems if stem in there], notes


def _folder(path: Path, requested: Columns) -> Path:
    """Returns the folder of the images."""
    tried = [path / name for name in _IMAGES if (path / name).is_dir()]
    holding = (each for each in tried if any(name.lower().endswith(SUFFIXES) for name in _listdir(each)))
    folder = requested.folder or next(holding, None)
    if folder is None:
        raise DataError(
            f"expected images in {' or '.join(_IMAGES[:-1])} of {path}, or beside the XML files, found none; say with "
            "--image-folder where they lie"
        )
    return Path(os.path.abspath(folder))


@dataclass(kw_only=True)
class _Found:
    """The objects of the files that were read so far."""

    label: str
    truth: str | None
    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    truths: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    image_of: array[int] = field(default_factory=lambda: array("q"))
    sides: array[float] = field(default_factory=lambda: array("d"))

    def add(self, image: int, file: Path, names: set[str]) -> None:
        """Takes in one file.

        Args:
            image: The number of its image.
            file: The XML file.
            names: The files in the folder of images.
        """
        found = read_objects(read_whole(file), where=file)
        self.paths.append(_image(found.image, file.stem, names))
        for index, each in enumerate(found.objects):
            self.labels.append(_text(each, self.label, file))
            if self.truth is not None:
                self.truths.append(_text(each, self.truth, file))
            self.ids.append(f"{file.stem}#{index}")
            self.image_of.append(image)
            self.sides.extend(_sides(each.texts))
        self.counts.append(len(found.objects))


def _refuse_one_image_of_two(files: list[Path], paths: list[str]) -> None:
    first: dict[str, Path] = {}
    for file, image in zip(files, paths, strict=True):
        if (other := first.setdefault(image, file)) is not file:
            raise DataError(
                f"expected one XML file for each image, found {shown(image)} in {other} and in {file.name}; correct "
                "the <filename> of one of them"
            )


def _image(named: str, stem: str, names: set[str]) -> str:
    """Returns the file of an image: the one that its XML names, else the one that is named as the XML."""
    own = re.split(r"[\\/]", named)[-1]
    others = (stem + suffix for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)))
    return own if own in names else next((name for name in others if name in names), own or f"{stem}.jpg")


def _text(found: VocObject, name: str, file: Path) -> str:
    text = found.texts.get(name, "")
    if not text:
        raise DataError(
            f"expected <{shown(name)}> in each <object> of {file}, found one with "
            f"{listed(dict.fromkeys(each.split('/')[0] for each in found.texts)) or 'nothing in it'}; add it"
        )
    return text


def _sides(texts: Mapping[str, str]) -> tuple[float, ...]:
    """Returns left, top, width and height, NaN where there are no numbers."""
    try:
        left, top, right, bottom = (float(texts[f"bndbox/{name}"]) for name in _CORNERS)
    except (KeyError, ValueError):
        return NO_BOX
    return left - 1, top - 1, right - left + 1, bottom - top + 1


def edit_voc(data: bytes, edits: BoxEdits) -> bytes:
    """Returns an XML file with other names of objects, without some, and with `<label_quality>` in them.

    Raises:
        DataError: The file is in UTF-16.

    Example:
        >>> from labelsieve.data.box_formats.edits import BoxEdits
        >>> from labelsieve.data.box_formats.voc import edit_voc
        >>> edit_voc(
        ...     b"<annotation><object><name>cat</name></object></annotation>",
        ...     BoxEdits(column="name", labels={0: "dog"}),
        ... )
        b'<annotation><object><name>dog</name></object></annotation>'
    """
    if not (edits.labels or edits.verdicts):
        return data
    found = read_objects(data, where="the file")
    if b"\0" in data[:4]:
        raise DataError("expected XML in UTF-8, found UTF-16, in which labels are not changed; convert it first")
    text = data.decode("latin-1")
    return spliced(text, _splices(data, found, edits)).encode("latin-1")


def _splices(data: bytes, found: VocFile, edits: BoxEdits) -> Iterator[Splice]:
    for row, each in enumerate(found.objects):
        if row in edits.labels and edits.labels[row] is None:
            yield Splice(*_with_its_line(data, each.place), "")
            continue
        splices = []
        if new := edits.labels.get(row):
            splices.append(_content(data, each.children[edits.column], _escaped(new, found.encoding)))
        if row in edits.verdicts:
            splices.append(_quality(data, each, edits.verdicts[row].quality_text))
        yield from sorted(splices)


def _escaped(text: str, encoding: str) -> str:
    """Returns a text as it stands in the XML file, with a character for each byte."""
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.encode(encoding, "xmlcharrefreplace").decode("latin-1")


def _content(data: bytes, place: Element, new: str) -> Splice:
    """Replaces what stands in an element, without the blanks around it."""
    inner = data[place.inner : place.close]
    start = place.inner + len(inner) - len(inner.lstrip())
    return Splice(start, max(start, place.close - len(inner) + len(inner.rstrip())), new)


def _quality(data: bytes, found: VocObject, quality: str) -> Splice:
    """Adds an element behind the last one of an object, with the blanks that stand before that."""
    if QUALITY in found.children:
        return _content(data, found.children[QUALITY], quality)
    places: Sequence[Element] = sorted(found.children.values())
    last, start = places[-1].start, max([found.place.inner, *(each.end for each in places[:-1])])
    before = data[start:last].decode("latin-1")
    blanks = before if not before.strip() else ""
    return Splice(places[-1].end, places[-1].end, f"{blanks}<{QUALITY}>{quality}</{QUALITY}>")


def _with_its_line(data: bytes, place: Element) -> tuple[int, int]:
    """Returns an element with the line that it stands in, where nothing else does."""
    start, end = place.start, place.end
    while start and data[start - 1] in _BLANKS:
        start -= 1
    while end < len(data) and data[end] in _BLANKS:
        end += 1
    line_end = re.compile(rb"\r\n|\r|\n").match(data, end)
    alone = line_end is not None and (start == 0 or data[start - 1] in b"\r\n")
    return (start, line_end.end()) if line_end is not None and alone else (place.start, place.end)


def written_voc(path: Path, *, column: str) -> Iterator[Written]:
    """Yields what is in an XML file, by another reader than the one that finds the places."""
    from xml.etree import ElementTree

    data = path.read_bytes()
    read_objects(data, where=path)  # refuses what this one would follow
    for each in ElementTree.fromstring(data):  # without a document type, as was checked
        label = each.find(column) if each.tag == "object" else None
        if label is None:
            yield Written(None, _plain(each))
        else:
            text = (label.text or "").strip()
            label.text = ""
            yield Written(text, [_plain(child) for child in each if child.tag != QUALITY])


def _plain(element: Any) -> tuple[Any, ...]:
    """Returns what is in an element, without the blanks around it."""
    return element.tag, element.attrib, (element.text or "").strip(), [_plain(child) for child in element]
