"""Loads images and features with labels, for all later stages.

`images.py` holds the record, :class:`~labelsieve.data.images.LabelledImages`, and decodes images; `loading.py` loads it
with the readers in `sources/`, `box_formats/` and `published/`; `labels.py` maps labels to indices; `tags/` is the same
for several labels an image; `features.py` loads features that were computed before, and `labelled.py` is what both have
in common; `noise.py` injects wrong labels; `input/` leads from files to batches.
"""
