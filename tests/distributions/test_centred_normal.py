"""CentredNormal against dist.Normal."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.reparam import LocScaleReparam
from torch.testing import assert_close

from pyro_vbd.distributions import CentredNormal


def test_a_centred_normal_is_a_normal_of_mean_zero():
    scale = torch.rand(4, 3) + 0.1
    p, expected, value = CentredNormal(scale.square()), dist.Normal(torch.zeros(4, 3), scale), torch.randn(4, 3)
    assert isinstance(p, dist.Normal)
    assert (p.batch_shape, p.event_shape) == ((4, 3), ())
    assert_close(p.mean, torch.zeros(4, 3))
    assert_close(p.log_prob(value), expected.log_prob(value))
    for name in ("loc", "mode", "scale", "stddev", "variance"):
        assert_close(getattr(p, name), getattr(expected, name))
    assert_close(p.entropy(), expected.entropy())
    assert_close(p.cdf(value), expected.cdf(value))
    draws = p.sample((10_000,))
    assert (draws.mean(0) / scale * 100).abs().max() < 4
    assert ((draws.var(0) / scale**2 - 1) * 5000**0.5).abs().max() < 4


def test_a_centred_normal_stays_one_when_it_is_expanded():
    p = CentredNormal(torch.rand(3, dtype=torch.float64) + 0.1)
    wide = p.expand(torch.Size([2, 3]))
    assert type(wide) is CentredNormal
    assert wide.batch_shape == (2, 3)
    assert wide.loc.dtype == torch.float64
    assert_close(wide.scale, p.scale.expand(2, 3))
    assert type(p.expand_by([4])) is CentredNormal


def test_reparameterisers_take_it_apart_like_any_normal():
    gamma = torch.rand(3) + 0.5

    def model():
        return pyro.sample("w", CentredNormal(gamma).to_event(1))

    for centred in (0.0, 0.3):
        trace = poutine.trace(poutine.reparam(model, {"w": LocScaleReparam(centred)})).get_trace()
        noise = trace.nodes["w_decentered"]
        assert_close(trace.nodes["_RETURN"]["value"], gamma.sqrt() ** (1 - centred) * noise["value"])
        assert_close(noise["fn"].base_dist.variance, gamma**centred)


def test_gradient_of_the_scale():
    scale = torch.ones(3, requires_grad=True)
    CentredNormal(scale.square()).log_prob(torch.full((3,), 2.0)).sum().backward()
    assert_close(scale.grad, torch.full((3,), 3.0))  # -1/s + w^2/s^3


def test_validation_on_request():
    with pytest.raises(ValueError, match="variance"):
        CentredNormal(torch.tensor([1.0, -1.0]), validate_args=True)
    wrong, p = torch.full((2,), torch.nan), CentredNormal(torch.ones(2), validate_args=True)
    for each in (p, p.expand(torch.Size([3, 2]))):
        with pytest.raises(ValueError, match="support"):
            each.log_prob(wrong)
    assert CentredNormal(torch.ones(2)).expand(torch.Size([3, 2])).log_prob(wrong).isnan().all()
