"""Lets tests import the helper modules in ``tests/helpers``: with importlib mode a test folder is not on the path."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent / "helpers"))

# The tensors are tiny: a second thread costs more than it brings, and much more where other programs run.
torch.set_num_threads(1)
