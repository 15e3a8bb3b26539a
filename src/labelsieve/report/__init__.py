"""Output for people and other tools: the report in the browser, the summary in the terminal, and exports.

This package only reads verdicts: it does not score, decide or train.
"""

from typing import Annotated

from labelsieve.core.validation import Range

MAX_IMAGES = 5_000
"""Default number of images in the report."""
MAX_IMAGES_LIMIT = 20_000
"""Maximum number of images in the report."""
ImageCount = Annotated[int, Range(1, MAX_IMAGES_LIMIT)]
ThumbnailPixels = Annotated[int, Range(32, 512)]
