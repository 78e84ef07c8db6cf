"""Weights removed by their learned dropout rates: variational dropout, and variational Bayesian dropout (Table 4).

The protocol is that of the released code of Molchanov et al. 2017 (bayesgroup/variational-dropout-sparsifies-dnn), which
Liu et al. 2019 say they follow strictly: Adam at 1e-3, 200 epochs of batches of 100, the KL ramped up from epoch 5 to 20,
log variances from -10, weights gone where log alpha > 3, the rest at their means for the test.

Not taken over: its clip of log alpha to [-8, 8], which the closed forms here do not need, and its masking of the means
beyond the threshold during training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.measures import error, weight_sparsity
from examples.paper.networks import network
from examples.paper.picking import Measure, metrics, seconds

__all__ = ["initialise", "measure", "train"]

#: Thresholds on log alpha at which error and compression are recorded besides the one of the recipe.
SWEEP = (1.0, 2.0, 3.0, 4.0, 5.0)


def measure(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """Error and weights left."""
    return {"error": error(net, x, y), **weight_sparsity(net)}


def train(jobs: Sequence[Job], prior: vbd.priors.Prior, measure: Measure = measure) -> list[dict[str, Any]]:
    """Train a LeNet under a prior; the metrics of the network without the removed weights."""
    recipe = jobs[0].recipe

    def begin(job: Job) -> bayesian.Subject:
        net = network(job.cell.size)
        initialise(net, recipe["init_std"])
        model = vbd.Classifier(net, prior, num_data=len(job.data.x))
        guide = vbd.VBDGuide(model)
        bayesian.set_log_var(guide, recipe["init_log_var"])
        return bayesian.Subject(job, model, guide, lambda: vbd.point_network(model, guide, recipe["threshold"]))

    subjects = bayesian.begun(jobs, begin)
    histories = bayesian.train(subjects, epochs=recipe["epochs"], measure=measure, **bayesian.rates(recipe))
    return [_found(subject, history, measure) for subject, history in zip(subjects, histories, strict=True)]


def _found(subject: bayesian.Subject, history: list[dict[str, Any]], measure: Measure) -> dict[str, Any]:
    def pruned(threshold: float | None) -> nn.Module:
        return vbd.point_network(subject.model, subject.guide, threshold)

    data = subject.job.data
    found = metrics(subject.network(), data, measure, history, begin=0.75)
    test = data.x_test, data.y_test
    found["sweep"] = {f"{t:g}": [error(pruned(t), *test), weight_sparsity(pruned(t))["compression"]] for t in SWEEP}
    found["error_dense"] = error(pruned(None), *test)
    return {**found, "seconds": seconds(history)}


@torch.no_grad()
def initialise(net: nn.Module, deviation: float) -> None:
    """The effective initialisation of the released code: N(0, deviation^2) in linear layers, Glorot's in convolutions."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.normal_(0.0, deviation)
        elif isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
