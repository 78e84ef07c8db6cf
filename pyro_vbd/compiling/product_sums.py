"""Sums of a matrix product and what is computed element by element, kept from becoming one call of a library."""

from __future__ import annotations

import torch
from torch import fx

__all__ = ["keep_products_apart"]

_ADD, _SUB, _NEG = torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor, torch.ops.aten.neg.default
_MM, _T = torch.ops.aten.mm.default, torch.ops.aten.t.default


def keep_products_apart(graph: fx.GraphModule) -> None:
    """Write every ``mm(a, b) + c`` with a computed ``c`` as ``mm(a, b) - (-c)``, which is the same number.

    The gradient in a mean is such a sum, of the likelihood and the KL. On a CPU Inductor makes one ``addmm`` of it:
    c is written, copied into the result and read back, where it costs nothing if it is computed where the sum is read, in
    Adam's update, from tensors that are at hand there. A network whose weights are larger than a processor's caches spends
    its step on such passes.
    """
    for node in graph.graph.nodes:
        if node.target is not _ADD or node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
            continue
        for product, rest in (node.args, node.args[::-1]):
            if _source(product).target is _MM and _source(rest).target is not _MM and rest.op == "call_function":
                with graph.graph.inserting_before(node):
                    node.args = product, graph.graph.call_function(_NEG, (rest,))
                node.target = _SUB
                break
    graph.recompile()


def _source(node: fx.Node) -> fx.Node:
    """What is transposed, or the node itself: autograd transposes the product for a linear layer twice."""
    while node.target is _T:
        node = node.all_input_nodes[0]
    return node
