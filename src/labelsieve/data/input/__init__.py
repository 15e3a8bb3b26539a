"""Converts undecoded images to inputs of a model: 8-bit RGB, value ranges, a cache of decoded images, and batches."""
