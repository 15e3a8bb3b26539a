"""Experiments: measures and stores the cells of the tables that a TOML file defines."""
