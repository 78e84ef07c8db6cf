"""Which gates pass into the next layer's weights."""

import pytest
import torch
from torch import nn

from pyro_vbd.compression import cut
from pyro_vbd.noise import Gate
from tests.compression.networks import Concatenated, Residual


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
