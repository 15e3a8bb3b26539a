"""Loads images and features with labels, for all later stages.

`images.py` holds the record, :class:`~labelsieve.data.images.LabelledImages`, and decodes images; `sources.py` loads
it from a folder, a file, the Hub or memory, with `readers.py` (one function a kind of source), `csv_files.py` and
`arrow_files.py` (tables, of the formats in `table_formats.py`), `shards.py` (tables in several files), `folders.py`
(class folders, and rules for paths), `image_paths.py` (which file a value means), `columns.py` (which column is what),
`labels.py` (class names, labels to indices), `contents.py` (hashes of images) and `file_kinds.py` (what a file really
is);
`features.py` with `feature_files.py` loads features that were computed before in the place of images, `labelled.py` is
what both have in common; `noise.py` puts wrong labels in on purpose; `loading.py` turns the record into batches.
"""
