"""Where posteriors start: finite, inside the support, and at the scale that the weights have."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vbd as vbd
from pyro_vbd.posterior.initial_values import prior_centre, small_random, weight_posterior


def site(fn, **infer):
    return {"fn": fn, "value": fn.sample(), "infer": infer}


def test_random_means_have_glorots_scale_whichever_side_is_the_input():
    for shape in ((400, 100), (100, 400)):
        deviation = small_random(site(dist.Normal(torch.zeros(shape), 50.0).to_event(2))).std()
        assert abs(deviation / (2 / 500) ** 0.5 - 1) < 4 / (2 * 40_000) ** 0.5
    assert small_random(site(dist.Normal(0.0, 50.0))).abs() < 1


@pytest.mark.parametrize(
    "fn",
    [
        lambda: dist.HalfCauchy(torch.ones(5)),
        lambda: dist.Beta(torch.full((5,), 0.5), 0.5),
        lambda: dist.Dirichlet(torch.ones(3, 4)),
        lambda: dist.Normal(torch.full((5,), 30.0), 1.0),
    ],
)
def test_the_centre_lies_inside_the_support(fn):
    value = prior_centre(site(fn()))
    assert fn().support.check(value).all()
    assert value.isfinite().all()


def test_a_given_start_is_taken():
    start = torch.full((5,), 0.25)
    assert torch.equal(prior_centre(site(dist.HalfCauchy(torch.ones(5)), init=start)), start)


def test_a_shared_alpha_starts_at_the_log_variance_that_is_asked_for():
    """Only weights with rates of their own would start as removed."""
    node = site(dist.Normal(torch.zeros(20, 30), 1.0), init=0.1 * torch.randn(20, 30))
    start = weight_posterior("w", node, "layer", -8.0).log_alpha
    assert start.item() == pytest.approx(-8.0 - node["infer"]["init"].square().mean().log().item(), rel=1e-5)
    assert weight_posterior("w", node, "weight", -8.0).log_var.max() < -8.0


@pytest.mark.parametrize(("on", "power"), [("variance", 1.0), ("scale", 0.5), ("precision", -1.0)])
def test_a_learned_scale_starts_at_the_weights_mean_square(on, power):
    def model():
        g = pyro.sample("g", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
        deviation = {"variance": g.sqrt(), "scale": g, "precision": g.rsqrt()}[on][:, None].expand(3, 50)
        pyro.sample("w", dist.Normal(0.0, 2.0 * deviation).to_event(2), infer={"init": torch.full((3, 50), 0.6)})

    guide = vbd.VBDGuide(model)
    guide()
    mean_square = 0.36 + torch.tensor(-10.0).exp()
    expected = (mean_square / 4.0) ** power  # through the constant 2
    assert torch.allclose(guide.median()["g"], expected.expand(3), rtol=1e-4)


def test_looking_for_the_centre_leaves_the_random_state():
    node = site(dist.HalfCauchy(torch.ones(5)))
    before = torch.get_rng_state()
    prior_centre(node)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_learned_scales_of_a_weight_share_its_mean_square():
    def model():
        a = pyro.sample("a", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
        b = pyro.sample("b", dist.LogNormal(torch.zeros(()), 1.0))
        pyro.sample("w", dist.Normal(0.0, a * b).to_event(1), infer={"init": torch.full((3,), 0.6)})

    guide = vbd.VBDGuide(model)
    guide()
    start = guide.median()
    assert torch.allclose(start["a"], start["b"].expand(3))
    assert torch.allclose((start["a"] * start["b"]).square(), 0.36 + torch.tensor(-10.0).exp(), rtol=1e-4)


def test_a_learned_scale_of_two_weights_starts_between_theirs():
    def model():
        g = pyro.sample("g", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
        for name, init in (("v", 0.4), ("w", 0.8)):
            pyro.sample(name, dist.Normal(0.0, g).to_event(1), infer={"init": torch.full((3,), init)})

    guide = vbd.VBDGuide(model)
    guide()
    assert torch.allclose(guide.median()["g"], torch.full((3,), 0.6), rtol=1e-3)
