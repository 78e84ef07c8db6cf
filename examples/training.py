"""How the examples train: a Bayesian network by ``vbd.fit``, and the same network plainly, with the same optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import pyro_vbd as vbd

__all__ = ["Plan", "train_bayesian", "train_members", "train_plain"]


@dataclass(frozen=True)
class Plan:
    """Adam for so many epochs; the learning rate falls to 0 over the second half."""

    epochs: int
    batch_size: int
    lr: float
    compile: bool = False


def train_bayesian(model: Any, x: Tensor, y: Tensor, plan: Plan, **options: Any) -> tuple[vbd.VBDGuide, float]:
    """The guide of a model and the seconds it took; the KL is off for a tenth of the run, and whole at its half."""
    guide = vbd.VBDGuide(model)
    start = time.perf_counter()
    vbd.fit(model, guide, _batches(x, y, plan), **_schedule(plan), **options)
    return guide, time.perf_counter() - start


def train_members(models: Sequence[Any], x: Tensor, y: Tensor, plan: Plan) -> tuple[list[vbd.VBDGuide], float]:
    """The guides of models that are trained side by side, each as :func:`train_bayesian` does, and the seconds of all."""
    guides = [vbd.VBDGuide(model) for model in models]
    start = time.perf_counter()
    runs = vbd.fit_members(models, guides, _batches(x, y, plan), **_schedule(plan))
    if failures := [run.failure for run in runs if run.failure]:
        raise FloatingPointError(f"{len(failures)} of {len(runs)} runs have stopped, the first since {failures[0]}")
    return guides, time.perf_counter() - start


def _batches(x: Tensor, y: Tensor, plan: Plan) -> vbd.Batches:
    return vbd.Batches(x, y, batch_size=plan.batch_size)


def _schedule(plan: Plan) -> dict[str, Any]:
    return {
        "epochs": plan.epochs,
        "lr": plan.lr,
        "kl_schedule": vbd.schedules.kl_ramp(plan.epochs // 10, plan.epochs // 2),
        "lr_schedule": vbd.schedules.linear_decay(0.5),
        "compile": plan.compile,
        "progress": False,
    }


def train_plain(
    net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, plan: Plan, weight_decay: float = 0.0
) -> float:
    """Minimise a loss by Adam with decoupled weight decay; the seconds it took. Parameters of the loss are trained too."""
    parameters = [{"params": list(net.parameters()), "weight_decay": weight_decay}]
    if isinstance(loss, nn.Module):
        parameters.append({"params": list(loss.parameters()), "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(parameters, lr=plan.lr, fused=True)
    decay = vbd.schedules.linear_decay(0.5)
    batches = _batches(x, y, plan)
    net.train()
    start = time.perf_counter()
    for epoch in range(plan.epochs):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * decay(epoch, plan.epochs)
        for inputs, targets in batches:
            optimizer.zero_grad()
            loss(net(inputs), targets).backward()
            optimizer.step()
    net.eval()
    return time.perf_counter() - start
