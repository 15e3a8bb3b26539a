"""Exports: what other tools get, that user data cannot leave the output folder, and that nothing is half written."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from labelsieve.core.errors import DataError, RunError, SettingsError
from labelsieve.core.output_folders import UniqueNames, new_folder, safe_name
from labelsieve.data.images import LabelledImages
from labelsieve.detect.scores import Scores
from labelsieve.flagging import FlagRule
from labelsieve.report.exports import folder
from labelsieve.report.exports.export import export
from labelsieve.report.exports.folder import MARKER, file_name
from labelsieve.report.exports.registry import FORMATS
from labelsieve.review.row_reviews import marks_of_rows, read_reviews
from labelsieve.verdicts import Verdicts, decide
from small_pictures import plain


def make(
    ids: list[str],
    given: list[int],
    quality: list[float],
    *,
    names: tuple[str, ...] = ("cat", "dog"),
    cells: list[dict[str, object]] | None = None,
    threshold: float = 0.5,
) -> tuple[Verdicts, LabelledImages]:
    n = len(ids)
    cells = cells or [{"bytes": plain((row, 10, 10)), "path": None} for row in range(n)]
    images = LabelledImages(
        dataset=Dataset.from_dict({"image": cells}),
        ids=tuple(ids),
        labels=np.array(given, np.int64),
        class_names=names,
        contents=np.arange(n, dtype=np.uint64),
    )
    unreadable = np.isnan(quality)
    scores = Scores(
        label_quality=np.array(quality, np.float32),
        predicted=np.where(unreadable, -1, np.zeros(n)).astype(np.int64),
        confidence=np.array(quality, np.float32),
        rule=FlagRule(threshold=threshold),
        errors={int(row): "the file is empty" for row in np.flatnonzero(unreadable)},
    )
    return decide(images, scores, record={"source": "photos/", "threshold": threshold}), images


@pytest.fixture
def four() -> tuple[Verdicts, LabelledImages]:
    return make(["a.png", "b.png", "c.png", "d.png"], [0, 1, 1, 0], [0.9, 0.1, 0.8, float("nan")])


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != MARKER)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_hold_every_row_and_column(tmp_path: Path, four: tuple[Verdicts, LabelledImages], kind: str) -> None:
    out = export(four[0], None, format=kind, out=tmp_path / f"t.{kind}")
    table = pq.read_table(out) if kind == "parquet" else pyarrow.csv.read_csv(out)
    assert table.column_names == four[0].table.column_names
    assert table["id"].to_pylist() == ["a.png", "b.png", "c.png", "d.png"]
    assert table["is_label_issue"].to_pylist() == [False, True, False, None]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_cleanlab_frame(tmp_path: Path, four: tuple[Verdicts, LabelledImages], kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    out = export(four[0], None, format="cleanlab", out=tmp_path / f"issues.{kind}")
    frame = (pandas.read_parquet if kind == "parquet" else pandas.read_csv)(out)
    assert list(frame.columns) == ["index", "is_label_issue", "label_quality", "given_label", "predicted_label"]
    assert frame["index"].tolist() == [0, 1, 2, 3]
    assert frame["is_label_issue"].dtype == bool and frame["is_label_issue"].tolist() == [False, True, False, False]
    assert frame["given_label"].tolist() == [0, 1, 1, 0] and frame["predicted_label"].tolist() == [0, 0, 0, -1]
    assert np.allclose(frame["label_quality"], [0.9, 0.1, 0.8, np.nan], equal_nan=True)


def test_cleanlab_names_its_classes(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    out = export(four[0], None, format="cleanlab", out=tmp_path / "issues.parquet")
    assert json.loads(pq.read_schema(out).metadata[b"class_names"]) == ["cat", "dog"]


def test_imagefolder_keeps_what_is_not_flagged(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    out = export(*four, format="imagefolder", out=tmp_path / "clean")
    assert files_of(out) == ["cat/a.png", "dog/c.png"]
    marker = json.loads((out / MARKER).read_text())
    assert (marker["images"], marker["left_out"]) == (2, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean"], "nothing temporary is left"


def test_marks_count_more_than_verdicts(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    verdicts, images = four
    assert verdicts.is_issue.tolist() == [False, True, False, False]
    marks = tmp_path / "marks.csv"
    marks.write_text("id,mark\na.png,wrong\nb.png,right\nc.png,unsure\nd.png,wrong\n")
    export(verdicts, images, format="imagefolder", out=tmp_path / "clean", marks=marks)
    assert files_of(tmp_path / "clean") == ["dog/b.png", "dog/c.png"]
    assert json.loads((tmp_path / "clean" / MARKER).read_text())["left_out"] == 2
    frame = pq.read_table(export(verdicts, None, format="cleanlab", out=tmp_path / "frame.parquet", marks=marks))
    assert frame["is_label_issue"].to_pylist() == [True, False, False, False], "d cannot be read"
    assert np.allclose(frame["label_quality"], [0, 1, 0.8, np.nan], equal_nan=True)
    marks.write_text("id,mark\nz.png,wrong\n")
    for kind, name in (("csv", "x.csv"), ("imagefolder", "x")):
        with pytest.raises(DataError, match=r'"z\.png" in line 2 .* is no image of this run'):
            export(verdicts, images, format=kind, out=tmp_path / name, marks=marks)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_follow_the_marks(tmp_path: Path, four: tuple[Verdicts, LabelledImages], kind: str) -> None:
    verdicts, _ = four
    marks = tmp_path / "marks.csv"
    marks.write_text("id,mark\na.png,wrong\nb.png,right\nc.png,unsure\nd.png,wrong\n")
    out = export(verdicts, None, format=kind, out=tmp_path / f"t.{kind}", marks=marks)
    table = pq.read_table(out) if kind == "parquet" else pyarrow.csv.read_csv(out)
    assert table.column_names == [*verdicts.table.column_names, "mark", "new_label", "left_out"]
    assert table["is_label_issue"].to_pylist() == [True, False, False, None]
    assert table["label_quality"].to_pylist()[:2] == [0, 1] and table["label_quality"][2].as_py() == pytest.approx(0.8)
    assert table["rank"].to_pylist() == [1, 3, 2, None], "what is marked wrong is the most suspicious"
    for column in ("given_label", "predicted_label", "predicted_confidence"):
        expected = verdicts.table[column].to_pylist()
        assert [value or None for value in table[column].to_pylist()] == pytest.approx(expected), "the model's own"
    if kind == "parquet":
        assert table.select(verdicts.table.column_names).schema.equals(verdicts.table.schema)
        assert table["mark"].to_pylist() == ["wrong", "right", "unsure", "wrong"]


def test_flagged_images_that_are_more_likely_right_are_kept_on_demand(tmp_path: Path) -> None:
    verdicts, images = make(["a.png", "b.png", "c.png"], [0, 0, 0], [0.9, 0.6, 0.4], threshold=0.7)
    flagged = export(verdicts, images, format="imagefolder", out=tmp_path / "unflagged")
    likely = export(verdicts, images, format="imagefolder", out=tmp_path / "likely", drop_at=0.5)
    assert files_of(flagged) == ["cat/a.png"] and files_of(likely) == ["cat/a.png", "cat/b.png"]
    with pytest.raises(SettingsError, match=r"expected drop_at from 0 to 1, got 1\.5"):
        export(verdicts, images, format="imagefolder", out=tmp_path / "x", drop_at=1.5)
    with pytest.raises(SettingsError, match="drop_at goes with imagefolder only"):
        export(verdicts, images, format="csv", out=tmp_path / "x.csv", drop_at=0.5)
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.csv").exists()


def test_other_tools_read_the_folder(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    out = export(*four, format="imagefolder", out=tmp_path / "clean")
    from datasets import load_dataset

    read = load_dataset("imagefolder", data_dir=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.features["label"].names == ["cat", "dog"] and read["label"] == [0, 1]


@pytest.mark.parametrize("copy", [False, True])
def test_files_are_linked_or_copied(tmp_path: Path, copy: bool) -> None:
    source = tmp_path / "source" / "x.jpg"
    source.parent.mkdir()
    source.write_bytes(plain("red", kind="JPEG"))
    verdicts, images = make(["x.jpg"], [0], [0.9], cells=[{"bytes": None, "path": str(source)}])
    out = export(verdicts, images, format="imagefolder", out=tmp_path / "clean", copy=copy)
    placed = out / "cat" / "x.jpg"
    assert placed.read_bytes() == source.read_bytes()
    assert placed.samefile(source) is not copy


def test_links_fall_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    source = tmp_path / "x.png"
    source.write_bytes(plain("red"))
    verdicts, images = make(["x.png"], [0], [0.9], cells=[{"bytes": None, "path": str(source)}])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link.png").symlink_to("../x.png")
    linked, linked_images = make(
        ["y.png"], [0], [0.9], cells=[{"bytes": None, "path": str(tmp_path / "deep" / "link.png")}]
    )
    monkeypatch.setattr(os, "symlink", refuse)
    target = export(linked, linked_images, format="imagefolder", out=tmp_path / "relative") / "cat" / "y.png"
    assert not target.is_symlink() and target.samefile(source)
    hard = export(verdicts, images, format="imagefolder", out=tmp_path / "hard") / "cat" / "x.png"
    assert not hard.is_symlink() and hard.samefile(source)
    monkeypatch.setattr(os, "link", refuse)
    copied = export(verdicts, images, format="imagefolder", out=tmp_path / "copied") / "cat" / "x.png"
    assert not copied.samefile(source) and copied.read_bytes() == source.read_bytes()


def test_hostile_names_stay_inside(tmp_path: Path) -> None:
    names = ("../../up", "a/b", "a_b", "..", "", "CON", ".hidden", "Cat", "cat", "x" * 400)
    ids = ["../../etc/passwd", "/abs/x.png", "..", "a\\b.png", "d/e.png", "f/e.png", "n\0l.png", "E.png", "ü" * 300, ""]
    verdicts, images = make(ids, list(range(10)), [0.9] * 10, names=names)
    out = export(verdicts, images, format="imagefolder", out=tmp_path / "deep" / "clean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["clean"]
    placed = files_of(out)
    assert len(placed) == 10 and all(name.count(os.sep) == 1 for name in placed)
    assert len({name.split(os.sep)[0].casefold() for name in placed}) == 10
    assert not any(part.startswith(".") for name in placed for part in name.split(os.sep))
    folders = json.loads((out / MARKER).read_text(encoding="utf-8"))["class_of_folder"]
    assert set(folders.values()) == set(names)


def test_equal_base_names_are_kept_apart(tmp_path: Path) -> None:
    ids = ["a/1.png", "b/1.png", "c/1.PNG", "d/1-2.png"]
    verdicts, images = make(ids, [0] * 4, [0.9] * 4)
    out = export(verdicts, images, format="imagefolder", out=tmp_path / "clean")
    placed = files_of(out)
    assert len({name.casefold() for name in placed}) == 4
    assert len({(out / name).read_bytes() for name in placed}) == 4


def test_many_equal_names_are_quick() -> None:
    names = UniqueNames()
    assert len({names.take("a", "image.jpg") for _ in range(20_000)}) == 20_000
    assert names.take("b", "image.jpg") == "image.jpg"


@pytest.mark.parametrize(
    ("image_id", "kind", "expected"),
    [
        ("12", "PNG", "12.png"),
        ("a/b.jpg", "PNG", "b.png"),
        ("a/b.jpeg", "JPEG", "b.jpeg"),
        ("b.JPG", "JPEG", "b.JPG"),
        ("v1.5", "WEBP", "v1.5.webp"),
        ("", "GIF", "_.gif"),
    ],
)
def test_bytes_get_the_suffix_of_their_encoding(image_id: str, kind: str, expected: str) -> None:
    assert file_name(image_id, plain("red", kind=kind)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"),
        ("a/b", "a_b"),
        ("..", "_"),
        ("nul.txt", "_nul.txt"),
        (" x. ", "x"),
        ("猫", "猫"),
        ("a\nb", "a_b"),
    ],
)
def test_safe_names(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_what_is_there_is_not_overwritten(
    subtests: pytest.Subtests, tmp_path: Path, four: tuple[Verdicts, LabelledImages]
) -> None:
    for kind in [kind for kind in FORMATS if kind != "annotations"]:  # which is of boxes
        with subtests.test(kind):
            out = tmp_path / kind / {"imagefolder": "clean", "parquet": "t.parquet"}.get(kind, "t.csv")
            out.parent.mkdir()
            export(*four, format=kind, out=out)
            with pytest.raises(RunError, match="there already"):
                export(*four, format=kind, out=out)
            assert export(*four, format=kind, out=out, overwrite=True) == out
            assert sorted(path.name for path in out.parent.iterdir()) == [out.name]


def test_overwriting_never_destroys_other_folders(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="not made by an export"):
        export(*four, format="imagefolder", out=photos, overwrite=True)
    with pytest.raises(RunError, match="is a folder"):
        export(*four, format="csv", out=photos, overwrite=True)
    assert (photos / "mine.txt").read_text() == "mine"


def test_an_export_that_somebody_changed_is_not_replaced(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    out = export(*four, format="imagefolder", out=tmp_path / "clean")
    added = out / "cat" / "mine.png"
    added.touch()
    with pytest.raises(RunError, match="was not made by an export or has changed since, so it is not replaced"):
        export(*four, format="imagefolder", out=out, overwrite=True)
    assert added.is_file()
    added.rename(out / "cat" / ".DS_Store")  # which belongs to nobody
    export(*four, format="imagefolder", out=out, overwrite=True)
    (out / MARKER).write_text("{")
    with pytest.raises(RunError, match="so it is not replaced"):
        export(*four, format="imagefolder", out=out, overwrite=True)


def test_names_that_begin_as_formulas_do(tmp_path: Path) -> None:
    ids = ["=1+1", "-2", "'=x", "a.png"]
    verdicts, images = make(ids, [0, 1, 0, 1], [0.1, 0.9, 0.9, 0.9])
    with export(verdicts, images, format="csv", out=tmp_path / "t.csv").open(newline="") as file:
        written = [row["id"] for row in csv.DictReader(file)]
    assert written == ["'=1+1", "-2", "''=x", "a.png"]
    table = pq.read_table(export(verdicts, images, format="parquet", out=tmp_path / "t.parquet"))
    assert table["id"].to_pylist() == ids
    (tmp_path / "marks.csv").write_text("id,mark\n" + "".join(f"{name},wrong\n" for name in written))
    reviews = read_reviews(tmp_path / "marks.csv", verdicts)
    assert marks_of_rows(verdicts, reviews).tolist() == ["wrong"] * len(ids)
    (tmp_path / "marks.csv").write_text("id,mark\n=1+1,right\n")  # as reports of before wrote it
    reviews = read_reviews(tmp_path / "marks.csv", verdicts)
    assert {ids[row]: found.kind for row, found in reviews.items()} == {"=1+1": "label"}


def test_an_export_that_is_the_source_is_not_replaced(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    first = export(*four, format="imagefolder", out=tmp_path / "clean")
    cells: list[dict[str, object]] = [{"bytes": None, "path": str(first / "cat" / "a.png")}]
    verdicts, images = make(["a.png"], [0], [0.9], cells=cells)
    with pytest.raises(RunError, match="of the data itself"):
        export(verdicts, images, format="imagefolder", out=first, overwrite=True)
    assert files_of(first) == ["cat/a.png", "dog/c.png"]


def test_a_folder_on_another_disk_is_replaced_or_told(
    tmp_path: Path, four: tuple[Verdicts, LabelledImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to("far", target_is_directory=True)
    with new_folder(tmp_path / "near") as part:
        (part / "new").touch()
    assert (tmp_path / "near").is_symlink() and files_of(tmp_path / "far") == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "near"]
    (tmp_path / "far" / "new").unlink()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "far")
    with pytest.raises(RunError, match="a disk is mounted there; choose a folder in it"):
        export(*four, format="imagefolder", out=tmp_path / "far", overwrite=True)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts, images = make(["a.png", "b.png"], [0, 1], [0.9, 0.9])
    out = export(verdicts, images, format="imagefolder", out=tmp_path / "clean")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_write_image", full)
    for target, overwrite in ((out, True), (tmp_path / "new", False)):
        with pytest.raises(RunError, match="No space left"):
            export(verdicts, images, format="imagefolder", out=target, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean"]
    assert files_of(out) == ["cat/a.png", "dog/b.png"], "the earlier export is untouched"


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    verdicts, images = make(["x.png"], [0], [0.9], cells=[{"bytes": None, "path": str(tmp_path / "x.png")}])
    with pytest.raises(DataError, match=r"x\.png: the image file does not exist any more"):
        export(verdicts, images, format="imagefolder", out=tmp_path / "clean")
    assert not list(tmp_path.iterdir())


def test_bad_settings_are_named(tmp_path: Path, four: tuple[Verdicts, LabelledImages]) -> None:
    with pytest.raises(SettingsError, match='did you mean "imagefolder"'):
        export(*four, format="imagefoler", out=tmp_path / "x")
    with pytest.raises(SettingsError, match="needs the images"):
        export(four[0], None, format="imagefolder", out=tmp_path / "x")
    with pytest.raises(SettingsError, match="copy goes with imagefolder"):
        export(*four, format="csv", out=tmp_path / "x.csv", copy=True)
    for format, name in (("csv", "x.parquet"), ("parquet", "x.CSV"), ("parquet", "mine.json"), ("csv", "x.txt")):
        with pytest.raises(SettingsError, match=rf"ending in \.{format} .* got {name}"):
            export(*four, format=format, out=tmp_path / name)
    with pytest.raises(SettingsError, match=r"\.csv or \.parquet"):
        export(*four, format="cleanlab", out=tmp_path / "x.txt")
    assert not list(tmp_path.iterdir())
