"""Two small regressions with a variance for each weight, by hand and as a network of one layer, and their data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor, nn

import pyro_vbd as vbd

HIGH = 1.0  # b: inputs and targets have unit variance


@dataclass(frozen=True)
class Problem:
    """A model, its data, and what its weights multiply."""

    model: Callable[..., Any]
    x: Tensor
    y: Tensor
    x_new: Tensor
    inputs: list[str]
    #: The mean of the target (or the probability of a yes) from draws of the weights, of shape ``(S, N)``.
    mean: Callable[[dict[str, Tensor], Tensor], Tensor]


def regression() -> Problem:
    """Progress of diabetes a year later, from six measurements. Two of them (s1, s2: cholesterol) say nearly the same."""
    names = ["age", "sex", "bmi", "bp", "s1", "s2"]
    data = load_diabetes()
    x = standardise(torch.tensor(data.data))[:, [data.feature_names.index(name) for name in names]]
    y = standardise(torch.tensor(data.target))
    x, y, x_new, _ = split(x, y)

    def model(x: Tensor, y: Tensor | None = None) -> Tensor:
        gamma = pyro.sample("gamma", dist.Uniform(0.0, HIGH).expand([x.shape[1]]).to_event(1))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        weight = pyro.sample("weight", dist.Normal(0.0, gamma.sqrt()).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal((x * weight).sum(-1), noise), obs=y)

    return Problem(model, x, y, x_new, names, lambda draws, x: draws["weight"] @ x.T)


def classification() -> Problem:
    """Whether a tumour is benign, from six measurements of its cells: a network of one layer. Its bias is no latent."""
    names = ["mean radius", "mean texture", "mean smoothness", "mean concavity", "mean symmetry", "mean fractal dimension"]
    data = load_breast_cancer()
    x = standardise(torch.tensor(data.data))[:, [list(data.feature_names).index(name) for name in names]]
    x, y, x_new, _ = split(x, torch.tensor(data.target))
    # weights of logits are larger than those of a standardised target
    model = vbd.Classifier(nn.Linear(len(names), 1), vbd.priors.GaussianUniform(high=10 * HIGH), num_data=len(x))

    def mean(draws: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.sigmoid(draws["weight"].squeeze(1) @ x.T + model.network.net.bias.detach())

    return Problem(model, x, y, x_new, [name.removeprefix("mean ") for name in names], mean)


PROBLEMS = {"regression": regression, "classification": classification}


def standardise(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / values.std(0)


def split(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held_out, kept = order[:100], order[100:]
    return x[kept], y[kept], x[held_out], y[held_out]
