"""What a person reads after a scan: the report in the browser, the summary in the terminal, and exports to other tools.

Everything here only reads verdicts: nothing scores, decides or trains.
"""
