"""The verbs of the command line: one dataclass each. Its fields are the options, its docstring is the help.

None of these modules imports torch at the top, so that help appears immediately.
"""
