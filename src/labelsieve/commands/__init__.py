"""The verbs of the command line: one dataclass each, whose fields are its options and whose docstring is its help.

None of these modules imports torch at the top, so that help is there at once.
"""
