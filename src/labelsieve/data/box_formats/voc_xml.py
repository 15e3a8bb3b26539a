"""The objects of an XML file of Pascal VOC, with their positions in the file."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from xml.parsers import expat

from labelsieve.core.errors import DataError, first_line, shown

# A tag; its quoted values may contain ">".
_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")


class Element(NamedTuple):
    """The position of an element: its start, the start and end of its content, and its end."""

    start: int
    inner: int
    close: int
    end: int


class VocObject(NamedTuple):
    """An object of an XML file.

    Attributes:
        place: Its position, in bytes.
        texts: Its texts by the path of their element, such as `bndbox/xmin`.
        children: Its direct child elements; the first one of each name.
    """

    place: Element
    texts: dict[str, str]
    children: dict[str, Element]


class VocFile(NamedTuple):
    """The contents of an XML file: the name of its image, its objects and its encoding."""

    image: str
    objects: list[VocObject]
    encoding: str


def read_objects(data: bytes, *, where: object) -> VocFile:
    """Reads an XML file; rejects document types, because their entities may expand without bound.

    Raises:
        DataError: It is broken, has a document type, or is not an annotation file.

    Example:
        >>> found = read_objects(b"<annotation><object><name>cat</name></object></annotation>", where="a text")
        >>> found.objects[0].texts
        {'name': 'cat'}
    """
    parsing = _Parsing(data, where)
    try:
        parsing.run()
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, "it is broken")
        raise DataError(f"{where} cannot be read: {reason}, in line {error.lineno}; correct it") from None
    except (LookupError, ValueError) as error:  # the parser does not know the encoding
        raise DataError(f"{where} cannot be read: {first_line(error)}; save it as UTF-8") from None
    return VocFile(parsing.image.strip(), parsing.objects, parsing.encoding)


class _Parsing:
    """One pass over an XML file, with the position of each element."""

    def __init__(self, data: bytes, where: object) -> None:
        self.data, self.where, self.encoding, self.image = data, where, "utf-8", ""
        self.objects: list[VocObject] = []
        self.open: list[tuple[str, int]] = []
        self.words: list[str] = []
        self.texts: dict[str, str] = {}
        self.children: dict[str, Element] = {}
        self.parser = expat.ParserCreate()

    def run(self) -> None:
        parser = self.parser
        parser.buffer_text = True
        parser.XmlDeclHandler = self.declared
        parser.StartDoctypeDeclHandler = self.refused
        parser.StartElementHandler, parser.EndElementHandler = self.begins, self.ends
        parser.CharacterDataHandler = self.words.append
        parser.Parse(self.data, True)

    def declared(self, _version: str, encoding: str | None, _is_only_split: int) -> None:
        self.encoding = encoding or "utf-8"

    def refused(self, *_doctype: Any) -> None:
        raise DataError(f"{self.where} has a document type (DOCTYPE), which may define entities; remove it")

    def begins(self, name: str, _attributes: dict[str, str]) -> None:
        if not self.open and name != "annotation":
            raise DataError(f"expected <annotation> in {self.where}, found <{shown(name)}>; check the file")
        self.open.append((name, self.parser.CurrentByteIndex))
        self.words.clear()
        if len(self.open) == 2:
            self.texts, self.children = {}, {}

    def ends(self, name: str) -> None:
        path, close = [each for each, _ in self.open], self.parser.CurrentByteIndex
        _, start = self.open.pop()
        text = "".join(self.words).strip()
        self.words.clear()
        if path == ["annotation", "filename"]:
            self.image = text
        if len(path) < 2 or path[1] != "object":
            return
        if len(path) == 2:
            self.objects.append(VocObject(self.element(start, close), self.texts, self.children))
        else:
            self.texts.setdefault("/".join(path[2:]), text)
        if len(path) == 3:
            self.children.setdefault(name, self.element(start, close))

    def element(self, start: int, close: int) -> Element:
        tag = _TAG.match(self.data, start)
        inner = tag.end() if tag else close
        if self.data[inner - 2 : inner] == b"/>":  # no closing tag: `close` is the end of this tag
            return Element(start, inner, inner, inner)
        return Element(start, inner, close, self.data.find(b">", close) + 1)
