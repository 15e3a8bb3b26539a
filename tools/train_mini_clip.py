"""Pre-train the small CLIP model that ships with labelsieve, from scratch, on captioned synthetic sketches.

Run it on an otherwise idle machine, where two cores need about five minutes::

    OMP_WAIT_POLICY=passive python tools/train_mini_clip.py --out src/labelsieve/demo/mini_clip

The sketches are in ``PRETRAINING_STYLE``, which differs from the ``DEMO_STYLE`` of the demonstration, so that the
model is good but not perfect there, as a large CLIP model is on a new data set.
"""

import argparse
import copy
import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from labelsieve.demo.sketches import (
    CLASS_NAMES,
    DEMO_STYLE,
    PRETRAINING_STYLE,
    SIZE,
    Style,
    render,
    sketches,
)

SYNONYMS: dict[str, tuple[str, ...]] = {
    "bird": ("little bird", "songbird"),
    "boat": ("sailing boat", "sailboat", "ship"),
    "bus": ("coach", "city bus"),
    "car": ("automobile", "motor car"),
    "cat": ("kitten", "cat's face"),
    "cup": ("mug", "coffee cup"),
    "dog": ("puppy", "dog's face"),
    "fish": ("goldfish",),
    "flower": ("blossom",),
    "house": ("cottage", "building"),
    "mushroom": ("toadstool",),
    "star": ("five-pointed star",),
    "teapot": ("pot of tea", "kettle"),
    "tent": ("camping tent",),
    "tree": ("fir or oak tree",),
    "umbrella": ("parasol",),
}
NAME_TEMPLATES = (
    "a photo of a {name}.",
    "a photo of a {name}",
    "a photo of the {name}.",
    "a drawing of a {name}.",
    "a picture of a {name}",
    "an image of one {name}.",
    "a sketch of a {name}.",
    "a bad photo of a {name}.",
    "a good photo of the {name}.",
    "itap of a {name}.",
    "a {name}.",
    "{name}",
    "this is a {name}",
)
COLOUR_TEMPLATES = (
    "a photo of a {colour} {name}.",
    "a drawing of a {colour} {name}",
    "a {colour} {name}",
    "the {name} is {colour}.",
)
GROUND_TEMPLATES = (
    "a {name} on a {ground} background.",
    "a photo of a {name} on a {ground} background",
    "a {name} on a {kind} background",
    "a {colour} {name} on a {ground} background.",
)
LONG_TEMPLATES = (
    "among the many small pictures of this large collection of things, this one shows a {name}.",
    "here is what somebody drew when they were asked to draw, as well as they could, a {colour} {name}.",
    "somebody with a lot of time and a box of paints has made a picture of a {name} on a {ground} background.",
)
TEXT_LENGTH = 40
FIELDS = ("colour", "ground", "kind")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture and what is true of it: class, colour, colour of the background, kind of background."""

    pixels: torch.Tensor
    truth: tuple[str, str, str, str]


def make_examples(part: tuple[int, int]) -> list[Example]:
    """Render examples of all classes in turn.

    Args:
        part: Seed and number of the examples.
    """
    seed, count = part
    rng = np.random.default_rng(seed)
    examples = []
    for name in itertools.islice(itertools.cycle(CLASS_NAMES), count):
        drawing = render(name, rng=rng, style=PRETRAINING_STYLE)
        pixels = torch.from_numpy(np.array(drawing.image)).permute(2, 0, 1).contiguous()
        truth = (name, drawing.colour, drawing.ground, drawing.background)
        examples.append(Example(pixels=pixels, truth=truth))
    return examples


def make_caption(truth: Sequence[str], rng: np.random.Generator) -> tuple[str, tuple[str | None, ...]]:
    """Write a caption.

    Args:
        truth: What is true of the picture.
        rng: Source of randomness.

    Returns:
        The caption, and which part of the truth it says.
    """
    templates = (NAME_TEMPLATES, COLOUR_TEMPLATES, GROUND_TEMPLATES, LONG_TEMPLATES)[
        rng.choice(4, p=(0.7, 0.15, 0.1, 0.05))
    ]
    template = templates[rng.integers(len(templates))]
    name, *values = truth
    words = dict(zip(FIELDS, values, strict=True))
    synonyms = SYNONYMS[name]
    called = synonyms[rng.integers(len(synonyms))] if rng.random() < 0.25 else name
    said = (name, *(words[field] if f"{{{field}}}" in template else None for field in FIELDS))
    return template.format(name=called, **words), said


def make_tokenizer(seed: int, captions: int = 20_000) -> CLIPTokenizer:
    """Train a byte-level tokenizer of CLIP's layout on captions.

    Args:
        seed: Seed of the captions.
        captions: Number of captions.
    """
    rng = np.random.default_rng(seed)
    style = PRETRAINING_STYLE
    texts = []
    for name in itertools.islice(itertools.cycle(CLASS_NAMES), captions):
        colour, ground, kind = (
            options[rng.integers(len(options))][0] for options in (style.palette, style.grounds, style.backgrounds)
        )
        texts.append(make_caption((name, colour, ground, kind), rng)[0])
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=800, end_of_word_suffix="</w>", show_progress=False)
    )
    merges: list[tuple[str, str]] = [
        (first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]
    ]
    # Every byte is in the vocabulary, also as the end of a word, so that no text has unknown tokens.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # The annotation asks for strings, but the tokenizer takes pairs.
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_LENGTH)  # type: ignore[arg-type]


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Build the untrained model."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": TEXT_LENGTH,
        **special,
    }
    vision = {
        "image_size": SIZE,
        "patch_size": 8,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    _give_sense_of_place(model)
    return model


@torch.no_grad()
def _give_sense_of_place(model: CLIPModel) -> None:
    # From a random start, a transformer spends most of a short training on finding out which patches are neighbours.
    # Sine and cosine position embeddings, and queries that begin equal to the keys, give it that from the outset.
    embeddings = model.vision_model.embeddings
    side, width = SIZE // embeddings.patch_size, embeddings.embed_dim
    waves = torch.arange(side)[:, None] * (np.pi / side) * 1.5 ** torch.arange(width // 4)[None, :].remainder(8)
    axis = torch.cat([waves.sin(), waves.cos()], dim=1)
    grid = torch.cat([axis.repeat_interleave(side, dim=0), axis.repeat(side, 1)], dim=1)
    embeddings.position_embedding.weight[1:] = 0.3 * grid
    for layer in model.vision_model.encoder.layers:
        layer.self_attn.q_proj.weight.normal_(std=0.06)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


def image_states(model: CLIPModel, pixels: torch.Tensor, keep: int | None = None) -> torch.Tensor:
    """Encode pictures, optionally from a part of their patches only.

    Dropping patches during most of the pre-training, as in FLIP (Li et al., 2023), makes it much quicker. Patches with
    more contrast are likelier to stay, because most of the others show nothing but background.

    Args:
        model: The model.
        pixels: Normalised pictures.
        keep: Number of patches to keep of each picture; all when left out.

    Returns:
        The last state of the class token of each picture.
    """
    vision = model.vision_model
    tokens = vision.embeddings(pixels)
    if keep is not None:
        size = vision.embeddings.patch_size
        contrast = functional.unfold(pixels.mean(dim=1, keepdim=True), size, stride=size).std(dim=1)
        noise = -torch.empty_like(contrast).exponential_().log()
        order = ((contrast + 0.02).log() + 0.5 * noise).topk(keep, dim=1).indices + 1
        chosen = tokens.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = torch.cat([tokens[:, :1], chosen], dim=1)
    hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(tokens)).last_hidden_state
    states: torch.Tensor = vision.post_layernorm(hidden[:, 0])
    return states


def image_features(model: CLIPModel, states: torch.Tensor) -> torch.Tensor:
    """Project encoded pictures into the space shared with texts."""
    return functional.normalize(model.visual_projection(states), dim=-1)


def text_features(model: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Embed texts, the long ones apart so that the others need no padding to their length."""
    short = torch.tensor([len(text) < 60 for text in texts])
    if short.any() and not short.all():
        features = torch.empty(len(texts), model.text_projection.out_features)
        for group in (short, ~short):
            chosen = [text for text, inside in zip(texts, group.tolist(), strict=True) if inside]
            features = features.masked_scatter(group[:, None], text_features(model, tokenizer, chosen))
        return features
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    features = model.text_projection(model.text_model(**tokens).pooler_output)
    return functional.normalize(features, dim=-1)


