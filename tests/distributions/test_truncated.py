"""Truncated: nothing below the floor, and one integral for all copies."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_vbd.distributions import Truncated, truncated
from pyro_vbd.distributions.positive import BetaPrime
from tests.distributions.test_positive import tensor, truncated_gamma


def test_below_the_floor_there_is_nothing():
    fn = truncated_gamma(tensor(0.5), tensor(1.0), tensor(0.1))
    assert fn.log_prob(tensor([0.09, 0.0])).tolist() == [-math.inf, -math.inf]
    assert fn.log_prob(tensor(0.1)).isfinite()
    assert not fn.support.check(tensor(0.09))
    assert fn.sample((500,)).min() >= 0.1


def test_validation():
    """As that of torch's distributions: of the floor, and of values, expanded or not."""
    fn = Truncated(dist.Gamma(tensor(0.5), tensor(1.0)), tensor(0.1))
    for each in (fn, fn.expand(torch.Size([3]))):
        with pytest.raises(ValueError, match="support"):
            each.log_prob(tensor(0.09))
    with pytest.raises(ValueError, match="floor"):
        Truncated(dist.Gamma(tensor(0.5), tensor(1.0)), tensor(-0.1))


def test_copies_of_a_truncated_share_one_integral(monkeypatch):
    shapes = []
    whole = truncated.grid

    def counted(log_f, like, nodes=160):
        shapes.append(like.shape)
        return whole(log_f, like, nodes)

    monkeypatch.setattr(truncated, "grid", counted)
    fn = truncated_gamma(tensor(0.5), tensor(1.0), tensor(0.1)).expand(torch.Size((50, 40)))
    fn.log_prob(torch.ones(50, 40, dtype=torch.float64))
    assert fn.base.batch_shape == (50, 40)
    assert shapes == [()]


def heavy(tail):
    return Truncated(BetaPrime(torch.tensor(1.0), torch.tensor(tail), torch.tensor(1.0)), torch.tensor(0.1))


def test_draws_of_a_heavy_tail_stay_finite(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **kind: torch.full(shape, 1.0 - 1e-12, **kind))
    assert (heavy(0.2).sample((3,)) == torch.finfo(torch.float32).max).all()  # 1e60


def test_a_tail_that_is_too_heavy_to_integrate_gives_no_number():
    fn = heavy(0.02)
    assert fn.log_prob(torch.tensor(1.0)).isnan()
    assert fn.sample((5,)).isnan().all()
