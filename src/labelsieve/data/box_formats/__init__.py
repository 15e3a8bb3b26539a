"""Annotation files of boxes, one file a format: each row is a box, and shows the part of its image in it."""
