"""Reviews of pairs of image and class, from the report on tags: CSV files of marks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted
from labelsieve.review.mark_files import read_marks
from labelsieve.tags.verdicts import MISSING, WRONG, TagVerdicts
from labelsieve.verdicts import class_indices

PRESENT, ABSENT, UNSURE = "present", "absent", "unsure"
TAG_MARKS = (PRESENT, ABSENT, UNSURE)
"""The marks of a pair: whether the class is present in the image."""

MarkFiles = str | Path | Sequence[str | Path]
"""One or several CSV files of marks."""


def with_marks(verdicts: TagVerdicts, files: MarkFiles, *, progress: Progress | None = None) -> TagVerdicts:
    r"""Returns the verdicts after a review: marks of a person override the detector.

    A given tag that is marked `absent` is wrong, a tag that is marked `present` but not given is missing, both with
    label quality 0; pairs whose mark agrees with the given tags have no verdict. `unsure` changes nothing. Any pair of
    the run may be marked, even without a verdict. The ranks are updated.

    Args:
        verdicts: Verdicts of N images and K classes.
        files: CSV files with columns `id`, `class_name` and `mark`. If two of them differ, the later one counts.
        progress: Receives the number of marks.

    Raises:
        DataError: A file cannot be read, or belongs to another run.

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
        ...     bool(with_marks(verdicts, file.name).corrected()[0, labels[0]])
        True
    """
    marks = _read(files, verdicts, progress)
    classes, given = len(verdicts.class_names), verdicts.given.ravel()
    pairs = np.array([pair for pair, mark in marks.items() if mark != UNSURE], dtype=np.int64)
    is_present = np.array([mark == PRESENT for mark in marks.values() if mark != UNSURE], dtype=bool)
    names = pa.array(verdicts.class_names, pa.string())
    codes = verdicts.rows * classes + class_indices(verdicts.table["class_name"], verdicts.class_names)
    unmarked = verdicts.table.filter(pa.array(~np.isin(codes, pairs)))
    wrong = pairs[given[pairs] != is_present]
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
    table = pa.concat_tables([added, unmarked])
    order = np.argsort(np.asarray(table["label_quality"]), kind="stable")
    ranks = pa.array(np.arange(1, len(order) + 1))
    table = table.take(pa.array(order)).set_column(table.schema.get_field_index("rank"), "rank", ranks)
    return dataclasses.replace(verdicts, table=table)


def _read(files: MarkFiles, verdicts: TagVerdicts, progress: Progress | None) -> dict[int, str]:
    """Returns the mark of each marked pair; its key is row * K + class."""
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    rows = {name: row for row, name in enumerate(verdicts.images["id"].to_pylist())}
    classes = {name: number for number, name in enumerate(verdicts.class_names)}

    def parse(line: Mapping[str, str], where: str) -> tuple[int, str]:
        for what, name, names in (("image", line["id"], rows), ("class", line["class_name"], classes)):
            if name not in names:
                raise DataError(
                    f'"{shown(name)}" in {where} is no {what} of this run; take the marks of its own report'
                )
        return rows[line["id"]] * len(classes) + classes[line["class_name"]], line["mark"]

    marked, advice = ("id", "class_name"), "take the marks of the report"
    in_files, differing = read_marks(paths, parse, marked=marked, marks=TAG_MARKS, what="marks of tags", advice=advice)
    marks = {pair: mark for in_file in in_files for pair, mark in in_file.items()}
    if progress is not None:
        of_files = f"; the files differ on {len(differing):,}, where the last one counts" if differing else ""
        progress.say(f"note: {counted(len(marks), 'mark', 'marks')} in {listed(paths)}{of_files}")
    return marks
