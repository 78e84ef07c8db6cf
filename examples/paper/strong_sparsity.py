"""Weights removed as well as we know how: a KL that grows past the bound, then a run without it for those left (4-strong).

Against the published protocol (``variational_sparsity``): He's initialisation, which lets fewer weights start as good as
removed; batches of 200; and two phases. In the first the KL's weight ends above 1, which trades likelihood for weights.
Then the posterior is frozen at 0 outside the mask, and the weights that are left are trained on, still noisy, under a
tenth of the KL: they make up for what they paid. Their dropout rates tell which go on top of them for a given ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.measures import error
from examples.paper.networks import network
from examples.paper.picking import seconds
from examples.paper.variational_sparsity import measure

__all__ = ["threshold_of", "train"]


def train(jobs: Sequence[Job], prior: vbd.priors.Prior) -> list[dict[str, Any]]:
    """Train a LeNet under a prior in two phases; metrics at the threshold of the mask, and at a higher ratio."""
    recipe = jobs[0].recipe
    threshold = recipe["threshold"]

    def begin(job: Job) -> bayesian.Subject:
        model = vbd.Classifier(network(job.cell.size), prior, num_data=len(job.data.x))
        guide = vbd.VBDGuide(model, init_log_var=recipe["init_log_var"])
        return bayesian.Subject(job, model, guide, lambda: vbd.point_network(model, guide, threshold))

    subjects = bayesian.begun(jobs, begin)
    refitted = max(1, round(recipe["refit"] * recipe["epochs"]))
    shared = {
        "batch_size": recipe["batch_size"],
        "lr_schedule": vbd.schedules.linear_decay(),
        "estimator": recipe.get("estimator", "local"),
        "measure": measure,
    }
    removing = bayesian.train(
        subjects,
        epochs=max(1, recipe["epochs"] - refitted),
        lr=recipe["lr"],
        kl_schedule=vbd.schedules.piecewise(*recipe["kl"]),
        **shared,
    )
    before = [error(subject.network(), subject.job.data.x_test, subject.job.data.y_test) for subject in subjects]
    for subject in subjects:
        vbd.restrict(subject.guide, vbd.masks(subject.guide, threshold))
    refit = bayesian.train(
        subjects,
        epochs=refitted,
        lr=recipe["refit_lr"],
        kl_weight=recipe["refit_kl_weight"],
        phase="refit",
        **shared,
    )
    return [
        {**_found(subject, error), "seconds": seconds(first, second)}
        for error, subject, first, second in zip(before, subjects, removing, refit, strict=True)
    ]


def _found(subject: bayesian.Subject, before: float) -> dict[str, Any]:
    recipe, data = subject.job.recipe, subject.job.data
    sparser = threshold_of(subject.guide, recipe["sparser_ratio"])
    found: dict[str, Any] = {"error_before": before}
    for threshold, suffix in ((recipe["threshold"], ""), (sparser, "_sparser")):
        net = vbd.point_network(subject.model, subject.guide, threshold)
        left = {key: value for key, value in measure(net, data.x_test, data.y_test).items() if key != "weights"}
        found.update({f"{key}{suffix}": value for key, value in left.items()})
        if data.x_val is not None and data.y_val is not None:
            found[f"validation_error{suffix}"] = error(net, data.x_val, data.y_val)
    # of the last epoch: what is left is trained on to the end
    return {**found, "picked": dict(found)} if data.x_val is not None else found


def threshold_of(guide: vbd.VBDGuide, ratio: float) -> float:
    """The threshold on log alpha that keeps one weight in ``ratio``, of all layers together: those of the least noise."""
    log_alpha = torch.cat([value.flatten() for value in vbd.relevance(guide).values()])
    return float(log_alpha.kthvalue(max(1, int(len(log_alpha) / ratio))).values)
