"""Deterministic fine-tuning: a plain network trained further, its zeros staying zeros."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from pyro_vbd.inputs import arguments
from pyro_vbd.modes import in_mode
from pyro_vbd.noise.gate import Gate
from pyro_vbd.placement import moved
from pyro_vbd.training.schedules import Schedule, linear_decay

__all__ = ["fine_tune", "zero_masks"]


_DECAY = linear_decay()


def zero_masks(net: nn.Module) -> dict[str, Tensor]:
    """Masks of a plain network's weights and gates by ``state_dict`` name: False where one is 0."""
    gates = {id(module.weight) for module in net.modules() if isinstance(module, Gate)}
    return {name: p != 0 for name, p in net.named_parameters() if p.dim() > 1 or id(p) in gates}


def fine_tune(
    net: nn.Module,
    data: Iterable[Any],
    *,
    epochs: int,
    lr: float = 1e-4,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    lr_schedule: Schedule = _DECAY,
    progress: bool = True,
) -> list[float]:
    """Train a network in place by Adam; weights and gates that are 0 stay so, for they have no gradient.

    Args:
        net: a network, cut or not: cut, each step is quicker.
        data: a DataLoader, ``vbd.Batches``, or anything that gives batches ``(x, y)`` anew at each pass, x a tuple or dict
            where the network has several inputs; they are moved to the device of the network.
        epochs: passes through the data.
        lr: learning rate.
        loss: of the network's outputs and the targets; the mean over a batch.
        lr_schedule: multiplier of the learning rate by epoch.
        progress: whether to show a bar.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: for no epochs, no data, or a network without weights.
        FloatingPointError: when the loss is no longer finite; the network is then as it was before.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs} trains nothing: use 1 or more")
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(net).__name__} has no parameter to train: none asks for a gradient")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    masks = zero_masks(net)
    # not by torch.nn.utils.prune, whose masks wait for a call of the module: attention reads the weights of some uncalled
    handles = [
        p.register_hook(lambda gradient, mask=masks[name]: gradient.where(mask, 0.0))
        for name, p in net.named_parameters()
        if p.requires_grad and name in masks
    ]
    try:
        history = _train(net, data, epochs, lr, loss, lr_schedule, progress)
    except BaseException:
        net.load_state_dict(before)
        raise
    finally:
        for handle in handles:
            handle.remove()
    return history


def _train(
    net: nn.Module,
    data: Iterable[Any],
    epochs: int,
    lr: float,
    loss: Callable[[Tensor, Tensor], Tensor],
    lr_schedule: Schedule,
    progress: bool,
) -> list[float]:
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=lr)
    history = []
    bar = tqdm(total=epochs, disable=not progress, desc="fine-tune", unit="epoch")
    with bar, in_mode(net, True):
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = lr * lr_schedule(epoch, epochs)
            total, count = 0.0, 0
            for x, y in moved(data, net):
                optimizer.zero_grad()
                args, kwargs = arguments(x)
                value = loss(net(*args, **kwargs), y)
                if not math.isfinite(value.item()):
                    raise FloatingPointError(f"the loss is {value.item()} in epoch {epoch}: lower the learning rate")
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, count = total + value.item(), count + 1
            if not count:
                raise ValueError("the data gave no batch: pass a data set that can be passed through again")
            history.append(total / count)
            bar.update()
            bar.set_postfix(loss=f"{history[-1]:.4g}")
    return history
