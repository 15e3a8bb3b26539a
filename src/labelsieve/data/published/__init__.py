"""Readers of published data sets in the layout in which their authors give them out."""
