"""Weights removed by their learned dropout rates: variational dropout, and variational Bayesian dropout (Table 4).

The protocol is that of the released code of Molchanov et al. 2017 (bayesgroup/variational-dropout-sparsifies-dnn), which
Liu et al. 2019 say they follow strictly: Adam at 1e-3, 200 epochs of batches of 100, the KL ramped up from epoch 5 to 20,
log variances from -10, weights gone where log alpha > 3, the rest at their means for the test.

Not taken over: its clip of log alpha to [-8, 8], which the closed forms here do not need, and its masking of the means
beyond the threshold during training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.measures import error, weight_sparsity
from examples.paper.networks import LENETS
from examples.paper.picking import Measure, metrics, seconds

__all__ = ["initialise", "measure", "train"]

#: Thresholds on log alpha at which error and compression are recorded besides the one of the recipe.
SWEEP = (1.0, 2.0, 3.0, 4.0, 5.0)


def measure(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """Error and weights left."""
    return {"error": error(net, x, y), **weight_sparsity(net)}


def train(job: Job, prior: vbd.priors.Prior, measure: Measure = measure) -> dict[str, Any]:
    """Train a LeNet under a prior; the metrics of the network without the removed weights."""
    recipe = job.recipe
    net = LENETS[job.cell.size]()
    initialise(net, recipe["init_std"])
    model = vbd.Classifier(net, prior, num_data=len(job.data.x))
    guide = vbd.VBDGuide(model)
    bayesian.set_log_var(guide, recipe["init_log_var"])

    def pruned(threshold: float = recipe["threshold"]) -> nn.Module:
        return vbd.point_network(model, guide, threshold)

    history = bayesian.train(
        model,
        guide,
        job,
        epochs=recipe["epochs"],
        network=pruned,
        measure=measure,
        **bayesian.rates(recipe),
    )
    found = metrics(pruned(), job.data, measure, history, begin=0.75)
    test = job.data.x_test, job.data.y_test
    found["sweep"] = {f"{t:g}": [error(pruned(t), *test), weight_sparsity(pruned(t))["compression"]] for t in SWEEP}
    found["error_dense"] = error(vbd.point_network(model, guide), *test)
    return {**found, "seconds": seconds(history)}


@torch.no_grad()
def initialise(net: nn.Module, deviation: float) -> None:
    """The effective initialisation of the released code: N(0, deviation^2) in linear layers, Glorot's in convolutions."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.normal_(0.0, deviation)
        elif isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
