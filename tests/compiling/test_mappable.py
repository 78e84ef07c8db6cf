import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyro_vbd.compiling.mappable import with_reshapes


def test_a_view_of_members_that_lie_otherwise_in_memory():
    graph = make_fx(lambda x: x.view(12, 2) * 2)(torch.randn(4, 3, 2))
    stack = torch.randn(3, 2, 4, 2).permute(1, 2, 0, 3)  # no member is contiguous
    expected = torch.stack([each.reshape(12, 2) * 2 for each in stack])
    assert_close(torch.vmap(with_reshapes(graph))(stack), expected)


def test_what_is_written_through_a_view_is_seen():
    def step(x):
        base = x * 1
        base.view(6).view(2, 3).mul_(2)
        before = x.view(3, 2)
        later = x + 1
        part = later.view(6)
        later[0].add_(10)
        return base.view(6) + before.view(6) + part

    graph = make_fx(step)(torch.randn(2, 3))
    views = [node for node in graph.graph.nodes if node.target is torch.ops.aten.view.default]
    graph = with_reshapes(graph)
    kept = [node for node in graph.graph.nodes if node.target is torch.ops.aten.view.default]
    assert (len(kept), len(views)) == (4, 6)
    stack = torch.randn(3, 2, 3)
    assert_close(torch.vmap(graph)(stack), torch.stack([step(each) for each in stack]))
