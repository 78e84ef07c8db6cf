"""What has to be known before a run begins: that its arguments make sense, and what it trains."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.guide import VBDGuide
from pyro_vbd.parameters import captured_parameters
from pyro_vbd.placement import moved
from pyro_vbd.prototype import untouched
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.run import Fit, module_parameters

__all__ = ["begin", "check_arguments", "check_elbo", "find_parameters", "make_optimizer"]


def check_arguments(data: Any, epochs: int, patience: int | None, validation: Any) -> None:
    """Refuse data that give their batches only once, and numbers of epochs that make no sense.

    Raises:
        ValueError: naming the argument.
    """
    for name, batches in {"data": data, "validation": validation}.items():
        if isinstance(batches, Iterator):  # the look at its first batch would take that out of the training
            raise ValueError(
                f"{name} is a {type(batches).__name__}, which gives each batch only once: pass what gives them anew at "
                "each pass, such as a list, vbd.Batches or a DataLoader"
            )
    if epochs < 1:
        raise ValueError(f"epochs={epochs} trains nothing: use 1 or more")
    if patience is not None and validation is None:
        raise ValueError(f"patience={patience} needs a validation loss to watch: pass validation=")
    if patience is not None and patience < 1:
        raise ValueError(f"patience={patience} stops before the first epoch: use 1 or more")


def begin(
    model: Any,
    guide: VBDGuide,
    elbo: VBD_ELBO,
    data: Iterable[Any],
    optimizer: Callable[[list[Tensor]], Optimizer] | None,
    lr: float,
    device: Any,
    processes: Processes,
) -> Fit:
    """A run that has not taken a step, on the device that it is to train on; of arguments of :func:`~pyro_vbd.fit`."""
    for part in (model, guide):
        if device is not None and isinstance(part, nn.Module):
            part.to(device)
    parameters = find_parameters(model, guide, elbo, data, device, processes)
    return Fit(model, guide, elbo, parameters, make_optimizer(optimizer, parameters.values(), lr))


def check_elbo(elbo: Any) -> None:
    """Refuse an objective of another kind.

    Raises:
        TypeError: naming its class.
    """
    if not isinstance(elbo, VBD_ELBO):
        name = elbo.__name__ if isinstance(elbo, type) else type(elbo).__name__
        raise TypeError(f"elbo={name} is no VBD_ELBO: pass VBD_ELBO(...), or train by pyro.infer.SVI for another objective")


def make_optimizer(make: Callable[[list[Tensor]], Optimizer] | None, parameters: Iterable[Tensor], lr: float) -> Optimizer:
    """What ``make`` makes of the parameters; Adam without it.

    Raises:
        TypeError: for one that makes no optimizer of torch, or one whose step asks for a closure, naming its class.
    """
    trained = list(parameters)
    if make is None:
        return torch.optim.Adam(trained, lr=lr, fused=not any(p.is_complex() for p in trained))
    refused = isinstance(make, Optimizer | PyroOptim) or not callable(make)
    made = None if refused else make(trained)
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"optimizer={type(make).__name__} makes no torch.optim.Optimizer: pass a function of the parameters that makes "
            "one, such as lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"
        )
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"optimizer makes a {type(made).__name__}, which evaluates the loss several times in a step, under other noise "
            "each time: use one that does not, such as torch.optim.Adam"
        )
    return made


def find_parameters(
    model: Any, guide: VBDGuide, elbo: VBD_ELBO, data: Iterable[Any], device: Any, processes: Processes
) -> dict[str, Tensor]:
    """Every leaf that the loss depends on, by name, found by one run that leaves no trace.

    Raises:
        ValueError: for no data, or, with several processes, a likelihood that is not scaled to the whole data set.
    """
    with untouched(model):
        try:
            batch = next(iter(moved(processes.share(data, 0), model, guide, device=device)))
        except StopIteration:
            raise ValueError("the data gave no batch: pass a data set that is not empty") from None
        with captured_parameters() as named:
            elbo.loss(model, guide, *batch)
        processes.check_plates(model, guide, batch)
    found = module_parameters(model, guide)
    # the names of announced ones need not be the same in the next process
    known = {id(value) for value in found.values()}
    found.update({name: value for name, value in named.items() if id(value) not in known})
    return {name: value for name, value in found.items() if value.requires_grad}
