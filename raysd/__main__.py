"""`python -m raysd`: the command line, of the raysd that this Python finds first."""

import sys

from raysd.cli import main

sys.argv[0] = "raysd"
main()
