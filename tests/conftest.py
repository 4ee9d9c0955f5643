"""Lets tests import the helper modules in ``tests/helpers``: with importlib mode a test folder is not on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "helpers"))
