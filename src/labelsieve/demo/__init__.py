"""The built-in demonstration: synthetic sketches and a small CLIP model that was trained on such sketches."""

from pathlib import Path

MINI_CLIP: Path = Path(__file__).parent / "mini_clip"
"""Folder of the bundled model; ``transformers`` loads it like any other checkpoint."""

__all__ = ["MINI_CLIP"]
