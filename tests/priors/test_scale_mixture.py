"""Any hyperprior on the positive numbers, and those that are refused."""

import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import transforms
from torch.testing import assert_close

from pyro_vbd.distributions import base_distribution
from pyro_vbd.priors import ScaleMixture
from pyro_vbd.priors.prior import POWERS

HYPERPRIORS = {
    "InverseGamma": lambda: dist.InverseGamma(3.0, 2.0),
    "HalfCauchy": lambda: dist.HalfCauchy(0.5),
    "HalfNormal": lambda: dist.HalfNormal(2.0),
    "Gamma": lambda: dist.Gamma(2.0, 3.0),
    "LogNormal": lambda: dist.LogNormal(-1.0, 0.5),
    "Weibull": lambda: dist.Weibull(2.0, 1.5),
    "Pareto": lambda: dist.Pareto(0.5, 3.0),
    "Beta": lambda: dist.Beta(2.0, 3.0),
    "Uniform": lambda: dist.Uniform(0.1, 3.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("on", POWERS)
@pytest.mark.parametrize("name", HYPERPRIORS)
def test_statements(name, on, dtype, device):
    hyperprior = HYPERPRIORS[name]()
    init = torch.randn(4, 3, dtype=dtype)
    trace = poutine.trace(ScaleMixture(hyperprior, on).sample).get_trace("net.weight", init)
    assert trace.stochastic_nodes == ["net.weight_gamma", "net.weight"]
    gamma, weight = (trace.nodes[site] for site in trace.stochastic_nodes)
    for site in (gamma, weight):
        assert site["value"].shape == site["fn"].event_shape == (4, 3)
        assert site["value"].dtype == site["fn"].log_prob(site["value"]).dtype == dtype
        assert site["value"].device.type == device.type
    assert weight["infer"]["init"] is init
    assert isinstance(base_distribution(gamma["fn"]), type(hyperprior))
    assert_close(base_distribution(weight["fn"]).scale, gamma["value"] ** POWERS[on])
    assert_close(gamma["fn"].log_prob(gamma["value"]).float(), hyperprior.log_prob(gamma["value"].float()).sum())
    assert len(gamma["value"].unique()) == 12


def test_the_users_hyperprior_is_left_as_it_was():
    hyperprior = dist.Gamma(2.0, 3.0)
    mixture = ScaleMixture(hyperprior)
    assert mixture.hyperprior(torch.zeros(1, dtype=torch.float64)).rate.dtype == torch.float64
    assert hyperprior.rate.dtype == torch.float32
    assert mixture.hyperprior(torch.zeros(1)).batch_shape == ()


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match=r"on='deviation'.*variance, scale, precision"):
        ScaleMixture(dist.Gamma(2.0, 3.0), on="deviation")


@pytest.mark.parametrize(
    "hyperprior",
    [
        lambda: dist.Gamma(torch.ones(3), 1.0),
        lambda: dist.Gamma(torch.ones(1), 1.0),
        lambda: dist.LogNormal(torch.zeros(3), 1.0).to_event(1),
        lambda: dist.Dirichlet(torch.ones(3)),
    ],
    ids=["batch", "batch of one", "event", "Dirichlet"],
)
def test_a_hyperprior_that_is_not_scalar_is_refused(hyperprior):
    with pytest.raises(ValueError, match="scalar parameters"):
        ScaleMixture(hyperprior())


@pytest.mark.parametrize(
    "hyperprior",
    [
        lambda: dist.Normal(5.0, 0.1),
        lambda: dist.StudentT(3.0),
        lambda: dist.Uniform(-1.0, 1.0),
        lambda: dist.TransformedDistribution(dist.LogNormal(0.0, 1.0), [transforms.AffineTransform(-1.0, 1.0)]),
        lambda: dist.Poisson(3.0),
        lambda: dist.Bernoulli(0.5),
    ],
    ids=["Normal", "StudentT", "Uniform", "shifted", "Poisson", "Bernoulli"],
)
def test_a_support_that_is_not_positive_is_refused(hyperprior):
    with pytest.raises(ValueError, match="distribution of positive numbers"):
        ScaleMixture(hyperprior())


def test_repr():
    assert repr(ScaleMixture(dist.HalfCauchy(1.0), on="scale")).startswith("ScaleMixture(hyperprior=HalfCauchy(")
    assert repr(ScaleMixture(dist.HalfCauchy(1.0), on="scale")).endswith("on='scale')")
