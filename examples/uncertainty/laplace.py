"""The Laplace approximation of laplace-torch, as one of the methods."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from uncertainty.methods import Deterministic, Method, Predict, Setting, Trained, train
from uncertainty.problems import Problem

__all__ = ["Laplace"]

#: How often the evidence is evaluated at most.
EVALUATIONS = 200

#: Precisions of the prior that validation data choose among; 0 stands for the one of the greatest evidence.
PRECISIONS = (1.0, 10.0, 100.0)


class Laplace(Method):
    """A Gaussian around the optimum of a network, by its curvature (Daxberger et al. 2021).

    Kronecker factors and the linearised network, as its authors advise. The precision of the prior, and for a regression
    the noise, maximise the marginal likelihood; or the precision is one of :data:`PRECISIONS`, whichever predicts the
    validation data best.

    Args:
        subset: ``"all"`` weights or the ``"last_layer"``.
    """

    grid = tuple({**plain, "precision": value} for plain in Deterministic.grid for value in (0.0, *PRECISIONS))

    def __init__(self, subset: str) -> None:
        self.subset = subset

    def fit(self, problem: Problem, x: Tensor, y: Tensor, seed: int, setting: Setting) -> Predict:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            import laplace

        task = problem.task
        found = plain_network(problem, x, y, seed, tuple((k, v) for k, v in setting.items() if k != "precision"))
        fitted = laplace.Laplace(
            found.net, task.name, subset_of_weights=self.subset, hessian_structure="kron", **task.laplace_noise(found.noise)
        )
        fitted.fit(DataLoader(TensorDataset(x, task.like_outputs(y)), batch_size=256))
        if setting["precision"]:
            fitted.prior_precision = setting["precision"]
        else:
            maximise_evidence(fitted, list(task.laplace_noise(found.noise)))
        return lambda inputs: task.from_laplace(fitted, inputs)


@functools.lru_cache(maxsize=1)
def plain_network(problem: Problem, x: Tensor, y: Tensor, seed: int, setting: tuple[tuple[str, float], ...]) -> Trained:
    """The network of a setting, which several precisions share."""
    return train(problem, x, y, seed, dict(setting))


def maximise_evidence(fitted: Any, noise: list[str]) -> None:
    """Choose the precision of the prior, and the noise where there is one, by their marginal likelihood.

    By values alone: laplace-torch 0.3 loses a part of the gradient in the noise for Kronecker factors (0.73 of it is left
    on a small regression, against finite differences).
    """
    start = np.array([float(torch.as_tensor(getattr(fitted, name)).log()) for name in ("prior_precision", *noise)])

    def loss(logs: Any) -> float:
        with torch.no_grad():
            return -float(fitted.log_marginal_likelihood(*torch.as_tensor(logs, dtype=torch.float32).exp()))

    # the simplex by default hardly moves a coordinate that is 0, the log of a precision of 1
    simplex = start + np.vstack([np.zeros(len(start)), np.eye(len(start))])
    options = {"maxfev": EVALUATIONS, "xatol": 1e-3, "fatol": 1e-3, "initial_simplex": simplex}
    best = minimize(loss, start, method="Nelder-Mead", options=options)
    loss(best.x)  # leaves them set
