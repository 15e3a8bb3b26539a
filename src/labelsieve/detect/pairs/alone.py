"""What one kind of evidence says alone."""

from __future__ import annotations

from labelsieve.core.seeds import Purpose
from labelsieve.detect.pairs.evidence import Kind
from labelsieve.detect.pairs.inputs import PairInputs
from labelsieve.detect.pairs.noise import fit_pairs
from labelsieve.detect.pairs.scores import PairScores, pair_scores


def score_alone(pairs: PairInputs, kind: Kind) -> PairScores:
    """Scores pairs by one kind of evidence, calibrated on the tags and joined with them."""
    engine = pairs.images.engine
    generator = engine.generator(Purpose.POSTERIOR_ROWS)
    model = fit_pairs([kind], pairs.given, pairs.frequency, generator=generator, progress=engine.progress)
    return pair_scores(pairs, model.all_probabilities(pairs.given, posterior=True), **model.estimates())
