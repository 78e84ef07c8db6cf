"""The two kinds of targets, classes and numbers: likelihood, predictive distribution and scores of each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measures import classification, regression
from torch import Tensor, nn

import pyro_vbd as vbd

__all__ = ["Classification", "Regression", "Task"]

#: Data whose Jacobians laplace-torch holds at once: a number for each output and weight.
LAPLACE_BATCH = 100


class Task(ABC):
    """A kind of targets. A predictive distribution is whatever ``scores`` of the same task takes."""

    name: str

    #: Columns of ``scores`` with their titles.
    columns: dict[str, str]

    #: What ``diagram`` and the risk of selective prediction are called in a figure.
    axes: tuple[str, str]
    risk: str

    @abstractmethod
    def prepare(self, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Targets as they are learned, from those of a table and of its training part."""

    @abstractmethod
    def outputs(self, y: Tensor) -> int:
        """Outputs that a network needs."""

    @abstractmethod
    def loss(self) -> nn.Module:
        """Negative log-likelihood per datum of a plain network's outputs; its parameters are learned with the network."""

    @abstractmethod
    def model(self, net: nn.Module, prior: vbd.priors.Prior, num_data: int) -> Any:
        """The network under a prior with the same likelihood."""

    @abstractmethod
    def noise(self, model: Any) -> Tensor:
        """The noise scale of a trained :meth:`model`, a scalar; classes have none."""

    @abstractmethod
    def predictive(self, outputs: Tensor, noise: Tensor) -> Any:
        """Average over draws of the weights, or members of an ensemble.

        Args:
            outputs: of shape ``(S, N, K)``.
            noise: of shape ``(S,)`` or ``()``: ``noise`` of each member's likelihood.
        """

    @abstractmethod
    def scores(self, predictive: Any, y: Tensor) -> dict[str, float]:
        """Numbers by column, of which ``nll`` chooses settings."""

    @abstractmethod
    def selection(self, predictive: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each datum and the uncertainty by which data may be declined, for selective prediction."""

    @abstractmethod
    def diagram(self, predictive: Any, y: Tensor) -> tuple[list[float], list[float]]:
        """What is claimed and what is found: confidence and accuracy, or level and coverage."""

    @abstractmethod
    def like_outputs(self, y: Tensor) -> Tensor:
        """Targets in the shape that laplace-torch asks for."""

    @abstractmethod
    def laplace_noise(self, noise: Tensor) -> dict[str, Any]:
        """What laplace-torch is told of the noise."""

    @abstractmethod
    def from_laplace(self, fitted: Any, x: Tensor) -> Any:
        """The predictive distribution of a Laplace approximation."""


class CategoricalLoss(nn.CrossEntropyLoss):
    """Cross-entropy; classes have no noise scale."""

    noise = torch.zeros(())


class Classification(Task):
    """Outputs are logits; the predictive distribution is a tensor of class probabilities, of shape ``(N, C)``."""

    name = "classification"
    axes, risk = ("confidence", "accuracy"), "error"
    columns = {
        "error": "error %",
        "nll": "NLL",
        "brier": "Brier",
        "calibration": "ECE %",
        "overconfidence": "overconf. %",
        "aurc": "AURC x 1000",
    }

    def prepare(self, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        return y.astype(np.int64)

    def outputs(self, y: Tensor) -> int:
        return int(y.max()) + 1

    def loss(self) -> nn.Module:
        return CategoricalLoss()

    def model(self, net: nn.Module, prior: vbd.priors.Prior, num_data: int) -> vbd.Classifier:
        return vbd.Classifier(net, prior, num_data)

    def noise(self, model: Any) -> Tensor:
        return torch.zeros(())

    def predictive(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return outputs.softmax(-1).mean(0)

    def scores(self, predictive: Tensor, y: Tensor) -> dict[str, float]:
        return classification.scores(predictive, y)

    def selection(self, predictive: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        confidence, label = predictive.max(-1)
        return (label != y).double(), 1.0 - confidence

    def diagram(self, predictive: Tensor, y: Tensor) -> tuple[list[float], list[float]]:
        return classification.reliability(predictive, y)

    def like_outputs(self, y: Tensor) -> Tensor:
        return y

    def laplace_noise(self, noise: Tensor) -> dict[str, Any]:
        return {}

    def from_laplace(self, fitted: Any, x: Tensor) -> Tensor:
        return torch.cat([fitted(part, link_approx="probit").detach() for part in x.split(LAPLACE_BATCH)])


class GaussianLoss(nn.Module):
    """Negative log-likelihood of a Gaussian around the outputs, whose standard deviation is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    @property
    def noise(self) -> Tensor:
        return self.log_scale.detach().exp()

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        constant = 0.5 * math.log(2 * math.pi)
        return 0.5 * F.mse_loss(outputs.squeeze(-1), y) * (-2 * self.log_scale).exp() + self.log_scale + constant


class Regression(Task):
    """Outputs are means of standardised targets, with one noise; predictive distributions are mixtures of Gaussians."""

    name = "regression"
    axes, risk = ("level of the interval", "targets inside"), "squared error"
    columns = {
        "error": "RMSE",
        "nll": "NLL",
        "coverage": "in 90% interval",
        "width": "its width",
        "calibration": "coverage miss %",
        "overconfidence": "overconf. %",
        "aurc": "AURC x 1000",
    }

    def prepare(self, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        return ((y - train.mean()) / train.std()).astype(np.float32)

    def outputs(self, y: Tensor) -> int:
        return 1

    def loss(self) -> nn.Module:
        return GaussianLoss()

    def model(self, net: nn.Module, prior: vbd.priors.Prior, num_data: int) -> vbd.Regressor:
        return vbd.Regressor(net, prior, num_data)

    def noise(self, model: Any) -> Tensor:
        return model.gaussian.scale.detach()

    def predictive(self, outputs: Tensor, noise: Tensor) -> Any:
        return regression.mixture(outputs.squeeze(-1), noise.reshape(-1, 1))

    def scores(self, predictive: Any, y: Tensor) -> dict[str, float]:
        return regression.scores(predictive, y)

    def selection(self, predictive: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        return (predictive.mean - y).square(), predictive.variance

    def diagram(self, predictive: Any, y: Tensor) -> tuple[list[float], list[float]]:
        return regression.LEVELS.tolist(), regression.coverage(predictive, y).tolist()

    def like_outputs(self, y: Tensor) -> Tensor:
        return y.unsqueeze(-1)

    def laplace_noise(self, noise: Tensor) -> dict[str, Any]:
        return {"sigma_noise": noise}

    def from_laplace(self, fitted: Any, x: Tensor) -> Any:
        parts = zip(*(fitted(part) for part in x.split(LAPLACE_BATCH)), strict=True)
        mean, variance = (torch.cat([value.detach().flatten() for value in values])[None] for values in parts)
        return regression.mixture(mean, (variance + fitted.sigma_noise.detach() ** 2).sqrt())
