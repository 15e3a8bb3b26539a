"""Detectors: they score how likely each given label is correct, and say by which rule to flag.

* `base.py`: `Detector`; `registry.py`: the table of detectors; `scores.py`: `Scores`, what detectors return
* `inputs.py`: what detectors get: features, labels and class texts, from images and a model or computed before
* `chunks.py`, `folds.py`: some rows at a time, and some rows left out
* `deft/`: learned dual prompts; `joint.py`: its joint evidence without training; both on `evidence/`
* `small_loss.py`, `gmm.py`: trained detectors that the paper compares with; all that is trained is on `training/`
* `label_match.py`, `clip_margin.py`: the zero-shot model, which is in `zero_shot.py`
* `confident_learning.py` with `probe.py`, `aum.py`: linear probes
* `knn.py`, `lemon.py`, `prototype_gmm.py` with `prototypes.py`: on `neighbours.py` and `mixture.py`
* `simifeat.py` with `transition.py`, `fine.py`, `clip_cleaner.py` with `softmax_regression.py`: rivals on features
* `losses.py`: losses on s+ and s-
* `tags/`: the same for several labels an image
"""
