"""From undecoded images to inputs of a model: 8-bit RGB, ranges, cache of decoded images, batches, windows."""
