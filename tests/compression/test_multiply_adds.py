import torch
from torch import nn

from pyro_vbd.compression.multiply_adds import multiply_adds
from tests.compression.networks import Block


def test_multiply_adds_of_attention():
    block = Block(8, 2, gated=False)
    counts = multiply_adds(block, torch.randn(3, 5, 8))
    assert counts["up"] == 5 * 8 * 24
    assert sum(counts.values()) == 5 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 24) + 2 * 5 * 5 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_counting_leaves_modes_statistics_and_settings():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert multiply_adds(net, torch.randn(5, 4))["0"] == 12
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert net[1].training
    assert int(net[1].num_batches_tracked) == 0
