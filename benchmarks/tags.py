"""How well are wrong and missing tags found, beside cleanlab on the same probabilities?

A detector fits P(tagged) to its evidence, from which its posterior comes. Cleanlab's multi-label filter gets the same
P(tagged): its quality of a class is the self-confidence, and `find_multilabel_issues_per_class` says what it flags.
Where the other tags of an image are among the evidence, cleanlab also gets P(tagged | image), fitted without them:
a classifier of images gives no more. The images are scenes of sketches, those of a table in which the tags are right,
or sheets with some of the images of a source in which each has one right label.

Example::

    OMP_NUM_THREADS=1 python benchmarks/tags.py
    python benchmarks/tags.py --source photos.csv --limit 3000 --model openai/clip-vit-base-patch16
    python benchmarks/tags.py --singles cifar10n_train.parquet --label-column clean_label --model MODEL --windows 1 3
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import tyro
from cleanlab.internal.multilabel_scorer import MultilabelScorer
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from numpy.typing import NDArray
from PIL import Image

import labelsieve as ls
from labelsieve.core.engine import make_engine
from labelsieve.data.tags.noise import with_tag_noise
from labelsieve.data.tags.records import TaggedImages
from labelsieve.demo import MINI_CLIP
from labelsieve.demo.scenes import scenes, write_tags
from labelsieve.detect.chunks import chunks
from labelsieve.detect.inputs import inputs_of_images
from labelsieve.detect.tags import joining, noise_model, other_tags
from labelsieve.detect.tags.base import TagDetector
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.registry import tag_detector_class
from labelsieve.metrics import TAG_DETECTION
from labelsieve.tag_metrics import evaluate_pairs

MEASURES = ("wrong_auroc", "missing_auroc", "wrong_f1", "missing_f1", "map")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tags:
    """What to measure.

    Attributes:
        source: A table of images whose tags are right.
        singles: Images with one right label each: 2 to 5 of them, of a quarter to a half of its side, on each sheet.
        label_column: Of these.
        limit: Random subset of so many images; the number of scenes or sheets, 600 if None.
        model: A folder or Hub id.
        detectors: Those whose probabilities can be read out: `joint`, `deft`, `label-match` and `knn`.
        windows: The finest grids of windows of those that look at some.
        omit: Share of the tags that are left out.
        add: Share of the tags that are wrong then.
        seeds: Each draws the scenes or the subset, and the noise.
    """

    source: str | None = None
    singles: str | None = None
    label_column: str | None = None
    limit: int | None = None
    model: str = str(MINI_CLIP)
    detectors: tuple[str, ...] = ("joint", "label-match", "knn")
    windows: tuple[int, ...] = (3,)
    omit: float = 0.2
    add: float = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)


def load(options: Tags, seed: int, folder: Path) -> TaggedImages:
    """Returns the images with noise."""
    if options.singles is not None:
        images = sheets(options.singles, options.label_column, options.limit or 600, seed)
    elif options.source is None:
        images = ls.load_tags(write_tags(folder / "scenes.parquet", scenes(options.limit or 600, seed=seed)))
    else:
        images = ls.load_tags(options.source, limit=options.limit, seed=seed)
    return with_tag_noise(images, kind="tags", omit=options.omit, add=options.add, seed=seed)


def sheets(source: str, label_column: str | None, count: int, seed: int) -> TaggedImages:
    """Returns sheets of 256 pixels with some images on each, none upon another, tagged with the labels of them."""
    singles, rng = ls.load_images(source, label_column=label_column), np.random.default_rng(seed)
    made, tags = list[Image.Image](), np.zeros((count, len(singles.class_names)), dtype=bool)
    for sheet_tags in tags:
        sheet, taken = Image.new("RGB", (256, 256), tuple(rng.integers(0, 256, 3).tolist())), list[NDArray[np.int64]]()
        for row in rng.integers(len(singles), size=rng.integers(2, 6)):
            for _ in range(40):
                side = int(rng.integers(64, 128))
                place = np.array([*rng.integers(256 - side, size=2), side])
                if all((abs(2 * (place - each)[:2] + side - each[2]) >= side + each[2]).any() for each in taken):
                    sheet.paste(singles.open(row).resize((side, side)), (int(place[0]), int(place[1])))
                    taken.append(place)
                    sheet_tags[singles.labels[row]] = True
                    break
        made.append(sheet)
    return ls.load_tags(made, tags=tags, class_names=singles.class_names)


def scored(pairs: TagInputs, detector: TagDetector) -> tuple[Any, dict[str, NDArray[np.float32]]]:
    """Returns the scores of a detector, and what cleanlab gets, (n, K) each, by what it is called."""
    models, fit, others, kind_of = dict[str, Any](), noise_model.fit_pairs, list[Any](), other_tags.other_tags_kind

    def kept(kinds: list[Any], *arguments: Any, generator: torch.Generator, **more: Any) -> Any:
        state, of_images = generator.get_state(), [kind for kind in kinds if kind not in others]
        models["cleanlab"] = fit(kinds, *arguments, generator=generator, **more)
        if len(of_images) < len(kinds):
            models["cleanlab, image alone"] = fit(of_images, *arguments, generator=generator.set_state(state), **more)
        return models["cleanlab"]

    def noted(*arguments: Any) -> Any:
        others.append(kind_of(*arguments))
        return others[-1]

    with (
        patch.object(joining, "fit_pairs", kept),
        patch.object(joining, "other_tags_kind", noted),
    ):
        scores = detector.score(pairs)
    return scores, {name: tagged(model, pairs) for name, model in models.items()}


def tagged(model: noise_model.TagNoiseModel, pairs: TagInputs) -> NDArray[np.float32]:
    """Returns how likely each image has each tag, (n, K)."""
    chance = torch.cat([model.probability(part) for part in chunks(np.arange(len(pairs.given)))])
    return model.noise.tagged(chance).numpy()


def of_cleanlab(tags: NDArray[np.bool_], tagged: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Returns quality and flags, (N, K), by cleanlab."""
    labels = [np.flatnonzero(row).tolist() for row in tags]
    quality = MultilabelScorer().get_class_label_quality_scores(tags.astype(int), tagged)
    flagged = find_multilabel_issues_per_class(labels, tagged, n_jobs=1)
    return {"quality": quality.astype(np.float32), "flagged": np.asarray(flagged, dtype=bool)}


