"""Constants are worked out once, and not at every element of a weight."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyro_vbd.compiling.constant_folding import fold_constants


def ops(graph):
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def test_arithmetic_on_single_numbers_leaves_the_graph():
    def f(x, rate, weights):
        log = rate.log()  # which is read inside of what leaves and outside
        return x * log.exp() + weights * rate.square().neg(), x + log

    x, rate, weights = torch.randn(3), torch.tensor(2.0), torch.randn(3)
    graph = make_fx(f)(x, rate, weights)
    part = fold_constants(graph, [rate, weights])
    assert not {"aten.log.default", "aten.exp.default"} & set(ops(graph))
    assert "aten.log.default" in ops(part)
    for value in (rate, torch.tensor(3.0)):
        folded = part(value, weights)
        assert len(folded) == 3
        assert_close(graph(x, value, weights, *folded), f(x, value, weights))


def test_draws_changes_in_place_and_tensors_stay():
    def f(x, rate, weights):
        noise = torch.randn_like(rate)
        spread = x + rate.expand(3)
        return x * noise + weights.exp() * weights.sum(), spread, rate.add_(1.0)

    x, rate, weights = torch.randn(3), torch.tensor(2.0), torch.randn(3)
    graph = make_fx(f)(x, rate.clone(), weights)
    before = ops(graph)
    assert fold_constants(graph, [rate, weights]) is None
    assert ops(graph) == before
