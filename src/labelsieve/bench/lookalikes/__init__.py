"""Tiny look-alikes of the data that experiments name: drawings in the same layout, to try the readers on."""
