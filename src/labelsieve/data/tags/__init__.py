"""Loads images with any number of labels each, called tags here."""
