"""Tiny look-alikes of the data of experiments: sketches in the same layout, to test the readers."""
