"""What a person may do to the files of a run: each command answers in one line."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelsieve.cli import main
from labelsieve.commands.run_data import images_of, load_origin
from labelsieve.core.errors import RunError
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.data.images import LabelledImages
from labelsieve.demo import MINI_CLIP
from labelsieve.flagging import BY_DISAGREEMENT, FlagRule
from labelsieve.records import REQUIRED, RUN, RunRecord, check_kinds
from labelsieve.report import panels
from labelsieve.report.exports.export import export
from labelsieve.report.label_report import write_report
from labelsieve.report.thumbnails import Thumbnail
from labelsieve.verdicts import Verdicts
from slow_cases import mostly_slow

Run = Callable[..., tuple[int, str, str]]
# One of each kind that JSON has, and numbers that no reader expects. Texts come back as they are read.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 0.5, 1e300, float("nan"), float("inf"), 10**400),
    *("", "a\0b", "\ud800", "a" * 5000, [], [1], ["a"], [None], [[]], [{}], {}, {"a": 1}, {"name": []}),
]
REMOVED = object()


@pytest.fixture(scope="module")
def whole(drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all that a record can have, and metrics."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    noisy = out.with_name("noisy.parquet")
    assert main(["noise", str(drawn_folder), "--kind", "pair", "--rate", "0.2", "--out", str(noisy)]) == 0
    words = ("--model", str(MINI_CLIP), "--device", "cpu", "--detector", "label-match", "--truth-column", "clean_label")
    others = ("--test", str(drawn_folder), "--against", str(drawn_folder))
    assert main(["scan", str(noisy), *words, *others, "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    interval = {"value": 1.0, "low": 0.0, "high": 2.0}  # no detector can be shown test images and estimates, too
    record["estimate"] = dict.fromkeys(("wrong_labels", "right_flags", "missed_labels"), interval)
    record["reviewed"] = {"run": "an earlier run", "images": 2, "wrong": 1, "fingerprint": "0123456789abcdef"}
    pair = {"consensus": "cat", "label": "cup", "times": 3}
    rated = {"accuracy": 0.9, "low": 0.8, "high": 0.95, "agreement": 0.9, "confused": pair}
    record["annotators"] = [{"name": name, "labels": 30, **rated} for name in ("ann", "bob")]  # nor rate annotators
    record["consensus"] = {"images": 32, "changed": 4}
    (out / "run.json").write_text(json.dumps(record))
    return out


@pytest.fixture(scope="module")
def images(whole: Path) -> LabelledImages:
    return images_of(Verdicts.load(whole), progress=Progress())


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def changed(record: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    record = copy.deepcopy(record)
    *above, name = key.split(".")
    places = [record]
    for each in above:
        below = [place[each] for place in places]
        places = below[0] if isinstance(below[0], list) else below
    for place in places:
        if value is REMOVED:
            place.pop(name, None)
        else:
            place[name] = value
    return record


def one_line(answer: tuple[int, str, str]) -> bool:
    code, _, err = answer
    return err == "" if code == 0 else code == 1 and err.count("\n") == 1 and err.startswith("labelsieve: ")


def test_the_table_names_what_a_run_has(whole: Path) -> None:
    record = json.loads((whole / "run.json").read_text())
    assert {key.partition(".")[0] for key in RUN} <= set(record)
    assert record["findings"] and record["test"] and record["origin"]


@pytest.mark.parametrize(
    "rule",
    [
        FlagRule(),
        BY_DISAGREEMENT,
        FlagRule(threshold=0.3, false_flags=0.1),
        FlagRule(threshold=None, false_flags=0.1),
        FlagRule(threshold=None),
    ],
)
def test_a_flagging_rule_is_read_as_it_was_written(rule: FlagRule) -> None:
    record = rule.to_record()
    check_kinds({**record, "class_names": [], "verdicts_fingerprint": ""}, RUN, Path("run.json"))
    assert set(record) <= set(RUN) and FlagRule.of(record) == RunRecord.of(record).rule == rule
    named = rule.with_issues(np.array([True, False]))
    assert named.to_record() == record, "which labels it names is in the verdicts"


# the images are loaded again for each value
LOADED = {key for key in RUN if key.startswith(("origin.", "data."))} - {"origin.seed", "origin.class_names"}


@pytest.mark.parametrize(
    "key", mostly_slow([*RUN, "origin.unheard_of", "notes"], quick={*[*RUN][::3], "notes"} - LOADED)
)
def test_a_record_that_somebody_changed(
    key: str, broken: Path, images: LabelledImages, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no value of a record is in them, and they take longer than all else
    monkeypatch.setattr(panels, "make_thumbnails", lambda _images, rows, **_more: [Thumbnail()] * len(rows))
    record: dict[str, Any] = json.loads((broken / "run.json").read_text())
    lines: list[str] = []
    for value in [*(VALUES if key in RUN else VALUES[:5]), REMOVED]:
        text = json.dumps(changed(record, key, value))
        (broken / "run.json").write_text(text)
        try:
            check_kinds(json.loads(text), RUN, broken / "run.json")  # first, since most values end here
            verdicts = Verdicts.load(broken)
        except RunError as error:  # what all commands say then
            lines.append(str(error))
            continue
        assert key not in REQUIRED or value not in (None, REMOVED)
        if value is None:  # as good as removed
            continue
        if key.startswith(("origin", "data")):
            assert one_line(run("report", broken, "--max-images", 1)), value
            continue
        write_report(verdicts, images, tmp_path / "a.html", max_images=1)
        export(verdicts, None, format="csv", out=tmp_path / "a.csv", overwrite=True)
    assert all("\n" not in line and len(line) < 400 + len(str(broken)) for line in lines)


def test_the_line_names_the_key(subtests: pytest.Subtests, broken: Path, run: Run) -> None:
    record = json.loads((broken / "run.json").read_text())
    for key, value, said in (
        ("model", "clip", '"model" in .*run.json to be an object, found "clip"; make the run again'),
        ("threshold", float("nan"), '"threshold" .* a number, found NaN'),
        ("test.accuracy", None, '"test.accuracy" .* a number from 0 to 1, found none'),
        ("findings.level", [], r'"findings.level" .* a text, found \[\]'),
        ("class_names", {"a": 1}, '"class_names" .* a list of texts'),
    ):
        (broken / "run.json").write_text(json.dumps(changed(record, key, value)))
        for verb in ("report", "export", "adapt"):
            with subtests.test(key=key, verb=verb):
                more = {"export": ("--format", "csv")}.get(verb, ())
                out = broken.with_name(f"{verb}-{key}.html")
                answer = run(verb, broken, "--out", out, *more)
                assert answer[0] == 1 and one_line(answer)
                with pytest.raises(RunError, match=said):
                    raise RunError(answer[2])
                assert not out.exists()


def test_a_file_that_holds_something_else(subtests: pytest.Subtests, whole: Path, tmp_path: Path, run: Run) -> None:
    texts = ("", "[]", "null", '"a"', "1", "{", "[" * 100_000, "\ufeff{}")
    for number, (name, text) in enumerate(product(("run.json", "metrics.json"), texts)):
        with subtests.test(name, text=text):
            broken = Path(shutil.copytree(whole, tmp_path / str(number)))
            (broken / name).write_text(text)
            answer = run("export", broken, "--format", "csv", "--out", tmp_path / f"{number}.csv")
            assert answer[0] == 1 and one_line(answer)


def test_metrics_that_somebody_changed(subtests: pytest.Subtests, broken: Path, run: Run) -> None:
    metrics = json.loads((broken / "metrics.json").read_text())
    for value in VALUES:
        with subtests.test(value=value):
            (broken / "metrics.json").write_text(json.dumps(dict.fromkeys(metrics, value)))
            assert one_line(run("report", broken, "--max-images", 1))


def _renamed(table: pa.Table) -> pa.Table:
    return table.rename_columns(["name", *table.column_names[1:]])


@pytest.mark.parametrize(
    "change",
    [
        _renamed,
        lambda table: table.drop_columns(["rank"]),
        lambda table: table.append_column("more", table["rank"]),
        lambda table: table.set_column(3, "label_quality", table["id"]),
        lambda table: table.select([]),
    ],
)
def test_a_table_with_other_columns(change: Callable[[pa.Table], pa.Table], broken: Path, run: Run) -> None:
    pq.write_table(change(pq.read_table(broken / "verdicts.parquet")), broken / "verdicts.parquet")
    record = json.loads((broken / "run.json").read_text())
    record["verdicts_fingerprint"] = fingerprint((broken / "verdicts.parquet").read_bytes())
    (broken / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        RunError, match=r"expected the columns id \(string\), given_label .* found others; make the run"
    ):
        Verdicts.load(broken)
    assert one_line(run("report", broken))


def test_a_table_that_is_none(broken: Path) -> None:
    record = json.loads((broken / "run.json").read_text())
    (broken / "verdicts.parquet").write_bytes(b"text")
    with pytest.raises(RunError, match="is not the file that run"):
        Verdicts.load(broken)
    record["verdicts_fingerprint"] = fingerprint(b"text")
    (broken / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="cannot be read"):
        Verdicts.load(broken)
    (broken / "verdicts.parquet").unlink()
    with pytest.raises(RunError, match="is missing; make the run again"):
        Verdicts.load(broken)


@pytest.mark.parametrize("name", ["test", "against"])
def test_other_images_of_a_scan_can_be_loaded_again(name: str, whole: Path) -> None:
    part = json.loads((whole / "run.json").read_text())[name]
    assert load_origin(part["origin"], progress=Progress()).fingerprint == part["fingerprint"]
