"""Outputs of linear maps are sampled, and weights of convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.estimators.by_cost import ByCostTensor
from pyro_vbd.estimators.rules import CONVOLUTIONS


@pytest.fixture
def weight(device):
    torch.manual_seed(0)
    return lambda *shape: ByCostTensor(torch.randn(shape, device=device), torch.rand(shape, device=device) + 0.5)


@pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=lambda function: function.__name__)
def test_a_convolution_reads_one_draw_everywhere(convolution, weight, device):
    dims = int(convolution.__name__[-2])
    w, x = weight(2, 2, *dims * (1,)), torch.ones(3, 2, *dims * (4,), device=device)
    y = convolution(x, w).reshape(3, 2, -1)
    torch.testing.assert_close(y, y[:1, :, :1].expand_as(y))
    torch.testing.assert_close(convolution(x, w.draw()).reshape(3, 2, -1), y)


def test_a_linear_map_has_noise_of_its_own_for_each_datum(weight, device):
    w = weight(2, 5)
    y = F.linear(torch.ones(3, 5, device=device), w)
    assert len(y[:, 0].unique()) == 3
    assert not w.is_drawn


def test_it_is_the_default_of_the_elbo(device):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).to(device)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=4)
    x, y = torch.rand(4, 1, 2, 2, device=device), torch.zeros(4, dtype=torch.long, device=device)

    def loss(**settings):
        torch.manual_seed(0)
        return vbd.VBD_ELBO(**settings)(model, guide)(x, y).item()

    guide = vbd.VBDGuide(model, init_log_var=-1.0)
    assert loss() == loss(estimator="auto") == loss(estimator={"0.weight": "weights", "3.weight": "local"})
    assert loss() != loss(estimator="local")
    assert loss() != loss(estimator="weights")
