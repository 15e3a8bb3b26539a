"""Loads images and features with labels, for all later stages.

`images.py` defines the record, :class:`~labelsieve.data.images.LabelledImages`, and decodes images; `loading.py` loads
it with the readers in `sources/`, `box_formats/` and `published/`; `labels.py` maps labels to indices; `tags/` does the
same for several labels per image; `features.py` loads precomputed features; `labelled.py` is the common base of images
and features; `noise.py` injects wrong labels; `input/` turns files into batches.
"""
