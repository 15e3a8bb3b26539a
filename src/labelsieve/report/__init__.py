"""What a person reads after a scan: the report in the browser, the summary in the terminal, and exports to other tools.

Everything here only reads verdicts: nothing scores, decides or trains.
"""

from typing import Annotated

from labelsieve.core.validation import Range

MAX_IMAGES = 5_000
"""How many images the report shows where nobody asks for more."""
MOST_IMAGES = 20_000
"""How many it shows at most."""
Images = Annotated[int, Range(0, MOST_IMAGES)]
ThumbnailPixels = Annotated[int, Range(32, 512)]
