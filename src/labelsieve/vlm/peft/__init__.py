"""Parameter-efficient modules for the frozen image encoder, one file a kind; `registry.py` lists them."""
