"""Detectors: they score how likely each given label is correct, and decide nothing.

* `base.py`: `Scores`, the `Detector` protocol and the table of detectors
* `deft.py`: learned dual prompts, with `losses.py`, `joint.py` and `discriminant.py` under it
* `label_match.py`, `small_loss.py`, `gmm.py`: the detectors that the paper compares with
* `settings.py`, `learner.py`, `training.py`: settings of training, what is trained, and the loop
"""
