"""The command line, end to end: verbs, exit codes and what reaches the terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from labelsieve.cli import VERBS, main
from labelsieve.core.errors import SettingsError, UsageError
from labelsieve.core.locks import locked
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.scores import Scores
from labelsieve.verdicts import Verdicts, decide

if TYPE_CHECKING:
    from labelsieve.vlm.base import VisionLanguageModel

Run = Callable[..., tuple[int, str, str]]
MODEL = ("--model", str(MINI_CLIP), "--device", "cpu")
QUICK = ("--detector", "small-loss", "--epochs", "1", "--min-steps", "0", "--peft", "none")
MATCH = ("--detector", "label-match")
FILES = {"report.html", "run.json", "verdicts.csv", "verdicts.parquet", "findings.parquet"}


@pytest.fixture(scope="module")
def finished(drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["scan", str(drawn_folder), *MODEL, *MATCH, "--out", str(out)]) == 0
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


# ---------------------------------------------------------------- help and wrong command lines


def test_help(run: Run) -> None:
    code, out, err = run("--help")
    assert code == 0 and err == ""
    assert all(f"\n  {verb:8}" in out for verb in VERBS)
    assert run("-h") == run("help") == (code, out, err)
    assert run() == (2, out, "")


def test_version(run: Run) -> None:
    import labelsieve

    assert run("--version") == (0, f"labelsieve {labelsieve.__version__}\n", "")


def test_every_verb_has_help(subtests: pytest.Subtests, run: Run) -> None:
    for verb in VERBS:
        with subtests.test(verb):
            code, out, err = run(verb, "--help")
            assert code == 0 and err == ""
            assert out.startswith(f"usage: labelsieve {verb}")
            assert "{" not in out.split("options")[0], "no template is left over"


def test_help_of_scan_names_the_options_of_the_detector(run: Run) -> None:
    options = (
        "--image-column",
        "--label-column",
        "--truth-column",
        "--class-names",
        "--precision",
        "--device",
        "--seed",
    )
    more = (
        "--limit",
        "--resume",
        "--overwrite",
        "--model",
        "--detector",
        "--peft",
        "--epochs",
        "--batch-size",
        "--out",
    )
    out = run("scan", "--help")[1]
    assert all(f"{option} " in out for option in (*options, *more, "--evidence"))
    assert "--noise-rate" not in out and "--noise-rate" in run("scan", "--detector", "small-loss", "--help")[1]
    assert "--epochs" not in run("scan", "--detector=label-match", "--help")[1]


def test_unknown_verb(run: Run) -> None:
    code, out, err = run("scna", "photos")
    assert (code, out) == (2, "")
    assert err == (f'labelsieve: expected a verb out of {", ".join(VERBS)}, got "scna" (did you mean "scan"?)\n')


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--detector", "small-los"], 'got small-los (did you mean "small-loss"?)'),
        (["--detector=gm"], 'got gm (did you mean "gmm"?)'),
        (["--recipe", "papr"], 'got papr (did you mean "paper"?)'),
        (["--detector", "gmm", "--recipe", "paper"], "--recipe goes with --detector deft only"),
    ],
    ids=" ".join,
)
def test_unknown_detector_or_recipe(words: list[str], said: str, run: Run, tmp_path: Path) -> None:
    code, out, err = run("scan", "photos", "--out", tmp_path / "run", *words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "run").exists()


WRONG_COMMAND_LINES = (
    (["scan"], "labelsieve: missing SOURCE, --out; see labelsieve scan --help\n"),
    (["scan", "photos", "--zzz"], "missing --out; unknown option --zzz; see labelsieve scan --help"),
    (["scan", "photos", "--out", "run", "--epoch", "3"], 'unknown option --epoch (did you mean "--epochs"?); see'),
    (["scan", "photos", "--out", "run", "--detector", "label-match", "--epochs", "3"], "of --detector deft, small-"),
    (["scan", "photos", "--out", "run", "--epochs", "many"], "expected an integer for --epochs, got many; see"),
    (["scan", "photos", "--out", "run", "--limit", "few"], "expected an integer for --limit, got few; see"),
    (["scan", "x", "--out", "run", "--batch-size", "9.5"], "an integer or auto for --batch-size, got 9.5; see"),
    (["scan", "x", "--out", "run", "--logit-scale", "e"], "expected a number for --logit-scale, got e; see"),
    (
        ["noise", "x", "--out", "y", "--kind", "pair", "--rate", "1/2"],
        "--rate as a share such as 10% or 0.1, got 1/2; see",
    ),
    (["scan", "photos", "--out"], "expected a value for --out, found none; see"),
    (["scan", "photos", "--label-column", "--out", "run"], "expected a value for --label-column, found none; see"),
    (["apply", "run", "--out", "x", "--marks"], "expected a value for --marks, found none; see"),
    (["scan", "photos", "more", "--out", "run"], "unknown argument more; see"),
    (["scan", "--epoch", "3"], "missing SOURCE; "),
    (["report", "--max-images", "3"], "missing RUN; "),
    (["scan", "photos", "--out", "run", "--peft", "vpt"], "expected --peft to be one of auto, none, vpt-deep, "),
    (["scan", "photos", "--out", "run", "--precision", "fp16"], "bf16"),
    (["noise", "photos", "--kind", "pear", "--rate", "0.1", "--out", "x.parquet"], "pair"),
    (["export", "run", "--format", "cvs", "--out", "x"], "csv"),
    (["report", "run", "--thumbnails", "3"], "--thumbnail-px"),
    (["demo", "--image", "50"], "--images"),
)


def test_wrong_command_lines(
    subtests: pytest.Subtests, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (words, said) in enumerate(WRONG_COMMAND_LINES):
        with subtests.test(" ".join(words)):
            folder = tmp_path / str(number)
            folder.mkdir()
            monkeypatch.chdir(folder)
            code, out, err = run(*words)
            assert (code, out) == (2, "") and said in err and err.count("\n") == 1 and "│" not in err
            assert list(folder.iterdir()) == []


def test_names_that_are_not_utf8_are_refused_before_any_work(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    """What a run writes about itself is in UTF-8, and could not name them."""
    odd = tmp_path / "caf\udce9"
    for words in (["scan", odd, "--out", tmp_path / "run"], ["scan", drawn_folder, *MATCH, "--out", odd]):
        code, _, err = run(*words)
        assert code == 2 and err.count("\n") == 1 and "expected names in UTF-8" in err and "caf\\udce9" in err
    assert not list(tmp_path.iterdir())


def test_a_narrow_terminal_changes_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("scan", "photos", "--out", "run", "--epoch", "3")
    wide = run(*words)
    monkeypatch.setenv("COLUMNS", "40")
    assert run(*words) == wide


def test_setting_out_of_range(run: Run, tmp_path: Path) -> None:
    code, _, err = run("scan", "photos", "--out", tmp_path / "run", "--epochs", "-1")
    assert (code, err) == (1, "labelsieve: expected --epochs from 0 to 1,000, got -1\n")
    assert not (tmp_path / "run").exists()


TYPED_OPTIONS = (
    (["adapt", "{run}", "--out", "m", "--validation", "2"], "expected --validation from 0 to below 1, got 2.0; "),
    (
        ["adapt", "{run}", "--out", "m", "--drop-at", "120%"],
        "expected --drop-at from 0 to 1, got 1.2; a share, such as 0.1 for 10 %\n",
    ),
    (["export", "{run}", "--format", "imagefolder", "--out", "x", "--drop-at=-1"], "expected --drop-at from 0 to "),
    (
        ["export", "{run}", "--format", "csv", "--drop-at", "0.5", "--out", "x"],
        ": --drop-at goes with imagefolder only",
    ),
    (["export", "{run}", "--format", "csv", "--out", "{run}/../there.csv"], "another name or pass --overwrite\n"),
    (["scan", "{table}", "--out", "x", "--class-names", "a", "b"], "fix the labels or give --class-names\n"),
    (["scan", "x", "--out", "x", "--detector", "deft", "--scores-from", "last-epoch"], ": --scores-from last-epoch"),
    (["scan", "{photos}", "--out", "x", "--test", "{kinds}"], "; name it with --test-label-column\n"),
    (["scan", "{photos}", "--out", "x", "--against", "{photos}", "--against-split", "a"], "no split"),
    (["scan", "{kinds}", "--out", "x"], "; name it with --label-column\n"),
)


def test_messages_name_the_options_that_were_typed(
    subtests: pytest.Subtests,
    run: Run,
    finished: Path,
    drawn_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (finished.parent / "there.csv").touch()
    places = {"run": finished, "photos": drawn_folder, "table": tmp_path / "drop_at.csv", "kinds": tmp_path / "k.csv"}
    places["table"].write_text("image,label\na.png,7\nb.png,8\n")
    places["kinds"].write_text("image,kind\na.png,7\nb.png,8\n")
    for number, (words, said) in enumerate(TYPED_OPTIONS):
        with subtests.test(" ".join(words)):
            folder = tmp_path / str(number)
            folder.mkdir()
            monkeypatch.chdir(folder)
            code, _, err = run(*(word.format(**places) for word in words))
            assert code == 1 and said in err and err.count("\n") == 1


def test_options_of_features_are_named_as_they_were_typed(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.ones((2, 3), dtype=np.float32), labels=np.array([0, 1]))
    words = ("scan", drawn_folder, "--out", tmp_path / "x", "--against", tmp_path / "f.npz", "--against-split", "a")
    code, _, err = run(*words)
    assert (code, err.count("\n")) == (2, 1) and "features come without --against-split; leave it out" in err


@pytest.mark.parametrize("option", [("--class-names", "a", "b"), ("--label-column", "x")], ids=" ".join)
def test_a_source_may_follow_an_option_of_several_words(option: tuple[str, ...], drawn_folder: Path) -> None:
    words = (*option, str(drawn_folder), "--out", "run")
    source = VERBS["scan"].parse(words, prog="labelsieve scan").data  # type: ignore[attr-defined]
    assert source.source == str(drawn_folder)
    assert (source.class_names or source.label_column) == option[1:]
    with pytest.raises(UsageError, match=r"^missing SOURCE"):
        VERBS["scan"].parse((*option, "nothing", "--out", "run"), prog="labelsieve scan")


def test_a_share_may_be_a_percentage() -> None:
    def parsed(verb: str, *words: str) -> Any:
        return VERBS[verb].parse(list(words), prog=f"labelsieve {verb}")

    adapt = parsed("adapt", "run", "--out", "m", "--validation", "10%", "--drop-at=2.5 %")
    assert (adapt.settings.validation, adapt.settings.drop_at) == (0.1, 0.025)
    scan = parsed(
        "scan", "50%", "--out", "30%", "--detector", "small-loss", "--noise-rate", "30%", "--box-margin", "5%"
    )
    assert (scan.data.source, str(scan.out), scan.settings.noise_rate, scan.data.box_margin) == (
        "50%",
        "30%",
        0.3,
        0.05,
    )
    assert parsed("noise", "x", "--kind", "pair", "--rate", "40%", "--out", "y.parquet").rate == 0.4
    audit = parsed("audit", "run", "--confidence", "99 %", "--at-most=1%", "--false_flags", "10%")
    assert (audit.confidence, audit.at_most, audit.false_flags) == (0.99, 0.01, 0.1)
    assert (parsed("review", "run", "--overlap", "0%").overlap, parsed("audit", "run").confidence) == (0, 0.95)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("adapt run --out m --validation abc", "expected --validation as a share such as 10% or 0.1, got abc; see"),
        (
            "adapt run --out m --validation 10",
            "--validation from 0 to below 1, got 10.0; a share, such as 0.1 for 10 %",
        ),
        ("noise x --kind pair --out y.csv --rate -5%", "--rate from 0 to below 1, got -0.05; a share, such as 0.1"),
        ("scan x --out y --box-margin=5,5%", "expected --box-margin as a share such as 10% or 0.1, got 5,5%"),
        ("scan x --out y --detector small-loss --noise-rate=%", "--noise-rate as a share such as 10% or 0.1, got %"),
        ("scan x --out y --detector aum --percentile 99%", "expected a number for --percentile, got 99%"),
        ("scan x --out y --weight-decay 5%", "expected a number for --weight-decay, got 5%"),
    ],
)
def test_a_wrong_share_says_how_to_write_one(words: str, said: str) -> None:
    verb, *rest = words.split()
    with pytest.raises((UsageError, SettingsError), match=re.escape(said)):
        VERBS[verb].parse(rest, prog=f"labelsieve {verb}")


def test_the_help_has_shares_as_percentages(run: Run) -> None:
    for verb, default in (("audit", "95%"), ("review", "0%")):
        assert f"(default: {default})" in " ".join(run(verb, "--help")[1].replace("│", " ").split())


# ---------------------------------------------------------------- scan


def test_scan_of_a_folder(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    code, out, err = run("scan", drawn_folder, *MODEL, "--min-steps", "0", "--epochs", "1", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert "4 classes: boat, cat, cup, tree" in out and "report.html" in out
    verdicts = Verdicts.load(tmp_path / "run")
    assert verdicts.record["detector"]["name"] == "deft" and verdicts.record["detector"]["recipe"] is None
    rows = rows_of(tmp_path / "run" / "verdicts.csv")
    table = pq.read_table(tmp_path / "run" / "verdicts.parquet")
    assert [row["id"] for row in rows] == table["id"].to_pylist() and len(rows) == 32
    assert {"id", "given_label", "predicted_label", "label_quality", "is_label_issue", "rank", "error"} <= set(rows[0])


def test_options_reach_the_record(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("tree\ncup\ncat\nboat\nzebra\n")
    words = ("--limit", 12, "--seed", 5, "--precision", "fp32", "--class-names", tmp_path / "names.txt")
    assert run("scan", drawn_folder, *MODEL, *QUICK, *words, "--out", tmp_path / "run")[0] == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["class_names"] == ["tree", "cup", "cat", "boat", "zebra"]
    assert (record["data"]["images"], record["seed"], record["precision"]) == (12, 5, "fp32")
    assert record["detector"]["settings"]["epochs"] == 1
    ids = Verdicts.load(tmp_path / "run").table["id"]
    again = ("--limit", 12, "--seed", 6, "--class-names", "tree", "cup", "cat", "boat")
    assert run("scan", drawn_folder, *MODEL, *QUICK, *again, "--out", tmp_path / "other")[0] == 0
    assert len(ids) == 12 and not ids.equals(Verdicts.load(tmp_path / "other").table["id"]), "the seed draws the subset"


def test_recipe_is_where_settings_start(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    words = ("--recipe", "paper-severe", "--epochs", 1, "--peft", "none")
    assert run("scan", drawn_folder, *MODEL, *words, "--out", tmp_path / "run")[0] == 0
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["detector"]["settings"]
    assert (settings["learning_rate"], settings["positive_weight"], settings["epochs"]) == (1e-2, 0.25, 1)


def test_same_words_same_verdicts(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert run("scan", drawn_folder, *MODEL, *QUICK, "--seed", 3, "--out", tmp_path / name)[0] == 0
    first, second = (tmp_path / name / "verdicts.parquet" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_noise_then_scan_with_the_truth(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy.parquet"
    code, out, _ = run("noise", drawn_folder, "--kind", "symmetric", "--rate", 0.25, "--out", noisy)
    assert code == 0 and "--truth-column clean_label" in out
    table = pq.read_table(noisy)
    assert (
        sum(a != b for a, b in zip(*(table[name].to_pylist() for name in ("label", "clean_label")), strict=True)) == 8
    )
    assert run("noise", drawn_folder, "--kind", "pair", "--rate", 0.25, "--out", noisy)[0] == 1
    assert run("noise", drawn_folder, "--kind", "pair", "--rate", 0.25, "--out", noisy, "--overwrite")[0] == 0
    known = ("--truth-column", "clean_label")
    assert run("scan", noisy, *MODEL, *MATCH, *known, "--out", tmp_path / "run")[0] == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["noise_rate"] == 0.25 and metrics["images"] == 32
    # the clean labels as the given ones: nothing is wrong, and without a truth nothing is measured
    assert run("scan", noisy, *MODEL, *MATCH, "--label-column", "clean_label", "--out", tmp_path / "clean")[0] == 0
    assert not (tmp_path / "clean" / "metrics.json").exists()
    given = Verdicts.load(tmp_path / "clean").table["given_label"].to_pylist()
    assert given == [name.split("/")[0] for name in Verdicts.load(tmp_path / "clean").table["id"].to_pylist()]


def test_scan_into_a_finished_run(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    words = ("scan", drawn_folder, *MODEL, *MATCH, "--out", tmp_path / "run")
    assert run(*words)[0] == 0
    created = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    code, _, err = run(*words)
    assert code == 1 and "already holds a finished run; use --overwrite" in err and err.count("\n") == 1
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == created
    assert run(*words, "--overwrite")[0] == 0
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns > created


def test_a_run_that_was_stopped_at_its_report_goes_on_with_it(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("scan", drawn_folder, *MODEL, *MATCH, "--out", out, "--resume")
    assert run(*words)[0] == 0
    assert run(*words)[2].endswith("there is nothing to resume; make another with --overwrite\n")
    created = (out / "run.json").stat().st_mtime_ns
    (out / "report.html").unlink()
    code, _, err = run(*words, "--seed", "1")
    assert code == 1 and "holds a finished run of other data or settings; pass --overwrite" in err
    assert set(os.listdir(out)) == FILES - {"report.html"}
    code, said, _ = run(*words)
    assert code == 0 and "flagged of 32 images" in said and set(os.listdir(out)) == FILES
    assert (out / "run.json").stat().st_mtime_ns == created, "it was not scanned again"
    (out / "report.html").unlink()
    assert run(*words, "--overwrite", "--seed", "1")[0] == 0
    assert Verdicts.load(out).record["seed"] == 1 and set(os.listdir(out)) == FILES


def test_what_somebody_else_put_into_a_run_folder_stays(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "checkpoint").mkdir(parents=True)
    words = ("scan", drawn_folder, *MODEL, *MATCH, "--out", out, "--overwrite")
    (out / "checkpoint" / "weights.pt").touch()
    code, _, err = run(*words)
    assert code == 1 and "checkpoint holds other files, such as weights.pt; choose another folder" in err
    (out / "checkpoint" / "weights.pt").unlink()
    (out / "report.html").write_text("mine")
    code, _, err = run(*words)
    assert code == 1 and "report.html is no report of labelsieve, so it is not replaced; choose another folder" in err
    assert run(*words[:-1], "--resume")[0] == 1
    assert (out / "report.html").read_text() == "mine" and sorted(os.listdir(out)) == ["checkpoint", "report.html"]
    (out / "report.html").unlink()
    os.mkfifo(out / "verdicts.csv")
    code, _, err = run(*words)
    assert code == 1 and "verdicts.csv: it is a pipe, and only a regular file is ever replaced" in err
    (out / "verdicts.csv").unlink()
    (out / "notes.txt").write_text("mine")
    code, _, err = run(*words[:-1], "--resume")
    assert code == 1 and "already holds other files" in err, "there is nothing to go on with"
    assert run(*words)[0] == 0 and set(os.listdir(out)) == {*FILES, "notes.txt"}


@pytest.mark.parametrize("verb", ["scan", "adapt", "demo"])
def test_a_folder_that_another_process_writes_into(
    verb: str, run: Run, drawn_folder: Path, finished: Path, tmp_path: Path
) -> None:
    words = {"scan": (drawn_folder, *MODEL, *MATCH), "adapt": (finished,), "demo": ()}[verb]
    with locked(tmp_path):
        code, _, err = run(verb, *words, "--out", tmp_path, "--overwrite")
    assert code == 1 and f"{tmp_path}; wait for it, or choose another --out" in err and err.count("\n") == 1
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- what is made of a run


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["", "overwrite"])
@pytest.mark.parametrize("words", [("report",), ("export", "--format", "csv"), ("export", "--format", "cleanlab")])
def test_no_pipe_is_replaced(
    words: tuple[str, ...], more: tuple[str, ...], run: Run, finished: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    code, _, err = run(words[0], finished, *words[1:], "--out", tmp_path / "pipe.csv", *more)
    assert code == 1 and "pipe.csv: it is a pipe, and only a regular file" in err and err.count("\n") == 1
    assert (tmp_path / "pipe.csv").is_fifo() and os.listdir(tmp_path) == ["pipe.csv"]


def test_a_report_replaces_another_file_only_if_asked(run: Run, finished: Path, tmp_path: Path) -> None:
    words, page = ("report", finished, "--max-images", 1, "--out"), tmp_path / "page.html"
    page.write_text("mine")
    code, _, err = run(*(0 if word == 1 else word for word in words), tmp_path / "empty.html")
    assert code == 1 and "expected --max-images from 1 to 20,000, got 0" in err
    code, _, err = run(*words, page)
    assert code == 1 and "is no report of labelsieve, so it is not replaced; choose another name or pass" in err
    assert page.read_text() == "mine"
    assert run(*words, page, "--overwrite")[0] == 0
    assert run(*words, page)[0] == 0, "now it is one"
    code, _, err = run(*words, finished / "run.json", "--overwrite")
    assert code == 2 and "no file of the run itself" in err


def test_the_file_of_the_images_is_not_replaced(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    words, source = ("--kind", "pair", "--rate", "0.2", "--overwrite", "--out"), tmp_path / "noisy.parquet"
    assert run("noise", drawn_folder, *words, source)[0] == 0
    before = source.read_bytes()
    code, _, err = run("noise", source, *words, source)
    assert code == 2 and "no file that images are read from" in err
    assert run("scan", source, *MODEL, *MATCH, "--out", tmp_path / "run")[0] == 0
    for verb in (("export", tmp_path / "run", "--format", "parquet"), ("report", tmp_path / "run")):
        assert run(*verb, "--overwrite", "--out", source)[0] == 2
    assert source.read_bytes() == before


def test_report(run: Run, finished: Path, drawn_folder: Path, tmp_path: Path) -> None:
    code, out, _ = run("report", finished, "--out", tmp_path / "again.html", "--max-images", 3)
    assert code == 0 and "wrote" in out
    table = Verdicts.load(finished).table
    assert table["id"][table["rank"].to_pylist().index(1)].as_py() in (tmp_path / "again.html").read_text()
    shutil.copytree(drawn_folder, tmp_path / "moved")
    assert run("report", finished, "--out", tmp_path / "moved.html", "--source", tmp_path / "moved")[0] == 0
    (tmp_path / "moved" / "cat" / "cat-1.png").unlink()
    code, _, err = run("report", finished, "--out", tmp_path / "changed.html", "--source", tmp_path / "moved")
    assert code == 1 and "changed since the run" in err and err.count("\n") == 1
    assert not (tmp_path / "changed.html").exists()


@pytest.mark.parametrize("format", ["csv", "parquet", "cleanlab", "imagefolder"])
def test_export(format: str, run: Run, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / ("clean" if format == "imagefolder" else f"out.{'parquet' if format == 'parquet' else 'csv'}")
    words = ("export", finished, "--format", format, "--out", out)
    code, said, _ = run(*words)
    assert code == 0
    verdicts = Verdicts.load(finished)
    if format == "imagefolder":
        assert f"wrote {out}: {32 - int(verdicts.is_issue.sum())} of 32 images\n" in said
        assert f"note: not written: {int(verdicts.is_issue.sum())} flagged\n" in said
        kept = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
        assert kept == {
            name.as_py() for name, bad in zip(verdicts.table["id"], verdicts.is_issue, strict=True) if not bad
        }
    elif format == "parquet":
        assert pq.read_table(out).num_rows == 32
    else:
        assert len(rows_of(out)) == 32
    code, _, err = run(*words)
    assert code == 1 and err.count("\n") == 1
    assert run(*words, "--overwrite")[0] == 0


@pytest.mark.parametrize("name", ["verdicts.parquet", "run.json"])
def test_an_export_leaves_the_files_of_the_run_alone(name: str, run: Run, finished: Path) -> None:
    before = (finished / name).read_bytes()
    code, _, err = run("export", finished, "--format", "parquet", "--out", finished / name, "--overwrite")
    assert code == 2 and "expected --out to be no file of the run itself" in err and err.count("\n") == 1
    assert (finished / name).read_bytes() == before


def test_export_with_marks(run: Run, finished: Path, tmp_path: Path) -> None:
    verdicts, marks, out = Verdicts.load(finished), tmp_path / "marks.csv", tmp_path / "clean"
    ids = [name for name, row in zip(verdicts.table["id"].to_pylist(), verdicts.given, strict=True) if row == 0]
    marks.write_text("id,mark\n" + "".join(f"{name},wrong\n" for name in ids))
    code, said, _ = run("export", finished, "--format", "imagefolder", "--out", out, "--marks", marks)
    left = int((~verdicts.is_issue & (verdicts.given != 0)).sum())
    assert code == 0 and f"wrote {out}: {left} of 32 images; no image is left of {verdicts.class_names[0]}\n" in said
    code, _, err = run(
        "export", finished, "--format", "csv", "--out", tmp_path / "x.csv", "--marks", tmp_path / "no.csv"
    )
    assert code == 1 and "cannot be read as a CSV of marks" in err and err.count("\n") == 1


@pytest.mark.parametrize("repeated", [True, False])
def test_all_files_of_marks_count(repeated: bool, run: Run, finished: Path, tmp_path: Path) -> None:
    verdicts = Verdicts.load(finished)
    ids = verdicts.table["id"].to_pylist()
    unflagged = [name for name, bad in zip(ids, verdicts.is_issue, strict=True) if not bad]
    flagged = [name for name, bad in zip(ids, verdicts.is_issue, strict=True) if bad]
    (tmp_path / "a.csv").write_text(f"id,mark\n{unflagged[0]},wrong\n{unflagged[1]},wrong\n")
    (tmp_path / "b.csv").write_text(f"id,mark\n{unflagged[1]},right\n{flagged[0]},right\n")
    files = [str(tmp_path / "a.csv"), *(["--marks"] if repeated else []), str(tmp_path / "b.csv")]
    out = tmp_path / "t.parquet"
    code, said, _ = run("export", finished, "--format", "parquet", "--out", out, "--marks", *files)
    assert code == 0 and "2 files of marks, 3 images marked; the files differ on 1, where the last one counts" in said
    table = pq.read_table(out)
    issues = {name for name, bad in zip(ids, table["is_label_issue"].to_pylist(), strict=True) if bad}
    assert issues == {*flagged[1:], unflagged[0]}


def test_export_names_the_classes_without_an_image(run: Run, drawn_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(drawn_folder, tmp_path / "photos"))
    (folder / "zebra").mkdir()
    (folder / "zebra" / "broken.png").write_bytes(b"")
    assert run("scan", folder, *MODEL, *MATCH, "--out", tmp_path / "run")[0] == 0
    code, said, _ = run("export", tmp_path / "run", "--format", "imagefolder", "--out", tmp_path / "clean")
    assert code == 0 and said.endswith("of 33 images; no image is left of zebra\n")
    assert not (tmp_path / "clean" / "zebra").exists()
    code, _, err = run("export", tmp_path / "run", "--format", "imagefolder", "--out", folder / "clean")
    assert code == 1 and "--out outside of the source folder" in err and err.count("\n") == 1
    assert not (folder / "clean").exists(), "the next scan would read it as a class"


def test_export_names_a_few_of_many_classes_without_an_image(
    run: Run, photo_folder: Callable[..., Path], mini_clip: VisionLanguageModel, tmp_path: Path
) -> None:
    import labelsieve as ls

    images = ls.load_images(photo_folder({f"kind {letter}": 1 for letter in "abcdefghijklm"}))
    verdicts = ls.scan(images, mini_clip, detector=ls.LabelMatch())
    quality = np.where(images.labels == 12, 1, 0).astype(np.float32)
    scores = Scores(label_quality=quality, predicted=images.labels, confidence=quality)
    decide(images, scores, record=verdicts.record).save(tmp_path / "run")
    code, said, _ = run("export", tmp_path / "run", "--format", "imagefolder", "--out", tmp_path / "clean")
    assert code == 0
    assert said.endswith(
        ": 1 of 13 images; no image is left of " + ", ".join(f"kind {each}" for each in "abcdefghij") + " and 2 more\n"
    )


@pytest.mark.parametrize("verb", ["report", "export"])
def test_no_such_run(verb: str, run: Run, tmp_path: Path) -> None:
    more = ("--format", "csv", "--out", tmp_path / "x.csv") if verb == "export" else ()
    code, _, err = run(verb, tmp_path / "none", *more)
    assert code == 1 and "expected a finished run with a run.json" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_list(run: Run) -> None:
    code, out, err = run("list")
    assert (code, err) == (0, "")
    for name in ("deft", "label-match", "small-loss", "gmm", "paper-real", "vpt-deep", "none", "lora", "full", "clip"):
        assert f" {name} " in out
    text = " ".join(out.split())
    assert (
        "(184,320 parameters, 0.21% of CLIP ViT-B/16)" in text
        and "(85,799,424 parameters, 100.00% of CLIP ViT-B/16)" in text
    )


@pytest.mark.slow
def test_list_counts_on_a_given_model(run: Run, tmp_path: Path, mini_clip: VisionLanguageModel) -> None:
    code, out, err = run("list", "--model", MINI_CLIP)
    assert (code, err) == (0, "")
    count = sum(value.numel() for value in mini_clip.image_encoder.parameters())
    assert f"({count:,} parameters, 100.00% of" in " ".join(out.split())
    code, out, err = run("list", "--model", tmp_path / "none")
    assert (code, out) == (1, "") and err.count("\n") == 1 and "is neither; check --model" in err
    odd = tmp_path / "[" / "x]"  # which would close a tag of rich
    odd.parent.mkdir()
    odd.symlink_to(MINI_CLIP)
    code, out, err = run("list", "--model", odd)
    assert (code, err) == (0, "") and "x]" in out


@pytest.mark.parametrize("verb", ["report", "export"])
def test_images_of_a_run_that_were_in_memory(
    verb: str, run: Run, drawn_folder: Path, tmp_path: Path, mini_clip: VisionLanguageModel
) -> None:
    import labelsieve as ls

    found = ls.load_images(drawn_folder)
    images = ls.load_images([found.open(row) for row in range(32)], labels=[found.class_names[k] for k in found.labels])
    ls.scan(images, mini_clip, detector=ls.LabelMatch(), out=tmp_path / "run")
    more = ("--format", "imagefolder", "--out", tmp_path / "clean") if verb == "export" else ()
    code, _, err = run(verb, tmp_path / "run", *more)
    assert code == 1 and "in memory; say with --source where they lie" in err and err.count("\n") == 1
    code, _, err = run(verb, tmp_path / "run", *more, "--source", drawn_folder)
    assert code == 1 and "changed since the run" in err, "other ids"


def test_a_file_of_noise_is_parquet_and_may_be_drawn_as_in_the_paper(
    run: Run, drawn_folder: Path, tmp_path: Path
) -> None:
    words = ("noise", drawn_folder, "--kind", "symmetric", "--rate", 0.5)
    code, _, err = run(*words, "--out", tmp_path / "noisy.csv")
    assert (code, err) == (1, "labelsieve: expected --out to end in .parquet, got noisy.csv\n")
    changed = []
    for seed in range(3):
        out = tmp_path / f"{seed}.parquet"
        assert run(*words, "--out", out, "--seed", seed, "--paper-rate")[0] == 0
        table = pq.read_table(out)
        pairs = zip(*(table[name].to_pylist() for name in ("label", "clean_label")), strict=True)
        changed.append(sum(noisy != clean for noisy, clean in pairs))
    code, _, err = run(
        "noise", drawn_folder, "--kind", "instance", "--rate", 0.5, "--paper-rate", "--out", tmp_path / "i.parquet"
    )
    assert code == 2 and "--paper-rate goes with --kind symmetric or pair only, got --kind instance" in err
    assert set(changed) != {16} and all(4 <= count <= 22 for count in changed), "12 are expected, and none is sure"


# ---------------------------------------------------------------- what may happen on the way


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(28, "No space left on device", "/somewhere/x"),
            "/somewhere/x: No space left on device; check the disk",
        ),
        (OSError("no strerror"), "no strerror; check the disk"),
        (KeyboardInterrupt(), "stopped; to go on: labelsieve scan 'my photos' --out run --resume"),
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
            "lower --batch-size or take --device cpu",
        ),
        (MemoryError("Unable to allocate 8.00 PiB"), "this machine has too little memory"),
        (
            RuntimeError("[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
            "this machine has too little memory",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "another process of this run has ended, perhaps for want of memory; stopped; to go on: labelsieve scan",
        ),
        (
            RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:7"),
            "to go on: labelsieve scan 'my photos' --out run --resume",
        ),
    ],
    ids=["disk", "disk-unknown", "interrupt", "memory", "numpy", "torch", "worker", "peer"],
)
def test_what_the_user_can_mend_is_one_line(
    error: BaseException, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("labelsieve.commands.scan.Scan.run", fail)
    code, out, err = run("scan", "my photos", "--out", "run")
    assert (code, out) == (1, "") and said in err and err.count("\n") == 1


def test_an_error_cannot_steer_the_terminal(run: Run) -> None:
    code, out, err = run("report", "none\x1b[31m")
    assert (code, out) == (1, "") and "none\ufffd[31m" in err and "\x1b" not in err


def test_a_letter_that_the_terminal_lacks_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where what goes into a file is not UTF-8."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    monkeypatch.setattr("labelsieve.commands.demo.Demo.run", lambda _demo, console: console.print("\u2192 done"))
    assert main(["demo"]) == 0
    sys.stdout.flush()
    assert written.getvalue().split() == [b"?", b"done"]


def test_control_c_where_there_is_nothing_to_go_on_with(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labelsieve.commands.demo.Demo.run", stop)
    assert run("demo") == (1, "", "labelsieve: stopped\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_another_library_takes_for_an_error(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_imported(_verbs: object, _verb: str) -> None:
        try:
            signal.raise_signal(getattr(signal, name))
        except KeyboardInterrupt:
            raise ImportError("cannot import a part of it") from None

    monkeypatch.setattr("labelsieve.core.registry.Registry.__getitem__", half_imported)
    # what runs in the background of a shell ignores some of them, and so would the command
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        assert run("list") == (1, "", "labelsieve: stopped\n")
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_signals_are_minded_before_anything_slow_is_imported() -> None:
    code = "import sys, labelsieve.cli; print(sorted({'rich', 'tyro', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_reader_that_has_left_is_no_error() -> None:
    """As of `labelsieve list | head -1`, in a process of its own: it gives away its stdout."""
    code = "import sys; from labelsieve.cli import main; sys.exit(main(['--help']))"
    process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 1 and process.stderr.read() == b""
    process.stderr.close()


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("labelsieve.commands.scan.Scan.run", fail)
    with pytest.raises(ZeroDivisionError):
        run("scan", "photos", "--out", "run")


def test_only_the_first_process_speaks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run("report", "none") == (1, "", "")


def test_a_run_names_its_model_from_any_folder(
    photo_folder: Callable[..., Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_folder({"cat": 4, "dog": 4})
    shutil.copytree(MINI_CLIP, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert run("scan", "photos", "--model", "model", "--detector", "label-match", "--out", "done")[0] == 0
    record = json.loads((tmp_path / "done" / "run.json").read_text())
    assert record["model"]["name"] == str(tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = run("adapt", "../done", "--out", "classifier", "--epochs", 1, "--tune", "linear")
    assert (code, err) == (0, "")
