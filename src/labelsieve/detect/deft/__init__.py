"""DeFT: learned dual prompts.

* `detector.py`: the detector and its recipes; `settings.py`: its settings
* `registry.py`: the losses of warm-up; `objective.py`: the loss of a batch; `scoring.py`: trains, then scores
"""
