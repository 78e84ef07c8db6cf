import torch

from examples.paper.structured_sparsity import keep_zeros, shrink, shrink_groups
from models import lenet_5_caffe, mlp


def test_the_proximal_step_by_hand():
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    torch.testing.assert_close(shrink(weight, 1.0, 0), torch.tensor([[3.0, 4.0], [0.0, 0.0]]) * (1 - 1 / 5))
    columns = shrink(weight, 1.0, 1)
    torch.testing.assert_close(columns.norm(dim=0), weight.norm(dim=0) - 1.0)


def test_it_minimises_the_penalised_distance(float64):
    # prox(v) = argmin 0.5 |w - v|^2 + s sum_g |w_g|
    target, step = torch.randn(4, 3, 2, 2), 0.7
    found = shrink(target, step, 1)

    def objective(w):
        return 0.5 * (w - target).square().sum() + step * w.movedim(1, 0).flatten(1).norm(dim=1).sum()

    best = objective(found)
    for _ in range(200):
        assert objective(found + 0.1 * torch.randn_like(found)) > best


def test_classes_stay():
    net = mlp(5, (4,), 3)
    shrink_groups(net, 0.01)
    assert all((layer.weight.norm(dim=1) > 0).all() for layer in (net[1], net[3]))
    with torch.no_grad():
        net[3].weight[0] = 1e-3
    shrink_groups(net, 0.1)
    assert net[3].weight[0].norm() > 0  # a class is no group
    shrink_groups(net, 100.0)
    assert net[1].weight.count_nonzero() == 0


def test_filters_and_channels():
    net = lenet_5_caffe()
    before = net[3].weight.detach().clone()
    shrink_groups(net, 0.05)
    by_hand = shrink(shrink(before, 0.05, 1), 0.05, 0)
    torch.testing.assert_close(net[3].weight.detach(), by_hand)


def test_what_is_gone_stays_gone():
    net = mlp(5, (4,), 3)
    with torch.no_grad():
        net[1].weight[2] = 0
    keep_zeros(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.randn(6, 5)).square().sum().backward()
    optimizer.step()
    net(torch.randn(6, 5))
    assert (net[1].weight[2] == 0).all()
    assert net[1].weight.count_nonzero() == 15
