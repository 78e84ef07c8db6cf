"""The methods that are compared, each with the settings that validation data choose among."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from comparison.families import FAMILIES
from torch import Tensor, nn
from training import train_bayesian, train_plain

from uncertainty.problems import Problem

__all__ = ["DeepEnsemble", "Deterministic", "MCDropout", "Method", "Predict", "Prior", "train"]

#: Draws of the weights for a prediction.
DRAWS = 100

#: From inputs to a predictive distribution of the task.
Predict = Callable[[Tensor], Any]

Setting = Mapping[str, float]


class Method(ABC):
    """How a network is trained and how it predicts."""

    #: What validation data choose among.
    grid: tuple[Setting, ...] = ({},)

    @property
    def tuned_as(self) -> Method:
        """The method whose validation likelihood chooses."""
        return self

    @abstractmethod
    def fit(self, problem: Problem, x: Tensor, y: Tensor, seed: int, setting: Setting) -> Predict:
        """Train from a seed, under one setting of the grid."""


@dataclass(frozen=True)
class Trained:
    """A plain network and the noise of its likelihood."""

    net: nn.Module
    noise: Tensor


def train(problem: Problem, x: Tensor, y: Tensor, seed: int, setting: Setting) -> Trained:
    """One plain network: early stopping, weight decay and dropout are the setting's."""
    pyro.set_rng_seed(seed)
    net = problem.network(x[0].numel(), problem.task.outputs(y), setting.get("dropout", 0.0)).to(x.device)
    loss = problem.task.loss().to(x.device)
    plan = replace(problem.plan, epochs=max(1, round(problem.plan.epochs * setting.get("length", 1.0))))
    train_plain(net, loss, x, y, plan, setting.get("weight_decay", 0.0))
    return Trained(net, loss.noise)


@torch.no_grad()
def in_parts(net: nn.Module, x: Tensor) -> Tensor:
    """Outputs of a network, in parts that fit into memory."""
    return torch.cat([net(part) for part in x.split(5000)])


class Deterministic(Method):
    """One network: weight decay and the length of the training are chosen."""

    grid = tuple({"weight_decay": decay, "length": length} for length in (0.25, 1.0) for decay in (0.01, 0.1, 1.0))

    def fit(self, problem: Problem, x: Tensor, y: Tensor, seed: int, setting: Setting) -> Predict:
        found = train(problem, x, y, seed, setting)
        return lambda inputs: problem.task.predictive(in_parts(found.net, inputs)[None], found.noise)


class DeepEnsemble(Method):
    """The average of five networks from different seeds (Lakshminarayanan et al. 2017)."""

    grid = Deterministic.grid
    members = 5

    @property
    def tuned_as(self) -> Method:
        return Deterministic()  # by a single member: a fifth of the work

    def fit(self, problem: Problem, x: Tensor, y: Tensor, seed: int, setting: Setting) -> Predict:
        found = [train(problem, x, y, 1000 * seed + member, setting) for member in range(self.members)]
        noise = torch.stack([member.noise for member in found])
        return lambda inputs: problem.task.predictive(torch.stack([in_parts(m.net, inputs) for m in found]), noise)


class MCDropout(Method):
    """Dropout left on when predicting (Gal and Ghahramani 2016)."""

    grid = tuple({"dropout": p, "length": length} for length in (0.25, 1.0) for p in (0.05, 0.2, 0.5))

    def fit(self, problem: Problem, x: Tensor, y: Tensor, seed: int, setting: Setting) -> Predict:
        found = train(problem, x, y, seed, setting)

        def predict(inputs: Tensor) -> Any:
            found.net.train()
            return problem.task.predictive(torch.stack([in_parts(found.net, inputs) for _ in range(DRAWS)]), found.noise)

        return predict


class Prior(Method):
    """Variational inference by this library under a prior, as it comes: nothing is chosen on validation data."""

    #: Length of the training in that of the other methods at most.
    length = 1.5

    def __init__(self, family: str) -> None:
        self.family = family

    def fit(self, problem: Problem, x: Tensor, y: Tensor, seed: int, setting: Setting) -> Predict:
        make = FAMILIES[self.family]
        assert make is not None
        pyro.set_rng_seed(seed)
        net = problem.network(x[0].numel(), problem.task.outputs(y), 0.0)
        model = problem.task.model(net, make(), len(x)).to(x.device)
        plan = replace(problem.plan, epochs=max(1, round(problem.plan.epochs * self.length)))
        guide, _ = train_bayesian(model, x, y, plan)
        model.eval()

        @torch.no_grad()
        def predict(inputs: Tensor) -> Any:
            draws = (poutine.trace(guide).get_trace() for _ in range(DRAWS))
            outputs = [in_parts(poutine.replay(model.network, trace=draw), inputs) for draw in draws]
            return problem.task.predictive(torch.stack(outputs), problem.task.noise(model))

        return predict
