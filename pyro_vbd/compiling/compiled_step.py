"""The programs of one traced step: its loss and gradients, and the same with Adam's update behind them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Optimizer

from pyro_vbd.compiling.adam import AdamUpdate, is_plain_adam
from pyro_vbd.compiling.constant_folding import fold_constants
from pyro_vbd.compiling.machine_code import Program, machine_code
from pyro_vbd.compiling.tracing import Trace
from pyro_vbd.elbo import VBD_ELBO

__all__ = ["CompiledStep", "adam_key", "as_graph"]


class CompiledStep:
    """A trace, compiled for what is asked of it: gradients, or updates by an optimizer.

    Args:
        trace: the step.
        elbo: whose ``kl_weight`` counts at each call.
        healthy: one boolean, whether updates take effect; becomes false at a loss that is not finite.
        warn: takes a sentence, where compiling fails.
    """

    def __init__(self, trace: Trace, elbo: VBD_ELBO, healthy: Tensor, warn: Callable[[str], object]) -> None:
        self.trace, self._elbo, self._healthy, self._warn = trace, elbo, healthy, warn
        self._kl_weight: float | None = None
        self._weight = torch.zeros_like(healthy, dtype=trace.parameters[0].dtype)
        self._graph = copy.deepcopy(trace.graph)
        self._fold = fold_constants(self._graph, trace.constants)
        self._folded: list[Tensor] = []
        self._versions: list[int] = []
        self._gradients: Program | None = None
        self._updates: dict[Any, tuple[AdamUpdate, Program]] = {}

    def is_ready(self, optimizer: Optimizer | None) -> bool:
        """Whether the program for updates by this optimizer (None: for gradients alone) has been compiled."""
        if optimizer is not None and is_plain_adam(optimizer, self._healthy.device):
            return adam_key(optimizer) in self._updates
        return self._gradients is not None

    @torch.no_grad()
    def gradients(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The report of :class:`Trace` and the gradients of its parameters."""
        trace = self.trace
        tensors = [*inputs, self._present_weight(), *trace.parameters, *trace.buffers, *self._constants()]
        if self._gradients is None:
            self._gradients = machine_code(copy.deepcopy(self._graph), tensors, len(inputs), self._warn)
        report, *gradients = self._gradients(*tensors)
        return report, gradients

    def update(self, optimizer: Optimizer, inputs: list[Tensor]) -> Tensor:
        """Let an optimizer take its step, unless this loss or one before it was not finite; the report."""
        if is_plain_adam(optimizer, self._healthy.device):
            return self._update_by_adam(optimizer, inputs)
        report, gradients = self.gradients(inputs)
        if bool(self._healthy.logical_and_(report[0].isfinite())):
            optimizer.zero_grad()
            for parameter, gradient in zip(self.trace.parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            for parameter in self.trace.parameters:
                parameter.grad = None  # its memory may be the program's
        return report

    # --- Adam's update behind the gradients --------------------------------------------------------------------------

    def adam_tensors(self, adam: AdamUpdate) -> tuple[list[Tensor], list[Tensor]]:
        """What :meth:`adam_step` takes after the inputs: tensors that it changes, and tensors that it reads."""
        steps, means, squares = adam.state()
        trace, weight = self.trace, self._present_weight()
        changed = [self._healthy, *trace.parameters, *trace.buffers, *means, *squares, *steps]
        return changed, [weight, *self._constants(), *adam.settings()]

    def adam_step(self, adam: AdamUpdate, inputs: int) -> Callable[..., tuple[Tensor]]:
        """A step as a function of the inputs and of :meth:`adam_tensors`; it returns the report.

        Args:
            adam: the update.
            inputs: how many tensors are inputs.
        """
        trained, updated = len(self.trace.parameters) + len(self.trace.buffers), len(adam.numbers)
        constants = len(self._constants())

        def step(*values: Tensor) -> tuple[Tensor]:
            ahead = iter(values)
            counts = inputs, 1, trained, updated, updated, updated, 1, constants, 3
            parts = [list(islice(ahead, count)) for count in counts]
            batch, (healthy,), tensors, means, squares, steps, (weight,), constant, settings = parts
            report, *gradients = self._graph(*batch, weight, *tensors, *constant)
            healthy.logical_and_(report[0].isfinite())
            adam.apply(tensors, gradients, (steps, means, squares), settings, healthy)
            return (report,)

        return step

    # --- inside ------------------------------------------------------------------------------------------------------

    def _present_weight(self) -> Tensor:
        if self._elbo.kl_weight != self._kl_weight:
            self._kl_weight = float(self._elbo.kl_weight)
            self._weight.fill_(self._kl_weight)
        return self._weight

    def _constants(self) -> list[Tensor]:
        """Those of the trace, and what is computed from them before a step."""
        constants = self.trace.constants
        versions = [0 if tensor.is_inference() else tensor._version for tensor in constants]
        if self._fold is not None and versions != self._versions:  # also where one has been written to
            self._folded, self._versions = list(self._fold(*constants)), versions
        return [*constants, *self._folded]

    @torch.no_grad()
    def _update_by_adam(self, optimizer: Optimizer, inputs: list[Tensor]) -> Tensor:
        key = adam_key(optimizer)
        adam, program = self._updates.get(key, (None, None))
        if adam is None:
            adam = AdamUpdate(optimizer, self.trace.parameters)
        changed, read = self.adam_tensors(adam)
        tensors = [*inputs, *changed, *read]
        if program is None:
            program = machine_code(as_graph(self.adam_step(adam, len(inputs)), tensors), tensors, len(inputs), self._warn)
            self._updates[key] = adam, program
        (report,) = program(*tensors)
        optimizer._opt_called = True  # type: ignore[attr-defined]  # else a learning rate scheduler warns
        return report


def as_graph(step: Callable[..., Any], example: Sequence[Tensor]) -> fx.GraphModule:
    """A function of tensors as a graph; nothing is computed, and nothing changed."""
    graph = make_fx(step, tracing_mode="fake")(*example)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def adam_key(optimizer: Optimizer) -> tuple[Any, ...]:
    """What is built into a program of an Adam: all but the learning rates, which are tensors there."""
    return id(optimizer), *((*map(id, g["params"]), g["betas"], g["eps"]) for g in optimizer.param_groups)
