"""Annotation files of boxes, one module per format: each row is a box, shown as a crop of its image."""
