"""Purposes of random numbers: each has its own generator, so that no two purposes use the same numbers."""

from __future__ import annotations

from enum import IntEnum


class Purpose(IntEnum):
    """First number of :meth:`labelsieve.core.engine.Engine.generator`; a new value changes the verdicts of a seed."""

    INITIAL_PROMPTS = 1
    TRAINING_ORDER = 2
    COMPLEMENTARY_LABELS = 3
    DISCRIMINANT_FOLDS = 4
    POSTERIOR_ROWS = 5
    PROBE_FOLDS = 6
    AUM_THRESHOLD_SAMPLES = 7
    AUM_ORDER = 8
    SIMIFEAT_TRIPLES = 9
    OUTLIER_FOLDS = 10
    INITIAL_MODULES = 21
    FINETUNING_ORDER = 22
    DROPOUT = 23
    VALIDATION_IMAGES = 24
    HEAD_FOLDS = 25
