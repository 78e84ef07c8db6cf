import math

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from examples.paper.gated import factor, folded, gated
from examples.paper.measures import structure
from examples.paper.structured_vbd import gate_weights
from models import lenet_5_caffe, lenet_500_300
from pyro_vbd.noise import Gate, LogNormalGate


def sizes(net, kind):
    return [module.weight.numel() if kind is Gate else module.loc.numel() for module in net if isinstance(module, kind)]


@pytest.mark.parametrize("kind", [Gate, LogNormalGate])
def test_gates_stand_where_table_5_counts(kind):
    assert sizes(gated(lenet_500_300(), kind), kind) == [784, 500, 300]
    assert sizes(gated(lenet_5_caffe(), kind), kind) == [20, 50, 800, 500]


@pytest.mark.parametrize("make", [lenet_500_300, lenet_5_caffe])
def test_folding_keeps_the_function(make, float64):
    net = gated(make(), Gate).double()
    with torch.no_grad():
        for module in net:
            if isinstance(module, Gate):
                module.weight.copy_(torch.randn_like(module.weight))
                module.weight[::3] = 0
    x = torch.randn(5, 1, 28, 28)
    plain = folded(net)
    torch.testing.assert_close(plain(x), net(x))
    assert not any(isinstance(module, Gate) for module in plain)
    first = next(m.weight.numel() for m in net if isinstance(m, Gate))
    assert structure(plain, x[:1])["neurons"][0] == first - math.ceil(first / 3)


def test_log_normal_gates_fold_to_their_means(float64):
    net = gated(lenet_500_300(), LogNormalGate).double().eval()
    with torch.no_grad():
        for module in net:
            if isinstance(module, LogNormalGate):
                module.loc.uniform_(-5, 0)
                module.log_scale.uniform_(-3, 2)
    x = torch.randn(5, 784)
    torch.testing.assert_close(folded(net)(x), net(x))


def test_a_module_that_is_no_gate():
    with pytest.raises(TypeError, match="ReLU is no gate"):
        factor(nn.ReLU())


def test_a_gate_starts_near_one():
    weight = Gate(10_000).weight.detach()
    assert abs(float(weight.mean()) - 1) < 4 * 0.01 / 100
    assert abs(float(weight.std()) - 0.01) < 4 * 0.01 / math.sqrt(20_000)


def test_noise_is_the_same_at_all_places_of_a_channel_and_new_for_each_datum():
    class Net(nn.Sequential):
        def forward(self, x):
            self.seen = super().forward(x)
            return self.seen.mean((2, 3))

    net = Net(Gate(3))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=400, where=gate_weights(net))
    guide = vbd.VBDGuide(model, init_log_var=-1.0)
    vbd.VBD_ELBO().loss(model, guide, torch.ones(400, 3, 4, 4), torch.zeros(400).long())
    seen = model.network.net.seen
    assert torch.equal(seen.amin((2, 3)), seen.amax((2, 3)))
    deviation = float(seen[:, 0, 0, 0].std())
    assert abs(deviation - math.exp(-0.5)) < 4 * math.exp(-0.5) / math.sqrt(800)


def test_only_gates_are_bayesian():
    net = gated(lenet_5_caffe(), Gate)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=10, where=gate_weights(net))
    assert [net.get_parameter(site).numel() for site in vbd.VBDGuide(model).log_alpha()] == [20, 50, 800, 500]
