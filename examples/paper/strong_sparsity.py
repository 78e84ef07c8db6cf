"""Weights removed as well as we know how: a KL that grows past the bound, then a run without it for those left (4-strong).

Against the published protocol (``variational_sparsity``): He's initialisation, which lets fewer weights start as good as
removed; batches of 200; and two phases. In the first the KL's weight ends above 1, which trades likelihood for weights.
Then the posterior is frozen at 0 outside the mask, and the weights that are left are trained on, still noisy, under a
tenth of the KL: they make up for what they paid. Their dropout rates tell which go on top of them for a given ratio.
"""

from __future__ import annotations

from typing import Any

import torch

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.measures import error
from examples.paper.networks import LENETS
from examples.paper.picking import seconds
from examples.paper.variational_sparsity import measure

__all__ = ["threshold_of", "train"]


def train(job: Job, prior: vbd.priors.Prior) -> dict[str, Any]:
    """Train a LeNet under a prior in two phases; metrics at the threshold of the mask, and at a higher ratio."""
    recipe, data = job.recipe, job.data
    model = vbd.Classifier(LENETS[job.cell.size](), prior, num_data=len(data.x))
    guide = vbd.VBDGuide(model, init_log_var=recipe["init_log_var"])
    refitted = max(1, round(recipe["refit"] * recipe["epochs"]))
    shared = {
        "batch_size": recipe["batch_size"],
        "lr_schedule": vbd.schedules.linear_decay(),
        "network": lambda: vbd.point_network(model, guide, recipe["threshold"]),
        "measure": measure,
    }
    removing = bayesian.train(
        model,
        guide,
        job,
        epochs=max(1, recipe["epochs"] - refitted),
        lr=recipe["lr"],
        kl_schedule=vbd.schedules.piecewise(*recipe["kl"]),
        **shared,
    )
    before = error(vbd.point_network(model, guide, recipe["threshold"]), data.x_test, data.y_test)
    vbd.restrict(guide, vbd.masks(guide, recipe["threshold"]))
    refit = bayesian.train(
        model,
        guide,
        job,
        epochs=refitted,
        lr=recipe["refit_lr"],
        kl_weight=recipe["refit_kl_weight"],
        phase="refit",
        **shared,
    )
    found: dict[str, Any] = {"error_before": before}
    for threshold, suffix in ((recipe["threshold"], ""), (threshold_of(guide, recipe["sparser_ratio"]), "_sparser")):
        net = vbd.point_network(model, guide, threshold)
        left = {key: value for key, value in measure(net, data.x_test, data.y_test).items() if key != "weights"}
        found.update({f"{key}{suffix}": value for key, value in left.items()})
        if data.x_val is not None and data.y_val is not None:
            found[f"validation_error{suffix}"] = error(net, data.x_val, data.y_val)
    if data.x_val is not None:
        found["picked"] = dict(found)  # of the last epoch: what is left is trained on to the end
    return {**found, "seconds": seconds(removing, refit)}


def threshold_of(guide: vbd.VBDGuide, ratio: float) -> float:
    """The threshold on log alpha that keeps one weight in ``ratio``, of all layers together: those of the least noise."""
    log_alpha = torch.cat([value.flatten() for value in vbd.relevance(guide).values()])
    return float(log_alpha.kthvalue(max(1, int(len(log_alpha) / ratio))).values)
