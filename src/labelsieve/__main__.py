"""Lets `python -m labelsieve` and `accelerate launch -m labelsieve` run the command line."""

import sys

from labelsieve.cli import main

sys.exit(main())
