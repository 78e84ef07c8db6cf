"""A Bayesian linear regression with orthogonal inputs, whose posterior factorises and is known, and its evidence."""

import math

import pyro
import pyro.distributions as dist
import torch

import pyro_vbd as vbd

NOISE = 0.5


def data(num_data=32):
    """Inputs whose columns are orthogonal, each of squared length N, and targets."""
    t = torch.arange(num_data) * (2 * math.pi / num_data)
    x = math.sqrt(2) * torch.stack([t.sin(), t.cos(), (2 * t).sin()], 1)
    return x, x @ torch.tensor([1.0, -0.5, 0.0]) + NOISE * torch.randn(num_data)


def make_model(num_data):
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1))
        with pyro.plate("data", num_data, subsample=x):
            return pyro.sample("y", dist.Normal((x * w).sum(-1), NOISE), obs=y)

    return model


def exact_pair(x, y, spread=1.0):
    """The model and a guide at its posterior, its standard deviations multiplied by ``spread``."""
    model = make_model(len(x))
    guide = vbd.VBDGuide(model, x, y)
    precision = 1 + len(x) / NOISE**2
    q = guide.posteriors["q/w"]
    with torch.no_grad():
        q.loc.copy_(x.T @ y / NOISE**2 / precision)
        q.log_var.fill_(-math.log(precision) + 2 * math.log(spread))
    return model, guide


def log_evidence(x, y):
    """log p(y) = log N(y | 0, x x' + s^2 I)."""
    covariance = x @ x.T + NOISE**2 * torch.eye(len(x))
    return float(torch.distributions.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(y))
