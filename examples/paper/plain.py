"""Training of networks without a posterior: any loss, resumed from the last epoch of a killed run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyro_vbd as vbd
from examples.paper.cell import Job
from examples.paper.picking import Measure, measured
from pyro_vbd.random_state import get_random_state, set_random_state
from pyro_vbd.training.denormals import flushed_denormals
from pyro_vbd.training.schedules import Schedule, constant

__all__ = ["adam", "cross_entropy", "train"]

#: ``loss(network, x, y)``: what is minimised, in nats per datum.
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def cross_entropy(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Minus the log-likelihood, the mean over the batch."""
    return F.cross_entropy(net(x), y)


def adam(lr: float, weight_decay: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Adam on all parameters of a network."""
    return lambda net: torch.optim.Adam(net.parameters(), lr=lr, weight_decay=weight_decay, fused=True)


@flushed_denormals()  # of weights that decay, which would make a step five times as slow
def train(
    net: nn.Module,
    job: Job,
    *,
    phase: str,
    epochs: int,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    batch_size: int = 100,
    loss: Loss = cross_entropy,
    lr_schedule: Schedule = constant,
    after_step: Callable[[int], Any] | None = None,
    measure: Measure | None = None,
) -> list[dict[str, Any]]:
    """Minimise a loss over passes through the training data.

    All that a phase changes must be in the state of ``net`` (parameters and buffers): it is what the checkpoint holds,
    with the optimizer and the random state.

    Args:
        net: parameters that are trained, and buffers.
        job: its data, its checkpoints and its progress bar.
        phase: name of the checkpoint. A phase that has ended is not run again.
        epochs: passes.
        optimizer: makes the optimizer of the network.
        batch_size: data in a step.
        loss: what is minimised.
        lr_schedule: multiplier of the learning rates by epoch.
        after_step: called with the number of the step, from 0.
        measure: metrics of a network; recorded at each epoch where there are held-out data (see :func:`measured`).

    Returns:
        One record per epoch: loss, seconds, and what was measured.
    """
    net.to(job.device)
    path = job.checkpoint(phase)
    steps = optimizer(net)
    rates = [group["lr"] for group in steps.param_groups]
    batches = vbd.Batches(job.data.x, job.data.y, batch_size=batch_size)
    history: list[dict[str, Any]] = []
    if path.exists():
        state = vbd.load_checkpoint(path, map_location="cpu")
        net.load_state_dict(state["net"])
        steps.load_state_dict(state["optimizer"])
        set_random_state(state["random_state"])
        history = state["history"]
        job.tick(len(history))
    net.train()
    for epoch in range(len(history), epochs):
        start = time.perf_counter()
        for group, rate in zip(steps.param_groups, rates, strict=True):
            group["lr"] = rate * lr_schedule(epoch, epochs)
        total = torch.zeros((), device=job.device)
        for index, (x, y) in enumerate(batches):
            steps.zero_grad()
            value = loss(net, x, y)
            value.backward()
            steps.step()
            total += value.detach()
            if after_step is not None:
                after_step(epoch * len(batches) + index)
        record = {"loss": float(total) / len(batches), "seconds": time.perf_counter() - start}
        if not record["loss"] < float("inf"):
            raise FloatingPointError(
                f"the loss of {job.cell} is {record['loss']} in epoch {epoch}: lower the learning rate"
            )
        history.append({**record, **measured(net, job.data, measure)})
        vbd.save_checkpoint(
            path,
            {
                "net": net.state_dict(),
                "optimizer": steps.state_dict(),
                "random_state": get_random_state(),
                "history": history,
            },
        )
        job.tick(1)
    return history
