"""Copies, leaks between splits and images of no class: found where they are, and nowhere else."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch.nn.functional import normalize

import labelsieve as ls
from labelsieve.core.errors import DataError, SettingsError
from labelsieve.core.progress import Progress
from labelsieve.curation import defects
from labelsieve.curation.duplicates import exact_copies, exact_leaks, groups, near_copies
from labelsieve.curation.findings import DEFECTS, IMAGE_FINDINGS, SCHEMA, image_findings
from labelsieve.curation.outliers import outlier_scores
from labelsieve.curation.search import Search
from labelsieve.report import texts
from labelsieve.report.terminal import summarize
from labelsieve.vlm.base import VisionLanguageModel


def blobs(count: int, *, seed: int = 0, width: int = 12) -> NDArray[np.float32]:
    """Returns points around four class means, the class of point i is i % 4."""
    random = np.random.default_rng(seed)
    means = np.eye(4, width) * 4
    return (means[np.arange(count) % 4] + random.normal(size=(count, width))).astype(np.float32)


def unit(points: NDArray[np.float32]) -> torch.Tensor:
    return normalize(torch.from_numpy(points), dim=-1)


def test_exact_copies_name_the_first_and_the_second() -> None:
    found = exact_copies(np.array([7, 5, 7, 9, 5, 7], dtype=np.uint64))
    assert found.rows.tolist() == [0, 1, 2, 4, 5]
    assert found.others.tolist() == [2, 4, 0, 1, 0]
    assert groups(6, [found]).tolist() == [0, 1, 0, 2, 1, 0]
    assert exact_copies(np.arange(3, dtype=np.uint64)).rows.tolist() == []


def test_exact_leaks() -> None:
    found = exact_leaks(np.array([3, 1, 8], dtype=np.uint64), np.array([8, 2, 3, 8], dtype=np.uint64))
    assert (found.rows.tolist(), found.others.tolist()) == ([0, 2], [2, 0])
    assert exact_leaks(np.array([3], dtype=np.uint64), np.empty(0, dtype=np.uint64)).rows.tolist() == []


def test_near_copies_are_found_within_and_across_and_nothing_else() -> None:
    points, others = blobs(300), blobs(100, seed=1)
    points[200] = points[10] + 0.02
    points[201] = points[11] - 0.02
    others[30] = points[50] * 1.5 + 0.02  # another length is the same image to a cosine
    inside, across = near_copies(unit(np.concatenate([points, others])), count=300)
    assert dict(zip(inside.rows.tolist(), inside.others.tolist(), strict=True)) == {10: 200, 200: 10, 11: 201, 201: 11}
    assert (across.rows.tolist(), across.others.tolist()) == ([50], [30])
    assert inside.similarity.min() > 0.999


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_near_copies_go_by_the_spread_of_the_data_not_by_a_similarity(scale: float) -> None:
    """All cosines of a narrow cone are near 1, and none is a copy for that."""
    random = np.random.default_rng(0)
    points = (np.eye(1, 10) * 3 + scale * random.normal(size=(400, 10))).astype(np.float32)
    assert near_copies(unit(points), count=400)[0].rows.tolist() == []
    points[7] = points[8]
    assert near_copies(unit(points), count=400)[0].rows.tolist() == [7, 8]


def test_data_that_are_all_copies_of_others_are_found() -> None:
    points = np.repeat(blobs(150), 2, axis=0) + np.random.default_rng(2).normal(scale=0.01, size=(300, 12))
    inside, _ = near_copies(unit(points.astype(np.float32)), count=300)
    assert inside.others.tolist() == [row ^ 1 for row in range(300)]


def test_features_that_are_all_alike_say_nothing() -> None:
    assert near_copies(unit(np.ones((200, 8), dtype=np.float32)), count=200)[0].rows.tolist() == []


def test_images_of_no_class_are_farther_from_all_classes_than_wrong_labels_are() -> None:
    points, labels = blobs(800), np.arange(800) % 4
    foreign = np.arange(20)
    points[foreign] = np.random.default_rng(3).normal(size=(20, 12)) + np.eye(8, 12)[7] * 6
    wrong = np.arange(100, 140)
    labels[wrong] = (labels[wrong] + 1) % 4
    trusted = np.ones(800, dtype=bool)
    trusted[[*foreign, *wrong]] = False
    found = outlier_scores(
        points, labels, rows=np.arange(800), trusted=trusted, classes=4, generator=torch.Generator().manual_seed(0)
    )
    assert found is not None
    assert found.outlier[foreign].all()
    assert found.outlier[wrong].mean() < 0.1
    assert found.outlier[trusted].mean() == pytest.approx(0.01, abs=0.003)  # by construction
    assert 0 <= found.score.min() <= found.score.max() <= 1


def test_too_few_believed_labels_say_nothing() -> None:
    points, labels = blobs(120), np.arange(120) % 4
    trusted = np.arange(120) < 50
    generator = torch.Generator().manual_seed(0)
    found = outlier_scores(points, labels, rows=np.arange(120), trusted=trusted, classes=4, generator=generator)
    assert found is None


def noisy_photo(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, size=(6, 6, 3), dtype=np.uint8))
    return small.resize((48, 48), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if options else "PNG", **options)
    return buffer.getvalue()


def write_split(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ls.Verdicts, ls.Verdicts]:
    """Returns run folder and verdicts of a scan against another split, and the verdicts of one without."""
    from labelsieve.demo import MINI_CLIP

    folder = tmp_path_factory.mktemp("splits")
    train = {f"{'cat' if n % 2 else 'dog'}/{n:03}.png": encoded(noisy_photo(n)) for n in range(60)}
    train["cat/copy.png"] = train["dog/000.png"]
    train["dog/again.jpg"] = encoded(noisy_photo(2), quality=95)
    test = {f"cat/t{n}.png": encoded(noisy_photo(n)) for n in (*range(100, 120), 5)}
    test["dog/near.jpg"] = encoded(noisy_photo(7), quality=95)
    images = ls.load_images(write_split(folder / "train", train))
    against = ls.load_images(write_split(folder / "test", test))
    vlm = ls.load_vlm(MINI_CLIP)
    verdicts = ls.scan(images, vlm, detector=ls.KNN(), against=against, out=folder / "run", device="cpu")
    return folder / "run", verdicts, ls.scan(images, vlm, detector=ls.KNN(), device="cpu")


def pairs(table: pa.Table, kind: str) -> set[tuple[str, str]]:
    return {(row["id"], row["other_id"]) for row in table.to_pylist() if row["kind"] == kind}


def test_a_scan_finds_copies_and_leaks(scanned: tuple[Path, ls.Verdicts, ls.Verdicts]) -> None:
    folder, verdicts, _ = scanned
    table = image_findings(folder)
    assert table.schema.equals(SCHEMA)
    assert pairs(table, "exact-duplicate") == {("cat/copy.png", "dog/000.png"), ("dog/000.png", "cat/copy.png")}
    assert pairs(table, "near-duplicate") == {("dog/002.png", "dog/again.jpg"), ("dog/again.jpg", "dog/002.png")}
    assert pairs(table, "exact-leak") == {("cat/005.png", "cat/t5.png")}
    assert pairs(table, "near-leak") == {("cat/007.png", "dog/near.jpg")}
    numbers = {row["id"]: row["group"] for row in table.to_pylist() if row["kind"].endswith("duplicate")}
    assert numbers["cat/copy.png"] == numbers["dog/000.png"] != numbers["dog/002.png"] == numbers["dog/again.jpg"]
    assert ls.Verdicts.load(folder).image_findings == table == verdicts.image_findings
    assert verdicts.record["against"]["images"] == 22


def test_verdicts_are_the_same_without(scanned: tuple[Path, ls.Verdicts, ls.Verdicts]) -> None:
    _, verdicts, alone = scanned
    assert verdicts.table.equals(alone.table)
    assert alone.image_findings is not None
    assert set(alone.image_findings["kind"].to_pylist()) == {"exact-duplicate", "near-duplicate"}


def test_terminal_and_report_name_what_was_found(scanned: tuple[Path, ls.Verdicts, ls.Verdicts]) -> None:
    folder, verdicts, _ = scanned
    console = Console(file=io.StringIO(), width=200)
    summarize(verdicts, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "exact duplicates: 2 images in 1 group, 1 with different given labels" in said
    assert "near duplicates: 2 images in 1 group\n" in said
    assert "leaks between splits (exact): 1 image, also in test" in said
    images = ls.load_images(folder.parent / "train")
    page = ls.write_report(verdicts, images, folder / "report.html").read_text(encoding="utf-8")
    section = page[page.index('id="image_findings"') : page.index('id="image_findings"') + 60_000]
    assert section.index("cat/t5.png") < section.index("dog/near.jpg") < section.index("dog/again.jpg")
    assert section.count("data:image/") >= 6


def test_features_are_compared_with_features_of_the_same_width_only() -> None:
    points, names = blobs(200), [f"class {n % 4}" for n in range(200)]
    features = ls.load_features(points, labels=names)
    against = ls.load_features(np.concatenate([points[:3], blobs(60, seed=5)]), labels=names[:63])
    found = ls.scan(features, detector=ls.KNN(), against=against, device="cpu").image_findings
    assert found is not None
    assert found.filter(pa.compute.equal(found["kind"], "exact-leak"))["id"].to_pylist() == list(features.ids[:3])
    with pytest.raises(ls.LabelsieveError, match="features of width 12 to compare with, got 8"):
        ls.scan(features, detector=ls.KNN(), against=ls.load_features(points[:, :8], labels=names), device="cpu")
    images = ls.load_images(np.zeros((4, 8, 8, 3), dtype=np.uint8), labels=["a", "b", "a", "b"])
    with pytest.raises(ls.LabelsieveError, match="expected images to compare images with, and features for features"):
        ls.scan(features, detector=ls.KNN(), against=images, device="cpu")


def test_a_run_without_findings_has_no_rows_and_others_are_refused(tmp_path: Path) -> None:
    assert image_findings(tmp_path).num_rows == 0
    pq.write_table(pa.table({"kind": ["x"]}), tmp_path / IMAGE_FINDINGS)
    with pytest.raises(ls.LabelsieveError, match="expected the columns kind"):
        image_findings(tmp_path)
    (tmp_path / IMAGE_FINDINGS).write_bytes(b"PAR1 torn")
    with pytest.raises(ls.LabelsieveError, match="cannot be read"):
        image_findings(tmp_path)


def test_images_of_no_class_are_counted_beside_those_expected_by_chance() -> None:
    points = np.concatenate([blobs(400), 50 * np.random.default_rng(1).normal(size=(6, blobs(400).shape[1]))])
    features = ls.load_features(points, labels=[f"class {n % 4}" for n in range(406)])
    verdicts = ls.scan(features, detector=ls.KNN(), device="cpu")
    (line,) = (line for kind, line, _ in texts.image_findings(verdicts) if kind.name == "no-class")
    assert re.search(r"belong to none of the classes: \d+ images \(about 4 are expected by chance\)", line)


def test_a_search_that_takes_hours_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from labelsieve.core.progress import Progress

    monkeypatch.setattr("labelsieve.curation.duplicates.MAX_CPU_OPERATIONS", 200 * 200 * 12 - 1)
    points = blobs(200)
    points[3] = points[4] * 1.5
    features = ls.load_features(np.concatenate([points, points[:1]]), labels=[f"class {n % 4}" for n in range(201)])
    console = Console(file=io.StringIO(), width=200)
    verdicts = ls.scan(features, detector=ls.KNN(), device="cpu", progress=Progress(console))
    assert verdicts.image_findings is not None
    assert set(verdicts.image_findings["kind"].to_pylist()) - {"no-class"} == {"exact-duplicate"}
    assert "near copies were not looked for: 200 images" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_command_compares_with_a_split(scanned: tuple[Path, ls.Verdicts, ls.Verdicts], tmp_path: Path) -> None:
    from labelsieve.cli import main
    from labelsieve.demo import MINI_CLIP

    train, test = (str(scanned[0].parent / name) for name in ("train", "test"))
    words = ["scan", train, "--model", str(MINI_CLIP), "--detector", "knn", "--device", "cpu", "--out", str(tmp_path)]
    assert main([*words, "--against", test]) == 0
    assert pairs(image_findings(tmp_path), "exact-leak") == {("cat/005.png", "cat/t5.png")}
    assert main([*words, "--overwrite", "--against-split", "test"]) == 1


def with_defects(folder: Path) -> Path:
    """Makes 16 images without any defect and one with each."""
    rng = np.random.default_rng(0)

    def photo(width: int = 32, height: int = 32) -> NDArray[np.uint8]:
        small = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST))

    away = np.broadcast_to(np.abs(np.linspace(-1, 1, 32)), (32, 32))  # from the middle: every grey, and no edge
    odd = {
        "dark": photo() // 8,
        "light": 255 - photo() // 40,
        "blurry": np.repeat(255 * (1 - np.maximum(away, away.T) ** 2)[..., None], 3, axis=2).astype(np.uint8),
        "low-information": np.full((32, 32, 3), 90, dtype=np.uint8),
        "odd-aspect-ratio": photo(16, 64),
        "odd-size": photo(300, 300),
    }
    for row, name in enumerate([*map(str, range(16)), *odd]):
        (folder / ["cat", "dog"][row % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(odd.get(name, photo())).save(folder / ["cat", "dog"][row % 2] / f"{name}.png")
    return folder


@pytest.mark.slow
def test_defects_are_found_where_they_are_asked_for(
    tmp_path: Path, tiny_clip: VisionLanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cleanvision")
    images = ls.load_images(with_defects(tmp_path / "photos"))
    alone = ls.scan(images, tiny_clip, detector=ls.LabelMatch())
    verdicts = ls.scan(images, tiny_clip, detector=ls.LabelMatch(), image_defects=True, out=tmp_path / "run")
    assert capsys.readouterr() == ("", ""), "cleanvision has bars of its own"
    assert verdicts.table.equals(alone.table) and alone.image_findings is not None
    assert not {*DEFECTS} & {*alone.image_findings["kind"].to_pylist()}
    rows = [row for row in image_findings(tmp_path / "run").to_pylist() if row["kind"] in DEFECTS]
    expected = {(kind, kind) for kind in DEFECTS} | {("blurry", "dark")}  # what is dark has no strong edges
    assert {(row["kind"], Path(row["id"]).stem) for row in rows} == expected
    assert all(0 < row["score"] <= 1 and row["other_id"] is row["group"] is None for row in rows)
    run = ls.Verdicts.load(tmp_path / "run").run
    assert run.image_defects and alone.run.image_defects is False
    # images that are gone since are left out, the first and a dark one among them
    for name in (images.ids[0], "cat/dark.png"):
        (tmp_path / "photos" / name).unlink()
    inputs: Any = SimpleNamespace(rows=np.arange(len(images)), progress=Progress())
    tables = defects.find_defects(Search(data=images, inputs=inputs, flagged=verdicts.is_issue, defects=True))
    left = {(row["kind"], Path(row["id"]).stem) for table in tables for row in table.to_pylist()}
    assert left == {each for each in expected if each[1] != "dark"}


def test_defects_need_images_and_the_library(monkeypatch: pytest.MonkeyPatch, tiny_clip: VisionLanguageModel) -> None:
    features = ls.load_features(blobs(40), labels=[f"class {n % 4}" for n in range(40)])
    with pytest.raises(SettingsError, match="in images, and features come without; leave out --image-defects"):
        ls.scan(features, detector=ls.KNN(), image_defects=True)
    monkeypatch.setattr(defects, "find_spec", lambda _name: None)
    images = ls.load_images(np.zeros((4, 8, 8, 3), dtype=np.uint8), labels=["a", "b", "a", "b"])
    with pytest.raises(SettingsError, match=r"needs cleanvision; pip install 'labelsieve\[defects\]'"):
        ls.scan(images, tiny_clip, image_defects=True)


def test_labels_of_another_split_do_not_matter(photo_folder: Callable[..., Path], tmp_path: Path) -> None:
    from labelsieve.commands.base import OtherSplit

    def loaded(source: Path) -> Any:
        return OtherSplit(against=str(source)).load(seed=0, progress=Progress())

    folder = photo_folder({"cat": 2})
    (tmp_path / "all.csv").write_text("path,label\nphotos/cat/0.png,cat\nphotos/cat/1.png,cat\n")
    np.savez(tmp_path / "f.npz", features=np.eye(2, dtype=np.float32), labels=["cat", "cat"])
    for source, name in ((folder, "cat"), (tmp_path / "all.csv", "cat"), (folder / "cat", "images")):
        images = loaded(source)
        assert images.class_names == (name,) and len(images) == 2
        assert ls.load_images(**images.origin).fingerprint == images.fingerprint
        with pytest.raises(DataError, match="class"):
            ls.load_images(source)
    assert loaded(tmp_path / "f.npz").class_names == ("cat",)
    # nothing but the comparison takes them
    with pytest.raises(DataError, match='at least two classes to scan, found "cat"'):
        ls.scan(loaded(tmp_path / "f.npz"), detector=ls.KNN())
