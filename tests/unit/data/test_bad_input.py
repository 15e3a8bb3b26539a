"""Bad input through the command line: exit code 1, one line that says what to do, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from labelsieve.cli import main
from labelsieve.demo import MINI_CLIP
from labelsieve.verdicts import Verdicts
from slow_cases import mostly_slow
from small_pictures import encoded, png_of

MATCH = ("--model", str(MINI_CLIP), "--device", "cpu", "--detector", "label-match")
TRAINED = (*MATCH[:-1], "small-loss", "--epochs", "1", "--min-steps", "0", "--peft", "none")
Refuse = Callable[..., str]


@pytest.fixture
def photos(drawn_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn_folder, tmp_path / "photos"))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Returns a function that scans what has to be refused, and returns the one line on stderr."""

    def refused(source: object, *words: object, out: Path | None = None) -> str:
        capsys.readouterr()
        folder = tmp_path / "run" if out is None else out
        code = main([str(word) for word in ("scan", source, *MATCH, "--out", folder, *words)])
        said = capsys.readouterr().err
        assert code == 1
        assert said.startswith("labelsieve: ") and said.count("\n") == 1 and "Traceback" not in said
        assert not [path for path in folder.glob("**/*") if path.is_file()] if folder.is_dir() else True
        return said

    return refused


# ---------------------------------------------------------------- folders, labels, tables


def test_folders(refused: Refuse, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "is empty; check the path" in refused(tmp_path / "empty")
    assert "does not exist; check the path" in refused(tmp_path / "none")
    assert "has no folders, only 8 files (8 images)" in refused(photos / "cat")
    assert not (tmp_path / "run").exists(), "a refused scan leaves an empty folder"
    for out in (photos, photos / "run", photos / "cat" / "run"):
        code = main(["scan", str(photos), *MATCH, "--overwrite", "--out", str(out)])
        assert code == 1 and "--out outside of the source folder" in capsys.readouterr().err
    assert len(list(photos.iterdir())) == 4, "the run would be a class"
    for name in ("boat", "cup", "tree"):
        shutil.rmtree(photos / name)
    assert 'has only "cat"; add the other classes' in refused(photos)


def test_seeds_below_0(refused: Refuse, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected --seed from 0 to below 2^63, got -1" in refused(photos, "--seed", -1)
    assert "expected --seed from 0 to below 2^63, got -1" in refused(photos, "--seed", -1, "--limit", 8)
    assert main(["demo", "--seed", "-1", "--out", str(tmp_path / "demo")]) == 1
    assert "expected --seed from 0 to below 2^63, got -1" in capsys.readouterr().err


def test_class_names(refused: Refuse, photos: Path) -> None:
    assert "expected 4 class names for the class folders (boat, cat, cup, tree), got 3: boat, cat, cup" in refused(
        photos, "--class-names", "boat", "cat", "cup"
    )
    assert "class names must differ" in refused(photos, "--class-names", "boat", "Boat", "cat", "cup", "tree")
    assert "cannot be read" in refused(photos, "--class-names", photos / "names.txt")
    (photos.parent / "names.json").write_text('{"cat": "tabby"}')
    assert "expected a JSON list of class names" in refused(photos, "--class-names", photos.parent / "names.json")
    (photos / "cat").rename(photos / "Tree")
    assert '"Tree" and "tree"' in refused(photos)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["image,label", "cat/cat-1.png,cat", "cup/cup-1.png,"], "1 of 2 labels are missing"),
        (["picture_of,label", "cat/cat-1.png,cat"], "name it with --image-column"),
        (["image,kind", "cat/cat-1.png,cat"], "name it with --label-column"),
        (["image,label", "../cat-1.png,cat", "cup/cup-1.png,cup"], "leads out of the folder"),
        (["image,label", "cat/no.png,cat", "cup/no.png,cup"], "none of the 2 images"),
        (["image,label", "cat/cat-1.png,cat", "cat/cat-2.png,cat"], "expected at least two classes"),
        (["image,label", "cat/cat-1.png,T-Shirt", "cup/cup-1.png,t_shirt"], "class names must differ"),
    ],
)
def test_tables(lines: list[str], said: str, refused: Refuse, photos: Path) -> None:
    (photos / "labels.csv").write_text("\n".join(lines) + "\n")
    assert said in refused(photos / "labels.csv")


def test_a_column_that_is_not_there(refused: Refuse, photos: Path) -> None:
    (photos / "labels.csv").write_text("image,label\ncat/cat-1.png,cat\ncup/cup-1.png,cup\n")
    assert 'did you mean "label"' in refused(photos / "labels.csv", "--label-column", "labl")
    assert 'expected a column "truth"' in refused(photos / "labels.csv", "--truth-column", "truth")
    assert "expected --limit from 1 to 1,000,000,000, got 0; leave it out" in refused(
        photos / "labels.csv", "--limit", 0
    )


