"""The parts of the programs in examples/ are imported as those programs import them."""

import sys
from pathlib import Path

import pytest

for package in ("arviz", "matplotlib", "sklearn", "torchmetrics"):
    pytest.importorskip(package)
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
