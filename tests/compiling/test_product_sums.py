"""Products stay apart from what is added to them, and the numbers what they were."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vbd.compiling.product_sums import keep_products_apart

ADD, SUB = torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor


@pytest.mark.parametrize(
    ("function", "rewritten"),
    [
        (lambda a, b, c: a @ b + c.exp(), True),
        (lambda a, b, c: c.exp() + a @ b, True),
        (lambda a, b, c: c.exp() + (b.t() @ a.t()).t(), True),
        (lambda a, b, c: a @ b + c, False),  # at hand in memory: one call of a library is best
        (lambda a, b, c: a @ b + c @ b, False),
        (lambda a, b, c: a @ b + (b.t() @ c.t()).t(), False),
        (lambda a, b, c: a.exp() + c, False),
        (lambda a, b, c: torch.add(a @ b, c.exp(), alpha=2.0), False),
        (lambda a, b, c: a @ b + 1.0, False),
    ],
)
def test_sums_of_a_product_and_something_computed(function, rewritten, device):
    torch.manual_seed(0)
    inputs = [torch.randn(3, 3, device=device) for _ in range(3)]
    graph = make_fx(function, tracing_mode="fake")(*inputs)
    expected = graph(*inputs)
    sums = [node.target for node in graph.graph.nodes].count(ADD)
    keep_products_apart(graph)
    targets = [node.target for node in graph.graph.nodes]
    assert (targets.count(ADD), targets.count(SUB)) == ((sums - 1, 1) if rewritten else (sums, 0))
    assert torch.equal(graph(*inputs), expected)
