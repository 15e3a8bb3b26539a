"""Selects the training targets of a tag classifier from the verdicts of a run."""

from __future__ import annotations

import numpy as np

from labelsieve.core.errors import DataError, listed
from labelsieve.finetune.selection import Selection
from labelsieve.finetune.settings import Adaptation
from labelsieve.tags.verdicts import TagVerdicts


def choose_tags(verdicts: TagVerdicts, settings: Adaptation) -> Selection:
    """Selects all readable images, with targets according to `settings.labels`.

    A pair of image and class has only two values. If the given one is more likely wrong than right, `relabel` takes the
    other, so that no image is dropped; `selected` leaves the pair out of the loss and keeps all other pairs of
    the image.

    Args:
        verdicts: Of N images.
        settings: Its `labels` and `drop_at`.

    Returns:
        A selection with targets as `labels`, (N, K), float32: 1, 0, or NaN for a pair that is left out.

    Raises:
        DataError: No image is readable.
    """
    rows = np.flatnonzero(verdicts.is_readable)
    if not len(rows):
        raise DataError(f"expected images to train on, but none of {len(verdicts):,} can be read; check the source")
    flagged, given = verdicts.flagged(), verdicts.given
    wrong = np.zeros_like(given) if settings.labels == "all" else verdicts.flagged(at=settings.drop_at)
    targets = np.where(wrong, np.nan if settings.labels == "selected" else ~given, given).astype(np.float32)
    changed = wrong if settings.labels == "relabel" else np.zeros_like(given)
    counts = {
        "images": len(verdicts),
        "used": len(rows),
        "unreadable": len(verdicts) - len(rows),
        "tags": int(np.nansum(targets[rows])),
        "removed": int((changed & given).sum()),
        "added": int((changed & ~given).sum()),
        "left_out": int((wrong & ~changed).sum()),
        "kept": 0 if settings.labels == "all" else int((flagged & ~wrong).sum()),
    }
    names = np.array(verdicts.class_names, dtype=object)[~(targets[rows] == 1).any(axis=0)]
    note = f"no image is left with the tag {listed(names, quoted=True)}: the classifier cannot have learned it"
    return Selection(
        rows=rows,
        labels=targets,
        weights=np.ones(len(verdicts), dtype=np.float32),
        counts=counts,
        notes=(note,) if len(names) else (),
    )
