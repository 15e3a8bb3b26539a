"""A tiny random model of every family in `ADAPTERS`, with its tokenizer, made on the spot.

`FAMILIES` says how each is made and how the library that it comes from computes its features.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.demo import MINI_CLIP
from small_models import TOKENIZER, model_folder

SIDE, PATCH, WIDTH, DIM = 32, 16, 32, 24
TEXT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TEXT, "image_size": SIDE, "patch_size": PATCH}
CORPUS = [
    "a photo of a cat.",
    "a photo of the sail boat.",
    "an image of a cup of tea.",
    "a picture of two trees and a good tree.",
    "photo of boats, cups and cats.",
]
PICTURE = {"size": {"height": SIDE, "width": SIDE}, "do_resize": True, "do_normalize": True, "do_rescale": True}
MEAN_STD = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


# ----------------------------------------------------------------------------------------------------------- tokenizers


def save_wordpiece(folder: Path) -> int:
    """Writes the vocabulary of a tiny BERT as its authors do and returns its size."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["a", "photo", "of", "the", "cat", "sail", "boat", "cup", "tea", "an", "image", "picture", "two", "tree"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words]
    vocabulary += [letter for letter in letters if letter not in words] + [f"##{letter}" for letter in letters]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512})
    )
    return len(vocabulary)


def save_unigram(folder: Path, *, start: str | None, end: str, pad: str, specials: Sequence[str]) -> int:
    """Trains and saves a tiny SentencePiece-like tokenizer, whose first word begins like every other."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=list(specials), unk_token="<unk>")
    made.train_from_iterator(CORPUS, trainer)
    return _save(made, folder, start=start, end=end, pad=pad)


def save_gemma(folder: Path) -> int:
    """Trains and saves a tiny tokenizer like that of SigLIP 2: the first word lacks the mark that later ones have."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    # for the training only: no merge goes beyond a word
    made.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁.,]+|[.,]"), behavior="isolated")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"])
    made.train_from_iterator(CORPUS, trainer)
    return _save(made, folder, start=None, end="<eos>", pad="<pad>")


def _save(made: Tokenizer, folder: Path, *, start: str | None, end: str, pad: str) -> int:
    marks = [(token, made.token_to_id(token)) for token in (start, end) if token]
    template = f"{start} $A {end}" if start else f"$A {end}"
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    named = {"bos_token": start, "cls_token": start} if start else {}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=end, pad_token=pad, unk_token="<unk>", model_max_length=512, **named
    )
    tokenizer.save_pretrained(folder)
    return made.get_vocab_size()


def save_siglip_words(folder: Path) -> int:
    """SigLIP fills texts up with its end token."""
    return save_unigram(folder, start=None, end="</s>", pad="</s>", specials=["<unk>", "</s>"])


def save_roberta_words(folder: Path) -> int:
    """XLM-RoBERTa begins with `<s>` and pads with 1."""
    return save_unigram(folder, start="<s>", end="</s>", pad="<pad>", specials=["<s>", "<pad>", "</s>", "<unk>"])


# --------------------------------------------------------------------------------------------------------------- models


