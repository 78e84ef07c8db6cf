import pytest
import torch
import torch.nn.functional as F
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


class Reading(nn.Module):
    """A network whose last map is made of a tensor that another module owns, by a call and not by a module."""

    def __init__(self, read):
        super().__init__()
        self.first, self.norm, self.middle, self.read = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), read

    def forward(self, x):
        return self.read(self, self.middle(self.norm(self.first(x)).relu()).relu())


@torch.no_grad()
@pytest.mark.parametrize(
    ("read", "owner"),
    [
        (lambda net, h: F.linear(h, net.first.weight.t()), "first"),
        (lambda net, h: h @ net.first.weight, "first"),
        (lambda net, h: h.to(net.middle.weight.dtype), "middle"),
        (lambda net, h: h + net.norm.running_mean, "norm"),
    ],
)
def test_a_module_whose_tensor_the_code_reads_is_left_whole(read, owner):
    net, x = Reading(read).eval(), torch.randn(2, 4)
    net.first.weight[1] = net.middle.weight[:, 2] = net.middle.weight[3] = 0.0
    small = cut(net, x).network
    assert [tensor.shape for tensor in getattr(small, owner).state_dict().values()] == [
        tensor.shape for tensor in getattr(net, owner).state_dict().values()
    ]
    assert_same_function(net, small, x)


@torch.no_grad()
def test_an_embedding_whose_weight_makes_the_logits_is_left_whole():
    class Language(Tied):
        def forward(self, x):
            return F.linear(self.middle(self.words(x)).relu(), self.words.weight)

    net, x = Language(7, 5), torch.tensor([[0, 1, 6]])
    net.words.weight[:, 2] = 0.0
    net.middle.weight[1] = 0.0
    small = cut(net, x).network
    assert small.words.weight.shape == (7, 5)
    assert_same_function(net, small, x)
