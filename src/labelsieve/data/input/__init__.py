"""From undecoded images to what a model sees: 8-bit RGB, ranges, decoded images on disk, batches, windows."""
