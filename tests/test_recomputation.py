"""Activation checkpointing would run modules anew in backward, with other weights than those that were drawn."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import pyro_vbd as vbd


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.reentrant = reentrant

    def forward(self, x):
        hidden = checkpoint(self.second, torch.relu(self.first(x)), use_reentrant=self.reentrant)
        return self.third(torch.relu(hidden))


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("estimator", ["auto", "weights"])
def test_a_step_with_other_weights_is_refused(reentrant, estimator, device):
    model = vbd.Regressor(Checkpointed(reentrant), vbd.priors.GaussianUniform(), num_data=5).to(device)
    guide = vbd.VBDGuide(model)
    x, y = torch.randn(5, 3, device=device), torch.randn(5, device=device)
    for part in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        guide._model.model = part
        loss = vbd.VBD_ELBO(estimator=estimator)(part, guide)(x, y)
        with pytest.raises(RuntimeError, match=r"Linear runs anew during backward\(\), .* leave activation checkpointing"):
            loss.backward()
    vbd.predict(model, guide, x, num_samples=2)  # nothing is computed anew


def test_the_plain_network_may_compute_anew(device):
    model = vbd.Regressor(Checkpointed(True), vbd.priors.GaussianUniform(), num_data=5).to(device)
    net = vbd.point_network(model, vbd.VBDGuide(model))
    net(torch.randn(5, 3, device=device)).sum().backward()
    assert net.second.weight.grad.abs().sum() > 0


def test_modules_without_priors_may_compute_anew(device):
    """Their parameters are the network's own, and it has them in backward as well."""
    grads = []
    for reentrant in (True, False):
        torch.manual_seed(0)
        net = Checkpointed(reentrant)
        model = vbd.Regressor(net, vbd.priors.GaussianUniform(), num_data=5, where="third.weight").to(device)
        torch.manual_seed(1)
        x, y = torch.randn(5, 3, device=device), torch.randn(5, device=device)
        vbd.VBD_ELBO()(model, vbd.VBDGuide(model))(x, y).backward()
        grads.append(model.network.net.second.weight.grad)
    torch.testing.assert_close(*grads)
