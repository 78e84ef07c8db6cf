import pytest
import torch
from torch import nn

from examples.paper.dropouts import NOISES, limit_norms, with_noise
from examples.paper.networks import network
from models import convnet, mlp
from pyro_vbd import noise

RECIPE = {"length_scale": 1e-2, "delta": 0.05}


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_leaves_evaluation_alone(name):
    for net, x in ((mlp(12, (8, 8), 4), torch.randn(5, 12)), (convnet(0.25), torch.randn(2, 3, 32, 32))):
        before = net(x).detach()
        noisy = with_noise(net, name, [0.2, 0.5], RECIPE)
        assert (name == "none") == torch.equal(noisy(x), before)
        torch.testing.assert_close(noisy.eval()(x), before)


def test_rates_of_the_input_and_of_the_rest():
    net = with_noise(network("100"), "bernoulli", [0.2, 0.5], {})
    assert [m.p for m in net if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5, 0.5]
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [100, 100, 100, 10]


def test_gaussian_noise_has_the_variance_of_the_rate():
    net = with_noise(mlp(12, (8,), 4), "gaussian", [0.2, 0.5], {})
    assert [m.p for m in net if isinstance(m, noise.GaussianNoise)] == [0.2, 0.5]


def test_a_rate_of_zero_leaves_the_layer():
    net = with_noise(convnet(), "concrete", [0.0, 0.5], RECIPE)
    assert isinstance(net[0], nn.Conv2d)
    kinds = [module.spatial for module in net if isinstance(module, noise.ConcreteDropout)]
    assert kinds == [True, False, False, False]


def test_the_adversary_stands_before_the_last_layer():
    net = with_noise(convnet(), "adversarial", [0.0, 0.5], RECIPE)
    assert [type(m) for m in net[-3:]] == [noise.AdversarialDropout, nn.Dropout, nn.Linear]


def test_max_norm():
    net = mlp(6, (5,), 4)
    with torch.no_grad():
        net[1].weight[0] *= 100
        net[1].weight[1] *= 1e-3
    before = net[1].weight.detach().clone()
    limit_norms(net, 2.0)
    norms = net[1].weight.norm(dim=1)
    assert norms.max() <= 2.0 + 1e-5
    torch.testing.assert_close(norms[0].item(), 2.0)
    assert torch.equal(net[1].weight[1], before[1])
    conv = nn.Sequential(nn.Conv2d(3, 2, 5))
    with torch.no_grad():
        conv[0].weight.fill_(1.0)
    limit_norms(conv, 2.0)
    torch.testing.assert_close(conv[0].weight.flatten(1).norm(dim=1), torch.full((2,), 2.0))
