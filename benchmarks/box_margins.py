"""How much of its surroundings should the crop of a box have? Scenes of sketches, 20 % wrong labels.

Example::

    OMP_NUM_THREADS=1 python benchmarks/box_margins.py
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from statistics import mean, stdev

import tyro

import labelsieve as ls
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.scenes import scenes, write_coco
from labelsieve.detect.base import Detector

DETECTORS: dict[str, Detector] = {"joint": ls.Joint(), "label-match": ls.LabelMatch()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxMargins:
    """What to measure.

    Attributes:
        margins: Shares of the sides of a box.
        scenes: So many, of three to eight shapes each.
        seeds: Each draws the scenes and the wrong labels.
        model: A folder or Hub id.
    """

    margins: tuple[float, ...] = (0, 0.05, 0.1, 0.2, 0.3, 0.5)
    scenes: int = 250
    seeds: tuple[int, ...] = (0, 1, 2)
    model: str = str(MINI_CLIP)


def main(options: BoxMargins) -> None:
    """Prints issue F1 and AUROC for each margin, in %."""
    vlm = ls.load_vlm(options.model)
    found: dict[tuple[float, str, str], list[float]] = {}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            annotations = write_coco(Path(folder) / "scenes", scenes(options.scenes, seed=seed))
            for margin in options.margins:
                images = ls.load_images(annotations, box_margin=margin)
                images = ls.inject(images, kind="symmetric", rate=0.2, seed=seed)
                for name, detector in DETECTORS.items():
                    metrics = ls.scan(images, vlm, detector=detector, seed=seed).metrics or {}
                    for measure in ("issue_f1", "auroc"):
                        found.setdefault((margin, name, measure), []).append(100 * metrics[measure])
    columns = [(name, measure) for name in DETECTORS for measure in ("issue_f1", "auroc")]
    print(f"| margin | {' | '.join(f'{name}: {measure}' for name, measure in columns)} |")
    print("|---:|" + "---:|" * len(columns))
    for margin in options.margins:
        cells = [found[margin, *column] for column in columns]
        print(f"| {margin:g} | {' | '.join(f'{mean(cell):.1f} ± {stdev(cell):.1f}' for cell in cells)} |")


if __name__ == "__main__":
    main(tyro.cli(BoxMargins))
