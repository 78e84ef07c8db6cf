"""Training of networks with a posterior over their weights, one or several seeds of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import nn

import pyro_vbd as vbd
from examples.paper.cell import Job
from examples.paper.picking import Measure, measured
from pyro_vbd.training.schedules import Schedule, constant

__all__ = ["Subject", "begun", "rates", "set_log_var", "train"]


@dataclass(frozen=True)
class Subject:
    """What is trained for one job."""

    job: Job
    #: The network with its prior.
    model: vbd.Classifier
    #: Its posterior.
    guide: vbd.VBDGuide
    #: The plain network as it would be used now, whose metrics are measured.
    network: Callable[[], nn.Module]


def begun(jobs: Sequence[Job], begin: Callable[[Job], Subject]) -> list[Subject]:
    """What is trained for each job, begun from its own seed."""
    subjects = []
    for job in jobs:
        pyro.set_rng_seed(job.cell.seed)
        subjects.append(begin(job))
    return subjects


def rates(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What most recipes say of a run, as arguments of :func:`train`: the course of the KL, a rate that falls to 0.

    The KL's weight is ramped up (``kl_ramp``), or goes through points (``kl``); that of some sites has a factor more
    (``site_weights``).
    """
    schedules = vbd.schedules
    return {
        "lr": recipe["lr"],
        "batch_size": recipe["batch_size"],
        "kl_schedule": schedules.piecewise(*recipe["kl"]) if "kl" in recipe else schedules.kl_ramp(*recipe["kl_ramp"]),
        "lr_schedule": schedules.linear_decay(recipe["decay_from"]),
        "kl_weight": recipe["kl_weight"],
        "estimator": recipe.get("estimator", "local"),
        "site_weights": recipe.get("site_weights"),
    }


def train(
    subjects: Sequence[Subject],
    *,
    epochs: int,
    lr: float = 1e-3,
    batch_size: int = 100,
    kl_schedule: Schedule = constant,
    lr_schedule: Schedule = constant,
    kl_weight: float = 1.0,
    estimator: str = "local",
    site_weights: Mapping[str, float] | None = None,
    measure: Measure | None = None,
    phase: str = "fit",
) -> list[list[dict[str, Any]]]:
    """Maximise the bound by :func:`pyro_vbd.fit`, of several by :func:`pyro_vbd.fit_members`.

    Args:
        subjects: on the same data, by the same recipe.
        epochs: passes through the data.
        lr: learning rate of Adam.
        batch_size: data in a step.
        kl_schedule: multiplier of the KL weight by epoch.
        lr_schedule: multiplier of the learning rate by epoch.
        kl_weight: of the KL, 1 for the bound itself.
        estimator: of the likelihood, by default as published: local reparameterisation, in convolutions too.
        site_weights: further factors of the KL, by pattern of site names.
        measure: metrics of a network.
        phase: names the checkpoint, where a cell has several runs.

    Returns:
        For each subject one record per epoch, as ``examples.paper.plain.train`` makes them.

    Raises:
        FloatingPointError: for a subject whose loss was not finite, also where the others' was.
    """
    first = subjects[0].job
    ticks = {id(subject.guide): _ticking(subject.job) for subject in subjects}

    def after_epoch(run: vbd.Fit) -> dict[str, Any]:
        ticks[id(run.guide)](run.epoch)
        subject = next(subject for subject in subjects if subject.guide is run.guide)
        is_measured = measure is not None and first.data.x_val is not None
        return measured(subject.network(), first.data, measure) if is_measured else {}

    for subject in subjects:
        subject.model.to(first.device)
        subject.guide.to(first.device)
    seeds = [subject.job.cell.seed for subject in subjects]
    shared = {
        "epochs": epochs,
        "lr": lr,
        "kl_schedule": kl_schedule,
        "lr_schedule": lr_schedule,
        "callbacks": [after_epoch],
        "checkpoint": first.checkpoint("_".join(map(str, [phase, *seeds[1:]]))),
        "progress": False,
        "compile": first.compile,
    }
    data = vbd.Batches(first.data.x, first.data.y, batch_size=batch_size)
    elbos = [vbd.VBD_ELBO(kl_weight, estimator=estimator, site_weights=site_weights) for _ in subjects]
    if len(subjects) == 1:
        return [vbd.fit(subjects[0].model, subjects[0].guide, data, elbo=elbos[0], **shared).history]
    models, guides = zip(*((subject.model, subject.guide) for subject in subjects), strict=True)
    runs = vbd.fit_members(models, guides, data, elbo=elbos, **shared)
    for run, subject in zip(runs, subjects, strict=True):
        if run.failure:
            raise FloatingPointError(f"{subject.job.cell} stopped: {run.failure}; run this group without --members")
    return [run.history for run in runs]


def _ticking(job: Job) -> Callable[[int], None]:
    """Moves a job's bar on to an epoch; at first also by those before a kill."""
    seen = 0

    def tick(epoch: int) -> None:
        nonlocal seen
        job.tick(epoch - seen)
        seen = epoch

    return tick


@torch.no_grad()
def set_log_var(guide: vbd.VBDGuide, log_var: float) -> None:
    """Start every weight's log variance at one value, even where many weights then start as good as removed.

    The guide by itself starts lower there; published settings say one number.
    """
    for name, parameter in guide.named_parameters():
        if name.endswith("log_var"):
            parameter.fill_(log_var)
