"""Findings about images, beside wrong labels: what kinds there are, and the file of a run that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labelsieve.core.errors import RunError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_FINDINGS = "findings.parquet"


@dataclass(frozen=True)
class Kind:
    """A kind of finding about images.

    Attributes:
        title: What to call the images that have it.
        about: What it means, and what to do.
        paired: Whether a finding names another image, too.
    """

    title: str
    about: str
    paired: bool = False


EXACT_DUPLICATE, NEAR_DUPLICATE, EXACT_LEAK, NEAR_LEAK = "exact-duplicate", "near-duplicate", "exact-leak", "near-leak"
NO_CLASS = "no-class"
# Those whose other image is one of the data.
DATA_KINDS = (EXACT_DUPLICATE, NEAR_DUPLICATE)
# In the order in which they are shown.
KINDS = {
    EXACT_LEAK: Kind(
        "leaks between splits (exact)",
        "The same file is among the images that were compared with: remove it from one of the two splits.",
        paired=True,
    ),
    NEAR_LEAK: Kind(
        "leaks between splits (near copies)",
        "The image looks like a copy of one of those that were compared with: look at both, and remove one.",
        paired=True,
    ),
    EXACT_DUPLICATE: Kind(
        "exact duplicates", "The same file is there more than once: keep one, with the right label.", paired=True
    ),
    NEAR_DUPLICATE: Kind(
        "near duplicates",
        "Another image looks like a copy, such as a smaller, cropped or re-encoded one: look at both, and keep one.",
        paired=True,
    ),
    NO_CLASS: Kind(
        "images that may belong to none of the classes",
        "They are unusually far from all classes, not from the given one alone: leave out those that show none.",
    ),
}


def schema() -> pa.Schema:
    """Returns the columns of the table of findings; see :func:`image_findings`."""
    import pyarrow as pa

    texts = {name: pa.string() for name in ("kind", "id", "other_id")}
    return pa.schema({**texts, "score": pa.float32(), "group": pa.int64()})


def image_findings(run_folder: str | Path) -> pa.Table:
    """Reads the findings about images of a run: the queues beside wrong labels.

    Args:
        run_folder: Folder of a finished run.

    Returns:
        One row for each finding, those of a kind together, the surest first. Columns: `kind`, a key of `KINDS`; `id` of
        the image; `other_id`, the image most like it (for leaks an id of the images that were compared with), null
        where the kind has none; `score` between 0 and 1, higher = surer; `group`, a number that all duplicates of one
        another share, null for other kinds. Runs that looked for nothing have no rows.

    Raises:
        RunError: The file cannot be read, or is no such table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(run_folder) / IMAGE_FINDINGS
    if not path.exists():
        return schema().empty_table()
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path} cannot be read ({first_line(error)}); make the run again") from None
    if not table.schema.equals(schema()):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema())
        raise RunError(f"expected the columns {columns} in {path}, found others; make the run again")
    return table
