"""Imported by the process that forks, after all else: makes what is the same in each that it forks."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
__import__("once").make_all()
