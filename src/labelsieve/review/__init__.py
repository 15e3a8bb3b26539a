"""What people answered when they looked at the images of a run, and what follows from it.

Answers are kept in an append-only log in the run folder and belong to the content of an image, not to its name.
"""

from labelsieve.review.answers import KINDS, Answer, key_of
from labelsieve.review.log import LOG, AnswerLog
from labelsieve.review.state import Agreement, Resolved, Reviews, Standing, load, resolve

__all__ = [
    "KINDS",
    "LOG",
    "Agreement",
    "Answer",
    "AnswerLog",
    "Resolved",
    "Reviews",
    "Standing",
    "key_of",
    "load",
    "resolve",
]
