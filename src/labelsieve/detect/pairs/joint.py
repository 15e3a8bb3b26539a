"""Joint evidence of pairs: the zero-shot model, discriminants and neighbours in one posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelsieve.core.validation import Folds, check_fields
from labelsieve.core.validation import Neighbours as NeighbourCount
from labelsieve.detect.pairs.base import PairDetector

if TYPE_CHECKING:
    from torch import Tensor

    from labelsieve.detect.neighbours import Neighbours
    from labelsieve.detect.pairs.evidence import Kind
    from labelsieve.detect.pairs.inputs import PairInputs
    from labelsieve.detect.pairs.scores import PairScores

# One discriminant as a rule for few images has it, and one that wrong and missing tags disturb less.
SHRINKAGES = (0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class PairJoint(PairDetector):
    """Joins the zero-shot model, out-of-fold discriminants and neighbours into one posterior for each pair.

    All kinds of evidence are weighed so that they make the given tags most likely, with shares of wrong and missing
    tags for each class (`labelsieve.detect.pairs.noise`). What is learned from tags is then learned again from the
    posterior, with these shares held. Works without class texts, too.

    Attributes:
        folds: Number of parts for the out-of-fold discriminants, 2 to 100; small data have fewer, each image its own.
        neighbours: How many neighbours tell, at least 1; small data have fewer.

    Example:
        >>> import numpy as np
        >>> from accelerate import Accelerator
        >>> from labelsieve.core.engine import Engine
        >>> from labelsieve.detect.pairs.inputs import PairInputs
        >>> rng, names = np.random.default_rng(0), ["cat", "dog", "fox", "owl"]
        >>> tags = rng.random((300, 4)) < 0.3
        >>> points = tags @ np.eye(4, 8) + rng.normal(scale=0.1, size=(300, 8))
        >>> tags[0, 2], tags[1, 2] = False, True  # it is there, and it is not
        >>> engine = Engine(accelerator=Accelerator(cpu=True))
        >>> pairs = PairInputs.of_features(points, tags, class_names=names, engine=engine)
        >>> scores = PairJoint().score(pairs)
        >>> np.argwhere(scores.missing).tolist(), np.argwhere(scores.wrong).tolist()
        ([[0, 2]], [[1, 2]])
    """

    folds: Folds = 5
    neighbours: NeighbourCount = 30

    def __post_init__(self) -> None:
        check_fields(self)

    def score(self, pairs: PairInputs) -> PairScores:
        """Scores every pair; see :class:`labelsieve.detect.pairs.base.PairDetector`."""
        import torch

        from labelsieve.core.seeds import Purpose
        from labelsieve.detect.pairs.evidence import neighbours_of, zero_shot_kind
        from labelsieve.detect.pairs.noise import fit_pairs
        from labelsieve.detect.pairs.scores import pair_scores

        images, noise, history = pairs.images, None, []
        rates: dict[str, Any] = {}
        fixed = [] if images.text is None else [zero_shot_kind(pairs)]
        found = neighbours_of(pairs, self.neighbours)
        names = (*(["zero-shot"] if fixed else []), "image features", "smoothed features", "neighbours")
        learned_from = torch.from_numpy(pairs.given).float()
        for _ in ("given tags", "posterior"):
            kinds = [*fixed, *self._learned(pairs, learned_from, found)]
            generator = images.engine.generator(Purpose.POSTERIOR_ROWS)
            model = fit_pairs(
                kinds, pairs.given, pairs.frequency, generator=generator, noise=noise, progress=images.progress
            )
            rates = (
                rates or model.estimates()
            )  # those of the first fit: it alone has not seen the tags that it explains
            noise, present = model.noise, model.all_probabilities(pairs.given, posterior=True)
            learned_from = torch.from_numpy(present)
            history.append(dict(zip(names, model.weights.tolist(), strict=True)))
        told = ", ".join(f"{name} {weight:.2f}" for name, weight in history[-1].items())
        notes = (f"weights of the evidence: {told}", *rates.pop("notes", ()))
        return pair_scores(pairs, present, notes=notes, history=history, **rates)

    def _learned(self, pairs: PairInputs, weights: Tensor, found: Neighbours) -> list[Kind]:
        """Returns the kinds of evidence that learn from how much images have each class, (n, K)."""
        from labelsieve.core.seeds import Purpose
        from labelsieve.detect.pairs.evidence import deal_folds, discriminant_kinds, neighbour_kind

        generator = pairs.images.engine.generator(Purpose.DISCRIMINANT_FOLDS)
        deal = deal_folds(len(weights), folds=self.folds, generator=generator)
        kinds = discriminant_kinds(pairs, weights, deal, shrinkages=SHRINKAGES)
        return [*kinds, neighbour_kind(pairs, weights, found)]
