"""Reviews: the answers of people on the images of a run, and their consequences.

Answers are stored in an append-only log in the run folder and belong to the content of an image, not to its name.
"""

from labelsieve.review.answers import ANSWER_KINDS, Answer, key_of
from labelsieve.review.log import LOG, AnswerLog
from labelsieve.review.state import Agreement, Resolved, Reviews, StandingAnswers, load, resolve

__all__ = [
    "ANSWER_KINDS",
    "LOG",
    "Agreement",
    "Answer",
    "AnswerLog",
    "Resolved",
    "Reviews",
    "StandingAnswers",
    "key_of",
    "load",
    "resolve",
]
