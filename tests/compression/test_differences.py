import math
from dataclasses import dataclass

import pytest
import torch

from pyro_vbd.compression.differences import difference, tensors

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("expected", "found", "most"),
    [
        ([1.0, -4.0], [1.5, -4.0], 0.5),
        ([1.0, INF, -INF, NAN, -4.0], [1.0, INF, -INF, NAN, -4.0], 0.0),
        ([INF, -4.0], [-INF, -4.0], INF),
        ([NAN, -4.0], [0.0, -4.0], INF),
        ([0.0, -4.0], [NAN, -4.0], INF),
        ([0.0, -4.0], [INF, -4.0], INF),
    ],
)
def test_what_is_finite_is_compared_and_all_else_has_to_be_the_same(expected, found, most):
    assert difference(torch.tensor(expected), torch.tensor(found)) == (most, 4.0)


def test_whole_numbers_truth_values_shapes_and_nothing():
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 5])) == (3.0, 0.0)
    assert difference(torch.tensor([True]), torch.tensor([False])) == (1.0, 0.0)
    assert difference(torch.tensor(3), torch.tensor(3)) == (0.0, 0.0)
    assert difference(torch.zeros(2, 1), torch.zeros(2))[0] == INF
    assert difference(torch.zeros(0), torch.zeros(0)) == (0.0, 0.0)


@dataclass
class Pair:
    first: torch.Tensor
    second: torch.Tensor
    name: str = ""


def test_tensors_in_the_fields_of_a_dataclass_are_found():
    a, b, c, d = torch.arange(4.0)
    assert list(tensors((a, {"x": Pair(b, [c, 2.0], "pair")}, None, [d], Pair))) == [a, b, c, d]
