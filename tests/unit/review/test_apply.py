"""Corrected labels, written back: in the form that the data came in, and nothing else changes."""

from __future__ import annotations

import csv
import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from labelsieve.commands.apply import scan_options
from labelsieve.commands.scan import Scan
from labelsieve.data.loading import load_images
from labelsieve.data.sources.arrow_writing import _compression
from labelsieve.detect.deft.detector import RECIPES
from labelsieve.detect.joint import Joint
from labelsieve.review import key_of
from labelsieve.review.changes import Change, read_changes, write_changes
from labelsieve.verdicts import Verdicts
from small_answers import answer, labels_of, run_of
from small_pictures import plain

Run = Callable[..., tuple[int, str, str]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(answer: tuple[int, str, str], said: str) -> None:
    code, _, err = answer
    assert code == 1 and err.count("\n") == 1 and said in err, err


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Path:
    """Returns a folder with three classes, and files that are no images."""
    folder = photo_folder({"cat": 3, "dog": 3, "owl": 2})
    (folder / "README.md").write_text("mine")
    (folder / ".hidden").write_text("mine, too")
    (folder / "cat" / "notes").mkdir()
    (folder / "cat" / "notes" / "a.txt").write_text("cats")
    return folder


def test_the_next_scan_reads_and_scores_the_data_as_the_run_did(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array([], pa.string())})
    source = tmp_path / "given" / "photos.csv"
    source.parent.mkdir()
    source.touch()
    origin = {"source": str(source), "label_column": "mine", "class_names": ["a b", "c"], "limit": 5, "seed": 1}
    settings = dataclasses.asdict(Joint(folds=3))
    detector: dict[str, Any] = {"name": "joint", "recipe": None, "settings": settings}
    record = {"origin": origin, "model": {"name": "some/model"}, "detector": detector, "seed": 7}
    verdicts = Verdicts(table=table, class_names=("a b", "c"), record=record)
    corrected = tmp_path / "corrected.csv"
    corrected.touch()
    words = ["--image-folder", str(source.parent), "--label-column", "mine", "--class-names", "a b", "c"]
    words += ["--model", "some/model", "--detector", "joint", "--folds", "3", "--seed", "7"]
    assert scan_options(verdicts, corrected) == words
    command: Scan[Any] = Scan.parse([str(corrected), "--out", "x", *words], prog="labelsieve scan")
    assert (command.data.label_column, command.data.class_names) == (("mine",), ("a b", "c"))
    assert (command.settings, command.seed) == (Joint(folds=3), 7)
    beside = source.with_name("corrected.csv")
    beside.touch()
    assert "--image-folder" not in scan_options(verdicts, beside), "its paths are relative to the same folder"
    recipe = {
        **record,
        "detector": {"name": "deft", "recipe": "paper", "settings": dataclasses.asdict(RECIPES["paper"])},
    }
    options = scan_options(dataclasses.replace(verdicts, record=recipe), beside)
    assert options[-4:] == ["--recipe", "paper", "--seed", "7"] and "--detector" not in options


# ---------------------------------------------------------------------------------------------------- class folders


@pytest.mark.parametrize("copy", [False, True])
def test_images_move_to_the_folder_of_their_class(photos: Path, tmp_path: Path, run: Run, copy: bool) -> None:
    before, out, done = files_of(photos), tmp_path / "corrected", tmp_path / "run"
    images = run_of(done, photos)
    said = {
        "cat/0.png": "dog",
        "cat/1.png": "cat",
        "dog/0.png": "<none>",
        "owl/1.png": ("cat", "dog"),
        "owl/0.png": "<unsure>",
    }
    answer(done, images, said)
    code, told, err = run("apply", done, "--out", out, *(["--copy"] if copy else []))
    assert (code, err) == (0, "")
    assert f"wrote {out}: 2 labels corrected, 1 image left out" in told
    again = f"labelsieve scan {out} --reviewed {done} --out {done}-again\n"
    assert "without them the estimate would be too low" in told and again in told
    assert files_of(photos) == before, "the source stays"
    expected = {**before, "dog/0-2.png": before["cat/0.png"], "cat/1-2.png": before["owl/1.png"]}
    for name in ("cat/0.png", "dog/0.png", "owl/1.png"):
        del expected[name]
    # the name of an image that is left out is free
    expected["dog/0.png"] = expected.pop("dog/0-2.png")
    assert files_of(out) == expected
    assert (out / "cat/2.png").is_symlink() is not copy
    with (tmp_path / "corrected.changes.csv").open() as file:
        rows = [(row["id"], row["old"], row["new"], row["who"], row["why"]) for row in csv.DictReader(file)]
    assert rows == [
        ("cat/0.png", "cat", "dog", "ann", "reviewed"),
        ("dog/0.png", "dog", "", "ann", "none of the classes"),
        ("owl/1.png", "owl", "cat", "ann", "several classes: cat, dog"),
    ]


