"""Parameter-efficient modules for the frozen vision tower, one file a kind; `base.py` holds the table."""
