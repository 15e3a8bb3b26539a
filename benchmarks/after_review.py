"""How many labels are still wrong after a review: what does a new scan say that knows the answers?

The most suspicious of the flagged labels are given their true ones, half of them or all, as a reviewer would. Then
`joint` scans again: with what the reviewer saw, as `labelsieve scan --reviewed RUN` does, and with the corrected labels
alone, as a scan that knows nothing of the review. Counts are of the labels that were not reviewed.

Example::

    OMP_NUM_THREADS=1 python benchmarks/after_review.py cifar10n.npz clothing.npz cifar100.npz tiny-imagenet.npz
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tyro

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.detect.inputs import detector_inputs

COLUMNS = ("label_worst", "label_one", "label_majority", "label_sym2_0", "label_pair3_0", "label_inst4_0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AfterReview:
    """What to measure.

    Attributes:
        sources: Files of features with `truth`.
        columns: Columns of labels; those that a file lacks are passed over.
        shares: Which part of the flagged labels is reviewed, the most suspicious first.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    columns: tuple[str, ...] = COLUMNS
    shares: tuple[float, ...] = (0.5, 1.0)


def measure(source: Path, column: str, share: float) -> str:
    """Returns a row of the table."""
    data = ls.load_features(source, label_column=column, truth_column="truth")
    assert data.truth is not None
    inputs, detector = detector_inputs(data, None, engine=make_engine(device="cpu")), ls.Joint()
    first = detector.score(inputs)
    flagged = first.rule.flags(first.label_quality, predicted=first.predicted, given=data.labels)
    reviewed = np.zeros(len(data), dtype=bool)
    reviewed[first.label_quality.argsort()[: int(share * flagged.sum())]] = True
    labels = np.where(reviewed, data.truth, data.labels)
    wrong = labels != data.truth
    cells = []
    for seen in (None, data.labels):
        scores = detector.score(dataclasses.replace(inputs, labels=labels, unreviewed_labels=seen))
        flags = scores.rule.flags(scores.label_quality, predicted=scores.predicted, given=labels) & ~reviewed
        estimated = float((1 - scores.label_quality[~reviewed].astype(np.float64)).sum())
        f1 = 2 * (flags & wrong).sum() / max(1, flags.sum() + wrong.sum())
        cells.append(f"{estimated:,.0f} | {100 * f1:.1f}")
    name = f"{source.stem}, {column.removeprefix('label_').removesuffix('_0')}"
    return f"| {name} | {reviewed.sum():,} | {wrong.sum():,} | {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    options = tyro.cli(AfterReview, description=__doc__)
    kinds = " | ".join(f"{kind}: estimate | issue F1" for kind in ("corrected labels alone", "with what was seen"))
    print(f"| data | reviewed | still wrong | {kinds} |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for share in options.shares:
        for source in options.sources:
            with np.load(source) as file:
                columns = [column for column in options.columns if column in file.files]
            for column in columns:
                print(measure(source, column, share), flush=True)


if __name__ == "__main__":
    main()
