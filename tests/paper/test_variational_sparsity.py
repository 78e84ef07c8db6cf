"""Where Table 4's variational rows begin."""

import math

import torch
from torch import nn

from examples.paper.variational_sparsity import initialise


def test_linear_weights_have_one_deviation_and_filters_are_glorots():
    net = nn.Sequential(nn.Conv2d(8, 40, 5), nn.Flatten(), nn.Linear(200, 100))
    bias = net[2].bias.detach().clone()
    initialise(net, 0.02)
    weight = net[2].weight.detach()
    assert abs(weight.mean()) < 4 * 0.02 / math.sqrt(20_000)
    assert abs(weight.std() / 0.02 - 1) < 4 / math.sqrt(40_000)
    assert torch.equal(net[2].bias, bias)
    reach = math.sqrt(6 / (25 * (8 + 40)))
    size = net[0].weight.detach().abs()
    assert 0.99 * reach < size.max() <= reach
    assert abs(size.mean() - reach / 2) < 4 * reach / math.sqrt(12 * 8000)
