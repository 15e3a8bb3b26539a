"""Loading dual-encoder models from folders, good and bad, and prompting their text encoder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from labelsieve.core.errors import ModelError, SettingsError
from labelsieve.vlm import pretrained
from labelsieve.vlm.families.clip import HuggingFaceCLIP
from labelsieve.vlm.loading import load_vlm
from labelsieve.vlm.prompts import DualPrompts
from small_models import PROCESSOR, TOKENIZER, edit_json, model_folder, random_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / "random clip")


@pytest.fixture(scope="module")
def vlm(folder: Path) -> HuggingFaceCLIP:
    loaded = load_vlm(folder)
    assert isinstance(loaded, HuggingFaceCLIP)
    return loaded


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-6) -> None:
    assert ours.shape == theirs.shape
    error = float((ours - theirs).detach().abs().max())
    assert error < tolerance, f"max abs error {error:.2e}"


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = ((64, 64), (90, 40), (3, 3), (1, 50), (200, 70))
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in sizes]


# -------------------------------------------------------------------------------------------------------------- loading


def test_what_a_model_says_of_itself(vlm: HuggingFaceCLIP, folder: Path) -> None:
    assert vlm.name == str(folder)
    assert (vlm.text_width, vlm.context_length, vlm.vision_width) == (32, 40, 32)
    assert (vlm.patch_size, vlm.image_size, len(vlm.vision_layers)) == (16, 64, 2)
    assert vlm.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-4)
    assert not vlm.model.training
    assert not any(value.requires_grad for value in vlm.model.parameters())
    assert vlm.to(torch.device("cpu")) is vlm and vlm.device.type == "cpu"


def test_pixels_are_those_of_the_processor(vlm: HuggingFaceCLIP, folder: Path) -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    for picture in pictures():
        ours = vlm.pixels([picture])
        assert ours.shape == (1, 3, 64, 64) and ours.dtype == torch.float32
        assert torch.equal(ours, processor(images=picture, return_tensors="pt")["pixel_values"])
    assert vlm.pixels(pictures()).shape == (5, 3, 64, 64)


def test_normalise_does_to_a_crop_what_the_processor_does(vlm: HuggingFaceCLIP) -> None:
    picture = pictures()[0]  # of the model's own size, so that nothing is resized
    raw = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
    close(vlm.normalise(raw), vlm.pixels([picture]))


def test_image_features_are_those_of_transformers(vlm: HuggingFaceCLIP) -> None:
    pixels = vlm.pixels(pictures())
    theirs = vlm.model.vision_model(pixel_values=pixels).pooler_output
    close(vlm.pool(pixels), theirs)
    close(vlm.project(theirs), features(vlm.model.get_image_features(pixel_values=pixels)))


def features(answer: Any) -> torch.Tensor:
    """Returns the projected features, which transformers wraps from release 5 on."""
    return answer if isinstance(answer, torch.Tensor) else answer.pooler_output


def test_text_features_are_those_of_transformers(vlm: HuggingFaceCLIP, folder: Path) -> None:
    texts = ["a photo of a cat.", "tree", "a drawing of two boats, and of a cup on a table by the sea"]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    ours = vlm.encode_text(texts)
    close(ours, features(vlm.model.get_text_features(**tokens)))
    for text, row in zip(texts, ours, strict=True):
        close(vlm.encode_text([text])[0], row, 1e-5)
    assert float((ours[0] - ours[1]).abs().max()) > 1e-2, "the model says the same of all texts and tests nothing"


def test_texts_that_are_too_long_are_cut(vlm: HuggingFaceCLIP) -> None:
    assert torch.isfinite(vlm.encode_text(["a cat " * 60])).all()


def test_half_precision_is_loaded_as_float32(folder: Path, tmp_path: Path, vlm: HuggingFaceCLIP) -> None:
    half = load_vlm(model_folder(tmp_path / "half", model=random_clip().half()))
    assert isinstance(half, HuggingFaceCLIP)
    stored = json.loads((tmp_path / "half" / "config.json").read_text())
    assert "float16" in json.dumps(stored), "the folder does not hold what this test is about"
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}
    close(half.pool(half.pixels(pictures())), vlm.pool(vlm.pixels(pictures())), 0.05)


def test_fingerprint_follows_what_the_model_computes(folder: Path, tmp_path: Path, vlm: HuggingFaceCLIP) -> None:
    assert load_vlm(model_folder(tmp_path / "same")).fingerprint == vlm.fingerprint, "another folder, the same model"
    others = {"seed": load_vlm(model_folder(tmp_path / "seed", model=random_clip(seed=1)))}
    changes: dict[str, Callable[[Path], None]] = {
        "activation": lambda path: edit_encoder(path / "config.json", "vision_config", hidden_act="gelu"),
        "heads": lambda path: edit_encoder(path / "config.json", "vision_config", num_attention_heads=4),
        "mean": lambda path: edit_json(path / PROCESSOR, image_mean=[0.4, 0.5, 0.5]),
    }
    for name, change in changes.items():
        change(model_folder(tmp_path / name))
        others[name] = load_vlm(tmp_path / name)
    found = {name: other.fingerprint for name, other in others.items()}
    assert len({vlm.fingerprint, *found.values()}) == 1 + len(found), found


def edit_encoder(path: Path, encoder: str, **changes: Any) -> None:
    config = json.loads(path.read_text())
    edit_json(path, **{encoder: {**config[encoder], **changes}})


# ---------------------------------------------------------------------------------------------------------- bad folders


def _remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def _write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: _written((folder / name).write_text(content))


def _written(_count: int) -> None: ...


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (_remove("config.json"), r"no usable configuration \(config.json\)"),
    "BERT": (_write("config.json", '{"model_type": "bert"}'), "kind clip, .* is of kind bert; choose another model"),
    "text encoder only": (
        lambda folder: random_clip().config.text_config.save_pretrained(folder),
        "is of kind clip_text_model; choose another",
    ),
    "half a tokenizer": (_remove(TOKENIZER[0]), r"no usable tokenizer \(tokenizer.json.*copy the tokenizer files"),
    "broken tokenizer": (_write(TOKENIZER[0], "{"), "no usable tokenizer"),
    "tokenizer of another model": (
        lambda folder: edit_encoder(folder / "config.json", "text_config", eos_token_id=7),
        "the tokenizer of .* belongs to another model",
    ),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_folders_give_one_clear_line(tmp_path: Path, what: str) -> None:
    change, message = BAD[what]
    change(model_folder(tmp_path / "model"))
    check_refused(tmp_path / "model", message)


def check_refused(name: str | Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_vlm(name)
    text = str(caught.value)
    assert "\n" not in text
    assert str(name) in text
    assert len(text.replace(str(name), "")) < 250, text


def test_not_a_folder(tmp_path: Path) -> None:
    check_refused(tmp_path / "nowhere", "expected a model folder or a Hub id, .* is neither; check model")
    (tmp_path / "file").write_text("a file")
    check_refused(tmp_path / "file", "expected a model folder or a Hub id")
    check_refused("./nowhere", "expected a model folder or a Hub id")
    check_refused("some/where/else", "expected a model folder or a Hub id")
    check_refused("", "expected a model folder or a Hub id")


# ---------------------------------------------------------------------------------------------------- without a network


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.perf_counter()
    check_refused("someone/some-model", "the Hub cannot be reached, and this machine has no configuration .*")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("reached", [True, False])
def test_the_loaders_go_to_the_network_only_if_there_is_one(monkeypatch: pytest.MonkeyPatch, reached: bool) -> None:
    """They try each file for half a minute otherwise."""
    seen: list[dict[str, Any]] = []

    def load(_name: str, **options: Any) -> None:
        seen.append(options)
        raise OSError("no such id. And more advice.")

    monkeypatch.setattr(pretrained, "is_hub_reachable", lambda: reached)
    monkeypatch.setattr(transformers.PretrainedConfig, "get_config_dict", load)
    check_refused("someone/some-model", "from the Hub: no such id; check" if reached else "Hub cannot be reached")
    assert seen == [{"trust_remote_code": False, "local_files_only": not reached}]


def test_a_folder_never_asks_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "is_hub_reachable", lambda: pytest.fail("a local folder asked for the network"))
    load_vlm(folder)


# -------------------------------------------------------------------------------------------------------------- prompts


def words(vlm: HuggingFaceCLIP, text: str) -> list[int]:
    return list(vlm.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_tokenize_names(vlm: HuggingFaceCLIP) -> None:
    names = ["Cat", "sail_boat", "a Cup of tea"]
    ids, shortened = vlm.tokenize_names(names, context_tokens=3)
    assert not shortened and ids.dtype == torch.int64
    stop, start, end = words(vlm, "."), vlm.tokenizer.bos_token_id, vlm.tokenizer.eos_token_id
    assert len(stop) == 1
    plain = ["cat", "sail boat", "a cup of tea"]
    longest = max(len(words(vlm, name)) for name in plain)
    assert ids.shape == (3, 1 + 3 + longest + 2)
    for row, name in zip(ids.tolist(), plain, strict=True):
        assert row[0] == start
        own = words(vlm, name)
        assert row[4 : 4 + len(own) + 2] == [*own, *stop, end]
        assert row.count(end) == 1, "padding must not look like the end, at which the feature is read"


def test_names_are_lower_case_whatever_the_tokenizer_does(
    vlm: HuggingFaceCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    own = vlm.tokenizer

    class Recorder:
        def __call__(self, text: str, **options: Any) -> Any:
            seen.append(text)
            return own(text, **options)

    monkeypatch.setattr(vlm, "tokenizer", Recorder())
    vlm.tokenize_names(["Sail_Boat"], context_tokens=3)
    assert "photo sail boat" in seen and all(text == text.lower() for text in seen)


def test_long_names_are_shortened_and_told(vlm: HuggingFaceCLIP) -> None:
    long = "cat " * 50
    ids, shortened = vlm.tokenize_names(["cup", long], context_tokens=4)
    assert shortened == [long]
    assert ids.shape == (2, vlm.context_length)
    assert ids[1, -2:].tolist() == [*words(vlm, "."), vlm.tokenizer.eos_token_id]
    assert ids[1, 5:-2].tolist() == words(vlm, long)[: vlm.context_length - 7]
    exact = "cat " * (vlm.context_length - 7)
    assert len(words(vlm, exact)) == vlm.context_length - 7
    assert vlm.tokenize_names([exact], context_tokens=4)[1] == [], "a name that just fits was called too long"
    assert torch.isfinite(vlm.encode_prompts(torch.randn(4, 32), ids)).all()


def test_too_many_context_tokens(vlm: HuggingFaceCLIP) -> None:
    assert vlm.tokenize_names(["cat"], context_tokens=36)[0].shape == (1, 40)
    with pytest.raises(ModelError, match=r"takes 40 tokens: no room .* beside 37 context tokens; use fewer"):
        vlm.tokenize_names(["cat"], context_tokens=37)


def test_word_embeddings(vlm: HuggingFaceCLIP) -> None:
    embedded = vlm.embed_words("a photo of a")
    table = vlm.model.text_model.get_input_embeddings().weight
    assert torch.equal(embedded, table[words(vlm, "a photo of a")])
    assert vlm.embed_words("").shape == (0, vlm.text_width)


def test_prompts_of_plain_words_are_the_plain_text(vlm: HuggingFaceCLIP) -> None:
    names = ["Cat", "sail_boat", "a cup of tea"]
    context = vlm.embed_words("a photo of a")
    ids, _ = vlm.tokenize_names(names, context_tokens=len(context))
    plain = vlm.encode_text([f"a photo of a {name}." for name in ("cat", "sail boat", "a cup of tea")])
    close(vlm.encode_prompts(context, ids), plain, 1e-5)
    close(vlm.encode_prompts(context, ids[:1]), plain[:1], 1e-5)
    assert float((vlm.encode_prompts(context * 0, ids) - plain).abs().max()) > 1e-2, "the context has no influence"


def test_prompts_leave_no_hook_behind(vlm: HuggingFaceCLIP) -> None:
    table = vlm.model.text_model.get_input_embeddings()
    before = vlm.encode_text(["a cat."])
    context = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids, _ = vlm.tokenize_names(["cat"], context_tokens=4)
    vlm.encode_prompts(context, ids).square().sum().backward()
    assert context.grad is not None and bool((context.grad.abs().amax(dim=1) > 0).all())
    assert not table._forward_hooks
    with pytest.raises(RuntimeError):
        vlm.encode_prompts(torch.randn(4, 31), ids)  # of a wrong width
    assert not table._forward_hooks
    assert torch.equal(vlm.encode_text(["a cat."]), before)
    assert table.weight.grad is None


def prompts(vlm: HuggingFaceCLIP, *, tokens: int = 6, init: str = "random", seed: int = 0) -> DualPrompts:
    generator = torch.Generator().manual_seed(seed)
    return DualPrompts(vlm, ["cat", "cup"], context_tokens=tokens, init=init, generator=generator)


def test_dual_prompts_start_from_noise(vlm: HuggingFaceCLIP) -> None:
    made = prompts(vlm, tokens=36)
    for context in (made.positive, made.negative):
        assert context.shape == (36, 32)
        assert float(context.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(made.positive, made.negative)
    assert torch.equal(made.positive, prompts(vlm, tokens=36).positive)
    assert not torch.equal(made.positive, prompts(vlm, tokens=36, seed=1).positive)


@pytest.mark.parametrize("tokens", [2, 4, 6])
def test_dual_prompts_start_from_words(vlm: HuggingFaceCLIP, tokens: int) -> None:
    made = prompts(vlm, tokens=tokens, init="a photo of a")
    embedded = vlm.embed_words("a photo of a")[-tokens:]
    for context in (made.positive, made.negative):
        assert context.shape == (tokens, 32)
        assert torch.equal(context[-len(embedded) :], embedded)
    noise = made.positive[: tokens - len(embedded)].detach()
    assert noise.numel() == 0 or 0 < float(noise.abs().max()) < 0.12


def test_dual_prompts_give_unit_features(vlm: HuggingFaceCLIP) -> None:
    made = prompts(vlm)
    found = made.text_features(vlm, made.positive)
    assert found.shape == (2, 24)
    close(found.norm(dim=1), torch.ones(2))
    plain = vlm.encode_prompts(made.positive, made.token_ids)
    close(found, plain / plain.norm(dim=1, keepdim=True))


def test_dual_prompts_need_a_token(vlm: HuggingFaceCLIP) -> None:
    with pytest.raises(SettingsError, match="at least 1 context token, got 0"):
        prompts(vlm, tokens=0)
