"""What a person reads after a scan: the report in the browser, the summary in the terminal, and exports to other tools.

Everything here only reads verdicts: nothing scores, decides or trains.
"""

MAX_IMAGES = 5_000
"""How many images the report shows where nobody asks for more."""
MOST_IMAGES = 20_000
"""How many it shows at most."""