def test_a_class_with_one_image_is_told_and_scanned(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((photos / "cup").iterdir())[1:]:
        path.unlink()
    assert main(["scan", str(photos), *TRAINED, "--out", str(tmp_path / "run")]) == 0
    assert "1 of 4 classes have a single image: cup" in capsys.readouterr().out.replace("\n", " ")
    assert len(Verdicts.load(tmp_path / "run")) == 25


# ---------------------------------------------------------------- pictures


def test_odd_pictures_among_fine_ones(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cat = Image.open(photos / "cat" / "cat-1.png").convert("RGB")
    grey = np.asarray(cat.convert("L"))
    readable = {
        "cmyk.jpg": encoded(cat.convert("CMYK"), "JPEG"),
        "deep.png": encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "palette.gif": encoded(cat.convert("P"), "GIF"),
        "animated.gif": encoded(cat, "GIF", save_all=True, append_images=[cat.rotate(90)]),
        "one.png": encoded(cat.resize((1, 1)), "PNG"),
    }
    unreadable = {
        "truncated.png": (photos / "cat" / "cat-2.png").read_bytes()[:600],
        "zero.png": b"",
        "text.jpg": b"this is no picture",
        "bomb.png": png_of(60_000, 60_000),
    }
    for name, data in {**readable, **unreadable}.items():
        (photos / "cat" / name).write_bytes(data)
    assert main(["scan", str(photos), *TRAINED, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == ""
    table = pq.read_table(tmp_path / "run" / "verdicts.parquet")
    rows = {row["id"]: row for row in table.to_pylist()}
    assert len(rows) == 32 + len(readable) + len(unreadable)
    failed = {name.removeprefix("cat/") for name, row in rows.items() if row["error"] is not None}
    assert failed == set(unreadable)
    for name, row in rows.items():
        assert (row["label_quality"] is None) == (row["error"] is not None) == (row["rank"] is None), name
    assert "the file is empty" in rows["cat/zero.png"]["error"]
    assert "pixels" in rows["cat/bomb.png"]["error"]
    assert rows["cat/cmyk.jpg"]["predicted_label"] is not None
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert any("4 images (" in str(found) and "could not be read" in str(found) for found in record["findings"])


def test_not_one_readable_picture(refused: Refuse, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "0.jpg").write_text("no picture")
    assert "none of the 2 images can be read" in refused(tmp_path / "broken")


# ---------------------------------------------------------------- models


def a_model(folder: Path) -> Path:
    return Path(shutil.copytree(MINI_CLIP, folder / "model"))


def test_models(refused: Refuse, photos: Path, tmp_path: Path) -> None:
    assert "check --model" in refused(photos, "--model", tmp_path / "none")
    model = a_model(tmp_path)
    (model / "tokenizer.json").unlink()
    assert "tokenizer" in refused(photos, "--model", model)
    shutil.rmtree(model)
    model = a_model(tmp_path)
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "weights" in refused(photos, "--model", model)
    (model / "model.safetensors").unlink()
    assert "weights" in refused(photos, "--model", model)
    (model / "config.json").write_text('{"model_type": "bert"}')
    assert "dual-encoder" in refused(photos, "--model", model)
    (model / "config.json").write_text("{")
    assert "config.json" in refused(photos, "--model", model)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 605247071\n"


@pytest.mark.parametrize("names", [["model.safetensors"], ["tokenizer.json"], ["config.json", "model.safetensors"]])
def test_a_model_whose_files_git_left_out(names: list[str], refused: Refuse, photos: Path, tmp_path: Path) -> None:
    model = a_model(tmp_path)
    for name in names:
        (model / name).write_text(POINTER)
    said = refused(photos, "--model", model)
    assert f"pointers of Git LFS in the place of {', '.join(names)}; " in said and "git lfs pull" in said


def test_weights_that_are_cut_short(refused: Refuse, photos: Path, tmp_path: Path) -> None:
    model = a_model(tmp_path)
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:5000])
    assert "cannot be loaded: a file of them is cut short or damaged; get them again" in refused(
        photos, "--model", model
    )


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", None, "has no usable tokenizer (tokenizer.json, or vocab.json and merges.txt): it knows no"),
        (
            "tokenizer.json",
            "{}",
            "has no usable tokenizer (tokenizer.json, or vocab.json and merges.txt): added_tokens",
        ),
        ("tokenizer_config.json", "[", "merges.txt): a file of it is no JSON"),
        ("preprocessor_config.json", None, "has no usable image processor (preprocessor_config.json): there is none"),
        ("config.json", "", "has no usable configuration (config.json): a file of it is no JSON"),
        ("model.safetensors", None, "cannot be loaded: there are none, in model.safetensors or pytorch_model.bin; get"),
        ("model.safetensors", "", "cannot be loaded: a file of them is cut short or damaged; get them again"),
    ],
)
def test_a_broken_part_of_a_model_in_plain_words(
    file: str, content: str | None, said: str, refused: Refuse, photos: Path, tmp_path: Path
) -> None:
    model = a_model(tmp_path)
    (model / file).unlink()
    if content is not None:
        (model / file).write_text(content)
    assert said in refused(photos, "--model", model)


# ---------------------------------------------------------------- how long a message gets

