"""Training of prompts and parameter-efficient modules, shared by all trained detectors.

* `settings.py`: the settings, which are also command-line options
* `autoconfig.py`: how `auto` is resolved
* `learner.py`: the trained parameters and the batches
* `loop.py`: epochs, checkpoints, resuming
* `cross_entropy.py`: cross-entropy training for small-loss and GMM
* `compiling.py`: `torch.compile` for the image encoder
"""
