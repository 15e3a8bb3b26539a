"""Runs on data with any number of labels an image: their verdicts, and the path from images to them."""
