"""Joint evidence: one clean probability from several kinds of class logits, without any truth.

* `posterior.py`: the clean probability, where it is flagged, and how many labels are wrong
* `fit.py`: how much each kind of evidence counts, and how wrong labels come about
* `noise_model.py`, `noise_rate.py`: how given labels come from the true classes, and how many are wrong
* `discriminants.py`: out-of-fold discriminants on image features
* `annotators.py`: how far each of several annotators is right, and what all of them say of an image
"""
