"""The tables of choices: whatever is registered loads, says what it is, and is offered to the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labelsieve
from labelsieve.bench.tasks import TASKS
from labelsieve.cli import VERBS
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
from labelsieve.finetune.registry import LOSSES, TUNE
from labelsieve.metrics import METRICS, evaluate
from labelsieve.report import panels
from labelsieve.report.panels import PANELS
from labelsieve.report.registry import FORMATS
from labelsieve.vlm.families.registry import ADAPTERS
from labelsieve.vlm.peft.registry import PEFT

OFFERED = (DETECTORS, WARMUP_LOSSES, PEFT, ADAPTERS, PUBLISHED, LOSSES, TUNE, FORMATS, NOISE, TASKS)
OTHERS = (
    VERBS,
    TABLE_FORMATS,
    BOX_FORMATS,
    PANELS,
    FINDINGS,
)  # which `labelsieve list` leaves out; `labelsieve --help` has the verbs
REGISTRIES: dict[str, Registry[Any, Any]] = {each.option: each for each in (*OFFERED, *OTHERS)}
PANEL_TEMPLATES = Path(panels.__file__).with_name("templates") / "panels"
EVERY = [(option, name) for option, registry in REGISTRIES.items() for name in registry]


@pytest.mark.parametrize(("option", "name"), EVERY)
def test_what_is_registered_loads_and_says_what_it_is(option: str, name: str) -> None:
    registry = REGISTRIES[option]
    assert callable(registry[name]) and name in registry
    assert registry.about(name) and "\n" not in registry.about(name)


# Of what is written for a registry: where it lies, and how it begins.
WRITTEN: list[tuple[Registry[Any, Any], str, str]] = [
    (DETECTORS, "detect", r"^class (\w+)\((?!ABC)(?:(?!^class ).)*?^    def score\(self, inputs"),
    (WARMUP_LOSSES, "detect/losses.py", r"^def (\w+)\(logits: Tensor, labels: Tensor"),
    (LOSSES, "finetune", r"^(?:def|class) (\w+)\((?:logits: Tensor, labels: Tensor|Loss\))"),
    (PEFT, "vlm/peft", r"^def (\w+)\(_?vlm: \w+, _?sizes: Sizes"),
    (ADAPTERS, "vlm/families", r"^class ([A-Z]\w*)\((?!nn)\w+\)"),
    (PUBLISHED, "data/published", r"^def (\w+)\(path: Path, split: str\)"),
    (NOISE, "data", r"^def (\w+)\([^()]*request: Request"),
    (FINDINGS, "curation", r"^def (\w+)\(search: Search\) -> Iterator"),
    (PANELS, "report", r"^def ([a-z]\w+)\(_?page: Page\)"),
    (FORMATS, "report", r"^def (write_\w+)\((?:verdicts: Verdicts, reviews|cards: |[^()]*\n    labels: )"),
    (TABLE_FORMATS, "data", r"^def (\w+)\(files: Sequence\[Path\], \*, asked: Columns, where: str\)"),
    (BOX_FORMATS, "data/box_formats", r"^def (read_\w+)\(path: Path, \*, asked: Columns, split"),
    (VERBS, "commands", r"^class (\w+)\((?:(?!^class ).)*?^    def run\(self, console: Console"),
]


@pytest.mark.parametrize(("registry", "folder", "beginning"), WRITTEN, ids=[each[0].option for each in WRITTEN])
def test_what_is_written_is_registered(registry: Registry[Any, Any], folder: str, beginning: str) -> None:
    root = Path(labelsieve.__file__).parent
    places = set()
    for path in [root / folder] if folder.endswith(".py") else (root / folder).rglob("*.py"):
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        names = re.findall(beginning, path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        places |= {f"{module}:{name}" for name in names}
    here = f"labelsieve.{folder.removesuffix('.py').replace('/', '.')}"
    assert places == {entry.place for entry in registry.entries.values() if entry.place.startswith(here)}


def test_all_of_it_is_listed() -> None:
    listed = {(option.split()[-1], name.removesuffix(":PATH")) for option, name, _ in entries(None)}
    assert {(registry.option, name) for registry in OFFERED for name in registry} <= listed


def test_modules_say_what_becomes_of_them_on_a_backbone() -> None:
    own = {"full", "linear", "paper", "lora", "bitfit"}
    assert set(TUNE) - own == {name for name, module in PEFT.entries.items() if module.backbone != "no"}
    assert all(
        ("cannot be saved" in TUNE.about(name)) == (PEFT.entries[name].backbone == "stays") for name in set(TUNE) - own
    )


def test_every_metric_is_measured() -> None:
    wrong = np.array([True, True, False, False])
    found = evaluate(wrong=wrong, flagged=wrong, quality=np.array([0.1, 0.2, 0.8, 0.9], np.float32))
    assert set(METRICS) == set(found) - {"noise_rate", "flagged_rate", "images"}
    assert {found[name] for name in METRICS} == {1.0}, "higher = better, and these verdicts are perfect"


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
