import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_vbd.noise import AdversarialDropout, adversarial_loss
from pyro_vbd.noise.adversarial import adversarial_mask


def test_the_mask_by_hand():
    mask = torch.tensor([[1.0, 1, 0, 0, 1, 1, 1, 1, 1, 1]])
    # candidates: 1 with a negative gradient, 0 with a positive one
    gradient = torch.tensor([[-3.0, 9.0, 2.0, -9.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    changed = adversarial_mask(mask, gradient, delta=0.2)  # two switches: the first 1 off, the first 0 on
    on = torch.tensor([[0.0, 1, 1, 0, 1, 1, 1, 1, 1, 1]])
    torch.testing.assert_close(changed, on * 10 / 8)


def test_no_more_switches_than_candidates():
    changed = adversarial_mask(torch.ones(1, 4), torch.tensor([[1.0, 2.0, 3.0, -4.0]]), delta=0.75)
    torch.testing.assert_close(changed, torch.tensor([[1.0, 1, 1, 0]]) * 4 / 3)


def test_each_datum_has_its_own_switches():
    gradient = torch.tensor([[-1.0, -2.0], [-2.0, -1.0]])
    torch.testing.assert_close(adversarial_mask(torch.ones(2, 2), gradient, 0.5), torch.tensor([[2.0, 0.0], [0.0, 2.0]]))


def test_a_small_delta_switches_nothing():
    assert torch.equal(adversarial_mask(torch.ones(2, 10), -torch.ones(2, 10), 0.05), torch.ones(2, 10))


def test_a_datum_without_any_activation_left():
    assert torch.equal(adversarial_mask(torch.zeros(1, 4), torch.zeros(1, 4), 0.25), torch.zeros(1, 4))


def network(delta=0.25, p=0.0):
    return nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), nn.ReLU(), AdversarialDropout(delta, p), nn.Linear(20, 3))


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_the_adversary_raises_the_loss_of_the_same_noise(p):
    net = network(p=p)
    x, y = torch.randn(200, 6), torch.randint(3, (200,))
    losses = []
    adversarial_loss(net, x, y, loss=lambda out, y: losses.append(F.cross_entropy(out, y)) or losses[-1])
    _, looked_at, adversarial = losses
    assert adversarial > looked_at


def test_other_noise_is_the_same_in_both_runs_of_the_adversary():
    net = network(delta=0.0)
    x, y = torch.randn(200, 6), torch.randint(3, (200,))
    losses = []
    adversarial_loss(net, x, y, loss=lambda out, y: losses.append(F.cross_entropy(out, y)) or losses[-1])
    assert losses[1] == losses[2]
    assert losses[0] != losses[1]


class Probe(nn.Module):
    """Records the noise that a layer here would draw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(torch.rand(3))
        return x


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_noise_before_and_behind_the_adversary_is_the_same(p):
    net = nn.Sequential(Probe(), AdversarialDropout(0.2, p), Probe(), nn.Linear(6, 3))
    adversarial_loss(net, torch.randn(5, 6), torch.randint(3, (5,)))
    for probe in (net[0], net[2]):
        first, looked_at, adversarial = probe.seen
        assert torch.equal(looked_at, adversarial)
        assert not torch.equal(first, looked_at)


def test_the_weight_and_the_gradient():
    net = network()
    net[1].p = 0.0
    x, y = torch.randn(50, 6), torch.randint(3, (50,))
    plain = F.cross_entropy(net(x), y)
    assert torch.allclose(adversarial_loss(net, x, y, weight=0.0), plain)
    both = adversarial_loss(net, x, y, weight=1.0)
    assert both > 2 * plain
    both.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net[3]._masks == []


@torch.no_grad()
def test_the_adversary_looks_at_gradients_where_none_is_kept():
    net, x, y = nn.Sequential(AdversarialDropout(0.25), nn.Linear(8, 3)), torch.randn(50, 8), torch.randint(3, (50,))
    assert adversarial_loss(net, x, y) > 2 * F.cross_entropy(net(x), y)


def test_outside_the_loss_it_is_dropout():
    layer = AdversarialDropout(p=0.5)
    out = layer(torch.ones(1000))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    x = torch.randn(5)
    assert layer.eval()(x) is x


def test_wrong_networks_and_numbers():
    with pytest.raises(ValueError, match="no AdversarialDropout"):
        adversarial_loss(nn.Linear(2, 2), torch.ones(1, 2), torch.zeros(1).long())
    with pytest.raises(ValueError, match="train"):
        adversarial_loss(network().eval(), torch.ones(1, 6), torch.zeros(1).long())
    half = nn.Sequential(AdversarialDropout(), AdversarialDropout().eval(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match="train"):
        adversarial_loss(half, torch.ones(1, 6), torch.zeros(1).long())
    net = network()
    net.unused = AdversarialDropout()
    net.forward = lambda x: nn.Sequential(*list(net.children())[:-1])(x)
    with pytest.raises(ValueError, match=r"never calls its AdversarialDropout \['unused'\]"):
        adversarial_loss(net, torch.ones(1, 6), torch.zeros(1).long())
    assert all(module._recorded is None for module in net.modules() if isinstance(module, AdversarialDropout))
    with pytest.raises(ValueError, match="delta=1"):
        AdversarialDropout(delta=1.0)


def test_a_layer_that_runs_twice_has_a_mask_for_each_call():
    """In a recurrence, and between layers of other widths: the same loss as that of two layers."""
    first, second = AdversarialDropout(0.5), AdversarialDropout(0.5)
    linear = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 2)
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    once = nn.Sequential(linear[0], first, linear[1], first, linear[2])
    two = nn.Sequential(linear[0], first, linear[1], second, linear[2])
    torch.testing.assert_close(adversarial_loss(once, x, y), adversarial_loss(two, x, y))


def test_outside_the_loss_nothing_is_kept_and_it_runs_under_transforms():
    net = nn.Sequential(nn.Linear(3, 4), AdversarialDropout(0.5, 0.3))
    x = torch.randn(2, 5, 3)
    net(x[0])
    adversarial_loss(net, x[0], torch.tensor([0, 1, 1, 0, 1]))
    net(x[0])
    assert not any(isinstance(value, torch.Tensor) or value for value in (net[1]._recorded, net[1]._masks))
    assert torch.func.vmap(net, randomness="different")(x).shape == (2, 5, 4)
