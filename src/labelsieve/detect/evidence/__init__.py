"""Joint evidence: one clean probability from several kinds of class logits, without true labels.

* `posterior.py`: the clean probability, its threshold, and the estimated number of wrong labels
* `fit.py`: the weights of the evidence and the kind of noise
* `noise_model.py`, `noise_rate.py`: models of label noise, and the share of wrong labels
* `discriminants.py`: out-of-fold discriminants on image features
* `annotators.py`: the accuracy of several annotators, and their consensus on each image
"""
