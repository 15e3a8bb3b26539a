"""Detectors for several labels per image: which given tags are wrong and which are missing, per image and class."""
