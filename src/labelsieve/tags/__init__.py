"""Runs on data with any number of labels per image: scan and verdicts."""
