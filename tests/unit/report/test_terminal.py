"""The summary in the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from labelsieve.core.progress import Progress
from labelsieve.core.quantities import about, counted, megabytes, percent, plain
from labelsieve.data.images import LabelledImages
from labelsieve.detect.scores import Scores
from labelsieve.metrics import OTHER_METRICS
from labelsieve.report import terminal
from labelsieve.report.printing import Unbroken
from labelsieve.report.terminal import summarize
from labelsieve.verdicts import decide

ESTIMATE = {
    "wrong_labels": {"value": 1.7, "low": 1.0, "high": 2.6},
    "right_flags": {"value": 0.85, "low": 0.7, "high": 0.95},
    "missed_labels": {"value": 0.4, "low": 0.0, "high": 1.0},
}


def summary(
    quality: list[float],
    *,
    names: tuple[str, ...] = ("cat", "dog"),
    truth: bool = False,
    width: int = 100,
    record: dict[str, Any] | None = None,
) -> str:
    n = len(quality)
    labels = np.arange(n) % len(names)
    images = LabelledImages(
        dataset=Dataset.from_dict({"image": [None] * n}),
        ids=tuple(str(row) for row in range(n)),
        labels=labels,
        class_names=names,
        contents=np.arange(n, dtype=np.uint64),
        truth=(labels + (np.arange(n) == 0)) % len(names) if truth else None,
    )
    unreadable = np.isnan(quality)
    scores = Scores(
        label_quality=np.array(quality, np.float32),
        predicted=np.where(unreadable, -1, (labels + 1) % len(names)),
        confidence=np.array(quality, np.float32),
        errors={int(row): "empty" for row in np.flatnonzero(unreadable)},
    )
    console = Console(file=io.StringIO(), width=width)
    summarize(decide(images, scores, record=record), console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_annotators_without_a_consensus_have_no_half_sentence() -> None:
    text = summary([0.1, 0.9], record={"annotators": [{"name": "ann", "labels": 2}], "consensus": None})
    assert "\nwhom to ask again about which image: consensus.csv" in text


def test_says_what_matters(tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    record = {
        "source": "photos/",
        "detector": {"name": "deft"},
        "seconds": 75,
        "zero_shot_agreement": 0.7,
        "out": str(tmp_path),
        "findings": [{"level": "warning", "figure": "4 % agree", "message": "Hard names.", "advice": "Rename them."}],
    }
    text = summary([0.1, 0.9, 0.2, 0.8, float("nan")], truth=True, record=record)
    assert "2 flagged of 4 images (50 %), 2 classes, 1 unreadable" in text
    assert "photos/ · deft · 1 min 15 s" in text and "agrees with 70 %" in text
    assert "dog (2)" in text and "(clean_*)" in text and "(issue_*)" in text
    assert all(f"{name} " in " ".join(text.split()) for name in OTHER_METRICS.values())
    assert "Warning: 4 % agree. Hard names." in text and "→ Rename them." in text
    assert f"{tmp_path}  report.html\n" in text


def test_says_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "MAX_IMAGES", 1)
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "report.html").write_bytes(b"x" * 2_340_000)
    record = {"out": str(folder), "model": {"name": "some/clip"}, "estimate": ESTIMATE}
    lines = [line.strip() for line in summary([0.1, 0.9, 0.2, 0.8], record=record, width=60).splitlines()]
    text = " ".join(lines)
    assert "about 2 (1 to 3) of 4 labels are wrong (estimate); 2 flagged of the flagged" in text
    assert "of the flagged about 85 % (70 % to 95 %) are wrong; of the others about 0 (0 to 1)" in text
    steps = lines[lines.index("Next steps") + 1 :]
    assert steps[0].startswith("look at the flagged images (2.3 MB): ")
    assert steps[0].endswith(f" '{folder}/report.html'")
    assert f"the report shows 1 of them; for all: labelsieve report '{folder}' --max-images 2" in steps
    assert f"write the clean part: labelsieve export '{folder}' --format imagefolder --out '{folder}-clean'" in steps
    assert f"train a classifier on it: labelsieve adapt '{folder}' --out '{folder}-model'" in steps
    assert f"give the right labels: labelsieve review '{folder}'" in steps
    assert "with what you marked in the report: add --marks labelsieve-marks.csv to export or adapt" in " ".join(steps)
    assert not any("labelsieve apply" in step for step in steps), "images in memory have no place to be written back to"
    (tmp_path / "labels.csv").touch()
    for source, suffix in ((tmp_path / "labels.csv", ".csv"), (tmp_path, "")):
        text = summary([0.1, 0.9], record={**record, "origin": {"source": str(source)}}, width=400)
        assert f"labelsieve apply '{folder}' --out '{folder}-corrected{suffix}'" in text
        assert "add --marks labelsieve-marks.csv to apply, export or adapt" in text
    assert "labelsieve apply" not in summary([0.1], record={**record, "origin": {"source": "cifar10n:x"}}, width=400)
    votes = {"source": str(tmp_path / "labels.csv"), "label_column": ["ann", "bob"]}
    assert "labelsieve apply" not in summary([0.1], record={**record, "origin": votes}, width=400)
    features = summary([0.1, 0.9], record={**record, "model": {"name": None}}, width=60)
    assert "Next steps" in features and not any(verb in features for verb in ("labelsieve export", "labelsieve adapt"))


def test_without_an_accelerator_the_step_of_training_is_fast(tmp_path: Path) -> None:
    record = {"out": str(tmp_path), "model": {"name": "some/clip"}}
    on_cpu, on_gpu = (
        summary([0.1, 0.9], record={**record, "hardware": f"{device}, x86_64"}, width=400) for device in ("cpu", "cuda")
    )
    assert f"labelsieve adapt {tmp_path} --out {tmp_path}-model --tune linear\n" in on_cpu
    assert "fast on a CPU; without --tune linear all weights are trained" in on_cpu
    assert f"labelsieve adapt {tmp_path} --out {tmp_path}-model\n" in on_gpu and "--tune" not in on_gpu


def test_an_empty_record_is_enough() -> None:
    text = summary([0.9, 0.8])
    assert "0 flagged of 2 images (0 %)" in text
    assert not any(
        title in text for title in ("Files", "Next steps", "(estimate)", "Against", "Most affected", "agrees")
    )


def test_only_the_most_affected_classes_are_listed() -> None:
    names = tuple(f"class {k}" for k in range(9))
    text = summary([0.1] * 18, names=names)
    assert sum(f"class {k}  " in text for k in range(9)) == 5 and "and 4 more" in text


@pytest.mark.parametrize("name", ["[red]bold[/red]", "[/]", "\x1b[2Jgone", "line\nbreak", "x" * 500])
def test_class_names_cannot_steer_the_terminal(name: str) -> None:
    text = summary([0.1, 0.9], names=(name, "dog"), width=80, record={"source": name})
    assert "\x1b" not in text and all(len(line) <= 80 for line in text.split("\n"))
    if name.startswith("["):
        assert name in text


def test_fits_a_narrow_terminal() -> None:
    assert all(len(line) <= 40 for line in summary([0.1, 0.9], truth=True, width=40).split("\n"))


def test_guessed_times_in_words() -> None:
    words = [plain(about(seconds)) for seconds in (0.2, 80, 100, 3000, 9000, 86_400, 1_000_000)]
    assert words == [f"about {each}" for each in ("1 s", "80 s", "1.7 min", "50 min", "2.5 h", "24 h", "12 days")]


WITH_UNITS = re.compile(r"\d %|\d(?: test)? (?:images|labels|classes|epochs|min|s|h|MB|GB)\b")


def test_a_number_and_its_unit_stay_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(b"x" * 2_340_000)
    record = {
        "source": "photos/",
        "seconds": 4335,
        "zero_shot_balanced_agreement": 0.704,
        "test": {"accuracy": 0.8125, "images": 32, "unreadable": 0},
        "out": str(tmp_path),
        "estimate": ESTIMATE,
        "findings": [
            {
                "level": "warning",
                "figure": f"{counted(3000, 'image', 'images')} ({percent(0.0004)}) hold 12 labels of 3 classes",
                "message": "Training took 59.6 s and 2.5 GB for 20 epochs, of which 7 % were lost on 1,234 images.",
                "advice": "Leave out the 40 images, or take 2,048 images a step for 10 epochs; 30 min are enough.",
            }
        ],
    }
    values = [0.1, 0.9, 0.2, 0.8, float("nan")]
    wide = summary(values, truth=True, record=record, width=1000)
    expected = WITH_UNITS.findall(wide)
    assert len(expected) > 25 and "\u00a0" not in wide
    for width in range(40, 101):
        narrow = summary(values, truth=True, record=record, width=width)
        assert WITH_UNITS.findall(narrow) == expected, f"{width} columns"
        assert "\u00a0" not in narrow and "\ue000" not in narrow
        commands = ("labelsieve", str(tmp_path))  # are not wrapped
        assert all(len(line) <= width for line in narrow.splitlines() if not any(each in line for each in commands))


def test_unbroken_text_is_as_wide_as_it_has_to_be() -> None:
    console = Console(file=io.StringIO(), width=80)
    table = Table(box=None, pad_edge=False)
    table.add_column("what", overflow="fold")
    table.add_row(Unbroken("of ", ("3,000 images", "bold"), " in 2 h 5 min"))
    console.width = 12
    console.print(table)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[1:] == ["of", "3,000 images", "in 2 h 5 min"]


def test_what_is_said_has_usual_spaces() -> None:
    console = Console(file=io.StringIO(), width=40)
    Progress(console).say(f"wrote x ({megabytes(2_340_000)})")
    assert console.file.getvalue() == "wrote x (2.3 MB)\n"  # type: ignore[attr-defined]
