"""Parity with the reference implementation of DeFT, by tensors that it produced (data/parity, README of the same).

Nothing here computes the method a second time: the project's own code runs, the stored tensors are the second opinion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.engine import Engine, make_engine
from labelsieve.detect.deft import objective as dual
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.deft.objective import DualObjective
from labelsieve.detect.losses import (
    clean_probability,
    dual_prompt_loss,
    select,
    similarity_loss,
    symmetric_cross_entropy,
)
from labelsieve.detect.mixture import small_mean_posterior
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.loop import Objective, RequiredNegatives, Schedule, Step, train
from labelsieve.vlm.families.clip import HuggingFaceCLIP
from labelsieve.vlm.feature_cache import ImageFeatures
from labelsieve.vlm.peft.adapter import Adapter
from labelsieve.vlm.peft.vpt import VisualPrompts
from small_models import parity, parity_clip

TOLERANCE = 1e-5
# Rounding is amplified by the trajectory of the optimiser; both are those that come with the tensors.
TRAJECTORY_TOLERANCE, PARAMETER_TOLERANCE = 5e-5, 2e-6

SYNTHETIC = DeFT(
    evidence="threshold",
    demand_agreement=False,
    warmup_loss="ce",
    pseudo_labels_from="after-warmup",
    peft="vpt-deep",
    visual_prompts=4,
    context_tokens=4,
    context_init="random",
    batch_size=6,
)
REAL = DeFT(**{**vars(SYNTHETIC), "demand_agreement": True, "warmup_loss": "sce", "pseudo_labels_from": "second-epoch"})
# case of the tensors: settings, warm-up epochs, epoch
CASES = {
    "synthetic_warmup": (SYNTHETIC, 1, 1),
    "synthetic_main": (SYNTHETIC, 1, 2),
    "real_epoch1": (REAL, 5, 1),
    "real_warmup": (REAL, 5, 2),
    "real_main": (REAL, 5, 6),
}
INIT, BATCHES, FORWARD = parity("init"), parity("batches"), parity("forward")
NAMES = tuple(INIT["class_names"])


def close(ours: Any, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    ours = torch.as_tensor(ours).detach()
    assert ours.shape == theirs.shape or (theirs.shape == (1,) and ours.ndim == 0)
    error = float((ours - theirs).abs().max())
    assert error < tolerance, f"max abs error {error:.2e}"


def same(ours: Tensor, theirs: Tensor) -> None:
    assert torch.equal(ours.long(), theirs)


@pytest.fixture(scope="module")
def vlm() -> HuggingFaceCLIP:
    return parity_clip()


@pytest.fixture
def engine() -> Engine:
    return make_engine(device="cpu", precision="fp32")


def make_learner(vlm: HuggingFaceCLIP, engine: Engine) -> Learner:
    made = Learner(vlm, NAMES, settings=SYNTHETIC, engine=engine)
    made.prompts.token_ids = INIT["pos_ids"]
    assert isinstance(made.peft, VisualPrompts)
    with torch.no_grad():
        made.prompts.positive.copy_(INIT["pos_ctx"])
        made.prompts.negative.copy_(INIT["neg_ctx"])
        made.peft.prompts.copy_(INIT["vpt"])
    return made


@pytest.fixture
def learner(vlm: HuggingFaceCLIP, engine: Engine) -> Learner:
    return make_learner(vlm, engine)


def trained(learner: Learner) -> dict[str, Tensor]:
    """Returns what is trained, by the names of the tensors."""
    assert isinstance(learner.peft, VisualPrompts)
    return {"pos_ctx": learner.prompts.positive, "neg_ctx": learner.prompts.negative, "vpt": learner.peft.prompts}


def logits(learner: Learner, images: Tensor) -> tuple[Tensor, Tensor]:
    with learner.attached():
        return learner.similarities(learner.vlm.pool(images), learner.text())


def make_objective(settings: DeFT, warmup: int, engine: Engine, images: int, complementary: Tensor) -> DualObjective:
    """Returns the project's objective, but for the complementary labels: those of the reference."""
    objective = DualObjective(settings, warmup=warmup, images=images, classes=len(NAMES), engine=engine)
    objective._complementary = lambda step: complementary[step.rows]  # type: ignore[method-assign]
    return objective


