"""Phase 2: a standard image classifier, trained on the selection of a scan.

* `settings.py`: the settings, and the recipes of the paper
* `registry.py`: the losses and the choices of what is trained
* `job.py`: model, data and settings of one training, which all functions here share
* `target_kinds.py`: the differences between single labels and tags
* `selection.py`, `tag_selection.py`: training rows, labels or tags, and weights, from the verdicts and the reviews
* `backbones.py`: classification models of `transformers` with a new head
* `timm_classifier.py`, `timm_encoders.py`, `open_clip_encoders.py`: image encoders as classifiers of `timm`
* `tag_head.py`: the initial head for tags
* `tuning.py`: the weights that are trained; `peft_modules.py`: the modules of phase 1 on a backbone
* `losses.py`: cross-entropy and robust losses
* `loop.py`, `evaluation.py`: the training loop with its checkpoints, and metrics
* `rgb_conversion.py`: images that training and `pipeline()` convert differently
* `terminal.py`: the summary on the terminal
* `result.py`: the result, its record and its folder
* `run.py`: all of it in one call
"""
