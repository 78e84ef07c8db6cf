"""The floor of densities that are unbounded at 0, and the optimum above it."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.distributions.truncated import Truncated
from pyro_vbd.priors import BetaPrime, Learned, NormalGamma, find_optimum
from pyro_vbd.priors.floor import check_floor, truncated_variance
from pyro_vbd.priors.normal_gamma import gamma_variance


def test_the_floor_is_returned():
    assert check_floor("F", "k", 0.5, 1e-6) == 1e-6
    assert check_floor("F", "k", 1.0, None) is None
    assert check_floor("F", "k", 1, None) is None
    assert check_floor("F", "k", Learned(3.0), 1e-6) == 1e-6


@pytest.mark.parametrize("power", [0.99, Learned(3.0), dist.Gamma(1.0, 1.0)], ids=str)
def test_a_density_that_may_be_unbounded_needs_one(power):
    with pytest.raises(ValueError, match=r"F\(k=.*without a floor.*unbounded at 0.*use k >= 1"):
        check_floor("F", "k", power, None)


@pytest.mark.parametrize("floor", [0.0, -1.0, math.nan, math.inf, True, "1e-6"])
def test_a_floor_that_is_no_variance_is_refused(floor):
    with pytest.raises(ValueError, match=rf"F\(floor='?{floor}"):
        check_floor("F", "k", 0.5, floor)


def test_the_loss_falls_without_a_bound_where_there_is_no_floor_and_not_where_there_is(float64):
    """The reason that the error gives: J at its minimum as S goes to 0, with k = 0.5 by hand, and through the library."""
    total = 10 ** -torch.linspace(2, 30, 8)
    base = dist.Gamma(torch.tensor(0.5), torch.tensor(0.5))

    def j(gamma, density):  # minus the log variance that follows the weight down
        return 0.5 * gamma.log() + 0.5 * total / gamma - density.log_prob(gamma) - 0.5 * total.log()

    free = j(gamma_variance(base, total, 1.0), base)
    assert (free.diff() < -1.0).all()
    above = Truncated(base, torch.tensor(1e-8))
    assert (j(truncated_variance(above, total, 1.0), above)[total < 1e-9].diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_optimum_is_the_bases_or_the_floor(dtype):
    base = dist.Gamma(torch.tensor(0.5, dtype=dtype), torch.tensor(2.0, dtype=dtype))
    total = torch.tensor([0.0, 1e-9, 1e-3, 1.0, 100.0], dtype=dtype)
    found = truncated_variance(Truncated(base, torch.tensor(1e-4, dtype=dtype)), total, 1.0)
    assert found.dtype == dtype
    assert_close(found, gamma_variance(base, total, 1.0).clamp_min(1e-4))
    assert (found[:2] == torch.tensor(1e-4, dtype=dtype)).all()


def test_a_base_without_an_optimum_is_named():
    assert find_optimum(Truncated, "variance") is truncated_variance
    with pytest.raises(NotImplementedError, match="no optimum is registered for Weibull on the variance"):
        truncated_variance(Truncated(dist.Weibull(torch.tensor(1.0), 1.0), torch.tensor(0.1)), torch.ones(2), 1.0)


@pytest.mark.parametrize("prior", [NormalGamma(0.3, 0.5, floor=1e-6), BetaPrime(0.3, 0.5, floor=1e-6)], ids=str)
def test_the_kl_of_shrinking_weights_has_a_lowest_point(prior):
    """All weights and their deviations together, down to where single precision ends."""
    init = torch.ones(2, 3)

    def model():
        return prior.sample("w", init).sum()

    guide = vbd.VBDGuide(model)
    guide()
    q, kls = guide.posteriors["q/w"], []
    for size in 10.0 ** -torch.arange(18):
        q.loc.data.copy_(size * init)
        q.log_var.data.fill_(2 * math.log(0.1 * size))
        kls.append(vbd.VBD_ELBO().terms(model, guide).kl.item())
    assert np.isfinite(kls).all()
    assert 0 < np.argmin(kls) < 6
    assert (np.diff(kls[6:]) > 0).all()
