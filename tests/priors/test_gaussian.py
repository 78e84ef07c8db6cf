"""The Gaussian of fixed scale."""

import math

import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_vbd.distributions import CentredNormal, base_distribution
from pyro_vbd.posterior.mean_field import AdditiveNormal
from pyro_vbd.priors import Gaussian


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 3), (5,), ()], ids=str)
def test_statement(shape, dtype, device):
    init = torch.randn(shape, dtype=dtype)
    trace = poutine.trace(Gaussian(0.5).sample).get_trace("net.weight", init)
    assert trace.stochastic_nodes == ["net.weight"]
    site = trace.nodes["net.weight"]
    assert site["fn"].event_shape == site["value"].shape == shape
    assert site["infer"]["init"] is init
    prior = base_distribution(site["fn"])
    assert isinstance(prior, CentredNormal)
    assert_close(prior.scale, init.new_full(shape, 0.5))
    assert site["value"].dtype == dtype
    assert site["value"].device.type == device.type


def test_the_scale_is_a_standard_deviation():
    draws = Gaussian(3.0).sample("w", torch.zeros(20_000))
    assert abs(draws.mean() / 3 * 20_000**0.5) < 4
    assert abs((draws.var() / 9 - 1) * 10_000**0.5) < 4


@pytest.mark.usefixtures("float64")
def test_kl_is_the_one_of_the_docstring():
    loc, log_var, s = torch.randn(4, 3), torch.randn(4, 3), 0.7
    prior = poutine.trace(Gaussian(s).sample).get_trace("w", loc).nodes["w"]["fn"]
    expected = 0.5 * (math.log(s**2) - log_var + (loc**2 + log_var.exp()) / s**2 - 1)
    assert_close(kl_divergence(AdditiveNormal(loc, log_var).to_event(2), prior), expected.sum(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_must_be_positive_and_finite(scale):
    with pytest.raises(ValueError, match=r"Gaussian\(scale=.*positive finite number"):
        Gaussian(scale)


def test_repr():
    assert repr(Gaussian()) == "Gaussian(scale=1)"
