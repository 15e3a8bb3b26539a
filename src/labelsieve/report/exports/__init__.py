"""Exports of verdicts for other tools, each a line of `registry.py`."""