LONG = "x" * 3000
HOSTILE = [
    [LONG],
    ["scan", LONG, "--out", "run"],
    ["scan", "photos", "--out", "run", f"--{LONG}", "3"],
    ["scan", "photos", "--out", "run", *(f"--{LONG}{number}" for number in range(20))],
    ["scan", "photos", "--out", "run", *map(str, range(500))],
    ["scan", "photos", "--out", "run", "--peft", LONG],
    ["scan", "photos", "--out", "run", "--epochs", LONG],
    ["scan", "photos", "--out", "run", "--epochs", "9" * 5000],
    ["scan", "photos", "--out", "run", "--epochs", "9" * 4000],
    ["scan", "photos", "--out", "run", "--batch-size", LONG],
    ["scan", "photos", "--out", "run", "--learning-rate", "1e308"],
    ["scan", "photos", "--out", "run", "--detector", LONG],
    ["scan", "photos", "--out", "run", "--recipe", LONG],
    ["scan", "photos", "--out", LONG],
    ["scan", "photos", "--out", "run", "--model", LONG],
    ["adapt", LONG, "--out", "model"],
    ["report", LONG],
    ["export", LONG, "--format", LONG, "--out", "x"],
    ["noise", "photos", "--kind", "pair", "--rate", "0.1", "--out", LONG],
    ["noise", "photos", "--kind", LONG, "--rate", "0.1", "--out", "x.parquet"],
    ["bench", LONG, "--out", "out"],
    ["bench", "phase1", "--out", "out", "--source", LONG],
    ["bench", "phase1", "--out", "out", "--source", f"{LONG}={LONG}"],
    ["demo", "--images", "1000000"],
]


def test_no_message_is_longer_than_a_person_reads(
    subtests: pytest.Subtests, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, words in enumerate(HOSTILE):
        with subtests.test(" ".join(words)[:60]), pytest.MonkeyPatch.context() as patch:
            home = tmp_path / str(number)
            home.mkdir()
            patch.chdir(home)
            capsys.readouterr()
            assert main(words) in (1, 2)
            said = capsys.readouterr().err
            assert said.startswith("labelsieve: ") and said.count("\n") == 1 and len(said) <= 520
            assert not list(home.iterdir())


@pytest.mark.parametrize(
    "lines",
    [
        f"title = {'9' * 5000}",
        f'title = "{LONG}"\n{LONG} = 1',
        f"title = [{', '.join(map(str, range(5000)))}]",
        f"x = {'[' * 5000}{']' * 5000}",
        f'title = "t"\ntask = "{LONG}"\n[model]\na = "bundled"\n[data.a]\nsource = "x"\n[noise.a]\n[method.a]\n',
        "title = \xff",
    ],
    ids=range(6),
)
def test_no_message_on_a_file_is_longer(lines: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.toml").write_bytes(lines.encode("latin-1"))
    assert main(["bench", str(tmp_path / "x.toml"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("labelsieve: ") and said.count("\n") == 1 and len(said) <= 520
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- places to write to


def test_places_that_cannot_be_written(refused: Refuse, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "expected --out to be a folder" in refused(photos, out=tmp_path / "file")
    assert "could not make the folder" in refused(photos, out=tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ("state.safetensors", errno.ENOSPC),
        *mostly_slow([(name, errno.ENOSPC) for name in ("verdicts.parquet", "verdicts.csv", "run.json")], quick=()),
        *mostly_slow([("run.json", errno.EROFS), ("run.json", errno.EACCES)], quick=[("run.json", errno.EACCES)]),
    ],
)
def test_a_disk_that_refuses(
    part: str,
    error: int,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever file it is that cannot be put in its place, the run does not pass for a finished one."""
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if Path(target).name == part:
            raise OSError(error, os.strerror(error), str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    code = main(["scan", str(photos), *TRAINED, "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1 and part in said and f": {os.strerror(error)}; " in said
    assert not (tmp_path / "run" / "run.json").exists() and not list((tmp_path / "run").rglob("*.part"))
    monkeypatch.undo()
    assert main(["scan", str(photos), *TRAINED, "--out", str(tmp_path / "run"), "--overwrite"]) == 0
    assert len(Verdicts.load(tmp_path / "run")) == 32


@pytest.mark.slow
def test_a_disk_that_is_really_full(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The system itself refuses to write more than a few bytes: also to libraries that write on their own."""
    resource = pytest.importorskip("resource")
    words = ["scan", str(photos), *TRAINED, "--out", str(tmp_path / "run")]
    assert main([*words[:-1], str(tmp_path / "before")]) == 0  # so that the features are cached
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, limit in (("state.safetensors", 200), ("report.html", 16_000)):
        capsys.readouterr()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            code = main([*words, "--overwrite"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said = capsys.readouterr().err
        assert code == 1 and said.count("\n") == 1 and f"could not write {tmp_path / 'run'}" in said and name in said
        assert not list((tmp_path / "run").rglob("*.part"))
        assert (tmp_path / "run" / "run.json").exists() == (name == "report.html")
    # only the report is lacking, and that can be made anew
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 16_000
