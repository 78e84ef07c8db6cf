"""A graph whose views vmap can take: a tensor of many members lies otherwise in memory than that of one."""

from __future__ import annotations

import torch
from torch import fx

__all__ = ["with_reshapes"]

aten = torch.ops.aten


def with_reshapes(graph: fx.GraphModule) -> fx.GraphModule:
    """Let views become reshapes, which copy where strides ask for it; the graph itself, changed.

    A view stays one where it, or the memory that it looks at, is written to: a copy would not see that.
    """
    roots = {node: _root(node) for node in graph.graph.nodes}
    written = {roots[node] for user in graph.graph.nodes for node in _written_by(user)}
    for node in graph.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default) and roots[node] not in written:
            node.target = aten.reshape.default
    graph.recompile()
    return graph


def _root(node: fx.Node) -> fx.Node:
    """The node whose memory this one looks at."""
    while isinstance(node.target, torch._ops.OpOverload):
        arguments = zip(node.target._schema.arguments, node.args, strict=False)
        bases = [value for argument, value in arguments if argument.alias_info is not None]
        if not bases or not isinstance(bases[0], fx.Node):
            break
        node = bases[0]
    return node


def _written_by(node: fx.Node) -> list[fx.Node]:
    """The inputs that an operator writes to."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    arguments = zip(node.target._schema.arguments, node.args, strict=False)  # vmap takes no out=
    return [value for argument, value in arguments if argument.is_write and isinstance(value, fx.Node)]
