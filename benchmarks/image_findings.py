"""How well copies and images of no class are found, on real photos into which both were put.

    python benchmarks/image_findings.py copies PHOTOS.parquet --model MODEL
    python benchmarks/image_findings.py foreign FEATURES.npz OTHERS.npz

`copies` adds altered copies of 50 photos for each kind of change. `foreign` adds rows of another data set, 5 % of all,
with random labels, to features with 20 % wrong labels (keys `features` and `truth`), and scans with `joint`.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance
from sklearn.metrics import roc_auc_score

import labelsieve as ls
from labelsieve.curation.findings import NEAR_DUPLICATE
from labelsieve.curation.outliers import outlier_scores

EACH = 50


def jpeg(image: Image.Image, *, quality: int = 90) -> bytes:
    """Encodes an image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """Encodes an image without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cuts a share of each side off."""
    x, y = int(image.width * share), int(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "re-encoded without loss": png,
    "JPEG quality 50": lambda image: jpeg(image, quality=50),
    "JPEG quality 20": lambda image: jpeg(image, quality=20),
    "half the size": lambda image: jpeg(image.resize((image.width // 2, image.height // 2))),
    "mirrored": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "5 % cut off each side": lambda image: jpeg(cropped(image, 0.05)),
    "10 % cut off each side": lambda image: jpeg(cropped(image, 0.10)),
    "brighter by 30 %": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.3)),
}


def copies(photos: Path, model: str) -> None:
    """Prints precision and recall of near duplicates."""
    encoded = [row["bytes"] for row in pq.read_table(photos)["image"].to_pylist()]
    names, pairs = list(CHANGES), {}
    chosen = np.random.default_rng(0).permutation(len(encoded))[: EACH * len(names)]
    for number, row in enumerate(chosen.tolist()):
        name = names[number % len(names)]
        pairs[len(encoded)] = (row, name)
        encoded.append(CHANGES[name](Image.open(io.BytesIO(encoded[row])).convert("RGB")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.parquet"
        labels = [str(row % 2) for row in range(len(encoded))]
        pq.write_table(pa.table({"image": pa.array(encoded, pa.binary()), "label": labels}), path)
        images = ls.load_images(path, image_column="image", label_column="label")
        verdicts = ls.scan(images, ls.load_vlm(model), detector=ls.KNN(), device="cpu")
    place = {name: row for row, name in enumerate(images.ids)}
    table = verdicts.image_findings
    rows = [] if table is None else [row for row in table.to_pylist() if row["kind"] == NEAR_DUPLICATE]
    found = {tuple(sorted((place[row["id"]], place[row["other_id"]]))) for row in rows}
    true = {(source, copy): name for copy, (source, name) in pairs.items()}
    right = found & set(true)
    print(f"{len(images)} images, {len(found)} pairs found, {len(right)} of them among the {len(true)} that were made")
    for name in names:
        of_kind = [pair for pair, change in true.items() if change == name]
        print(f"  {name}: {sum(pair in right for pair in of_kind)} of {len(of_kind)}")
    for pair in sorted(found - set(true)):
        print("  not made:", *(images.ids[row] for row in pair))


def foreign(features: Path, others: Path) -> None:
    """Prints AUROC of the distance to the nearest class, and how many of those listed are foreign."""
    data, other, random = np.load(features), np.load(others), np.random.default_rng(0)
    points, truth = data["features"].astype(np.float32), data["truth"].astype(np.int64)
    count, classes = len(points) // 20, int(truth.max()) + 1
    added = other["features"].astype(np.float32)[random.permutation(len(other["features"]))[:count]]
    labels = np.concatenate([truth, random.integers(0, classes, count)])
    wrong = np.flatnonzero(random.random(len(points)) < 0.2)
    labels[wrong] = (labels[wrong] + random.integers(1, classes, len(wrong))) % classes
    points, strange = np.concatenate([points, added]), np.arange(len(labels)) >= len(truth)
    loaded = ls.load_features(points, labels=labels, class_names=[str(index) for index in range(classes)])
    verdicts = ls.scan(loaded, detector=ls.Joint(), device="cpu")
    import torch

    found = outlier_scores(
        points,
        labels,
        rows=np.arange(len(labels)),
        trusted=~verdicts.is_issue,
        classes=classes,
        generator=torch.Generator().manual_seed(0),
    )
    if found is None:
        raise SystemExit("too few labels are trusted")
    quality = roc_auc_score(strange, found.distance), roc_auc_score(strange, -verdicts.label_quality)
    print(f"AUROC {quality[0]:.3f} (1 - p_clean: {quality[1]:.3f}); ", end="")
    print(
        f"{int(found.outlier.sum())} listed, {int((found.outlier & strange).sum())} of {count} foreign ones among them"
    )


def main() -> None:
    """Reads the words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    first = verbs.add_parser("copies")
    first.add_argument("photos", type=Path)
    first.add_argument("--model", default="openai/clip-vit-base-patch16")
    second = verbs.add_parser("foreign")
    second.add_argument("features", type=Path)
    second.add_argument("others", type=Path)
    args = parser.parse_args()
    if args.verb == "copies":
        copies(args.photos, args.model)
    else:
        foreign(args.features, args.others)


if __name__ == "__main__":
    main()
