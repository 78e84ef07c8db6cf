"""What of a network matters: its calls as steps, which units each has, which are constant, and which are needed."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from operator import attrgetter

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression import channelwise, heads, joining, layers, norms, reshaping  # noqa: F401  (their entries)
from pyro_vbd.compression.differences import tensors
from pyro_vbd.compression.operation import Barrier, Operation, find_operation
from pyro_vbd.compression.units import Axis, Units

__all__ = ["analyse", "is_kept", "shared_modules"]


class InputStep(Operation):
    """An input of the network: nothing of it can go."""

    def forward(self) -> Axis | None:
        if len(self.shape) < 2:
            return None
        units = self.units.new(self.shape[1])
        self.units.pin(units)
        return Axis(1, units, torch.full((len(units),), torch.nan, dtype=torch.float64))

    def backward(self) -> list[Tensor | None]:
        return []


def analyse(traced: fx.GraphModule, keep: Sequence[str]) -> tuple[list[Operation], Units]:
    """The steps of a network in order, each with its units, its constants and what of it is needed; and all units.

    Args:
        traced: the network's calls, with the shapes of their results (:func:`~pyro_vbd.compression.tracing.trace`).
        keep: patterns of names of modules to leave whole.

    Raises:
        TypeError: for a module that cannot be cut.
    """
    units = Units()
    found: dict[fx.Node, Operation] = {}
    shared = shared_modules(traced)
    for node in traced.graph.nodes:
        if next(tensors(node.meta["value"]), None) is None:
            continue
        module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        inputs = [found[source] for source in node.all_input_nodes if source in found]
        if node.op == "placeholder":
            kind: type[Operation] = InputStep
        elif node.op in ("get_attr", "output") or module in shared or is_kept(node, keep):
            kind = Barrier
        elif any(not isinstance(source.node.meta["value"], Tensor) for source in inputs):
            kind = Barrier  # takes a part of a tuple
        else:
            kind = find_operation(node, module)
        step = kind(node, module, inputs, units)
        step.axis = step.forward() if isinstance(node.meta["value"], Tensor) else None
        step.needed = torch.zeros(0 if step.axis is None else len(step.axis.units), dtype=torch.bool)
        found[node] = step
    steps = list(found.values())
    for step in reversed(steps):
        for source, reads in zip(step.inputs, step.backward(), strict=True):
            if source.axis is not None:
                source.needed |= torch.ones_like(source.needed) if reads is None else reads.to(source.needed.device)
    return steps, units


def shared_modules(traced: fx.GraphModule) -> set[nn.Module]:
    """Modules with parameters that run more than once, or with a tensor of another module's or that the code reads.

    They are left whole.
    """
    calls: dict[nn.Module, int] = {}
    owners: dict[int, set[nn.Module]] = {}
    read: set[int] = set()
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            read.add(id(attrgetter(str(node.target))(traced)))
        elif node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            calls[module] = calls.get(module, 0) + 1
            for tensor in (*module.parameters(), *module.buffers()):
                owners.setdefault(id(tensor), set()).add(module)
    tied = {m for tensor, modules in owners.items() if len(modules) > 1 or tensor in read for m in modules}
    return tied | {m for m, count in calls.items() if count > 1 and next(m.parameters(), None) is not None}


def is_kept(node: fx.Node, keep: Sequence[str]) -> bool:
    """Whether a call is of a module that is to be left whole."""
    return node.op == "call_module" and any(fnmatchcase(str(node.target), pattern) for pattern in keep)
