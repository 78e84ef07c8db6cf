"""Which gates pass into the next layer's weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_vbd.compression import cut
from pyro_vbd.noise import Gate
from tests.compression.networks import Concatenated, Residual, Tied


@torch.no_grad()
def is_absorbed(*behind, values=(0.5, 2.0, 0.0, 1.5), x=None):
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Softplus(), Gate(4), *behind).eval()
    net[2].weight.copy_(torch.tensor(values))
    x = torch.randn(2, 2, 6, 6) if x is None else x
    found = cut(net, x)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(net[2].weight, torch.tensor(values))
    return isinstance(found.network[2], nn.Identity)


NEGATIVE = (0.5, -2.0, 0.0, 1.5)


def test_into_layers():
    assert is_absorbed(nn.Conv2d(4, 3, 3, padding=1), values=NEGATIVE)
    assert is_absorbed(nn.Flatten(), nn.Linear(144, 3), values=NEGATIVE)
    assert is_absorbed(nn.AvgPool2d(2), nn.Dropout(), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 2, 1), values=NEGATIVE)


def test_through_a_maximum_only_without_a_negative_factor():
    assert is_absorbed(nn.MaxPool2d(2), nn.Conv2d(4, 3, 1))
    assert not is_absorbed(nn.MaxPool2d(2), nn.Conv2d(4, 3, 1), values=NEGATIVE)
    assert is_absorbed(nn.ReLU(), nn.Conv2d(4, 3, 1))
    assert not is_absorbed(nn.ReLU(), nn.Conv2d(4, 3, 1), values=NEGATIVE)


@torch.no_grad()
def test_of_places_not_through_pooling():
    """A gate on what the pooling puts together."""
    net = nn.Sequential(nn.Linear(6, 8), Gate(8, dim=-1), nn.AvgPool1d(2), nn.Linear(4, 3)).eval()
    net[1].weight.copy_(torch.rand(8) + 0.5)
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(cut(net, x).network(x), net(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_of_tokens_not_into_a_layer_of_features():
    net = nn.Sequential(nn.Linear(6, 4), nn.Softplus(), Gate(4), nn.Linear(4, 3)).eval()
    net[2].weight.copy_(torch.rand(4) + 0.5)
    x = torch.randn(2, 4, 6)  # as many tokens as features
    found = cut(net, x)
    assert isinstance(found.network[2], Gate)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)


def test_into_all_readers_or_none():
    two = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 2, 1)
    assert is_absorbed(Concatenated(*two))
    assert not is_absorbed(Residual(nn.Conv2d(4, 4, 1), nn.Identity()), nn.Conv2d(4, 2, 1))
    shared = nn.Conv2d(4, 3, 1)
    assert not is_absorbed(Concatenated(shared, shared))


@pytest.mark.parametrize("middle", [nn.BatchNorm2d(4), nn.Tanh()])
def test_not_through_what_does_not_commute(middle):
    assert not is_absorbed(middle, nn.Conv2d(4, 3, 1))


@torch.no_grad()
def stays(net, x, **kwargs):
    """Whether the only gate of a network passes into no layer; the function has to stay whatever it does."""
    gate = next(module for module in net.modules() if isinstance(module, Gate))
    gate.weight.copy_(torch.rand(len(gate.weight)) + 0.5)
    small = cut(net.eval(), x, **kwargs).network
    torch.testing.assert_close(small(x), net(x), rtol=1e-5, atol=1e-5)
    return any(isinstance(module, Gate) for module in small.modules())


class Language(Tied):
    """Words in front, a gate, and logits by the words' own weight."""

    def __init__(self, head):
        super().__init__(7, 5, tied=True)
        self.gate, self.head = Gate(5, -1), head

    def forward(self, x):
        return self.head(self, self.gate(self.middle(self.words(x)).relu()))


def test_not_into_a_weight_that_is_read_elsewhere():
    x = torch.tensor([[0, 1, 6], [2, 2, 5]])
    assert stays(Language(lambda net, h: net.out(h)), x)
    assert stays(Language(lambda net, h: net.out(h) + F.linear(h, net.out.weight)), x)
    untied = Language(lambda net, h: net.out(h) + F.linear(h, net.out.weight))
    untied.out.weight = nn.Parameter(torch.randn(7, 5))
    assert stays(untied, x)


def test_not_into_a_module_that_is_kept():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), Gate(6), nn.Linear(6, 4))
    x = torch.randn(2, 5)
    assert not stays(net, x)
    assert stays(net, x, keep=["3"])
    small = cut(net, x, keep=["3"]).network
    assert torch.equal(small[3].weight, net[3].weight)
    assert stays(net, x, keep=["2"])


class Cosine(nn.Linear):
    def forward(self, x):
        return F.linear(x, F.normalize(self.weight, dim=1), self.bias)


@pytest.mark.parametrize("head", [Cosine(6, 4), nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))])
def test_not_into_a_weight_that_is_computed(head):
    assert stays(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), Gate(6), head), torch.randn(2, 5), keep=["3"])


def test_not_into_a_layer_of_a_kind_of_its_own():
    """Its code is its own: it is looked into, and the gate stays in front of what it calls."""
    assert stays(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), Gate(6), Cosine(6, 4)), torch.randn(2, 5))
