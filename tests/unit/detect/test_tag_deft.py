"""DeFT of pairs: its loss, what it trains, how it goes on after a break, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import labelsieve as ls
from interrupting import break_off
from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import SettingsError
from labelsieve.demo.sketches import CLASS_NAMES, sketches
from labelsieve.detect.tags.deft.detector import TagDeFT
from labelsieve.detect.tags.deft.objective import TagObjective, tag_losses
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.loop import Step
from labelsieve.tags.verdicts import TagVerdicts
from slow_cases import mostly_slow

SHORT: dict[str, Any] = {"epochs": 3, "min_steps": 0, "batch_size": 64, "warmup_epochs": 1}


@pytest.fixture(scope="module")
def tagged() -> ls.TaggedImages:
    """Sketches whose tags are their class, one without its tag and one with another in its place."""
    drawn, labels = sketches(128, seed=0)
    tags = [[CLASS_NAMES[label]] for label in labels]
    tags[3], tags[5] = [], [CLASS_NAMES[(labels[5] + 1) % len(CLASS_NAMES)]]
    return ls.load_tags(drawn, tags=tags, class_names=CLASS_NAMES)


def scores() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns s+, s- and tags of five images, the second without a tag and the third with all."""
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64).mul(3)
    tags = torch.rand(5, 7, generator=generator) < 0.3
    tags[1], tags[2] = False, True
    return positive, negative, tags


def test_the_loss_is_binary_cross_entropy_with_both_states_balanced() -> None:
    positive, negative, tags = scores()
    found = tag_losses(positive, negative, tags, weighs=False)
    for row in range(5):
        terms: dict[bool, list[float]] = {True: [], False: []}
        for column in range(7):
            present, absent = np.exp(positive[row, column].item()), np.exp(negative[row, column].item())
            state = bool(tags[row, column])
            terms[state].append(-np.log((present if state else absent) / (present + absent)))
        wanted = sum(np.mean(each) / 2 for each in terms.values() if each)
        assert float(found[row]) == pytest.approx(wanted)


def test_a_weighed_loss_has_the_gradient_of_the_mean_absolute_error() -> None:
    positive, negative, tags = scores()
    ends = [value.clone().requires_grad_() for value in (positive, negative)]
    found = torch.autograd.grad(tag_losses(ends[0], ends[1], tags, weighs=True).sum(), ends)
    away = (torch.sigmoid(ends[0] - ends[1]) - tags.double()).abs()
    state = tags.double() / tags.sum(dim=1, keepdim=True).clamp(min=1)
    state += (~tags).double() / (~tags).sum(dim=1, keepdim=True).clamp(min=1)
    wanted = torch.autograd.grad((away * state).sum() / 2, ends)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_loss_of_any_size_is_finite() -> None:
    far = torch.tensor([[500.0, -500.0]], requires_grad=True)
    for weighs in (False, True):
        loss = tag_losses(far, -far, torch.tensor([[False, True]]), weighs=weighs)
        assert torch.isfinite(loss).all() and torch.isfinite(torch.autograd.grad(loss.sum(), far)[0]).all()


@pytest.mark.parametrize("learns", [True, False])
def test_only_the_prompts_learn(learns: bool, mini_clip: Any) -> None:
    engine, settings = make_engine(device="cpu", precision="fp32"), TagDeFT(context_learns=learns)
    learner = Learner(mini_clip, CLASS_NAMES, settings=settings, engine=engine)
    pooled = torch.randn(6, mini_clip.vision_width, generator=torch.Generator().manual_seed(0))
    tags = torch.eye(len(CLASS_NAMES), dtype=torch.bool)[:6]
    objective = TagObjective(warmup=1, classes=len(CLASS_NAMES), engine=engine)
    positive, negative = learner.similarities(pooled, learner.text())
    loss, seen = objective(Step(positive, negative, tags, torch.arange(6), 1))
    torch.testing.assert_close(loss, tag_losses(positive, negative, tags, weighs=False).mean())
    loss.backward()
    assert [name for name, value in learner.named_parameters() if value.grad is not None and value.grad.any()] == [
        *(["prompts.positive"] if learns else []),
        "prompts.negative",
    ]
    assert all(value.grad is None for value in mini_clip.model.parameters())
    assert 0 <= float(seen["tags_taken_for_right"]) <= 6


def test_a_pair_counts_by_what_p_clean_says_of_it_after_warm_up() -> None:
    positive, negative, tags = scores()
    objective = TagObjective(warmup=2, classes=7, engine=Engine(accelerator=Accelerator(cpu=True)))
    for epoch, weighs in ((2, False), (3, True)):
        loss, _ = objective(Step(positive, negative, tags, torch.arange(5), epoch))
        torch.testing.assert_close(loss, tag_losses(positive, negative, tags, weighs=weighs).mean())


@pytest.mark.slow
@pytest.mark.parametrize("evidence", mostly_slow(["threshold", "joint"], quick=["joint"]))
def test_a_scan_that_was_stopped_goes_on_to_the_same_verdicts(
    evidence: str, tagged: ls.TaggedImages, mini_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = TagDeFT(**SHORT, evidence=evidence)  # type: ignore[arg-type]
    unbroken = ls.scan_tags(tagged, mini_clip, detector=detector, device="cpu")
    with monkeypatch.context() as patch:
        break_off(patch, BatchSource, "epoch", epoch=2)
        with pytest.raises(KeyboardInterrupt):
            ls.scan_tags(tagged, mini_clip, detector=detector, device="cpu", out=tmp_path)
    resumed = ls.scan_tags(tagged, mini_clip, detector=detector, device="cpu", out=tmp_path, resume=True)
    assert resumed.table.equals(unbroken.table) and len(unbroken.table)
    assert TagVerdicts.load(tmp_path).table.equals(unbroken.table)
    history = [record for record in resumed.record["history"] if "epoch" in record]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    if evidence == "joint":
        assert {"zero-shot", "positive prompts", "learned threshold", "neighbours"} <= set(
            resumed.record["history"][-1]
        )
        assert resumed.table["id"][:4].to_pylist().count("0000003") == 1


def test_the_paper_flags_at_one_half(tagged: ls.TaggedImages, mini_clip: Any) -> None:
    verdicts = ls.scan_tags(tagged, mini_clip, detector=TagDeFT(**SHORT, evidence="threshold"), device="cpu")
    assert verdicts.record["thresholds"] == {"wrong": 0.5, "missing": 0.5}
    assert max(verdicts.table["label_quality"].to_pylist()) <= 0.5
    assert verdicts.record["detector"]["resolved"] == {}, "nothing was left to choose"


def test_the_batch_that_was_chosen_is_recorded(tagged: ls.TaggedImages, mini_clip: Any) -> None:
    detector = TagDeFT(epochs=1, min_steps=0, evidence="threshold")
    assert ls.scan_tags(tagged, mini_clip, detector=detector, device="cpu").record["detector"]["resolved"] == {
        "batch_size": 64
    }


def test_what_deft_cannot_do_gets_one_line() -> None:
    points, tags = np.eye(4, dtype=np.float32), np.eye(4, dtype=bool)
    for text in (points, None):
        engine = Engine(accelerator=Accelerator(cpu=True))
        pairs = TagInputs.of_features(
            points, tags, class_names=list("abcd"), engine=engine, text=text, logit_scale=None if text is None else 20.0
        )
        with pytest.raises(SettingsError, match="need a model"):
            TagDeFT().score(pairs)
    with pytest.raises(SettingsError, match="evidence"):
        TagDeFT(evidence="both")  # type: ignore[arg-type]
