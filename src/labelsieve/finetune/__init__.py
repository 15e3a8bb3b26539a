"""Phase 2: a standard image classifier, trained on what a scan left.

* `settings.py`: every option, and the recipes of the paper
* `kinds.py`: all that differs between one class an image and tags
* `selection.py`: which images, with which labels and weights, out of the verdicts and the reviews
* `tag_selection.py`, `tag_head.py`: which tags, and the head that training on them starts from
* `backbones.py`: classification models of `transformers` with a new head
* `tuning.py`: which of their weights are trained
* `modules.py`: the modules of phase 1 on their blocks
* `losses.py`: cross-entropy and losses that are robust to wrong labels
* `loop.py`, `evaluation.py`: the loop, its checkpoints, and accuracies
* `result.py`: the record and the folder that it is kept in
* `run.py`: all of it in one call
"""
