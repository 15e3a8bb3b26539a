"""What a person said of pairs of image and class in the report on tags: CSV files of `present`, `absent`, `unsure`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelsieve.core.errors import DataError, did_you_mean, listed, shown
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted
from labelsieve.core.spreadsheets import read_csv
from labelsieve.tags.verdicts import MISSING, WRONG, TagVerdicts

PRESENT, ABSENT, UNSURE = "present", "absent", "unsure"
MARKS = (PRESENT, ABSENT, UNSURE)
"""Whether the class is in the image."""

MarkFiles = str | Path | Sequence[str | Path]
"""One or several CSV files of marks."""
_ADVICE = "take the marks of the report"


def after_marks(verdicts: TagVerdicts, files: MarkFiles, *, progress: Progress | None = None) -> TagVerdicts:
    r"""Returns the verdicts with what a person says in the place of what the detector says.

    A tag that is given where the class is not in the image is wrong, and one that is not given where it is, is missing,
    both with label quality 0; what is as the person says has no verdict. `unsure` changes nothing. Any pair of the run
    may be marked, one without a verdict, too. The ranks follow.

    Args:
        verdicts: Of N images and K classes.
        files: CSV files with columns `id`, `class_name` and `mark`. Where two of them differ, the later one counts.
        progress: Where to say how many marks there are.

    Raises:
        DataError: A file cannot be read, or is of another run.

    Example:
        >>> import tempfile
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(32, seed=0)
        >>> tags = [[], *([CLASS_NAMES[label]] for label in labels[1:])]
        >>> images = ls.load_tags(drawn, tags=tags, class_names=CLASS_NAMES)
        >>> verdicts = ls.scan_tags(images, ls.load_vlm(MINI_CLIP))
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     print(f"id,class_name,mark\n{images.ids[0]},{CLASS_NAMES[labels[0]]},present", file=file, flush=True)
        ...     bool(after_marks(verdicts, file.name).corrected()[0, labels[0]])
        True
    """
    said = _read(files, verdicts, progress)
    classes, given = len(verdicts.class_names), verdicts.given.ravel()
    pairs = np.array([pair for pair, mark in said.items() if mark != UNSURE], dtype=np.int64)
    is_there = np.array([mark == PRESENT for mark in said.values() if mark != UNSURE], dtype=bool)
    names = pa.array(verdicts.class_names, pa.string())
    numbers = pc.index_in(verdicts.table["class_name"], value_set=names)
    known = verdicts.rows * classes + np.asarray(numbers).astype(np.int64)
    kept = verdicts.table.filter(pa.array(~np.isin(known, pairs)))
    wrong = pairs[given[pairs] != is_there]
    ids = verdicts.images["id"].combine_chunks()
    added = pa.table(
        {
            "id": ids.take(pa.array(wrong // classes)),
            "class_name": names.take(pa.array(wrong % classes)),
            "kind": pa.array([WRONG if is_given else MISSING for is_given in given[wrong]], pa.string()),
            "label_quality": pa.array(np.zeros(len(wrong), dtype=np.float32)),
            "rank": pa.array(np.zeros(len(wrong), dtype=np.int64)),
        },
        schema=verdicts.table.schema,
    )
    table = pa.concat_tables([added, kept])
    order = np.argsort(np.asarray(table["label_quality"]), kind="stable")
    ranks = pa.array(np.arange(1, len(order) + 1))
    table = table.take(pa.array(order)).set_column(table.schema.get_field_index("rank"), "rank", ranks)
    return dataclasses.replace(verdicts, table=table)


def _read(files: MarkFiles, verdicts: TagVerdicts, progress: Progress | None) -> dict[int, str]:
    """Returns for each pair that is marked, as row times K plus class, what is said of it."""
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    rows = {name: row for row, name in enumerate(verdicts.images["id"].to_pylist())}
    classes = {name: number for number, name in enumerate(verdicts.class_names)}
    said, differing = dict[int, str](), set[int]()
    for path in paths:
        found = _read_file(path, rows, classes)
        differing |= {pair for pair, mark in found.items() if said.get(pair, mark) != mark}
        said |= found
    if progress is not None:
        of_files = f"; the files differ on {len(differing):,}, where the last one counts" if differing else ""
        progress.say(f"note: {counted(len(said), 'mark', 'marks')} in {listed(paths)}{of_files}")
    return said


def _read_file(path: Path, rows: Mapping[str, int], classes: Mapping[str, int]) -> dict[int, str]:
    lines = read_csv(path, needed=("id", "class_name", "mark"), what="marks of tags", advice=_ADVICE)
    said: dict[int, str] = {}
    for number, line in enumerate(lines, start=2):
        where, mark = f"line {number} of {path}", line["mark"]
        if mark not in MARKS:
            expected = f"expected a mark out of {', '.join(MARKS)} in {where}"
            raise DataError(f'{expected}, found "{shown(mark)}"{did_you_mean(mark, MARKS)}')
        for what, name, known in (("image", line["id"], rows), ("class", line["class_name"], classes)):
            if name not in known:
                raise DataError(
                    f'"{shown(name)}" in {where} is no {what} of this run; take the marks of its own report'
                )
        pair = rows[line["id"]] * len(classes) + classes[line["class_name"]]
        if said.setdefault(pair, mark) != mark:
            both = f'"{shown(line["class_name"])}" of "{shown(line["id"])}" is marked {said[pair]} and {mark}'
            raise DataError(f"{both} in {path}; leave one of both")
    return said
