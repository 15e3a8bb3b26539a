"""Detectors, which score how likely each given label is correct and define the rule that flags labels.

* `base.py`: `Detector`; `registry.py`: the table of detectors; `compatibility.py`: whether a detector fits the data
* `inputs.py`: the inputs of detectors: features, labels and class texts, from images and a model or precomputed
* `scores.py`: `Scores`, the output of detectors
* `deft/`: learned dual prompts; every other detector has a file with its name, such as `joint.py` or `small_loss.py`
* `evidence/`: joint evidence of `deft/` and `joint.py`; `training/` and `losses.py`: shared by trained detectors
* `zero_shot.py`, `probe.py`, `neighbours.py`, `prototypes.py`, `mixture.py`, `transition.py`, `softmax_regression.py`:
  models that the detectors use
* `chunks.py`, `folds.py`: processing rows in chunks, and folds for cross-fitting
* `tags/`: the same for several labels per image
"""