def spread(model: torch.nn.Module, *, seed: int = 0) -> Any:
    """Draws weights so large that features differ from text to text and from image to image."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale_of_norm = value.ndim == 1 and name.endswith("weight")
            if not scale_of_norm and not name.startswith(("logit_", "temp")):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    return model.eval()


def save_processor(folder: Path, kind: str, **more: Any) -> None:
    """Writes the settings of an image processor."""
    settings = {"image_processor_type": kind, **PICTURE, **MEAN_STD, "resample": 3, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def make_clip(folder: Path) -> None:
    model_folder(folder)


def make_siglip(folder: Path) -> None:
    words = save_siglip_words(folder)
    text = {**TEXT, "vocab_size": words, "max_position_embeddings": 32, "projection_size": WIDTH}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    model = spread(transformers.SiglipModel(config))
    with torch.no_grad():
        model.logit_scale.fill_(2.0), model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    save_processor(folder, "SiglipImageProcessor")


def make_siglip2(folder: Path) -> None:
    words = save_gemma(folder)
    text = {**TEXT, "vocab_size": words, "max_position_embeddings": 32, "projection_size": WIDTH}
    vision = {**TEXT, "num_patches": (SIDE // PATCH) ** 2, "patch_size": PATCH}
    model = spread(transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision)))
    with torch.no_grad():
        model.logit_scale.fill_(2.0), model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    settings = {"image_processor_type": "Siglip2ImageProcessor", **MEAN_STD, "patch_size": PATCH, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "max_num_patches": 4}))


def make_blip(folder: Path) -> None:
    words = save_wordpiece(folder)
    text = {**TEXT, "vocab_size": words, "max_position_embeddings": 40, "encoder_hidden_size": WIDTH, "pad_token_id": 0}
    config = transformers.BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=DIM)
    spread(transformers.BlipForImageTextRetrieval(config)).save_pretrained(folder)
    save_processor(folder, "BlipImageProcessor")


def make_chinese_clip(folder: Path) -> None:
    words = save_wordpiece(folder)
    text = {**TEXT, "vocab_size": words, "max_position_embeddings": 40, "pad_token_id": 0}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=DIM)
    spread(transformers.ChineseCLIPModel(config)).save_pretrained(folder)
    save_processor(folder, "ChineseCLIPImageProcessor", do_center_crop=False)


def make_altclip(folder: Path) -> None:
    words = save_roberta_words(folder)
    text = {**TEXT, "vocab_size": words, "max_position_embeddings": 42, "project_dim": 28, "pad_token_id": 1}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=DIM)
    spread(transformers.AltCLIPModel(config)).save_pretrained(folder)
    save_processor(folder, "CLIPImageProcessor", do_center_crop=False)


def albef_parts(words: int) -> tuple[Any, Any, dict[str, Tensor]]:
    """Returns ViT of timm, BERT of transformers, and a checkpoint as ALBEF's authors lay it out, extras included."""
    from timm.models.vision_transformer import VisionTransformer

    vit: Any = VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=2, num_heads=2, mlp_ratio=1.5, num_classes=0,
        global_pool="token",
    )  # fmt: skip
    bert: Any = transformers.BertModel(
        transformers.BertConfig(**{**TEXT, "num_hidden_layers": 3, "vocab_size": words, "max_position_embeddings": 40}),
        add_pooling_layer=False,
    )
    spread(vit), spread(bert, seed=1)
    generator = torch.Generator().manual_seed(2)
    state = {f"visual_encoder.{key}": value for key, value in vit.state_dict().items()}
    state |= {f"text_encoder.bert.{key}": value for key, value in bert.state_dict().items()}
    for side in ("vision", "text"):
        state[f"{side}_proj.weight"] = torch.randn(DIM, WIDTH, generator=generator) * 0.2
        state[f"{side}_proj.bias"] = torch.randn(DIM, generator=generator)
    state["temp"] = torch.tensor(0.05)
    # what a checkpoint holds beside: momentum models, queues, heads and the layers of the fusion
    state |= {f"visual_encoder_m.{key}": value + 1 for key, value in vit.state_dict().items()}
    state["text_encoder.bert.encoder.layer.2.crossattention.self.query.weight"] = torch.ones(WIDTH, WIDTH)
    state["text_encoder.bert.embeddings.position_ids"] = torch.arange(40)[None]
    state["text_encoder.cls.predictions.bias"] = torch.ones(words)
    state |= {"itm_head.weight": torch.ones(2, WIDTH), "image_queue": torch.ones(DIM, 8)}
    return vit, bert, state


ALBEF_CONFIG: dict[str, Any] = {
    "model_type": "albef",
    "image_size": SIDE,
    "fusion_layer": 2,
    "embed_dim": DIM,
    "vision_config": {key: value for key, value in VISION.items() if key != "image_size"},
    "text_config": {**TEXT, "num_hidden_layers": 3, "max_position_embeddings": 40},
}


def make_albef(folder: Path) -> None:
    words = save_wordpiece(folder)
    config = {**ALBEF_CONFIG, "text_config": {**ALBEF_CONFIG["text_config"], "vocab_size": words}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in albef_parts(words)[2].items()}, folder / "albef.safetensors")


