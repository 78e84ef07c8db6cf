"""The README's Python blocks run as they stand, and it is as short as it should be."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[-1][:30])
def test_block_runs(block, capsys):
    pytest.importorskip("sklearn")
    with torch.device("cpu"):
        exec(block, {})


def test_first_block_shows_sparsity_and_a_prediction(capsys):
    pytest.importorskip("sklearn")
    with torch.device("cpu"):
        exec(BLOCKS[0], {})
    share = float(re.match(r"([\d.]+)% of the weights", capsys.readouterr().out).group(1))
    assert 50 < share < 100


def test_is_short():
    assert len(README.splitlines()) <= 120
    assert len(BLOCKS[0].splitlines()) <= 25