def test_several_classes_keep_a_label_that_is_among_them(photos: Path, tmp_path: Path, run: Run) -> None:
    images = run_of(tmp_path / "run", photos)
    answer(tmp_path / "run", images, {"cat/0.png": ("dog", "cat")})
    assert run("apply", tmp_path / "run", "--out", tmp_path / "out")[0] == 0
    assert files_of(tmp_path / "out") == files_of(photos)


def test_copies_of_an_image_share_the_answer(photos: Path, tmp_path: Path, run: Run) -> None:
    shutil.copy(photos / "cat/0.png", photos / "owl/9.png")
    images = run_of(tmp_path / "run", photos)
    answer(tmp_path / "run", images, {"cat/0.png": "dog"})
    assert run("apply", tmp_path / "run", "--out", tmp_path / "out")[0] == 0
    assert {"dog/0-2.png", "dog/9.png"} <= files_of(tmp_path / "out").keys()


def test_a_folder_in_place_keeps_a_backup(photos: Path, tmp_path: Path, run: Run) -> None:
    before, done = files_of(photos), tmp_path / "run"
    images = run_of(done, photos)
    answer(done, images, {"cat/0.png": "owl"})
    code, told, err = run("apply", done, "--in-place")
    assert (code, err) == (0, "") and f"what was there before is {photos}.backup" in told
    assert files_of(photos.with_name("photos.backup")) == before
    moved = {**before, "owl/0-2.png": before["cat/0.png"]}
    del moved["cat/0.png"]
    assert files_of(photos) == moved and not any(path.is_symlink() for path in photos.rglob("*"))
    # more answers in the same run: the image of the first has moved, which its content tells
    answer(done, images, {"dog/1.png": "cat"}, reviewer="ben")
    code, told, err = run("apply", done, "--in-place")
    assert (code, err) == (0, "") and "1 label corrected" in told and f"{photos}-2.backup" in told
    assert "cat/1-2.png" in files_of(photos) and "owl/0-2.png" in files_of(photos)
    assert "nothing to change" in run("apply", done, "--in-place")[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "photos", "photos-2.backup", "photos-2.changes.csv", "photos.backup", "photos.changes.csv", "run",
    ]  # fmt: skip


