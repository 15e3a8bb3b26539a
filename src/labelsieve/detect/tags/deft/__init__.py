"""DeFT of tags: learned dual prompts that predict for each class whether an image shows it.

* `detector.py`: the detector; `settings.py`: its settings
* `objective.py`: the loss of a batch; `scoring.py`: training and scoring
"""
