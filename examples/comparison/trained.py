"""A trained network, with or without a prior, and what can be asked of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyro
import torch
import torch.nn.functional as F
from data import Split
from torch import Tensor
from training import Plan, train_bayesian, train_members, train_plain

import pyro_vbd as vbd
from comparison.removal import error, removal_curve
from comparison.settings import Setting
from pyro_vbd.predict import ClassPrediction

__all__ = ["THRESHOLD", "Bayesian", "Plain", "Trained"]

#: log alpha beyond which a weight is removed.
THRESHOLD = 3.0

#: Draws of the posterior predictive, and of the pointwise log-likelihoods for leave-one-out.
DRAWS, LOO_DRAWS = 100, 400

#: Leave-one-out is estimated on so many of the training data.
LOO_DATA = 10_000


class Trained(ABC):
    """What a run is asked for."""

    seconds: float

    @abstractmethod
    def predict(self, x: Tensor) -> ClassPrediction:
        """Class probabilities, their entropy, and the part of it that the weights do not know."""

    @abstractmethod
    def report(self, split: Split) -> dict[str, Any]:
        """Numbers about the weights and the evidence by column, and what the figure shows of them."""


class Bayesian(Trained):
    """A network trained under a prior."""

    def __init__(self, model: vbd.Classifier, guide: vbd.VBDGuide, seconds: float) -> None:
        self.model, self.guide, self.seconds = model, guide, seconds

    @classmethod
    def from_seeds(
        cls, prior: Callable[[], vbd.priors.Prior], setting: Setting, plan: Plan, split: Split, seeds: Sequence[int]
    ) -> list[Bayesian]:
        """A network from each seed, trained side by side; each took its share of the time."""
        models = []
        for seed in seeds:
            pyro.set_rng_seed(seed)
            net = setting.network(int(split.y.max()) + 1)
            models.append(vbd.Classifier(net, prior(), num_data=len(split.x)).to(split.x.device))
        if len(models) == 1:
            return [cls(models[0], *train_bayesian(models[0], split.x, split.y, plan))]
        guides, seconds = train_members(models, split.x, split.y, plan)
        return [cls(*member, seconds / len(models)) for member in zip(models, guides, strict=True)]

    def predict(self, x: Tensor) -> ClassPrediction:
        return vbd.predict(self.model, self.guide, x, num_samples=DRAWS)

    def report(self, split: Split) -> dict[str, Any]:
        log_alpha = {site: value.cpu() for site, value in self.guide.log_alpha().items()}
        net = vbd.point_network(self.model, self.guide)
        some = split.x[:LOO_DATA], split.y[:LOO_DATA]
        draws = vbd.to_arviz(self.model, self.guide, *some, LOO_DRAWS, groups=["log_likelihood"], batch_size=LOO_DATA)
        return {
            "removed": 100 * vbd.sparsity(self.guide, THRESHOLD),
            "error_after": error(vbd.point_network(self.model, self.guide, THRESHOLD), split),
            "elbo": bound(self.model, self.guide, split),
            "curve": removal_curve(net, {site: -value for site, value in log_alpha.items()}, split),
            "log_alpha": torch.cat([value.flatten() for value in log_alpha.values()]).clamp(-20, 40),
            "log_likelihood": torch.from_numpy(np.array(draws.log_likelihood["y"])),
        }


class Plain(Trained):
    """The same network, optimizer and schedule on the likelihood alone; weights are removed by magnitude."""

    def __init__(self, setting: Setting, plan: Plan, split: Split, seed: int) -> None:
        pyro.set_rng_seed(seed)
        self.net = setting.network(int(split.y.max()) + 1).to(split.x.device)
        self.seconds = train_plain(self.net, F.cross_entropy, split.x, split.y, plan)

    @torch.no_grad()
    def predict(self, x: Tensor) -> ClassPrediction:
        probs = torch.cat([self.net(part).softmax(-1) for part in x.split(1000)])
        entropy = torch.special.entr(probs).sum(-1)
        return ClassPrediction(probs, entropy, torch.full_like(entropy, torch.nan))

    def report(self, split: Split) -> dict[str, Any]:
        magnitude = {name: p.detach().abs().cpu() for name, p in self.net.named_parameters() if p.dim() > 1}
        return {"curve": removal_curve(self.net, magnitude, split)}


@torch.no_grad()
def bound(model: Any, guide: vbd.VBDGuide, split: Split) -> float:
    """The evidence lower bound in nats per datum, by one draw of the local noise for each datum.

    Up to the constant that the KL of each family is stated up to: it compares seeds of one prior, not priors.
    """
    model.eval()
    log_likelihood = kl = 0.0
    for x, y in vbd.Batches(split.x, split.y, batch_size=1000, shuffle=False):
        terms = vbd.VBD_ELBO().terms(model, guide, x, y)
        log_likelihood += float(terms.log_likelihood) * len(x) / len(split.x)
        kl = float(terms.kl)
    return (log_likelihood - kl) / len(split.x)