def test_links_between_images_outlast_the_move_of_what_they_lead_to(photos: Path, tmp_path: Path, run: Run) -> None:
    (photos / "dog/link.png").symlink_to("../cat/0.png")
    (photos / "dog/whole.png").symlink_to(photos / "cat/1.png")
    (photos / "dog/gone.png").symlink_to("../nowhere.png")
    before, images = files_of(photos), run_of(tmp_path / "run", photos)
    answer(tmp_path / "run", images, {"cat/0.png": "owl", "cat/1.png": "owl"})
    assert run("apply", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--copy")[0] == 0
    assert run("apply", str(tmp_path / "run"), "--in-place")[0] == 0
    for folder in (tmp_path / "out", photos):
        assert sorted(files_of(folder).values()) == sorted(before.values())
        assert not {"dog/link.png", "cat/0.png", "cat/1.png"} & files_of(folder).keys(), "copies share the answer"
        assert (folder / "dog/gone.png").is_symlink()


def test_classes_that_were_renamed_keep_their_folders(photos: Path, tmp_path: Path, run: Run) -> None:
    images = run_of(tmp_path / "run", photos, class_names=["Katze", "Hund", "Eule"])
    answer(tmp_path / "run", images, {"cat/0.png": "Eule"})
    assert run("apply", tmp_path / "run", "--out", tmp_path / "out")[0] == 0
    assert "owl/0-2.png" in files_of(tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def table(photos: Path, tmp_path: Path) -> Path:
    """Returns a CSV file with more columns, a byte order mark, quotes, blank lines and line ends of Windows."""
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    lines = ["path;label;remark", *(f'"{name}";{name[:3]};"no, {row}\r\n""x"""' for row, name in enumerate(names))]
    lines.insert(3, "")
    path = photos / "labels.csv"
    path.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    return path


def test_a_csv_changes_in_its_labels_alone(table: Path, tmp_path: Path, run: Run) -> None:
    before, done = table.read_bytes(), tmp_path / "run"
    images = run_of(done, table)
    answer(done, images, {"cat/0.png": "dog", "owl/1.png": "cat", "dog/1.png": "<wrong>"})
    out = table.with_name("corrected.csv")
    code, told, err = run("apply", done, "--out", out)
    assert (code, err) == (0, "") and "2 labels corrected, 1 image left out" in told
    expected = before.replace(b'"cat/0.png";cat', b'"cat/0.png";dog').replace(b'"owl/1.png";owl', b'"owl/1.png";cat')
    expected = expected.replace(b'"dog/1.png";dog;"no, 4\r\n""x"""\r\n', b"")
    assert out.read_bytes() == expected and table.read_bytes() == before
    assert "--image-folder" not in told
    elsewhere = tmp_path / "elsewhere.csv"
    assert f"--image-folder {table.parent}" in run("apply", done, "--out", elsewhere)[1]
    assert elsewhere.read_bytes() == expected
    assert labels_of(elsewhere, image_folder=table.parent)["cat/0.png"] == "dog"


def test_a_csv_in_place(table: Path, tmp_path: Path, run: Run) -> None:
    before, done = table.read_bytes(), tmp_path / "run"
    answer(done, run_of(done, table), {"cat/0.png": "dog"})
    code, told, err = run("apply", done, "--in-place")
    assert (code, err) == (0, "")
    assert table.read_bytes() == before.replace(b'"cat/0.png";cat', b'"cat/0.png";dog')
    assert table.with_name("labels.csv.backup").read_bytes() == before
    assert f"what was there before is {table}.backup" in told


@pytest.mark.parametrize("kind", ["csv", "folder"])
def test_what_fails_in_place_leaves_all_as_it_was(
    kind: str, table: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, done = table if kind == "csv" else table.parent, tmp_path / "run"
    before = files_of(table.parent)
    answer(done, run_of(done, source), {"cat/0.png": "dog"})

    def full(*_words: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    written = {
        "csv": "data.sources.csv_edits.write_csv",
        "folder": "review.writers.class_folders.ClassFolders.write",
    }
    monkeypatch.setattr(f"labelsieve.{written[kind]}", full)
    one_line(run("apply", done, "--in-place"), "No space left on device")
    assert files_of(table.parent) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


def test_files_that_were_replaced_before_another_one_failed_are_put_back(
    photos: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, done = tmp_path / "table", tmp_path / "run"
    folder.mkdir()
    for part, name in enumerate(("cat", "dog", "owl")):
        (folder / f"train-{part}.csv").write_text(f"path,label\n{name}/0.png,{name}\n{name}/1.png,{name}\n")
    before = files_of(folder)
    images = run_of(done, folder, image_folder=photos)
    answer(done, images, {"cat/0.png": "dog", "dog/0.png": "cat", "owl/0.png": "cat"})
    replace = Path.replace

    def fails(path: Path, target: Path) -> Path:
        if target == folder / "train-1.csv":
            raise OSError(errno.EACCES, "Permission denied")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    one_line(run("apply", done, "--in-place"), "Permission denied")
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("values", "new", "names"),
    [
        ("0 0 1 1", "1 0 1 1", ["cat", "dog"]),
        ("0.0 0.0 1.0 1.0", "2.0 0.0 1.0 1.0", ["cat", "owl", "dog"]),
        ("Cat Cat dog dog", "dog Cat dog dog", None),
        ("cat Cat a_dog A-Dog", "a_dog Cat a_dog A-Dog", ["cat", "a dog"]),
    ],
)
def test_a_label_is_written_as_the_column_writes_it(
    values: str, new: str, names: list[str] | None, photos: Path, tmp_path: Path, run: Run
) -> None:
    path = photos / "labels.csv"
    text = "path,label\n" + "".join(f"cat/{i % 3}.png,{{}}\n" if i < 3 else "dog/0.png,{}\n" for i in range(4))
    path.write_text(text.format(*values.split()))
    images = run_of(tmp_path / "run", path, **({"class_names": names} if names else {}))
    target = {"1": "dog", "2.0": "dog", "dog": "dog", "a_dog": "a dog"}[new.split()[0]]
    answer(tmp_path / "run", images, {"cat/0.png": target})
    assert run("apply", tmp_path / "run", "--in-place")[0] == 0
    assert path.read_text() == text.format(*new.split())


def rows_of_images(photos: Path) -> list[dict[str, Any]]:
    paths = sorted(photos.rglob("*.png"))
    names = [path.relative_to(photos).as_posix() for path in paths]
    return [
        {"id": name, "image": path.read_bytes(), "label": name[:3], "more": row, "other": [row, None]}
        for row, (name, path) in enumerate(zip(names, paths, strict=True))
    ]


def test_parquet_keeps_schema_metadata_and_row_groups(photos: Path, tmp_path: Path, run: Run) -> None:
    table = pa.Table.from_pylist(rows_of_images(photos))
    label = table["label"].combine_chunks().dictionary_encode()
    table = table.set_column(2, pa.field("label", label.type, metadata={"a": "b"}), label)
    table = table.replace_schema_metadata({"mine": "yes"})
    source, done, out = tmp_path / "t.parquet", tmp_path / "run", tmp_path / "new.parquet"
    pq.write_table(table, source, row_group_size=3, compression={"image": "none", "more": "zstd"}, version="2.4")
    images = run_of(done, source)
    answer(done, images, {"cat/0.png": "dog", "owl/1.png": "cat", "dog/0.png": "<none>"})
    code, _, err = run("apply", done, "--out", out)
    assert (code, err) == (0, "")
    old, new = pq.ParquetFile(source), pq.ParquetFile(out)
    assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
    assert [new.metadata.row_group(group).num_rows for group in range(3)] == [3, 2, 2]
    for column in range(old.metadata.num_columns):
        before, after = (each.metadata.row_group(0).column(column) for each in (old, new))
        assert (before.compression, before.encodings) == (after.compression, after.encodings)
    expected = old.read().to_pylist()
    expected[0]["label"], expected[7]["label"] = "dog", "cat"
    assert new.read().to_pylist() == expected[:3] + expected[4:]
    assert labels_of(out)["cat/0.png"] == "dog"


@pytest.mark.parametrize("kind", ["stream", "file", "lz4", "zstd"])
def test_arrow_files_stay_what_they_are(kind: str, photos: Path, tmp_path: Path, run: Run) -> None:
    table = pa.Table.from_pylist(rows_of_images(photos)).replace_schema_metadata({"mine": "yes"})
    label = table["label"].combine_chunks().dictionary_encode()
    table = table.set_column(2, "label", label)
    source, done = tmp_path / ("t.feather" if kind in ("lz4", "zstd") else "t.arrow"), tmp_path / "run"
    if kind in ("lz4", "zstd"):
        pyarrow.feather.write_feather(table, source, compression=kind, chunksize=3)
    else:
        new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with pa.OSFile(str(source), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    answer(done, run_of(done, source), {"cat/0.png": "dog", "owl/1.png": "cat"})
    out = source.with_stem("new")
    assert run("apply", done, "--out", out)[0] == 0

    def opened(path: Path) -> Any:
        return (pa.ipc.open_stream if kind == "stream" else pa.ipc.open_file)(path.read_bytes())

    assert opened(out).schema.equals(opened(source).schema, check_metadata=True)
    assert _compression(out) == _compression(source) == (kind if kind in ("lz4", "zstd") else None)
    before, after = opened(source).read_all(), opened(out).read_all()
    assert [len(chunk) for chunk in after["more"].chunks] == [len(chunk) for chunk in before["more"].chunks]
    expected = before.to_pylist()
    expected[0]["label"], expected[7]["label"] = "dog", "cat"
    assert after.to_pylist() == expected


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_in_several_files(suffix: str, photos: Path, tmp_path: Path, run: Run) -> None:
    folder, done, out = tmp_path / "table", tmp_path / "run", tmp_path / "new"
    folder.mkdir()
    rows = [{"path": str(photos / row["id"]), "label": row["label"]} for row in rows_of_images(photos)]
    for part, (start, end) in enumerate([(0, 3), (3, 6), (6, 8)]):
        table = pa.Table.from_pylist(rows[start:end])
        path = folder / f"train-{part:05d}-of-00003.{suffix}"
        if suffix == "csv":
            path.write_text("path,label\n" + "".join(f"{row['path']},{row['label']}\n" for row in rows[start:end]))
        else:
            pq.write_table(table, path)
    (folder / f"test.{suffix}").write_bytes((folder / f"train-00000-of-00003.{suffix}").read_bytes())
    (folder / "README.md").write_text("mine")
    before = files_of(folder)
    images = run_of(done, folder, image_folder=photos)
    answer(done, images, {"cat/1.png": "owl", "owl/0.png": "cat"})
    code, _, err = run("apply", done, "--out", out, "--copy")
    assert (code, err) == (0, "") and files_of(folder) == before
    after = files_of(out)
    changed = {name for name in before if before[name] != after[name]}
    assert after.keys() == before.keys()
    assert changed == {f"train-00000-of-00003.{suffix}", f"train-00002-of-00003.{suffix}"}
    found = labels_of(out, image_folder=photos)
    assert found["cat/1.png"] == "owl" and found["owl/0.png"] == "cat" and found["dog/0.png"] == "dog"
    # a pattern, in place
    answer(done, images, {"dog/2.png": "owl"})
    code, _, err = run("apply", done, "--in-place", "--source", folder / f"train-*.{suffix}")
    assert (code, err) == (0, "")
    assert files_of(folder)[f"train-00001-of-00003.{suffix}.backup"] == before[f"train-00001-of-00003.{suffix}"]
    assert labels_of(folder, image_folder=photos)["dog/2.png"] == "owl"


@pytest.mark.parametrize("several", [False, True])
def test_a_saved_data_set(several: bool, photos: Path, tmp_path: Path, run: Run) -> None:
    rows = rows_of_images(photos)
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog", "owl", "fox"]),
            "more": datasets.Value("int32"),
        }
    )
    columns = {name: [row[name] for row in rows] for name in features}
    columns["image"] = [{"bytes": each, "path": None} for each in columns["image"]]
    made = datasets.Dataset.from_dict(columns, features=features)
    source, done, out = tmp_path / "saved", tmp_path / "run", tmp_path / "new"
    (datasets.DatasetDict({"train": made, "test": made}) if several else made).save_to_disk(str(source))
    answer(done, run_of(done, source), {"cat/0.png": "fox", "owl/1.png": "cat", "dog/0.png": "<none>"})
    code, _, err = run("apply", done, "--out", out)
    assert (code, err) == (0, "")
    found = datasets.load_from_disk(str(out))
    if several:
        assert found["test"].with_format("arrow")[:].equals(made.with_format("arrow")[:])
    new = found["train"] if several else found
    assert new.features == features and new._fingerprint != made._fingerprint
    expected = [features["label"].str2int(row["label"]) for row in rows]
    expected[0], expected[7] = 3, 0
    assert new["label"][:] == expected[:3] + expected[4:]
    assert new["more"][:] == [0, 1, 2, 4, 5, 6, 7]


# ------------------------------------------------------------------------------------------------ the list of changes


def test_the_owner_of_the_data_applies_the_list(table: Path, tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    images = run_of(done, table.parent)
    answer(done, images, {"cat/0.png": "dog", "cat/1.png": "owl", "dog/1.png": "<none>"})
    assert run("apply", done, "--out", tmp_path / "mine")[0] == 0
    changes = tmp_path / "mine.changes.csv"
    assert len(read_changes(changes)) == 3
    # in a table, where the ids are the same; and in a folder in which an image has another name
    before = table.read_bytes()
    code, told, err = run("apply", "--changes", changes, table, "--in-place")
    assert (code, err) == (0, "") and "2 labels corrected, 1 image left out" in told
    assert labels_of(table)["cat/0.png"] == "dog" and before != table.read_bytes()
    theirs = tmp_path / "theirs"
    shutil.copytree(table.parent, theirs)
    (theirs / "cat/0.png").rename(theirs / "cat/zero.png")
    (theirs / "dog/1.png").unlink()
    (theirs / "cat/1.png").rename(theirs / "owl/1-2.png")
    code, told, err = run("apply", "--changes", changes, theirs, "--out", tmp_path / "new")
    assert (code, err) == (0, "") and "1 label corrected" in told
    assert "1 label had been corrected before" in told and "1 image of the changes is not there: dog/1.png" in told
    assert (tmp_path / "new/dog/zero.png").exists() and not (tmp_path / "new.changes.csv").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,old,new\nz.png,cat,dog\n", "belongs to other data"),
        ("id,old,new\ncat/0.png,cat,wolf\n", 'found "wolf"'),
        ("id,old,new\ncat/0.png,cat,dgo\n", 'did you mean "dog"'),
        ("id,old,new\ncat/0.png,cat,dog\ncat/0.png,cat,owl\n", "is changed twice"),
        ("id,new\ncat/0.png,dog\n", 'expected a column "old"'),
        ("", 'expected a column "id"'),
        (None, "cannot be read as a CSV of changes"),
    ],
)
def test_a_list_that_does_not_fit(text: str | None, said: str, photos: Path, tmp_path: Path, run: Run) -> None:
    path, out = tmp_path / "changes.csv", tmp_path / "out"
    if text is not None:
        path.write_text(text)
    one_line(run("apply", "--changes", path, photos, "--out", out), said)
    assert not out.exists()


def test_an_image_with_another_label_stays(photos: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "changes.csv").write_text("id,old,new\ncat/0.png,dog,owl\ncat/1.png,cat,owl\n")
    told = run("apply", "--changes", tmp_path / "changes.csv", photos, "--out", tmp_path / "out")[1]
    assert "1 image has another label than the list says, and no change: cat/0.png" in told
    assert (tmp_path / "out/cat/0.png").exists() and (tmp_path / "out/owl/1-2.png").exists()


def test_a_list_with_other_class_names_says_which_option_it_needs(photos: Path, tmp_path: Path, run: Run) -> None:
    images = load_images(str(photos), class_names=["cat", "sun dog", "owl"])
    changes = [Change(id="dog/0.png", old="sun dog", new="cat", content=key_of(int(images.contents[3])))]
    write_changes(tmp_path / "some.changes.csv", changes)
    code, told, _ = run("apply", "--changes", tmp_path / "some.changes.csv", photos, "--out", tmp_path / "out")
    told = " ".join(told.split())
    assert code == 0 and "1 image has another label than the list says" in told
    assert 'classes that these data do not have: "sun dog"; if it was made with other names' in told
    names = ("--class-names", "cat", "sun dog", "owl")
    words = ("--changes", tmp_path / "some.changes.csv", photos, "--out", tmp_path / "named", *names)
    code, told, _ = run("apply", *words)
    assert code == 0 and "1 label corrected" in told and "do not have" not in told


# ------------------------------------------------------------------------------------------------------------ bad input


def test_what_cannot_be_applied(photos: Path, tmp_path: Path, run: Run) -> None:
    done, out = tmp_path / "run", tmp_path / "out"
    images = run_of(done, photos)
    one_line(run("apply", done, "--out", out), "has no reviews yet")
    answer(done, images, {"cat/0.png": "dog"})
    assert run("apply", done)[0] == 2 and run("apply", done, "--out", out, "--in-place")[0] == 2
    assert run("apply", done, "--out", out, "--label-column", "x")[0] == 2
    one_line(run("apply", photos / "cat/0.png", "--out", out), "expected the folder of a run")
    one_line(run("apply", photos, "--out", out), "expected a finished run")
    one_line(run("apply", done, "--out", photos / "new"), "expected --out outside of the source folder")
    out.write_text("mine")
    one_line(run("apply", done, "--out", out), "is there already")
    one_line(run("apply", done, "--out", out / "below"), "could not write")
    assert out.read_text() == "mine" and not list(tmp_path.glob("*changes*"))


def test_names_and_sources_that_do_not_go(table: Path, tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    answer(done, run_of(done, table), {"cat/0.png": "dog"})
    for name in ("new.parquet", "new", "new.txt"):
        one_line(run("apply", done, "--out", tmp_path / name), "expected --out to end in .csv")
    (tmp_path / "changes.csv").write_text("id,old,new\ncat/0.png,cat,dog\n")
    moved = table.with_name("moved.csv")
    one_line(run("apply", "--changes", tmp_path / "changes.csv", moved, "--out", tmp_path / "x.csv"), "does not exist")
    table.rename(moved)
    one_line(run("apply", done, "--out", tmp_path / "x.csv"), "--source says where")
    assert run("apply", done, "--out", tmp_path / "x.csv", "--source", moved)[0] == 0
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["changes.csv", "x.csv", "x.csv.changes.csv"]


def test_features_are_not_written_back(tmp_path: Path, run: Run) -> None:
    points = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    np.savez(tmp_path / "f.npz", features=points, labels=np.repeat(["cat", "dog"], 10))
    words = ("--detector", "knn", "--device", "cpu", "--out", tmp_path / "run")
    assert run("scan", tmp_path / "f.npz", *words)[0] == 0
    one_line(run("apply", tmp_path / "run", "--out", tmp_path / "x"), "features have no file of labels")


def test_a_class_that_does_not_exist_any_more(photos: Path, tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    answer(done, run_of(done, photos), {"cat/0.png": "wolf"})
    one_line(
        run("apply", done, "--out", tmp_path / "out"),
        'expected classes out of cat, dog, owl in the reviews, found "wolf"',
    )
    assert not (tmp_path / "out").exists()


def test_reviews_of_other_data(photos: Path, photo_folder: Callable[..., Path], tmp_path: Path, run: Run) -> None:
    done, other = tmp_path / "run", tmp_path / "other"
    other.mkdir()
    for name in ("cat", "dog"):
        (other / name).mkdir()
        (other / name / "0.png").write_bytes(plain((9, 9, 9 if name == "cat" else 8)))
    answer(done, run_of(done, photos), {"cat/0.png": "dog"})
    one_line(run("apply", done, "--out", tmp_path / "out", "--source", other), "the reviews are of other data")
    (photos / "cat/0.png").unlink()
    one_line(run("apply", done, "--out", tmp_path / "out"), "the reviews are of other data")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_folders_that_may_not_be_written(photos: Path, tmp_path: Path, run: Run) -> None:
    done, closed = tmp_path / "run", tmp_path / "closed"
    answer(done, run_of(done, photos), {"cat/0.png": "dog"})
    closed.mkdir()
    for folder in (closed, done):
        folder.chmod(0o500)
    try:
        one_line(run("apply", done, "--out", closed / "out"), "could not write")
        assert run("apply", done, "--out", tmp_path / "out")[0] == 0, "a run is only read"
    finally:
        for folder in (closed, done):
            folder.chmod(0o700)


def test_labels_of_a_noise_file_and_published_sets_are_not_written_back(photos: Path, tmp_path: Path, run: Run) -> None:
    noise, done = tmp_path / "noise.parquet", tmp_path / "run"
    assert run("noise", photos, "--kind", "symmetric", "--rate", 0.5, "--labels-only", "--out", noise)[0] == 0
    answer(done, run_of(done, photos, noise=noise), {"cat/0.png": "dog"})
    one_line(run("apply", done, "--out", tmp_path / "out"), "those of a file of noise")
    rows = [f"{path.relative_to(photos).as_posix()},{path.parent.name},cat" for path in sorted(photos.rglob("*.png"))]
    (photos / "votes.csv").write_text("\n".join(["path,ann,bob", *rows]))
    done = tmp_path / "votes"
    answer(done, run_of(done, photos / "votes.csv", label_column=["ann", "bob"]), {"cat/0.png": "dog"})
    one_line(
        run("apply", done, "--out", tmp_path / "out.csv"), "the vote of several annotators, and no column of the source"
    )
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*changes*"))


def test_the_marks_of_a_report_are_applied(photos: Path, tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    run_of(done, photos)
    marks = tmp_path / "marks.csv"
    marks.write_text("id,mark,new_label\ncat/0.png,wrong,owl\ncat/1.png,wrong,\ndog/0.png,right,\ndog/1.png,unsure,\n")
    code, told, err = run("apply", done, "--out", tmp_path / "out", "--marks", marks)
    assert (code, err) == (0, "") and "1 label corrected, 1 image left out" in told
    assert (tmp_path / "out/owl/0-2.png").exists() and not (tmp_path / "out/cat/1.png").exists()


def test_flagged_labels_without_an_answer_are_counted(photos: Path, tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    images = run_of(done, photos)
    marks = tmp_path / "marks.csv"
    marks.write_text("id,mark,new_label\ncat/0.png,wrong,owl\n")
    _, told, _ = run("apply", done, "--out", tmp_path / "out", "--marks", marks)
    assert "--reviewed" not in told, "marks alone are not in the run"
    assert "note: 4 flagged labels have no answer that decides, and stay as they are; answer with: " in told
    answer(done, images, {"dog/1.png": "dog", "owl/1.png": "<unsure>", "owl/0.png": "<none>"})
    _, told, _ = run("apply", done, "--out", tmp_path / "reviewed")
    assert "note: 2 flagged labels have no answer that decides" in told and "--reviewed" in told


def test_marks_that_contradict_the_review_are_counted(photos: Path, tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    answer(done, run_of(done, photos), {"cat/0.png": "dog", "cat/1.png": "cat", "dog/0.png": "dog"})
    marks = tmp_path / "marks.csv"
    marks.write_text("id,mark,new_label\ncat/0.png,right,\ncat/1.png,wrong,owl\ncat/2.png,right,\ndog/0.png,right,\n")
    _, told, _ = run("apply", done, "--out", tmp_path / "out", "--marks", marks)
    assert "note: 2 marks contradict answers of the review; of these labels 2 count as undecided" in told
    _, told, _ = run("apply", done, "--out", tmp_path / "other")
    assert "contradicts" not in told and "marks contradict" not in told


def test_a_run_of_a_subset_writes_the_whole_data_set(table: Path, tmp_path: Path, run: Run) -> None:
    done = tmp_path / "run"
    images = run_of(done, table, limit=4, seed=1)
    name = images.ids[0]
    new = next(each for each in images.class_names if each != name[:3])
    answer(done, images, {name: new})
    assert run("apply", done, "--out", table.with_name("new.csv"))[0] == 0
    found = labels_of(table.with_name("new.csv"))
    assert len(found) == 8 and found[name] == new


def test_ids_that_a_spreadsheet_would_take_for_formulas(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "photos"
    for name in ("=cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            (folder / name / f"{number}.png").write_bytes(plain((number, len(name), 5)))
    answer(tmp_path / "run", run_of(tmp_path / "run", folder), {"=cat/0.png": "dog", "dog/0.png": "=cat"})
    assert run("apply", tmp_path / "run", "--out", tmp_path / "out")[0] == 0
    changes = tmp_path / "out.changes.csv"
    assert "'=cat/0.png" in changes.read_text()
    assert run("apply", "--changes", changes, folder, "--out", tmp_path / "again")[0] == 0
    assert files_of(tmp_path / "again") == files_of(tmp_path / "out")


def test_ids_by_content_hold_for_the_new_data(photos: Path, tmp_path: Path, run: Run) -> None:
    done, out = tmp_path / "run", tmp_path / "out"
    images = run_of(done, photos)
    answer(done, images, {"cat/0.png": "dog"})
    assert run("apply", done, "--out", out)[0] == 0
    assert sorted(load_images(str(out)).contents.tolist()) == sorted(images.contents.tolist())


@pytest.mark.parametrize("copy", [False, True])
def test_images_of_a_table_in_a_linked_folder_come_along(copy: bool, photos: Path, tmp_path: Path, run: Run) -> None:
    folder, done, out = tmp_path / "table", tmp_path / "run", tmp_path / "new"
    (folder / "more" / "notes").mkdir(parents=True)
    (folder / "images").symlink_to("../photos")
    (folder / "within").symlink_to("more/notes")
    (folder / "more" / "up").symlink_to("..")
    for part in range(2):
        rows = [f"images/{name}/{part}.png,{name}\n" for name in ("cat", "dog")]
        (folder / f"train-{part}.csv").write_text("path,label\n" + "".join(rows))
    answer(done, run_of(done, folder), {"images/cat/0.png": "dog", "images/dog/1.png": "cat"})
    code, told, err = run("apply", done, "--out", out, *(["--copy"] if copy else []))
    assert (code, err) == (0, "") and "--image-folder" not in told
    assert (out / "images").resolve() == photos and (out / "more/up").resolve() == out
    found = labels_of(out)
    assert (found["images/cat/0.png"], found["images/dog/1.png"], len(found)) == ("dog", "cat", 4)
    # in place, each file that changes has a backup, and all are named
    told = run("apply", done, "--in-place")[1]
    assert f"what was there before is in {folder}: train-0.csv.backup, train-1.csv.backup" in told
