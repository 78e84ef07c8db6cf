"""Models under many draws at once: networks, and regressions that broadcast over draws of their weights or do not."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

NETS = {
    "dense": lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)),
    "norm": lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(6, 3)),
}


def regression(kind):
    """A model of inputs ``(N, 3)`` that "broadcasts", "fails", "mixes draws", or has its "own noise"."""

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        if kind == "fails":
            mean = torch.mv(x, w)
        elif kind == "mixes draws":
            mean = x.sum(-1) * w.mean()
        else:
            mean = (x * w).sum(-1) + (torch.randn(()) if kind == "own noise" else 0.0)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    return model
