"""The network as a graph of calls, with the shape that each gives for example inputs.

``torch.fx`` and not a pruning library (torch-pruning resolves dependencies between layers from autograd's graph): such a
library removes coupled channels as a group and lets the function change, where here a channel may only go if the function
stays, which depends on the weights' values (what is constant, what is read), and a constant has to be folded. The graph is
also what says where a shape is written into the code.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from pyro_vbd.compression.select import Select
from pyro_vbd.inputs import arguments
from pyro_vbd.noise.attention import HeadwiseAttention
from pyro_vbd.noise.gate import Gate

__all__ = ["call_network", "trace", "trace_calls"]


class _Tracer(fx.Tracer):
    """Stops at torch.nn's modules, at those of this library, and at those to be kept whole."""

    # a pickled graph is traced anew by a tracer that is made without arguments
    def __init__(self, keep: Sequence[str] = (), given: Sequence[str] | None = None) -> None:
        super().__init__()
        self._keep, self._given, self.path = keep, given, ""

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        fn, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        return fn, [self._value(arg.node) if isinstance(arg, fx.Proxy) else arg for arg in args]

    def _value(self, node: fx.Node) -> Any:
        """What stands for an argument in the code: a default where it is not given, so that ``if mask is None`` holds."""
        if self._given is None or str(node.target) in self._given or not node.args:
            return fx.Proxy(node, self)
        self.graph.erase_node(node)
        return node.args[0]

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

    at = ""

    def run_node(self, n: fx.Node) -> Any:
        self.at = str(n.target)
        result = super().run_node(n)
        n.meta["value"] = fx.node.map_aggregate(
            result, lambda value: value.to("meta") if isinstance(value, Tensor) else value
        )
        return result


def trace_calls(net: nn.Module, keep: Sequence[str] = (), given: Sequence[str] | None = None) -> fx.Graph:
    """The network's calls, without running it; see :func:`trace`.

    Args:
        net: a network.
        keep: patterns of names of modules not to look into.
        given: names of the arguments that are given, all by default; the others have their defaults for good.

    Raises:
        TypeError: for code that cannot be traced, with the module that it is of.
    """
    tracer = _Tracer(keep, given)
    try:
        return tracer.trace(net)
    except Exception as error:
        if tracer.path:
            where, mend = f"module {tracer.path!r}", "name it in keep="
        else:  # the root has no name to keep it by
            where, mend = type(net).__name__, "move what is not traceable in its forward to a submodule, named in keep="
        raise TypeError(f"{where} cannot be cut, since its code cannot be traced ({error}): {mend}") from error


@torch.no_grad()
def trace(net: nn.Module, inputs: Any, keep: Sequence[str] = ()) -> fx.GraphModule:
    """The network's calls, each with its result's shape in ``node.meta["value"]``.

    Args:
        net: a network in evaluation mode.
        inputs: example inputs: a tensor, or a tuple or dict of them.
        keep: patterns of names of modules not to look into.

    Raises:
        TypeError: for code whose course depends on the data, with the name of the module.
        ValueError: for inputs that do not fit.
    """
    graph = trace_calls(net, keep, _names_of(net, inputs))
    module = fx.GraphModule(net, graph)
    shapes = _Shapes(module)
    try:
        shapes.run(*_positional(graph, inputs))
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        given = [tuple(leaf.shape) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        raise ValueError(
            f"{type(net).__name__} does not run on example inputs of shapes {given}: at {shapes.at!r}, "
            f"{str(error).partition(chr(10))[0]}; pass others by inputs="
        ) from error
    return module


def _names_of(net: nn.Module, inputs: Any) -> list[str]:
    """The arguments that example inputs are for."""
    if isinstance(inputs, Mapping):
        return list(inputs)
    names = list(inspect.signature(net.forward).parameters)
    return names[: len(arguments(inputs)[0])]


def call_network(net: nn.Module, inputs: Any) -> Any:
    """The output for a tensor, or a tuple or dict of them."""
    args, kwargs = arguments(inputs)
    return net(*args, **kwargs)


def _positional(graph: fx.Graph, inputs: Any) -> tuple[Any, ...]:
    if not isinstance(inputs, Mapping):
        return arguments(inputs)[0]
    return tuple(inputs[str(node.target)] for node in graph.nodes if node.op == "placeholder")
