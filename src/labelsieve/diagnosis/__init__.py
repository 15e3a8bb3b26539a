"""Statistics of finished verdicts, and what they say about data, model and settings."""