OPEN_CLIP: dict[str, Any] = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": WIDTH, "head_width": 16, "patch_size": PATCH},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def make_open_clip(folder: Path, **changes: Any) -> None:
    import open_clip

    config: dict[str, Any] = {
        "model_cfg": {**OPEN_CLIP, **changes},
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = spread(open_clip.create_model(f"local-dir:{folder}", load_weights=False))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def make_open_clip_resnet(folder: Path) -> None:
    make_open_clip(folder, vision_cfg={"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16})


def make_open_clip_siglip(folder: Path) -> None:
    words = save_siglip_words(folder)
    vision: dict[str, Any] = {"image_size": SIDE, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
    text: dict[str, Any] = {
        "context_length": 32,
        "vocab_size": words,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
    }
    text |= {"pool_type": "last", "hf_tokenizer_name": "some/tokenizer", "tokenizer_kwargs": {"clean": "canonicalize"}}
    make_open_clip(folder, vision_cfg=vision, text_cfg=text, custom_text=True, init_logit_bias=-10)


STAGES: dict[str, Any] = {"hidden_sizes": [8, WIDTH], "depths": [1, 1], "hidden_size": WIDTH}
SWIN: dict[str, Any] = {"patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
TIMM: Any = transformers.TimmWrapperConfig
IMAGE_ENCODERS: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTConfig(**VISION),
    "clip": lambda: transformers.CLIPVisionConfig(**VISION),
    "dinov2": lambda: transformers.Dinov2Config(**VISION),
    "dinov3": lambda: transformers.DINOv3ViTConfig(**VISION),
    "beit": lambda: transformers.BeitConfig(**VISION, use_relative_position_bias=True),
    "swin": lambda: transformers.SwinConfig(**SWIN, image_size=SIDE),
    "convnext": lambda: transformers.ConvNextConfig(**STAGES, num_stages=2),
    "resnet": lambda: transformers.ResNetConfig(**STAGES, embedding_size=8),
    "timm": lambda: TIMM(architecture="test_efficientnet", hidden_size=256),
    "timm vit": lambda: TIMM(architecture="test_vit", hidden_size=64, model_args={"img_size": SIDE}),
}
"""By what tests call them: configurations of image encoders for a dual encoder, which say how wide their output is."""

LONG = {**TEXT, "max_position_embeddings": 40}


def save_clip_words(folder: Path) -> int:
    """CLIP's own, of the bundled model."""
    for name in TOKENIZER:
        shutil.copy(MINI_CLIP / name, folder)
    config: Any = transformers.CLIPConfig.from_pretrained(MINI_CLIP)
    return int(config.text_config.vocab_size)


TEXT_ENCODERS: dict[str, tuple[Callable[[Path], int], Callable[[int], Any]]] = {
    "bert": (save_wordpiece, lambda words: transformers.BertConfig(**LONG, vocab_size=words)),
    "albert": (save_wordpiece, lambda words: transformers.AlbertConfig(**LONG, vocab_size=words, embedding_size=16)),
    "roberta": (
        save_roberta_words,
        lambda words: transformers.RobertaConfig(**LONG, vocab_size=words, pad_token_id=1),
    ),
    "mpnet": (save_roberta_words, lambda words: transformers.MPNetConfig(**LONG, vocab_size=words, pad_token_id=1)),
    "clip": (
        save_clip_words,
        lambda words: transformers.CLIPTextConfig(
            **LONG, vocab_size=words, bos_token_id=words - 2, eos_token_id=words - 1
        ),
    ),
    "distilbert": (
        save_wordpiece,
        lambda words: transformers.DistilBertConfig(
            dim=32, hidden_dim=48, n_layers=2, n_heads=2, vocab_size=words, max_position_embeddings=40
        ),
    ),
}
"""By what tests call them: how to write a tokenizer, and the configuration for as many words."""


def make_dual_encoder(folder: Path, *, image: str = "vit", text: str = "bert") -> None:
    save_words, configuration = TEXT_ENCODERS[text]
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        IMAGE_ENCODERS[image](), configuration(save_words(folder)), projection_dim=DIM
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spread(transformers.VisionTextDualEncoderModel(config)).save_pretrained(folder)
    save_processor(folder, "ViTImageProcessor")


# ----------------------------------------------------------------------------------------------------------- references


def tensor(answer: Any) -> Tensor:
    """Returns the features, which transformers wraps from release 5 on."""
    return answer if isinstance(answer, Tensor) else answer.pooler_output


@dataclass(frozen=True)
class Reference:
    """Features as the library itself computes them: of pixels and of texts."""

    images: Callable[[Tensor], Tensor]
    texts: Callable[[list[str]], Tensor]
    scale: float


def with_transformers(folder: Path, architecture: str, **padding: Any) -> Reference:
    """Calls `get_image_features` and `get_text_features`."""
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = ("input_ids",) if padding else ("input_ids", "attention_mask")

    def texts(given: list[str]) -> Tensor:
        tokens = tokenizer(given, return_tensors="pt", **(padding or {"padding": True}))
        return tensor(model.get_text_features(**{name: tokens[name] for name in names}))

    return Reference(lambda pixels: tensor(model.get_image_features(pixels)), texts, model.logit_scale.exp().item())


def dual_reference(folder: Path) -> Reference:
    return with_transformers(folder, "VisionTextDualEncoderModel")


def siglip2_reference(folder: Path) -> Reference:
    plain = with_transformers(folder, "Siglip2Model", padding="max_length", max_length=32)
    model = transformers.Siglip2Model.from_pretrained(folder).eval()

    def images(pixels: Tensor) -> Tensor:
        from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

        cut = torch.stack([convert_image_to_patches(picture, PATCH) for picture in pixels])
        mask, shapes = torch.ones(len(pixels), cut.shape[1]), torch.tensor([[SIDE // PATCH] * 2] * len(pixels))
        return tensor(model.get_image_features(cut, pixel_attention_mask=mask.long(), spatial_shapes=shapes))

    return Reference(images, plain.texts, plain.scale)


def blip_reference(folder: Path) -> Reference:
    """Reads the features off `BlipForImageTextRetrieval`: its own score is their cosine."""
    model = transformers.BlipForImageTextRetrieval.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def texts(given: list[str]) -> Tensor:
        tokens = tokenizer(given, padding=True, return_tensors="pt")
        pixels = torch.zeros(1, 3, SIDE, SIDE)
        out = model(tokens["input_ids"], pixels, use_itm_head=False, attention_mask=tokens["attention_mask"])
        return model.text_proj(out.question_embeds[:, 0])  # type: ignore[no-any-return]

    def images(pixels: Tensor) -> Tensor:
        return model.vision_proj(model.vision_model(pixels).last_hidden_state[:, 0])  # type: ignore[no-any-return]

    return Reference(images, texts, 1 / 0.07)


def albef_reference(folder: Path) -> Reference:
    """The ViT of timm, which ALBEF's authors took theirs from, and BERT cut after the second layer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    vit, bert, state = albef_parts(len(tokenizer))
    bert.encoder.layer = bert.encoder.layer[:2]

    def texts(given: list[str]) -> Tensor:
        tokens = tokenizer(given, padding=True, return_tensors="pt")
        hidden = bert(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        return torch.nn.functional.linear(hidden[:, 0], state["text_proj.weight"], state["text_proj.bias"])

    def images(pixels: Tensor) -> Tensor:
        hidden = vit.forward_features(pixels)[:, 0]
        return torch.nn.functional.linear(hidden, state["vision_proj.weight"], state["vision_proj.bias"])

    return Reference(images, texts, 20.0)


def open_clip_reference(folder: Path) -> Reference:
    import open_clip

    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    return Reference(
        model.encode_image, lambda given: model.encode_text(tokenizer(given)), model.logit_scale.exp().item()
    )


# ---------------------------------------------------------------------------------------------------------------- table


@dataclass(frozen=True, kw_only=True)
class Family:
    """A tiny model of a family.

    Attributes:
        kind: Its name in `ADAPTERS`.
        make: Fills an empty folder.
        reference: Loads that folder with the library that the family comes from.
        weights: File of the weights.
        pickle: Name of such a file that PyTorch reads.
        tokenizer: Files of the tokenizer.
        processor: Whether the folder holds the settings of the image processor.
        transformer: Whether the image encoder is a transformer.
        lost: Names of weights that the model cannot do without, as the file has them.
        needs: Libraries beside transformers, without which it is skipped.
    """

    kind: str
    make: Callable[[Path], None]
    reference: Callable[[Path], Reference]
    weights: str = "model.safetensors"
    pickle: str = "pytorch_model.bin"
    tokenizer: tuple[str, ...] = ("tokenizer.json", "tokenizer_config.json")
    processor: bool = True
    transformer: bool = True
    lost: tuple[str, str] = ("visual_projection.weight", "text_projection.weight")
    needs: tuple[str, ...] = field(default=())


DUAL = "vision-text-dual-encoder"
BERT_FILES = ("vocab.txt", "tokenizer_config.json")
OWN = {
    "weights": "open_clip_model.safetensors",
    "pickle": "open_clip_pytorch_model.bin",
    "processor": False,
    "needs": ("open_clip", "timm"),
}
FAMILIES = {
    "clip": Family(kind="clip", make=make_clip, reference=lambda folder: with_transformers(folder, "CLIPModel")),
    "siglip": Family(
        kind="siglip",
        make=make_siglip,
        reference=lambda folder: with_transformers(folder, "SiglipModel", padding="max_length", max_length=32),
        lost=("vision_model.head.probe", "text_model.head.weight"),
    ),
    "siglip2": Family(
        kind="siglip2",
        make=make_siglip2,
        reference=siglip2_reference,
        lost=("vision_model.head.probe", "text_model.head.weight"),
    ),
    "blip": Family(
        kind="blip",
        make=make_blip,
        reference=blip_reference,
        tokenizer=BERT_FILES,
        lost=("vision_proj.weight", "text_proj.weight"),
    ),
    "albef": Family(
        kind="albef",
        make=make_albef,
        reference=albef_reference,
        weights="albef.safetensors",
        pickle="albef.pth",
        tokenizer=BERT_FILES,
        processor=False,
        lost=("vision_proj.weight", "text_proj.weight"),
        needs=("timm",),
    ),
    "altclip": Family(
        kind="altclip", make=make_altclip, reference=lambda folder: with_transformers(folder, "AltCLIPModel")
    ),
    "chinese_clip": Family(
        kind="chinese_clip",
        make=make_chinese_clip,
        reference=lambda folder: with_transformers(folder, "ChineseCLIPModel"),
        tokenizer=BERT_FILES,
    ),
    "dual encoder": Family(kind=DUAL, make=make_dual_encoder, reference=dual_reference, tokenizer=BERT_FILES),
    "dual encoder of CLIP": Family(
        kind=DUAL, make=lambda folder: make_dual_encoder(folder, image="clip", text="clip"), reference=dual_reference
    ),
    "dual encoder of timm": Family(
        kind=DUAL,
        make=lambda folder: make_dual_encoder(folder, image="timm", text="roberta"),
        reference=dual_reference,
        transformer=False,
    ),
    "open_clip": Family(
        kind="open_clip",
        make=make_open_clip,
        reference=open_clip_reference,
        tokenizer=(),
        lost=("visual.proj", "text_projection"),
        **OWN,  # type: ignore[arg-type]
    ),
    "open_clip of SigLIP": Family(
        kind="open_clip",
        make=make_open_clip_siglip,
        reference=open_clip_reference,
        lost=("visual.head.proj.weight", "text.text_projection"),
        **OWN,  # type: ignore[arg-type]
    ),
    "open_clip ResNet": Family(
        kind="open_clip",
        make=make_open_clip_resnet,
        reference=open_clip_reference,
        tokenizer=(),
        transformer=False,
        lost=("visual.attnpool.c_proj.weight", "text_projection"),
        **OWN,  # type: ignore[arg-type]
    ),
}


def edit_family_weights(folder: Path, family: Family, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Lets a function change the weights of a saved model in place."""
    weights = load_file(folder / family.weights)
    change(weights)
    save_file(weights, folder / family.weights, metadata={"format": "pt"})


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Returns all cosines between the rows of two matrices."""
    return normalize(one, dim=-1) @ normalize(other, dim=-1).T
