"""Exports for annotation tools: what each of them imports, with the labels after a review."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from labelsieve.data.loading import load_images
from labelsieve.report.exports.export import export
from labelsieve.verdicts import Verdicts
from small_answers import answer, run_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reviewed(photo_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """Returns a run with a label that is corrected, one that is right and one that is left out; 6 flags of 12."""
    source = photo_folder({"cat": 4, "dog": 4, "owl & co": 3})
    (source / "cat" / "0.png").rename(source / "cat" / "a b.png")
    Image.open(source / "cat" / "a b.png").save(source / "dog" / "a b.jpg")
    done = tmp_path / "run"
    images = run_of(done, source)
    answer(done, images, {"owl & co/2.png": "cat", "cat/a b.png": "cat", "dog/1.png": "<none>"})
    return done


def exported(run: Run, done: Path, tool: str, *more: str) -> Path:
    out = done.with_name(f"for {tool}")
    code, said, err = run("export", done, "--format", tool, "--out", out, *more)
    assert (code, err) == (0, "") and f"wrote {out}" in said
    return out


def test_label_studio(reviewed: Path, run: Run) -> None:
    out = exported(run, reviewed, "label-studio")
    tasks = json.loads((out / "tasks.json").read_text())
    assert len(tasks) == 12
    by_id = {task["data"]["id"]: task for task in tasks}
    corrected = by_id["owl & co/2.png"]
    assert corrected["data"]["given_label"] == "owl & co" and corrected["data"]["flagged"] is True
    choice = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
    assert corrected["annotations"] == [{"result": [choice]}] and corrected["predictions"][0]["result"] == [choice]
    assert corrected["predictions"][0]["score"] == 1
    assert "annotations" not in by_id["dog/1.png"], "wrong, and nobody knows what it is"
    assert {task["data"]["p_clean"] for task in tasks[:2]} == {0}, "most suspicious first"
    images = {task["data"]["image"] for task in tasks}
    assert "/data/local-files/?d=for%20label-studio/images/a%20b-2.png" in images and len(images) == 12
    config = ET.parse(out / "config.xml").getroot()
    assert (out / "config.xml").read_text().startswith("<View>"), "the tool reads a text, which names no encoding"
    assert [each.get("value") for each in config.iter("Choice")] == ["cat", "dog", "owl & co"]
    assert {each.get("name") for each in config} == {"image", "label", None}


def test_fiftyone(reviewed: Path, run: Run) -> None:
    out = exported(run, reviewed, "fiftyone", "--copy")
    written = json.loads((out / "labels.json").read_text())
    files = {path.stem: path for path in (out / "data").iterdir()}
    assert len(files) == 12 and all(not path.is_symlink() for path in files.values()), "no stem twice"
    assert written["classes"] == ["cat", "dog", "owl & co"] and len(written["labels"]) == 11
    labels: dict[str, Any] = {each["attributes"]["source_id"]: each for each in written["labels"].values()}
    assert labels["owl & co/2.png"]["label"] == 0 and labels["dog/2.png"]["label"] == 1
    assert labels["owl & co/2.png"]["attributes"]["given_label"] == "owl & co"
    own = {"id", "tags", "label", "confidence", "logits"}
    assert all(not own & set(each["attributes"]) for each in labels.values()), "of FiftyOne's Classification"
    assert set(written["labels"]) < set(files)


def test_cvat(reviewed: Path, run: Run) -> None:
    answer(reviewed, load_images(str(reviewed.with_name("photos"))), {"dog/2.png": "<unsure>"})
    out = exported(run, reviewed, "cvat")
    root = ET.parse(out / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1" and root.findtext("meta/task/size") == "12"
    assert [each.text for each in root.findall("meta/task/labels/label/name")] == ["cat", "dog", "owl & co"]
    images = root.findall("image")
    assert {each.get("name") for each in images} == {path.name for path in (out / "images").iterdir()}
    assert {(each.get("width"), each.get("height")) for each in images} == {("8", "8")}
    tags = [each.find("tag") for each in images]
    assert sum(tag is None for tag in tags) == 1
    assert [each.get("id") for each in images] == [str(number) for number in range(12)]
    manual = [tag.get("label") for tag in tags if tag is not None and tag.get("source") == "manual"]
    assert manual == ["cat", "cat"]


def test_coco(reviewed: Path, run: Run) -> None:
    out = exported(run, reviewed, "coco")
    written = json.loads((out / "annotations.json").read_text())
    names = {each["id"]: each["name"] for each in written["categories"]}
    assert names == {1: "cat", 2: "dog", 3: "owl & co"}
    source = {each["id"]: each["source_id"] for each in written["images"]}
    labels = {source[each["image_id"]]: names[each["category_id"]] for each in written["annotations"]}
    assert len(labels) == 11 and "dog/1.png" not in labels
    assert labels["owl & co/2.png"] == "cat" and labels["owl & co/1.png"] == "owl & co"
    assert all((out / "images" / each["file_name"]).is_file() for each in written["images"])


def test_dataset_card(reviewed: Path, run: Run) -> None:
    out = reviewed.with_name("README.md")
    code, _, err = run("export", reviewed, "--format", "dataset-card", "--out", out)
    assert (code, err) == (0, "")
    card = DatasetCard(out.read_text())
    metadata, body = vars(card.data), card.text
    assert metadata["task_categories"] == ["image-classification"] and metadata["size_categories"] == ["n<1K"]
    names = metadata["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    assert names == {"0": "cat", "1": "dog", "2": "owl & co"}
    assert "| owl \\& co | cat | 1 |" in body and "| label corrected | 1 | 8.3 % |" in body
    assert "People reviewed 3 images." in body and "| left out: wrong, and the right class is not known | 1 |" in body


def test_a_dataset_card_has_class_names_as_they_are(reviewed: Path, tmp_path: Path) -> None:
    verdicts = Verdicts.load(reviewed)
    names = ("cat", 'a "dog": \n', "owl \N{OWL}")
    card = export(
        dataclasses.replace(verdicts, class_names=names), None, format="dataset-card", out=tmp_path / "card.md"
    )
    metadata = vars(DatasetCard(card.read_text(encoding="utf-8")).data)
    written = metadata["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    assert tuple(written.values()) == names


def test_a_dataset_card_tells_no_folders_of_the_machine(reviewed: Path, tmp_path: Path) -> None:
    verdicts = Verdicts.load(reviewed)
    (tmp_path / "private" / "clip").mkdir(parents=True)
    record = {**verdicts.record, "model": {"name": str(tmp_path / "private" / "clip"), "fingerprint": "0"}}
    out = export(dataclasses.replace(verdicts, record=record), None, format="dataset-card", out=tmp_path / "card.md")
    assert "clip" in out.read_text() and "private" not in out.read_text()


def test_a_clean_folder_has_the_corrected_labels(reviewed: Path, run: Run) -> None:
    out = exported(run, reviewed, "imagefolder")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert {"cat/2.png", "cat/2-2.png"} <= files, "that of the owls beside the one that was there"
    assert not any(name.startswith("owl & co/2") for name in files) and "dog/1.png" not in files


def test_what_reviewers_left_out_is_in_no_folder(reviewed: Path, run: Run) -> None:
    answer(reviewed, load_images(str(reviewed.with_name("photos"))), {"cat/1.png": "<drop>"})
    found = exported(run, reviewed, "csv")
    with found.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines if line["left_out"] == "true"] == ["cat/1.png"] and len(lines) == 12
    written = {
        tool: exported(run, reviewed, tool) for tool in ("label-studio", "fiftyone", "cvat", "coco", "imagefolder")
    }
    for tool, out in written.items():
        files = [path for path in out.rglob("*") if path.suffix in (".png", ".jpg")]
        assert len(files) == (5 if tool == "imagefolder" else 11), tool
    assert len(json.loads((written["label-studio"] / "tasks.json").read_text())) == 11
    assert len(json.loads((written["coco"] / "annotations.json").read_text())["images"]) == 11
    card = reviewed.with_name("README.md")
    assert run("export", reviewed, "--format", "dataset-card", "--out", card)[0] == 0
    assert "| left out: a copy, a leak or a defect | 1 |" in card.read_text()


def test_a_copy_that_is_left_out_counts_once(photo_folder: Callable[..., Path], tmp_path: Path) -> None:
    source, done = photo_folder({"cat": 2, "dog": 2}), tmp_path / "run"
    shutil.copy(source / "cat" / "1.png", source / "dog" / "9.png")
    images = run_of(done, source)
    answer(done, images, {"cat/1.png": "dog"})
    answer(done, images, {"dog/9.png": "<keep-one>"})
    card = export(Verdicts.load(done), images, format="dataset-card", out=tmp_path / "card.md", marks=done).read_text()
    counts = [line.split("|")[2].strip() for line in card.splitlines() if line.endswith("% |")]
    assert counts == ["0", "0", "1", "1"], "corrected, wrong, left out, right"


@pytest.mark.parametrize("tool", ["label-studio", "fiftyone", "cvat", "coco"])
def test_what_is_in_the_way_is_not_replaced(tool: str, reviewed: Path, run: Run) -> None:
    out = reviewed.with_name("mine")
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for more in ((), ("--overwrite",)):
        code, _, err = run("export", reviewed, "--format", tool, "--out", out, *more)
        assert code == 1 and err.count("\n") == 1 and str(out) in err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    exported(run, reviewed, tool)
    exported(run, reviewed, tool, "--overwrite")
    code, _, err = run("export", reviewed, "--format", "csv", "--out", reviewed.with_name("x.csv"), "--copy")
    assert code == 1 and "copy goes with imagefolder, label-studio" in err
