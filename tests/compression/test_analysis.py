import torch
from torch import nn

from pyro_vbd.compression import cut
from tests.compression.networks import Tied, assert_same_function


def test_shared_layers_are_left_whole():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.again(self.again(self.first(x).relu()).relu()).relu())

    net, x = Twice(), torch.randn(2, 4)
    with torch.no_grad():
        net.again.weight[2] = 0.0
        net.out.weight[:, 1] = 0.0
    small = cut(net, x).network
    assert small.again.weight.shape == (6, 6)
    assert_same_function(net, small, x)


def test_layers_that_share_a_weight_are_left_whole():
    net, x = Tied(7, 5), torch.tensor([[0, 1, 6]])
    with torch.no_grad():
        net.words.weight[:, 2] = 0.0
        net.middle.weight[1] = 0.0
    small = cut(net, x).network
    assert small.out.weight is small.words.weight
    assert small.words.weight.shape == (7, 5)
    assert_same_function(net, small, x)
