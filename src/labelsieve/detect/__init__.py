"""Detectors: they score how likely each given label is correct, and decide nothing.

* `base.py`: `Scores`, the `Detector` protocol and the table of detectors
* `deft.py`: learned dual prompts, with `losses.py`, `joint.py` and `discriminant.py` under it; `joint_fit.py` and
  `noise_model.py`: what the joint evidence is made of
* `small_loss.py`, `gmm.py`: trained detectors that the paper compares with
* `view.py`: what the others need, features only; from images and a model, or computed before
* `label_match.py`, `clip_margin.py`: the untrained model; `training_free.py`: joint evidence without the prompts
* `confident_learning.py` with `probe.py`, `aum.py` with `area.py`: linear probes
* `knn.py`, `lemon.py` with `multimodal.py`, `prototype.py` with `prototypes.py`: `neighbours.py` and `mixture.py`
* `simifeat.py` with `transition.py`, `fine.py`, `clip_cleaner.py` with `softmax_regression.py`: rivals on features
* `settings.py`, `learner.py`, `training.py`: settings of training, what is trained, and the loop
"""
