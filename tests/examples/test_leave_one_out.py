"""PSIS-LOO of a model whose leave-one-out densities are known in closed form: Bayesian linear regression."""

import math
from types import SimpleNamespace

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from measures.leave_one_out import compare, leave_one_out, pointwise, too_heavy, verdict
from torch import nn

import pyro_vbd as vbd


class Regression(nn.Module):
    """One slope and a plate that scales: the pointwise likelihood must not be scaled with it."""

    def forward(self, x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        with pyro.plate("data", 10 * len(x), subsample=torch.arange(len(x))):
            return pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def exact_guide(x, y):
    """The posterior of the slope, and the exact leave-one-out log densities."""

    def posterior(x, y):
        precision = 1.0 + float((x**2).sum()) / 0.25
        return float((x[:, 0] * y).sum()) / 0.25 / precision, 1 / precision

    mean, variance = posterior(x, y)
    truth = []
    for i in range(len(x)):
        rest = [j for j in range(len(x)) if j != i]
        m, v = posterior(x[rest], y[rest])
        s2 = v * float(x[i, 0]) ** 2 + 0.25
        truth.append(-0.5 * math.log(2 * math.pi * s2) - (float(y[i]) - m * float(x[i, 0])) ** 2 / (2 * s2))
    return lambda *data: pyro.sample("w", dist.Normal(torch.tensor([mean]), math.sqrt(variance)).to_event(1)), truth


def test_against_the_closed_form():
    x = torch.randn(30, 1)
    y = 0.7 * x[:, 0] + 0.5 * torch.randn(30)
    guide, truth = exact_guide(x, y)
    found = leave_one_out(vbd.to_arviz(Regression(), guide, x, y, 2000, groups=["log_likelihood"]).log_likelihood["y"])
    np.testing.assert_allclose(pointwise(found), truth, atol=0.02, rtol=0.01)
    assert "below" in verdict({"regression": found})


def test_draws_count_as_independent(monkeypatch):
    asked, loo = [], az.loo
    monkeypatch.setattr(az, "loo", lambda *args, **more: asked.append(more) or loo(*args, **more))
    leave_one_out(torch.randn(1, 200, 3, dtype=torch.float64, device="cpu"))
    assert asked == [{"pointwise": True, "reff": 1.0}]


def test_a_tail_that_no_fit_holds_is_too_heavy():
    assert too_heavy(SimpleNamespace(pareto_k=[0.1, 0.7, float("nan"), 0.71])).tolist() == [False, False, True, True]


def test_says_what_is_unreliable_and_who_is_best():
    log_likelihood = 0.1 * torch.randn(1, 500, 40, dtype=torch.float64) - 1
    heavy = log_likelihood.clone()
    heavy[..., :7] = -5 * torch.distributions.Pareto(1.0, 0.5).sample((1, 500, 7)).clamp_max(1e6).cpu()
    estimates = {name: leave_one_out(values.cpu()) for name, values in (("good", log_likelihood), ("heavy", heavy))}
    said = verdict(estimates)
    assert said.startswith("UNRELIABLE")
    assert "heavy (7 of 40)" in said
    assert "good" not in said
    lines = compare(estimates).splitlines()
    assert lines[1].split()[:2] == ["good", "0"]
