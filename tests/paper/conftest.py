"""Lets tests import the helper modules here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