def contrastive_loss(model: CLIPModel, images: torch.Tensor, texts: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric softmax loss, in which every caption that is true of a picture counts as its partner.

    Args:
        model: Model with the temperature.
        images: Embedded pictures.
        texts: Embedded captions.
        true: Whether each caption (column) is true of each picture (row).
    """
    logits = model.logit_scale.exp() * images @ texts.T
    weights = true.float()
    by_image = functional.cross_entropy(logits, weights / weights.sum(dim=1, keepdim=True))
    by_text = functional.cross_entropy(logits.T, weights.T / weights.T.sum(dim=1, keepdim=True))
    return (by_image + by_text) / 2


def match(truths: Sequence[Sequence[str]], said: Sequence[Sequence[str | None]]) -> torch.Tensor:
    """Tell which captions (columns) are true of which pictures (rows)."""
    return torch.tensor(
        [
            [all(s is None or s == t for s, t in zip(caption, truth, strict=True)) for caption in said]
            for truth in truths
        ]
    )


def normalise(pixels: torch.Tensor, processor: CLIPImageProcessor) -> torch.Tensor:
    """Scale pixels as the image processor does."""
    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    deviation = torch.tensor(processor.image_std).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / deviation


def augment(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror half of the pictures and move all of them a little."""
    flipped = torch.from_numpy(rng.random(len(pixels)) < 0.5)[:, None, None, None]
    pixels = torch.where(flipped, pixels.flip(3), pixels)
    padded = functional.pad(pixels, (4, 4, 4, 4), mode="replicate")
    moves = rng.integers(9, size=(len(pixels), 2)).tolist()
    return torch.stack([one[:, y : y + SIZE, x : x + SIZE] for one, (x, y) in zip(padded, moves, strict=True)])


def train(
    model: CLIPModel, tokenizer: CLIPTokenizer, processor: CLIPImageProcessor, options: argparse.Namespace
) -> None:
    """Pre-train the model.

    The learning rate follows the share of the steps, or of the time if ``--minutes`` is given.
    """
    parts = [(options.seed * 1000 + part, 1200) for part in range(options.pool // 1200)]
    with ProcessPoolExecutor(options.threads, multiprocessing.get_context("spawn")) as pool:
        examples = list(itertools.chain.from_iterable(pool.map(make_examples, parts)))
    print(f"{len(examples):,} drawings", flush=True)
    rng = np.random.default_rng(options.seed)
    # At first both encoders give nearly one vector for everything and learn little from each other. A classifier of
    # the pictures, fading out and not part of the finished model, gets the image encoder going.
    head = nn.Linear(model.visual_projection.in_features, len(CLASS_NAMES))
    optimizer = torch.optim.AdamW(
        [*_groups(model), {"params": list(head.parameters()), "pace": 1.0}], lr=options.rate, betas=(0.9, 0.98)
    )
    model.train()
    started, recent = time.monotonic(), []
    for step, batch in enumerate(_batches(examples, options.batch, rng)):
        done = step / options.steps
        if options.minutes:
            done = (time.monotonic() - started) / 60 / options.minutes
        if done >= 1:
            break
        rise, fall = min(1.0, (step + 1) / 50), 0.5 + 0.5 * np.cos(np.pi * done)
        for group in optimizer.param_groups:
            group["lr"] = group["pace"] * options.rate * rise * max(fall, 0.01)
        pixels = normalise(augment(torch.stack([example.pixels for example in batch]).float(), rng), processor)
        captions, said = zip(*(make_caption(example.truth, rng) for example in batch), strict=True)
        states = image_states(model, pixels, keep=options.keep if done < 0.9 else None)
        images = image_features(model, states)
        texts = text_features(model, tokenizer, list(captions))
        loss = contrastive_loss(model, images, texts, match([example.truth for example in batch], said))
        recent.append(loss.item())
        names = torch.tensor([CLASS_NAMES.index(example.truth[0]) for example in batch])
        loss = loss + (1 - done) * functional.cross_entropy(head(states), names)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(0.0, np.log(100.0))
        if (step + 1) % 50 == 0:
            spent = time.monotonic() - started
            scale = model.logit_scale.exp().item()
            print(f"step {step + 1}: loss {np.mean(recent[-50:]):.3f}, scale {scale:.1f}, {spent:.0f} s", flush=True)
        if (step + 1) % 500 == 0:
            save(options.out, model, tokenizer, processor)
    model.train(mode=False)


def _batches(examples: list[Example], size: int, rng: np.random.Generator) -> Iterator[list[Example]]:
    while True:
        order = rng.permutation(len(examples))
        for start in range(0, len(order) - size + 1, size):
            yield [examples[index] for index in order[start : start + size]]


def _groups(model: CLIPModel) -> list[dict[str, object]]:
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    return [
        {"params": matrices, "weight_decay": 0.05, "pace": 1.0},
        {"params": others, "weight_decay": 0.0, "pace": 1.0},
        # So few steps would hardly move the temperature otherwise.
        {"params": [model.logit_scale], "weight_decay": 0.0, "pace": 5.0},
    ]


def save(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer, processor: CLIPImageProcessor) -> None:
    """Write the model in half precision, with all that is needed to use it."""
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


@torch.no_grad()
def embed(model: CLIPModel, processor: CLIPImageProcessor, pictures: list[Image.Image]) -> torch.Tensor:
    """Embed pictures in batches."""
    chunks = [pictures[start : start + 100] for start in range(0, len(pictures), 100)]
    return torch.cat(
        [
            image_features(model, image_states(model, processor(images=chunk, return_tensors="pt")["pixel_values"]))
            for chunk in chunks
        ]
    )


@torch.no_grad()
def zero_shot(model: CLIPModel, tokenizer: CLIPTokenizer, features: torch.Tensor, labels: np.ndarray) -> float:
    """Zero-shot accuracy with the prompt "a photo of a ...".

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        features: Embedded pictures.
        labels: Their true labels.
    """
    prompts = text_features(model, tokenizer, [f"a photo of a {name}." for name in CLASS_NAMES])
    return float(((features @ prompts.T).argmax(dim=1).numpy() == labels).mean())


def report(folder: Path) -> None:
    """Load the finished model and print its accuracy on sketches that it was not trained on."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessor.from_pretrained(folder)

    def load(count: int, seed: int, style: Style) -> tuple[torch.Tensor, np.ndarray]:
        pictures, labels = sketches(count, seed=seed, style=style)
        return embed(model, processor, pictures), labels

    features, labels = load(1000, 1_000_003, PRETRAINING_STYLE)
    print(f"zero-shot accuracy, style of pre-training: {zero_shot(model, tokenizer, features, labels):.3f}")
    features, labels = load(1000, 1_000_004, DEMO_STYLE)
    print(f"zero-shot accuracy, style of the demonstration: {zero_shot(model, tokenizer, features, labels):.3f}")
    train_features, train_labels = load(2000, 1_000_005, DEMO_STYLE)
    for strength in (0.01, 0.1, 1.0):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        probe.fit(train_features.numpy(), train_labels)
        accuracy = probe.score(features.numpy(), labels)
        print(f"linear probe (C={strength}) on 2,000 drawings of the demonstration: {accuracy:.3f}")


def main() -> None:
    """Train, save and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200, help="number of optimisation steps")
    parser.add_argument("--minutes", type=float, help="train for this long instead of a number of steps")
    parser.add_argument("--batch", type=int, default=48, help="pictures per step")
    parser.add_argument("--rate", type=float, default=1e-3, help="greatest learning rate")
    parser.add_argument("--pool", type=int, default=12_000, help="number of sketches to train on")
    parser.add_argument("--keep", type=int, default=28, help="patches kept of each picture in most of the training")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = make_tokenizer(options.seed)
    processor = CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    model = make_model(tokenizer)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters", flush=True)
    train(model, tokenizer, processor, options)
    save(options.out, model, tokenizer, processor)
    report(options.out)


if __name__ == "__main__":
    main()
