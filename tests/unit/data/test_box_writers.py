"""Corrected labels in annotation files of boxes, and verdicts beside them: nothing else in the files changes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelsieve.core.errors import DataError
from labelsieve.data.box_formats.coco import edit_coco
from labelsieve.data.box_formats.open_images import edit_open_images
from labelsieve.data.box_formats.registry import BOX_FORMATS
from labelsieve.data.box_formats.voc import edit_voc
from labelsieve.data.box_formats.yolo import edit_yolo
from labelsieve.data.loading import load_images
from labelsieve.data.sources.edits import TextEdits, VerdictText
from labelsieve.demo import MINI_CLIP
from labelsieve.verdicts import Verdicts
from slow_cases import mostly_slow
from small_answers import answer, labels_of, run_of
from small_boxes import BOXES, MAKERS, NAMES, images_in, make_coco, make_voc, make_yolo

Run = Callable[..., tuple[int, str, str]]
# How each format writes the three classes, and what one box is in its text.
WRITTEN = {
    "coco": (b'"category_id": 1,', b'"category_id": 4,', b'"category_id": 7,'),
    "yolo": (b"0", b"1", b"2"),
    "voc": (b"<name> cat </name>", b"<name> dog </name>", b"<name> owl </name>"),
    "open_images": (b"/m/0", b"/m/1", b"/m/2"),
}
LABELS = {"coco": "category_id", "yolo": "class", "voc": "name", "open_images": "LabelName"}
ANNOTATIONS = (".json", ".txt", ".xml", ".csv", ".yaml")


def files_of(place: Path) -> dict[str, bytes]:
    """Returns the annotation files, and others of text, of a data set."""
    if place.is_file():
        return {place.suffix: place.read_bytes()}
    files = [path for path in place.rglob("*") if path.suffix in ANNOTATIONS]
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


def target(source: Path, folder: Path) -> Path:
    return folder / f"new{source.suffix}" if source.is_file() else folder / "new"


@pytest.mark.parametrize("kind", BOX_FORMATS)
def test_without_a_change_every_byte_stays(tmp_path: Path, run: Run, kind: str) -> None:
    source = MAKERS[kind](tmp_path / "set")
    images = run_of(tmp_path / "run", source)
    answer(tmp_path / "run", images, {images.ids[0]: "cat"})
    out = target(source, tmp_path)
    assert run("apply", tmp_path / "run", "--out", out)[0] == 0
    assert files_of(out) == files_of(source)
    if out.is_dir():
        shown = list(out.rglob("*.png"))
        assert len(shown) == 2 and all(path.is_symlink() for path in shown)


@pytest.mark.parametrize("kind", BOX_FORMATS)
def test_only_the_label_of_a_corrected_box_changes(tmp_path: Path, run: Run, kind: str) -> None:
    source = MAKERS[kind](tmp_path / "set")
    images, before = run_of(tmp_path / "run", source), files_of(source)
    answer(tmp_path / "run", images, {images.ids[1]: "owl", images.ids[0]: "cat"})
    out = target(source, source.parent if source.is_file() else tmp_path)
    code, told, err = run("apply", tmp_path / "run", "--out", out)
    assert (code, err) == (0, "") and "1 label corrected" in told
    name = {"yolo": "labels/train/a.txt", "voc": "Annotations/a.xml"}.get(kind, out.suffix)
    _, old, new = WRITTEN[kind]
    text = before[name]
    at = text.index(b"dog") if kind == "voc" else text.index(b"\n1 ") + 1 if kind == "yolo" else text.index(old)
    replaced = {"voc": (b"dog", b"owl")}.get(kind, (old, new))
    before[name] = text[:at] + text[at:].replace(*replaced, 1)
    assert files_of(out) == before
    labels = {**labels_of(source), images.ids[1]: "owl"}
    assert labels_of(out) == labels


GONE = [(0,), (7,), (0, 1, 2), (2, 3, 4, 5), (5, 6, 7), (0, 2, 4, 6)]


@pytest.mark.parametrize("kind", BOX_FORMATS)
@pytest.mark.parametrize("gone", mostly_slow([(each,) for each in GONE], quick=[((0, 1, 2),), ((0, 2, 4, 6),)]))
def test_boxes_that_are_left_out_disappear(tmp_path: Path, run: Run, kind: str, gone: tuple[int, ...]) -> None:
    source = MAKERS[kind](tmp_path / "set")
    images = run_of(tmp_path / "run", source)
    answer(tmp_path / "run", images, {images.ids[row]: "<none>" for row in gone})
    out = target(source, source.parent if source.is_file() else tmp_path)
    assert run("apply", tmp_path / "run", "--out", out)[0] == 0
    before, after = load_images(source), load_images(out)
    kept = [row for row in range(len(BOXES)) if row not in gone]
    assert before.boxes is not None and after.boxes is not None
    assert (after.boxes.sides == before.boxes.sides[kept]).all()
    assert after.labels.tolist() == before.labels[kept].tolist()
    for name, text in files_of(out).items():
        assert text.endswith(b"\n") == files_of(source)[name].endswith(b"\n")
        assert b"\n  \n" not in text or kind != "voc", "no blank line is left"
        if kind in ("voc", "open_images"):
            assert {*text.splitlines()} <= {*files_of(source)[name].splitlines()}


@pytest.mark.parametrize("kind", BOX_FORMATS)
def test_in_place_keeps_the_files_that_change(tmp_path: Path, run: Run, kind: str) -> None:
    source = MAKERS[kind](tmp_path / "set")
    images, before = run_of(tmp_path / "run", source), files_of(source)
    answer(tmp_path / "run", images, {images.ids[0]: "dog"})
    (tmp_path / "set" / "labels").mkdir(exist_ok=True)
    (tmp_path / "set" / "labels" / "train.cache").touch()
    code, told, err = run("apply", tmp_path / "run", "--in-place")
    assert (code, err) == (0, "") and "1 label corrected" in told and "what was there before is" in told
    assert ("train.cache is of the labels before" in told.replace("\n", " ")) == (kind == "yolo")
    assert labels_of(source) == {
        **dict(zip(images.ids, (NAMES[label] for label in images.labels), strict=True)),
        images.ids[0]: "dog",
    }
    backups = [*(tmp_path / "set").rglob("*.backup")]
    assert len(backups) == 1 and backups[0].read_bytes() in before.values()


@pytest.mark.slow
def test_a_list_of_changes_goes_to_another_format(tmp_path: Path, run: Run) -> None:
    coco, voc = make_coco(tmp_path / "coco"), make_voc(tmp_path / "voc")
    images = run_of(tmp_path / "run", voc)
    answer(tmp_path / "run", images, {"b#2": "cat", "a#1": "<wrong>"})
    assert run("apply", tmp_path / "run", "--out", tmp_path / "voc-2")[0] == 0
    changes = tmp_path / "voc-2.changes.csv"
    assert run("apply", "--changes", changes, coco, "--out", coco.with_name("new.json"))[0] == 0
    new = labels_of(coco.with_name("new.json"))
    assert new == {**{name: label for name, label in labels_of(coco).items() if name != "11"}, "14": "cat"}


@pytest.mark.slow
def test_classes_that_a_file_cannot_name(tmp_path: Path, run: Run) -> None:
    names = ["cat", "dog", "owl", "fox"]
    for kind, maker in MAKERS.items():
        source = maker(tmp_path / kind)
        options = {"class_names": names}
        images = run_of(tmp_path / f"run-{kind}", source, **options)
        answer(tmp_path / f"run-{kind}", images, {images.ids[0]: "fox"})
        code, _, err = run("apply", tmp_path / f"run-{kind}", "--out", target(source, tmp_path))
        if kind == "voc":
            assert code == 0 and b"<name> fox </name>" in (tmp_path / "new" / "Annotations" / "a.xml").read_bytes()
            shutil.rmtree(tmp_path / "new")
        else:
            assert code == 1 and err.count("\n") == 1 and 'cannot name the class "fox"' in err, err


def test_names_that_the_user_gave_stand_for_those_of_the_file(tmp_path: Path, run: Run) -> None:
    source = make_coco(tmp_path)
    images = run_of(tmp_path / "run", source, class_names=["Katze", "Hund", "Eule"])
    answer(tmp_path / "run", images, {images.ids[0]: "Eule"})
    assert run("apply", tmp_path / "run", "--out", tmp_path / "new.json")[0] == 0
    assert labels_of(tmp_path / "new.json")[images.ids[0]] == "owl"


@pytest.mark.parametrize("path", ["/elsewhere/set", "{root}"])
def test_labels_of_yolo_that_would_be_read_from_the_old_place(tmp_path: Path, run: Run, path: str) -> None:
    config = f"path: {path.format(root=tmp_path / 'set')}\ntrain: images/train\nnames: [cat, dog, owl]\n"
    source = make_yolo(tmp_path / "set", config=config)
    images = run_of(tmp_path / "run", source)
    answer(tmp_path / "run", images, {images.ids[0]: "dog"})
    code, _, err = run("apply", tmp_path / "run", "--out", tmp_path / "new")
    if path == "{root}":
        assert code == 1 and err.count("\n") == 1 and "write paths there that are relative" in err
        assert not (tmp_path / "new").exists()
    else:
        assert code == 0, "a path that is not there any more is read over"
    assert run("apply", tmp_path / "run", "--in-place")[0] == 0


def test_verdicts_say_where_each_box_is_and_what_to_do_with_bad_ones(tmp_path: Path, run: Run) -> None:
    source = make_coco(tmp_path / "set")
    content = json.loads(source.read_text(encoding="utf-8"))
    content["annotations"][1]["bbox"] = [500, 0, 9, 9]
    source.write_text(json.dumps(content), encoding="utf-8")
    words = ("--detector", "joint", "--model", MINI_CLIP, "--device", "cpu", "--out", tmp_path / "run")
    code, out, err = run("scan", source, *words)
    said = " ".join(out.split())
    assert code == 0 and " of 7 boxes (" in said and "1 box (12 %) could not be read" in said, err
    assert "Correct the boxes or their images or take them out" in said
    verdicts = Verdicts.load(tmp_path / "run")
    assert verdicts.unit == "boxes" and verdicts.table.column_names[-5:] == ["image", "x", "y", "width", "height"]
    rows = verdicts.table.to_pylist()
    assert {(row["image"], row["x"], row["y"], row["width"], row["height"]) for row in rows[2:]} == {
        (f"{image}.png", *box) for image, _, *box in BOXES[2:]
    }
    assert rows[1]["x"] == 500 and "outside of its image" in rows[1]["error"]
    assert '"image","x","y","width","height"' in (tmp_path / "run" / "verdicts.csv").read_text()


def test_a_relative_path_is_a_path(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make_voc(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    images = run_of(tmp_path / "run", Path("set"))
    answer(tmp_path / "run", images, {images.ids[0]: "dog"})
    code, _, err = run("apply", tmp_path / "run", "--out", tmp_path / "new")
    assert code == 0, err
    assert labels_of(tmp_path / "new")[images.ids[0]] == "dog"


def test_a_yaml_file_beside_its_data_set(tmp_path: Path, run: Run) -> None:
    source = make_yolo(tmp_path / "set")
    config = tmp_path / "boxes.yaml"
    (source / "data.yaml").rename(config)
    config.write_text("path: set\ntrain: images/train\nnames: [cat, dog, owl]\n")
    images = run_of(tmp_path / "run", config)
    answer(tmp_path / "run", images, {images.ids[0]: "dog"})
    code, _, err = run("apply", tmp_path / "run", "--out", tmp_path / "new")
    assert code == 1 and err.count("\n") == 1 and "outside of the source folder" in err
    code, _, err = run("apply", tmp_path / "run", "--out", tmp_path / "set.txt")
    assert code == 1 and err.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize("kind", BOX_FORMATS)
def test_verdicts_stand_beside_the_labels(tmp_path: Path, run: Run, kind: str) -> None:
    source = MAKERS[kind](tmp_path / "set")
    images = run_of(tmp_path / "run", source)
    answer(tmp_path / "run", images, {images.ids[7]: "cat"})
    out = target(source, source.parent if source.is_file() else tmp_path)
    assert run("export", tmp_path / "run", "--format", "annotations", "--out", out)[0] == 0
    assert labels_of(out) == {**labels_of(source), images.ids[7]: "cat"}
    found = verdicts_in(out, kind)
    quality = [*np.round(np.linspace(0.9, 0.1, 8), 6)[:7], 1.0]
    assert [each["label_quality"] for each in found] == pytest.approx(quality, abs=1e-6)
    if kind in ("coco", "open_images"):
        codes = {"coco": (1, 4, 7), "open_images": ("/m/0", "/m/1", "/m/2")}[kind]
        predicted = [codes[(label + (row > 3)) % 3] for row, label in enumerate(images.labels.tolist())]
        assert [each["predicted"] for each in found] == [*predicted[:7], codes[0]]
        assert [each["is_label_issue"] for each in found] == [False] * 4 + [True] * 3 + [False]
    code, _, err = run("export", tmp_path / "run", "--format", "annotations", "--out", out)
    assert code == 1 and err.count("\n") == 1 and "there already" in err
    if out.is_file():
        assert run("export", tmp_path / "run", "--format", "annotations", "--out", out, "--overwrite")[0] == 0
        assert verdicts_in(out, kind) == found


def verdicts_in(place: Path, kind: str) -> list[Mapping[str, Any]]:
    """Returns what stands beside the labels of an export, by other readers than those of the package."""
    if kind == "coco":
        found = json.loads(place.read_text(encoding="utf-8"))["annotations"]
        return [{**each, "predicted": each["predicted_category_id"]} for each in found]
    if kind == "open_images":
        with place.open(newline="") as file:
            return [
                {
                    "label_quality": float(row["label_quality"]),
                    "predicted": row["predicted_label"],
                    "is_label_issue": row["is_label_issue"] == "true",
                }
                for row in csv.DictReader(file)
            ]
    if kind == "voc":
        trees = [ElementTree.parse(path) for path in sorted((place / "Annotations").iterdir())]
        texts = [each.findtext("label_quality") for tree in trees for each in tree.iter("object")]
    else:
        files = sorted((place / "labels" / "train").iterdir())
        texts = [line.split()[5] for file in files for line in file.read_text().splitlines() if line.strip()]
    return [{"label_quality": float(text or "nan")} for text in texts]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
def test_tables_of_boxes_get_three_columns(tmp_path: Path, run: Run, suffix: str) -> None:
    images_in(tmp_path)
    rows = [
        {"id": str(row), "path": f"{image}.png", "label": NAMES[label], "x": x, "y": y, "width": w, "height": h}
        for row, (image, label, x, y, w, h) in enumerate(BOXES)
    ]
    source, table = tmp_path / f"boxes{suffix}", pa.Table.from_pylist(rows)
    if suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        source.write_bytes("\r\n".join(lines).encode())
    elif suffix == ".parquet":
        pq.write_table(table, source, row_group_size=3)
    else:
        with pa.OSFile(str(source), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    images = run_of(tmp_path / "run", source, limit=6)
    answer(tmp_path / "run", images, {images.ids[0]: "owl"})
    out = tmp_path / f"new{suffix}"
    assert run("apply", tmp_path / "run", "--out", out)[0] == 0
    assert labels_of(out) == {**labels_of(source), images.ids[0]: "owl"}
    out.unlink()
    assert run("export", tmp_path / "run", "--format", "annotations", "--out", out)[0] == 0
    if suffix == ".csv":
        before, after = source.read_bytes().split(b"\r\n"), out.read_bytes().split(b"\r\n")
        assert after[0] == before[0] + b",label_quality,predicted_label,is_label_issue"
        row = 1 + int(images.ids[1])
        assert re.fullmatch(re.escape(before[row]) + rb",0\.74,\w+,false", after[row])
        lacking = {*range(8)} - {*map(int, images.ids)}
        assert all(after[1 + row] == before[1 + row] + b",,," for row in lacking)
    assert labels_of(out) == {**labels_of(source), images.ids[0]: "owl"}


def test_what_has_no_boxes_or_no_whole_images_is_refused(
    tmp_path: Path, run: Run, photo_folder: Callable[..., Path]
) -> None:
    run_of(tmp_path / "photos-run", photo_folder({"cat": 2, "dog": 2}))
    code, _, err = run("export", tmp_path / "photos-run", "--format", "annotations", "--out", tmp_path / "a")
    assert code == 1 and err.count("\n") == 1 and "is for boxes" in err
    run_of(tmp_path / "run", make_coco(tmp_path))
    for tool in ("label-studio", "fiftyone", "cvat", "coco"):
        code, _, err = run("export", tmp_path / "run", "--format", tool, "--out", tmp_path / "b")
        assert code == 1 and err.count("\n") == 1 and "use --format annotations" in err
    assert run("export", tmp_path / "run", "--format", "imagefolder", "--out", tmp_path / "clean")[0] == 0
    assert sorted(path.name for path in (tmp_path / "clean").rglob("*.png")) == ["10.png", "11.png", "12.png", "13.png"]


def test_lines_with_a_confidence_have_no_place_for_a_label_quality() -> None:
    with pytest.raises(DataError, match="a line of 6 numbers"):
        edit_yolo(b"0 .1 .1 .1 .1 .9", TextEdits(column="class", verdicts={0: VerdictText("0.5", "1", "false")}))


# -------------------------------------------------------------------------------------------------------- properties

BLANKS = st.text(alphabet=" \t\n\r", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["id", "bbox", "attributes", "é", 'c"}', "category_id"]), VALUES, max_size=4),
        st.integers(0, 3),
    ),
    max_size=6,
)
CHANGES = st.lists(st.sampled_from(["same", "label", "gone", "verdict", "both"]), min_size=6, max_size=6)


def written(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    """Writes JSON with odd blanks, and letters with and without escapes."""
    if isinstance(value, dict):
        pairs = [
            f"{draw(BLANKS)}{written(key, draw)}{draw(BLANKS)}:{draw(BLANKS)}{written(each, draw)}{draw(BLANKS)}"
            for key, each in value.items()
        ]
        return "{" + ",".join(pairs) + (draw(BLANKS) if not pairs else "") + "}"
    if isinstance(value, list):
        return "[" + ",".join(f"{draw(BLANKS)}{written(each, draw)}{draw(BLANKS)}" for each in value) + "]"
    try:
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        text.encode()
    except UnicodeEncodeError:  # half of a pair has escapes only
        return json.dumps(value)
    return text


def edits_of(changes: list[str], column: str, code: str) -> TextEdits:
    labels: dict[int, str | None] = {row: code for row, what in enumerate(changes) if what in ("label", "both")}
    labels |= {row: None for row, what in enumerate(changes) if what == "gone"}
    said = {row: VerdictText("0.25", code, "true") for row, what in enumerate(changes) if what in ("verdict", "both")}
    return TextEdits(column=column, labels=labels, verdicts=said or None)


@given(OBJECTS, CHANGES, st.data(), st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_json_of_any_form_keeps_all_but_the_labels(
    objects: list[tuple[dict[str, Any], int]], changes: list[str], data: st.DataObject, bom: bytes
) -> None:
    annotations = [{**rest, "category_id": label} for rest, label in objects]
    document = {"a": annotations, "annotations": annotations, "ü": 1, "b": {"annotations": annotations}}
    text = bom + (data.draw(BLANKS) + written(document, data.draw) + data.draw(BLANKS)).encode()
    assert edit_coco(text, TextEdits(column="category_id")) == text
    expected = []
    for each, what in zip(annotations, changes, strict=False):
        each = {**each, "category_id": 77} if what in ("label", "both") else dict(each)
        if what in ("verdict", "both"):
            each |= {"label_quality": 0.25, "predicted_category_id": 77, "is_label_issue": True}
        expected += [each] if what != "gone" else []
    new = edit_coco(text, edits_of(changes[: len(annotations)], "category_id", "77"))
    assert json.loads(new.removeprefix(bom)) == {**document, "annotations": expected}
    if all(what in ("same", "label") for what in changes):
        assert len(new) == len(text) + sum(what == "label" for what in changes[: len(annotations)])


WORDS = st.sampled_from(["0.5", ".25", "1e-1", "0.30000"])
ENDS = st.sampled_from(["\n", "\r\n", "\n\n", " \n", "\n \t\r\n"])
LINE = st.tuples(st.sampled_from(["", " ", "\t"]), st.integers(0, 5), st.lists(WORDS, min_size=4, max_size=4), ENDS)


@given(st.lists(LINE, max_size=6), CHANGES, st.booleans(), st.sampled_from(["", "\ufeff", "\n\n"]))
def test_lines_of_any_form_keep_all_but_the_labels(
    lines: list[tuple[str, int, list[str], str]], changes: list[str], has_end: bool, before: str
) -> None:
    def joined(lines: list[tuple[str, str, list[str], str]]) -> bytes:
        return (
            before + "".join(f"{blank}{label} {'  '.join(words)}{end}" for blank, label, words, end in lines)
        ).encode()

    texts = [(blank, str(label), words, end) for blank, label, words, end in lines]
    if texts and not has_end:
        texts[-1] = (*texts[-1][:3], "")
    text = joined(texts)
    assert edit_yolo(text, TextEdits(column="class")) == text
    new = edit_yolo(text, edits_of(changes[: len(lines)], "class", "42"))
    kept = [
        [
            *(["42"] if what in ("label", "both") else [label]),
            *words,
            *(["0.25"] if what in ("verdict", "both") else []),
        ]
        for (_, label, words, _), what in zip(texts, changes, strict=False)
        if what != "gone"
    ]
    found = new.decode("utf-8-sig")
    assert [line.split() for line in found.splitlines() if line.strip()] == kept
    if not set(changes) & {"gone", "verdict", "both"}:
        replaced = [
            (blank, "42" if what == "label" else label, words, end)
            for (blank, label, words, end), what in zip(texts, changes, strict=False)
        ]
        assert new == joined(replaced)


GAP = st.sampled_from(["", "\n", "\r\n", "\n\t\t", "  "])
NAME = st.sampled_from(["cat", " dog ", "a&amp;b", "<![CDATA[x<y]]>", "\n", "é"])
OBJECT = st.tuples(GAP, st.sampled_from(["<object>", '<object id="1>2">', "<object >"]), GAP, NAME, GAP, GAP)


@given(st.lists(OBJECT, max_size=6), CHANGES, st.sampled_from(["utf-8", "latin-1"]))
def test_xml_of_any_form_keeps_all_but_the_names(
    objects: list[tuple[str, ...]], changes: list[str], encoding: str
) -> None:
    body = "".join(
        f"{before}{tag}{gap}<part><name>head</name></part><name k='>'>{name}</name>{other}<difficult/>{last}</object>"
        for before, tag, gap, name, other, last in objects
    )
    text = f"<?xml version='1.0' encoding='{encoding}'?>\n<annotation>{body}<!-- <object> -->\n</annotation>\n".encode(
        encoding
    )
    assert edit_voc(text, TextEdits(column="name")) == text
    new = edit_voc(text, edits_of(changes[: len(objects)], "name", "fox & ö 猫"))

    def parts(data: bytes) -> list[list[tuple[str, str]]]:
        root = ElementTree.fromstring(data)
        return [[(each.tag, (each.text or "").strip()) for each in found] for found in root if found.tag == "object"]

    expected = []
    for each, what in zip(parts(text), changes, strict=False):
        new_name = [
            (tag, "fox & ö 猫" if tag == "name" and what in ("label", "both") else value) for tag, value in each
        ]
        added = [("label_quality", "0.25")] if what in ("verdict", "both") else []
        expected += [new_name + added] if what != "gone" else []
    assert parts(new) == expected
    if set(changes[: len(objects)]) == {"same"}:
        assert new == text


CELLS = st.sampled_from(["1", '"a,b"', ' "x" ', "", '"q""q"', "é", '"two\nlines"'])


@given(
    st.lists(st.tuples(CELLS, st.sampled_from(["/m/1", '"/m/2"', " /m/3 "]), CELLS), max_size=6),
    CHANGES,
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
)
def test_csv_of_any_form_keeps_all_but_the_labels(
    rows: list[tuple[str, str, str]], changes: list[str], end: str, has_end: bool
) -> None:
    lines = ["a,LabelName,b", *(",".join(row) for row in rows)]
    text = (end.join(lines) + (end if has_end else "")).encode()
    assert edit_open_images(text, TextEdits(column="LabelName")) == text
    edits = edits_of(changes[: len(rows)], "LabelName", "/m/77")
    new = edit_open_images(text, edits).decode()

    def values(text: str) -> list[list[str]]:
        read = csv.reader(text.splitlines(keepends=True), skipinitialspace=True)
        return [[value.strip() for value in row] for row in read if row]

    expected = []
    for row, each in enumerate(values(text.decode())[1:]):
        label = edits.labels.get(row, each[1])
        said = [] if not edits.verdicts else ["0.25", "/m/77", "true"] if row in edits.verdicts else ["", "", ""]
        expected += [] if label is None else [[each[0], label, each[2], *said]]
    assert values(new)[1:] == expected