def detectors(options: Tags) -> dict[str, TagDetector]:
    """Returns what to measure, with each finest grid where a detector looks at windows."""
    found = dict[str, TagDetector]()
    for name in options.detectors:
        kind = tag_detector_class(name)
        if any(field.name == "windows" for field in dataclasses.fields(kind)):
            found |= {f"{name}, windows {finest}": kind(windows=finest) for finest in options.windows}
        else:
            found[name] = kind()
    return found


def main(options: Tags) -> None:
    """Prints AUROC and F1 of both kinds for each seed, and their means, in %."""
    vlm, found = ls.load_vlm(options.model), dict[str, list[dict[str, float]]]()
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            images = load(options, seed, Path(folder))
            inputs = inputs_of_images(images, vlm, class_names=images.class_names, engine=make_engine(seed=seed))
            pairs, read = TagInputs(inputs, images.tags, images), inputs.rows
            for name, detector in detectors(options).items():
                scores, theirs = scored(pairs, detector)
                rows: Any = {name: {"quality": scores.quality[read], "flagged": scores.issue[read]}}
                rows |= {f"{name}, {who}": of_cleanlab(pairs.given, each) for who, each in theirs.items()}
                for method, each in rows.items():
                    metrics: Any = evaluate_pairs(truth=images.truth[read], tags=pairs.given, **each)  # type: ignore[index]
                    found.setdefault(method, []).append({measure: 100 * metrics[measure] for measure in MEASURES})
    print(f"{len(images)} images, {len(images.class_names)} classes, omit {options.omit:g}, add {options.add:g}; in %")
    print(f"| method | seed | {' | '.join(TAG_DETECTION[name].title for name in MEASURES)} |")
    print("|---|---|" + "---:|" * len(MEASURES))
    for method, rows in found.items():
        for seed, row in zip(options.seeds, rows, strict=True):
            print(f"| {method} | {seed} | {' | '.join(f'{row[name]:.1f}' for name in MEASURES)} |")
    if len(options.seeds) > 1:
        for method, rows in found.items():
            columns = [[row[name] for row in rows] for name in MEASURES]
            print(f"| {method} | all | {' | '.join(f'{mean(each):.1f} ± {stdev(each):.1f}' for each in columns)} |")


if __name__ == "__main__":
    main(tyro.cli(Tags))
