"""CSV files: columns of texts, separated by comma, semicolon, tab or bar, with a header.

All values are texts, because a reader that guesses types would change the class names `NA` and `007`. The `csv` module
of Python is strict about quotes and provides the line of each row, for messages.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.data.sources.columns import (
    IMAGE_NAMES,
    LABEL_NAMES,
    Columns,
    Table,
    choose_columns,
    is_usual,
)
from labelsieve.data.sources.file_kinds import is_image, other_kind
from labelsieve.data.sources.image_paths import about_names, folder_of, held

_SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
_WHOLE_FLOAT = re.compile(r"[+-]?\d+\.0+")
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")
# Rows per Arrow batch.
_ROWS = 65_536
# Maximum number of values of a column that are tried as names of images.
_SAMPLE_SIZE = 256
OPEN_IMAGES = ("ImageID", "XMin", "XMax", "YMin", "YMax")
"""The columns that identify a file of Open Images: the image, and the sides of a box."""


class CsvTable(NamedTuple):
    """Columns of texts with unique names, duplicate names, number of unnamed columns, and notes for the user."""

    table: pa.Table
    twice: tuple[str, ...]
    unnamed: int
    notes: tuple[str, ...]


class _Row(NamedTuple):
    """The number of the first line of a row, and its values."""

    line: int
    values: list[str]


def are_open_images(columns: Iterable[str]) -> bool:
    """Returns whether columns are those of Open Images."""
    return {*OPEN_IMAGES} <= {*columns}


def read_csv(files: Sequence[Path], *, requested: Columns, where: str) -> Table:
    """Reads one or several CSV files with the same header as one table; all values are texts.

    Args:
        files: The files, in the order of the table.
        requested: The requested columns.
        where: Name of the files, for messages.
    """
    from datasets import Dataset

    tables = [read_texts(path, images=requested.folder) for path in files]
    names = tables[0].table.column_names
    for path, other in zip(files[1:], tables[1:], strict=True):
        if other.table.column_names != names:
            raise DataError(
                f"expected the same columns in all files, found {listed(names, quoted=True)} in {files[0]} and "
                f"{listed(other.table.column_names, quoted=True)} in {path}; pass files of one table"
            )
    if are_open_images(names):
        raise DataError(f"{where} hold boxes of Open Images, which are read from one file each; pass one of them")
    texts = pa.concat_tables(each.table for each in tables)
    folder = folder_of(files)
    _refuse_duplicate_columns(tables[0], requested, files[0])
    about = about_names(lambda name: texts.column(name).slice(0, _SAMPLE_SIZE).to_pylist(), table_folder=folder)
    try:
        chosen = choose_columns(
            Dataset(texts.slice(0, 0)).features, requested=requested, where=where, about_names=about
        )
    except DataError as error:
        remark = "; columns without a name in the header are not read" if tables[0].unnamed else ""
        raise DataError(f"{error}{remark}") from None
    texts = floats_to_integers(texts, (chosen.label, *chosen.annotators[1:], chosen.truth))
    notes = tuple(note for each in tables for note in each.notes)
    return Table(rows=Dataset(texts), columns=chosen, where=where, folder=chosen.folder or folder, notes=notes)


def _refuse_duplicate_columns(csv: CsvTable, requested: Columns, path: Path) -> None:
    """Rejects duplicate columns if one of them may be read."""
    requested_names = (requested.image, *requested.labels_and_ids)
    for name in csv.twice:
        if name in requested_names or requested.guess is not None or is_usual(name, (*IMAGE_NAMES, *LABEL_NAMES, "id")):
            raise DataError(f'expected different columns in {path}, found "{shown(name)}" more than once; rename one')


def read_texts(path: Path, *, images: Path | None = None) -> CsvTable:
    """Reads a CSV file in UTF-8, or UTF-16 with a byte order mark.

    Blanks around values, lines without values, and columns without a name are left out.

    Args:
        path: The file.
        images: The folder of its images, if the user named it.

    Raises:
        DataError: It is not such a file, a quote is not closed, a row has more or fewer values than the header, or
            there is no header. The message contains the line.
    """
    try:
        if (kind := other_kind(path)) is not None:
            raise DataError(f"expected a CSV file with a header, but {path} is {kind}; check the file")
        with path.open("rb") as binary:
            head = binary.read(2)
        encoding = "utf-16" if head in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with path.open(encoding=encoding, newline="") as handle:
            first, skipped, separator = find_header(handle)
        if not first:
            raise DataError(f"expected a CSV file with a header, but {path} is empty; write it again")
        try:
            return _table(path, encoding, skipped, separator, images=images, clean=False)
        except _QuoteError:  # `"a" ,` has a blank between quote and comma, which the reader rejects
            return _table(path, encoding, skipped, separator, images=images, clean=True)
    except UnicodeError:
        raise DataError(_not_text(path)) from None
    except _QuoteError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from None


class _QuoteError(Exception):
    """The quotes of a file are not balanced."""


def find_header(handle: Iterable[str]) -> tuple[str, int, str]:
    """Returns the first line that is not blank, the number of lines above it, and the separator."""
    stated, first, above = None, "", 0
    for number, line in enumerate(handle):
        if stated is None and not first and (match := _SEPARATOR_LINE.fullmatch(line)):
            stated = match[1]
        elif line.strip() and first:
            return first, above, stated or _separator(first, line)
        elif line.strip():
            first, above = line, number
    return first, above, stated or _separator(first, first)


def _separator(header: str, row: str) -> str:
    """Returns the separator: the most frequent one in the header, preferably with the same count in the next row."""
    header, row = _QUOTED.sub("", header), _QUOTED.sub("", row)
    return max(_SEPARATORS, key=lambda each: (0 < header.count(each) == row.count(each), header.count(each)))


def _table(path: Path, encoding: str, skipped: int, separator: str, *, images: Path | None, clean: bool) -> CsvTable:
    with path.open(encoding=encoding, newline="") as handle:
        rows = _rows(handle, path, skipped=skipped, separator=separator, clean=clean)
        names = [name.strip() for name in next(rows).values]
        _check_header(names, path, separator, images)
        checked = _Checked(names, path, separator)
        values = checked.read(rows)
        batches = [_columns(batch) for batch in iter(lambda: [*islice(values, _ROWS)], [])]
    checked.refuse_swallowed(batches)
    columns = [pa.chunked_array([batch[index] for batch in batches], pa.string()) for index in range(len(names))]
    counts = Counter(names)
    named_columns = {name: column for name, column in zip(names, columns, strict=True) if name and counts[name] == 1}
    twice = tuple(name for name, count in counts.items() if name and count > 1)
    notes = (f"{checked.empty} rows of {path.name} without any value were left out",) if checked.empty else ()
    return CsvTable(pa.table(named_columns), twice, names.count(""), notes)


def _rows(handle: Iterable[str], path: Path, *, skipped: int, separator: str, clean: bool) -> Iterator[_Row]:
    """Yields the rows, header first; empty lines are skipped.

    Raises:
        _QuoteError: A quote is not closed, or text follows a closed quote.
    """
    reader = csv.reader(
        _lines(handle, path, separator, skipped, clean), delimiter=separator, skipinitialspace=True, strict=True
    )
    start = 1
    try:
        for values in reader:
            if values:
                yield _Row(skipped + start, values)
            start = reader.line_num + 1
    except csv.Error as error:
        raise _QuoteError(_broken_quote(error, path, skipped + start, skipped + reader.line_num)) from None


def _lines(handle: Iterable[str], path: Path, separator: str, skipped: int, clean: bool) -> Iterator[str]:
    # only spaces are removed: other blanks, such as tabs, may be the separator
    blank = re.compile(rf'(?<=")[ ]+(?={re.escape(separator)}|[\r\n]*$)')
    for number, line in enumerate(handle):
        if number < skipped:
            continue
        if "\0" in line:
            raise DataError(
                f"expected text in {path}, found a zero byte in line {number + 1}; save it as UTF-8 (it may be UTF-16)"
            )
        yield blank.sub("", line) if clean else line


def _broken_quote(error: csv.Error, path: Path, start: int, end: int) -> str:
    if "field larger" in str(error):
        return (
            f"the value that begins in line {start} of {path} is longer than {csv.field_size_limit():,} characters; "
            "close the quote there, or write encoded images as bytes in a Parquet file"
        )
    problem = "is never closed" if "end of data" in str(error) else f"is closed in the middle of a value, in line {end}"
    return f'the quote that opens in line {start} of {path} {problem}; close it, or write "" for a quote in a text'


def _check_header(names: Sequence[str], path: Path, separator: str, images: Path | None) -> None:
    if len(names) == 1 and {" ", *_SEPARATORS} & {*names[0]}:
        quoted = bool({*_SEPARATORS} & {*names[0]})
        raise DataError(
            f"expected columns separated by comma, semicolon, tab or | in {path}, found one column "
            f'"{shown(names[0])}"; {"remove the quotes around whole lines" if quoted else "write it with one of these"}'
        )
    for name in names:
        if _names_image(name, path.parent) or (name and images is not None and held(images, [name])):
            raise DataError(
                f'expected a header such as path{separator}label in the first line of {path}, found the image "'
                f'{shown(name)}"; put the names of the columns above it'
            )


def _names_image(name: str, folder: Path) -> bool:
    return is_image(name) or (bool({".", "/", "\\"} & {*name}) and os.path.isfile(folder / name))


class _Checked:
    """Checks rows while they are read: they must have as many values as the header, and no value with other rows."""

    def __init__(self, names: Sequence[str], path: Path, separator: str) -> None:
        self.count, self.path, self.separator = len(names), path, separator
        self.empty = self.first = 0
        self._suspects: list[tuple[int, list[str]]] = []

    def read(self, rows: Iterable[_Row]) -> Iterator[list[str]]:
        """Yields the stripped values of each row."""
        for line, values in rows:
            self.first = self.first or line
            text = "".join(values)
            if not text or text.isspace():
                self.empty += len(values) > 1
                continue
            if len(values) > self.count and not any(map(str.strip, values[self.count :])):
                values = values[: self.count]
            if len(values) != self.count:
                raise DataError(
                    f"expected {self.count} values in line {line} of {self.path}, as in its header, found "
                    f"{len(values)}; {self._advice(line, values)}"
                )
            if "\n" in text or "\r" in text:
                for index, value in enumerate(values):
                    self._suspects += [(line, row) for row in self._swallowed(value, values[index + 1 :])]
            yield [*map(str.strip, values)]

    def _advice(self, line: int, values: list[str]) -> str:
        if len(values) == 1 and self.separator in values[0]:
            return "remove the quotes around the whole line"
        if len(values) < self.count:
            return "complete or remove the line"
        if line == self.first and len(values) == self.count + 1:
            return f'put quotes around a value with "{self.separator}", or name the first column in the header'
        return f'put quotes around a value with "{self.separator}" in it'

    def _swallowed(self, value: str, following: list[str]) -> Iterator[list[str]]:
        """Yields lines of a value that may be separate rows."""
        lines = value.splitlines()[1:]
        for number, line in enumerate(lines):
            parts = [part.strip() for part in line.split(self.separator)]
            parts += following if number == len(lines) - 1 else []
            if len(parts) == self.count > 1:
                yield parts

    def refuse_swallowed(self, batches: Sequence[Sequence[pa.Array]]) -> None:
        """Rejects a value with lines that seem to be rows, because they have images or values of other rows."""
        if not self._suspects:
            return
        values_of = [{value for batch in batches for value in batch[index].to_pylist()} for index in range(self.count)]
        for line, row in self._suspects:
            is_known = any(value and value in values_of[index] for index, value in enumerate(row))
            if is_known or any(map(is_image, row)):
                raise DataError(
                    f'the quote that opens in line {line} of {self.path} takes in other rows, such as "'
                    f'{shown(self.separator.join(row))}"; close it, or write "" for a quote in a text'
                )


def _columns(rows: list[list[str]]) -> list[pa.Array]:
    columns = zip(*rows, strict=True)
    return [pa.array(column, pa.string()) for column in columns]


def _not_text(path: Path) -> str:
    """Returns the message on the first line that is not UTF-8."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return (
            f"expected a CSV file in UTF-8, but line {line} of {path} is in another encoding, such as Latin-1; save it "
            "as UTF-8"
        )
    return f"expected a CSV file in UTF-8, but {path} is not; save it as UTF-8"


def floats_to_integers(table: pa.Table, names: Iterable[str | None]) -> pa.Table:
    """Returns a table with integers in those of the columns that have integral floats, as pandas writes them."""
    for name in filter(None, names):
        values = table[name].unique().to_pylist()
        if not all(_WHOLE_NUMBER.fullmatch(value) for value in values if value):
            continue
        if any(_WHOLE_FLOAT.fullmatch(value) for value in values):
            index = table.column_names.index(name)
            integers = [value.split(".")[0] for value in table[name].to_pylist()]
            table = table.set_column(index, name, pa.array(integers, pa.string()))
    return table
