"""Statistics of verdicts, and checks of data, model and settings."""
