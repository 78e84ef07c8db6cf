"""The case that priors are checked on: over three decades, the same in every dtype, and its J the definition's."""

import math

import torch
from torch.testing import assert_close

from pyro_vbd.priors import GaussianUniform, StudentT
from pyro_vbd.testing.case import Case, factor_of, largest_z


def test_the_same_case_in_every_dtype():
    cases = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        cases.append(Case(StudentT(3.0), dtype).q)
    assert_close(cases[0].loc.double(), cases[1].loc, rtol=1e-6, atol=0)
    assert_close(cases[0].log_var.double(), cases[1].log_var, rtol=1e-6, atol=0)
    assert cases[1].loc.abs().max() / cases[1].loc.abs().min() > 100


def test_the_loss_of_a_group_is_that_of_its_weights_and_its_gamma():
    case = Case(StudentT(3.0, per="output"))
    (scale,) = case.scales
    values = case.guide.median()
    gamma, q = values[scale.site], case.q.distribution()
    (own,) = (fn for name, fn in case.densities(values).items() if name == scale.site)
    variance = case.densities(values)["w"].scale.square().expand(5, 5)
    by_hand = (0.5 * (variance.log() + q.second_moment / variance)).sum(1) - own.log_prob(gamma).reshape(-1)
    assert_close(case.loss_by_group(scale, values), by_hand)
    assert_close(factor_of(scale).total(torch.ones(5, 5, dtype=torch.float64)), torch.full((5,), 5.0, dtype=torch.float64))


def test_a_gamma_outside_its_support_costs_infinitely():
    case = Case(GaussianUniform(high=100.0))
    (scale,) = case.scales
    values = case.guide.median()
    assert case.loss_by_group(scale, values).isfinite().all()
    assert case.loss_by_group(scale, {**values, scale.site: 100.0 + values[scale.site]}).eq(math.inf).all()


def test_the_largest_z():
    draws = torch.randn(10_000, 3, dtype=torch.float64)
    assert largest_z(draws, torch.zeros(3)) < 4
    error = draws.std(0)[1] / math.sqrt(10_000)
    moved = draws.mean(0)
    moved[1] += 7 * error
    assert_close(largest_z(draws, moved), 7.0, rtol=1e-6, atol=0)
