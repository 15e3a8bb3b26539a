"""Images with labels, from wherever they lie to the record that every later stage reads.

`images.py` holds the record, :class:`~labelsieve.data.images.LabelledImages`, and decodes pictures; `sources.py` loads
it from a folder, a file, the Hub or memory, with `readers.py` (one function a kind of source), `folders.py` (class
folders, and rules for paths), `columns.py` (which column is what) and `labels.py` (class names, labels to indices);
`features.py` with `feature_files.py` loads features that were computed before in the place of images, `labelled.py` is
what both have in common; `noise.py` puts wrong labels in on purpose; `loading.py` turns the record into batches.
"""