@pytest.fixture
def refined(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Collects the labels that the objective gives to the dual-prompt loss: label or pseudo-label."""
    seen: list[Tensor] = []

    def spy(*arguments: Any, **options: Any) -> Tensor:
        seen.append(options["labels"])
        return dual_prompt_loss(*arguments, **options)

    monkeypatch.setattr(dual, "dual_prompt_loss", spy)
    return seen


# ----------------------------------------------------------------------------------------------------------- forward


def test_features(vlm: HuggingFaceCLIP) -> None:
    plain = parity("clip_plain")
    pooled = vlm.pool(torch.cat([BATCHES["a_images"], BATCHES["b_images"]]))
    close(vlm.project(pooled), plain["image_features"])
    close(vlm.text_features(plain["text_ids"]), plain["text_features"])


def test_token_ids_are_those_of_the_reference(vlm: HuggingFaceCLIP) -> None:
    ids, shortened = vlm.tokenize_names(NAMES, context_tokens=4)
    assert not shortened
    assert torch.equal(INIT["pos_ids"][:, 5:], INIT["neg_ids"][:, 5:]), "one set of ids does not serve both prompts"
    for row, theirs, end in zip(ids, INIT["pos_ids"], INIT["eos_index"].tolist(), strict=True):
        assert row[0] == theirs[0]
        assert torch.equal(row[5 : end + 1], theirs[5 : end + 1])


@pytest.mark.parametrize("ids", ["pos_ids", "neg_ids", "own"])
def test_text_features_of_prompts(vlm: HuggingFaceCLIP, ids: str) -> None:
    token_ids = vlm.tokenize_names(NAMES, context_tokens=4)[0] if ids == "own" else INIT[ids]
    for side in ("pos", "neg"):
        close(vlm.encode_prompts(INIT[f"{side}_ctx"], token_ids), FORWARD[f"text_features_{side}"])


def test_logit_scale(vlm: HuggingFaceCLIP) -> None:
    close(vlm.logit_scale, INIT["logit_scale_exp"])


@pytest.mark.parametrize("batch", ["a", "b"])
def test_forward(learner: Learner, batch: str) -> None:
    images, labels = BATCHES[f"{batch}_images"], BATCHES[f"{batch}_labels"]
    theirs = {name.removeprefix(f"{batch}_"): value for name, value in FORWARD.items()}
    with learner.attached():
        pooled = learner.vlm.pool(images)
    close(pooled, theirs["vision_pooled"])
    close(learner.vlm.project(pooled), theirs["image_features"])
    positive, negative = learner.similarities(pooled, learner.text())
    close(positive, theirs["pos_logits"])
    close(negative, theirs["neg_logits"])
    probability = clean_probability(positive, negative)
    close(probability, theirs["p_yes"])
    close(1 - probability, theirs["p_no"])
    close(dual.score_by_threshold(positive, negative, labels, False)[0], theirs["p_clean"])
    same(dual.score_by_threshold(positive, negative, labels, False)[1], theirs["predicted"])
    same(dual.score_by_threshold(positive, negative, labels, True)[1], theirs["p_yes_argmax"])
    same(select(positive, negative, labels=labels, demand_agreement=False), theirs["select"])
    same(select(positive, negative, labels=labels, demand_agreement=True), theirs["select_real"])


def test_the_two_rules_of_selection_differ_somewhere() -> None:
    assert any(not torch.equal(FORWARD[f"{b}_select"], FORWARD[f"{b}_select_real"]) for b in "ab")


@pytest.mark.parametrize("tuner", ["none", "vpt_shallow", "adapter_fresh", "adapter", "lora", "ssf"])
def test_other_tuners(vlm: HuggingFaceCLIP, engine: Engine, tuner: str) -> None:
    tuners = parity("tuners")
    kind: Any = tuner.replace("_", "-").removesuffix("-fresh")
    learner = Learner(vlm, NAMES, settings=replace(SYNTHETIC, peft=kind, bottleneck=8), engine=engine)
    module: Any = learner.peft
    with torch.no_grad():
        learner.prompts.positive.copy_(INIT["pos_ctx"])
        if tuner == "vpt_shallow":
            module.prompts.copy_(tuners["vpt_shallow_prompt"][None])
        elif tuner == "lora":
            fill_lora(module, tuners)
        elif tuner == "ssf":
            fill_ssf(module, tuners)
        elif tuner.startswith("adapter"):
            learner.peft = module = Adapter(vlm, width=8, generator=torch.Generator(), skip=False)
            if tuner == "adapter":
                fill_adapter(module, tuners)
    close(logits(learner, BATCHES["a_images"])[0], tuners[f"{tuner}_pos_logits"])


def fill_lora(module: Any, tuners: Mapping[str, Tensor]) -> None:
    """Copies the reference's matrices, which multiply from the right."""
    for number, block in enumerate(module.blocks):
        for name in ("query", "value"):
            for side in "AB":
                block[name][side].weight.copy_(tuners[f"lora_{name[0]}_{side}"][number].T)


def fill_ssf(module: Any, tuners: Mapping[str, Tensor]) -> None:
    """Copies the reference's scales and shifts, one of which is behind query, key and value together."""
    for part, ours in (("scale", module.scales), ("shift", module.shifts)):
        theirs = [
            value
            for number in range(3)
            for value in (
                *tuners[f"ssf_attn_in_{part}"][number].chunk(3),
                *(tuners[f"ssf_{place}_{part}"][number] for place in ("attn_out", "mlp_in", "mlp_out")),
            )
        ]
        for value, given in zip(ours, theirs, strict=True):
            value.copy_(given)


def fill_adapter(module: Any, tuners: Mapping[str, Tensor]) -> None:
    for number, block in enumerate(module.blocks):
        for name, theirs in (("norm", "ln"), ("down", "down_proj"), ("up", "up_proj")):
            for part in ("weight", "bias"):
                getattr(block[name], part).copy_(tuners[f"adapter_{theirs}_{part}"][number])


def test_other_tuners_differ() -> None:
    """So that none of the above passes by doing nothing."""
    tuners = parity("tuners")
    for tuner in ("vpt_shallow", "adapter_fresh", "adapter", "lora", "ssf"):
        assert float((tuners[f"{tuner}_pos_logits"] - tuners["none_pos_logits"]).abs().max()) > 1e-2, tuner


# ------------------------------------------------------------------------------------------------- losses, gradients


def check_losses(
    case: str, theirs: Mapping[str, Tensor], positive: Tensor, negative: Tensor, labels: Tensor, wrong: Tensor
) -> None:
    """Checks the losses of single images, by the functions on rows of one, and the selection."""
    settings, warmup, epoch = CASES[case]
    chosen = select(positive, negative, labels=labels, demand_agreement=settings.demand_agreement)
    same(chosen, theirs["select"])
    sce = settings.warmup_loss == "sce" and epoch <= warmup
    for row in range(len(labels)):
        one = slice(row, row + 1)
        here, there, label = positive[one], negative[one], labels[one]
        cls = symmetric_cross_entropy(here, label)[0] if sce else similarity_loss(here, labels=label)
        close(cls, theirs["loss_cls_per_sample"][one])
        options: dict[str, Any] = {"labels": theirs["label_used"][one], "complementary": wrong[one]}
        comp = dual_prompt_loss(here, there, positive_weight=0, **options)
        close(comp, theirs["loss_neg_comp_per_sample"][one])
        close(dual_prompt_loss(here, there, **options) - comp, theirs["loss_neg_label_per_sample"][one])


def check_objective(theirs: Mapping[str, Tensor], loss: Tensor, parts: Mapping[str, Tensor], count: int) -> None:
    close(loss, theirs["loss"])
    close(parts["similarity_loss"] / count, theirs["loss_cls"])
    close(parts["dual_prompt_loss"] / count, theirs["loss_neg"])
    if "selected" in parts:  # only reported after warm-up, see `test_losses_and_gradients`
        assert int(parts["selected"]) == int(theirs["select"].sum())


def test_losses_and_gradients(
    vlm: HuggingFaceCLIP, engine: Engine, refined: list[Tensor], subtests: pytest.Subtests
) -> None:
    for case, batch in product(CASES, "ab"):
        with subtests.test(case, batch=batch):
            settings, warmup, epoch = CASES[case]
            data, _, name = case.partition("_")
            theirs = {
                key.removeprefix(f"{batch}_{name}_"): value
                for key, value in parity(f"losses_{data}").items()
                if key.startswith(f"{batch}_{name}_")
            }
            learner = make_learner(vlm, engine)
            labels, wrong = BATCHES[f"{batch}_labels"], BATCHES[f"{batch}_comp_labels"]
            positive, negative = logits(learner, BATCHES[f"{batch}_images"])
            check_losses(case, theirs, positive, negative, labels, wrong)
            objective = make_objective(settings, warmup, engine, len(labels), wrong)
            refined.clear()
            loss, parts = objective(Step(positive, negative, labels, torch.arange(len(labels)), epoch))
            check_objective(theirs, loss, parts, len(labels))
            assert ("selected" in parts) == (epoch > warmup)
            same(refined[0], theirs["label_used"])
            loss.backward()
            for key, parameter in trained(learner).items():
                assert parameter.grad is not None
                close(parameter.grad, theirs[f"grad_{key}"])


@pytest.mark.parametrize("case", list(CASES))
def test_losses_of_given_logits(engine: Engine, refined: list[Tensor], case: str) -> None:
    given = parity("logit_losses")
    theirs = {key.removeprefix(f"{case}_"): value for key, value in given.items() if key.startswith(f"{case}_")}
    settings, warmup, epoch = CASES[case]
    positive, negative = given["pos_logits"].requires_grad_(), given["neg_logits"].requires_grad_()
    labels, wrong = given["labels"], given["comp_labels"]
    close(clean_probability(positive, negative), given["p_yes"])
    scored = dual.score_by_threshold(positive, negative, labels, False)
    close(scored[0], given["p_clean"])
    same(scored[1], given["predicted"])
    check_losses(case, theirs, positive, negative, labels, wrong)
    objective = make_objective(settings, warmup, engine, len(labels), wrong)
    loss, parts = objective(Step(positive, negative, labels, torch.arange(len(labels)), epoch))
    check_objective(theirs, loss, parts, len(labels))
    assert ("selected" in parts) == (epoch > warmup)
    same(refined[0], theirs["label_used"])
    loss.backward()
    assert positive.grad is not None and negative.grad is not None
    close(positive.grad, theirs["grad_pos"])
    close(negative.grad, theirs["grad_neg"])


def test_symmetric_cross_entropy() -> None:
    given = parity("baseline_losses")
    values = given["logits"].requires_grad_()
    loss = symmetric_cross_entropy(values, given["labels"])
    close(loss, given["sce_none"])
    close(loss.mean(), given["sce_mean"])
    close(symmetric_cross_entropy(values, given["labels"], alpha=0.5, beta=2), given["sce_a05_b2_none"])
    loss.mean().backward()
    assert values.grad is not None
    close(values.grad, given["sce_none_grad"])
    close(values.grad, given["sce_mean_grad"])


def test_gmm() -> None:
    given = parity("baseline_losses")
    losses = torch.nn.functional.cross_entropy(given["gmm_logits"], given["gmm_labels"], reduction="none")
    posterior = torch.from_numpy(small_mean_posterior(losses.numpy()))
    close(posterior, given["gmm_fp32_prob"])
    same(posterior > 0.5, given["gmm_fp32_select"])
    assert 0 < given["gmm_fp32_select"].sum() < len(posterior)


# ------------------------------------------------------------------------------------------------------------ training


class StepsDoneError(Exception):
    """Ends the training after the steps that there are tensors for."""


@dataclass(frozen=True, eq=False)
class ReferenceBatches(BatchSource):
    """Feeds the batches of the reference to the training loop and keeps what each step leaves behind.

    Attributes:
        pixels: (N, 3, S, S).
        epochs: For each epoch its batches of row numbers.
        after: Values and gradients after each step.
    """

    pixels: Tensor
    epochs: tuple[tuple[NDArray[np.int64], ...], ...]
    after: list[dict[str, Tensor]] = field(default_factory=list)

    def epoch(self, number: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        if number > len(self.epochs):
            raise StepsDoneError
        for rows in self.epochs[number - 1]:
            yield rows, self.learner.vlm.pool(self.pixels[rows])
            found = {f"after_{name}": value.detach().clone() for name, value in trained(self.learner).items()}
            found |= {
                f"grad_{name}": value.grad.clone()
                for name, value in trained(self.learner).items()
                if value.grad is not None
            }
            self.after.append(found)


class Recorder(Objective):
    """Passes steps on to an objective and keeps them with what it answers."""

    def __init__(self, inner: DualObjective) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[tuple[Step, Tensor, Mapping[str, Tensor]]] = []

    def required_negatives(self, step: Step) -> RequiredNegatives:
        read = self.inner.required_negatives(step)
        assert read is not None
        return RequiredNegatives(read.trained, others=True)  # to compare all

    def __call__(self, step: Step) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, parts = self.inner(step)
        self.calls.append((step, loss.detach(), parts))
        return loss, parts


def run_training(
    learner: Learner, pixels: Tensor, labels: Tensor, wrong: Tensor, *, warmup: int, epochs: Any
) -> tuple[Recorder, list[dict[str, Tensor]]]:
    """Runs the project's training loop over given batches, at the constant learning rate of the reference's steps.

    The cosine over a million epochs is constant to 1e-11 in the first two; the batches end the training after them.
    """
    features = ImageFeatures(np.zeros((len(labels), 128), np.float32), {})
    images: Any = SimpleNamespace(fingerprint="parity")
    batches = ReferenceBatches(images, features, learner, learner.engine, 6, 6, False, pixels, epochs)
    recorder = Recorder(make_objective(SYNTHETIC, warmup, learner.engine, len(labels), wrong))
    with pytest.raises(StepsDoneError):
        train(batches, labels, objective=recorder, settings=SYNTHETIC, schedule=Schedule(10**6, warmup, 1))
    return recorder, batches.after


def test_five_steps_of_training(learner: Learner, refined: list[Tensor]) -> None:
    steps = parity("sgd_steps")
    assert steps["hyper"].tolist() == pytest.approx(
        [SYNTHETIC.learning_rate, SYNTHETIC.momentum, SYNTHETIC.weight_decay]
    )
    rows = [np.arange(6) + 6 * int(batch) for batch in steps["batch"]]
    whole = {key: torch.cat([BATCHES[f"a_{key}"], BATCHES[f"b_{key}"]]) for key in ("images", "labels", "comp_labels")}
    assert steps["epoch"].tolist() == [1, 1, 2, 2, 2]
    recorder, after = run_training(
        learner,
        whole["images"],
        whole["labels"],
        whole["comp_labels"],
        warmup=1,
        epochs=(tuple(rows[:2]), tuple(rows[2:])),
    )
    assert len(recorder.calls) == len(after) == 5
    for number, (step, loss, parts) in enumerate(recorder.calls):
        theirs = {name: value[number] for name, value in steps.items() if len(value) == 5}
        tolerance = TRAJECTORY_TOLERANCE if number else TOLERANCE  # what has been trained has amplified the rounding
        close(step.positive, theirs["pos_logits"], tolerance)
        close(step.negative, theirs["neg_logits"], tolerance)
        scored = dual.score_by_threshold(step.positive, step.negative, step.labels, False)
        close(scored[0], theirs["p_clean"])
        same(scored[1], theirs["predicted"])
        same(select(step.positive, step.negative, labels=step.labels, demand_agreement=False), theirs["select"])
        same(refined[number], theirs["label_used"])
        close(loss, theirs["loss"], tolerance)
        close(parts["similarity_loss"] / 6, theirs["loss_cls"], tolerance)
        close(parts["dual_prompt_loss"] / 6, theirs["loss_neg"], tolerance)
        for name, value in after[number].items():
            close(value, theirs[name], PARAMETER_TOLERANCE if name.startswith("after") else TOLERANCE)


def test_a_batch_in_which_nothing_is_selected(learner: Learner, refined: list[Tensor]) -> None:
    theirs = parity("empty_selection")
    assert theirs["loss"].isnan() and theirs["real_loss"].isnan(), "the reference loses its loss here; we do not"
    recorder, after = run_training(
        learner,
        theirs["images"],
        theirs["labels"],
        theirs["comp_labels"],
        warmup=0,
        epochs=((np.arange(6),),),
    )
    ((step, loss, parts),) = recorder.calls
    close(clean_probability(step.positive, step.negative).gather(1, step.labels[:, None])[:, 0], theirs["p_clean"])
    assert int(parts["selected"]) == 0 == int(theirs["select"].sum())
    assert float(parts["similarity_loss"]) == 0
    close(loss, theirs["loss_neg"])
    same(refined[0], theirs["label_used"])
    assert not after[0]["grad_pos_ctx"].any() and not after[0]["grad_vpt"].any()
    for name, value in after[0].items():
        close(value, theirs[name], PARAMETER_TOLERANCE if name.startswith("after") else TOLERANCE)
