r"""OptimalScale against a brute-force argmin of J over every gamma, from the densities themselves.

J is E_q[-sum_i log N(w_i; 0, s_i^2)], a sum over all weights that a gamma acts on, on the hyperprior's support.
"""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from pyro_vbd.posterior.mean_field import AdditiveNormal, MultiplicativeNormal
from pyro_vbd.posterior.optimal_scale import DeltaAt, OptimalScale
from pyro_vbd.posterior.scale_factors import Factor, Weight
from pyro_vbd.priors.gaussian_uniform import clipped_second_moment
from pyro_vbd.priors.prior import POWERS

INDICES = {
    "one for each weight": (lambda: torch.arange(12).view(4, 3), (4, 3)),
    "one for each row": (lambda: torch.arange(4)[:, None].expand(4, 3), (4, 1)),
    "one for each column": (lambda: torch.arange(3).expand(4, 3), (3,)),
    "one for all": (lambda: torch.zeros(4, 3, dtype=torch.long), ()),
    "groups of several sizes": (lambda: torch.tensor([2, 0, 1, 1])[:, None].expand(4, 3), (3,)),
    "transposed": (lambda: torch.arange(12).view(3, 4).T, (3, 4)),
}
EVERY_INDEX = pytest.mark.parametrize("name", INDICES)


def at_optimum(site, prior, weights, optimum):
    scale = OptimalScale(site, prior, weights, DeltaAt(optimum))
    scale.register_forward_hook(lambda module, inputs, q: q.v)
    return scale


def uniform(low, high, shape):
    return dist.Uniform(torch.tensor(low), torch.tensor(high)).expand(torch.Size(shape)).to_event(len(shape))


def weight_and_q(site, index, size, constant=None, others=(), spread=1.0):
    weight = Weight(site, torch.ones(4, 3) if constant is None else constant, [Factor("g", 0.5, index, size), *others])
    return weight, AdditiveNormal(spread * torch.randn(4, 3), torch.randn(4, 3) - 1)


def brute_force(low, high, size, indices, posteriors, other_scales):
    """Ternary search on each log gamma, all at once: J is a sum over the groups."""

    def j(log_gamma):
        total = torch.zeros(size)
        for index, q, other in zip(indices, posteriors, other_scales, strict=True):
            scale = other * (0.5 * log_gamma).exp()[index]
            cross_entropy = scale.log() + (q.loc.square() + q.variance) / (2 * scale.square())
            total = total.index_add(0, index.flatten(), cross_entropy.flatten())
        return total

    left, right = torch.full((size,), math.log(low)), torch.full((size,), math.log(high))
    for _ in range(200):
        third = (right - left) / 3
        lower = j(left + third) < j(right - third)
        left, right = torch.where(lower, left, left + third), torch.where(lower, right - third, right)
    return ((left + right) / 2).exp()


CLOSE = {"rtol": 1e-6, "atol": 1e-9}  # an argmin by values alone is good to the root of the rounding error


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e3), (0.8, 1.3)], ids=["inside", "some clipped"])
@EVERY_INDEX
def test_groups(name, low, high):
    index, shape = INDICES[name][0](), INDICES[name][1]
    size = math.prod(shape)
    weight, q = weight_and_q("w", index, size)
    scale = at_optimum("g", uniform(low, high, shape), [weight], clipped_second_moment)
    gamma = scale({"w": q}, {})
    assert gamma.shape == shape
    expected = brute_force(low, high, size, [index], [q], [torch.ones(4, 3)])
    assert_close(gamma.flatten(), expected, **CLOSE)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("constant", [0.3, "of each"])
@EVERY_INDEX
def test_constants(name, constant):
    index, shape = INDICES[name][0](), INDICES[name][1]
    constant = torch.rand(4, 3) + 0.2 if constant == "of each" else torch.full((4, 3), constant)
    weight, q = weight_and_q("w", index, math.prod(shape), constant)
    gamma = at_optimum("g", uniform(1e-6, 1e6, shape), [weight], clipped_second_moment)({"w": q}, {})
    assert_close(gamma.flatten(), brute_force(1e-6, 1e6, math.prod(shape), [index], [q], [constant]), **CLOSE)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("on", POWERS)
@EVERY_INDEX
def test_other_factors(name, on):
    index, shape = INDICES[name][0](), INDICES[name][1]
    tau, rows = torch.rand(()) + 0.5, torch.rand(4) + 0.5
    others = [
        Factor("tau", POWERS[on], torch.zeros(4, 3, dtype=torch.long), 1),
        Factor("rows", 1.0, torch.arange(4)[:, None].expand(4, 3), 4),
    ]
    weight, q = weight_and_q("w", index, math.prod(shape), torch.full((4, 3), 0.7), others)
    scale = at_optimum("g", uniform(1e-6, 1e6, shape), [weight], clipped_second_moment)
    other = 0.7 * tau ** POWERS[on] * rows[:, None].expand(4, 3)
    gamma = scale({"w": q}, {"tau": tau, "rows": rows})
    assert_close(gamma.flatten(), brute_force(1e-6, 1e6, math.prod(shape), [index], [q], [other]), **CLOSE)


