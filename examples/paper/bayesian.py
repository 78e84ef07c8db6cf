"""Training of networks with a posterior over their weights: variational dropout and variational Bayesian dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import pyro_vbd as vbd
from examples.paper.cell import Job
from examples.paper.picking import Measure, measured
from pyro_vbd.training.schedules import Schedule, constant

__all__ = ["rates", "set_log_var", "train"]


def rates(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What most recipes say of a run, as arguments of :func:`train`: a KL that is ramped up, a rate that falls to 0."""
    return {
        "lr": recipe["lr"],
        "batch_size": recipe["batch_size"],
        "kl_schedule": vbd.schedules.kl_ramp(*recipe["kl_ramp"]),
        "lr_schedule": vbd.schedules.linear_decay(recipe["decay_from"]),
        "kl_weight": recipe["kl_weight"],
    }


def train(
    model: vbd.Classifier,
    guide: vbd.VBDGuide,
    job: Job,
    *,
    epochs: int,
    lr: float = 1e-3,
    batch_size: int = 100,
    kl_schedule: Schedule = constant,
    lr_schedule: Schedule = constant,
    kl_weight: float = 1.0,
    network: Callable[[], nn.Module],
    measure: Measure | None = None,
    phase: str = "fit",
) -> list[dict[str, Any]]:
    """Maximise the bound by :func:`pyro_vbd.fit`; returns one record per epoch, as ``examples.paper.plain.train`` does.

    Args:
        model: the network with its prior.
        guide: its posterior.
        job: its data, its checkpoints and its progress bar.
        epochs: passes through the data.
        lr: learning rate of Adam.
        batch_size: data in a step.
        kl_schedule: multiplier of the KL weight by epoch.
        lr_schedule: multiplier of the learning rate by epoch.
        kl_weight: of the KL, 1 for the bound itself.
        network: the plain network as it would be used now, whose metrics are measured.
        measure: metrics of a network.
        phase: names the checkpoint, where a cell has several runs.
    """
    model.to(job.device)
    guide.to(job.device)

    seen = 0

    def after_epoch(run: vbd.Fit) -> dict[str, Any]:
        nonlocal seen
        job.tick(run.epoch - seen)  # at first with the epochs before a kill
        seen = run.epoch
        return measured(network(), job.data, measure) if job.data.x_val is not None else {}

    run = vbd.fit(
        model,
        guide,
        vbd.Batches(job.data.x, job.data.y, batch_size=batch_size),
        epochs=epochs,
        lr=lr,
        elbo=vbd.VBD_ELBO(kl_weight=kl_weight, estimator="local"),  # as published, in convolutions too
        kl_schedule=kl_schedule,
        lr_schedule=lr_schedule,
        callbacks=[after_epoch],
        checkpoint=job.checkpoint(phase),
        progress=False,
        compile=job.compile,
    )
    return run.history


@torch.no_grad()
def set_log_var(guide: vbd.VBDGuide, log_var: float) -> None:
    """Start every weight's log variance at one value, even where many weights then start as good as removed.

    The guide by itself starts lower there; published settings say one number.
    """
    for name, parameter in guide.named_parameters():
        if name.endswith("log_var"):
            parameter.fill_(log_var)
