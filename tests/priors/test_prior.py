"""What every Gaussian scale mixture states in Pyro."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, AutoNormalMessenger
from torch import nn
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.distributions import CentredNormal
from pyro_vbd.priors.prior import POWERS, HierarchicalPrior, Prior


class Mixture(HierarchicalPrior):
    """gamma ~ Gamma(2, 3) as the variance, the scale or the precision."""

    def __init__(self, on):
        self.on = on

    def hyperprior(self, like):
        return dist.Gamma(like.new_full((), 2.0), like.new_full((), 3.0))


def test_a_prior_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Prior()
    with pytest.raises(TypeError, match="abstract"):
        HierarchicalPrior()


@pytest.mark.parametrize("attributes", [{}, {"on": "std"}])
def test_what_gamma_is_must_be_one_of_three(attributes):
    own = type("Own", (HierarchicalPrior,), {"hyperprior": Mixture.hyperprior, **attributes})
    with pytest.raises(ValueError, match=r"Own\(on=(None|'std')\) is unknown: use one of variance, scale, precision"):
        own()


@pytest.mark.parametrize("on", POWERS)
@pytest.mark.parametrize("shape", [(4, 3), (5,), (), (2, 1, 3, 3)], ids=str)
def test_statements(on, shape):
    init = torch.randn(shape, dtype=torch.float64)
    trace = poutine.trace(Mixture(on).sample).get_trace("net.weight", init)
    assert trace.stochastic_nodes == ["net.weight_gamma", "net.weight"]
    gamma, weight = (trace.nodes[name] for name in trace.stochastic_nodes)
    assert gamma["fn"].event_shape == weight["fn"].event_shape == gamma["value"].shape == weight["value"].shape == shape
    assert gamma["value"].dtype == weight["value"].dtype == torch.float64
    assert weight["infer"]["init"] is init
    assert "init" not in gamma["infer"]
    variance = {"variance": lambda g: g, "scale": lambda g: g**2, "precision": lambda g: 1 / g}[on](gamma["value"])
    base = getattr(weight["fn"], "base_dist", weight["fn"])
    assert isinstance(base, CentredNormal)
    assert_close(base.scale, variance.sqrt())
    assert_close(variance.sqrt(), gamma["value"] ** POWERS[on])
    normal = dist.Normal(torch.zeros_like(variance), variance.sqrt())
    assert_close(weight["fn"].log_prob(weight["value"]), normal.log_prob(weight["value"]).sum())
    hyperprior = dist.Gamma(init.new_tensor(2.0), init.new_tensor(3.0))
    assert_close(gamma["fn"].log_prob(gamma["value"]), hyperprior.log_prob(gamma["value"]).sum())


@pytest.mark.parametrize("on", POWERS)
def test_each_weight_has_a_scale_of_its_own(on):
    trace = poutine.trace(Mixture(on).sample).get_trace("w", torch.zeros(50))
    assert len(trace.nodes["w_gamma"]["value"].unique()) == 50


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoDelta, AutoDiagonalNormal, AutoNormalMessenger])
def test_pyros_own_guides_learn_a_weight_and_what_stands_behind_it(autoguide, device):
    """They keep what they have of a site where its dots lead, beside and below that of others."""
    half_normal = vbd.priors.HalfNormal(dist.LogNormal(0.0, 1.0), global_scale=dist.LogNormal(0.0, 1.0))
    x, y = torch.randn(20, 3, device=device), torch.zeros(20, 2, device=device)
    model = vbd.Regressor(nn.Sequential(nn.Linear(3, 2)).to(device), half_normal, num_data=20)
    guide = autoguide(model)
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), vbd.VBD_ELBO()).step(x, y)
    latents = {"0.weight", "0.weight_gamma", "0.weight_scale", "0.weight_global_scale"}
    drawn = poutine.trace(guide).get_trace(x, y).nodes
    assert latents <= set(drawn)
    assert drawn["0.weight"]["value"].shape == drawn["0.weight_gamma"]["value"].shape == (2, 3)


def test_leading_dimensions_under_a_plate():
    with pyro.plate("particles", 7, dim=-1), poutine.trace() as capture:
        weight = Mixture("variance").sample("w", torch.zeros(4, 3))
    assert weight.shape == (7, 4, 3)
    assert capture.trace.nodes["w_gamma"]["value"].shape == (7, 4, 3)
    assert len(capture.trace.nodes["w_gamma"]["value"].unique()) == 84


@pytest.mark.parametrize("on", POWERS)
def test_marginal_of_prior_draws(on):
    with pyro.plate("draws", 20_000, dim=-1), poutine.trace() as capture:
        weight = Mixture(on).sample("w", torch.zeros(1)).squeeze(-1)
    gamma = capture.trace.nodes["w_gamma"]["value"].squeeze(-1)
    standard = weight / gamma ** POWERS[on]
    assert abs(standard.mean() * 20_000**0.5) < 4
    assert abs((standard.var() - 1) * 10_000**0.5) < 4
