"""Parameter-efficient modules for the frozen image encoder, one file a kind; `base.py` holds the table."""
