"""Findings other than wrong labels: duplicates, leaks between splits, defects, and images of no class."""
