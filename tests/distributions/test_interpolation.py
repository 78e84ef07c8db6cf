import math

import pytest
import torch
from torch.testing import assert_close

from pyro_vbd.distributions.interpolation import interpolated


def test_polynomials_of_degree_five_are_followed():
    nodes = torch.linspace(-2.0, 3.0, 9, dtype=torch.float64)
    x = torch.linspace(-2.0, 3.0, 101, dtype=torch.float64).reshape(1, 101)

    def one(x):
        return 2 * x**5 - x**4 + 3 * x**2 - 7

    def other(x):
        return x**3 - x

    found = interpolated(x, nodes, one(nodes), other(nodes))
    assert_close(found, [one(x), other(x)], rtol=1e-11, atol=1e-11)
    assert float((interpolated(x, nodes, nodes**6)[0] - x**6).abs().max()) > 0.01


@pytest.mark.parametrize("count", [200, 400])
def test_the_error_is_within_its_bound(count):
    nodes = torch.linspace(0.0, 20.0, count, dtype=torch.float64)
    inner = torch.rand(2000, dtype=torch.float64) * 19.0 + 0.5
    (found,) = interpolated(inner, nodes, nodes.sin())
    bound = 0.005 * (20.0 / (count - 1)) ** 6
    error = float((found - inner.sin()).abs().max())
    assert 0.5 * bound < error < 1.05 * bound + 1e-14


def test_the_ends_are_nodes():
    nodes = torch.linspace(math.log(1e-9), math.log(7.0), 10, dtype=torch.float64)
    assert_close(interpolated(nodes, nodes, nodes.cos())[0], nodes.cos(), rtol=0, atol=1e-13)


def test_nodes_at_one_place():
    nodes = torch.full((10,), 0.3, dtype=torch.float64)
    (found,) = interpolated(nodes[:4], nodes, torch.full_like(nodes, 2.5))
    assert found.tolist() == [2.5] * 4
