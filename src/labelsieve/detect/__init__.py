"""Detectors: they score how likely each given label is correct, and say by which rule to flag.

* `base.py`: `Detector`; `registry.py`: the table of detectors; `compatibility.py`: whether one works with given data
* `inputs.py`: what detectors get: features, labels and class texts, from images and a model or computed before
* `scores.py`: `Scores`, what detectors return
* `deft/`: learned dual prompts; every file with one detector is named after it, such as `joint.py` or `small_loss.py`
* `evidence/`: joint evidence, which `deft/` and `joint.py` share; `training/` and `losses.py`: what trained ones share
* `zero_shot.py`, `probe.py`, `neighbours.py`, `prototypes.py`, `mixture.py`, `transition.py`, `softmax_regression.py`:
  the models that several of them, or a detector of that kind, are made of
* `chunks.py`, `folds.py`: some rows at a time, and some rows left out
* `tags/`: the same for several labels an image
"""
