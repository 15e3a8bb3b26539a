"""Tiny look-alikes of the data that experiments name: sketches in the same layout, to try the readers on."""
