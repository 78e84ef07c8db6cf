"""Arithmetic on single constant numbers, taken out of a traced graph before it is compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["fold_constants"]


def fold_constants(graph: fx.GraphModule, constants: list[Tensor]) -> fx.GraphModule | None:
    """Take the arithmetic on single constant numbers out of a graph, whose last inputs are ``constants``.

    A compiler that fuses would do it again for every element of a weight (the logarithm of a hyperparameter, the largest
    number below a bound): a fifth of a step under a horseshoe.

    Returns:
        The part taken out, from the constants to new inputs at the end of the graph; None where there is none.
    """
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    sources = inputs[len(inputs) - len(constants) :]
    values = {node: value for node, value in zip(sources, constants, strict=True) if value.numel() == 1}
    taken: list[fx.Node] = []
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.all_input_nodes and all(n in values for n in node.all_input_nodes):
            if not isinstance(node.target, torch._ops.OpOverload) or _has_effects(node.target):
                continue
            value = node.target(*_known(node.args, values), **_known(node.kwargs, values))
            if isinstance(value, Tensor) and value.numel() == 1:
                values[node] = value
                taken.append(node)
    results = [node for node in taken if any(user not in values for user in node.users)]
    if not results:
        return None
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {node: part.placeholder(node.name) for node in sources}
    for node in taken:
        copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[node] for node in results))
    last = inputs[-1]
    for number, node in enumerate(results):
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"folded_{number}")
        node.replace_all_uses_with(last)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return fx.GraphModule(torch.nn.Module(), part)


def _has_effects(target: torch._ops.OpOverload) -> bool:
    return target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags


def _known(value: Any, values: dict[fx.Node, Tensor]) -> Any:
    return fx.node.map_arg(value, values.__getitem__)