@pytest.mark.usefixtures("float64")
def test_one_gamma_behind_several_weights():
    rows, columns = torch.arange(4)[:, None].expand(4, 3), torch.arange(3).expand(4, 3)
    constant = torch.rand(4, 3) + 0.3
    (first, q), (second, r) = weight_and_q("a", rows, 4), weight_and_q("b", columns, 4, constant, spread=3.0)
    scale = at_optimum("g", uniform(1e-6, 1e3, (4,)), [first, second], clipped_second_moment)
    expected = brute_force(1e-6, 1e3, 4, [rows, columns], [q, r], [torch.ones(4, 3), constant])
    assert_close(scale({"b": r, "a": q}, {}), expected, **CLOSE)


@pytest.mark.usefixtures("float64")
def test_bounds_of_each_group():
    rows = torch.arange(4)[:, None].expand(4, 3)
    weight, q = weight_and_q("w", rows, 4)
    high = torch.tensor([1e3, 1e-3, 0.5, 1e3])
    gamma = at_optimum("g", dist.Uniform(torch.zeros(4), high).to_event(1), [weight], clipped_second_moment)({"w": q}, {})
    mean_square = q.second_moment.mean(1)
    assert_close(gamma, torch.minimum(mean_square, high))


def test_a_group_without_weights_is_finite():
    weight, q = weight_and_q("w", torch.arange(4)[:, None].expand(4, 3), 5)
    prior = uniform(0.5, 2.0, (5,))
    gamma = at_optimum("g", prior, [weight], clipped_second_moment)({"w": q}, {})
    assert gamma.isfinite().all()
    assert prior.log_prob(gamma).isfinite()


def test_dead_weights_leave_a_positive_gamma():
    weight, _ = weight_and_q("w", torch.arange(12).view(4, 3), 12)
    scale = at_optimum("g", uniform(0.0, 1e3, (4, 3)), [weight], clipped_second_moment)
    q = MultiplicativeNormal(torch.zeros(4, 3), torch.zeros(()))
    assert (scale({"w": q}, {}) > 0).all()


def test_gamma_carries_no_gradient():
    tau = Factor("tau", 0.5, torch.zeros(4, 3, dtype=torch.long), 1)
    weight, _ = weight_and_q("w", torch.arange(12).view(4, 3), 12, others=[tau])
    q = AdditiveNormal(torch.randn(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True))
    scale = at_optimum("g", uniform(0.0, 1e3, (4, 3)), [weight], clipped_second_moment)
    gamma = scale({"w": q}, {"tau": torch.ones((), requires_grad=True)})
    assert not gamma.requires_grad


@EVERY_INDEX
def test_a_registered_optimum_gets_one_hyperprior_and_the_size_of_its_group(name):
    index, shape = INDICES[name][0](), INDICES[name][1]
    size = math.prod(shape)
    weight, q = weight_and_q("w", index, size)
    prior = dist.InverseGamma(torch.tensor(2.0), torch.tensor(3.0)).expand(torch.Size(shape)).to_event(len(shape))
    seen = []

    def record(hyperprior, sum_of_squares, count):
        seen.append((hyperprior, sum_of_squares, count))
        return sum_of_squares

    assert at_optimum("g", prior, [weight], record)({"w": q}, {}).shape == shape
    (hyperprior, sum_of_squares, count) = seen[0]
    assert isinstance(hyperprior, dist.InverseGamma)
    assert hyperprior.concentration.shape == ()
    counts = torch.bincount(index.flatten(), minlength=size).to(sum_of_squares)
    assert_close(torch.as_tensor(count, device=counts.device).expand(shape).flatten(), counts)
    assert isinstance(count, float) == (len(counts.unique()) == 1)  # a number where it can be: one division less
    assert_close(sum_of_squares.sum(), q.second_moment.sum())


@pytest.mark.parametrize("name", ["one for each weight", "groups of several sizes"])
def test_a_guide_that_moves_to_double_precision_and_back(name):
    index, shape = INDICES[name][0](), INDICES[name][1]
    weight, _ = weight_and_q("w", index, math.prod(shape))

    def optimum(hyperprior, total, count):
        assert isinstance(count, float) or count.dtype == hyperprior.low.dtype
        return clipped_second_moment(hyperprior, total, count)

    scale = at_optimum("g", uniform(0.0, 1e3, shape), [weight], optimum)
    for dtype in (torch.float64, torch.float32):
        dead = AdditiveNormal(torch.zeros(4, 3, dtype=dtype), torch.full((4, 3), -2000.0, dtype=dtype))
        gamma = scale.to(dtype)({"w": dead}, {})
        assert gamma.dtype == dtype
        assert (gamma > 0).all()


def test_a_delta_has_no_density_of_its_own():
    weight, q = weight_and_q("w", torch.arange(12).view(4, 3), 12)
    found = OptimalScale("g", uniform(0.0, 1e3, (4, 3)), [weight], DeltaAt(clipped_second_moment))({"w": q}, {})
    assert torch.equal(found.log_prob(found.v), torch.zeros(4, 3))
