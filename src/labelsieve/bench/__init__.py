"""Experiments: a TOML file in, every cell of its tables measured, kept and never measured again."""
