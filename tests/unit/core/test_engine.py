"""Seeds, precision and progress: what everything else runs on."""

from __future__ import annotations

import io
from itertools import combinations

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from rich.console import Console

from labelsieve.core.engine import is_bf16_faster, make_engine
from labelsieve.core.errors import SettingsError
from labelsieve.core.progress import Progress


def test_each_purpose_has_random_numbers_of_its_own() -> None:
    purposes = [(seed, purpose) for seed in (0, 1) for purpose in ((1,), (2,), (1, 2), (2, 1), (1, 2, 1))]
    drawn = [torch.rand(20, generator=make_engine(device="cpu", seed=s).generator(*p)) for s, p in purposes]
    assert not any(torch.equal(one, other) for one, other in combinations(drawn, 2))
    again = [torch.rand(20, generator=make_engine(device="cpu", seed=s).generator(*p)) for s, p in purposes]
    assert all(map(torch.equal, drawn, again))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_encoder(precision: str, dtype: torch.dtype) -> None:
    engine = make_engine(device="cpu", precision=precision)  # type: ignore[arg-type]
    layer = torch.nn.Linear(2, 2)
    with engine.autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert engine.precision == precision and layer.weight.dtype == torch.float32


def test_auto_takes_bf16_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_bf16_faster(torch.device("meta"))
    for pays, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("labelsieve.core.engine.is_bf16_faster", lambda _device, pays=pays: pays)
        assert make_engine(device="cpu").precision == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"available here \(auto, cpu.*\), got cuda"):
        make_engine(device="cuda")


def test_a_process_stays_with_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(device="cpu")
    for state in (PartialState._shared_state, AcceleratorState._shared_state):
        monkeypatch.setitem(state, "device", torch.device("mps"))  # as after an earlier call with auto
    assert make_engine(precision="fp32").device.type == "mps"
    with pytest.raises(SettingsError, match="device cpu was asked for, but this process was set up on mps; start"):
        make_engine(device="cpu")
    monkeypatch.undo()
    assert make_engine(device="cpu").device == engine.device


def test_a_seed_counts_from_zero() -> None:
    with pytest.raises(SettingsError, match=r"seed from 0 to below 2\^63, got -1"):
        make_engine(device="cpu", seed=-1)


def test_progress_leaves_one_line_where_nobody_looks_on() -> None:
    console = Console(file=io.StringIO(), width=100)
    progress = Progress(console)
    progress.say("[red]a class name[/red]")
    with progress.task("training", total=3, unit="steps") as advance:
        for _ in range(3):
            advance(1)
    with progress.task("nothing to do", total=0, unit="steps") as advance:
        advance(1)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "[red]a class name[/red]", "markup in what the user gave is text"
    assert len(lines) == 2 and lines[1].startswith("training") and "3/3" in lines[1]


def test_what_is_said_cannot_steer_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    Progress(console).say("2 classes: \x1b[2Jcat, dog\nand a line")
    assert console.file.getvalue() == "2 classes: \ufffd[2Jcat, dog\nand a line\n"  # type: ignore[attr-defined]


def test_progress_without_a_console_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.say("nobody hears this")
    with progress.task("training", total=3, unit="steps") as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")
