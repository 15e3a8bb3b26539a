"""Combines several kinds of evidence of tags into one posterior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from labelsieve.core.seeds import Purpose
from labelsieve.detect.folds import random_folds
from labelsieve.detect.neighbours import Neighbours
from labelsieve.detect.tags.evidence import (
    Kind,
    discriminant_kinds,
    neighbour_kind,
    neighbours_of,
    zero_shot_kind,
)
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.noise_model import fit_pairs
from labelsieve.detect.tags.other_tags import other_tags_kind
from labelsieve.detect.tags.scores import TagScores, tag_scores
from labelsieve.detect.tags.windows import Views, discriminant_of_views, views_of, zero_shot_of_views

# Minimum weights of the identity: 0 for the shrinkage rule alone, and one more robust to wrong and missing tags.
SHRINKAGES = (0.0, 0.5)


def join(
    pairs: TagInputs,
    *,
    folds: int,
    neighbours: int,
    windows: int,
    more: Mapping[str, Kind] | None = None,
    history: tuple[Mapping[str, Any], ...] = (),
    notes: tuple[str, ...] = (),
) -> TagScores:
    """Scores pairs by the zero-shot model (if there are texts), discriminants, neighbours, other tags and `more`.

    Args:
        pairs: The images and their tags.
        folds: Number of folds of the discriminants, at least 2.
        neighbours: Number of neighbours, at least 1.
        windows: The finest grid of windows to use in addition; 1 for none.
        more: Other kinds of evidence by name.
        history: Records of earlier training; the record of the weights follows.
        notes: Remarks for the user on earlier training.
    """
    engine, given = pairs.images.engine, pairs.given
    views, neighbours_found = views_of(pairs, windows), neighbours_of(pairs, neighbours)
    kinds = {} if pairs.images.text is None else {"zero-shot": zero_shot_kind(pairs)}
    kinds |= {} if views is None else {"zero-shot of windows": zero_shot_of_views(views)}
    kinds |= dict(more or {}) | _learned(pairs, neighbours_found, views, folds=folds)
    generator = engine.generator(Purpose.POSTERIOR_ROWS)
    model = fit_pairs([*kinds.values()], given, pairs.frequency, generator=generator, progress=engine.progress)
    weights, rates = dict(zip(kinds, model.weights.tolist(), strict=True)), model.estimates()
    weight_text = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    notes = (
        *notes,
        f"weights of the evidence: {weight_text} (the larger, the more it counts in p_clean)",
        *rates.pop("notes", ()),
    )
    present = model.posterior(given)
    return tag_scores(pairs, present, notes=notes, history=(*history, weights), **rates)


def _learned(pairs: TagInputs, neighbours_found: Neighbours, views: Views | None, *, folds: int) -> dict[str, Kind]:
    """Returns the kinds of evidence that are fitted to the given tags."""
    weights = torch.from_numpy(pairs.given).float()
    generator = pairs.images.engine.generator(Purpose.DISCRIMINANT_FOLDS)
    fold_ids = random_folds(len(weights), folds=folds, generator=generator)
    image, smoothed = discriminant_kinds(pairs, weights, fold_ids, shrinkages=SHRINKAGES)
    kinds = {"image features": image, "smoothed features": smoothed}
    if views is not None:
        kinds["window features"] = discriminant_of_views(views, weights, fold_ids, shrinkage=SHRINKAGES[0])
    kinds["neighbours"] = neighbour_kind(pairs, weights, neighbours_found)
    return {**kinds, "other tags": other_tags_kind(pairs.given, fold_ids)}


def score_alone(pairs: TagInputs, kind: Kind) -> TagScores:
    """Scores pairs by one kind of evidence, calibrated on the given tags."""
    engine = pairs.images.engine
    generator = engine.generator(Purpose.POSTERIOR_ROWS)
    model = fit_pairs([kind], pairs.given, pairs.frequency, generator=generator, progress=engine.progress)
    return tag_scores(pairs, model.posterior(pairs.given), **model.estimates())
