import pytest
import torch
from torch import nn

import pyro_vbd as vbd


def test_the_sum_over_a_network():
    net = nn.Sequential(
        vbd.noise.ConcreteDropout(nn.Linear(4, 3)), nn.ReLU(), nn.Sequential(vbd.noise.LogNormalGate(3)), nn.Linear(3, 2)
    )
    torch.testing.assert_close(vbd.noise.penalty(net), net[0].penalty() + net[2][0].penalty())
    assert vbd.noise.penalty(net).shape == ()


def test_nothing_to_hold():
    with pytest.raises(ValueError, match="no noise that is learned"):
        vbd.noise.penalty(nn.Linear(2, 2))
