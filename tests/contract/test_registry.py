"""The tables of choices: whatever is registered loads, says what it is, and is offered to the user."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import labelsieve
from labelsieve.bench.tasks import TASKS
from labelsieve.cli import VERBS, _resume_hint
from labelsieve.commands.listing import entries
from labelsieve.core.errors import SettingsError
from labelsieve.core.registry import Entry, Registry
from labelsieve.curation.findings import FINDINGS
from labelsieve.data.box_formats.registry import BOX_FORMATS
from labelsieve.data.noise_kinds import NOISE
from labelsieve.data.published.registry import PUBLISHED
from labelsieve.data.sources.table_formats import TABLE_FORMATS
from labelsieve.detect.deft.registry import WARMUP_LOSSES
from labelsieve.detect.registry import DETECTORS
from labelsieve.detect.tags.registry import TAG_DETECTORS
from labelsieve.finetune.registry import LOSSES, TUNE
from labelsieve.metrics import (
    CALIBRATION,
    CLASSIFICATION,
    DETECTION,
    METRICS,
    RATES,
    TAG_CLASSIFICATION,
    TAG_DECISIONS,
    TAG_DETECTION,
    Metric,
    calibration,
    evaluate,
    measure,
)
from labelsieve.report import panels
from labelsieve.report.exports.export import TABLE_WRITERS
from labelsieve.report.exports.registry import FORMATS
from labelsieve.report.panels import PANELS
from labelsieve.review.writers.registry import WRITERS
from labelsieve.tag_metrics import evaluate_pairs, measure_tags
from labelsieve.vlm.families.registry import FAMILIES
from labelsieve.vlm.peft.registry import PEFT

OFFERED = (DETECTORS, TAG_DETECTORS, WARMUP_LOSSES, PEFT, FAMILIES, PUBLISHED, LOSSES, TUNE, FORMATS, NOISE, TASKS)
OTHERS = (
    VERBS,
    TABLE_FORMATS,
    BOX_FORMATS,
    WRITERS,
    PANELS,
    FINDINGS,
)  # which `labelsieve list` leaves out; `labelsieve --help` has the verbs
REGISTRIES: dict[str, Registry[Any, Any]] = {each.title: each for each in (*OFFERED, *OTHERS)} | {
    "detector": DETECTORS,
    "detector of tags": TAG_DETECTORS,
}
PANEL_TEMPLATES = Path(panels.__file__).with_name("templates") / "panels"


def test_what_is_registered_loads_and_says_what_it_is(subtests: pytest.Subtests) -> None:
    for option, registry in REGISTRIES.items():
        with subtests.test(option):
            assert len(registry) > 1
            for name in registry:
                assert callable(registry[name]) and name in registry, name
                assert registry.about(name) and "\n" not in registry.about(name), name


# Of what is written for a registry: where it lies, and how it begins.
WRITTEN: list[tuple[Registry[Any, Any], str, str]] = [
    (DETECTORS, "detect", r"^class (\w+)\((?!ABC)(?:(?!^class ).)*?^    def score\(self, inputs"),
    (TAG_DETECTORS, "detect/tags", r"^class (\w+)\((?!ABC)(?:(?!^class ).)*?^    def score\(self, pairs"),
    (WARMUP_LOSSES, "detect/losses.py", r"^def (\w+)\(logits: Tensor, labels: Tensor"),
    (LOSSES, "finetune", r"^(?:def|class) (\w+)\((?:logits: Tensor, labels: Tensor|Loss\))"),
    (PEFT, "vlm/peft", r"^def ([a-z]\w+)\(_?vlm: \w+, _?spec: ModuleSpec"),
    (FAMILIES, "vlm/families", r"^class ([A-Z]\w*)\((?!nn)\w+\)"),
    (PUBLISHED, "data/published", r"^def (\w+)\(path: Path, split: str\)"),
    (NOISE, "data", r"^def (\w+)\([^()]*seed: int,[^()]*\) -> tuple\[NDArray\[np\.\w+\], tuple\[str, \.\.\.\]\]:"),
    (FINDINGS, "curation", r"^def (\w+)\(search: Search\) -> Iterator"),
    (PANELS, "report", r"^def ([a-z]\w+)\(_?page: Page\)"),
    (FORMATS, "report/exports", r"^def (write_\w+)\(request: ExportRequest\)"),
    (TABLE_FORMATS, "data", r"^def (\w+)\(files: Sequence\[Path\], \*, requested: Columns, where: str\)"),
    (WRITERS, "review/writers", r"^class (\w+)\((?:LabelFiles|FolderWriter)\)"),
    (BOX_FORMATS, "data/box_formats", r"^def (read_\w+)\(path: Path, \*, requested: Columns, split"),
    (VERBS, "commands", r"^class (\w+)\((?:(?!^class ).)*?^    def run\(self, console: Console"),
]


def test_what_is_written_is_registered(subtests: pytest.Subtests) -> None:
    root = Path(labelsieve.__file__).parent
    for registry, folder, beginning in WRITTEN:
        with subtests.test(registry.title):
            places = set()
            for path in [root / folder] if folder.endswith(".py") else (root / folder).rglob("*.py"):
                module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
                names = re.findall(beginning, path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
                places |= {f"{module}:{name}" for name in names}
            here = f"labelsieve.{folder.removesuffix('.py').replace('/', '.')}"
            assert places == {entry.place for entry in registry.entries.values() if entry.place.startswith(here)}


def test_what_an_export_goes_through_is_there(subtests: pytest.Subtests) -> None:
    for name in FORMATS:
        with subtests.test(name):
            assert callable(FORMATS[name]) and (not FORMATS.entries[name].tags or name in TABLE_WRITERS)


def test_a_verb_that_was_stopped_says_how_to_go_on(subtests: pytest.Subtests) -> None:
    for verb in VERBS:
        with subtests.test(verb):
            options = {field.name for field in dataclasses.fields(VERBS[verb])}
            said = _resume_hint([verb, "a b"])
            assert said.endswith(" --resume") == ("resume" in options)
            assert said == "stopped" or said.startswith(f"stopped; to go on: labelsieve {verb} 'a b'")


@pytest.mark.parametrize("name", WARMUP_LOSSES)
def test_a_warm_up_loss_has_a_value_for_each_image(name: str) -> None:
    losses = WARMUP_LOSSES[name](torch.randn(6, 4), torch.arange(6) % 4)
    assert losses.shape == (6,)


def test_all_of_it_is_listed() -> None:
    listed = {(option.split()[-1], name.removesuffix(":PATH")) for option, name, _ in entries(None)}
    assert {(registry.title, name) for registry in OFFERED for name in registry} <= listed


def test_modules_say_what_becomes_of_them_on_a_backbone() -> None:
    own = {"full", "linear", "paper", "lora", "bitfit"}
    assert set(TUNE) - own == {name for name, module in PEFT.entries.items() if module.phase_2 != "unused"}
    assert all(
        ("cannot be saved" in TUNE.about(name)) == (PEFT.entries[name].phase_2 == "attached")
        for name in set(TUNE) - own
    )


WRONG = np.array([True, True, False, False])
LABELS = WRONG.astype(np.int64)
TRUTH = np.array([[True, False], [False, True], [True, False], [False, True]])
TAGS = TRUTH ^ np.array([[True, True], [False, False], [False, False], [True, True]])


def sure(right: NDArray[np.bool_], *, good: bool) -> NDArray[np.float32]:
    """Returns probabilities that say what is right, or the contrary."""
    return np.asarray(right == good, dtype=np.float32)


# Of each function that measures: its metrics, what else it returns, and what it says of a good and a bad answer.
MEASURED: dict[str, tuple[Mapping[str, Metric], set[str], Callable[[bool], Mapping[str, Any]]]] = {
    "evaluate": (
        DETECTION | RATES,
        {"images"},
        lambda good: evaluate(wrong=WRONG, flagged=WRONG ^ (not good), quality=sure(~WRONG, good=good)),
    ),
    "calibration": (CALIBRATION, {"reliability"}, lambda good: calibration(sure(WRONG, good=good), WRONG)),
    "measure": (
        CLASSIFICATION,
        {"images", "unreadable", "per_class"},
        lambda good: measure(LABELS if good else 1 - LABELS, LABELS, ["a", "b"]),
    ),
    "evaluate_pairs": (
        TAG_DETECTION,
        {"images", "wrong_rate", "missing_rate"},
        lambda good: evaluate_pairs(
            truth=TRUTH, tags=TAGS, quality=sure(TAGS == TRUTH, good=good), flagged=(TAGS != TRUTH) ^ (not good)
        ),
    ),
    "measure_tags": (
        TAG_CLASSIFICATION | TAG_DECISIONS | {f"{name}_tuned": metric for name, metric in TAG_DECISIONS.items()},
        {"images", "unreadable", "threshold", "per_class"},
        lambda good: measure_tags(sure(TRUTH, good=good).astype(np.float64), TRUTH, ["a", "b"], threshold=0.7),
    ),
}


@pytest.mark.parametrize("function", MEASURED)
def test_every_metric_is_measured(function: str) -> None:
    metrics, others, measured = MEASURED[function]
    good, bad = measured(True), measured(False)
    assert set(metrics) == set(good) - others
    for name, metric in metrics.items():
        if metric.best != "none":
            assert good[name] == pytest.approx({"highest": 1, "lowest": 0}[metric.best]), "it is perfect"
            assert metric.merit(good[name]) > metric.merit(bad[name]), f"{name} is better of what is better"


def test_every_metric_is_in_an_experiment() -> None:
    assert {name for task in TASKS.values() for name in task().metrics} == set(METRICS)


def test_each_panel_of_the_report_is_a_section_with_its_name() -> None:
    templates = {path.name.removesuffix(".html.jinja"): path for path in PANEL_TEMPLATES.iterdir()}
    assert set(templates) == set(PANELS)
    for name, path in templates.items():
        assert path.read_text(encoding="utf-8").startswith(f'<section id="{name}"')


def test_a_name_is_registered_once() -> None:
    with pytest.raises(SettingsError, match="--codec json is registered twice"):
        Registry("--codec", Entry("json", "json:dumps"), Entry("json", "json:loads"))


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    registry: Registry[Any, Entry] = Registry("--codec", Entry("gone", "no_such_module:thing", "about"))
    assert "gone" in registry and "other" not in registry
    assert (list(registry), len(registry), registry.about("gone")) == (["gone"], 1, "about")
    with pytest.raises(ModuleNotFoundError):
        registry["gone"]
    with pytest.raises(KeyError):
        registry["other"]


def test_a_thing_has_its_name() -> None:
    for name in DETECTORS:
        assert DETECTORS.name_of(DETECTORS[name]) == name
    assert DETECTORS.name_of(Registry) is None
