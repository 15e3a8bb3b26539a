"""Writers of corrected labels, one a kind of source: what comes out has the form of what went in."""

from labelsieve.review.writers.edits import Edits, Placing, RowVerdicts, copied, hard_linked, linked

__all__ = ["Edits", "Placing", "RowVerdicts", "copied", "hard_linked", "linked"]
