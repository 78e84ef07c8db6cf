"""Factor's sums and spreads against naive loops, for every way in which weights may share a latent."""

import pytest
import torch
from torch.testing import assert_close

from pyro_vbd.posterior.scale_factors import Factor, Weight
from pyro_vbd.priors import Slab
from pyro_vbd.priors.prior import POWERS

LABELS = [2, 0, 1, 1, 2]

#: Which of the ``size`` elements of g stands behind each element of a weight, and whether g is in the weight's own order.
INDICES = {
    "one for each weight": (lambda: torch.arange(12).view(4, 3), 12, True),
    "one for each row": (lambda: torch.arange(4)[:, None].expand(4, 3), 4, True),
    "one for each column": (lambda: torch.arange(3).expand(4, 3), 3, True),
    "one for all": (lambda: torch.zeros(4, 3, dtype=torch.long), 1, True),
    "one for each filter": (lambda: torch.arange(4)[:, None, None, None].expand(4, 3, 2, 2), 4, True),
    "one for each input and place": (lambda: torch.arange(12).view(1, 3, 2, 2).expand(4, 3, 2, 2), 12, True),
    "scalar weight": (lambda: torch.zeros((), dtype=torch.long), 1, True),
    "g[labels]": (lambda: torch.tensor(LABELS)[:, None].expand(5, 3), 3, False),
    "g[labels], one without weights": (lambda: torch.tensor(LABELS)[:, None].expand(5, 3), 4, False),
    "transposed": (lambda: torch.arange(12).view(3, 4).T, 12, False),
    "reversed": (lambda: torch.arange(12).flip(0).view(4, 3), 12, False),
    "an element of a larger g": (lambda: torch.full((4, 3), 5), 7, False),
    "a part of a larger g": (lambda: torch.arange(12).view(4, 3), 20, False),
}
EVERY_INDEX = pytest.mark.parametrize("name", INDICES)


def factor(name, on="variance", site="g"):
    index, size, _ = INDICES[name]
    return Factor(site, POWERS[on], index(), size), index(), size


@EVERY_INDEX
def test_total_against_a_loop(name):
    part, index, size = factor(name)
    values = torch.randn(index.shape)
    expected = [0.0] * size
    for g, value in zip(index.flatten().tolist(), values.flatten().tolist(), strict=True):
        expected[g] += value
    assert part.total(values).shape == (size,)
    assert_close(part.total(values), torch.tensor(expected), rtol=1e-5, atol=1e-5)


@EVERY_INDEX
@pytest.mark.parametrize("on", POWERS)
@pytest.mark.parametrize("shape", ["flat", "a matrix"])
def test_spread_against_a_loop(name, on, shape):
    part, index, size = factor(name, on)
    gamma = torch.rand(size) + 0.1
    expected = [gamma.tolist()[g] ** POWERS[on] for g in index.flatten().tolist()]
    found = part.spread(gamma if shape == "flat" else gamma.view(1, size)).broadcast_to(index.shape)
    assert_close(found.flatten(), torch.tensor(expected))
    assert part.on == on


@EVERY_INDEX
def test_what_is_in_the_weights_order_needs_no_index(name):
    part, _, _ = factor(name)
    assert (part.index is None) == INDICES[name][2]
    assert part.state_dict() == {}


def test_spread_carries_gradients():
    part, index, size = factor("g[labels]")
    gamma = torch.ones(size, requires_grad=True)
    part.spread(gamma).broadcast_to(index.shape).sum().backward()
    assert_close(gamma.grad, 0.5 * torch.bincount(index.flatten(), minlength=size).float())


def test_a_link_takes_gammas_place():
    link, gamma = Slab(2.0), torch.tensor([0.1, 1.0, 5.0])
    part = Factor("g", POWERS["scale"], torch.arange(3), 3, link)
    assert_close(part.spread(gamma), link(gamma))
    assert_close(part.variance(gamma), link(gamma).square())
    assert_close(part.of_variance(link(gamma).square()), gamma)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_total_keeps_the_dtype(dtype):
    for name in INDICES:
        part, index, _ = factor(name)
        assert part.total(torch.ones(index.shape, dtype=dtype)).dtype == dtype


# --- a weight ------------------------------------------------------------------------------------------------------------


def test_scale_is_the_product_of_constant_and_factors():
    row, _, _ = factor("one for each row", "scale", "r")
    column, _, _ = factor("one for each column", "precision", "c")
    constant = torch.rand(4, 3) + 0.5
    weight = Weight("w", constant, [row, column])
    gammas = {"r": torch.rand(4) + 0.1, "c": torch.rand(3) + 0.1}
    full = constant * gammas["r"][:, None] / gammas["c"].sqrt()
    assert_close(weight.scale_without(None, gammas), full)
    assert_close(weight.scale_without("r", gammas), full / gammas["r"][:, None])
    assert_close(weight.scale_without("c", gammas), full * gammas["c"].sqrt())
    assert weight.factor("c") is column
    assert weight.shape == (4, 3)


@pytest.mark.parametrize("rounding", [0.0, 1e-6])
def test_a_constant_of_one_is_left_out(rounding):
    row, _, _ = factor("one for each row", "scale", "r")
    weight = Weight("w", torch.ones(4, 3) + rounding, [row])
    assert weight.plain
    assert weight.scale_without("r", {}) is None
    assert_close(weight.scale_without(None, {"r": torch.arange(1.0, 5)}), torch.arange(1.0, 5)[:, None])


@pytest.mark.parametrize("constant", [0.1, 1.001])
def test_a_constant_that_is_the_same_for_all_is_held_once(constant):
    weight = Weight("w", torch.full((4, 3), constant), [])
    assert not weight.plain
    assert weight.constant.shape == ()
    assert weight.constant.untyped_storage().nbytes() == weight.constant.itemsize
    assert weight.shape == (4, 3)
    assert_close(weight.scale_without(None, {}), torch.tensor(constant))


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_a_constant_that_varies_is_kept_whole(size):
    constant = torch.full((4, 3), size)
    constant[2, 1] *= 1.01
    weight = Weight("w", constant, [])
    assert not weight.plain
    assert_close(weight.scale_without(None, {}), constant)
    assert weight.state_dict() == {}
