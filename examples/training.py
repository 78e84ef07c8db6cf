"""How the examples train: a Bayesian network by ``vbd.fit``, and the same network plainly, with the same optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import pyro_vbd as vbd

__all__ = ["Plan", "train_bayesian", "train_plain"]


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
    vbd.fit(
        model,
        guide,
        vbd.Batches(x, y, batch_size=plan.batch_size),
        epochs=plan.epochs,
        lr=plan.lr,
        kl_schedule=vbd.schedules.kl_ramp(plan.epochs // 10, plan.epochs // 2),
        lr_schedule=vbd.schedules.linear_decay(0.5),
        compile=plan.compile,
        progress=False,
        **options,
    )
    return guide, time.perf_counter() - start


def train_plain(
    net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, plan: Plan, weight_decay: float = 0.0
) -> float:
    """Minimise a loss by Adam with decoupled weight decay; the seconds it took. Parameters of the loss are trained too."""
    parameters = [{"params": list(net.parameters()), "weight_decay": weight_decay}]
    if isinstance(loss, nn.Module):
        parameters.append({"params": list(loss.parameters()), "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(parameters, lr=plan.lr, fused=True)
    decay = vbd.schedules.linear_decay(0.5)
    batches = vbd.Batches(x, y, batch_size=plan.batch_size)
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
