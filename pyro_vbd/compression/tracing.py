"""The network as a graph of calls, with the shape that each gives for example inputs.

``torch.fx`` and not a pruning library (torch-pruning resolves dependencies between layers from autograd's graph): such a
library removes coupled channels as a group and lets the function change, where here a channel may only go if the function
stays, which depends on the weights' values (what is constant, what is read), and a constant has to be folded. The graph is
also what says where a shape is written into the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression.select import Select
from pyro_vbd.noise.attention import HeadwiseAttention
from pyro_vbd.noise.gate import Gate

__all__ = ["call_network", "trace", "trace_calls"]


class _Tracer(fx.Tracer):
    """Stops at torch.nn's modules, at those of this library, and at those to be kept whole."""

    def __init__(self, keep: Sequence[str]) -> None:
        super().__init__()
        self._keep, self.path = keep, ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, Gate | HeadwiseAttention | Select):
            return True
        if any(fnmatchcase(module_qualified_name, pattern) for pattern in self._keep):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.path = outer  # not where it raised: that is the culprit
        return result


class _Shapes(fx.Interpreter):
    """Runs the graph and notes each result: tensors on the meta device, anything else as it is."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["value"] = fx.node.map_aggregate(
            result, lambda value: value.to("meta") if isinstance(value, Tensor) else value
        )
        return result


def trace_calls(net: nn.Module, keep: Sequence[str] = ()) -> fx.Graph:
    """The network's calls, without running it; see :func:`trace`.

    Raises:
        TypeError: for code that cannot be traced, with the module that it is of.
    """
    tracer = _Tracer(keep)
    try:
        return tracer.trace(net)
    except Exception as error:
        where = f"module {tracer.path!r}" if tracer.path else type(net).__name__
        raise TypeError(f"{where} cannot be cut, since its code cannot be traced ({error}): name it in keep=") from error


@torch.no_grad()
def trace(net: nn.Module, inputs: Any, keep: Sequence[str] = ()) -> fx.GraphModule:
    """The network's calls, each with its result's shape in ``node.meta["value"]``.

    Args:
        net: a network in evaluation mode.
        inputs: example inputs: a tensor, or a tuple or dict of them.
        keep: patterns of names of modules not to look into.

    Raises:
        TypeError: for code whose course depends on the data, with the name of the module.
    """
    graph = trace_calls(net, keep)
    module = fx.GraphModule(net, graph)
    _Shapes(module).run(*_positional(graph, inputs))
    return module


def call_network(net: nn.Module, inputs: Any) -> Any:
    """The output for a tensor, or a tuple or dict of them."""
    if isinstance(inputs, Mapping):
        return net(**inputs)
    return net(*inputs) if isinstance(inputs, tuple | list) else net(inputs)


def _positional(graph: fx.Graph, inputs: Any) -> tuple[Any, ...]:
    if not isinstance(inputs, Mapping):
        return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    names = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    used = names[: max((names.index(name) for name in inputs), default=-1) + 1]
    defaults = {str(node.target): node.args[0] for node in graph.nodes if node.op == "placeholder" and node.args}
    return tuple(inputs[name] if name in inputs else defaults[name] for name in used)
