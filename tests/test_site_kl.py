"""KL of each site: in closed form where there is one, by a draw otherwise, under the handlers of both sides."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.posterior.exact_scale import CollapsedScales, ExactScale
from pyro_vbd.posterior.mean_field import AdditiveNormal
from pyro_vbd.site_kl import site_kls


def kls(model, guide, constant=False):
    guide_trace = poutine.trace(guide).get_trace()
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace()
    return site_kls(model_trace, guide_trace, constant)


def states(site, fn, **infer):
    return lambda: pyro.sample(site, fn, infer=infer)


def test_closed_form_is_used_and_is_exact():
    q = AdditiveNormal(torch.randn(3, 4), torch.randn(3, 4))
    p = dist.Normal(torch.zeros(3, 4), 2.0)
    found = kls(states("w", p.to_event(2)), states("w", q.to_event(2)))
    expected = kl_divergence(torch.distributions.Normal(q.loc, q.scale), torch.distributions.Normal(p.loc, p.scale)).sum()
    torch.testing.assert_close(found, {"w": expected})


def test_without_a_closed_form_it_is_one_draw_whose_mean_is_the_kl(float64):
    """N(0.3, 0.5^2) from a Student-t, against quadrature."""
    q = AdditiveNormal(torch.tensor(0.3), 2 * torch.tensor(0.5).log())
    p = dist.StudentT(3.0, torch.tensor(0.0), 1.0)
    grid = torch.linspace(-6.0, 6.0, 20_001)
    exact = torch.trapezoid(q.log_prob(grid).exp() * (q.log_prob(grid) - p.log_prob(grid)), grid)
    found = kls(states("w", p.expand([40_000]).to_event(1)), states("w", q.expand([40_000]).to_event(1)))["w"]
    draws = q.rsample((40_000,))
    deviation = (q.log_prob(draws) - p.log_prob(draws)).std()
    assert abs(found - 40_000 * exact) / (deviation * math.sqrt(40_000)) < 4


def test_gaussian_tensor_is_drawn_where_there_is_no_closed_form():
    q = AdditiveNormal(torch.tensor([0.3, 1.0]), torch.zeros(2))
    p = dist.StudentT(3.0, torch.zeros(2), 1.0)
    traces = [poutine.trace(states("w", fn.to_event(1))).get_trace() for fn in (p, q)]
    value = GaussianTensor(q.loc, q.variance)
    for trace in traces:
        trace.nodes["w"]["value"] = value
    found = site_kls(*traces, False)["w"]
    torch.testing.assert_close(found, (q.log_prob(value.draw()) - p.log_prob(value.draw())).sum())


def test_delta_gives_minus_the_log_density_and_keeps_its_jacobian():
    point = torch.tensor([0.5, 2.0])
    p = dist.Gamma(torch.tensor([2.0, 3.0]), 1.0)
    q = dist.Delta(point, log_density=point.log())
    torch.testing.assert_close(
        kls(states("g", p.to_event(1)), states("g", q.to_event(1))), {"g": (point.log() - p.log_prob(point)).sum()}
    )


def test_constant_of_a_uniform_hyperprior_counts_where_asked():
    p = dist.Uniform(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 5.0]))
    model, guide = states("g", p.to_event(1)), states("g", dist.Delta(torch.tensor([1.0, 2.0])).to_event(1))
    assert kls(model, guide) == {}
    torch.testing.assert_close(kls(model, guide, constant=True), {"g": torch.tensor(8.0).log()})
    # a Gaussian in a box is no delta: its term is no constant
    learned = states("g", dist.TransformedDistribution(AdditiveNormal(torch.zeros(2), torch.zeros(2)), []).to_event(1))
    assert list(kls(states("g", dist.Uniform(-50.0, 50.0).expand([2]).to_event(1)), learned)) == ["g"]


def test_auxiliary_site_gives_its_log_density():
    q = dist.Normal(torch.tensor(0.5), 2.0)

    def guide():
        u = pyro.sample("u", q, infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(u.exp(), log_density=-u))

    trace = poutine.trace(guide).get_trace()
    model_trace = poutine.trace(poutine.replay(states("z", dist.LogNormal(0.5, 2.0)), trace=trace)).get_trace()
    found = site_kls(model_trace, trace, False)
    torch.testing.assert_close(found["u"], q.log_prob(trace.nodes["u"]["value"]))
    torch.testing.assert_close(found["u"] + found["z"], torch.tensor(0.0), atol=1e-5, rtol=0.0)


def test_handlers_act_on_an_auxiliary_site():
    q, keep = dist.Normal(torch.zeros(3), 2.0), torch.tensor([True, False, True])

    def guide():
        with pyro.plate("three", 3), poutine.scale(scale=0.25), poutine.mask(mask=keep):
            pyro.sample("u", q, infer={"is_auxiliary": True})

    trace = poutine.trace(guide).get_trace()
    found = site_kls(poutine.trace(lambda: None).get_trace(), trace, False)
    torch.testing.assert_close(found["u"], 0.25 * (q.log_prob(trace.nodes["u"]["value"]) * keep).sum())


def test_a_mask_acts_on_the_remainder_of_each_exact_scale():
    keep = torch.tensor([True, False, True])
    prior = dist.Gamma(torch.tensor(2.0), torch.tensor(1.0))
    q = ExactScale(prior, torch.reciprocal, torch.reciprocal, torch.tensor([[0.1, 1.0], [2.0, 3.0], [9.0, 0.5]]), 1.0)

    def states(fn):
        with pyro.plate("three", 3), poutine.mask(mask=keep):
            pyro.sample("g", fn.to_event(1))

    with CollapsedScales():
        found = kls(lambda: states(prior.expand([3, 2])), lambda: states(q))
    torch.testing.assert_close(found["g"], q.remainder[keep].sum())


def weight(fn):
    def states():
        with pyro.plate("three", 3):
            pyro.sample("w", fn)

    return states


@pytest.fixture
def pair():
    q = AdditiveNormal(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3))
    p = dist.Normal(torch.zeros(()), 1.0)
    return weight(p), weight(q), 0.5 * torch.tensor([1.0, 4.0, 9.0])


@pytest.mark.parametrize("handler", [poutine.scale, poutine.mask])
@pytest.mark.parametrize("value", ["number", "tensor"])
def test_handler_around_both_acts_on_the_kl(handler, value, pair):
    model, guide, elementwise = pair
    if handler is poutine.scale:
        argument, factor = ({"scale": 0.25}, 0.25) if value == "number" else ({"scale": torch.tensor(0.25)}, 0.25)
    else:
        keep = torch.tensor([True, False, True])
        argument, factor = ({"mask": False}, 0.0) if value == "number" else ({"mask": keep}, keep)
    found = kls(handler(model, **argument), handler(guide, **argument))["w"]
    torch.testing.assert_close(torch.as_tensor(found, device=elementwise.device), (elementwise * factor).sum())


@pytest.mark.parametrize("side", ["model", "guide"])
@pytest.mark.parametrize(
    "handler",
    [
        lambda fn: poutine.scale(fn, scale=0.5),
        lambda fn: poutine.scale(fn, scale=torch.tensor(0.5)),
        lambda fn: poutine.mask(fn, mask=False),
        lambda fn: poutine.mask(fn, mask=torch.tensor([True, False, True])),
    ],
)
def test_handler_around_one_side_is_refused(side, handler, pair):
    model, guide, _ = pair
    pairs = {"model": (handler(model), guide), "guide": (model, handler(guide))}
    with pytest.raises(ValueError, match=r"site 'w' has .* in the model and .* in the guide: put the handler around both"):
        kls(*pairs[side])


def test_different_scales_are_refused(pair):
    model, guide, _ = pair
    with pytest.raises(ValueError, match=r"scale 0.5 in the model and 0.25 in the guide"):
        kls(poutine.scale(model, scale=0.5), poutine.scale(guide, scale=0.25))
