"""Data sets with a random split for each seed, standardised by what is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import load
from sklearn import datasets
from torch import Tensor, nn
from training import Plan

from models import mlp
from uncertainty.tasks import Classification, Regression, Task

__all__ = ["PROBLEMS", "TABLES", "Data", "Problem"]


@dataclass(frozen=True)
class Data:
    """Inputs of shape ``(N, ...)`` and targets ``(N,)`` for training, validation and the test."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor
    x_test: Tensor
    y_test: Tensor

    def refit(self) -> Data:
        """Training and validation data together, once the settings have been chosen."""
        x, y = torch.cat([self.x, self.x_valid]), torch.cat([self.y, self.y_valid])
        return Data(x, y, self.x_valid, self.y_valid, self.x_test, self.y_test)

    def to(self, device: torch.device) -> Data:
        return Data(*(part.to(device) for part in vars(self).values()))


@dataclass(frozen=True)
class Problem:
    """A data set, the network for it, and how long that is trained."""

    task: Task
    load: Callable[[Path, int], Data]
    network: Callable[[int, int, float], nn.Module]
    plan: Plan


def table(make: Callable[[], tuple[np.ndarray, np.ndarray]], task: Task) -> Callable[[Path, int], Data]:
    """Rows in an order that follows from the seed: 30% for the test, 14% for validation, the rest for training."""

    def split(folder: Path, seed: int) -> Data:
        x, y = make()
        order = np.random.default_rng(seed).permutation(len(x))
        test, valid, train = np.split(order, [round(0.3 * len(order)), round(0.44 * len(order))])
        x, y = standardised(x, x[train]), task.prepare(y, y[train])
        parts = [torch.from_numpy(values[rows]) for rows in (train, valid, test) for values in (x.astype(np.float32), y)]
        return Data(*parts)

    return split


def standardised(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 in the reference; a column that is constant there becomes 0."""
    deviation = reference.std(0)
    return np.where(deviation > 0, (values - reference.mean(0)) / np.where(deviation > 0, deviation, 1.0), 0.0)


def dense(*hidden: int) -> Callable[[int, int, float], nn.Module]:
    """Makes a ReLU network, with dropout after each hidden layer where that is asked for."""

    def network(inputs: int, outputs: int, dropout: float) -> nn.Module:
        layers = []
        for layer in mlp(inputs, hidden, outputs):
            layers += [layer, nn.Dropout(dropout)] if isinstance(layer, nn.ReLU) and dropout else [layer]
        return nn.Sequential(*layers)

    return network


def images(name: str) -> Callable[[Path, int], Data]:
    """The usual test set, and a sixth of the training set for validation, which the seed chooses."""

    def split(folder: Path, seed: int) -> Data:
        whole, chosen = load(name, folder), load(name, folder, validation=True, seed=seed)
        return Data(chosen.x, chosen.y, chosen.x_eval, chosen.y_eval, whole.x_eval, whole.y_eval)

    return split


#: Loaders, and epochs that make about a thousand steps.
REGRESSION = {
    "diabetes": (lambda: datasets.load_diabetes(return_X_y=True), 100),
    "friedman1": (lambda: datasets.make_friedman1(500, noise=1.0, random_state=0), 100),
    "friedman2": (lambda: datasets.make_friedman2(500, noise=125.0, random_state=0), 100),
    "friedman3": (lambda: datasets.make_friedman3(500, noise=0.1, random_state=0), 100),
}

CLASSIFICATION = {
    "breast_cancer": (lambda: datasets.load_breast_cancer(return_X_y=True), 100),
    "wine": (lambda: datasets.load_wine(return_X_y=True), 250),
    "iris": (lambda: datasets.load_iris(return_X_y=True), 300),
    "digits": (lambda: datasets.load_digits(return_X_y=True), 30),
}

TABLES = {
    name: Problem(task, table(make, task), dense(50, 50), Plan(epochs, 32, 1e-2))
    for task, sets in ((Regression(), REGRESSION), (Classification(), CLASSIFICATION))
    for name, (make, epochs) in sets.items()
}

PROBLEMS: dict[str, Problem] = {
    **TABLES,
    "mnist": Problem(Classification(), images("mnist"), dense(300, 100), Plan(20, 100, 1e-3)),
}
