import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical, Gamma, MixtureSameFamily, Normal

from examples.paper import soft_weight_sharing
from examples.paper.measures import weight_sparsity
from examples.paper.soft_weight_sharing import MixturePrior, Shared
from models import mlp


def mixture(prior):
    means, log_precision, log_pi = (value.detach() for value in prior.components())
    return MixtureSameFamily(Categorical(logits=log_pi), Normal(means, (-0.5 * log_precision).exp()))


def made():
    prior = MixturePrior(components=5, pi_zero=0.9).double()
    with torch.no_grad():
        prior.log_precision.add_(torch.randn(5))
        prior.logits.add_(torch.randn(4))
    return prior


def test_deviations_start_where_they_are_asked_to(float64):
    _, log_precision, _ = MixturePrior(components=3, deviation=0.1).components()
    torch.testing.assert_close((-0.5 * log_precision).exp().detach(), torch.full((3,), 0.1))


@pytest.mark.parametrize("piece", [500, 1 << 16])
def test_the_density_is_that_of_the_mixture(float64, monkeypatch, piece):
    monkeypatch.setattr(soft_weight_sharing, "_PIECE", piece)
    prior, weights = made(), torch.randn(40, 30)
    torch.testing.assert_close(prior.log_prob(weights).detach(), mixture(prior).log_prob(weights).sum())


def test_the_first_component_stands_at_zero_with_its_proportion(float64):
    means, _, log_pi = made().components()
    assert means[0] == 0
    torch.testing.assert_close(log_pi.exp()[0].item(), 0.9)
    torch.testing.assert_close(log_pi.exp().sum().item(), 1.0)


def test_the_hyperprior_is_a_gamma_on_each_precision(float64):
    prior = made()
    precision = prior.log_precision.detach().exp()
    shapes, rates = torch.tensor([5e3] + 4 * [2.5e2]), torch.tensor([2.0] + 4 * [0.1])
    constant = (shapes * rates.log() - torch.lgamma(shapes)).sum()
    exact = Gamma(shapes, rates).log_prob(precision).sum() - constant
    torch.testing.assert_close(prior.log_hyperprior().item(), exact.item())


@pytest.mark.parametrize("piece", [4, 1 << 16])
def test_weights_go_to_the_mean_that_most_likely_made_them(float64, monkeypatch, piece):
    monkeypatch.setattr(soft_weight_sharing, "_PIECE", piece)
    prior = MixturePrior(components=3, pi_zero=0.5, reach=1.0, deviation=0.1).double()  # means 0, -1, 1
    weights = torch.tensor([[-1.2, -0.6, -0.4], [0.3, 0.7, 2.0]])
    assert prior.quantise(weights).tolist() == [[-1, -1, 0], [0, 1, 1]]


def test_the_loss_in_nats_per_datum(float64):
    shared = Shared(mlp(4, (3,), 2), MixturePrior(components=3)).double()
    x, y = torch.randn(5, 4), torch.randint(2, (5,))
    prior = sum(shared.prior.log_prob(w) for w in (shared.net[1].weight, shared.net[3].weight))
    expected = F.cross_entropy(shared.net(x), y) - 0.05 / 60 * (prior + shared.prior.log_hyperprior())
    torch.testing.assert_close(shared.loss(x, y, tau=0.05, num_data=60), expected)


def test_values_of_all_layers_are_counted():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2))
    prior = MixturePrior(components=3, pi_zero=0.5, reach=1.0, deviation=0.1)
    for layer, weight in ((net[0], -1.0), (net[2], 1.0)):
        nn.init.constant_(layer.weight, weight)
    assert Shared(net, prior).num_values() == 2


def test_quantised_leaves_the_network_alone():
    shared = Shared(mlp(4, (3,), 2), MixturePrior(components=3, pi_zero=0.5, reach=1.0, deviation=0.1))
    before = shared.net[1].weight.detach().clone()
    net = shared.quantised()
    assert set(net[1].weight.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.equal(shared.net[1].weight, before)
    assert weight_sparsity(net)["weights"] < 18


def test_the_hyperpriors_mode_keeps_components_from_collapsing():
    # (shape - 1) / rate: standard deviations of 0.02 for all components
    prior = MixturePrior(components=3)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        (-prior.log_hyperprior()).backward()
        optimizer.step()
    deviations = (-0.5 * prior.log_precision).exp()
    assert deviations.tolist() == pytest.approx([1 / math.sqrt(4999 / 2), *2 * [1 / math.sqrt(2490)]], rel=1e-3)
