"""DeFT: learned dual prompts.

* `detector.py`: the detector and its recipes; `settings.py`: its settings
* `registry.py`: the warm-up losses; `objective.py`: the loss of a batch; `scoring.py`: training and scoring
"""
