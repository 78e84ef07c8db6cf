"""Sums, products and concatenations: what goes, what holds what."""

import operator

import pytest
import torch
from torch import nn

from pyro_vbd.compression import cut


class Joined(nn.Module):
    def __init__(self, join, width=5):
        super().__init__()
        self.a, self.b, self.out, self.join = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(width, 3), join
        self.scale = nn.Parameter(torch.randn(5))

    def forward(self, x):
        return self.out(self.join(self.a(x), self.b(x)))


@torch.no_grad()
def outcome(join, width=5, dead_a=(1, 2), dead_b=(2, 3)):
    net, x = Joined(join, width).eval(), torch.randn(3, 4)
    net.a.weight[list(dead_a)] = 0.0
    net.b.weight[list(dead_b)] = 0.0
    found = cut(net, x)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)
    return found.units["a"][1], found.units["b"][1]


@pytest.mark.parametrize(
    "join",
    [
        operator.add, operator.sub, torch.add, lambda a, b: a.add(b), operator.mul, lambda a, b: a.tanh() + 1.0 + b.relu(),
        lambda a, b: a * b.expand_as(a),
    ],
)  # fmt: skip
def test_only_what_is_constant_on_both_sides_goes(join):
    assert outcome(join) == (4, 4)


def test_of_what_is_expanded_like_another_its_own_constants_count():
    assert outcome(lambda a, b: a.expand_as(b)) == (3, 3)
    assert outcome(lambda a, b: a.mean(1, keepdim=True).expand_as(b)) == (5, 5)


def test_a_sum_of_multiples_is_no_sum():
    assert outcome(lambda a, b: torch.add(a, b, alpha=2)) == (5, 5)


def test_a_factor_of_zero_takes_the_product():
    def join(a, b):
        return a.relu() * b

    net, x = Joined(join), torch.randn(3, 4)
    with torch.no_grad():
        net.a.weight[1] = 0.0
        net.a.bias[1] = -1.0  # and the ReLU makes 0 of it
        found = cut(net, x)
        torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)
    assert found.units["b"] == (5, 4)


def test_concatenated_units_go_one_by_one():
    assert outcome(lambda a, b: torch.cat([a, b], 1), 10) == (3, 3)
    assert outcome(lambda a, b: torch.cat((a, b.softmax(-1)), dim=-1), 10) == (3, 5)


def test_concatenation_is_read_by_the_names_of_its_arguments_too():
    assert outcome(lambda a, b: torch.cat((a, b), axis=1), 10) == (3, 3)
    assert outcome(lambda a, b: torch.cat(tensors=(a, b), dim=1), 10) == (3, 3)


def test_concatenated_places_hold_each_other():
    def join(a, b):
        return torch.cat([a[:, None], b[:, None]], 1).mean(1)

    assert outcome(join) == (5, 5)  # a constant on one side alone, or of another value
    assert outcome(lambda a, b: torch.cat([a[:, None] * 0.0, b[:, None] * 0.0], 1).sum(1) + a, 5) == (5, 5)


def test_a_sum_with_a_tensor_that_nothing_can_be_taken_from_holds_all():
    class Scaled(Joined):
        def forward(self, x):
            return self.out(self.a(x) + self.b(x) + self.scale)

    net, x = Scaled(None), torch.randn(3, 4)
    with torch.no_grad():
        net.a.weight[1] = net.b.weight[1] = 0.0
        found = cut(net, x)
        torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)
    assert found.units["a"] == (5, 5)
    assert "add" in found.stayed["a"]
