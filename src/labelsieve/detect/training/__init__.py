"""Training of prompts and parameter-efficient modules: what all trained detectors share.

* `settings.py`: settings, each a flag too
* `autoconfig.py`: what `auto` becomes
* `learner.py`: what is trained, and its batches
* `loop.py`: epochs, checkpoints, resuming
* `cross_entropy.py`: training whose losses small-loss and GMM use
* `compiling.py`: `torch.compile` for the image encoder
"""
