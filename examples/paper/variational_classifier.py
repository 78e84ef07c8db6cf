"""Variational dropout and variational Bayesian dropout as regularisers: Tables 1 to 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.dropouts import measure
from examples.paper.measures import error
from examples.paper.picking import metrics, seconds

__all__ = ["train"]


def train(
    job: Job, network: Callable[[str], nn.Sequential], prior: vbd.priors.Prior, alpha: str = "weight"
) -> dict[str, Any]:
    """Train a network under a prior; its error at the posterior means, as every published code tests.

    Args:
        job: what to train on.
        network: makes the network of a size.
        prior: of every weight.
        alpha: what shares a dropout rate; see :class:`pyro_vbd.VBDGuide`.
    """
    recipe = job.recipe
    model = vbd.Classifier(network(job.cell.size), prior, num_data=len(job.data.x))
    guide = vbd.VBDGuide(model, alpha=alpha, init_log_var=recipe["init_log_var"])

    def means() -> nn.Module:
        return vbd.point_network(model, guide)

    history = bayesian.train(
        model,
        guide,
        job,
        epochs=recipe["epochs"],
        network=means,
        measure=measure,
        **bayesian.rates(recipe),
    )
    found = metrics(means(), job.data, measure, history)
    found["sparsity"] = 100.0 * vbd.sparsity(guide)
    found["error_pruned"] = error(vbd.point_network(model, guide, 3.0), job.data.x_test, job.data.y_test)
    return {**found, "seconds": seconds(history)}
