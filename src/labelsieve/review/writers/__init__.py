"""Writers of corrected labels, one per kind of source: the output has the format of the input."""
